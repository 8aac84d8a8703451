"""PromptKD: its teacher, its label-free data, its checkpoints; the numbers are in test_golden.py."""

import json

import golden_clip
import pytest
import torch
from recordings import LOGITS, Recording, start, teacher_files
from support import decode, write_data

from clusterprompt.clip_patches.anatomy import tokenize
from clusterprompt.record.result import RunRecord
from clusterprompt.trainers.base import unit

KEY = "TRAINER.PROMPTKD"


def test_teacher_of_the_recording(build):
    """Catches: a teacher without its prompts, or with the student's widths, texts of half of the classes."""
    trainer, recording = start("promptkd", build)
    torch.testing.assert_close(trainer.all_texts, recording["teacher_text_features"], rtol=0, atol=1e-5)
    logits = trainer.teacher.logits(decode(recording["eval_base_img_u8"]), trainer.all_texts)
    torch.testing.assert_close(logits, recording["teacher_eval_base_logits"], rtol=0, atol=LOGITS)
    new, _ = start("promptkd", build, "new")
    torch.testing.assert_close(new.text_features(), recording["teacher_text_features"][8:], rtol=0, atol=1e-5)


def test_whole_model_goes_before_the_clip_file(build, tmp_path):
    """Catches: an official teacher whose own CLIP is left aside for the file's; the backbone changed by a teacher."""
    recording, teacher = Recording("promptkd"), golden_clip.state_dict(seed=3, vision=256, text=192, joint=192)
    other = {
        name: value + 0.1 * torch.randn(value.shape) if name.startswith("visual.transformer") else value
        for name, value in teacher.items()
    }
    torch.save(other, tmp_path / "clip.pt")
    whole = {
        (f"image_encoder.{name[7:]}" if name.startswith("visual.") else f"text_encoder.{name}"): value
        for name, value in teacher.items()
        if name not in ("token_embedding.weight", "logit_scale")
    }
    prompts = recording.below("teacher_prompts/")
    state = {**whole, **prompts, "logit_scale": teacher["logit_scale"], "prompt_learner.token_prefix": torch.zeros(1)}
    torch.save({"state_dict": state, "epoch": 20}, tmp_path / "model-best.pth.tar")
    names = f"{KEY}.TEACHER_NAME", str(tmp_path / "clip.pt"), f"{KEY}.TEACHER_MODEL"
    trainer = build("PromptKD", *names, str(tmp_path / "model-best.pth.tar"))
    logits = trainer.teacher.logits(decode(recording["eval_base_img_u8"]), trainer.all_texts)
    torch.testing.assert_close(logits, recording["teacher_eval_base_logits"], rtol=0, atol=LOGITS)
    state["image_encoder.positional_embedding"] = torch.zeros(50, 256)
    torch.save({"state_dict": state}, tmp_path / "larger.pth.tar")
    with pytest.raises(ValueError, match="is of another CLIP than the teacher's: visual.positional_embedding differ"):
        build("PromptKD", *names, str(tmp_path / "larger.pth.tar"))


