"""The training loop and all around it."""

import datetime
import os
import time
from collections import OrderedDict

import torch
import torch.nn.functional as F
from tqdm import tqdm

from .._left_out import names_left_out
from ..data import DataManager
from ..evaluation import build_evaluator
from ..utils import AverageMeter, MetricMeter, load_checkpoint, resume_from_checkpoint, tolist_if_not
from ..utils.checkpoints import BEST, read_pointer, restore_checkpoint, write_checkpoint, write_pointer
from .resume import checkpoint_of, load_resume_state, read_resume_state, save_resume_state
from .writer import build_writer

_left_out = names_left_out(__name__, "TrainerXU", "SimpleNet")


def __getattr__(name):
    if name == "SummaryWriter":  # forks import it from here; importing it takes seconds, and it may be missing
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter
    return _left_out(name)


class TrainerBase:
    """Named models with their optimisers and schedules; the loop over epochs; checkpoints."""

    saves_resume_state = True  # False for a trainer that keeps the state for resuming itself

    def __init__(self):
        self._models = OrderedDict()
        self._optims = OrderedDict()
        self._scheds = OrderedDict()
        self._writer = None

    # Models

    def register_model(self, name="model", model=None, optim=None, sched=None) -> None:
        """Enter a module, its optimiser and its schedule under a name; these are trained, saved and resumed.

        Raises:
            AttributeError: The trainer's ``__init__`` has not run yet.
            AssertionError: The name is taken.
        """
        if "_models" not in self.__dict__:
            raise AttributeError(f"Cannot register {name!r} before super().__init__() of the trainer")
        if name in self._models:
            raise AssertionError(f"A model named {name!r} is already registered; each needs its own name")
        self._models[name] = model
        self._optims[name] = optim
        self._scheds[name] = sched

    def get_model_names(self, names=None) -> list[str]:
        """Return all names, or the given one(s) as a list.

        Raises:
            AssertionError: One is not registered.
        """
        if names is None:
            return list(self._models)
        names = tolist_if_not(names)
        for name in names:
            if name not in self._models:
                raise AssertionError(f"No model is registered as {name!r}; there are {list(self._models)}")
        return names

    def set_model_mode(self, mode="train", names=None) -> None:
        """Put registered modules (nothing else) into the mode "train", or "test" or "eval".

        Raises:
            KeyError: Another mode.
        """
        if mode not in ("train", "test", "eval"):
            raise KeyError(f"Mode {mode!r} is not one of train, test, eval")
        for name in self.get_model_names(names):
            self._models[name].train(mode == "train")

    def update_lr(self, names=None) -> None:
        """Step the schedules. The loop does not: ``forward_backward`` calls this on the last batch of an epoch."""
        for name in self.get_model_names(names):
            if self._scheds[name] is not None:
                self._scheds[name].step()

    def get_current_lr(self, names=None) -> float:
        """Return the learning rate of the first parameter group of the first model."""
        name = self.get_model_names(names)[0]
        return self._optims[name].param_groups[0]["lr"]

    # One step

    def detect_anomaly(self, loss) -> None:
        """Refuse a loss that would ruin the weights.

        Raises:
            FloatingPointError: An element of ``loss`` is not finite.
        """
        if not torch.isfinite(loss).all():
            epoch, batch = getattr(self, "epoch", None), getattr(self, "batch_idx", None)
            where = f" in epoch {epoch + 1}" if epoch is not None else ""
            where += f", batch {batch + 1}" if batch is not None else ""
            raise FloatingPointError(
                f"The loss is not finite (NaN or infinity){where}: {loss.detach().tolist()}. Lower "
                f"OPTIM.LR, or train in single precision"
            )

    def model_zero_grad(self, names=None) -> None:
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].zero_grad()

    def model_backward(self, loss) -> None:
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names=None) -> None:
        for name in self.get_model_names(names):
            if self._optims[name] is not None:
                self._optims[name].step()

    def model_backward_and_update(self, loss, names=None) -> None:
        """Clear the gradients, compute those of ``loss``, take a step."""
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)

    def prograd_backward_and_update(self, loss_a, loss_b, lambda_=1, names=None) -> None:
        """Take a step along the gradient of ``loss_a``, less what goes against that of ``loss_b``.

        For each parameter whose two gradients have a negative cosine, ``lambda_`` times the projection of the first on
        the second is subtracted.
        """
        params = [
            p
            for name in self.get_model_names(names)
            if self._optims[name] is not None
            for group in self._optims[name].param_groups
            for p in group["params"]
        ]
        self.model_zero_grad(names)
        self.detect_anomaly(loss_b)
        loss_b.backward(retain_graph=True)
        grads_b = [None if p.grad is None else p.grad.clone() for p in params]
        self.model_zero_grad(names)
        self.model_backward(loss_a)
        for p, grad_b in zip(params, grads_b):
            if p.grad is None or grad_b is None:
                continue
            direction = F.normalize(grad_b.flatten(), dim=0)
            along = torch.dot(p.grad.flatten(), direction)  # has the sign of the cosine
            if along < 0:
                p.grad -= lambda_ * along * direction.view_as(p.grad)
        self.model_update(names)

    # Checkpoints

    def save_model(self, epoch, directory, is_best=False, val_result=None, model_name="") -> None:
        """Write a checkpoint of each registered model, and what resuming needs.

        Args:
            epoch: Index of the epoch just finished.
            directory: Gets ``<name>/model.pth.tar-<epoch + 1>`` for each model.
            is_best: Also copy it to ``<name>/model-best.pth.tar``.
            val_result: Accuracy on the validation set, if known.
            model_name: File name in place of ``model.pth.tar-<epoch + 1>``.
        """
        paths = []
        for name in self.get_model_names():
            state = {**checkpoint_of(self, name, epoch + 1), "val_result": val_result}
            paths.append(write_checkpoint(state, os.path.join(directory, name), is_best, model_name=model_name))
        for path in paths:  # after all files, so that they never point at half a set
            write_pointer(path)
        if paths:
            self._note_weights(epoch + 1, paths[-1])
        if paths and self.saves_resume_state:  # last: this is what a resumed run goes on from
            save_resume_state(self, directory, epoch + 1)

    def resume_model_if_exist(self, directory) -> int:
        """Load the last committed state in ``directory``; of older runs the checkpoints written last.

        Returns:
            The epoch to go on with; 0 if there is nothing to resume.

        Raises:
            ValueError: The models' checkpoints are of different epochs.
        """
        names = self.get_model_names()
        folders = [os.path.join(directory, name) for name in names]
        if not names or any(read_pointer(folder) is None for folder in folders):
            print(f"No checkpoint found in {directory!r}, train from scratch")
            return 0
        print(f"Found checkpoint at {directory!r}, will resume training")
        committed = (read_resume_state(directory) or {}).get("models", {})
        if committed.keys() >= set(names):
            parts = ((committed[name], self._models[name], self._optims[name], self._scheds[name]) for name in names)
            epochs = [restore_checkpoint(*part) for part in parts]
        else:
            epochs = [
                resume_from_checkpoint(folder, self._models[name], self._optims[name], self._scheds[name])
                for name, folder in zip(names, folders)
            ]
        if len(set(epochs)) > 1:
            raise ValueError(
                f"The checkpoints in {directory!r} are of different epochs {dict(zip(names, epochs))}; let "
                f"the files named 'checkpoint' name files of the same epoch"
            )
        self._note_weights(epochs[-1], read_pointer(folders[-1]))
        return epochs[-1]

    def load_model(self, directory, epoch=None) -> None:
        """Load the weights of each registered model: of an epoch, or the best.

        Raises:
            FileNotFoundError: There is no such checkpoint.
        """
        if not directory:
            print(
                "Note that load_model() is skipped as no pretrained model is given (ignore this if it's done on "
                "purpose)"
            )
            return
        model_file = BEST if epoch is None else f"model.pth.tar-{epoch}"
        for name in self.get_model_names():
            path = os.path.join(directory, name, model_file)
            if not os.path.exists(path):
                raise FileNotFoundError(
                    f"No model at {path!r}; give the folder of a finished run and, unless it was "
                    f"trained with TEST.FINAL_MODEL best_val, its last epoch"
                )
            checkpoint = load_checkpoint(path)
            print(f"Load {path} to {name} (epoch={checkpoint.get('epoch')}, val_result={checkpoint.get('val_result')})")
            self._models[name].load_state_dict(checkpoint["state_dict"])
            self._note_weights(checkpoint.get("epoch"), path)

    def _note_weights(self, epoch, checkpoint):
        """Keep, for results.json, which weights the models have now."""
        if hasattr(self, "evaluator"):
            self.evaluator.context = {"epoch": epoch, "checkpoint": checkpoint}

    # Scalars

    def init_writer(self, log_dir) -> None:
        """Open the writer of scalars, if it is not open yet."""
        if self.__dict__.get("_writer") is None:
            self._writer = build_writer(log_dir)

    def close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def write_scalar(self, tag, value, step=None) -> None:
        """Record a number; does nothing without a writer."""
        if self._writer is not None:
            self._writer.add_scalar(tag, value, step)

    # The loop

    def train(self, start_epoch, max_epoch) -> None:
        """Run the epochs from ``start_epoch`` (which ``before_train`` may raise) to ``max_epoch``."""
        self.start_epoch = start_epoch
        self.max_epoch = max_epoch
        self.before_train()
        for self.epoch in range(self.start_epoch, self.max_epoch):
            self.before_epoch()
            self.run_epoch()
            self._note_weights(self.epoch + 1, None)
            self.after_epoch()
        self.after_train()

    def before_train(self):
        pass

    def after_train(self):
        pass

    def before_epoch(self):
        pass

    def after_epoch(self):
        pass

    def run_epoch(self):
        raise NotImplementedError

    def test(self):
        raise NotImplementedError

    def parse_batch_train(self, batch):
        raise NotImplementedError

    def parse_batch_test(self, batch):
        raise NotImplementedError

    def forward_backward(self, batch):
        raise NotImplementedError

    def model_inference(self, input):
        raise NotImplementedError


