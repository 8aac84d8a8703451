"""Train each of some methods for a few steps; alone, or as one of the processes that torchrun has started.

usage: together_worker.py DATA BACKBONE OUTPUT METHOD ...     writes OUTPUT/<processes>/<method>.pt
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import support
import torch

from clusterprompt.record.result import RunRecord
from clusterprompt.running.together import joined
from clusterprompt.trainers.parts import ranks


def run(name, data, backbone, output):
    """Train for an epoch and test; losses, weights, logits and accuracy."""
    trainer = support.build(
        name,
        data,
        backbone,
        Path(output, str(ranks.count()), f"rank{ranks.rank()}", name),
        *support.WITHOUT_DROPOUT.get(name, ()),
        *("DATALOADER.TRAIN_X.BATCH_SIZE", 5, "OPTIM.WARMUP_EPOCH", 0, "OPTIM.LR", 0.002, "OPTIM.MAX_EPOCH", 1),
    )
    torch.manual_seed(0)
    trainer.train()
    record = RunRecord.read(trainer.output_dir)
    if trainer.learner is None:
        return {"accuracy": record.accuracy}
    trainer.set_model_mode("eval")
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), trainer.fixed_classes():
        logits = trainer.model_inference(images)
    return {
        "losses": [entry["loss"] for entry in record.history],
        "weights": trainer.learner.state_dict(),
        "logits": logits,
        "accuracy": record.accuracy,
    }


def main():
    """Run the methods of the command line in the processes of torchrun."""
    torch.set_num_threads(1)
    with joined(use_cuda=False):
        run_all(*sys.argv[1:])


def run_all(data, backbone, output, *methods):
    """Run methods one after the other; the first process writes."""
    for name in methods:
        try:
            found = run(name, data, backbone, output)
        except ValueError as error:
            found = {"refused": str(error)}
        if ranks.rank() == 0:
            torch.save(found, Path(output, f"{ranks.count()}-{name}.pt"))


if __name__ == "__main__":
    main()
