"""The default tree and what yacs makes of files and command lines."""

import pytest
from dassl.config import clean_cfg, get_cfg_default
from yacs.config import CfgNode as CN

DEFAULTS = """
VERSION 1 | OUTPUT_DIR "./output" | RESUME "" | SEED -1 | USE_CUDA True | VERBOSE True
INPUT.SIZE (224, 224) | INPUT.INTERPOLATION "bilinear" | INPUT.TRANSFORMS () | INPUT.NO_TRANSFORM False
INPUT.PIXEL_MEAN [0.485, 0.456, 0.406] | INPUT.PIXEL_STD [0.229, 0.224, 0.225] | INPUT.CROP_PADDING 4
INPUT.RRCROP_SCALE (0.08, 1.0) | INPUT.CUTOUT_N 1 | INPUT.CUTOUT_LEN 16 | INPUT.GN_MEAN 0.0 | INPUT.GN_STD 0.15
INPUT.RANDAUGMENT_N 2 | INPUT.RANDAUGMENT_M 10 | INPUT.COLORJITTER_B 0.4 | INPUT.COLORJITTER_C 0.4
INPUT.COLORJITTER_S 0.4 | INPUT.COLORJITTER_H 0.1 | INPUT.RGS_P 0.2 | INPUT.GB_P 0.5 | INPUT.GB_K 21
DATASET.ROOT "" | DATASET.NAME "" | DATASET.SOURCE_DOMAINS () | DATASET.TARGET_DOMAINS () | DATASET.NUM_LABELED -1
DATASET.NUM_SHOTS -1 | DATASET.VAL_PERCENT 0.1 | DATASET.STL10_FOLD -1 | DATASET.CIFAR_C_TYPE ""
DATASET.CIFAR_C_LEVEL 1 | DATASET.ALL_AS_UNLABELED False | DATALOADER.NUM_WORKERS 4 | DATALOADER.K_TRANSFORMS 1
DATALOADER.RETURN_IMG0 False
DATALOADER.TRAIN_X.SAMPLER "RandomSampler" | DATALOADER.TRAIN_X.BATCH_SIZE 32 | DATALOADER.TRAIN_X.N_DOMAIN 0
DATALOADER.TRAIN_X.N_INS 16 | DATALOADER.TRAIN_U.SAME_AS_X True | DATALOADER.TRAIN_U.SAMPLER "RandomSampler"
DATALOADER.TRAIN_U.BATCH_SIZE 32 | DATALOADER.TRAIN_U.N_DOMAIN 0 | DATALOADER.TRAIN_U.N_INS 16
DATALOADER.TEST.SAMPLER "SequentialSampler" | DATALOADER.TEST.BATCH_SIZE 32
MODEL.INIT_WEIGHTS "" | MODEL.BACKBONE.NAME "" | MODEL.BACKBONE.PRETRAINED True
MODEL.HEAD.NAME "" | MODEL.HEAD.HIDDEN_LAYERS ()
MODEL.HEAD.ACTIVATION "relu" | MODEL.HEAD.BN True | MODEL.HEAD.DROPOUT 0.0
OPTIM.NAME "adam" | OPTIM.LR 0.0003 | OPTIM.WEIGHT_DECAY 5e-4 | OPTIM.MOMENTUM 0.9
OPTIM.SGD_DAMPNING 0 | OPTIM.SGD_NESTEROV False
OPTIM.RMSPROP_ALPHA 0.99 | OPTIM.ADAM_BETA1 0.9 | OPTIM.ADAM_BETA2 0.999 | OPTIM.STAGED_LR False | OPTIM.NEW_LAYERS ()
OPTIM.BASE_LR_MULT 0.1 | OPTIM.LR_SCHEDULER "single_step" | OPTIM.STEPSIZE (-1,) | OPTIM.GAMMA 0.1 | OPTIM.MAX_EPOCH 10
OPTIM.WARMUP_EPOCH -1 | OPTIM.WARMUP_TYPE "linear" | OPTIM.WARMUP_CONS_LR 1e-5 | OPTIM.WARMUP_MIN_LR 1e-5
OPTIM.WARMUP_RECOUNT True | TRAIN.CHECKPOINT_FREQ 0 | TRAIN.PRINT_FREQ 10 | TRAIN.COUNT_ITER "train_x"
TEST.EVALUATOR "Classification" | TEST.PER_CLASS_RESULT False | TEST.COMPUTE_CMAT False | TEST.NO_TEST False
TEST.SPLIT "test"
TEST.FINAL_MODEL "last_step" | TRAINER.NAME ""
"""


def leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, CN):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def expected():
    return {
        item.split()[0]: eval(item.split(None, 1)[1])
        for line in DEFAULTS.strip().splitlines()
        for item in line.split(" | ")
    }


def test_defaults_and_their_types():
    """Fault: a default of another value or type trains something else, or refuses a file of the family."""
    got = dict(leaves(get_cfg_default()))
    for key, value in expected().items():
        assert got[key] == value and type(got[key]) is type(value), key
    own = {key for key in got if not key.startswith("TRAINER.")} - set(expected())
    assert not own, "a key that Dassl.pytorch lacks"


def test_each_call_gives_a_fresh_unfrozen_tree():
    """Fault: one run's settings leak into the next in the same process."""
    cfg = get_cfg_default()
    cfg.OPTIM.LR = 7.0
    cfg.TRAINER.MINE = CN({"N": 1})
    assert get_cfg_default().OPTIM.LR == 0.0003 and "MINE" not in get_cfg_default().TRAINER


def test_files_and_lists_convert_as_yacs_does(tmp_path):
    """Fault: a look-alike of yacs rejects (or keeps as text) what the family's files say."""
    file = tmp_path / "a.yaml"
    file.write_text("INPUT:\n  SIZE: (96, 96)\n  TRANSFORMS: ['normalize']\nOPTIM:\n  WARMUP_CONS_LR: 1e-3\n")
    cfg = get_cfg_default()
    cfg.merge_from_file(str(file))
    assert cfg.INPUT.SIZE == (96, 96) and cfg.INPUT.TRANSFORMS == ("normalize",) and cfg.OPTIM.WARMUP_CONS_LR == 1e-3
    file.write_text("OPTIM:\n  NO_SUCH_KEY: 1\n")
    with pytest.raises(KeyError):
        cfg.merge_from_file(str(file))
    with pytest.raises(AssertionError):
        cfg.merge_from_list(["OPTIM.NO_SUCH_KEY", 1])
    with pytest.raises(ValueError):
        cfg.merge_from_list(["OPTIM.LR", 1])


def test_clean_cfg_keeps_the_name_and_one_trainer():
    """Fault: the printed config shows every trainer's options, or loses this one's."""
    cfg = get_cfg_default()
    cfg.TRAINER.NAME, cfg.TRAINER.COOP, cfg.TRAINER.OTHER = "CoOp", CN({"N_CTX": 16}), CN({"X": 1})
    clean_cfg(cfg, "CoOp")
    kept = dict(cfg.TRAINER)
    assert kept == {"NAME": "CoOp", "COOP": {"N_CTX": 16}}
