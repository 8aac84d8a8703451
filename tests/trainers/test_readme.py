"""The README's code, run as it stands there."""

import re
from pathlib import Path

import torch
from support import config

README = (Path(__file__).parent.parent.parent / "README.md").read_text(encoding="utf-8")


def block(marker):
    """The code block of the README that holds ``marker``."""
    return next(code for code in re.findall(r"```\w*\n(.*?)```", README, re.DOTALL) if marker in code)


def test_commands_name_files_that_exist():
    """A script that was renamed would leave the README behind."""
    named = set(re.findall(r"(?:bash|python) ((?:scripts/)?[\w/]+\.(?:sh|py))", README))
    assert {"scripts/demo.sh", "scripts/test.sh", "scripts/tac/base2new_train.sh"} <= named
    links = {link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link}
    root = Path(__file__).parent.parent.parent
    assert not [name for name in named | links if not (root / name).exists()]


def test_prompting_from_outside(backbone):
    """The lines under 'How prompting works' must run, with prompts for the two towers put in."""
    code = block("encoders.encode_image(clip").replace('load_clip("tiny")', f"load_clip({str(backbone)!r})")
    images, width = torch.zeros(2, 3, 64, 64), {"image": 192, "text": 128}
    lines = code.splitlines()
    names = {"images": images, "mask": None}
    for line in lines:
        for tower in width:
            if line.startswith(f"{tower} ="):
                names["prompts"] = [torch.zeros(3, width[tower])] * 2
        exec(line, names)
    assert names["image"].shape == (2, 128) and names["text"].shape == (2, 128)


def test_added_trainer(data, backbone, tmp_path):
    """The ten-line trainer must register, train, and test."""
    from dassl.engine import TRAINER_REGISTRY

    source = (
        block("class Shift")
        .replace("from .base", "from clusterprompt.trainers.base")
        .replace("from ..", "from clusterprompt.")
    )
    names = {"__name__": "clusterprompt_readme"}
    exec(source, names)
    Shift = names["Shift"]
    TRAINER_REGISTRY.register(Shift, force=True)
    import yacs.config
    from dassl.config import get_cfg_default

    cfg = config("ZeroshotCLIP", data, backbone, tmp_path).clone()
    cfg.defrost()
    cfg.TRAINER.SHIFT = yacs.config.CfgNode(Shift.options)
    cfg.TRAINER.NAME = "Shift"
    assert "SHIFT" not in get_cfg_default().TRAINER
    trainer = TRAINER_REGISTRY.get("Shift")(cfg)
    trainer.train()
    assert bool((trainer.learner["shift"] != 0).any()) and trainer.recorder.status == "finished"
