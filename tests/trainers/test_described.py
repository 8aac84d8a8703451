"""CoPrompt and HiCroPL: descriptions that have to be there, the step's draw, the flow of prompts between the towers."""

import json
import random

import pytest
import torch
import torch.nn.functional as F
from support import decode

from clusterprompt.clip_patches import encoders, plain
from clusterprompt.clip_patches.anatomy import tokenize
from clusterprompt.trainers.base import unit

METHODS = ("CoPrompt", "HiCroPL")
IMAGES = decode(torch.randint(256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8))


def write_sentences(path, classnames, counts):
    """Write a JSON of descriptions, ``counts`` by place."""
    table = {
        name: [f"a {name} seen {i} times." for i in range(1, 1 + counts[place % len(counts)])]
        for place, name in enumerate(classnames)
    }
    path.write_text(json.dumps(table))
    return table


@pytest.mark.parametrize("name", METHODS)
def test_none_are_refused_before_anything_is_written(name, build, tmp_path):
    """Catches: templates in the place of descriptions that nobody asked for; a folder left by a run that cannot be."""
    with pytest.raises(ValueError, match=f"{name} needs descriptions .*'clusterprompt data descriptions.*'templates'"):
        trainer = build(name, "DATASET.DESCRIPTIONS", "", output=tmp_path / "run")
        trainer.check_validation()
    assert not (tmp_path / "run").exists()


def test_tests_of_coprompt_need_none(build):
    """Catches: a test on other classes that asks for descriptions which only the training reads."""
    trainer = build("CoPrompt", "DATASET.DESCRIPTIONS", "", "DATASET.SUBSAMPLE_CLASSES", "new")
    trainer.set_model_mode("eval")
    assert trainer.classify(IMAGES).shape == (4, 7)
    type(trainer).check_classes(trainer.cfg, trainer.classnames, trainer.template)
    with pytest.raises(ValueError, match="HiCroPL needs descriptions"):
        build("HiCroPL", "DATASET.DESCRIPTIONS", "", "DATASET.SUBSAMPLE_CLASSES", "new")


@pytest.mark.parametrize("name", METHODS)
def test_features_of_sentences(name, build, tmp_path):
    """Catches: sentences of other classes or in another order, a mean where each counts, raw features in a mean."""
    classnames = build(name).classnames
    table = write_sentences(tmp_path / "d.json", classnames, (3,))
    trainer = build(name, f"TRAINER.{build(name).node()}.DESCRIPTIONS", str(tmp_path / "d.json"))
    each = [[unit(encode(trainer.clip, sentence)) for sentence in table[name]] for name in classnames]
    if name == "CoPrompt":
        expected = torch.stack([torch.stack([row[i] for row in each]) for i in range(3)])
        torch.testing.assert_close(trainer.description_features, expected, rtol=0, atol=1e-5)
    else:
        expected = unit(torch.stack([sum(row) / 3 for row in each]))
        torch.testing.assert_close(trainer.text_anchors, expected, rtol=0, atol=1e-5)


def encode(clip, sentence):
    return plain.encode_text(clip, encoders.embed_tokens(clip, tokenize(clip, [sentence])), [])[0]


def test_unequal_numbers_are_refused(build, tmp_path):
    """Catches: an index beyond a class's descriptions, or some that are never drawn."""
    write_sentences(tmp_path / "d.json", build("CoPrompt").classnames, (3, 2))
    trainer = build("CoPrompt", "DATASET.DESCRIPTIONS", str(tmp_path / "d.json"))
    with pytest.raises(ValueError, match="'face' has 3 descriptions, 'leopard' 2; give as many for each"):
        trainer.check_validation()


def test_draw_is_pythons(build):
    """Catches: a draw from another generator than the authors', or of another range; two draws in a step."""
    trainer = build("CoPrompt")
    random.seed(5)
    expected = [random.randint(0, 9) for _ in range(6)]
    random.seed(5)
    found = []
    for _ in range(6):
        trainer.begin_step()
        found.append(trainer.described)
    assert found == expected


