"""CLIPAdapter, TaskRes and TipAdapter: what their recordings do not show."""

import json

import pytest
import torch
from recordings import LOGITS, Recording, logits, start
from support import decode

from clusterprompt import load_run
from clusterprompt.clip_patches import encoders
from clusterprompt.clip_patches.anatomy import tokenize
from clusterprompt.clip_patches.imagenet_templates import SELECTED_TEMPLATES
from clusterprompt.trainers.base import unit
from clusterprompt.trainers.parts.schedules import StepCosine

pytestmark = pytest.mark.slow

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def same(actual, expected, tolerance=LOGITS):
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)


# ------------------------------------------------------------------ CLIPAdapter


def test_adapter_by_hand(build):
    """Catches: a ratio on the wrong term, a mixture of normalised features, a ReLU that is missing."""
    trainer = build("CLIPAdapter", "TRAINER.CLIPADAPTER.RATIO", 0.6, "TRAINER.CLIPADAPTER.REDUCTION", 8)
    first, second = trainer.learner.fc[0].weight, trainer.learner.fc[2].weight
    assert first.shape == (16, 128)
    raw = trainer.clip.encode_image(IMAGES)
    mixed = 0.6 * ((raw @ first.T).clamp(min=0) @ second.T).clamp(min=0) + 0.4 * raw
    same(trainer.image_features(IMAGES), unit(mixed), 1e-5)


# ------------------------------------------------------------------ TaskRes


def test_text_features_of_both_halves(build):
    """Catches: underscores turned into spaces, features that are normalised before the residual is added."""
    for half in ("base", "new"):
        trainer, recording = build("TaskRes", "DATASET.SUBSAMPLE_CLASSES", half), Recording("taskres")
        name = "base_text_features" + ("_new" if half == "new" else "")
        same(trainer.learner.base_text_features, recording[name], 1e-4)


def test_official_residuals(build, tmp_path):
    """Catches: an official checkpoint of other classes that loads because there are as many, or one that does not."""
    trainer, recording = start("taskres", build)
    state = {"text_feature_residuals": recording["final_trainable/prompt_learner.text_feature_residuals"]}
    state["base_text_features"] = recording["base_text_features"].half()  # as a run in fp16 has them
    path = tmp_path / recording.info["checkpoint"]
    path.parent.mkdir()
    torch.save({"state_dict": state, "epoch": 2}, path)
    trainer.load_model(str(tmp_path), epoch=2)
    torch.testing.assert_close(trainer.learner.text_feature_residuals.data, state["text_feature_residuals"])

    other = build("TaskRes", "DATASET.SUBSAMPLE_CLASSES", "new")
    torch.save({"state_dict": {name: value[1:] for name, value in state.items()}}, path)
    with pytest.raises(ValueError, match=r"not those of dollar_bill.*\(7 of 7 classes\): each class has a residual"):
        other.load_model(str(tmp_path), epoch=2)
    torch.save({"state_dict": state}, path)
    with pytest.raises(ValueError, match=r"is \(8, 128\) in the file and \(7, 128\) here"):
        other.load_model(str(tmp_path), epoch=2)


def test_templates_of_imagenet(build, monkeypatch):
    """Catches: one template for ImageNet, or seven, or one more with each trainer, as in the authors' code."""
    monkeypatch.setattr("clusterprompt.trainers.base.load_data", _named_imagenet)
    monkeypatch.setattr("clusterprompt.trainers.base.check_place", lambda cfg: None)
    for _ in range(2):
        trainer = build("TaskRes", "DATASET.NAME", "ImageNet")
        templates = [*SELECTED_TEMPLATES, "a photo of a {}."]
        sentences = [[each.format(name) for each in templates] for name in trainer.classnames]
        wanted = torch.stack([trainer.clip.encode_text(tokenize(trainer.clip, each)).mean(dim=0) for each in sentences])
        same(trainer.learner.base_text_features, wanted, 1e-4)
    tip = build("TipAdapter", "DATASET.NAME", "ImageNet")
    names = [name.replace("_", " ") for name in tip.classnames]
    each = [unit(tip.clip.encode_text(tokenize(tip.clip, [t.format(n) for n in names]))) for t in SELECTED_TEMPLATES]
    same(tip.text_features(), unit(sum(each)), 1e-5)


def _named_imagenet(cfg):
    """Load Caltech101 for a config that says ImageNet."""
    from clusterprompt.trainers.parts.data import load_data

    cfg = cfg.clone()
    cfg.defrost()
    cfg.DATASET.NAME = "Caltech101"
    return load_data(cfg)


# ------------------------------------------------------------------ TipAdapter


