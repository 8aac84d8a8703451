"""train.py: its command line, its output folder, what it says to bad input."""

import gc
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clusterprompt.commands import train as commands_train
from clusterprompt.record import folder as run_folder
from clusterprompt.running import train as running_train

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]


class Train:
    """`clusterprompt train`, with the trainer as the result."""

    parse = staticmethod(commands_train.parse)

    @staticmethod
    def main(argv):
        return running_train.train(commands_train.train_options(commands_train.parse(argv)))

    @staticmethod
    def make_cfg(args):
        return running_train.make_cfg(commands_train.train_options(args))


@pytest.fixture
def train():
    return Train


@pytest.fixture
def command(caltech_root, clip_file, tmp_path, monkeypatch):
    """A function that makes a command line of a run of a second; its words replace or follow the usual ones."""
    monkeypatch.chdir(tmp_path)  # so that nothing can depend on being started in the checkout

    def make(*words, trainer="CoOp", root=caltech_root, out="out", seed=1, epochs="1"):
        words = list(words)
        options = [
            "--root",
            str(root),
            "--trainer",
            trainer,
            "--backbone",
            clip_file,
            "--output-dir",
            str(out),
            "--seed",
            str(seed),
        ]
        options += ["--config-file", f"configs/trainers/{trainer}/basetonovel.yaml"]
        options += ["--dataset-config-file", "configs/datasets/caltech101.yaml"]
        pairs = [
            "DATASET.NUM_SHOTS",
            "2",
            "OPTIM.MAX_EPOCH",
            epochs,
            "DATALOADER.NUM_WORKERS",
            "0",
            "OPTIM.WARMUP_EPOCH",
            "-1",
        ]
        return options + pairs + words

    return make


def fails(train, capsys, argv) -> str:
    """Run a command line that has to be refused; return what it said on stderr."""
    assert commands_train.main(argv) == 2
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in said, said
    return errors[0]


def snapshot(folder: Path) -> dict:
    """Return the content of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def result(folder) -> dict:
    return json.loads((Path(folder) / "result.json").read_text())


# ------------------------------------------------------------------ a run


def test_a_run_and_its_evaluation(train, command, capsys, tmp_path):
    """Catches: a missing file of a run, a log that parsers cannot read, stdout not given back, an evaluation that
    trains or loads nothing.
    """
    stdout = sys.stdout
    trainer = train.main(command("DATASET.SUBSAMPLE_CLASSES", "base"))
    assert sys.stdout is stdout
    assert trainer.cfg.SEED == 1 and trainer.cfg.OPTIM.MAX_EPOCH == 1
    written = result("out")
    assert (written["status"], written["trainer"], written["subsample"], written["n_test"]) == (
        "finished",
        "CoOp",
        "base",
        9,
    )
    log = Path("out/log.txt").read_text().splitlines()
    assert "Finish training" in log and "=> result" in log
    assert any(written["fewshot_digest"] in line for line in log)  # said before the log file existed
    assert any(line.startswith("* accuracy: ") for line in log)
    assert Path("out/config.yaml").is_file()

    evaluated = train.main(command("--eval-only", "--model-dir", "out", "DATASET.SUBSAMPLE_CLASSES", "new", out="new"))
    assert evaluated.learner.ctx.equal(trainer.learner.ctx)
    assert result("new")["n_test"] == 6
    assert not (tmp_path / "new" / "prompt_learner").exists()


def test_stdout_survives_real_dassls_logger(train, command, monkeypatch, capsys):
    """Catches: a console closed by the logger's end, after which every print of a second run fails."""

    class Logger:  # as in Dassl 0.6.3
        def __init__(self, path):
            self.console, self.file = sys.stdout, open(path, "w")

        def write(self, text):
            self.console.write(text)
            self.file.write(text)

        def flush(self):
            self.console.flush()

        def close(self):
            self.console.close()
            self.file.close()

        __del__ = close

    monkeypatch.setattr("dassl.utils.setup_logger", lambda folder: setattr(sys, "stdout", Logger(f"{folder}/log.txt")))
    stdout = sys.stdout
    train.main(command())
    gc.collect()
    print("still open")
    assert sys.stdout is stdout and not stdout.closed
    assert "Finish training" in Path("out/log.txt").read_text()


