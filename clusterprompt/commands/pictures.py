"""Draw what a trained AttriPrompt or TAC does, as PNG files and one HTML page that shows them.

    python scripts/visualise.py --run output/base2new/train_base/shapes/shots_16/AttriPrompt/basetonovel/seed1 [--images
    a.jpg b.jpg ...]

--run is the output folder of a training run. --images are any pictures; default: six test images of the run's data set.
The page is written to <run>/pictures/index.html, or where --out says. Needs matplotlib.
"""

import argparse
import html
import sys
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError

import clusterprompt

from .. import dassl_compat
from ..record import folder as run_folder

SAMPLE = 200  # test images that pool usage is counted on


def main(argv=None) -> Path:
    """Draw all pictures of a run; return the path of the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, type=Path, help="output folder of a training run of AttriPrompt or TAC")
    parser.add_argument(
        "--images", nargs="+", type=Path, default=[], help="pictures to look at; default: six test images"
    )
    parser.add_argument("--out", type=Path, help="folder of the pictures; default: <run>/pictures")
    args = parser.parse_args(argv)
    try:
        pictures = import_pictures()
        trainer = load_run(args.run)
        tensors, names = choose_images(trainer, args.images)
        drawn = pictures.PICTURES[type(trainer).__name__](trainer, tensors, names, sample_images(trainer))
    except (ValueError, FileNotFoundError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    return write_page(args.out or args.run / "pictures", args.run, drawn)


def import_pictures():
    """Import what draws; matplotlib is not needed for anything else."""
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise ImportError("pictures need matplotlib, which is not installed: pip install matplotlib") from error
    matplotlib.use("Agg")
    from ..use import pictures

    return pictures


def load_run(folder: Path):
    """Build the trainer of a run with the weights it ended with.

    Raises:
        FileNotFoundError: No run lies there, or one without weights.
        ValueError: A run of a method that has no pictures.
    """
    if not (folder / "config.yaml").is_file():
        raise FileNotFoundError(f"{folder} holds no run (no config.yaml); give the output folder of a training run")
    if not run_folder.holds_models(folder):
        raise FileNotFoundError(
            f"{folder} holds no trained weights; give the folder of the training run (train_base), not of a test"
        )
    dassl_compat.prepare()
    from dassl.config import get_cfg_default
    from dassl.engine import build_trainer

    cfg = get_cfg_default()
    clusterprompt.extend_cfg(cfg)
    cfg.merge_from_file(str(folder / "config.yaml"))
    if cfg.TRAINER.NAME not in ("AttriPrompt", "TAC") or (
        cfg.TRAINER.NAME == "AttriPrompt" and not cfg.TRAINER.ATTRIPROMPT.RETRIEVAL
    ):
        raise ValueError(
            f"{folder} is a run of {cfg.TRAINER.NAME}; there are pictures of TAC, and of AttriPrompt with retrieval"
        )
    cfg.DATALOADER.NUM_WORKERS, cfg.VERBOSE = 0, False
    cfg.freeze()
    trainer = build_trainer(cfg)
    trainer.load_model(str(folder))
    trainer.set_model_mode("eval")
    return trainer


def choose_images(trainer, paths: list, count: int = 6) -> tuple:
    """Return images as the trainer sees them, (N, 3, H, W), and their names: the files given, or test images of
    different classes.
    """
    data = trainer.test_loader.dataset
    if not paths:
        labels = [item.label for item in data.data_source]
        classes = sorted(set(labels))
        chosen = [labels.index(label) for label in classes[:: max(1, len(classes) // count)][:count]]
        return torch.stack([data[i]["img"] for i in chosen]), [
            data.data_source[i].classname.replace("_", " ") for i in chosen
        ]
    images = []
    for path in paths:
        try:
            images.append(data.transform(Image.open(path).convert("RGB")))
        except FileNotFoundError:
            raise FileNotFoundError(f"no picture {path}") from None
        except UnidentifiedImageError:
            raise ValueError(f"{path} is not a picture that can be read") from None
    return torch.stack(images), [path.stem for path in paths]


def sample_images(trainer) -> torch.Tensor:
    """Return test images spread over the classes, (N, 3, H, W)."""
    data = trainer.test_loader.dataset
    step = max(1, len(data) // SAMPLE)
    return torch.stack([data[i]["img"] for i in range(0, len(data), step)][:SAMPLE])


def write_page(folder: Path, run: Path, drawn: list) -> Path:
    """Save the figures, and a page with their captions; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for name, figure, caption in drawn:
        figure.savefig(folder / f"{name}.png", dpi=110, bbox_inches="tight", facecolor="white")
        parts.append(
            f'<figure><img src="{name}.png" alt="{html.escape(caption)}"><figcaption>{html.escape(caption)}</figcaption></figure>'
        )
        print(f"{folder / name}.png: {caption}")
    result = run_folder.read_result(run)
    accuracy = f", accuracy {result['accuracy']:.1f}%" if isinstance(result.get("accuracy"), float) else ""
    title = f"{result.get('trainer', '')} on {result.get('dataset', '')}, seed {result.get('seed', '')}{accuracy}"
    page = folder / "index.html"
    page.write_text(
        f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>body {{ font-family: sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em }} figure {{ margin: 2em 0 }}
img {{ max-width: 100% }} figcaption {{ color: #333; line-height: 1.4; margin-top: .5em }}</style></head>
<body><h1>{html.escape(title)}</h1><p>{html.escape(str(run))}</p>
{chr(10).join(parts)}
</body></html>
""",
        encoding="utf-8",
    )
    print(f"Page: {page}")
    return page


if __name__ == "__main__":
    main()
