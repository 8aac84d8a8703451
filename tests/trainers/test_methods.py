"""Behaviour of single methods, and errors for what their users get wrong."""

import csv
import json

import pytest
import torch
from support import node_of

from clusterprompt import convert
from clusterprompt.clip_patches.class_texts import readable
from clusterprompt.clip_patches.loading import tokenize
from clusterprompt.registration import own_trainers
from clusterprompt.trainers.base import unit
from clusterprompt.trainers.parts.averaging import WeightAverage
from clusterprompt.trainers.parts.feature_cache import FeatureCache

pytestmark = pytest.mark.slow

DESCRIPTIONS = {"face": ["a head.", "eyes and a mouth."], "leopard": ["a cat with dots."]}


# ------------------------------------------------------------------ CoOp


@pytest.mark.parametrize(
    "position, sentence", [("end", "a photo of a {}."), ("middle", "a photo {} of a."), ("front", "{} a photo of a.")]
)
@pytest.mark.parametrize("csc", [False, True])
def test_class_token_positions(position, sentence, csc, build):
    """With the words' own embeddings as context, the text features must be those of the sentence written out."""
    trainer = build("CoOp", "TRAINER.COOP.CTX_INIT", "a photo of a", "TRAINER.COOP.CLASS_TOKEN_POSITION", position)
    if csc:
        trainer.learner.ctx = torch.nn.Parameter(trainer.learner.ctx.detach().repeat(len(trainer.classnames), 1, 1))
    names = [name.replace("_", " ") for name in trainer.classnames]
    expected = unit(trainer.clip.encode_text(tokenize([sentence.format(name) for name in names])))
    torch.testing.assert_close(trainer.text_features().detach(), expected, rtol=0, atol=1e-5)


def test_class_specific_context_does_not_fit_other_classes(build, tmp_path):
    """One context a class (CSC) cannot move to other classes: a clear refusal, not a silent mismatch."""
    trainer = build("CoOp", "TRAINER.COOP.CSC", True, "TRAINER.COOP.N_CTX", 4, output=tmp_path)
    assert trainer.learner.ctx.shape == (8, 4, 128)
    trainer.save_model(0, str(tmp_path))
    other = build("CoOp", "TRAINER.COOP.CSC", True, "TRAINER.COOP.N_CTX", 4, "DATASET.SUBSAMPLE_CLASSES", "new")
    with pytest.raises(ValueError, match=r"ctx is \(8, 4, 128\) in the file and \(7, 4, 128\) here.*class-specific"):
        other.load_model(str(tmp_path), epoch=1)


def test_class_specific_context_does_not_fit_as_many_other_classes(build, tmp_path):
    """Catches: contexts of as many other classes, or of the same in another order, loaded in silence."""
    own = ("TRAINER.COOP.CSC", True, "TRAINER.COOP.N_CTX", 4)
    trainer = build("CoOp", *own, output=tmp_path / "run")
    trainer.save_model(0, str(tmp_path / "run"))
    trainer.recorder.write()
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    convert.main([str(tmp_path / "run"), str(tmp_path / "small")])
    convert.main([str(tmp_path / "run"), str(tmp_path / "one.safetensors")])
    for place in ("run", "small", "one.safetensors"):
        trainer.load_model(str(tmp_path / place))

    names = record["classnames"][::-1]
    (tmp_path / "run" / "result.json").write_text(json.dumps({**record, "classnames": names}))
    convert.main([str(tmp_path / "run"), str(tmp_path / "small2")])
    convert.main([str(tmp_path / "run"), str(tmp_path / "two.safetensors")])
    for place in ("run", "small2", "two.safetensors"):
        with pytest.raises(
            ValueError,
            match=rf"no other classes than those it was trained on, {names[0]}.*\(8\): each class has a context",
        ):
            trainer.load_model(str(tmp_path / place))
    shared = build(
        "CoOp", *own, "TRAINER.COOP.CTX_INIT", "a photo of a", output=tmp_path / "shared"
    )  # words are one context for all
    assert shared.learner.ctx.dim() == 2 and not shared.tied_to_classes


# ------------------------------------------------------------------ TAC


