"""Take a trained classifier out of this program.

    python -m clusterprompt.export --run <output folder> classifier.safetensors
    python -m clusterprompt.export --run <output folder> tower.onnx

.safetensors holds the class texts, for use with plain CLIP; it serves methods that leave CLIP's image tower as it is.
.onnx holds the image tower with its prompts, and the class texts: images in, image features and logits out. The graph
is compared with torch where onnxruntime is installed. All of it is in fp32.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import logging
import sys
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import __version__, load_run
from ..clip_patches import encoders
from ..clip_patches.anatomy import logit_scale, vision_tower

PLAIN_CLIP = {
    "interpolation": "bicubic",
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
}
TOLERANCE = 1e-4  # of image features and cosines, ONNX against torch


def main(argv=None) -> int:
    """Run one command line; see the module.

    Returns:
        The exit code: 0, or 2 after one line on stderr for what the user can put right.
    """
    parser = argparse.ArgumentParser(
        prog="python -m clusterprompt.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True, metavar="FOLDER", help="output folder of a training run")
    parser.add_argument("out", type=Path, help="file to write: *.safetensors or *.onnx")
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="classes, in place of those of the training; after the file"
    )
    parser.add_argument(
        "--backbone", default="", metavar="NAME", help="name or file of the run's CLIP, where it lies elsewhere now"
    )
    args = parser.parse_args(argv)
    try:
        print(export(args.run, args.out, args.classes, args.backbone))
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        if type(error).__name__ != "CheckpointError":  # the toolbox's, which real Dassl lacks
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def export(run, out: Path, classes=None, backbone: str = "") -> str:
    """Write a run's classifier; see the module.

    Args:
        run: Output folder of a training run.
        out: File to write; its ending says what.
        classes, backbone: See :func:`clusterprompt.load_run`.

    Returns:
        What was written, in a sentence.

    Raises:
        ValueError: Another ending, or a method that cannot be written so.
        ImportError: ONNX's packages are missing.
    """
    out = Path(out).expanduser()
    kinds = {".safetensors": write_classifier, ".onnx": write_tower}
    if out.suffix not in kinds:
        raise ValueError(
            f"{out} ends in {out.suffix or 'nothing'}; allowed are .safetensors (class texts) and .onnx (image tower and class texts)"
        )
    trainer = load_run(run, classes, device="cpu", precision="fp32", backbone=backbone).trainer
    if trainer.text_needs_image:
        raise ValueError(
            f"{type(trainer).__name__} writes its class texts anew for every image, so there are none to export. "
            f"Classify with python -m clusterprompt.predict --run {run}"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    return kinds[out.suffix](trainer, out)


# ---------------------------------------------------------------------- class texts
@torch.no_grad()
def write_classifier(trainer, out: Path) -> str:
    """Write text features, logit scale and metadata; raise ValueError where plain CLIP's image tower would not do."""
    from safetensors.torch import save

    if changes_images(trainer):
        raise ValueError(
            f"{type(trainer).__name__} prompts the image tower too, so its class texts are of no use with plain CLIP's image features. "
            "Export to a file that ends in .onnx, which holds the prompted tower and the class texts"
        )
    text = trainer.text_features().float().contiguous()
    about = metadata(trainer)
    part = out.with_name(out.name + ".tmp")
    part.write_bytes(save({"text_features": text, "logit_scale": logit_scale(trainer.clip)}, metadata=about))
    part.replace(out)
    note = (
        ""
        if is_plain(trainer)
        else ". Mind that the images of this run are not prepared as CLIP's own preprocess does: see its metadata"
    )
    return f"{out}: {type(trainer).__name__}, {len(text)} classes x {text.shape[1]}, {out.stat().st_size / 1e3:.0f} kB{note}"


def changes_images(trainer) -> bool:
    """Tell whether image features differ from stock CLIP's, by trying."""
    images = torch.randn(2, 3, *trainer.cfg.INPUT.SIZE, generator=torch.Generator().manual_seed(0))
    stock = F.normalize(encoders.encode_image(trainer.clip, images), dim=-1)
    return not torch.allclose(trainer.image_features(images), stock, rtol=0, atol=1e-5)


def metadata(trainer) -> dict:
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


def preprocessing(cfg) -> dict:
    """Return the steps from an RGB image to the model: shorter side resized, centre cropped, scaled to 0..1, less mean,
    by std.
    """
    normalised = "normalize" in cfg.INPUT.TRANSFORMS
    return {
        "resize": max(cfg.INPUT.SIZE),
        "crop": list(cfg.INPUT.SIZE),
        "interpolation": cfg.INPUT.INTERPOLATION,
        "mean": list(cfg.INPUT.PIXEL_MEAN) if normalised else [0.0] * 3,
        "std": list(cfg.INPUT.PIXEL_STD) if normalised else [1.0] * 3,
    }


def is_plain(trainer) -> bool:
    """Tell whether images are prepared as by the ``preprocess`` that ``clip.load`` returns."""
    steps = preprocessing(trainer.cfg)
    return all(steps[key] == value for key, value in PLAIN_CLIP.items())


# ---------------------------------------------------------------------- ONNX
class Tower(nn.Module):
    """A trainer's image tower and class texts as one module: images (B, 3, H, W) to normalised features (B, d) and
    logits (B, C).
    """

    def __init__(self, trainer):
        super().__init__()
        self.image_tower, self.learner, self.trainer = vision_tower(trainer.clip), trainer.learner, trainer
        self.register_buffer("text_features", trainer.text_features().float())
        self.register_buffer("scale", logit_scale(trainer.clip))

    def forward(self, images: Tensor):
        features = self.trainer.image_features(images)
        return features, self.scale * features @ self.text_features.T


@torch.no_grad()
def write_tower(trainer, out: Path) -> str:
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
    model = program.model_proto
    for key, value in metadata(trainer).items():
        model.metadata_props.add(key=key, value=value)
    part = out.with_name(out.name + ".tmp")
    onnx.save(model, part)
    compared = compare(tower, part, example)
    part.replace(out)
    return f"{out}: {type(trainer).__name__}, {len(trainer.classnames)} classes, {out.stat().st_size / 1e6:.1f} MB; {compared}"


def compare(tower: nn.Module, path: Path, example: Tensor) -> str:
    """Run a graph in onnxruntime beside torch, with batches of three sizes; say how far they are apart.

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
        path.unlink()
        raise ValueError(
            f"onnxruntime's results differ from torch's by {worst:.1e}, more than {TOLERANCE:.0e}: nothing was written. "
            "Try other versions of onnxruntime and torch"
        )
    return f"onnxruntime and torch agree to {worst:.1e} (features and cosines)"


@contextlib.contextmanager
def _quiet():
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


if __name__ == "__main__":
    raise SystemExit(main())
