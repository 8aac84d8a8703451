"""Tables of settings by data set, beside the yamls of a trainer."""

from pathlib import Path

import pytest

from clusterprompt.running.dataset_settings import dataset_settings
from clusterprompt.running.options import TrainOptions
from clusterprompt.running.train import make_cfg, train

CHECKOUT = Path(__file__).resolve().parents[2]
TABLE = """
caltech101:
  TRAINER: {COOP: {N_CTX: 7}}
  OPTIM: {MAX_EPOCH: 3}
  basetonovel:
    OPTIM: {MAX_EPOCH: 2}
dtd:
  OPTIM: {LR: 1}
"""


@pytest.fixture
def folder(tmp_path):
    for name in ("basetonovel", "fewshot"):
        (tmp_path / f"{name}.yaml").write_text("OPTIM: {MAX_EPOCH: 9}\nTRAINER: {COOP: {N_CTX: 4, PREC: fp32}}")
    (tmp_path / "datasets.yaml").write_text(TABLE)
    return tmp_path


def settings(folder, *pairs, yaml="basetonovel", dataset="caltech101"):
    """The config of a run."""
    options = TrainOptions(
        config_file=str(folder / f"{yaml}.yaml"),
        dataset_config_file=str(CHECKOUT / "configs" / "datasets" / f"{dataset}.yaml"),
        trainer="CoOp",
        backbone="tiny",
        opts=pairs,
    )
    return make_cfg(options)


def test_order(folder):
    """Catches: a table that the yaml beats, one that beats the command line, another yaml's part of an entry."""
    assert (settings(folder).TRAINER.COOP.N_CTX, settings(folder).OPTIM.MAX_EPOCH) == (7, 2)
    assert settings(folder, yaml="fewshot").OPTIM.MAX_EPOCH == 3
    given = settings(folder, "TRAINER.COOP.N_CTX", "5", "OPTIM.MAX_EPOCH", "9")
    assert (given.TRAINER.COOP.N_CTX, given.OPTIM.MAX_EPOCH) == (5, 9)


def test_other_data_sets(folder):
    """Catches: settings that reach a data set without an entry, or miss one whose class is spelled otherwise."""
    assert settings(folder, dataset="oxford_pets").TRAINER.COOP.N_CTX == 4
    assert settings(folder, dataset="dtd").OPTIM.LR == 1.0  # its class is DescribableTextures
    assert settings(folder, "DATASET.NAME", "DescribableTextures").OPTIM.LR == 1.0
    (folder / "datasets.yaml").unlink()
    assert settings(folder).TRAINER.COOP.N_CTX == 4


@pytest.mark.parametrize(
    "text, message",
    [
        ("caltech101: {OPTIM: {RATE: 1}}", r"unknown config key 'OPTIM.RATE'.*datasets.yaml"),
        ("caltech101: {OPTIM: {LR: fast}}", r"OPTIM.LR takes a float .*datasets.yaml"),
        ("caltech101: {basetonew: {OPTIM: {LR: 1}}}", r"names 'basetonew', which is neither a config node nor a yaml"),
        ("caltech101: 7", r"the entry of Caltech101 should hold config nodes, not '7'"),
        ("caltech101: {basetonovel: 7}", r"the entry of Caltech101 should hold config nodes, not '7'"),
    ],
)
def test_faulty_tables(text, message, folder):
    """Catches: a setting lost in silence, an error that does not say where the setting stands."""
    (folder / "datasets.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        settings(folder)


def test_said_and_recorded(folder, caltech_root, clip_file, tmp_path, capsys):
    """Catches: a run whose settings nobody wrote, and no word of where they come from."""
    options = TrainOptions(
        root=str(caltech_root),
        output_dir=str(tmp_path / "out"),
        seed=1,
        config_file=str(folder / "basetonovel.yaml"),
        dataset_config_file=str(CHECKOUT / "configs" / "datasets" / "caltech101.yaml"),
        trainer="CoOp",
        backbone=clip_file,
        no_train=True,
        opts=("DATASET.NUM_SHOTS", "4", "OPTIM.MAX_EPOCH", "1", "DATALOADER.NUM_WORKERS", "0"),
    )
    assert train(options).learner.ctx.shape[0] == 7
    said = "TRAINER.COOP.N_CTX 7, OPTIM.MAX_EPOCH 2 (here 1, by the command line)"
    assert f"Settings of Caltech101 in {folder / 'datasets.yaml'}: {said}" in capsys.readouterr().out
    assert said in (tmp_path / "out" / "log.txt").read_text()
    assert "N_CTX: 7" in (tmp_path / "out" / "config.yaml").read_text()


def test_a_table_is_no_yaml_of_itself(folder):
    """Catches: a table taken for a trainer's yaml that it would then be merged into."""
    with pytest.raises(ValueError, match="unknown config key 'caltech101"):
        settings(folder, yaml="datasets")
    assert dataset_settings(folder / "basetonovel.yaml", "nothing") == {}