def test_tac_averages_the_epochs(build, tmp_path):
    """The final weights are the mean of the weights at the ends of the epochs, and it is the mean that is saved."""
    trainer = build("TAC", output=tmp_path)
    ends, end_epoch = [], trainer.end_epoch

    def record():
        ends.append(trainer.learner.ctx.detach().clone())
        end_epoch()

    trainer.end_epoch = record
    trainer.train()
    torch.testing.assert_close(trainer.learner.ctx.detach(), (ends[0] + ends[1]) / 2)
    # Real Dassl's checkpoints hold its schedule, an object.
    saved = torch.load(tmp_path / "VLPromptLearner" / "model.pth.tar-2", weights_only=False)["state_dict"]["ctx"]
    assert torch.equal(saved, trainer.learner.ctx)


def test_precontext_of_the_training_task_travels(build, tmp_path):
    """On new classes the centres of the training task stay, unless RECLUSTER asks for those at hand."""
    trainer = build("TAC", output=tmp_path)
    trainer.save_model(0, str(tmp_path))
    new = build("TAC", "DATASET.SUBSAMPLE_CLASSES", "new")
    own = new.learner.centers.clone()
    new.load_model(str(tmp_path), epoch=1)
    assert torch.equal(new.learner.centers, trainer.learner.centers) and not torch.equal(own, new.learner.centers)
    again = build("TAC", "DATASET.SUBSAMPLE_CLASSES", "new", "TRAINER.TAC.RECLUSTER", True)
    own = again.learner.centers.clone()
    again.load_model(str(tmp_path), epoch=1)
    assert torch.equal(again.learner.centers, own)


def test_tac_with_descriptions(build, tmp_path):
    """Given descriptions replace the templates; a class without one is named before anything is trained."""
    path = tmp_path / "caltech_prompt.json"
    path.write_text(json.dumps(DESCRIPTIONS))
    with pytest.raises(ValueError, match="no description for 6 of 8 classes: 'motorbike'"):
        build("TAC", "TRAINER.TAC.DESCRIPTIONS", str(path))
    names = ["motorbike", "accordion", "airplane", "anchor", "car side", "ceiling fan"]
    path.write_text(json.dumps({**DESCRIPTIONS, **{name: [f"something like a {name}."] for name in names}}))
    trainer = build("TAC", "TRAINER.TAC.DESCRIPTIONS", str(tmp_path))
    expected = unit(trainer.clip.encode_text(tokenize(DESCRIPTIONS["face"])).mean(0))
    torch.testing.assert_close(trainer.text_anchors[0], expected, rtol=0, atol=1e-5)


def test_fewer_classes_than_centres(build):
    """The official code fails on tasks of fewer than 5 classes; ours takes as many centres as classes."""
    assert len(build("TAC", "TRAINER.TAC.N_CENTERS", 20).learner.centers) == 8


def test_teacher_sees_every_image_once(build):
    """The frozen features do not change, so the second epoch must not compute them again."""
    trainer = build("TAC")
    calls = []
    cache = trainer.teacher
    get_or_compute = cache.get_or_compute

    def counting(index, compute):
        return get_or_compute(index, lambda rows: calls.append(1) or compute(rows))

    cache.get_or_compute = counting
    trainer.train()
    assert len(calls) == len(trainer.train_loader_x) and bool(cache.known.all())


@pytest.mark.parametrize(
    "options, message",
    [
        (("DATALOADER.RETURN_IMG0", False), "RETURN_IMG0 True"),
        (("TRAINER.TAC.PROMPT_DEPTH_TEXT", 4), "tower has 3 layers"),
        (("TRAINER.TAC.PROMPT_DEPTH_VISION", 4), "tower has 3 layers"),
        (("TRAINER.TAC.PROMPT_DEPTH_TEXT", 0), "PROMPT_DEPTH_TEXT is 0; allowed: a whole number from 1"),
        (("TRAINER.TAC.PREC", "fp8"), "fp32, amp, fp16"),
        (("TRAINER.TAC.CENTERS_INIT", "best"), "random, k-means"),
    ],
)
def test_tac_settings_that_cannot_be(options, message, build):
    """Catches: settings that cannot work, refused late or without the allowed values."""
    with pytest.raises(ValueError, match=message):
        build("TAC", *options)


def test_resnet_backbone(build, resnet):
    """Text prompts run on a ResNet; visual prompts are refused in words."""
    trainer = build("CoOp", "MODEL.BACKBONE.NAME", str(resnet))
    trainer.set_model_mode("eval")
    with torch.no_grad():
        assert torch.isfinite(trainer.classify(torch.zeros(2, 3, 64, 64))).all()
    with pytest.raises(ValueError, match="ResNet"):
        build("TAC", "MODEL.BACKBONE.NAME", str(resnet))


