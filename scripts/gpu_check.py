"""Check and measure one device, without a network: tests on it, one run of TAC, benchmarks of its precisions.

    python scripts/gpu_check.py OUT                                  # the first GPU, within 8 minutes
    python scripts/gpu_check.py OUT --device cpu --geometry small    # the same steps where there is no GPU

Leaves OUT/gpu_check.json and OUT/gpu_check.md, which hold what was printed, and the log of each step. A step that fails
or runs out of time is named with the last line of its log, and the others go on; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from clusterprompt.record import measure

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("test_golden.py", "test_contract.py", "test_micro_batches.py")
TRAINERS = ("TAC", "AttriPrompt", "CoOp", "MaPLe", "PromptSRC")
COLUMNS = (
    "trainer",
    "prec",
    "what",
    "classes",
    "images",
    "plain s",
    "fast s",
    "ratio",
    "fast MB",
    "of peak",
    "max diff",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run all steps; return the exit code."""
    args = parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    steps = Steps(args)
    print(
        f"{measure.device_name(args.device)}, torch {torch.__version__}; at most {args.minutes:g} minutes", flush=True
    )
    tests = [str(ROOT / "tests" / "trainers" / name) for name in TESTS]
    steps.allow(0.4)
    steps.run("tests", [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests])
    steps.allow(0.1)
    steps.run("TAC on shapes", tac_on_shapes(args))
    rows: list[dict[str, Any]] = []
    steps.allow(0.5)
    for prec in args.precs:
        for trainer in TRAINERS:
            rows += steps.benchmark(trainer, prec)
    cells = [[row.get(column, "") for column in COLUMNS] for row in rows]
    title = f"{measure.device_name(args.device)}, torch {torch.__version__}, CLIP {args.geometry} with random weights"
    tables = [tabulate(steps.done, "keys", "github"), tabulate(cells, COLUMNS, "github")]
    (args.out / "gpu_check.md").write_text("\n\n".join([title, *tables]) + "\n", encoding="utf-8")
    print(f"\n{tabulate(cells, COLUMNS) if rows else 'No benchmark went well.'}\n")
    print(f"Written: {args.out}/gpu_check.json, {args.out}/gpu_check.md")
    content = {
        "device": measure.device_name(args.device),
        "torch": torch.__version__,
        "geometry": args.geometry,
        "steps": steps.done,
        "rows": rows,
    }
    (args.out / "gpu_check.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    return int(any(step["result"] != "ok" for step in steps.done))


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("gpu_check"), help="folder of the results")
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"), help="cuda or cpu")
    parser.add_argument("--geometry", default="ViT-B/16", help="size of the benchmark's CLIP, see benchmark.py")
    parser.add_argument("--classes", type=int, nargs="+", help="default: 50 200 1000 on a GPU, 20 on a CPU")
    parser.add_argument("--precs", nargs="+", help="default: fp32 amp fp16 on a GPU, fp32 amp on a CPU")
    parser.add_argument("--minutes", type=float, default=8)
    args = parser.parse_args(argv)
    args.precs = args.precs or (["fp32", "amp", "fp16"] if args.device.type == "cuda" else ["fp32", "amp"])
    args.classes = args.classes or ([50, 200, 1000] if args.device.type == "cuda" else [20])
    if args.device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is found here; --device cpu --geometry small goes through the same steps")
    return args


def tac_on_shapes(args: argparse.Namespace) -> list[str]:
    """Return the command of a short run of TAC on drawn data with the embedded CLIP."""
    words = "train --trainer TAC --seed 1 --backbone tiny --dataset-config-file configs/datasets/shapes.yaml"
    words += " --config-file configs/trainers/TAC/basetonovel.yaml --overwrite"
    pairs = "DATASET.NUM_SHOTS 4 DATASET.SUBSAMPLE_CLASSES base OPTIM.MAX_EPOCH 2 USE_CUDA"
    folders = ["--data", str(args.out / "data"), "--output-dir", str(args.out / "TAC")]
    return [
        *(sys.executable, "-m", "clusterprompt", *words.split(), *folders),
        *(*pairs.split(), str(args.device.type == "cuda")),
    ]


class Steps:
    """The steps one after the other, within the time that they are allowed.

    Attributes:
        done: Name, result and seconds of each, and the last line of its log unless it is a benchmark that went well.
    """

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.done: list[dict[str, Any]] = []
        self.end = time.monotonic()

    def allow(self, share: float) -> None:
        """Give the next steps a share of the whole time; they may use what earlier ones have left as well."""
        self.end += 60 * self.args.minutes * share

    def run(self, name: str, command: Sequence[str], most: float = 1.0) -> bool:
        """Run a command with its output in a log.

        Args:
            name: Of the step.
            command: Its words.
            most: Share of the whole time after which it is stopped, even if more is allowed.

        Returns:
            Whether it succeeded.
        """
        log = self.args.out / f"{name.replace(' ', '_').replace(',', '')}.log"
        start = time.monotonic()
        limit = max(1.0, min(self.end - start, 60 * self.args.minutes * most))
        with open(log, "w", encoding="utf-8") as file:
            try:
                code = subprocess.run(
                    command, stdout=file, stderr=subprocess.STDOUT, timeout=limit, env=self.environment(), check=False
                ).returncode
                result = "ok" if code == 0 else "failed"
            except subprocess.TimeoutExpired:
                result = "out of time"
        seconds = round(time.monotonic() - start, 1)
        said = last_line(log) if result != "ok" or name == "tests" else ""
        self.done.append({"step": name, "result": result, "seconds": seconds, "last line of its log": said})
        note = f": {said}" if said else ""
        print(f"  {name}: {result}, {seconds} s{note}{'' if result == 'ok' else f' (see {log})'}", flush=True)
        return result == "ok"

    def benchmark(self, trainer: str, prec: str) -> list[dict[str, Any]]:
        """Measure a trainer in a precision; return the rows, none if it failed."""
        args = self.args
        path = args.out / f"{trainer}_{prec}.json"
        path.unlink(missing_ok=True)
        batch = ["1"] if trainer == "AttriPrompt" else ["4"]
        words = ["--trainer", trainer, "--prec", prec, "--device", str(args.device), "--geometry", args.geometry]
        words += ["--classes", *map(str, args.classes), "--batch", *batch, "--repeats", "2", "--json", str(path)]
        self.run(f"{trainer}, {prec}", [sys.executable, str(ROOT / "scripts" / "benchmark.py"), *words], most=0.15)
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
        return [{"trainer": trainer, "prec": prec, **row} for row in rows]

    def environment(self) -> dict[str, str]:
        """Return the environment of a step: tests on the device, matrix products in whole fp32."""
        own = {"CLUSTERPROMPT_TEST_DEVICE": self.args.device.type, "NVIDIA_TF32_OVERRIDE": "0"}
        return {**os.environ, **own, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def last_line(log: Path) -> str:
    """Return the last line of a log that has words."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    lines = [line for line in lines if any(map(str.isalpha, line))]
    return lines[-1][:100] if lines else "nothing"


if __name__ == "__main__":
    sys.exit(main())
