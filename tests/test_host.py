"""Inside somebody's checkout of the CoOp family: two lines in their train.py; their data set, their trainer, their
edited clip; our methods.
"""

import csv
import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import dassl
import pytest

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parent.parent
CONFIGS = CHECKOUT / "configs" / "trainers"

HOST = {
    # As in MaPLe, PromptSRC and TAC: an edited copy of CLIP, which takes the name from OpenAI's.
    "clip/__init__.py": "from .clip import *\n",
    "clip/clip.py": """
        from .model import build_model

        __all__ = ["available_models", "load", "tokenize"]

        def available_models():
            return []

        def load(name):
            return build_model({}, {"trainer": "MaPLe"})

        def tokenize(texts):
            raise NotImplementedError
        """,
    "clip/model.py": """
        def build_model(state_dict, design_details):
            raise NotImplementedError
        """,
    "trainers/__init__.py": "",
    "trainers/coop.py": """
        from clip import clip
        from dassl.engine import TRAINER_REGISTRY, TrainerX

        @TRAINER_REGISTRY.register()
        class CoOp(TrainerX):
            pass
        """,
    "datasets/__init__.py": "",
    "datasets/caltech101.py": """
        import json, os, pickle
        from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum

        @DATASET_REGISTRY.register()
        class Caltech101(DatasetBase):
            dataset_dir = "caltech-101"

            def __init__(self, cfg):
                folder = os.path.join(os.path.abspath(os.path.expanduser(cfg.DATASET.ROOT)), self.dataset_dir)
                with open(os.path.join(folder, "split_zhou_Caltech101.json")) as file:
                    split = json.load(file)
                image = lambda path: os.path.join(folder, "101_ObjectCategories", path)
                train, val, test = [
                    [Datum(impath=image(p), label=y, classname=c) for p, y, c in split[part]]
                    for part in ("train", "val", "test")
                ]
                cache = os.path.join(os.getcwd(), f"shot_{cfg.DATASET.NUM_SHOTS}-seed_{cfg.SEED}.pkl")
                if os.path.exists(cache):
                    with open(cache, "rb") as file:
                        train = pickle.load(file)["train"]
                else:
                    train = self.generate_fewshot_dataset(train, num_shots=cfg.DATASET.NUM_SHOTS)
                    with open(cache, "wb") as file:
                        pickle.dump({"train": train}, file)
                wanted = {"base": [0, 1, 2], "new": [3, 4]}[cfg.DATASET.SUBSAMPLE_CLASSES]
                relabelled = lambda i: Datum(impath=i.impath, label=wanted.index(i.label), classname=i.classname)
                train, val, test = [
                    [relabelled(i) for i in part if i.label in wanted] for part in (train, val, test)
                ]
                super().__init__(train_x=train, val=val, test=test)
        """,
    "dataset.yaml": "DATASET:\n  NAME: Caltech101\n",
    "train.py": """
        import argparse
        from dassl.config import get_cfg_default
        from dassl.engine import build_trainer
        from dassl.utils import set_random_seed, setup_logger
        from yacs.config import CfgNode as CN

        import datasets.caltech101
        import trainers.coop
        import clusterprompt

        def extend_cfg(cfg):
            cfg.TRAINER.COOP = CN({"N_CTX": 16})
            cfg.DATASET.SUBSAMPLE_CLASSES = "all"

        def setup_cfg(args):
            cfg = get_cfg_default()
            extend_cfg(cfg)
            clusterprompt.extend_cfg(cfg)
            cfg.merge_from_file(args.dataset_config_file)
            cfg.merge_from_file(args.config_file)
            cfg.DATASET.ROOT, cfg.OUTPUT_DIR = args.root, args.output_dir
            cfg.SEED, cfg.TRAINER.NAME = args.seed, args.trainer
            cfg.merge_from_list(args.opts)
            cfg.freeze()
            return cfg

        def main(args):
            cfg = setup_cfg(args)
            set_random_seed(cfg.SEED)
            setup_logger(cfg.OUTPUT_DIR)
            trainer = build_trainer(cfg)
            if args.eval_only:
                trainer.load_model(args.model_dir, epoch=args.load_epoch)
                trainer.test()
            else:
                trainer.train()

        if __name__ == "__main__":
            parser = argparse.ArgumentParser()
            for name in ("root", "output-dir", "trainer", "dataset-config-file", "config-file", "model-dir"):
                parser.add_argument(f"--{name}", default="")
            parser.add_argument("--seed", type=int)
            parser.add_argument("--load-epoch", type=int)
            parser.add_argument("--eval-only", action="store_true")
            parser.add_argument("opts", default=None, nargs=argparse.REMAINDER)
            main(parser.parse_args())
        """,
    # Several command lines in one process, since most of the time goes into imports.
    "session.py": """
        import json, runpy, sys

        for words in json.loads(sys.argv[1]):
            sys.argv = ["train.py", *words]
            runpy.run_path("train.py", run_name="__main__")

        import clip, datasets
        from dassl.data.datasets import DATASET_REGISTRY
        from dassl.engine import TRAINER_REGISTRY
        modules = TRAINER_REGISTRY.get("CoOp").__module__, DATASET_REGISTRY.get("Caltech101").__module__
        print("theirs:", clip.__file__, datasets.__file__, *modules)
        print("ours:", TRAINER_REGISTRY.get("TAC").__module__)
        """,
}


