"""Several processes train the same model as one: torchrun with gloo on a CPU, every trainer."""

import runpy
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
LIMITS = {"loss": 1e-5, "weights": 1e-5, "logits": 2e-4}
WORKER = Path(__file__).with_name("together_worker.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(data, backbone, tmp_path_factory):
    """A folder with what one, two and three processes made of every method."""
    output = tmp_path_factory.mktemp("together")
    paths = [str(data), str(backbone), str(output)]
    for processes, methods in (("2", METHODS), ("3", WITH_THREE)):
        command = [*TORCHRUN, processes, str(WORKER), *paths, *methods]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    runpy.run_path(str(WORKER))["run_all"](*paths, *METHODS)
    return output


@pytest.mark.parametrize("name, processes", [*((name, 2) for name in METHODS), *((name, 3) for name in WITH_THREE)])
def test_equal_to_one_process(name, processes, runs):
    """Catches: a gradient that is not the whole batch's, an image counted twice, logits in another order."""
    one, several = (torch.load(runs / f"{count}-{name}.pt", weights_only=True) for count in (1, processes))
    if "refused" in several:
        assert "cannot take a batch by" in several["refused"] and "refused" not in one
        return
    assert several["accuracy"] == one["accuracy"] and set(several) == set(one)
    found = differences(one, several)
    print(f"{name}, {processes} processes: {', '.join(f'{key} {value:.1e}' for key, value in found.items())}")
    assert all(value <= LIMITS[key] for key, value in found.items()), found


def differences(one, several):
    """The largest differences between what one process and several made of a method."""
    if "losses" not in one:  # it learns nothing
        return {}
    assert len(several["losses"]) == len(one["losses"]) and set(several["weights"]) == set(one["weights"])
    pairs = {
        "loss": [(torch.tensor(several["losses"]), torch.tensor(one["losses"]))],
        "weights": [(several["weights"][key], weight) for key, weight in one["weights"].items()],
        "logits": [(several["logits"], one["logits"])],
    }
    found = {key: [(a.double() - b.double()).abs().max() for a, b in each] for key, each in pairs.items()}
    return {key: float(torch.stack(each).max()) for key, each in found.items()}  # NaN if one is


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