def test_fewer_prompts_in_layer_1(build, tmp_path):
    """Catches: an official teacher of 2 and 4 tokens refused, or words that are shifted where they are overwritten."""
    state = Recording("promptkd").below("teacher_prompts/")
    state["prompt_learner.ctx"] = state["prompt_learner.ctx"][:2]
    torch.save({"state_dict": state}, tmp_path / "two.pth.tar")
    names = f"{KEY}.TEACHER_NAME", teacher_files()["TEACHER_NAME"]
    trainer = build("PromptKD", *names, f"{KEY}.TEACHER_MODEL", str(tmp_path / "two.pth.tar"))
    clip = trainer.teacher.clip
    tokens = tokenize(clip, [f"a photo of a {name.replace('_', ' ')}." for name in trainer.classnames])
    x = clip.token_embedding(tokens)
    x[:, 1:3] = state["prompt_learner.ctx"]
    x = x + clip.positional_embedding
    for layer, block in enumerate(clip.transformer.resblocks):
        if layer:
            x[:, 1:5] = state[f"text_encoder.transformer.resblocks.{layer}.VPT_shallow"]
        x = block(x.transpose(0, 1)).transpose(0, 1)
    rows = clip.ln_final(x)[torch.arange(len(x)), tokens.argmax(dim=1)]
    torch.testing.assert_close(trainer.class_texts, unit(rows @ clip.text_projection), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_teacher_is_a_run_of_promptsrc(finished_run, build):
    """Catches: checkpoints of this project not taken, a teacher that is not what was trained."""
    folder, source = finished_run("PromptSRC")
    trainer = build("PromptKD", f"{KEY}.TEACHER_MODEL", str(folder))
    torch.testing.assert_close(trainer.class_texts, source.text_features(), rtol=0, atol=1e-5)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(
        trainer.teacher.logits(images, trainer.class_texts), source.classify(images), rtol=0, atol=1e-4
    )
    with pytest.raises(ValueError, match="was written by CoOp; the prompts of a teacher are PromptSRC's or IVLP's"):
        build("PromptKD", f"{KEY}.TEACHER_MODEL", str(finished_run("CoOp")[0] / "prompt_learner" / "model.pth.tar-1"))


def test_training_sees_all_images_and_no_label(build):
    """Catches: few shots, half of the classes, a label that reaches the loss, tests on more than the half."""
    trainer = build("PromptKD", "DATASET.NUM_SHOTS", 1)
    items = trainer.train_loader_x.dataset
    assert len(items) == 15 * 4 and len({item.classname for item in items.data_source}) == 15
    batch = next(iter(trainer.train_loader_x))
    assert set(batch["label"].tolist()) == {-1}
    assert trainer.losses(trainer.parse_batch_train(batch))["kd"].isfinite()
    assert len(trainer.classnames) == 8 and len(trainer.test_loader.dataset) == 16 and len(trainer.all_texts) == 15


@pytest.mark.slow
def test_record_and_resume(build, tmp_path):
    """Catches: a record that does not say transductive, statistics of the batch norm lost between epochs."""
    often = "TRAIN.CHECKPOINT_FREQ", 1
    whole = build("PromptKD", *often, output=tmp_path / "whole")
    whole.train()
    record = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert record["transductive"] is True and RunRecord.read(tmp_path / "whole").transductive
    assert record["fewshot_digest"] == build("PromptKD", "DATASET.NUM_SHOTS", 1).dm.dataset.fewshot_digest
    assert int(whole.learner.projector[1].num_batches_tracked) == 2 * (60 // 8)
    cut = build("PromptKD", *often, output=tmp_path / "cut")

    def stop():
        if cut.epoch == 1:
            raise InterruptedError

    cut.before_epoch = stop
    with pytest.raises(InterruptedError):
        cut.train()
    resumed = build("PromptKD", *often, output=tmp_path / "cut")
    resumed.train()
    assert resumed.start_epoch == 1
    expected = whole.learner.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.learner.state_dict().items())
    assert json.loads((tmp_path / "cut" / "result.json").read_text())["accuracy"] == record["accuracy"]


def test_a_checkpoint_without_statistics_is_refused(build, tmp_path):
    """Catches: a student that is tested with the statistics of the start."""
    trainer, recording = start("promptkd", build)
    state = {name: value for name, value in recording.below("final_trainable/").items()}
    (tmp_path / "VLPromptLearner").mkdir()
    torch.save({"state_dict": state, "epoch": 2}, tmp_path / "VLPromptLearner" / "model.pth.tar-2")
    with pytest.raises(ValueError, match=r"it lacks projector.1.num_batches_tracked, projector.1.running_mean"):
        trainer.load_model(str(tmp_path), epoch=2)


def test_honest_and_official_choice_of_the_epoch(build, tmp_path):
    """Catches: the epoch chosen by test images without a word, or OFFICIAL that does not."""
    honest = build("PromptKD", "TEST.FINAL_MODEL", "best_val")
    tested = {item.impath for item in honest.test_loader.dataset.data_source}
    assert not tested & {item.impath for item in honest.val_loader.dataset.data_source}
    official = build("PromptKD", "TEST.FINAL_MODEL", "best_val", f"{KEY}.OFFICIAL", True)
    assert {item.impath for item in official.val_loader.dataset.data_source} == tested
    write_data(tmp_path, per_split=(4, 0, 2))
    without = "DATASET.ROOT", str(tmp_path), "TEST.FINAL_MODEL", "best_val"
    with pytest.raises(ValueError, match="TEST.FINAL_MODEL is best_val, but Caltech101"):
        build("PromptKD", *without).check_validation()
    build("PromptKD", *without, f"{KEY}.OFFICIAL", True).check_validation()
    with pytest.raises(ValueError, match="chooses the epoch by test images: set TEST.FINAL_MODEL best_val"):
        type(official).check_cfg(changed(official.cfg, "TEST.FINAL_MODEL", "last_step"))


def changed(cfg, *pairs):
    cfg = cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(list(pairs))
    return cfg


def test_what_cannot_be(build, tmp_path):
    """Catches: a traceback, or a student without a teacher."""
    with pytest.raises(FileNotFoundError, match="teacher teacher_model/Caltech101 does not exist; train PromptSRC"):
        build("PromptKD", f"{KEY}.TEACHER_MODEL", "teacher_model/{dataset}")
    trainer = build("PromptKD")
    with pytest.raises(ValueError, match="BATCH_SIZE is 1; take 2 or more"):
        type(trainer).check_cfg(changed(trainer.cfg, "DATALOADER.TRAIN_X.BATCH_SIZE", 1))
    with pytest.raises(ValueError, match=r"in parts \(TRAIN.MICRO_BATCH\): the projector's batch norm takes"):
        build("PromptKD", "TRAIN.MICRO_BATCH", 4).before_train()
    torch.save({**golden_clip.state_dict(), "visual.positional_embedding": torch.zeros(5, 192)}, tmp_path / "small.pt")
    with pytest.raises(ValueError, match="takes images of 32 pixels and the backbone .* of 64"):
        build("PromptKD", f"{KEY}.TEACHER_NAME", str(tmp_path / "small.pt"))
    narrow = ("PromptKD", f"{KEY}.TEACHER_MODEL", teacher_files()["TEACHER_MODEL"])
    with pytest.raises(
        ValueError, match=r"ctx is \(4, 192\)|is \(4, 192\) in the file and \(4, 128\) here|does not fit"
    ):
        build(*narrow)
