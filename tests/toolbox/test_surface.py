"""What other people's code imports, and what it may not find."""

import ast
import importlib
import pathlib
import re

import dassl
import pytest
from toolbox_toys import toolbox_only

NAMES = {
    "dassl.config": "get_cfg_default clean_cfg",
    "dassl.engine": "TRAINER_REGISTRY TrainerX build_trainer TrainerBase SimpleTrainer",
    "dassl.engine.trainer": "TrainerBase SimpleTrainer TrainerX",
    "dassl.data.datasets": "DATASET_REGISTRY DatasetBase Datum build_dataset",
    "dassl.data.datasets.build": "DATASET_REGISTRY build_dataset",
    "dassl.data.datasets.base_dataset": "DatasetBase Datum",
    "dassl.data": "DatasetWrapper DataManager",
    "dassl.data.data_manager": "DataManager DatasetWrapper build_data_loader build_transform",
    "dassl.data.samplers": "build_sampler",
    "dassl.data.transforms": "build_transform INTERPOLATION_MODES",
    "dassl.data.transforms.transforms": "build_transform INTERPOLATION_MODES RandAugment",
    "dassl.data.transforms.randaugment": "RandAugment",
    "dassl.optim": "build_optimizer build_lr_scheduler",
    "dassl.optim.optimizer": "build_optimizer",
    "dassl.optim.lr_scheduler": "build_lr_scheduler ConstantWarmupScheduler LinearWarmupScheduler",
    "dassl.metrics": "compute_accuracy",
    "dassl.evaluation": "build_evaluator EVALUATOR_REGISTRY EvaluatorBase Classification",
    "dassl.utils": "setup_logger set_random_seed collect_env_info load_checkpoint load_pretrained_weights "
    "mkdir_if_missing listdir_nohidden read_json write_json check_isfile MetricMeter AverageMeter Registry "
    "check_availability tolist_if_not read_image Logger count_num_param save_checkpoint "
    "resume_from_checkpoint open_all_layers open_specified_layers init_network_weights "
    "get_most_similar_str_to_a_from_b download_url",
}


@pytest.mark.parametrize("module", NAMES)
def test_names_are_where_the_family_imports_them_from(module):
    """Fault: a moved or renamed name breaks a trainer's import."""
    found = importlib.import_module(module)
    missing = [name for name in NAMES[module].split() if not hasattr(found, name)]
    assert not missing


def test_summary_writer():
    """Catches: `from dassl.engine.trainer import SummaryWriter`, as DePT has it, without a writer."""
    pytest.importorskip("tensorboard")
    from dassl.engine.trainer import SummaryWriter
    from torch.utils.tensorboard import SummaryWriter as wanted

    assert SummaryWriter is wanted


TRAINER_METHODS = """check_cfg build_data_loader build_model train before_train after_train before_epoch after_epoch
    run_epoch test parse_batch_train parse_batch_test model_inference forward_backward register_model get_model_names
    set_model_mode update_lr get_current_lr detect_anomaly model_zero_grad model_backward model_update
    model_backward_and_update save_model load_model resume_model_if_exist init_writer close_writer
    write_scalar""".split()


@pytest.mark.parametrize("name", TRAINER_METHODS)
def test_trainer_has_the_methods_that_subclasses_call_and_override(name):
    """Fault: a hook under another name is never called."""
    assert callable(getattr(importlib.import_module("dassl.engine").TrainerX, name))


@toolbox_only
@pytest.mark.parametrize(
    "statement",
    [
        "from dassl.engine import TrainerXU",
        "from dassl.modeling import build_head",
        "import dassl.engine.ssl",
        "from dassl.data.datasets.dg import wilds",
        "from dassl.data.samplers import RandomDomainSampler",
        "from dassl.data.transforms.transforms import RandAugment2",
        "import dassl.optim.radam",
    ],
)
def test_left_out_names_say_so(statement):
    """Fault: a bare 'cannot import name' leaves the user guessing which dassl is active."""
    with pytest.raises(ImportError, match=r"not in this toolbox; .* has .*(dassl\.|build|Trainer)"):
        exec(statement)


@toolbox_only
def test_other_missing_names_stay_attribute_errors():
    """Fault: hasattr() on a module raises."""
    engine = importlib.import_module("dassl.engine")
    assert not hasattr(engine, "NoSuchName")
    with pytest.raises(ModuleNotFoundError, match="No module named"):
        importlib.import_module("dassl.nosuchmodule")


ALLOWED = {"torch", "torchvision", "numpy", "PIL", "yacs", "sklearn", "tabulate", "tqdm", "dassl"}


@toolbox_only
def test_sources_know_nothing_of_the_project_and_import_only_what_is_declared():
    """Fault: a short cut from the toolbox into the project, or a dependency that the toolbox does not declare."""
    import sys

    source = pathlib.Path(dassl.__file__).parent
    files = sorted(source.rglob("*.py"))
    assert len(files) > 20
    for file in files:
        text = file.read_text()
        found = re.search(r"clip|prompt|trainers\.|descriptions", text, re.IGNORECASE)
        assert found is None, f"{file}: {found}"
        for node in ast.walk(ast.parse(text)):
            modules = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom) and node.level == 0
                else []
            )
            for module in modules:
                top = module.split(".")[0]
                assert top in ALLOWED or top in sys.stdlib_module_names, f"{file} imports {module}"
