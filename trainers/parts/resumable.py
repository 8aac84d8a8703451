"""A trainer of Dassl whose runs go on bit for bit, and whose checkpoints hold the learner alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dassl.engine import TrainerX

from ...record.files import write_bytes
from .checkpoints import checkpoint_path
from .loading import load_learner, refuse_other_texts
from .resume import find_state, restore_generators, restore_state, save_state

if TYPE_CHECKING:
    from ...record.recorder import Recorder


class ResumableTrainer(TrainerX):
    """Commit the state of every epoch, go on from the last one, and load learners; see `resume.py`.

    Attributes:
        checkpoint_folder: Name under which the learner is registered, and so of its folder below the output folder; the
            official one.
        learner: Module with all learned parameters, in fp32; None for a method that learns nothing.
        recorder: Keeps what the run leaves behind.
    """

    checkpoint_folder = "prompt_learner"
    saves_resume_state = False  # Dassl need not: `save_model` does
    learner: Any  # an nn.Module of the method's own class, or None
    recorder: Recorder
    cfg: Any  # Dassl's attributes from here on
    dm: Any
    train_loader_x: Any
    test_loader: Any

    def before_train(self) -> None:
        """Resume if there is something to resume, and begin the record."""
        self._resumed: dict[str, Any] | None = None
        super().before_train()
        self.recorder.start_training(self._resumed["run"]["history"] if self._resumed else [], self.start_epoch)
        if self._resumed:
            restore_generators(self._resumed)
            self._complete_checkpoints(self.cfg.RESUME or self.cfg.OUTPUT_DIR)
        # From the first moment on there is one whole state to go on from, whatever is killed when.
        save_state(self, self.output_dir, self.start_epoch)

    def check_resume(self) -> None:
        """Refuse a run that cannot go on, before anything is changed; see :func:`.resume.find_state`."""
        if self.learner is not None:
            find_state(self, self.cfg.RESUME or self.cfg.OUTPUT_DIR)

    def resume_model_if_exist(self, directory: str) -> int:
        """Go on from the last committed state of a run; return the epoch to go on with.

        Raises:
            ValueError: The state is damaged, or of another run.
        """
        state = find_state(self, directory)
        if state is None:
            print(f"No checkpoint found in {directory}, train from scratch")
            return 0
        restore_state(self, state, directory)
        self._resumed = state
        print(f"Resuming the run in {directory} after epoch {state['epoch']} of {self.max_epoch}")
        return state["epoch"]

    def _complete_checkpoints(self, source: str) -> None:
        """Write the checkpoint files that a kill, or another output folder, has kept from being there."""
        here, there = (Path(folder, self.checkpoint_folder) for folder in (self.output_dir, source))
        best = there / "model-best.pth.tar"
        if self.cfg.TEST.FINAL_MODEL == "best_val" and here.resolve() != there.resolve() and best.is_file():
            here.mkdir(parents=True, exist_ok=True)
            write_bytes(here / best.name, best.read_bytes())
        freq, epoch = self.cfg.TRAIN.CHECKPOINT_FREQ, self.start_epoch
        due = epoch == self.max_epoch or (freq > 0 and epoch % freq == 0)
        if epoch and due and not (here / f"model.pth.tar-{epoch}").is_file():
            self.save_model(epoch - 1, self.output_dir)

    def save_model(self, epoch: int, directory: str, *args: Any, **kwargs: Any) -> None:
        """Write Dassl's checkpoint files, then commit the state that a resumed run goes on from."""
        super().save_model(epoch, directory, *args, **kwargs)
        if self.learner is not None:
            save_state(self, directory, epoch + 1)

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load the learner's weights, ours or official, from a training run's folder.

        Args:
            directory: Output folder of the training run, or a ``.safetensors`` file; empty loads nothing.
            epoch: Default: the best model if one was kept, else the last.

        Raises:
            FileNotFoundError: No such checkpoint.
            ValueError: It does not fit this method, its settings or (class-specific contexts) its classes; it is of
                one half of the classes, described by another source; an epoch of a single file.
        """
        if self.learner is None:
            print("No checkpoint is loaded: nothing is learned")
        elif not directory:
            print("No checkpoint is loaded: no folder is given")
        else:
            path = checkpoint_path(directory, self.checkpoint_folder, epoch)
            refuse_other_texts(self, load_learner(self, path), path)

    def _deployed_checkpoint(self) -> Path | None:
        """Return the file that a test of this run will load; None if there is none."""
        try:
            return checkpoint_path(self.output_dir, self.checkpoint_folder)
        except FileNotFoundError:
            return None
