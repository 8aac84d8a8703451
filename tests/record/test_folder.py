"""A run's output folder: who owns it, whether it is ours, what clearing leaves when it is killed."""

import os
from pathlib import Path

import pytest

from clusterprompt.record import folder as run_folder
from clusterprompt.record.files import write_text
from clusterprompt.record.result import RunRecord


def record(folder, **fields):
    """Write the record of a finished run."""
    needed = {"status": "finished", "trainer": "CoOp", "dataset": "Shapes", "subsample": "all"}
    RunRecord(**{**needed, "shots": 1, "seed": 1, "backbone": "tiny", "learned_parameters": 9, **fields}).write(folder)


def a_run(folder):
    """Write what a run leaves, without running."""
    record(folder)
    for name in ("prompt_learner/checkpoint", "prompt_learner/model.pth.tar-1", "log.txt", "tensorboard/events"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("model.pth.tar-1")
    return folder


def test_a_folder_has_one_owner(tmp_path):
    """Catches: two runs that write into one folder, each over the other's files."""
    out = tmp_path / "new" / "out"
    with run_folder.owned(out):
        (tmp_path / "link").symlink_to(tmp_path / "new")
        for name in (out, tmp_path / "link" / "out"):
            with pytest.raises(BlockingIOError, match=f"in use by process {os.getpid()} on .*another --output-dir"):
                with run_folder.owned(name):
                    pass
    with run_folder.owned(out):  # free again
        pass
    assert not (tmp_path / "new").exists()  # and nothing is left by starts that failed


def test_a_killed_owner_does_not_block(tmp_path):
    """Catches: a lock that outlives a killed run."""
    child = os.fork()
    if child == 0:
        with run_folder.owned(tmp_path / "out"):
            os._exit(9)
    os.waitpid(child, 0)
    assert (tmp_path / ".out.lock").exists()
    with run_folder.owned(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["pictures/holiday.jpg", "wandb/notes.txt", "config.yaml", "notes.tmp", "thesis/checkpoint", ".notes.tmp"]
)
def test_a_folder_without_our_mark_is_not_cleared(tmp_path, name):
    """Catches: --overwrite that removes files which only have names like a run's."""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"{Path(name).parts[0]}.*Nothing was removed"):
        run_folder.clear(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize("name", ["notes.tmp", "log.txt.important", "prompt_learner/thesis.tex"])
def test_foreign_files_beside_a_run_are_spared(tmp_path, name):
    """Catches: --overwrite that takes whatever lies in a run's folder for the run's."""
    (a_run(tmp_path) / name).write_text("mine")
    with pytest.raises(ValueError, match=f"holds what no run of this program wrote \\({name}"):
        run_folder.clear(tmp_path)


def test_a_log_alone_does_not_make_a_folder_ours(tmp_path):
    """Catches: a log removed from a folder that never held a run."""
    (tmp_path / "log.txt").write_text("mine")
    run_folder.clear(tmp_path)
    assert (tmp_path / "log.txt").read_text() == "mine"


@pytest.mark.parametrize("steps", range(7))
def test_clearing_that_is_killed_leaves_no_mixture(tmp_path, monkeypatch, steps):
    """Catches: half of the old run adopted by the next one, or reported as finished."""
    a_run(tmp_path)
    calls = []

    def killed(name):
        real = getattr(os, name)

        def call(*args, **kwargs):
            calls.append(name)
            if len(calls) > steps:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        return call

    for name in ("rename", "mkdir", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, killed(name))
    with pytest.raises(KeyboardInterrupt):
        run_folder.clear(tmp_path)
    monkeypatch.undo()
    if steps == 0:
        assert run_folder.state(tmp_path) == "finished"  # nothing was done yet
    else:
        assert run_folder.state(tmp_path) == "fresh" and run_folder.is_half_cleared(tmp_path)
    run_folder.clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_links_are_not_written_through(tmp_path):
    """Catches: a file of the user's overwritten because a link in the output folder points at it."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    out = a_run(tmp_path / "out")
    for name in ("config.yaml", "cmat.pt"):
        (out / name).symlink_to(mine)
    (out / "log.txt").unlink()
    (out / "log.txt").symlink_to(mine)
    run_folder.check_writable(out)
    run_folder.open_folder(out)
    run_folder.rotate_log(out)
    write_text(out / "config.yaml", "OPTIM: {}\n")
    assert mine.read_text() == "mine" and not (out / "config.yaml").is_symlink()
    assert not (out / "cmat.pt").is_symlink() and not (out / "log.txt").is_symlink()
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.yaml").symlink_to(mine)
    with pytest.raises(ValueError, match="holds config.yaml, which no run of this program wrote"):
        run_folder.check_writable(tmp_path / "theirs")


@pytest.mark.parametrize("name", ["tensorboard", "prompt_learner", "new_learner", "prompt_learner/model.pth.tar-1"])
def test_links_to_folders_are_refused(name, tmp_path):
    """Catches: event files and checkpoints written into a folder of the user's because a link in the output folder
    points at it.
    """
    out, mine = a_run(tmp_path / "out"), tmp_path / "mine"
    run_folder.check_links(out)
    run_folder.check_links(tmp_path / "nowhere")
    if (out / name).exists():
        (out / name).rename(mine)
    else:
        mine.mkdir()
    (out / name).symlink_to(mine)
    with pytest.raises(ValueError, match=f"links that a run would write through .{name} -> {mine}"):
        run_folder.check_links(out)
    if mine.is_dir():
        with pytest.raises(ValueError, match="holds what no run of this program wrote"):
            run_folder.check_removable(out)
    else:
        run_folder.clear(out)
        assert mine.read_text() and not list(out.iterdir())


def test_output_folder_may_be_a_link(tmp_path):
    """Catches: results on another disk refused, because their folder is reached by a link."""
    (tmp_path / "link").symlink_to(a_run(tmp_path / "other disk"))
    run_folder.check_links(tmp_path / "link")


def test_left_overs_of_killed_writers_go(tmp_path):
    """Catches: one temporary file more with every kill."""
    (a_run(tmp_path) / ".result.json.77.abc.tmp").write_text("{")
    run_folder.open_folder(tmp_path)
    assert not list(tmp_path.glob(".*.tmp")) and (tmp_path / run_folder.MARK).is_file()


def test_a_test_is_stale_by_content_not_by_time(tmp_path):
    """Catches: tests repeated for ever after the clock was put back, or a retrained model's old test that counts."""
    training, test = a_run(tmp_path / "training"), tmp_path / "test"
    file = training / "prompt_learner" / "model.pth.tar-1"
    record(test, checkpoint=run_folder.checkpoint_mark(file))
    os.utime(training / "result.json", (2e9, 2e9))  # "from tomorrow"
    assert not run_folder.is_stale(test, training)
    file.write_text("other weights")
    os.utime(training / "result.json", (1, 1))
    assert run_folder.is_stale(test, training)
    file.rename(file.with_name("model.pth.tar-2"))  # trained again, to another epoch
    assert run_folder.is_stale(test, training)


def test_tests_of_older_versions(tmp_path):
    """Catches: records without a checkpoint's digest that are never stale, or always."""
    training, test = a_run(tmp_path / "training"), tmp_path / "test"
    record(test)
    os.utime(training / "result.json", (1, 1))
    assert not run_folder.is_stale(test, training)
    os.utime(training / "result.json", (2e9, 2e9))
    assert run_folder.is_stale(test, training)  # repeated once; then it has a digest
    record(training, checkpoint={"file": "prompt_learner/model.pth.tar-1", "sha256": "1"})
    os.utime(training / "result.json", (1, 1))
    assert run_folder.is_stale(test, training)


def test_a_failed_write_names_its_file_and_the_room(tmp_path, monkeypatch):
    """Catches: "[Errno 28] No space left on device" without a path, and half a file left behind."""

    def full(self, text, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match=r"No space left on device \(.* MiB are free there\): '.*result.json'"):
        write_text(tmp_path / "result.json", "{}")
    assert list(tmp_path.iterdir()) == []


def test_a_start_that_was_killed_does_not_block_the_next(tmp_path, monkeypatch):
    """Catches: the half-written mark of a killed start taken for somebody's file, so that no run can start there."""

    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("clusterprompt.record.files.os.replace", kill)
        patch.setattr("clusterprompt.record.files.Path.unlink", kill)  # a killed process tidies nothing up
        with pytest.raises(Killed):
            run_folder.open_folder(tmp_path / "out")
    (left,) = (tmp_path / "out").iterdir()
    assert left.name.endswith(".tmp") and run_folder.state(tmp_path / "out") == "fresh"
    run_folder.check_writable(tmp_path / "out")
    run_folder.open_folder(tmp_path / "out")
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == [run_folder.MARK]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".notes.1.tmp").write_text("mine")
    with pytest.raises(ValueError, match="which no run of this program wrote"):
        run_folder.check_writable(tmp_path / "other")
