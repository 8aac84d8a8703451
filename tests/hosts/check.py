"""Compare runs inside a copy of another checkout with this checkout's own; see check.sh.

The copy is patched as docs/plugin.md says. On a small drawn data set in Caltech101's layout, TAC and AttriPrompt are
trained there for two epochs and tested on the new classes, on real Dassl and with the host's data set class; then the
same is done by this checkout's train.py. Histories and predictions have to be equal, digit for digit. Last, one of the
host's own methods is trained with a small random CLIP, with and without the patch.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

CHECKOUT = Path(__file__).resolve().parents[2]
CLASSES = ("Faces", "Leopards", "anchor", "chair", "crab", "yin_yang")
SIZES = {"train": 6, "val": 4, "test": 5}
# The host's own method: the first whose file the host has. Small CLIPs have two layers, so prompts go no deeper.
OWN = {
    "promptsrc": (
        "PromptSRC",
        ["TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", "2", "TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT", "2"],
    ),
    "maple": ("MaPLe", ["TRAINER.MAPLE.PROMPT_DEPTH", "2"]),
    "coop": ("CoOp", []),
}
TOP = "from clusterprompt import dassl_compat\n\ndassl_compat.prepare()\n"


def draw_data(root: Path) -> Path:
    """Write noise around a colour for each class, in Caltech101's layout; return ``root``."""
    folder = root / "caltech-101"
    draw = random.Random(0)
    split: dict[str, list] = {part: [] for part in SIZES}
    for label, name in enumerate(CLASSES):
        (folder / "101_ObjectCategories" / name).mkdir(parents=True)
        colour = bytes(draw.randrange(40, 215) for _ in range(3))
        for number, part in enumerate(part for part, size in SIZES.items() for _ in range(size)):
            noise = Image.frombytes("RGB", (40, 36), draw.randbytes(40 * 36 * 3))
            image = Image.blend(noise, Image.new("RGB", noise.size, tuple(colour)), 0.6)
            image.save(folder / "101_ObjectCategories" / name / f"image_{number:04d}.png")
            split[part].append([f"{name}/image_{number:04d}.png", label, name.lower()])
    (folder / "split_zhou_Caltech101.json").write_text(json.dumps(split))
    return root


def draw_clip(path: Path) -> Path:
    """Save the state dict of a random CLIP, of the widths 768 and 512 that are written into MaPLe's code."""
    import torch

    from clusterprompt.clip_patches.loading import untrained_clip

    torch.manual_seed(0)
    torch.save(untrained_clip((32, 32, 2, 768, 16, 77, 49408, 512, 8, 2)).state_dict(), path)
    return path


def weights_in(output: Path) -> dict:
    """Return the tensors of a run's last checkpoint by name, as arrays."""
    from clusterprompt.clip_patches.weights import load_data

    files = sorted(output.glob("*/model.pth.tar-2"))
    return {name: value.numpy() for file in files for name, value in load_data(file)["state_dict"].items()}


def run(folder: Path, words: list, log: Path, path: str = "", kill_at: Path | None = None) -> str:
    """Run Python in a folder, with a PYTHONPATH; return the last line that it prints if it fails, else nothing.

    Args:
        kill_at: A file; as soon as it is there, the process is killed.
    """
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "CLUSTERPROMPT_HOME")}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} | ({"PYTHONPATH": path} if path else {})
    command = [sys.executable, *map(str, words)]
    with (
        open(log, "w") as output,
        subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output) as process,
    ):
        while kill_at and process.poll() is None and not kill_at.exists():
            time.sleep(0.01)
        if kill_at:
            process.kill()
    return (log.read_text().strip().splitlines() or ["no output"])[-1] if process.returncode else ""