def test_seed_zero_is_a_seed(train, command):
    """Catches: `if args.seed`, which CoOp has, so that seed 0 means "no seed"."""
    first, second = (train.main(command("--no-train", seed=0, out=out)) for out in ("a", "b"))
    assert first.cfg.SEED == 0
    assert first.dm.dataset.fewshot_digest == second.dm.dataset.fewshot_digest
    assert train.parse([]).seed is None


def test_root_comes_from_option_then_environment(train, command, caltech_root, monkeypatch):
    """Catches: DATA ignored, or stronger than the option."""
    monkeypatch.setenv("DATA", "/from/environment")
    parse = train.parse
    argv = command()
    assert train.make_cfg(parse(argv)).DATASET.ROOT == str(caltech_root)
    assert train.make_cfg(parse(argv[2:])).DATASET.ROOT == "/from/environment"
    assert train.make_cfg(parse(["--data", "/from/option", *argv[2:]])).DATASET.ROOT == "/from/option"
    monkeypatch.delenv("DATA")
    monkeypatch.delenv("CLUSTERPROMPT_HOME", raising=False)
    assert train.make_cfg(parse(argv[2:])).DATASET.ROOT == "data"
    monkeypatch.setattr(sys, "argv", [str(CHECKOUT / "train.py")])
    assert train.make_cfg(parse(argv[2:])).DATASET.ROOT == str(CHECKOUT / "data")


def test_options_may_follow_pairs(train):
    """Catches: "--overwrite" after KEY VALUE taken for a key, and a key after --resume taken for a folder."""
    args = train.parse(["DATASET.NUM_SHOTS", "-1", "--overwrite", "--resume", "OPTIM.LR", "0.1"])
    assert args.overwrite and args.resume is True
    assert args.opts == ["DATASET.NUM_SHOTS", "-1", "OPTIM.LR", "0.1"]
    assert train.parse(["--resume", "output/run1", "OPTIM.LR", "0.1"]).resume == "output/run1"


def test_process(command):
    """Catches: what only shows in a process of its own: imports from the checkout's folder, exit codes, the traceback
    of a user's error.
    """
    ran = subprocess.run(
        [sys.executable, str(CHECKOUT / "train.py"), *command(root="/no/such/root")], capture_output=True, text=True
    )
    assert ran.returncode == 2
    assert "error: Data root not found: /no/such/root" in ran.stderr and "Traceback" not in ran.stderr
    assert not Path("out").exists()


# ------------------------------------------------------------------ an output folder that exists


def test_finished_run_is_left_alone(train, command, capsys):
    """Catches: a finished run repeated, resumed or overwritten by the same command."""
    train.main(command())
    before = snapshot(Path("out"))
    for words in ([], ["--resume"]):
        assert train.main(command(*words)) is None
        assert "Already finished, accuracy" in capsys.readouterr().out
    assert train.main(command(epochs="3")) is None
    assert "other settings: OPTIM.MAX_EPOCH 1 -> 3" in capsys.readouterr().out
    assert snapshot(Path("out")) == before


@pytest.fixture
def interrupted(train, command, monkeypatch):
    """An output folder in which a run of 3 epochs was stopped in the last one."""
    from clusterprompt.trainers.coop import CoOp

    class Killed(Exception):
        pass

    original = CoOp.losses

    def losses(self, batch):
        if self.epoch == 2:
            raise Killed
        return original(self, batch)

    monkeypatch.setattr(CoOp, "losses", losses)
    with pytest.raises(Killed):
        train.main(command("TRAIN.CHECKPOINT_FREQ", "1", epochs="3"))
    monkeypatch.setattr(CoOp, "losses", original)


def test_unfinished_run_is_refused(train, command, capsys, interrupted):
    """Catches: silent resuming, as real Dassl does, and silent restarting over what there is."""
    before = snapshot(Path("out"))
    said = fails(train, capsys, command("TRAIN.CHECKPOINT_FREQ", "1", epochs="3"))
    assert "--resume" in said and "--overwrite" in said
    said = fails(train, capsys, command("--resume", "TRAIN.CHECKPOINT_FREQ", "1", epochs="5"))
    assert "OPTIM.MAX_EPOCH 3 -> 5" in said
    assert snapshot(Path("out")) == before


