"""extend_cfg: discovery, hosts, config nodes; what real Dassl needs on a current torch."""

import importlib
import importlib.util
import os
import subprocess
import sys
import textwrap

import numpy
import pytest
import support
import torch
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.utils import Registry
from yacs.config import CfgNode

import clusterprompt
from clusterprompt import dassl_compat, registration
from clusterprompt.datasets.base import PromptDataset
from clusterprompt.record.result import RunRecord
from clusterprompt.running.spec import CONFIGS
from clusterprompt.trainers.base import PromptTrainer
from clusterprompt.trainers.coop import CoOp


@pytest.fixture
def empty_registries(monkeypatch):
    """Registries of a host that has nothing yet."""
    trainers, datasets = Registry("TRAINER"), Registry("DATASET")
    monkeypatch.setattr("dassl.engine.TRAINER_REGISTRY", trainers)
    monkeypatch.setattr("dassl.data.datasets.DATASET_REGISTRY", datasets)
    return trainers, datasets


def test_import_is_cheap():
    """Catches: torch or Dassl imported by `import clusterprompt`, seconds for a host that only wants the version."""
    code = "import sys, clusterprompt; print([m for m in ('torch', 'dassl', 'clip', 'yacs') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_everything_is_found(empty_registries):
    """Catches: a trainer or data set that discovery overlooks, or an abstract class that it takes."""
    trainers, datasets = empty_registries
    clusterprompt.extend_cfg(get_cfg_default())
    assert {"ZeroshotCLIP", "CoOp", "TAC"} <= set(trainers.registered_names())
    assert "Caltech101" in datasets.registered_names()
    assert "PromptTrainer" not in trainers.registered_names() and "PromptDataset" not in datasets.registered_names()
    for name in trainers.registered_names():
        assert issubclass(trainers.get(name), PromptTrainer)
    for name in datasets.registered_names():
        assert issubclass(datasets.get(name), PromptDataset)


def test_importing_registers_nothing(empty_registries):
    """Catches: a decorator in a trainer's file, which clashes with a host's class of the same name."""
    registration.own_trainers(), registration.own_datasets()
    assert [list(registry.registered_names()) for registry in empty_registries] == [[], []]


def test_every_method_has_its_node():
    """Catches: options that do not reach the config, or a node under another name."""
    cfg = get_cfg_default()
    clusterprompt.extend_cfg(cfg)
    assert cfg.DATASET.SUBSAMPLE_CLASSES == "all"
    for trainer in registration.own_trainers():
        assert {key: cfg.TRAINER[trainer.node()][key] for key in trainer.options} == trainer.options


def test_twice_is_once():
    """Catches: a second call that fails on the names the first one registered, or resets values."""
    cfg = get_cfg_default()
    clusterprompt.extend_cfg(cfg)
    cfg.TRAINER.COOP.N_CTX = 7
    names = list(TRAINER_REGISTRY.registered_names()), list(DATASET_REGISTRY.registered_names())
    clusterprompt.extend_cfg(cfg)
    assert cfg.TRAINER.COOP.N_CTX == 7
    assert names == (list(TRAINER_REGISTRY.registered_names()), list(DATASET_REGISTRY.registered_names()))


def test_a_host_keeps_its_own(empty_registries, caplog):
    """Catches: the host's class replaced, its keys overwritten, its data set left without the template we need."""
    trainers, datasets = empty_registries
    host_trainer = trainers.register()(type("CoOp", (TrainerX,), {}))
    host_dataset = datasets.register()(type("Caltech101", (DatasetBase,), {}))
    cfg = get_cfg_default()
    cfg.TRAINER.COOP = CfgNode({"N_CTX": 99, "HOST_KEY": 1})
    cfg.DATASET.SUBSAMPLE_CLASSES = "base"
    with caplog.at_level("INFO"):
        clusterprompt.extend_cfg(cfg)
    assert trainers.get("CoOp") is host_trainer and datasets.get("Caltech101") is host_dataset
    assert (
        "trainer of that name is not used: CoOp (" in caplog.text
        and "data set of that name is not used: Caltech101 (" in caplog.text
    )
    assert (cfg.TRAINER.COOP.N_CTX, cfg.TRAINER.COOP.HOST_KEY, cfg.DATASET.SUBSAMPLE_CLASSES) == (99, 1, "base")
    assert "CSC" in cfg.TRAINER.COOP
    assert host_dataset.template == "a photo of a {}."