class Check:
    """The copies, the data, and what was found."""

    def __init__(self, host: Path, dassl: Path, work: Path) -> None:
        self.dassl, self.work = str(dassl), work
        self.plain, self.patched = work / "plain", work / "patched"
        self.faults: list[str] = []
        for copy in (self.plain, self.patched):
            shutil.copytree(host, copy, ignore=shutil.ignore_patterns(".git", "data", "output"), symlinks=True)

    def fault(self, text: str) -> None:
        """Print a difference or an error, and remember it."""
        print(f"  FAULT: {text}")
        self.faults.append(text)

    def patch(self) -> None:
        """Change the copy's train.py as docs/plugin.md says."""
        page = (CHECKOUT / "docs" / "plugin.md").read_text(encoding="utf-8")
        command = re.search(r"^sed -i .*train\.py$", page, re.MULTILINE)
        assert command, "docs/plugin.md should hold the line that begins with: sed -i"
        subprocess.run(["bash", "-c", command[0]], cwd=self.patched, check=True)
        script = self.patched / "train.py"
        error = run(self.plain, ["-c", "import dassl.engine"], self.work / "import.txt", self.dassl)
        if error:
            print(f"Importing Dassl alone ends with {error}: the lines for this go to the top of train.py")
            assert TOP in page, "docs/plugin.md should hold the lines for the top of train.py"
            script.write_text(TOP + "\n" + script.read_text())
        before = (self.plain / "train.py").read_text().splitlines()
        added = [line for line in script.read_text().splitlines() if line and line not in before]
        print("Lines added to train.py:", *added, sep="\n  + ")
        if sum("clusterprompt" in line for line in added) < 2:
            self.fault("the two lines of docs/plugin.md found no place in this train.py")

    def compare_method(self, trainer: str) -> None:
        """Train a method of this checkout on the base classes and test it on the new ones, here and there."""
        for half in ("base", "new"):
            folders = {}
            for where in ("host", "ours"):
                folders[where] = folder = self.work / f"{where}_{trainer}_{half}"
                trained = self.work / f"{where}_{trainer}_base"
                words = [*self.options(where, trainer, folder), "DATASET.SUBSAMPLE_CLASSES", half]
                if half == "new":
                    words = ["--eval-only", "--model-dir", trained, "--load-epoch", 2, *words]
                if where == "host":
                    error = run(self.patched, ["train.py", *words], folder.with_suffix(".txt"), self.dassl)
                else:
                    error = run(self.work, [CHECKOUT / "train.py", *words], folder.with_suffix(".txt"))
                if error:
                    return self.fault(f"{trainer}, {half} classes, {where}: {error} (all of it: {folder}.txt)")
            print(f"\n{trainer}, {half} classes")
            self.compare_runs(folders["host"], folders["ours"])
        return None

    def options(self, where: str, trainer: str, output: Path) -> list:
        """Return train.py's options of a short run."""
        datasets = CHECKOUT / "configs" / "datasets" if where == "ours" else Path("configs", "datasets")
        return [
            *("--root", self.work / f"{where}_data", "--seed", 1, "--trainer", trainer, "--output-dir", output),
            *("--config-file", CHECKOUT / "configs" / "trainers" / trainer / "basetonovel.yaml"),
            *("--dataset-config-file", datasets / "caltech101.yaml", "DATASET.NUM_SHOTS", 4, "USE_CUDA", False),
            *("MODEL.BACKBONE.NAME", "tiny", "OPTIM.MAX_EPOCH", 2, "DATALOADER.NUM_WORKERS", 0),
            *("DATALOADER.TRAIN_X.BATCH_SIZE", 4),
        ]

    def compare_runs(self, host: Path, ours: Path) -> None:
        """Compare two output folders: every epoch of the history, scores, every line of the predictions."""
        records = [json.loads((folder / "result.json").read_text()) for folder in (host, ours)]
        histories = [
            [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in record["history"]]
            for record in records
        ]
        scores = [[record[key] for key in ("accuracy", "macro_f1", "n_test", "per_class")] for record in records]
        lines = [(folder / "predictions.csv").read_text().splitlines()[1:] for folder in (host, ours)]
        for what, (theirs, own) in {"epochs": histories, "scores": scores, "predictions": lines}.items():
            different = [pair for pair in zip(theirs, own) if pair[0] != pair[1]]
            print(f"  {what}: {len(theirs)} and {len(own)}, {len(different)} different; e.g. {(own or ['-'])[0]}")
            if different or len(theirs) != len(own):
                first = different[0] if different else (len(theirs), len(own))
                self.fault(f"{what} of {host.name} differ: host {first[0]}, here {first[1]}")

    def compare_resumed(self) -> None:
        """Kill a run of TAC in the host after its first epoch, start it again, and compare it with the whole one."""
        whole, folder = self.work / "host_TAC_base", self.work / "host_TAC_killed"
        words = ["train.py", *self.options("host", "TAC", folder), "DATASET.SUBSAMPLE_CLASSES", "base"]
        words += ["TRAIN.CHECKPOINT_FREQ", 1]
        first = folder / "VLPromptLearner" / "model.pth.tar-1"
        run(self.patched, words, folder.with_suffix(".killed.txt"), self.dassl, kill_at=first)
        status = json.loads((folder / "result.json").read_text())["status"] if first.exists() else "no checkpoint"
        if status != "training":
            return self.fault(f"TAC could not be killed after its first epoch: {status} ({folder}.killed.txt)")
        error = run(self.patched, words, folder.with_suffix(".txt"), self.dassl)
        if error:
            return self.fault(f"TAC, started again after a kill: {error} (all of it: {folder}.txt)")
        print("\nTAC in the host, killed after its first epoch and started again; and not killed")
        return self.compare_runs(folder, whole)

    def compare_own(self) -> None:
        """Train one of the host's own methods in the copy with our lines and in the one without."""
        file = next((name for name in OWN if (self.plain / "trainers" / f"{name}.py").is_file()), None)
        if file is None:
            return print(f"\nThe host's own methods: skipped, it has none of {', '.join(OWN)}")
        trainer, pairs = OWN[file]
        yamls = sorted((self.plain / "configs" / "trainers" / trainer).glob("vit_*.yaml"))
        if not yamls:
            return print(f"\nThe host's own {trainer}: skipped, no configs/trainers/{trainer}/vit_*.yaml")
        clip = draw_clip(self.work / "clip.pt")
        logs, weights = {}, {}
        for copy in (self.plain, self.patched):
            output = self.work / f"own_{copy.name}"
            words = self.options("host", trainer, output)
            words[words.index("--config-file") + 1] = yamls[0].relative_to(self.plain)
            words[words.index("MODEL.BACKBONE.NAME") + 1] = "ViT-B/16"
            words += [
                "DATASET.SUBSAMPLE_CLASSES",
                "base",
                "INPUT.SIZE",
                "(32,32)",
                *pairs,
                f"TRAINER.{trainer.upper()}.PREC",
                "fp32",
            ]
            words += ["TRAIN.PRINT_FREQ", 1]
            script = [CHECKOUT / "tests" / "hosts" / "own_trainer.py", clip, *words]
            error = run(copy, script, output.with_suffix(".txt"), self.dassl)
            if error and copy == self.plain:
                return print(f"\nThe host's own {trainer}: skipped, it does not run without our lines either: {error}")
            if error:
                return self.fault(f"the host's own {trainer} runs only without our lines: {error} ({output}.txt)")
            text = (output / "log.txt").read_text()
            logs[copy] = re.findall(r"loss \S+ \(\S+\)|^\* .*|=> result", text, re.MULTILINE)
            weights[copy] = weights_in(output)
        own, ours = logs[self.plain], logs[self.patched]
        different = [pair for pair in zip(own, ours) if pair[0] != pair[1]]
        print(f"\nThe host's own {trainer}, without our lines and with them")
        print(
            f"  lines of its log (losses, results): {len(own)} and {len(ours)}, {len(different)} different; "
            f"e.g. {own[0]}"
        )
        if different or len(own) != len(ours):
            self.fault(f"its log differs: {different[:1]}")
        before, after = weights[self.plain], weights[self.patched]
        moved = [name for name in before if name not in after or before[name].tobytes() != after[name].tobytes()]
        print(f"  tensors of its checkpoint: {len(before)} and {len(after)}, {len(moved)} different in a bit")
        if moved or before.keys() != after.keys() or not before:
            self.fault(f"its weights differ: {', '.join(moved[:3]) or 'other tensors'}")
        return None


def main(host: Path, dassl: Path) -> int:
    """Run the whole check; return the exit code."""
    for folder, inside in ((host, "train.py"), (host, "trainers"), (dassl, "dassl")):
        if not (folder / inside).exists():
            print(f"error: {folder} holds no {inside}; usage: check.sh HOST_CHECKOUT DASSL", file=sys.stderr)
            return 2
    work = Path(tempfile.mkdtemp(prefix="host-check-"))
    check = Check(host, dassl, work)
    import torch

    print(
        f"Host {host.name}, Dassl at {dassl}, Python {sys.version.split()[0]}, torch {torch.__version__}; "
        f"copy in {work}"
    )
    check.patch()
    draw_data(work / "host_data")
    draw_data(work / "ours_data")
    for trainer in ("TAC", "AttriPrompt"):
        check.compare_method(trainer)
    check.compare_resumed()
    check.compare_own()
    if check.faults:
        print(f"\n{len(check.faults)} faults in {host.name}; everything is kept in {work}")
        return 1
    shutil.rmtree(work)
    print(f"\nNo difference in {host.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()))
