"""Registries, meters, the log, files, layers."""

import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn as nn
from dassl import utils
from dassl.metrics import compute_accuracy
from dassl.utils import AverageMeter, MetricMeter, Registry, check_availability
from toolbox_toys import environment, toolbox_only


def test_registry():
    """Fault: a second class silently replaces the first of its name."""
    registry = Registry("THING")

    @registry.register()
    class Small:
        pass

    class Large:
        pass

    registry.register(Large)
    assert registry.registered_names() == ["Small", "Large"] and registry.get("Small") is Small
    with pytest.raises(KeyError):
        registry.register(Large)
    registry.register(type("Large", (), {}), force=True)
    assert registry.get("Large") is not Large
    with pytest.raises(KeyError, match="small"):
        registry.get("small")


@toolbox_only
def test_registry_names_the_closest():
    """Fault: KeyError: 'small', and no list."""
    registry = Registry("THING")
    registry.register(type("Small", (), {}))
    with pytest.raises(
        KeyError, match=r"'small' is not registered in THING. Did you mean 'Small'\? Registered: \['Small'\]"
    ):
        registry.get("small")


def test_availability_names_the_closest():
    """Fault: a user looks for a typing error in a list of fifty."""
    check_availability("CoOp", ["CoOp", "Other"])
    with pytest.raises(ValueError, match="CoOp"):
        check_availability("coop", ["Other", "CoOp"])
    assert utils.get_most_similar_str_to_a_from_b("coop", ["Other", "CoOp"]) == "CoOp"


def test_meters():
    """Fault: the printed average is not that of the epoch."""
    meter = AverageMeter()
    for value, n in ((1.0, 1), (torch.tensor([4.0]), 2)):
        meter.update(value, n)
    assert (meter.val, meter.sum, meter.count, meter.avg) == (4.0, 9.0, 3, 3.0)
    ema = AverageMeter(ema=True)
    ema.update(10)
    ema.update(20)
    assert ema.avg == pytest.approx(0.9 * 1.0 + 0.1 * 20)
    metrics = MetricMeter()
    metrics.update({"loss": 1.0, "acc": torch.tensor(50.0)})
    metrics.update(None)
    metrics.update({"loss": 2.0})
    assert str(metrics) == "loss 2.0000 (1.5000) acc 50.0000 (50.0000)" and metrics.meters["loss"].count == 2
    with pytest.raises(TypeError):
        metrics.update([1.0])


def test_topk_accuracy():
    """Fault: fractions instead of percent; top-5 fails on non-contiguous memory."""
    output = torch.tensor([[5.0, 1, 2, 3], [1, 5, 3, 2], [3, 2, 1, 5], [1, 2, 5, 3]])
    target = torch.tensor([0, 2, 0, 0])
    assert compute_accuracy(output, target)[0].item() == 25.0
    assert compute_accuracy((output, None), target)[0].item() == 25.0


@toolbox_only
def test_topk_accuracy_above_one():
    """Fault: a view of a non-contiguous tensor."""
    output = torch.tensor([[5.0, 1, 2, 3], [1, 5, 3, 2], [3, 2, 1, 5], [1, 2, 5, 3]])
    top = compute_accuracy(output, torch.tensor([0, 2, 0, 0]), topk=(1, 2, 4))
    assert [t.item() for t in top] == [25.0, 75.0, 100.0] and top[0].shape == (1,)


def test_seed_reaches_all_generators():
    """Fault: a generator left unseeded makes seeds mean nothing."""

    def draw():
        utils.set_random_seed(7)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert (
        draw()
        == draw()
        == (
            random.Random(7).random(),
            np.random.RandomState(7).rand(),
            torch.rand(1, generator=torch.Generator().manual_seed(7)).item(),
        )
    )


# Log


def test_log_goes_to_console_and_file(tmp_path, capsys, log_to):
    """Fault: a second run overwrites the first one's log, which parsers read."""
    log_to(None)
    console = sys.stdout
    log_to(str(tmp_path / "run"))
    print("hello")
    sys.stdout.flush()
    assert (tmp_path / "run" / "log.txt").read_text() == "hello\n" and "hello" in capsys.readouterr().out
    sys.stdout = console
    log_to(str(tmp_path / "run"))
    print("again")
    sys.stdout.flush()
    assert (tmp_path / "run" / "log.txt").read_text() == "hello\n"
    assert len(list((tmp_path / "run").glob("log.txt-2*"))) == 1
    sys.stdout = console
    log_to(str(tmp_path / "named.log"))
    assert (tmp_path / "named.log").is_file()