def test_values_whose_type_a_host_fixes(empty_registries):
    """Catches: our yaml refused by yacs where KgCoOp's checkout has CTX_INIT False, or Dassl 0.5 no RRCROP_SCALE."""
    cfg = get_cfg_default()
    cfg.TRAINER.COOP = CfgNode({"CTX_INIT": False, "N_CTX": 16})
    del cfg.INPUT["RRCROP_SCALE"]
    clusterprompt.extend_cfg(cfg)
    assert cfg.TRAINER.COOP.CTX_INIT is None and cfg.INPUT.RRCROP_SCALE == (0.08, 1.0)
    for name in ("KgCoOp", "TAC"):
        cfg.merge_from_file(str(CONFIGS / "trainers" / name / "basetonovel.yaml"))
    assert cfg.TRAINER.COOP.CTX_INIT == "a photo of a" and cfg.INPUT.RRCROP_SCALE == (0.4, 1.0)
    cfg.TRAINER.COOP.CTX_INIT = None
    cfg.merge_from_list(["TRAINER.COOP.CTX_INIT", True])  # the host's own yaml


def test_crops_of_a_dassl_without_the_key(build, monkeypatch):
    """Catches: Dassl 0.5, whose transforms do not read INPUT.RRCROP_SCALE, crops otherwise than TAC's yaml says."""
    from torchvision.transforms import RandomResizedCrop

    plain = RandomResizedCrop.__init__
    monkeypatch.setattr(RandomResizedCrop, "__init__", lambda self, size, scale=None, **kw: plain(self, size, **kw))
    trainer = build("CoOp", "INPUT.RRCROP_SCALE", (0.4, 0.9))
    (crop,) = [t for t in trainer.train_loader_x.dataset.transform.transforms if isinstance(t, RandomResizedCrop)]
    assert crop.scale == (0.4, 0.9)


def test_a_hosts_template_stays(empty_registries):
    """Catches: the host's own template overwritten."""
    host = empty_registries[1].register()(type("Caltech101", (DatasetBase,), {"template": "the host's {}"}))
    clusterprompt.extend_cfg(get_cfg_default())
    assert host.template == "the host's {}"


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_state_is_kept(frozen):
    """Catches: a config that comes back open to typing errors, or closed to the host's next line."""
    cfg = get_cfg_default()
    if frozen:
        cfg.freeze()
    clusterprompt.extend_cfg(cfg)
    assert cfg.is_frozen() == cfg.TRAINER.COOP.is_frozen() == frozen


@pytest.fixture
def module_beside(tmp_path, monkeypatch):
    """A function that puts a module into one of our folders, as a user who adds a file does; its namespace."""

    def put(folder, name, code):
        package = importlib.import_module(f"clusterprompt.{folder}")
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        full = f"{package.__name__}.{name}"
        monkeypatch.setitem(sys.modules, full, None)  # so that it is gone afterwards
        del sys.modules[full]
        return importlib.import_module(full)

    return put


MY_COOP = """
    from .coop import CoOp


    class MyCoOp(CoOp):
        def losses(self, batch):
            return {"twice": 2 * super().losses(batch)["ce"]}


    class _Unfinished(CoOp):
        pass
    """


def test_a_subclass_without_options_of_its_own(module_beside, empty_registries, data, backbone, tmp_path):
    """Catches: `class MyCoOp(CoOp)` that overrides `losses` alone, and is never found."""
    module = module_beside("trainers", "mycoop", MY_COOP)
    assert module.MyCoOp in registration.own_trainers() and module._Unfinished not in registration.own_trainers()
    cfg = support.config("MyCoOp", data, backbone, tmp_path, "TRAINER.MYCOOP.N_CTX", 3, "OPTIM.MAX_EPOCH", 1)
    assert dict(cfg.TRAINER.MYCOOP) == {**CoOp.options, "N_CTX": 3, "PREC": "fp32"}
    assert cfg.TRAINER.COOP.N_CTX == CoOp.options["N_CTX"]
    trainer = empty_registries[0].get("MyCoOp")(cfg)
    trainer.train()
    record = RunRecord.read(tmp_path)
    assert (record.trainer, record.status, list(record.history[0]["losses"])) == ("MyCoOp", "finished", ["twice"])
    assert trainer.learner.ctx.shape == (3, 128)


def test_subclasses_of_every_method(build, data, backbone, tmp_path):
    """Catches: a method that reads its settings from a node of a fixed name, where a subclass has its own."""
    for method in registration.own_trainers():
        subclass = type(f"My{method.__name__}", (method,), {"config_node": ""})
        cfg = support.config(method.__name__, data, backbone, tmp_path).clone()
        cfg.defrost()
        cfg.TRAINER.NAME, cfg.TRAINER[subclass.node()] = subclass.__name__, cfg.TRAINER[method.node()]
        del cfg.TRAINER[method.node()]
        cfg.freeze()
        trainer = subclass(cfg)
        if trainer.learner is None:
            continue
        trainer.set_model_mode("train")
        trainer.epoch, trainer.batch_idx, trainer.num_batches = 0, 0, 10**9
        assert trainer.forward_backward(next(iter(trainer.train_loader_x)))["loss"] > 0, method