def test_resume_equals_an_uninterrupted_run(train, command, interrupted):
    """Catches: a resumed run that starts again, or goes on with other random draws, optimiser or learning rate."""
    whole = train.main(command("TRAIN.CHECKPOINT_FREQ", "1", epochs="3", out="whole"))
    resumed = train.main(command("TRAIN.CHECKPOINT_FREQ", "1", "--resume", epochs="3"))
    assert resumed.start_epoch == 2
    assert resumed.learner.ctx.equal(whole.learner.ctx)
    assert result("out")["accuracy"] == result("whole")["accuracy"]
    histories = [[{**entry, "seconds": None} for entry in result(folder)["history"]] for folder in ("out", "whole")]
    assert histories[0] == histories[1] and len(histories[0]) == 3
    assert "Finish training" in Path("out/log.txt").read_text()  # the parsers' file; the older one was put aside
    assert len(list(Path("out").glob("log.txt-*"))) == 1


def test_resume_from_another_folder(train, command, interrupted, capsys):
    """Catches: --resume DIR ignored, a wrong DIR that silently starts from the beginning, a run of other settings or
    data gone on with.
    """
    resumed = train.main(command("TRAIN.CHECKPOINT_FREQ", "1", "--resume", "out", epochs="3", out="copy"))
    assert resumed.start_epoch == 2 and [entry["epoch"] for entry in result("copy")["history"]] == [1, 2, 3]
    assert "no such folder" in fails(train, capsys, command("--resume", "nowhere", out="third"))
    other = command("--resume", "out", "TRAIN.CHECKPOINT_FREQ", "1", "OPTIM.LR", "0.1", epochs="3", out="third")
    assert "other settings: OPTIM.LR" in fails(train, capsys, other)


def test_resume_with_nothing_to_resume(train, command, capsys):
    """Catches: a first start with --resume that fails, or does not say that it starts from the beginning."""
    assert train.main(command("--resume")).start_epoch == 0
    assert "Nothing to resume" in capsys.readouterr().out


def test_overwrite_replaces(train, command):
    """Catches: --overwrite that resumes, or leaves files of the old run."""
    train.main(command("TRAIN.CHECKPOINT_FREQ", "1", epochs="2"))
    assert Path("out/predictions.csv").is_file()
    Path("out/wandb").mkdir()  # as Weights & Biases would
    train.main(command("--overwrite"))
    assert result("out")["config"]["OPTIM"]["MAX_EPOCH"] == 1
    assert sorted(path.name for path in Path("out/prompt_learner").iterdir()) == ["checkpoint", "model.pth.tar-1"]
    assert not list(Path("out").glob("log.txt-*"))


def test_overwrite_spares_what_it_does_not_know(train, command, capsys):
    """Catches: --overwrite with a mistyped folder that removes somebody's files."""
    Path("out/thesis").mkdir(parents=True)
    Path("out/thesis/chapter1.tex").write_text("...")
    said = fails(train, capsys, command("--overwrite"))
    assert "thesis" in said and "Nothing was removed" in said
    assert list(snapshot(Path("out"))) == ["thesis/chapter1.tex"]


def test_overwrite_spares_the_model_to_be_evaluated(train, command, capsys):
    """Catches: an evaluation that removes the run it evaluates, or writes its result over it."""
    train.main(command())
    before = snapshot(Path("out"))
    assert "would remove the model" in fails(train, capsys, command("--eval-only", "--overwrite", "--model-dir", "out"))
    assert "holds a training run" in fails(train, capsys, command("--eval-only", "--model-dir", "out"))
    assert snapshot(Path("out")) == before


@pytest.mark.parametrize("words", [["--overwrite"], ["--resume"]])
def test_an_error_changes_nothing(train, command, capsys, words):
    """Catches: the old run removed, or a log begun, before the new one is known to start."""
    train.main(command())
    before = snapshot(Path("out"))
    if words == ["--overwrite"]:
        fails(train, capsys, command(*words, "DATASET.NUM_SHOTS", "0"))
    else:
        fails(train, capsys, command(*words, "DATASET.NUM_SHOTS", "x"))
    assert snapshot(Path("out")) == before