@pytest.mark.parametrize("name, key", [("TAC", "PROMPT_DEPTH_VISION"), ("IVLP", "PROMPT_DEPTH_VISION")])
def test_all_layers_of_a_resnet(name, key, build, resnet):
    """Catches: vision prompts in all layers (-1) of a ResNet, which has none: a method without half of its prompts."""
    node = name.upper()
    words = ("MODEL.BACKBONE.NAME", str(resnet), f"TRAINER.{node}.{key}")
    with pytest.raises(ValueError, match=r"prompt depth -1 \(vision\) .* ResNet .*allowed are 0"):
        build(name, *words, -1)
    assert len(build(name, *words, 0, f"TRAINER.{node}.PROMPT_DEPTH_TEXT", 2).learner.deep_vision) == 0


@pytest.mark.parametrize("name, key", [("MaPLe", "PROMPT_DEPTH"), ("VPT", "PROMPT_DEPTH_VISION")])
def test_no_prompts_without_a_vit(name, key, build, resnet):
    """Catches: a traceback of MaPLe or VPT on a ResNet."""
    with pytest.raises(ValueError, match="ResNet"):
        build(name, "MODEL.BACKBONE.NAME", str(resnet), f"TRAINER.{name.upper()}.{key}", -1)


def test_a_learner_without_parameters(build, monkeypatch):
    """Catches: a run that trains nothing and says "finished"."""
    from clusterprompt.trainers.coop import CoOp

    monkeypatch.setattr(CoOp, "build_learner", lambda self: torch.nn.Module())
    with pytest.raises(ValueError, match="CoOp has nothing to learn .* TRAINER.COOP: its learner holds no parameter"):
        build("CoOp")


# ------------------------------------------------------------------ words and tokens


@pytest.mark.parametrize("name, key", [("MaPLe", "N_CTX"), ("IVLP", "N_CTX_TEXT"), ("PromptSRC", "N_CTX_TEXT")])
def test_more_prompts_than_words(name, key, build):
    """Catches: prompts that take the place of the class names' first tokens where CTX_INIT has fewer tokens."""
    node = f"TRAINER.{name.upper()}"
    trainer = build(name, f"{node}.{key}", 4, f"{node}.CTX_INIT", "photo of")
    clip = trainer.clip
    tokens = tokenize([f"{readable(classname)}." for classname in trainer.classnames])
    names = [clip.token_embedding(row[1 : int(row.argmax())]) for row in tokens]
    assert trainer.learner.ctx.shape[0] == 4 and trainer.learner.ctx.std() < 0.03  # noise
    for row, expected in zip(trainer.sentences.embeddings, names):
        assert torch.equal(row[1 : 1 + len(expected)], expected)


@pytest.mark.parametrize("name", ["CoOp", "CoCoOp"])
def test_context_of_words_of_several_tokens(name, build):
    """Catches: words counted for tokens, so that a context ends in the middle of a word."""
    words = "a dermatoscopic photomicrograph of"
    ids = tokenize([words])[0]
    count = int(ids.argmax()) - 1
    trainer = build(name, f"TRAINER.{name.upper()}.CTX_INIT", f" {words.replace(' of', '  of')}")
    assert count == 9
    assert torch.equal(trainer.learner.ctx.data, trainer.clip.token_embedding(ids[1:10]).detach())


@pytest.mark.parametrize("name", [cls.__name__ for cls in own_trainers() if "CTX_INIT" in cls.options])
def test_braces_in_ctx_init(name, build):
    """Catches: CTX_INIT used as a format string, by any method: a traceback, or attributes of objects."""
    node = f"TRAINER.{node_of(name)}.CTX_INIT"
    for words in ("a photo of a {}", "a {name}", "{0.__class__}"):
        with pytest.raises(ValueError, match=f"{node} is .*allowed: words without braces"):
            build(name, node, words)


# ------------------------------------------------------------------ checkpoints


@pytest.mark.parametrize(
    "trained, loaded, message",
    [
        ("CoOp", "TAC", "another method, in prompt_learner"),
        ("IVLP", "TAC", "lacks centers, .*another method"),
        ("TAC", "IVLP", "also holds centers, to_text"),
        ("CoCoOp", "CoOp", "also holds meta_net"),
    ],
)
def test_checkpoint_of_another_method(trained, loaded, message, build, tmp_path):
    """It must be refused even where the folder has the same name."""
    build(trained, output=tmp_path).save_model(0, str(tmp_path))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        build(loaded).load_model(str(tmp_path), epoch=1)