def test_a_data_set_with_another_template(module_beside, empty_registries, data, backbone, tmp_path):
    """Catches: a subclass of a data set that changes the template alone, and is never found."""
    code = """
        from .caltech101 import Caltech101


        class Caltech101Sketched(Caltech101):
            template = "a sketch of a {}."
        """
    module = module_beside("datasets", "caltech_sketched", code)
    assert module.Caltech101Sketched in registration.own_datasets()
    assert "DrawnDataset" not in {cls.__name__ for cls in registration.own_datasets()}
    cfg = support.config("CoOp", data, backbone, tmp_path, "DATASET.NAME", "Caltech101Sketched")
    dataset = empty_registries[1].get("Caltech101Sketched")(cfg)
    assert dataset.template == "a sketch of a {}." and len(dataset.classnames) == 8


def test_no_names_of_real_dassl():
    """Catches: a class whose name real Dassl has taken, so that ours would never be used there."""
    taken = (
        "SE MCD MME ADDA CDAC DAEL DANN AdaBN M3SDA SourceOnly DDAIG DAELDG Vanilla CrossGrad DomainMix EntMin "
        "FixMatch MixMatch MeanTeacher SupBaseline Digit5 VisDA17 CIFARSTL Office31 DomainNet OfficeHome miniDomainNet "
        "PACS VLCS FMoW IWildCam Camelyon17 CIFAR10C CIFAR100C DigitsDG "
        "DigitSingle OfficeHomeDG CIFAR10 CIFAR100 SVHN STL10"
    ).split()
    ours = {cls.__name__ for cls in registration.own_trainers() + registration.own_datasets()}
    assert not ours & set(taken)


def test_no_dassl(monkeypatch):
    """Catches: an ImportError that does not say where a dassl comes from."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"KaiyangZhou/Dassl\.pytorch.*\./toolbox"):
        dassl_compat.prepare()


def test_something_else_called_dassl(monkeypatch, tmp_path):
    """Catches: a failure deep inside when another package has the name."""
    (tmp_path / "dassl").mkdir()
    (tmp_path / "dassl" / "__init__.py").write_text("")
    spec = importlib.util.spec_from_file_location("dassl", tmp_path / "dassl" / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ImportError, match="is not Dassl.pytorch"):
        dassl_compat.prepare()


@pytest.mark.skipif(not hasattr(sys.modules["dassl"], "IMPLEMENTATION"), reason="the tests run on real Dassl")
def test_the_stand_in_needs_no_repairs():
    """Catches: torch and numpy changed in a process that has no real Dassl."""
    dassl_compat.prepare()
    assert not hasattr(numpy, "int")
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ
    assert torch.optim.lr_scheduler._LRScheduler.__init__.__module__ == "torch.optim.lr_scheduler"


@pytest.mark.slow
def test_real_dassl_is_made_to_run(tmp_path):
    """Catches: one of the four repairs missing; a package that stays replaced after real Dassl's import."""
    package = tmp_path / "dassl"
    for name, text in {
        "__init__.py": "__version__ = '0.6.3'\n",
        "engine/__init__.py": "import gdown, numpy\nimport dassl.data.datasets.dg\nkind = numpy.int\n",
        "data/__init__.py": "",
        "data/datasets/__init__.py": "",
        "data/datasets/dg/__init__.py": "from .wilds import *\n",
        "data/datasets/dg/wilds.py": "raise ImportError('no pandas')\n",
        "optim.py": """
            from torch.optim.lr_scheduler import _LRScheduler
            class Warmup(_LRScheduler):
                def __init__(self, optimizer, last_epoch=-1, verbose=False):
                    super().__init__(optimizer, last_epoch, verbose)
                def get_lr(self):
                    return [0.5 for _ in self.base_lrs]
            """,
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(textwrap.dedent(text))
    code = """
        import sys, types
        sys.modules["tensorboard"] = types.ModuleType("tensorboard")  # needed, and perhaps not installed
        sys.modules["tensorboard"].__spec__ = object()
        from clusterprompt import dassl_compat
        dassl_compat.prepare()
        dassl_compat.prepare()
        import dassl.engine, torch
        from dassl.optim import Warmup
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        scheduler = Warmup(optimizer)
        scheduler.step()
        torch.save({"scheduler": scheduler}, "checkpoint.pt")
        torch.load("checkpoint.pt")
        print("runs", scheduler.get_last_lr())
        """
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ran.stdout.strip() == "runs [0.5]", ran.stderr
