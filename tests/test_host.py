"""Inside somebody's CoOp checkout: two lines in their train.py, their data set, our trainer."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

HOST = {
    "trainers/__init__.py": "",
    "trainers/coop.py": """
        from dassl.engine import TRAINER_REGISTRY, TrainerX

        @TRAINER_REGISTRY.register()
        class CoOp(TrainerX):
            pass
        """,
    "datasets/__init__.py": "",
    "datasets/caltech101.py": """
        import json, os
        from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum

        @DATASET_REGISTRY.register()
        class Caltech101(DatasetBase):
            dataset_dir = "caltech-101"

            def __init__(self, cfg):
                folder = os.path.join(os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT)), self.dataset_dir)
                split = json.load(open(os.path.join(folder, "split_zhou_Caltech101.json")))
                def items(part):
                    images = os.path.join(folder, "101_ObjectCategories")
                    return [Datum(impath=os.path.join(images, p), label=y, classname=c) for p, y, c in split[part]]
                train = self.generate_fewshot_dataset(items("train"), num_shots=cfg.DATASET.NUM_SHOTS)
                super().__init__(train_x=train, val=items("val"), test=items("test"))
        """,
    "train.py": """
        import sys
        from dassl.config import get_cfg_default
        from dassl.engine import TRAINER_REGISTRY, build_trainer
        from yacs.config import CfgNode as CN

        import datasets.caltech101
        import trainers.coop
        import clusterprompt

        root, clip, config = sys.argv[1:]
        cfg = get_cfg_default()
        cfg.TRAINER.COOP = CN({"N_CTX": 16})
        cfg.DATASET.SUBSAMPLE_CLASSES = "all"
        clusterprompt.extend_cfg(cfg)
        cfg.merge_from_file(config)
        cfg.merge_from_list([
            "DATASET.ROOT", root, "DATASET.NAME", "Caltech101", "DATASET.NUM_SHOTS", "2", "TRAINER.NAME", "TAC", "MODEL.BACKBONE.NAME", clip,
            "OPTIM.MAX_EPOCH", "1", "OUTPUT_DIR", "out", "DATALOADER.NUM_WORKERS", "0", "TRAINER.TAC.PREC", "fp32", "SEED", "1",
        ])
        cfg.freeze()
        trainer = build_trainer(cfg)
        trainer.train()
        print("host's:", TRAINER_REGISTRY.get("CoOp").__module__, type(trainer.dm.dataset).__module__, datasets.__file__)
        print("ours:", type(trainer).__module__)
        """,
}


def test_two_lines_in_a_coop_checkout(tmp_path, caltech_root, clip_file):
    """Catches: names that clash, folders that shadow ours or are shadowed, a data set without template or digest that our trainers cannot take."""
    for name, text in HOST.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    config = CHECKOUT / "configs" / "trainers" / "TAC" / "basetonovel.yaml"
    command = [sys.executable, "train.py", str(caltech_root), clip_file, str(config)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert f"host's: trainers.coop datasets.caltech101 {tmp_path / 'datasets' / '__init__.py'}" in lines
    assert "ours: clusterprompt.trainers.tac" in lines
    assert any("trainer CoOp of trainers.coop is already registered and stays" in line for line in lines)
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (result["status"], result["dataset"], result["n_test"]) == ("finished", "Caltech101", 15)
