"""What the keys of Dassl's config take that trainers of this package honour, and the keys that are added to them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from .allowed import Flag, LikeDefault, OneOf, Range, Real, Rule, Several, Template, Text, Whole
from .config import get, keys

# Keys that Dassl lacks: CoOp's class halves; those for own images (docs/own_images.md); the project of Weights &
# Biases; crops, which Dassl 0.5 does not know; the epsilon of HiCroPL's Adam; nodes and keys of authors' code outside
# of the method's own: ProGrad's, CoPrompt's, MMRL's TASK, DePT's.
ADDED: dict[str, Any] = {
    "TASK": "",
    "DATASET.SUBSAMPLE_CLASSES": "all",
    "DATASET.CSV": "",
    "DATASET.TEMPLATE": "",
    "DATASET.DESCRIPTIONS": "",
    "DATASET.GREY_RANGE": [],
    "DATASET.FEWER_SHOTS": False,
    "TRAIN.WANDB": "",
    "TRAIN.MICRO_BATCH": None,
    "INPUT.RRCROP_SCALE": (0.08, 1.0),
    "OPTIM.EPS": 1e-8,
    "LOSS.GM": False,
    "LOSS.NAME": "",
    "LOSS.ALPHA": 0.0,
    "LOSS.T": 1.0,
    "LOSS.LAMBDA": 1.0,
    "TRAINER.W": 1.0,
    "TRAINER.DISTILL": "cosine",
    "TRAINER.LINEAR_PROBE.TYPE": "linear",
    "TRAINER.LINEAR_PROBE.WEIGHT": 0.7,
    "TRAINER.LINEAR_PROBE.TEST_TIME_FUSION": True,
    "TRAINER.FILM.LINEAR_PROBE": True,
    "TRAINER.NAMES_TO_UPDATE": ["prompt_learner", "linear_probe", "film"],
}
# Names that real Dassl has; the stand-in says so where it lacks one.
TRANSFORMS = (
    *("random_flip", "random_resized_crop", "random_crop", "center_crop", "random_translation", "colorjitter"),
    *("randomgrayscale", "gaussian_blur", "cutout", "normalize", "gaussian_noise", "instance_norm"),
    *("imagenet_policy", "cifar10_policy", "svhn_policy", "randaugment", "randaugment2", "randaugment_fixmatch"),
)
SAMPLERS = ("RandomSampler", "SequentialSampler", "RandomDomainSampler", "SeqDomainSampler", "RandomClassSampler")
TASKS = ("", "B2N", "FS", "CD")
BATCH = Whole("images in a batch", 1, 100_000)
JITTER = Real("strength of the colour jitter", 0, 100)
BETA = Real("Adam's decay of the averages", 0, 1, below=True)

KEYS: dict[str, Rule] = {
    "TASK": OneOf("which logits MMRL's tests read, by its authors' protocols; '': by what is known", TASKS),
    "SEED": Whole("seed of all random draws; -1: not fixed", -1, 2**32 - 1),
    "OUTPUT_DIR": Text("folder of the run's results", empty=False),
    "RESUME": Text("folder of the run to go on with; empty: OUTPUT_DIR"),
    "INPUT.SIZE": Several("height and width in pixels; follows the backbone", Whole("", 1, 4096), 2),
    "INPUT.INTERPOLATION": OneOf("interpolation of the resizing", ("bilinear", "bicubic", "nearest")),
    "INPUT.TRANSFORMS": Several("augmentation, in any order", OneOf("", TRANSFORMS)),
    "INPUT.NO_TRANSFORM": OneOf("images without transforms; no method here takes them", (False,)),
    "INPUT.PIXEL_MEAN": Several("mean of the colours, R G B, of 0 to 1", Real("", 0, 1), 3),
    "INPUT.PIXEL_STD": Several("standard deviation of the colours, R G B", Real("", 0, 10, above=True), 3),
    "INPUT.CROP_PADDING": Whole("padding of random_crop in pixels", 0, 4096),
    "INPUT.RRCROP_SCALE": Several("least and most area of random_resized_crop", Real("", 0, 1, above=True), 2, True),
    "INPUT.CUTOUT_N": Whole("holes of cutout", 0, 10_000),
    "INPUT.CUTOUT_LEN": Whole("edge of cutout's holes in pixels", 0, 4096),
    "INPUT.GN_MEAN": Real("mean of gaussian_noise", -100, 100),
    "INPUT.GN_STD": Real("standard deviation of gaussian_noise", 0, 100),
    "INPUT.RANDAUGMENT_N": Whole("steps of randaugment", 0, 100),
    "INPUT.RANDAUGMENT_M": Whole("strength of randaugment", 0, 30),
    "INPUT.COLORJITTER_B": JITTER,
    "INPUT.COLORJITTER_C": JITTER,
    "INPUT.COLORJITTER_S": JITTER,
    "INPUT.COLORJITTER_H": Real("shift of the hue", 0, 0.5),
    "INPUT.RGS_P": Real("probability of grey", 0, 1),
    "INPUT.GB_P": Real("probability of the blur", 0, 1),
    "INPUT.GB_K": OneOf("edge of the blur's kernel in pixels", tuple(range(1, 100, 2))),
    "DATASET.SOURCE_DOMAINS": Several("domains to train on, in Dassl's own data sets", Text("", False)),
    "DATASET.TARGET_DOMAINS": Several("domains to test on, in Dassl's own data sets", Text("", False)),
    "DATASET.NUM_SHOTS": Whole("training images a class; -1: all", 1, 1_000_000, (-1,)),
    "DATASET.SUBSAMPLE_CLASSES": OneOf("classes: all, or one half of them", ("all", "base", "new")),
    "DATASET.TEMPLATE": Template("hand-written prompt; empty: the data set's"),
    "DATASET.DESCRIPTIONS": Text(
        "JSON of class descriptions, a folder of them, or templates; empty: those in the data root, else templates"
    ),
    "DATASET.GREY_RANGE": Range("black and white of images of more than 8 bits; empty: by the file's mode"),
    "DATASET.FEWER_SHOTS": Flag("a class with fewer images than NUM_SHOTS gives all that it has"),
    "DATASET.CSV": Text("table of own images"),
    "DATASET.VAL_PERCENT": Real("share of the training images that validates, in Dassl's own data sets", 0, 1),
    "DATALOADER.NUM_WORKERS": Whole("processes that load images; 0: none", 0, 1024),
    "DATALOADER.K_TRANSFORMS": Whole("augmented views of each training image", 1, 1000),
    "DATALOADER.RETURN_IMG0": Flag("also load the image without augmentation"),
    "DATALOADER.TRAIN_X.BATCH_SIZE": BATCH,
    "DATALOADER.TRAIN_U.BATCH_SIZE": BATCH,
    "DATALOADER.TEST.BATCH_SIZE": BATCH,
    "DATALOADER.TRAIN_X.SAMPLER": OneOf("order of the training images", SAMPLERS),
    "DATALOADER.TRAIN_U.SAMPLER": OneOf("order of the unlabelled images", SAMPLERS),
    "DATALOADER.TEST.SAMPLER": OneOf("order of the test images", SAMPLERS),
    "DATALOADER.TRAIN_X.N_DOMAIN": Whole("domains in a batch", 0, 100_000),
    "DATALOADER.TRAIN_X.N_INS": Whole("images of a class in a batch", 1, 100_000),
    "DATALOADER.TRAIN_U.N_DOMAIN": Whole("domains in a batch", 0, 100_000),
    "DATALOADER.TRAIN_U.N_INS": Whole("images of a class in a batch", 1, 100_000),
    "MODEL.BACKBONE.NAME": Text("tiny (embedded), an OpenAI name such as ViT-B/16, or a file", empty=False),
    "MODEL.HEAD.HIDDEN_LAYERS": Several("widths of a head, in Dassl's own trainers", Whole("", 1, 1_000_000)),
    "MODEL.INIT_WEIGHTS": Text("checkpoint that training starts from"),
    "OPTIM.NAME": OneOf("optimiser", ("adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw")),
    "OPTIM.LR": Real("learning rate after the warm-up", 0, 100),
    "OPTIM.WEIGHT_DECAY": Real("weight decay", 0, 100),
    "OPTIM.MOMENTUM": Real("momentum", 0, 1, below=True),
    "OPTIM.SGD_DAMPNING": Real("dampening of the momentum", 0, 1),
    "OPTIM.SGD_NESTEROV": Flag("Nesterov's momentum"),
    "OPTIM.RMSPROP_ALPHA": Real("decay of rmsprop's average", 0, 1, below=True),
    "OPTIM.ADAM_BETA1": BETA,
    "OPTIM.ADAM_BETA2": BETA,
    "OPTIM.EPS": Real("epsilon of the Adam family and of rmsprop", 0, 1, above=True),
    "OPTIM.STAGED_LR": Flag("other learning rates for NEW_LAYERS than for the rest"),
    "OPTIM.NEW_LAYERS": Several("modules of the learner that keep the whole rate", Text("", False)),
    "OPTIM.WARMUP_RECOUNT": Flag("start the schedule from its beginning after the warm-up"),
    "OPTIM.BASE_LR_MULT": Real("factor on the rate of layers that are not in NEW_LAYERS", 0, 100),
    "OPTIM.LR_SCHEDULER": OneOf("schedule of the learning rate", ("single_step", "multi_step", "cosine")),
    "OPTIM.STEPSIZE": Several("epochs of the steps; -1: MAX_EPOCH", Whole("", 1, 1_000_000, (-1,))),
    "OPTIM.GAMMA": Real("factor on the learning rate at a step", 0, 1, above=True),
    "OPTIM.MAX_EPOCH": Whole("epochs", 1, 1_000_000),
    "OPTIM.WARMUP_EPOCH": Whole("epochs of the warm-up; -1 and 0: none", -1, 1_000_000),
    "OPTIM.WARMUP_TYPE": OneOf("kind of the warm-up", ("linear", "constant")),
    "OPTIM.WARMUP_CONS_LR": Real("learning rate of a constant warm-up", 0, 100),
    "OPTIM.WARMUP_MIN_LR": Real("first learning rate of a linear warm-up", 0, 100),
    "TRAIN.CHECKPOINT_FREQ": Whole("epochs between checkpoints; 0: only the last epoch's", 0, 1_000_000),
    "TRAIN.PRINT_FREQ": Whole("batches between two lines of the log", 1, 1_000_000_000),
    "TRAIN.COUNT_ITER": OneOf("loader that counts an epoch's batches", ("train_x", "train_u", "smaller_one")),
    "TRAIN.MICRO_BATCH": Whole(
        "views of images in memory at a time; None or 0: all; auto: what fits", 0, 1_000_000, (None, "auto")
    ),
    "TRAIN.WANDB": Text("project of Weights & Biases; empty: not used"),
    "TEST.EVALUATOR": OneOf("evaluator", ("Classification",)),
    "TEST.SPLIT": OneOf("images that are tested", ("test", "val")),
    "TEST.FINAL_MODEL": OneOf("model that is tested after training", ("last_step", "best_val")),
    "TEST.NO_TEST": Flag("no test after training"),
    "TEST.PER_CLASS_RESULT": Flag("print each class's accuracy"),
    "TEST.COMPUTE_CMAT": Flag("write the confusion matrix, cmat.pt"),
    "USE_CUDA": Flag("use the GPU, if there is one"),
    "VERBOSE": Flag("print more"),
    "LOSS.GM": Flag("in ProGrad's authors' configs; has no effect"),
    "LOSS.NAME": Text("in ProGrad's authors' configs; has no effect"),
    "LOSS.ALPHA": Real("in ProGrad's authors' configs; has no effect", 0, 1000),
    "LOSS.T": Real("ProGrad's T in its authors' configs", 0, 1000, above=True),
    "LOSS.LAMBDA": Real("ProGrad's LAMBDA in its authors' configs", 0, 1000),
    "TRAINER.W": Real("CoPrompt's W in its authors' configs", 0, 1e6),
    "TRAINER.DISTILL": OneOf("CoPrompt's DISTILL in its authors' configs", ("cosine", "mse")),
    "TRAINER.LINEAR_PROBE.TYPE": OneOf("DePT's head in its authors' configs", ("linear",)),
    "TRAINER.LINEAR_PROBE.WEIGHT": Real("DePT's WEIGHT in its authors' configs", 0, 1),
    "TRAINER.LINEAR_PROBE.TEST_TIME_FUSION": Flag("DePT's FUSION in its authors' configs"),
    "TRAINER.FILM.LINEAR_PROBE": OneOf("DePT's channels in its authors' configs", (True,)),
    "TRAINER.NAMES_TO_UPDATE": Several("in DePT's authors' configs; has no effect", Text("", False)),
}


def defaults() -> dict[str, Any]:
    """Return Dassl's keys and those that are added, trainers' left out, with their defaults."""
    from dassl.config import get_cfg_default

    cfg = get_cfg_default()
    own = {key: get(cfg, key) for key in keys(cfg) if not key.startswith("TRAINER.")}
    return {**ADDED, **own}


@lru_cache
def rules() -> Mapping[str, Rule]:
    """Return what each of these keys takes; for one that is not in the table, a value of the default's kind."""
    return {key: KEYS.get(key) or LikeDefault("", default) for key, default in defaults().items()}


def check_together(cfg: Any) -> None:
    """Refuse settings that are allowed by themselves, but not together.

    Raises:
        ValueError: Nesterov's momentum without momentum or with dampening.
    """
    s = cfg.OPTIM
    if s.NAME == "sgd" and s.SGD_NESTEROV and (s.MOMENTUM == 0 or s.SGD_DAMPNING != 0):
        raise ValueError(
            f"OPTIM.SGD_NESTEROV True needs OPTIM.MOMENTUM above 0 and OPTIM.SGD_DAMPNING 0, not {s.MOMENTUM} and "
            f"{s.SGD_DAMPNING}"
        )


def either(cfg: Any, own: str, other: str, default: Any) -> Any:
    """Return an option that may be given in two places: the value that is not the default.

    Args:
        cfg: The config.
        own: Its key in the method's node.
        other: Its key in the authors' configs.
        default: Of both.

    Raises:
        ValueError: Both are given and differ.
    """
    ours, theirs = get(cfg, own), get(cfg, other)
    if default not in (ours, theirs) and ours != theirs:
        raise ValueError(f"{own} is {ours} and {other} is {theirs}; give one of the two")
    return theirs if ours == default else ours