def words(trainer, root, out, half, *more):
    """A command line of their train.py."""
    return [
        "--root",
        str(root),
        "--seed",
        "1",
        "--trainer",
        trainer,
        "--dataset-config-file",
        "dataset.yaml",
        "--config-file",
        str(CONFIGS / trainer / "basetonovel.yaml"),
        "--output-dir",
        out,
        *more,
        "MODEL.BACKBONE.NAME",
        "tiny",
        "OPTIM.MAX_EPOCH",
        "1",
        "DATASET.NUM_SHOTS",
        "2",
        "DATASET.SUBSAMPLE_CLASSES",
        half,
        "DATALOADER.NUM_WORKERS",
        "0",
        "USE_CUDA",
        "False",
        f"TRAINER.{trainer.upper()}.PREC",
        "fp32",
    ]


@pytest.fixture
def host(tmp_path):
    """A checkout with two of our lines in its train.py."""
    for name, text in HOST.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text))
    if not hasattr(dassl, "IMPLEMENTATION"):  # real Dassl, which may lack what it imports: docs/plugin.md
        script = tmp_path / "train.py"
        script.write_text("from clusterprompt import dassl_compat\n\ndassl_compat.prepare()\n" + script.read_text())
    return tmp_path


def in_host(host, *command, **environment):
    """Run a Python command line in the checkout; return what it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OUTPUT": "", "CLUSTERPROMPT_HOME": "", **environment}
    ran = subprocess.run([sys.executable, *command], cwd=host, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


TRAIN = """import trainers.cocoop
import trainers.coop
import trainers.zsclip

def setup_cfg(args):
    cfg = get_cfg_default()
    extend_cfg(cfg)
    return cfg