@pytest.fixture
def tip(build):
    """A trainer with the recorded cache, and the recording."""
    return start("tip_adapter_f", build)


def test_keys_of_a_cache(tip):
    """Catches: keys of normalised views, of one pass alone, or in another order."""
    trainer, recording = tip
    passes = [decode(recording[f"cache_images_u8/{i}"]) for i in range(2)]
    same(trainer.keys_of([images.split(7) for images in passes]), recording["cache_keys"].T, 1e-5)
    assert torch.equal(trainer.learner.values, recording["cache_values"])
    same(trainer.text_features(), recording["clip_weights"].T, 1e-5)


def test_cache_of_the_training_images(build):
    """Catches: keys of shuffled images, values of other labels; a cache without its augmentation."""
    options = ("INPUT.TRANSFORMS", ("normalize",), "TRAINER.TIPADAPTER.AUGMENT_EPOCH", 2)
    trainer = build("TipAdapter", *options)
    loader = trainer.train_loader_x.dataset
    images = torch.stack([loader[i]["img"] for i in range(len(loader))])  # no augmentation: the same in every pass
    same(trainer.learner.keys.data, unit(encoders.encode_image(trainer.clip, images)), 1e-5)
    assert trainer.learner.values.int().argmax(dim=1).tolist() == [loader[i]["label"] for i in range(len(loader))]
    augmented = build("TipAdapter", "TRAINER.TIPADAPTER.AUGMENT_EPOCH", 1)
    assert (augmented.learner.keys - trainer.learner.keys).abs().max() > 1e-3


def test_search(tip):
    """Catches: another grid, its end reached, the last of equal results; values that are not the authors'."""
    trainer, recording = tip
    features, labels = recording["val_features"], recording["val_labels"]
    zero_shot = trainer.logits(features, trainer.text_anchors)
    found = trainer.learner.search(features, labels, zero_shot, (12.0, 5.0), (200, 20))
    assert found == pytest.approx(recording.info["search_free"])
    trainer.learner.set(*found)
    same(logits(trainer, recording["eval_base_img_u8"]), recording["eval_base_logits_before_searched"])
    trainer.learner.keys.data.copy_(recording["final_trainable/weight"])
    found = trainer.learner.search(features, labels, zero_shot, (12.0, 5.0), (200, 20))
    assert found == pytest.approx(recording.info["search_f"])
    trainer.learner.set(*found)
    same(logits(trainer, recording["eval_base_img_u8"]), recording["eval_base_logits_after_searched"])
    trainer.learner.alpha.zero_()
    same(logits(trainer, recording["eval_base_img_u8"]), recording["eval_base_logits_zeroshot"])


def test_official_choices(tip):
    """Catches: OFFICIAL that keeps the last epoch, or the searched values where the first ones test better."""
    trainer, recording = tip
    trainer.cfg = trainer.cfg.clone()
    trainer.cfg.defrost()
    trainer.settings.OFFICIAL = trainer.settings.SEARCH_HP = True
    trainer._test = recording["test_features"], recording["test_base_label"]
    learned, worse = recording["final_trainable/weight"], recording["cache_keys"].T
    accuracies = []
    for trainer.epoch, keys in enumerate((learned, worse)):
        trainer.learner.keys.data.copy_(keys)
        accuracies.append(100 * trainer._accuracy(*trainer._test))
        trainer.end_epoch()
    assert accuracies[0] == pytest.approx(recording.info["test_acc_calls"][3]) and accuracies[1] < accuracies[0]
    same(trainer.learner.keys.data, learned, 0)
    assert trainer.learner.beta.item() == pytest.approx(1.0) or 100 * trainer._accuracy(*trainer._test) >= accuracies[0]


def test_honest_choices(build, tmp_path, monkeypatch):
    """Catches: test images that are read before the final test, the full validation split, a search in every epoch."""
    trainer = build("TipAdapter", output=tmp_path)
    searched = []
    search = trainer.learner.search
    trainer.learner.search = lambda features, *rest: searched.append(len(features)) or search(features, *rest)
    trainer.test_loader, hidden = None, trainer.test_loader
    after_train = trainer.after_train
    trainer.after_train = lambda: (setattr(trainer, "test_loader", hidden), after_train())
    trainer.train()
    assert searched == [len(trainer.dm.dataset.val)]
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "finished"
    none = build("TipAdapter", output=tmp_path / "none")
    monkeypatch.setattr(none.dm.dataset, "_val", None)
    none.epoch = none.max_epoch - 1
    none.end_epoch()
    assert (none.learner.beta.item(), none.learner.alpha.item()) == pytest.approx((1.0, 1.17))