@toolbox_only
def test_log_is_a_good_stdout(tmp_path, capfd, log_to):
    """Fault: libraries that ask stdout for isatty, fileno or encoding fail; close() takes the console with it."""
    console = sys.stdout
    log_to(str(tmp_path / "a"))
    log = sys.stdout
    assert log.isatty() is False and log.encoding == console.encoding and log.fileno() == console.fileno()
    log_to(str(tmp_path / "b"))
    print("of the second run")
    sys.stdout.close()
    print("after close")
    assert (tmp_path / "a" / "log.txt").read_text() == ""
    assert (tmp_path / "b" / "log.txt").read_text() == "of the second run\n"
    assert "after close" in capfd.readouterr().out


@pytest.mark.slow
@toolbox_only
@pytest.mark.parametrize("end", ["os._exit(3)", "sys.stdout.flush(); sys.stdout.close(); os._exit(3)"])
def test_log_survives_os_exit(tmp_path, end):
    """Fault: a buffered log is empty when a trainer ends by os._exit, and its result is lost."""
    code = (
        f"import os, sys, dassl.utils; dassl.utils.setup_logger({str(tmp_path)!r}); print('* accuracy: 75.0%'); {end}"
    )
    assert subprocess.run([sys.executable, "-c", code], env=environment(), stdout=subprocess.DEVNULL).returncode == 3
    assert (tmp_path / "log.txt").read_text() == "* accuracy: 75.0%\n"


# Files


def test_json_and_folders(tmp_path, monkeypatch):
    """Fault: a missing folder ends a run at the point where it writes its result."""
    path = tmp_path / "new" / "a.json"
    utils.write_json({"x": [1]}, str(path))
    assert utils.read_json(str(path)) == {"x": [1]} and path.read_text().startswith('{\n    "x"')
    utils.mkdir_if_missing(str(tmp_path / "new"))
    (tmp_path / ".hidden").touch()
    (tmp_path / "b").touch()
    (tmp_path / "a").touch()
    assert utils.listdir_nohidden(str(tmp_path), sort=True) == ["a", "b", "new"]
    assert sorted(utils.listdir_nohidden(str(tmp_path))) == ["a", "b", "new"]
    assert utils.check_isfile(str(path))
    with pytest.warns(UserWarning, match="nothing"):
        assert not utils.check_isfile(str(tmp_path / "nothing"))
    assert utils.tolist_if_not("a") == ["a"] and utils.tolist_if_not(["a"]) == ["a"]


@toolbox_only
def test_json_with_a_bare_name(tmp_path, monkeypatch):
    """Fault: makedirs('') fails."""
    monkeypatch.chdir(tmp_path)
    utils.write_json([], "bare.json")
    assert os.path.isfile("bare.json")


@toolbox_only
def test_download_shows_no_bar_in_a_pipe_and_unpacks(tmp_path, capfd):
    """Fault: a log full of progress bars; an archive left packed."""
    import zipfile

    from dassl.data.datasets import DatasetBase

    with zipfile.ZipFile(tmp_path / "src.zip", "w") as archive:
        archive.writestr("inside.txt", "hello")
    DatasetBase.download_data(None, (tmp_path / "src.zip").as_uri(), str(tmp_path / "data" / "got.zip"))
    assert (tmp_path / "data" / "inside.txt").read_text() == "hello" and capfd.readouterr().err == ""


def test_environment_report():
    """Fault: the report fails on a current torch, and with it the start of train.py."""
    report = utils.collect_env_info()
    assert torch.__version__ in report and "Pillow" in report


# Layers


def two_layers():
    model = nn.Sequential()
    model.add_module("backbone", nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    model.add_module("head", nn.Linear(3, 2))
    return model


def test_open_layers():
    """Fault: frozen layers go on training, or stay in training mode."""
    model = two_layers()
    utils.open_specified_layers(model, "head")
    assert not any(p.requires_grad for p in model.backbone.parameters()) and not model.backbone.training
    assert all(p.requires_grad for p in model.head.parameters()) and model.head.training
    utils.open_all_layers(model)
    assert all(p.requires_grad for p in model.parameters()) and model.backbone[1].training
    assert utils.count_num_param(model) == 9 + 6 + 8 == utils.count_num_param(params=model.parameters())


@toolbox_only
def test_layer_errors():
    """Fault: a misspelt layer trains nothing."""
    with pytest.raises(ValueError, match="'haed'.*head"):
        utils.open_specified_layers(two_layers(), ["haed"])
    with pytest.raises(ValueError, match="needs a model"):
        utils.count_num_param()


def test_init_network_weights():
    """Fault: layers keep their old weights."""
    for kind in ("normal", "xavier", "kaiming", "orthogonal"):
        model = two_layers()
        before = model.head.weight.clone()
        utils.init_network_weights(model, init_type=kind)
        assert not torch.equal(model.head.weight, before) and not model.head.bias.any()
        assert not model.backbone[1].bias.any()