@pytest.mark.parametrize("distill", ["cosine", "mse"])
def test_consistency(distill, build):
    """Catches: the teacher on the first view, the cross-entropy on the second, adapters left out, another distance."""
    trainer = build("CoPrompt", "TRAINER.CoPrompt.DISTILL", distill, "TRAINER.W", 3.0)
    batch = trainer.parse_batch_train(next(iter(trainer.train_loader_x)))
    trainer.described = 4
    terms = trainer.losses(batch)
    first, second = batch.images[:8], batch.images[8:]
    learner, clip = trainer.learner, trainer.clip
    text_prompts, vision_prompts = learner()
    text = plain.encode_text(clip, trainer.sentences, text_prompts)
    image = plain.encode_image(clip, first, vision_prompts)
    text = unit(0.8 * text + 0.2 * learner.adapter_text.fc(text))
    image = unit(0.9 * image + 0.1 * learner.adapter_image.fc(image))
    frozen = unit(clip.encode_image(second)), trainer.description_features[4]
    expected = {"ce": F.cross_entropy(clip.logit_scale.exp() * image @ text.T, batch.labels[:8])}
    for name, ours, theirs in (("image", image, frozen[0]), ("text", text, frozen[1])):
        apart = 1 - F.cosine_similarity(ours, theirs).mean() if distill == "cosine" else F.mse_loss(ours, theirs)
        expected[name] = 3 * apart
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=0, atol=5e-5)


@pytest.mark.parametrize(
    "pairs, message",
    [
        (("DATALOADER.K_TRANSFORMS", 1), "two views of each image: DATALOADER.K_TRANSFORMS is 1; set it to 2"),
        (("TRAINER.W", 2.0, "TRAINER.CoPrompt.W", 4.0), "TRAINER.CoPrompt.W is 4.0 and TRAINER.W is 2.0; give one"),
    ],
)
def test_settings_of_coprompt(pairs, message, build):
    """Catches: one view compared with itself, one of two values taken in silence."""
    trainer = build("CoPrompt", *(pairs[:2] if len(pairs) == 4 else ()))
    cfg = trainer.cfg.clone()
    cfg.defrost()
    cfg.merge_from_list(list(pairs))
    with pytest.raises(ValueError, match=message):
        type(trainer).check_cfg(cfg)


# ------------------------------------------------------------------ HiCroPL
def flow(learner):
    """The two steps of the mapping, row by row from the equations, with plain matrix products."""

    def attend(attn, q, k, v):
        width = q.shape[-1]
        weights, biases = attn.in_proj_weight.split(width), attn.in_proj_bias.split(width)
        q, k, v = (x @ w.T + b for x, w, b in zip((q, k, v), weights, biases))
        size, parts = width // 8, []
        for head in range(8):
            own = slice(head * size, (head + 1) * size)
            scores = q[:, own] @ k[:, own].T / size**0.5
            parts.append(scores.softmax(dim=1) @ v[:, own])
        return torch.cat(parts, dim=1) @ attn.out_proj.weight.T + attn.out_proj.bias

    def pool(net, proxy, prompts):
        rows = net.ln_1(prompts)
        return net.ln_2(proxy + attend(net.attn, net.ln_1(proxy), rows, rows))

    def write(net, prompts, pooled):
        a, b, c = net.linear_q(torch.cat(prompts)), net.linear_k(pooled), net.linear_v(pooled)
        a = a + attend(net.attn, net.ln_1(a), net.ln_1(b), net.ln_1(c))
        hidden = net.ffn.c_fc(net.ln_2(a))
        return (a + net.ffn.c_proj(hidden * torch.sigmoid(1.702 * hidden))).split(len(prompts[0]))

    k, text, vision = learner.cross_layer, list(learner.cross_prompts_text), list(learner.cross_prompts_visual)
    nets, proxies = learner.attn_pooling_text_nets, learner.text_proxy_token
    pooled = torch.cat([pool(nets[i], proxies[i], text[i]) for i in range(k)])
    vision[:k] = write(learner.text2visual_net, vision[:k], pooled)
    nets, proxies = learner.attn_pooling_visual_nets, learner.visual_proxy_token
    pooled = torch.cat([pool(nets[i], proxies[i], vision[k + i]) for i in range(len(vision) - k)])
    text[k:] = write(learner.visual2text_net, text[k:], pooled)
    return text, vision