def test_a_failed_start_does_not_block_the_next(train, command, capsys):
    """Catches: a folder that counts as an unfinished run although nothing was trained."""
    fails(train, capsys, command("DATASET.NUM_SHOTS", "0"))
    assert not Path("out").exists()
    Path("out").mkdir()
    Path("out/log.txt").write_text("a log and nothing else\n")
    assert train.main(command()) is not None
    assert "Finish training" in Path("out/log.txt").read_text()


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    "words, message",
    [
        (["--trainer", "Coop"], "unknown trainer 'Coop'. Did you mean 'CoOp'?"),
        (["DATASET.NAME", "Caltech11"], "unknown data set 'Caltech11'. Did you mean 'Caltech101'?"),
        (["OPTIM.MAX_EPOCS", "1"], "unknown config key 'OPTIM.MAX_EPOCS'. Did you mean 'OPTIM.MAX_EPOCH'?"),
        (["TRAINER.COOP.NCTX", "1"], "Did you mean 'TRAINER.COOP.N_CTX'?"),
        (["OPTIM.MAX_EPOCH", "1.5"], "OPTIM.MAX_EPOCH takes a int such as 1, not '1.5'"),
        (["OPTIM.LR", "fast"], "OPTIM.LR takes a float"),
        (["OPTIM.LR"], "must come in pairs"),
        (["--config-file", "configs/trainers/CoOp/base.yaml"], "holds basetonovel.yaml"),
        (["--backbone", "ViT-B/17"], "ViT-B/17"),
        (["--root", "/no/such/root"], "Data root not found: /no/such/root"),
        (["DATASET.NUM_SHOTS", "0"], "NUM_SHOTS is 0"),
        (["DATASET.NUM_SHOTS", "7"], "face (6)"),
        (["DATASET.SUBSAMPLE_CLASSES", "old"], "allowed: all, base, new"),
        (["--resume", "--overwrite"], "give one of them"),
        (["--eval-only", "--model-dir", "nowhere"], "nowhere"),
        (["--eval-only"], "CoOp has to be trained first; name the run to evaluate: --model-dir"),
    ],
)
def test_bad_input(train, command, capsys, words, message):
    """Catches: somebody else's traceback for a user's slip, an error without the way out, files left by a start that
    failed.
    """
    assert message in fails(train, capsys, command(*words))
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "OPTIM:\n  MAX_EPOCS: 3\n",
            "unknown config key 'OPTIM.MAX_EPOCS'. Did you mean 'OPTIM.MAX_EPOCH'? (in mine.yaml)",
        ),
        ("OPTIM:\n  MAX_EPOCH: 'many'\n", "OPTIM.MAX_EPOCH takes a int such as 10, not 'many' (in mine.yaml)"),
        ("OPTIM: [\n", "mine.yaml is not valid yaml"),
    ],
)
def test_bad_yaml(train, command, capsys, text, message):
    """Catches: an error in a yaml file that names neither file nor key."""
    argv = command("--config-file", "mine.yaml")
    Path("mine.yaml").write_text(text)
    assert message in fails(train, capsys, argv)


def test_traceback_on_request(train, command, capsys):
    """Catches: no way to see where an error came from."""
    assert commands_train.main(command("--traceback", "DATASET.NUM_SHOTS", "0")) == 2
    assert "Traceback" in capsys.readouterr().err


def test_faults_of_the_program_keep_their_traceback(train, command, monkeypatch):
    """Catches: a bug of ours reduced to one line as if the user had caused it."""

    def broken(self, batch):
        raise RuntimeError("a bug")

    monkeypatch.setattr("clusterprompt.trainers.coop.CoOp.losses", broken)
    stdout = sys.stdout
    with pytest.raises(RuntimeError, match="a bug"):
        commands_train.main(command())
    assert sys.stdout is stdout


def test_truncated_image_is_named(train, command, capsys, own_caltech_root):
    """Catches: a broken file somewhere among thousands."""
    victim = next((own_caltech_root / "caltech-101" / "101_ObjectCategories" / "Faces").iterdir())
    for path in victim.parent.iterdir():  # whichever is drawn
        path.write_bytes(path.read_bytes()[:200])
    said = fails(train, capsys, command(root=own_caltech_root))
    assert "Faces" + os.sep + "image_" in said


def test_non_finite_loss(train, command, capsys):
    """Catches: training that goes on with NaN weights."""
    said = fails(train, capsys, command("OPTIM.LR", "100", "OPTIM.WEIGHT_DECAY", "100", epochs="15"))
    assert "not finite" in said


# ------------------------------------------------------------------ crashes, and runs that must not be mixed