"""


def test_the_patch_of_the_documentation(tmp_path):
    """Catches: a command in docs/plugin.md that finds no place in a train.py of this family, or the wrong one; a check
    of other checkouts that changes the checkout itself, or takes any folder for one.
    """
    host, work = tmp_path / "host", tmp_path / "work"
    (host / "trainers").mkdir(parents=True)
    (host / "train.py").write_text(TRAIN)
    work.mkdir()
    code = "import sys; sys.path.insert(0, sys.argv[1]); import check; from pathlib import Path; " + (
        "c = check.Check(*map(Path, sys.argv[2:])); c.patch(); sys.exit(len(c.faults))"
    )
    hosts = CHECKOUT / "tests" / "hosts"
    stand_in = CHECKOUT / "toolbox" / "src"
    in_host(tmp_path, "-c", code, str(hosts), str(host), str(stand_in), str(work))
    expected = TRAIN.replace("trainers.coop\n", "trainers.coop\nimport clusterprompt\n")
    expected = expected.replace("    extend_cfg(cfg)\n", "    extend_cfg(cfg)\n    clusterprompt.extend_cfg(cfg)\n")
    assert (work / "patched" / "train.py").read_text() == expected
    assert (host / "train.py").read_text() == TRAIN
    words = [sys.executable, str(hosts / "check.py"), str(work), str(stand_in)]
    ran = subprocess.run(words, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1) and "holds no train.py" in ran.stderr


@pytest.mark.slow
def test_our_commands_in_a_checkout(host, caltech_root):
    """Catches: an edited clip, or folders called trainers and datasets, that our commands take for their own; results
    that land in another checkout than the one they were started in.
    """
    words = "run --protocol base2new --trainers CoOp --datasets caltech101 --seeds 1 USE_CUDA False".split()
    small = {"DATA": str(caltech_root), "BACKBONE": "tiny", "EPOCHS": "1", "SHOTS": "2"}
    said = in_host(host, "-m", "clusterprompt", *words, "DATALOADER.NUM_WORKERS", "0", **small)
    assert "Base to new, Caltech101" in said
    assert (host / "output/base2new/test_new/caltech101/shots_2/CoOp/basetonovel/seed1/result.json").is_file()
    assert "Base to new, Caltech101" in in_host(host, "-m", "clusterprompt", "results", "output")


@pytest.mark.slow
def test_two_lines_in_a_checkout(host, caltech_root):
    """Catches: names that clash, folders that shadow ours or are shadowed, their edited CLIP in place of OpenAI's, a
    data set without template or digest that our trainers cannot take, checkpoints that their --model-dir does not
    reach; a log file without the names that stay the host's.
    """
    tmp_path = host
    session = [
        words("TAC", caltech_root, "tac", "base"),
        words("TAC", caltech_root, "tac_new", "new", "--eval-only", "--model-dir", "tac"),
        words("AttriPrompt", caltech_root, "attriprompt", "base"),
    ]
    ran = subprocess.run(
        [sys.executable, "session.py", json.dumps(session)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert (
        f"theirs: {tmp_path}/clip/__init__.py {tmp_path}/datasets/__init__.py trainers.coop datasets.caltech101"
        in lines
    )
    assert "ours: clusterprompt.trainers.tac" in lines
    assert any("Already registered" in line and "CoOp (trainers.coop)" in line for line in lines)
    before, learns, _ = (tmp_path / "tac" / "log.txt").read_text().partition("TAC learns")
    assert learns and before.count("trainer of that name is not used: CoOp (trainers.coop)") == 1

    tac, new, attriprompt = (
        json.loads((tmp_path / out / "result.json").read_text()) for out in ("tac", "tac_new", "attriprompt")
    )
    assert [run["status"] for run in (tac, new, attriprompt)] == ["finished"] * 3
    assert (tac["n_test"], new["n_test"], attriprompt["n_test"]) == (9, 6, 9)
    assert (
        new["trained_on"] == tac["trained_on"] == {"dataset": "Caltech101", "subsample": "base", "shots": 2, "seed": 1}
    )
    assert len(tac["history"]) == len(attriprompt["history"]) == 1 and (tmp_path / "tac" / "predictions.csv").is_file()
    table = in_host(host, "-m", "clusterprompt", "results", ".", "--format", "csv")  # their folders, of their own names
    means = {(row["trainer"], row["column"]): float(row["mean"]) for row in csv.DictReader(io.StringIO(table))}
    assert means["TAC", "base"] == pytest.approx(tac["accuracy"]) and means["TAC", "HM"] >= 0
    assert means["TAC", "new"] == pytest.approx(new["accuracy"])
    with open(tmp_path / "shot_2-seed_1.pkl", "rb") as file:
        assert len(pickle.load(file)["train"]) == 10