@pytest.mark.parametrize("cross_layer, depth", [(1, 2), (1, 3), (2, 3), (-1, -1)])
def test_flow(cross_layer, depth, build):
    """Catches: layers that write the wrong ones, text that reads the old vision prompts, a step that writes nothing."""
    trainer = build("HiCroPL", "TRAINER.HICROPL.CROSS_LAYER", cross_layer, "TRAINER.HICROPL.PROMPT_DEPTH", depth)
    learner = trainer.learner
    expected = [x.detach() for tower in flow(learner) for x in tower]
    learner.eval()
    torch.testing.assert_close([x for tower in learner() for x in tower], expected, rtol=0, atol=1e-5)
    trainer.begin_step()
    stored = [*learner.cross_prompts_text, *learner.cross_prompts_visual]
    torch.testing.assert_close([p.detach() for p in stored], expected, rtol=0, atol=1e-5)
    learner.train()
    assert all(a is b for a, b in zip([x for tower in learner() for x in tower], stored))


def test_only_prompts_are_learned(build, tmp_path):
    """Catches: maps that move, by gradients or by weight decay; 250 k learned parameters reported as 33 M."""
    trainer = build("HiCroPL", "OPTIM.NAME", "adam", "OPTIM.EPS", 1e-3, "OPTIM.WEIGHT_DECAY", 0.1)
    assert [group["eps"] for group in trainer.optim.param_groups] == [1e-3]
    before = {name: value.clone() for name, value in trainer.learner.state_dict().items()}
    trainer.set_model_mode("train")
    trainer.num_batches, trainer.batch_idx, trainer.epoch = 10, 0, 0
    trainer.forward_backward(next(iter(trainer.train_loader_x)))
    moved = {name for name, value in trainer.learner.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {f"cross_prompts_{tower}.{i}" for tower in ("text", "visual") for i in range(2)}


def test_official_evaluation_drifts(build):
    """Catches: the honest evaluation that writes, or an OFFICIAL one whose passes are equal."""
    honest, official = build("HiCroPL"), build("HiCroPL", "TRAINER.HICROPL.OFFICIAL", True)
    for trainer in (honest, official):
        trainer.set_model_mode("eval")
    first = honest.classify(IMAGES)
    assert torch.equal(honest.classify(IMAGES), first)
    with official.fixed_classes():  # class texts are computed anew for every batch all the same
        torch.testing.assert_close(official.classify(IMAGES), first, rtol=0, atol=1e-4)
        second = official.classify(IMAGES)
    assert (second - first).abs().max() > 0.01
    honest.learner.write_flow()
    torch.testing.assert_close(honest.classify(IMAGES), second, rtol=0, atol=1e-4)


def test_teacher_of_hicropl(build, tmp_path):
    """Catches: frozen features of the backbone where another teacher is named; one whose features cannot be added."""
    import golden_clip

    torch.save(golden_clip.state_dict(seed=1), tmp_path / "other.pt")
    trainer = build("HiCroPL", "TRAINER.HICROPL.TEACHER_NAME", str(tmp_path / "other.pt"))
    frozen = trainer.anchored_images(IMAGES)[1]
    torch.testing.assert_close(frozen, unit(trainer.teacher.encode_image(IMAGES)), rtol=0, atol=1e-5)
    assert (frozen - build("HiCroPL").anchored_images(IMAGES)[1]).abs().max() > 0.01
    torch.save(golden_clip.state_dict(joint=192), tmp_path / "wide.pt")
    with pytest.raises(ValueError, match="are 192 wide and those of the backbone 128, but HiCroPL adds them"):
        build("HiCroPL", "TRAINER.HICROPL.TEACHER_NAME", str(tmp_path / "wide.pt"))


def test_cross_layer_below_depth(build):
    """Catches: maps over no layer."""
    with pytest.raises(ValueError, match="CROSS_LAYER 2 must be below the prompt depth 2; or -1 for half of it"):
        build("HiCroPL", "TRAINER.HICROPL.CROSS_LAYER", 2)
