"""PromptKD: a prompted student learns a prompted teacher's logits on unlabelled images (Li et al., CVPR 2024)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from dassl.metrics import compute_accuracy
from torch import Tensor, nn

from ..allowed import Flag, Real, Text, Whole
from ..clip_patches import encoders
from ..clip_patches.anatomy import anatomy
from ..clip_patches.stock import CLIP
from .base import Batch, PromptTrainer, unit
from .ivlp import IVLP
from .parts.data import load_unlabelled
from .parts.prompts import VisionPrompts
from .parts.teacher import Teacher, load_teacher, read_prompts, teacher_file

logger = logging.getLogger(__name__)

ZERO_SHOT = "zero-shot"  # the value of TEACHER_MODEL that asks for a teacher without learned prompts


class Student(VisionPrompts):
    """Deep vision prompts, and a projector from the student's joint space to the teacher's.

    Args:
        clip, n, depth: See :class:`VisionPrompts`.
        width: Of the teacher's joint space.
    """

    def __init__(self, clip: CLIP, n: int, depth: int, width: int):
        super().__init__(clip, n, depth)
        self.projector = nn.Sequential(  # of 1x1 convolutions, as in official checkpoints
            nn.Conv2d(anatomy(clip).joint_width, width, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 1)
        )

    def project(self, features: Tensor) -> Tensor:
        """Map image features, (B, d), to the teacher's joint space, (B, d_T)."""
        return self.projector(features.float()[:, :, None, None]).flatten(1)