@pytest.mark.parametrize("content", [None, "", '{"status": "training"', "[]", "\0\0\0", '{"status": "training"}'])
def test_settings_travel_with_the_weights(train, command, capsys, interrupted, content):
    """Catches: weights of two settings mixed in silence where result.json is damaged or gone."""
    path = Path("out/result.json")
    path.unlink() if content is None else path.write_text(content)
    other = command("--resume", "TRAIN.CHECKPOINT_FREQ", "1", "OPTIM.LR", "0.1", epochs="3")
    assert "other settings: OPTIM.LR" in fails(train, capsys, other)
    train.main(command("--resume", "TRAIN.CHECKPOINT_FREQ", "1", epochs="3"))
    assert [entry["epoch"] for entry in result("out")["history"]] == [1, 2, 3]


def test_other_data_are_refused(train, command, capsys, interrupted, tmp_path, caltech_root):
    """Catches: an interrupted run gone on with, or a finished one called finished, on another few-shot sample."""
    own = tmp_path / "own"
    shutil.copytree(caltech_root, own)
    split = own / "caltech-101" / "split_zhou_Caltech101.json"
    parts = json.loads(split.read_text())
    parts["train"] = list(reversed(parts["train"]))
    split.write_text(json.dumps(parts))
    before = snapshot(Path("out"))
    same = command("--resume", "TRAIN.CHECKPOINT_FREQ", "1", epochs="3", root=own)
    assert "another few-shot sample (digest " in fails(train, capsys, same)
    assert snapshot(Path("out")) == before
    train.main(command("--resume", "TRAIN.CHECKPOINT_FREQ", "1", epochs="3"))
    assert "another few-shot sample (digest " in fails(train, capsys, same)


def test_two_runs_never_share_a_folder(train, command, capsys, interrupted):
    """Catches: --overwrite, --resume or a plain start in the folder of a run that is still going."""
    before = snapshot(Path("out"))
    with run_folder.owned("out"):
        for words in (["--overwrite"], ["--resume"], []):
            assert "out is in use by process" in fails(train, capsys, command(*words))
    assert snapshot(Path("out")) == before and not list(Path().glob(".*.lock"))


def test_a_folder_removed_while_training(train, command, capsys, monkeypatch):
    """Catches: a traceback of tensorboard's thread, or a run that goes on into half a folder."""
    from clusterprompt.trainers.coop import CoOp

    monkeypatch.setattr(CoOp, "end_epoch", lambda self: shutil.rmtree("out"))
    assert "the output folder out was removed" in fails(train, capsys, command())
    assert not Path("out").exists()


def test_a_clock_put_back(train, command, monkeypatch):
    """Catches: negative seconds in the record."""
    moments = iter(range(10**9, 0, -1000))
    monkeypatch.setattr("time.time", lambda: next(moments))
    train.main(command())
    written = result("out")
    assert 0 <= written["seconds"]["train"] < 600 and 0 <= written["history"][0]["seconds"] < 600
    assert 0 <= written["seconds"]["test"] < 600


def test_a_full_disk_is_one_line(train, command, capsys, monkeypatch):
    """Catches: torch's "unexpected pos 27328 vs 27216" with a traceback; a run that cannot go on afterwards."""
    real = torch.save

    def full(content, path, *args, **kwargs):
        if "resume_state" in str(path):
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 27328 vs 27216")
        real(content, path, *args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    said = fails(train, capsys, command())
    assert "resume_state.pt" in said and "MiB are free there" in said
    monkeypatch.setattr(torch, "save", real)
    assert train.main(command("--resume")).start_epoch == 0


def test_a_run_does_not_write_through_links(train, command, tmp_path):
    """Catches: event files written into a folder of the user's, which a link in the output folder points at."""
    for name in ("out", "mine"):
        (tmp_path / name).mkdir()
    (tmp_path / "out" / "tensorboard").symlink_to(tmp_path / "mine")
    with pytest.raises(ValueError, match="links that a run would write through"):
        train.main(command())
    assert not list((tmp_path / "mine").iterdir()) and os.listdir("out") == ["tensorboard"]


def test_data_are_looked_for_before_weights(train, command, capsys, monkeypatch):
    """Catches: hundreds of MB of CLIP's weights fetched, only to find out that the data are not there."""
    from clusterprompt.clip_patches import loading

    monkeypatch.setattr(loading, "_download", lambda *args: pytest.fail("asked for weights"))
    for root, said in (("nowhere", "Data root not found"), (".", "Folder not found: .*caltech-101")):
        with pytest.raises(FileNotFoundError, match=said):
            train.main(command("--backbone", "ViT-B/16", root=root))
    assert not Path("out").exists()
