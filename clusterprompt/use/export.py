"""Export a trained classifier: its class texts, or its image tower as ONNX."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import __version__
from ..clip_patches import encoders
from ..clip_patches.anatomy import logit_scale, vision_tower
from ..record.files import atomic_path, write_bytes
from .classifier import load_run

if TYPE_CHECKING:
    from ..trainers.base import PromptTrainer

PLAIN_CLIP = {
    "interpolation": "bicubic",
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
}
TOLERANCE = 1e-4  # of image features and cosines, ONNX against torch


def export(
    run: str | Path,
    out: str | Path,
    classes: Sequence[str] | None = None,
    backbone: str = "",
    *,
    trust_record: bool = False,
) -> str:
    """Write a run's classifier to a file, in fp32.

    ``.safetensors`` holds the class texts, for use with plain CLIP. ``.onnx`` holds the prompted image tower and the
    class texts.

    Args:
        run: Output folder of a training run.
        out: File to write; its ending says what.
        classes, backbone, trust_record: See :func:`clusterprompt.load_run`.

    Returns:
        A sentence about the file that was written.

    Raises:
        ValueError: Another ending, or a method that cannot be written so.
        ImportError: ONNX's packages are missing.
    """
    out = Path(out).expanduser()
    kinds = {".safetensors": write_classifier, ".onnx": write_tower}
    if out.suffix not in kinds:
        raise ValueError(
            f"{out} ends in {out.suffix or 'nothing'}; allowed are .safetensors (class texts) "
            "and .onnx (image tower and class texts)"
        )
    trainer = load_run(
        run, classes, device="cpu", precision="fp32", backbone=backbone, trust_record=trust_record
    ).trainer
    if trainer.text_needs_image:
        raise ValueError(
            f"{type(trainer).__name__} computes its class texts for every image, so there are none to export. "
            f"Classify with clusterprompt predict --run {run}"
        )
    if trainer.more_than_similarity:
        raise ValueError(
            f"the logits of {type(trainer).__name__} are not those of image features and class texts alone: "
            f"{trainer.more_than_similarity}. Classify with clusterprompt predict --run {run}"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    return kinds[out.suffix](trainer, out)


# ---------------------------------------------------------------------- class texts
@torch.no_grad()
def write_classifier(trainer: PromptTrainer, out: Path) -> str:
    """Write text features, logit scale and metadata; return a sentence about it.

    Raises:
        ValueError: The method changes the image features too, so the texts do not fit plain CLIP's.
    """
    from safetensors.torch import save

    if changes_images(trainer):
        raise ValueError(
            f"{type(trainer).__name__} changes the image features too, so its class texts are of no use with plain "
            "CLIP's. Export to a file that ends in .onnx, which holds the changed tower and the class texts"
        )
    text = trainer.text_features().float().contiguous()
    about = metadata(trainer)
    tensors = {"text_features": text, "logit_scale": logit_scale(trainer.clip)}
    write_bytes(out, save(tensors, metadata=about))
    size = f"{len(text)} classes x {text.shape[1]}, {out.stat().st_size / 1e3:.0f} kB"
    note = ". Mind that the images of this run are not prepared as CLIP's own preprocess does: see its metadata"
    return f"{out}: {type(trainer).__name__}, {size}{'' if is_plain(trainer) else note}"


def changes_images(trainer: PromptTrainer) -> bool:
    """Tell whether image features differ from stock CLIP's, by trying."""
    images = torch.randn(2, 3, *trainer.cfg.INPUT.SIZE, generator=torch.Generator().manual_seed(0))
    stock = F.normalize(encoders.encode_image(trainer.clip, images), dim=-1)
    features = trainer.image_features(images)
    return features.shape != stock.shape or not torch.allclose(features, stock, rtol=0, atol=1e-5)


def metadata(trainer: PromptTrainer) -> dict[str, str]:
    """Return what goes into a file beside the numbers; all of it text, lists and dicts as JSON."""
    return {
        "format": "pt",
        "written_by": f"clusterprompt {__version__}",
        "method": type(trainer).__name__,
        "backbone": trainer.cfg.MODEL.BACKBONE.NAME,
        "dataset": trainer.cfg.DATASET.NAME,
        "classes": json.dumps(list(trainer.classnames)),
        "preprocessing": json.dumps(preprocessing(trainer.cfg)),
    }