def test_checkpoint_of_another_depth(build, tmp_path):
    """Fewer prompted layers than learned, or more, is not filled up silently."""
    build("TAC", output=tmp_path).save_model(0, str(tmp_path))
    for depth in (1, 3):
        with pytest.raises(ValueError, match="prompt depth"):
            build("TAC", "TRAINER.TAC.PROMPT_DEPTH_TEXT", depth).load_model(str(tmp_path), epoch=1)


def test_missing_and_truncated_checkpoints(build, tmp_path):
    """The epochs that are there are listed; a damaged file is named."""
    trainer = build("CoOp", output=tmp_path)
    trainer.save_model(0, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="model.pth.tar-7 does not exist; .* holds model.pth.tar-1"):
        trainer.load_model(str(tmp_path), epoch=7)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        trainer.load_model(str(tmp_path / "nowhere"))
    path = tmp_path / "prompt_learner" / "model.pth.tar-1"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(Exception, match="model.pth.tar-1"):
        trainer.load_model(str(tmp_path), epoch=1)


def test_last_epoch_without_naming_it(build, tmp_path):
    """Without a best model and an epoch, the last one is loaded."""
    trainer = build("CoOp", output=tmp_path)
    for epoch in range(2):
        with torch.no_grad():
            trainer.learner.ctx.fill_(epoch)
        trainer.save_model(epoch, str(tmp_path))
    other = build("CoOp")
    other.load_model(str(tmp_path))
    assert bool((other.learner.ctx == 1).all())


# ------------------------------------------------------------------ small parts


def test_confusion_matrix_has_all_classes(build, tmp_path):
    """Catches: no row for a class without a test image (real Dassl's evaluator), so that rows and labels part ways."""
    trainer = build("ZeroshotCLIP", "TEST.COMPUTE_CMAT", True, output=tmp_path)
    images = trainer.test_loader.dataset.data_source
    images[:] = [item for item in images if item.label != 2]
    trainer.test()
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open()))
    want = torch.zeros(8, 8, dtype=torch.float64)
    for row in rows:
        want[int(row["label"]), int(row["prediction"])] += 1 / 2
    cmat = torch.load(tmp_path / "cmat.pt", weights_only=True)
    assert len(rows) == 14 and torch.equal(cmat, want) and not cmat[2].any()


def test_non_finite_loss_names_its_term(build):
    """The culprit, the epoch and the batch, and the weights left as they were."""
    trainer = build("TAC")
    trainer.text_anchors = trainer.text_anchors * float("inf")
    before = trainer.learner.ctx.detach().clone()
    trainer.set_model_mode("train")
    trainer.num_batches, trainer.epoch, trainer.batch_idx = 9, 0, 4
    with pytest.raises(FloatingPointError, match="epoch 1, batch 5: ce .*, text inf"):
        trainer.forward_backward(next(iter(trainer.train_loader_x)))
    assert torch.equal(trainer.learner.ctx, before)


def test_input_size_follows_the_backbone(build, caplog):
    """A yaml for 224 pixels must run on a backbone of 64, and say so."""
    with caplog.at_level("INFO"):
        trainer = build("CoOp", "INPUT.SIZE", (224, 224))
    assert trainer.cfg.INPUT.SIZE == (64, 64) and "INPUT.SIZE" in caplog.text
    assert next(iter(trainer.test_loader))["img"].shape[-2:] == (64, 64)


def test_incomplete_average_is_refused():
    """An average that lacks an epoch would be a scaled-down model."""
    average, layer = WeightAverage(), torch.nn.Linear(2, 2)
    average.add(layer, 0.5)
    with pytest.raises(RuntimeError, match="0.5000 instead of 1"):
        average.load_into(layer)


def test_feature_cache_fills_what_is_new():
    """Known rows are not computed again, new ones are, in the order asked for."""
    cache, asked = FeatureCache(4), []
    source = torch.arange(8.0).view(4, 2)

    def lookup(batch):
        def compute(rows):
            asked.extend(batch[rows].tolist())
            return source[batch[rows]]

        return cache.get_or_compute(batch, compute)

    for batch in (torch.tensor([2, 0]), torch.tensor([1, 2]), torch.tensor([0, 1])):
        assert torch.equal(lookup(batch), source[batch])
    assert asked == [2, 0, 1]
