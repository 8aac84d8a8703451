"""`torchrun` before `clusterprompt train`: one log, one record, one message, and a lost process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clusterprompt.clip_patches.weights import load_data
from clusterprompt.record.result import RunRecord

pytestmark = pytest.mark.slow
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
# Trains as the command does; the process and the epoch in the environment end with SIGKILL.
DRIVER = """
import os, signal, sys
from clusterprompt.commands.train import main
from clusterprompt import dassl_compat

dassl_compat.prepare()
from clusterprompt.trainers.base import PromptTrainer

def run_epoch(self, before=PromptTrainer.run_epoch):
    if os.environ["RANK"] + ":" + str(self.epoch) == os.environ.get("DIES"):
        os.kill(os.getpid(), signal.SIGKILL)
    before(self)

PromptTrainer.run_epoch = run_epoch
sys.exit(main())
"""


@pytest.fixture
def train(caltech_root, clip_file, tmp_path):
    """A function that trains with two processes: ``train(folder, *words, **environment)``."""
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    words = ["--data", caltech_root, "--trainer", "TAC", "--backbone", clip_file]
    words += ["--dataset-config-file", "configs/datasets/caltech101.yaml"]
    words += ["--config-file", "configs/trainers/TAC/basetonovel.yaml"]
    pairs = "DATASET.NUM_SHOTS 2 DATASET.SUBSAMPLE_CLASSES base OPTIM.MAX_EPOCH 3 DATALOADER.NUM_WORKERS 0".split()

    def run(folder, *more, **environment):
        return subprocess.run(
            [*TORCHRUN, str(driver), *map(str, words), "--output-dir", str(folder), *more, *pairs],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            cwd=tmp_path,
            check=False,
        )

    return run


def weights(folder):
    """The learned weights after the last epoch."""
    (path,) = Path(folder).glob("*/model.pth.tar-3")
    return load_data(path)["state_dict"]  # real Dassl's hold an object beside the weights


def test_a_lost_process(train, tmp_path):
    """Catches: a run that hangs or says a traceback when a process dies, or goes on with other numbers."""
    whole = train(tmp_path / "whole", "--seed", "1")
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.count("Finished training") == 1 and whole.stdout.count("* accuracy") == 1
    assert RunRecord.read(tmp_path / "whole").processes == 2

    broken = train(tmp_path / "broken", "--seed", "1", DIES="1:2")
    assert broken.returncode != 0
    said = [line for line in broken.stderr.splitlines() if line.startswith("error:")]
    assert len(said) == 1 and "one of the 2 processes of this run has ended" in said[0] and "--resume" in said[0]
    assert RunRecord.read(tmp_path / "broken").status == "training"
    resumed = train(tmp_path / "broken", "--seed", "1", "--resume")
    assert resumed.returncode == 0 and "Resuming the run" in resumed.stdout
    expected = weights(tmp_path / "whole")
    assert expected and all(torch.equal(weights(tmp_path / "broken")[key], value) for key, value in expected.items())


def test_errors_of_all_are_said_once(train, tmp_path):
    """Catches: a message a process, and a run without a seed whose processes draw different images."""
    unseeded = train(tmp_path / "out")
    assert unseeded.returncode != 0 and unseeded.stderr.count("give --seed") == 1
    assert not (tmp_path / "out").exists()
