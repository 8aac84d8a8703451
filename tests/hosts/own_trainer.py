"""Run a host's train.py with a small CLIP in place of the one that its trainers fetch, on the CPU.

usage: python own_trainer.py CLIP_FILE [options of train.py], in the host's folder
"""

import runpy
import sys
from pathlib import Path

from clusterprompt import dassl_compat

dassl_compat.prepare()

import torch  # noqa: E402

file, *words = sys.argv[1:]
sys.path[0] = str(Path.cwd())  # as for `python train.py`

from clip import clip, model  # noqa: E402

clip._download = lambda *arguments: file
model.convert_weights = lambda model: None  # so that all of CLIP is fp32 too
for each in (torch.nn.Module, torch.Tensor):  # PromptSRC's trainer moves its teacher to the GPU, whatever is asked for
    each.cuda = lambda self, *arguments, **options: self
    each.half = lambda self: self  # the edited CLIPs cast prompts to fp16 whatever PREC says, which CPUs lack
sys.argv = ["train.py", *words]
runpy.run_path("train.py", run_name="__main__")