class PromptKD(PromptTrainer):
    """Distil a teacher with PromptSRC's prompts into the prompted image tower of a smaller CLIP; transductive.

    ``KD_WEIGHT T^2 KL(teacher || student) / C``, a mean over images, of the softmax over all classes of the data set at
    temperature T; no labels. The student's classes are the teacher's class texts, in training and evaluation, so the
    teacher has to be there in evaluation as well.

    Trained on all training images of all classes, base and new, whatever NUM_SHOTS and SUBSAMPLE_CLASSES say; these
    choose what is tested. So its numbers do not compare with those of inductive methods: it has seen unlabelled images
    of the new classes, more than the shots, and a larger teacher. In the log of the training, acc is the share of
    images on which student and teacher agree.

    The authors choose the epoch by the base classes' test images; here the last one counts, or with TEST.FINAL_MODEL
    best_val the best on validation images. OFFICIAL True validates on the test images as they do. Their cross-dataset
    mode distils on each target's own images: here that is few-shot on the target, with ImageNet's teacher.
    """

    options = {
        "N_CTX_VISION": 4,
        "N_CTX_TEXT": 4,
        "CTX_INIT": "a photo of a",
        "PREC": "fp16",
        "PROMPT_DEPTH_VISION": 9,
        "PROMPT_DEPTH_TEXT": 9,
        "TEACHER_NAME": "",
        "TEACHER_MODEL": "teacher_model/{dataset}",
        "TEMPERATURE": 1.0,
        "KD_WEIGHT": 1000.0,
        "CE_WEIGHT": 0.0,
        "PROJECT_LAYER": 2,
        "OFFICIAL": False,
    }
    allowed = {
        "N_CTX_TEXT": Whole("in the authors' configs; has no effect: the teacher's checkpoint says it", 1, 75),
        "PROMPT_DEPTH_TEXT": Whole("in the authors' configs; has no effect", 0, 1000, (-1,)),
        "TEACHER_NAME": Text("CLIP of the teacher, a name or a file; empty: the backbone"),
        "TEACHER_MODEL": Text(
            "run or checkpoint of PromptSRC that holds the teacher's prompts, {dataset} and {seed} filled in; or "
            f"{ZERO_SHOT}: no learned prompts",
            empty=False,
        ),
        "TEMPERATURE": Real("temperature T of both softmaxes", 0, 1000, above=True),
        "KD_WEIGHT": Real("weight of the divergence", 0, 1e6),
        "CE_WEIGHT": Real("in the authors' configs; has no effect", 0, 1e6),
        "PROJECT_LAYER": Whole("in the authors' configs; has no effect: the projector has two layers", 1, 100),
        "OFFICIAL": Flag("choose the epoch by the test images of the classes at hand, as the authors do"),
    }
    transductive = True
    batch_coupled = "the projector's batch norm takes the statistics of the whole batch"
    checkpoint_folder = "VLPromptLearner"
    official_names = (
        (r"image_encoder\.VPT", "deep_vision.0"),
        (r"image_encoder\.transformer\.resblocks\.(\d+)\.VPT_shallow", r"deep_vision.\1"),
        (r"VPT_image_trans\.conv1\.(.+)", r"projector.\1"),
    )

    @classmethod
    def check_cfg(cls, cfg: Any) -> None:
        """Refuse batches without statistics, and OFFICIAL without a choice of the epoch."""
        super().check_cfg(cfg)
        if cfg.DATALOADER.TRAIN_X.BATCH_SIZE < 2:
            raise ValueError("PromptKD normalises over batches: DATALOADER.TRAIN_X.BATCH_SIZE is 1; take 2 or more")
        if cfg.TRAINER[cls.node()].OFFICIAL and cfg.TEST.FINAL_MODEL != "best_val":
            raise ValueError(
                f"TRAINER.{cls.node()}.OFFICIAL True chooses the epoch by test images: set TEST.FINAL_MODEL best_val"
            )

    @classmethod
    def teacher_model(cls, cfg: Any) -> str:
        """Return TEACHER_MODEL with the data set's name and the seed filled in."""
        path = cfg.TRAINER[cls.node()].TEACHER_MODEL
        return path.replace("{dataset}", cfg.DATASET.NAME).replace("{seed}", str(cfg.SEED))

    @classmethod
    def further_files(cls, cfg: Any) -> list[str]:
        """Name the teacher's files."""
        prompts = cls.teacher_model(cfg)
        named = [] if prompts == ZERO_SHOT else [f"teacher's prompts {prompts}"]
        return [*teacher_file(cfg, cfg.TRAINER[cls.node()].TEACHER_NAME), *named]

    def build_data_loader(self) -> None:
        """Load the halves that are tested, and all training images of all classes without labels."""
        super().build_data_loader()
        self.all_classes = self.classnames
        if self.task is not None:
            return
        unlabelled = load_unlabelled(self.cfg)
        self.all_classes = unlabelled.dataset.classnames
        self.train_loader_x = self.dm.train_loader_x = unlabelled.train_loader_x
        if digest := getattr(unlabelled.dataset, "fewshot_digest", None):
            self.dm.dataset.fewshot_digest = digest  # of what it is trained on
        logger.info(
            "Transductive: trained on %d unlabelled images of all %d classes, tested on %d classes",
            len(unlabelled.dataset.train_x),
            len(self.all_classes),
            len(self.classnames),
        )
        if self.settings.OFFICIAL:
            logger.warning("OFFICIAL True: the epoch is chosen by the test images")
            self.val_loader = self.test_loader

    def build_learner(self) -> Student:
        """Load the teacher, compute its class texts, build the student.

        Raises:
            ValueError: The teacher's checkpoint does not fit its CLIP.
            FileNotFoundError: There is none.
        """
        s, path = self.settings, self.teacher_model(self.cfg)
        clip = load_teacher(self, s.TEACHER_NAME)
        prompts = None
        if path != ZERO_SHOT:
            if not Path(path).expanduser().exists():
                raise FileNotFoundError(
                    f"PromptKD's teacher {path} does not exist; train PromptSRC on the base classes with the teacher's "
                    f"CLIP and name its folder: TRAINER.{self.node()}.TEACHER_MODEL <folder>; or say {ZERO_SHOT} for a "
                    "teacher without learned prompts, which is not the published method"
                )
            clip, prompts = read_prompts(clip, path, IVLP.checkpoint_folder, IVLP.official_names, s.CTX_INIT)
        self.teacher = Teacher(clip, self.template, s.CTX_INIT, prompts)
        self.class_texts = self.teacher.text_features(self.classnames)
        self.all_texts = self.class_texts
        if list(self.all_classes) != list(self.classnames):
            self.all_texts = self.teacher.text_features(self.all_classes)
        learner = Student(self.clip, s.N_CTX_VISION, s.PROMPT_DEPTH_VISION, self.all_texts.shape[1])
        if clip is not self.clip:
            self.teacher.set_precision(self.precision)
        return learner

    def check_validation(self) -> None:
        """See :meth:`PromptTrainer.check_validation`; with OFFICIAL the test images validate."""
        if not self.settings.OFFICIAL:
            super().check_validation()

    def text_features(self) -> Tensor:
        """Return the teacher's features of the classes, normalised, (C, d_T)."""
        return self.class_texts

    def image_features(self, images: Tensor) -> Tensor:
        """Return the projected features of the prompted images, normalised, (B, d_T)."""
        prompts = list(self.learner.deep_vision)
        return unit(self.learner.project(encoders.encode_image(self.clip, images, prompts)))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the divergence of the student's from the teacher's classes."""
        teacher = self.teacher.logits(batch.images, self.all_texts)
        student = self.logits(self.image_features(batch.images), self.all_texts)
        self.batch_accuracy = compute_accuracy(student.detach(), teacher.argmax(dim=1))[0].item()
        temperature = self.settings.TEMPERATURE
        ours, theirs = (F.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
        divergence = F.kl_div(ours, theirs, reduction="sum", log_target=True) / student.numel()
        return {"kd": self.settings.KD_WEIGHT * temperature**2 * divergence}
