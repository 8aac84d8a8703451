"""Several processes train the same model as one: torchrun with gloo on a CPU, every trainer."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clusterprompt.registration import own_trainers
from clusterprompt.trainers.parts import ranks

METHODS = [cls.__name__ for cls in own_trainers()]
# One of each kind of objective, with an odd number of processes as well: each takes another number of images.
WITH_THREE = ("AttriPrompt", "CLIPLoRA", "CoOp", "MMRL", "ProGrad", "PromptKD", "TAC", "ZeroshotCLIP")
WORKER = Path(__file__).with_name("together_worker.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(data, backbone, tmp_path_factory):
    """A folder with what one, two and three processes made of every method."""
    output = tmp_path_factory.mktemp("together")
    words = [str(WORKER), str(data), str(backbone), str(output)]
    for command in (
        [sys.executable, *words, *METHODS],
        [*TORCHRUN, "2", *words, *METHODS],
        [*TORCHRUN, "3", *words, *WITH_THREE],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    return output


@pytest.mark.parametrize("name, processes", [*((name, 2) for name in METHODS), *((name, 3) for name in WITH_THREE)])
def test_equal_to_one_process(name, processes, runs):
    """Catches: a gradient that is not the whole batch's, an image counted twice, logits in another order."""
    one, several = (torch.load(runs / f"{count}-{name}.pt", weights_only=True) for count in (1, processes))
    if "refused" in several:
        assert "cannot take a batch by" in several["refused"] and "refused" not in one
        return
    assert several["accuracy"] == one["accuracy"]
    for key, weight in one.get("weights", {}).items():
        torch.testing.assert_close(several["weights"][key], weight, rtol=0, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}")
    if "history" in one:
        assert [entry["loss"] for entry in several["history"]] == pytest.approx(
            [e["loss"] for e in one["history"]], abs=1e-5
        )
        torch.testing.assert_close(several["logits"], one["logits"], rtol=0, atol=2e-4)


def test_shares_cover_a_batch(monkeypatch):
    """Catches: an image that no process takes, or two do."""
    for processes in (1, 2, 3, 7):
        monkeypatch.setattr(ranks, "count", lambda n=processes: n)
        for size in (0, 1, 5, 8):
            rows = []
            for rank in range(processes):
                monkeypatch.setattr(ranks, "rank", lambda r=rank: r)
                rows += range(size)[ranks.share(size)]
            assert rows == list(range(size))