def preprocessing(cfg: Any) -> dict[str, Any]:
    """Return the steps from an RGB image to the model's input, in this order.

    Resize the shorter side, crop the centre, scale to 0..1, subtract the mean, divide by the standard deviation.
    """
    normalised = "normalize" in cfg.INPUT.TRANSFORMS
    return {
        "resize": max(cfg.INPUT.SIZE),
        "crop": list(cfg.INPUT.SIZE),
        "interpolation": cfg.INPUT.INTERPOLATION,
        "mean": list(cfg.INPUT.PIXEL_MEAN) if normalised else [0.0] * 3,
        "std": list(cfg.INPUT.PIXEL_STD) if normalised else [1.0] * 3,
    }


def is_plain(trainer: PromptTrainer) -> bool:
    """Tell whether images are prepared as by the ``preprocess`` that ``clip.load`` returns."""
    steps = preprocessing(trainer.cfg)
    return all(steps[key] == value for key, value in PLAIN_CLIP.items())


# ---------------------------------------------------------------------- ONNX
class Tower(nn.Module):
    """A trainer's image tower and class texts as one module: images to normalised features and logits."""

    text_features: Tensor
    scale: Tensor

    def __init__(self, trainer: PromptTrainer):
        super().__init__()
        self.image_tower, self.learner, self.trainer = vision_tower(trainer.clip), trainer.learner, trainer
        self.register_buffer("text_features", trainer.text_features().float())
        self.register_buffer("scale", logit_scale(trainer.clip))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features, (B, E), and logits, (B, C), of images, (B, 3, H, W)."""
        features = self.trainer.image_features(images)
        return features, self.scale * features @ self.text_features.T


@torch.no_grad()
def write_tower(trainer: PromptTrainer, out: Path) -> str:
    """Write the image tower with its prompts and the class texts as one ONNX graph, and compare it with torch.

    Inputs ``images`` (batch, 3, H, W); outputs ``image_features`` (batch, d), normalised, and ``logits`` (batch, C).
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"ONNX export needs {' and '.join(missing)}: pip install onnx onnxscript onnxruntime")
    import onnx

    tower = Tower(trainer).eval()
    example = torch.randn(2, 3, *trainer.cfg.INPUT.SIZE, generator=torch.Generator().manual_seed(0))
    with _quiet():
        program = torch.onnx.export(
            tower,
            (example,),
            dynamo=True,
            input_names=["images"],
            output_names=["image_features", "logits"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        )
    assert program is not None  # as always with dynamo=True
    model = program.model_proto
    for key, value in metadata(trainer).items():
        model.metadata_props.add(key=key, value=value)
    with atomic_path(out) as temporary:
        onnx.save(model, temporary)
        compared = compare(tower, temporary, example)
    size = f"{len(trainer.classnames)} classes, {out.stat().st_size / 1e6:.1f} MB"
    return f"{out}: {type(trainer).__name__}, {size}; {compared}"


def compare(tower: nn.Module, path: Path, example: Tensor) -> str:
    """Compare a graph in onnxruntime with torch, on batches of three sizes; return a sentence about it.

    Raises:
        ValueError: Further than :data:`TOLERANCE`, in features or in cosines.
    """
    try:
        import onnxruntime
    except ImportError:
        return "not compared with torch, for which onnxruntime is missing (pip install onnxruntime)"
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    worst = 0.0
    for images in (example[:1], example, torch.cat([example + 1, example, -example])):
        features, logits = (torch.from_numpy(found) for found in session.run(None, {"images": images.numpy()}))
        wanted, wanted_logits = tower(images)
        worst = max(
            worst,
            float((features - wanted).abs().max()),
            float((logits - wanted_logits).abs().max() / tower.scale),
        )
    if not worst <= TOLERANCE:
        raise ValueError(
            f"onnxruntime's results differ from torch's by {worst:.1e}, more than {TOLERANCE:.0e}: "
            "nothing was written. Try other versions of onnxruntime and torch"
        )
    return f"onnxruntime and torch agree to {worst:.1e} (features and cosines)"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress and its warnings about its own code from the console."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels):
            each.setLevel(level)