def test_official_cache(tip, build, tmp_path):
    """Catches: keys that are not turned, the cache of another number of images or of other classes taken in silence."""
    _, recording = tip
    learned = torch.nn.Parameter(recording["final_trainable/weight"])
    torch.save(learned, tmp_path / "best_F_4shots.pt")
    torch.save(recording["cache_keys"], tmp_path / "keys_4shots.pt")
    torch.save(recording["cache_values"].half(), tmp_path / "values_4shots.pt")
    node = ("TRAINER.TIPADAPTER.INIT_ALPHA", 3.0, "TRAINER.TIPADAPTER.AUGMENT_EPOCH", 1)
    for finetune, wanted in ((True, "eval_base_logits_after"), (False, "eval_base_logits_before")):
        trainer = build("TipAdapter", *node, "TRAINER.TIPADAPTER.FINETUNE", finetune)
        trainer.load_model(str(tmp_path))
        same(logits(trainer, recording["eval_base_img_u8"]), recording[wanted])
    new = build("TipAdapter", *node, "DATASET.SUBSAMPLE_CLASSES", "new")
    with pytest.raises(ValueError, match=r"values is \(32, 8\) in the file and \(32, 7\) here"):
        new.load_model(str(tmp_path))


def test_training_free(build, tmp_path):
    """Catches: the training-free variant that learns, takes MAX_EPOCH epochs, or leaves nothing to predict with."""
    trainer = build("TipAdapter", "TRAINER.TIPADAPTER.FINETUNE", False, output=tmp_path / "seed1")
    keys = trainer.learner.keys.detach().clone()
    trainer.train()
    record = json.loads((tmp_path / "seed1" / "result.json").read_text())
    assert torch.equal(trainer.learner.keys, keys) and record["status"] == "finished" and len(record["history"]) == 1


def test_cache_travels(build, tmp_path):
    """Catches: a run that cannot predict without its data set, or with a searched alpha that is lost; another class
    list taken in silence.
    """
    trainer = build("TipAdapter", output=tmp_path / "seed1")
    trainer.train()
    used = load_run(tmp_path / "seed1", trust_record=True)
    same(used.logits(IMAGES), logits_of(trainer), 1e-4)
    fewer = build("TipAdapter", "DATASET.NUM_SHOTS", 2)
    fewer.load_model(str(tmp_path / "seed1"))
    same(logits_of(fewer), logits_of(trainer), 1e-4)
    with pytest.raises(ValueError, match="its cache holds images of these classes alone"):
        load_run(tmp_path / "seed1", classes=["cat", "dog"], trust_record=True)


def logits_of(trainer):
    trainer.set_model_mode("eval")
    with torch.no_grad(), trainer.fixed_classes():
        return trainer.classify(IMAGES)


# ------------------------------------------------------------------ schedule and resuming


def test_cosine_of_steps():
    """Catches: a rate that rises again after the last step, an end that is not reached, one rate for all groups."""
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    optimizer = torch.optim.AdamW([{"params": weights[:1]}, {"params": weights[1:], "lr": 0.5}], lr=1.0)
    schedule = StepCosine(optimizer, 10, 0.1)
    reference = torch.optim.AdamW([{"params": weights[:1]}, {"params": weights[1:], "lr": 0.5}], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(reference, 10, 0.1)
    for _ in range(10):
        assert schedule.get_last_lr() == pytest.approx(theirs.get_last_lr())
        optimizer.step(), reference.step(), schedule.step(), theirs.step()
    for _ in range(3):
        assert schedule.get_last_lr() == [0.0, 0.0]
        schedule.step()


@pytest.mark.parametrize("name", ["CLIPAdapter", "TaskRes", "CLIPLoRA", "TipAdapter", "TipAdapter official"])
def test_resumed_runs_end_with_the_same_weights(name, build, tmp_path):
    """Catches: a schedule of steps, a cache, dropout, or a best epoch that a resumed run does not go on with."""
    name, _, official = name.partition(" ")
    options = ["OPTIM.MAX_EPOCH", 3, "TRAIN.CHECKPOINT_FREQ", 1, "OPTIM.NAME", "adamw"]
    options += ["TRAINER.TIPADAPTER.OFFICIAL", True] if official else []
    whole = build(name, *options, output=tmp_path / "whole")
    whole.train()
    broken = build(name, *options, output=tmp_path / "broken")

    def stop():
        if broken.epoch == 2:
            raise KeyboardInterrupt

    broken.before_epoch = stop
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    resumed = build(name, *options, output=tmp_path / "broken")
    resumed.train()
    assert resumed.start_epoch == 2
    for key, value in whole.learner.state_dict().items():
        assert torch.equal(value, resumed.learner.state_dict()[key]), key