class SimpleTrainer(TrainerBase):
    """A trainer made from a configuration: data, model, evaluator, in this order.

    A subclass gives ``build_model`` (which may use ``cfg``, ``device``, ``dm``, but not ``evaluator``) and
    ``run_epoch``. Two optional methods of a subclass, ``trainer_state() -> dict`` of tensors, numbers, strings and
    containers of these, and ``load_trainer_state(state)``, keep across a resume what is not in a registered model.
    """

    def __init__(self, cfg):
        super().__init__()
        self.check_cfg(cfg)
        self.device = torch.device("cuda" if torch.cuda.is_available() and cfg.USE_CUDA else "cpu")
        self.start_epoch = self.epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.cfg = cfg
        self.build_data_loader()
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)
        self._note_weights(None, None)
        self.best_result = -float("inf")

    def check_cfg(self, cfg) -> None:
        """Raise if ``cfg`` lacks what the trainer needs; called before anything is built."""

    def build_data_loader(self) -> None:
        """Construct data set and loaders."""
        dm = DataManager(self.cfg)
        self.train_loader_x = dm.train_loader_x
        self.train_loader_u = dm.train_loader_u
        self.val_loader = dm.val_loader
        self.test_loader = dm.test_loader
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname
        self.dm = dm

    def build_model(self) -> None:
        """Construct and register the model; a subclass must.

        Raises:
            NotImplementedError: It does not.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no build_model(): construct the model there and call "
            f"register_model(name, model, optim, sched). The default network of Dassl.pytorch is "
            f"not in this toolbox"
        )

    def train(self) -> None:
        """Train from the start, or from the checkpoint in RESUME or OUTPUT_DIR, to MAX_EPOCH; then test."""
        super().train(self.start_epoch, self.max_epoch)

    def before_train(self):
        directory = self.cfg.RESUME or self.cfg.OUTPUT_DIR
        cfg = self.cfg
        if cfg.TEST.FINAL_MODEL == "best_val" and not cfg.TEST.NO_TEST and self.val_loader is None:
            raise ValueError(f"TEST.FINAL_MODEL is best_val, but {cfg.DATASET.NAME!r} has no validation set")
        self.start_epoch = self.resume_model_if_exist(directory)
        self.init_writer(os.path.join(self.output_dir, "tensorboard"))
        self.time_start = time.monotonic()
        if self.start_epoch > 0 and self.saves_resume_state:
            load_resume_state(self, directory, self.start_epoch)

    def after_epoch(self):
        cfg = self.cfg
        if not cfg.TEST.NO_TEST and cfg.TEST.FINAL_MODEL == "best_val":
            result = self.test(split="val")
            if result > self.best_result:
                self.best_result = result
                self.save_model(self.epoch, self.output_dir, val_result=result, model_name=BEST)
        freq = cfg.TRAIN.CHECKPOINT_FREQ
        if self.epoch + 1 == self.max_epoch or (freq > 0 and (self.epoch + 1) % freq == 0):
            self.save_model(self.epoch, self.output_dir)

    def after_train(self):
        # Two families of log parsers wait for two spellings.
        print("Finish training")
        print("Finished training")
        if not self.cfg.TEST.NO_TEST:
            if self.cfg.TEST.FINAL_MODEL == "best_val":
                print("Deploy the model with the best val performance")
                name = self.get_model_names()[-1]
                self._note_weights(None, os.path.join(self.output_dir, name, BEST))
                self.load_model(self.output_dir)
            else:
                print("Deploy the last-epoch model")
            self.test()
        print(f"Elapsed: {datetime.timedelta(seconds=round(time.monotonic() - self.time_start))}")
        self.close_writer()

    @torch.no_grad()
    def test(self, split=None, is_final=False) -> float:
        """Evaluate on a split.

        Args:
            split: "val" is the validation set; all else is "test". Default: cfg.TEST.SPLIT.
            is_final: Accepted for callers that pass it; has no effect.

        Returns:
            The first result of the evaluator: accuracy in percent.

        Raises:
            ValueError: "val", and there is no validation set. (Dassl takes the test set then.)
        """
        self.set_model_mode("eval")
        self.evaluator.reset()
        split = self.cfg.TEST.SPLIT if split is None else split
        if split == "val" and self.val_loader is None:
            raise ValueError(
                f"{self.cfg.DATASET.NAME!r} has no validation set; set TEST.SPLIT test and TEST.FINAL_MODEL last_step"
            )
        split, loader = ("val", self.val_loader) if split == "val" else ("test", self.test_loader)
        print(f"Evaluate on the *{split}* set")
        for batch in tqdm(loader, desc=split, disable=None, leave=False):
            input, label = self.parse_batch_test(batch)
            self.evaluator.process(self.model_inference(input), label)
        if getattr(self.evaluator, "context", None) is not None:
            self.evaluator.context["split"] = split
        results = self.evaluator.evaluate()
        for key, value in results.items():
            self.write_scalar(f"{split}/{key}", value, self.epoch)
        return next(iter(results.values()))

    def model_inference(self, input):
        """Return the logits, (B, C), of a batch of images, (B, 3, H, W)."""
        return self.model(input)

    def parse_batch_test(self, batch):
        """Return images and labels of a batch, on the device."""
        return batch["img"].to(self.device), batch["label"].to(self.device)


class TrainerX(SimpleTrainer):
    """A trainer on labelled data: a subclass gives ``build_model`` and ``forward_backward``."""

    def run_epoch(self):
        """Go once through ``train_loader_x``."""
        self.set_model_mode("train")
        losses, batch_time, data_time = MetricMeter(), AverageMeter(), AverageMeter()
        self.num_batches = len(self.train_loader_x)
        freq = self.cfg.TRAIN.PRINT_FREQ
        end = time.monotonic()
        for self.batch_idx, batch in enumerate(self.train_loader_x):
            data_time.update(time.monotonic() - end)
            losses.update(self.forward_backward(batch))
            batch_time.update(time.monotonic() - end)

            if (self.batch_idx + 1) % freq == 0 or self.num_batches < freq:
                left = self.num_batches - self.batch_idx - 1 + (self.max_epoch - self.epoch - 1) * self.num_batches
                print(
                    f"epoch [{self.epoch + 1}/{self.max_epoch}] "
                    f"batch [{self.batch_idx + 1}/{self.num_batches}] "
                    f"time {batch_time.val:.3f} ({batch_time.avg:.3f}) "
                    f"data {data_time.val:.3f} ({data_time.avg:.3f}) "
                    f"{losses} "
                    f"lr {self.get_current_lr():.4e} "
                    f"eta {datetime.timedelta(seconds=int(batch_time.avg * left))}"
                )

            step = self.epoch * self.num_batches + self.batch_idx
            for name, meter in losses.meters.items():
                self.write_scalar(f"train/{name}", meter.avg, step)
            self.write_scalar("train/lr", self.get_current_lr(), step)
            end = time.monotonic()

    def parse_batch_train(self, batch):
        """Return images, labels and domains of a batch, on the device."""
        return batch["img"].to(self.device), batch["label"].to(self.device), batch["domain"].to(self.device)
