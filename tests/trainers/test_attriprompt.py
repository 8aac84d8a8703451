"""AttriPrompt's parts against slow loops, and what its users get wrong."""

import json
from dataclasses import replace

import golden_clip
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clusterprompt.clip_patches import encoders, plain
from clusterprompt.clip_patches.clustering import cluster_tokens
from clusterprompt.trainers.base import Batch, unit
from clusterprompt.trainers.parts.feature_cache import ViewCache
from clusterprompt.trainers.parts.prompt_pool import PromptPool, Usage, vision_layer

pytestmark = pytest.mark.slow

NODE = "TRAINER.ATTRIPROMPT"
DEEP = (f"{NODE}.PROMPT_DEPTH", -1)
IMAGES = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
CLOSE = dict(rtol=0, atol=1e-5)


@pytest.fixture(scope="session", params=[3, 2])
def towers(request, tmp_path_factory):
    """Path of a CLIP with 3 vision layers of width 192 and 3 or 2 text layers of width 128."""
    path = tmp_path_factory.mktemp("clip") / f"text{request.param}.pt"
    torch.save(golden_clip.state_dict(request.param), path)
    return path


def slow_prompts(trainer, images):
    """Compute the prompts of every image by hand, with stock blocks and loops; (B, L, E, D) and the distance."""
    clip, pool, s = trainer.clip, trainer.learner, trainer.settings
    seen = []
    hooks = [
        b.register_forward_hook(lambda m, i, out: seen.append(out[1:].transpose(0, 1)))
        for b in clip.visual.transformer.resblocks
    ]
    features = clip.encode_image(images)
    for hook in hooks:
        hook.remove()
    text_layers = len(clip.transformer.resblocks)
    out, distances = [], []
    for image in range(len(images)):
        rows = []
        for j in range(1, text_layers + 1):
            tokens = seen[round(j * len(seen) / text_layers) - 1][image]
            which = 0 if s.POOL == "shared" else j - 1
            fetched = []
            for centroid in cluster_tokens(tokens, s.N_CLUSTERS)[0]:
                cosines = torch.stack([F.cosine_similarity(centroid, key, dim=0) for key in pool.keys[which]])
                for m in sorted(range(len(cosines)), key=lambda m: -cosines[m].item())[: s.TOP_K]:
                    fetched.append(pool.prompts[which, m])
                    distances.append(1 - cosines[m])
            rows.append(torch.cat(fetched))
        out.append(torch.stack(rows))
    return F.normalize(features, dim=-1), torch.stack(out), torch.stack(distances).mean()


def slow_losses(trainer, images, labels):
    """The objective by the book, from 77-token texts of one image at a time."""
    s = trainer.settings
    features, prompts, distance = slow_prompts(trainer, images)
    text = torch.stack(
        [unit(plain.encode_text(trainer.clip, trainer.sentences, list(p))) for p in prompts]
    )  # (B, C, d)
    scale, n = trainer.clip.logit_scale.exp(), len(images)
    i2t = (
        sum(-F.log_softmax(torch.stack([scale * features[i] @ t for t in text[i]]), 0)[labels[i]] for i in range(n)) / n
    )
    t2i = 0
    for i in range(n):
        log_p = F.log_softmax(torch.stack([scale * text[i, labels[i]] @ v for v in features]), 0)
        same = [j for j in range(n) if labels[j] == labels[i]]
        t2i = t2i - sum(log_p[j] for j in same) / len(same) / n
    regular = (
        sum((text[i, c] - w).abs().mean() for i in range(n) for c, w in enumerate(trainer.text_anchors))
        / n
        / len(trainer.text_anchors)
    )
    return {"i2t": s.IMAGE_TO_TEXT * i2t, "t2i": s.ALPHA * t2i, "text": s.LAMBDA * regular, "key": s.KEY * distance}


@pytest.mark.parametrize(
    "options", [(), (f"{NODE}.POOL", "shared"), (f"{NODE}.TOP_K", 2, f"{NODE}.N_CTX", 2, f"{NODE}.N_CLUSTERS", 3)]
)
def test_losses_and_gradients_against_a_slow_loop(options, towers, build):
    """A wrong layer, order, prompt, positive, mean or weight shows in a term or in the gradient of a pool."""
    trainer = build("AttriPrompt", *DEEP, f"{NODE}.POOL_SIZE", 6, *options, "MODEL.BACKBONE.NAME", str(towers))
    with torch.no_grad():
        trainer.learner.prompts.mul_(10)  # large enough to matter beside the words
    labels = torch.tensor([0, 3, 0, 5])
    trainer.set_model_mode("train")
    fast = trainer.losses(Batch(IMAGES, labels, 1, None, None))
    slow = slow_losses(trainer, IMAGES, labels)
    assert list(fast) == list(slow)
    parameters = list(trainer.learner.parameters())
    for name in fast:
        torch.testing.assert_close(fast[name], slow[name], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    grads = [torch.autograd.grad(sum(terms.values()), parameters) for terms in (fast, slow)]
    for a, b in zip(*grads):
        assert b.abs().max() > 0
        torch.testing.assert_close(a / b.abs().max(), b / b.abs().max(), **CLOSE)


def test_evaluation_against_a_slow_loop(towers, build):
    """Logits of every image with its own class texts; one class at a time gives the same."""
    trainer = build("AttriPrompt", *DEEP, "MODEL.BACKBONE.NAME", str(towers))
    trainer.set_model_mode("eval")
    with torch.no_grad():
        trainer.learner.prompts.mul_(10)
        features, prompts, _ = slow_prompts(trainer, IMAGES)
        expected = torch.stack(
            [
                trainer.clip.logit_scale.exp() * v @ unit(plain.encode_text(trainer.clip, trainer.sentences, list(p))).T
                for v, p in zip(features, prompts)
            ]
        )
        logits = trainer.classify(IMAGES)
        assert (logits[0] - logits[1]).abs().max() > 1e-2, "texts should depend on the image"
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
        for budget in (0, 1):
            one = encoders.encode_text(trainer.clip, trainer.sentences, list(prompts.unbind(1)), budget_mb=budget)
            again = torch.einsum("bd,bcd->bc", features, unit(one)) * trainer.clip.logit_scale.exp()
            torch.testing.assert_close(again, logits, rtol=0, atol=1e-4)
            assert torch.equal(again.argmax(1), logits.argmax(1))


def test_streams_reduce_to_info_nce(build):
    """With distinct labels the text-to-image stream is plain InfoNCE; with one label the target is uniform."""
    trainer = build("AttriPrompt")
    image, own = unit(torch.randn(3, 128)), unit(torch.randn(3, 128))
    logits = trainer.clip.logit_scale.exp() * own @ image.T
    labels, same = torch.tensor([4, 0, 6]), torch.tensor([2, 2, 2])
    found = trainer.text_to_image(own, labels, image, labels)
    torch.testing.assert_close(found, F.cross_entropy(logits, torch.arange(3)))
    torch.testing.assert_close(trainer.text_to_image(own, same, image, same), -F.log_softmax(logits, 1).mean())


@pytest.mark.parametrize("key, term", [("IMAGE_TO_TEXT", "i2t"), ("ALPHA", "t2i"), ("LAMBDA", "text"), ("KEY", "key")])
def test_switches(key, term, build):
    """A weight of 0 takes a term away; twice the weight doubles it."""
    batch = Batch(IMAGES, torch.tensor([0, 1, 2, 0]), 1, None, None)
    terms = build("AttriPrompt").losses(batch)
    off = build("AttriPrompt", f"{NODE}.{key}", 0.0).losses(batch)
    assert set(terms) - set(off) == {term}
    weight = build("AttriPrompt").settings[key]
    twice = build("AttriPrompt", f"{NODE}.{key}", 2 * weight).losses(batch)
    torch.testing.assert_close(twice[term], 2 * terms[term])


def test_without_retrieval(build):
    """Static prompts of the same length: the text depends on no image, is computed once, and is all that is learned."""
    trainer = build("AttriPrompt", f"{NODE}.RETRIEVAL", False, *DEEP)
    assert [tuple(p.shape) for p in trainer.learner.parameters()] == [(3, 4, 128)]
    assert trainer.text_features().shape == (8, 128)
    assert list(trainer.losses(Batch(IMAGES, torch.tensor([0, 1, 2, 0]), 1, None, None))) == ["i2t", "t2i", "text"]


# ------------------------------------------------------------------ pool


@pytest.mark.parametrize(
    "text, vision, expected",
    [
        (3, 3, [1, 2, 3]),
        (2, 3, [2, 3]),
        (12, 24, list(range(2, 25, 2))),
        (4, 2, [1, 1, 2, 2]),
        (12, 3, [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3]),
    ],
)
def test_layer_mapping(text, vision, expected):
    """round(j L_v / L_t), never layer 0; the last feeds the last."""
    assert [vision_layer(j, text, vision) for j in range(1, text + 1)] == expected


def test_keys_start_from_the_data(build):
    """Catches: keys that other things than seed and data decide, or that change random state; lost on resuming."""
    first, second = build("AttriPrompt"), build("AttriPrompt")
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first.start_keys()
    assert torch.equal(state, torch.get_rng_state()) and (numpy_state == np.random.get_state()[1]).all()
    torch.randn(7)
    second.start_keys()
    assert torch.equal(first.learner.keys, second.learner.keys) and bool(first.learner.started)
    _, centroids = first.encode_images(torch.stack([first.test_loader.dataset[i]["img"] for i in range(8)]))
    cosines = torch.einsum("blkd,lmd->blkm", centroids, F.normalize(first.learner.keys.detach(), dim=-1))
    assert cosines.amax(-1).mean() > 0.8
    assert torch.einsum("blkd,lmd->blkm", centroids, F.normalize(torch.randn(2, 32, 192), dim=-1)).amax(-1).mean() < 0.5


def test_more_keys_than_centroids(build):
    """What the data cannot place stays random instead of failing."""
    trainer = build("AttriPrompt", f"{NODE}.POOL_SIZE", 200)
    before = trainer.learner.keys.detach().clone()
    with pytest.warns(UserWarning, match="200 centres asked for"):
        trainer.start_keys()
    moved = (trainer.learner.keys != before).any(-1).sum(-1)
    assert bool((moved >= 100).all()) and bool((moved < 200).all())


def test_keys_are_started_once(build, tmp_path):
    """Not when training goes on, not over loaded weights, not when random keys are asked for."""
    calls = []
    options = ("OPTIM.MAX_EPOCH", 1, "TEST.NO_TEST", True)
    whole = build("AttriPrompt", *options, output=tmp_path / "a")
    whole.train()
    for name, pairs in (
        ("resumed", ("RESUME", str(tmp_path / "a"))),
        ("random", (f"{NODE}.KEY_INIT", "random")),
    ):
        trainer = build("AttriPrompt", *options, *pairs, output=tmp_path / name)
        trainer.start_keys = lambda name=name: calls.append(name)
        trainer.train()
    assert calls == []


def test_same_seed_same_run(build, tmp_path):
    """Two runs of one seed end with the same bits and the same record of what was retrieved; another seed does not."""
    runs = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        trainer = build("AttriPrompt", "SEED", seed, "OPTIM.MAX_EPOCH", 1, output=tmp_path / name)
        trainer.train()
        runs.append(
            (trainer.learner.state_dict(), json.loads((tmp_path / name / "result.json").read_text())["retrieval"])
        )
    assert all(torch.equal(value, runs[1][0][key]) for key, value in runs[0][0].items()) and runs[0][1] == runs[1][1]
    assert not torch.equal(runs[0][0]["keys"], runs[2][0]["keys"])


def test_hard_retrieval_and_its_gradients():
    """Only chosen prompts and keys get a gradient; the order is that of the clusters, then of the cosines."""
    torch.manual_seed(0)
    pool = PromptPool.__new__(PromptPool)
    torch.nn.Module.__init__(pool)
    pool.top_k, pool.keys = 2, torch.nn.Parameter(torch.randn(2, 5, 3))
    pool.prompts = torch.nn.Parameter(torch.arange(2 * 5).float().view(2, 5, 1, 1).repeat(1, 1, 1, 4))
    centroids = torch.randn(3, 2, 2, 3)
    prompts, distance, chosen = pool(centroids)
    for image in range(3):
        for layer in range(2):
            wanted = []
            for centroid in centroids[image, layer]:
                cosines = torch.cosine_similarity(pool.keys[layer], centroid[None], dim=1)
                wanted += cosines.argsort(descending=True)[:2].tolist()
            assert chosen[image, layer].tolist() == wanted
            assert prompts[layer][image, :, 0].tolist() == [5 * layer + m for m in wanted]
    (distance + sum(p.sum() for p in prompts)).backward()
    for layer in range(2):
        used = sorted(set(chosen[:, layer].flatten().tolist()))
        assert pool.keys.grad[layer].abs().sum(-1).nonzero().flatten().tolist() == used
        assert pool.prompts.grad[layer].sum((-1, -2)).nonzero().flatten().tolist() == used


def test_usage():
    """Counts by layer; a prompt never chosen is dead."""
    usage = Usage(2, 3)
    usage.add(torch.tensor([[[0, 0], [1, 2]], [[0, 1], [2, 2]]]))
    assert usage.summary() == {"pool_size": 3, "used": [2, 2], "dead": [1, 1], "top_share": [0.75, 0.75]}
    assert "3 in each layer: 2 2 (2 dead in all)" in str(usage) and "75% 75%" in str(usage)


def test_retrieval_is_reported(build, tmp_path, caplog):
    """Once an epoch in the log, and in result.json for training and test."""
    trainer = build("AttriPrompt", output=tmp_path)
    with caplog.at_level("INFO"):
        trainer.train()
    assert sum("prompts used of 32 in each layer" in r.getMessage() for r in caplog.records) == 2
    retrieval = json.loads((tmp_path / "result.json").read_text())["retrieval"]
    for what in ("train", "test"):
        assert len(retrieval[what]["used"]) == 2 and all(1 < u <= 32 for u in retrieval[what]["used"])
        assert all(0 < s < 1 for s in retrieval[what]["top_share"])


# ------------------------------------------------------------------ kept views


def test_kept_views():
    """Epochs take turns with the views; what is known is not computed; shapes come back; other images do not mix."""
    cache, asked = ViewCache(3, 2, [(2,), (2, 2)], 1), []

    def compute(images):
        asked.append(len(images))
        x = images.flatten(1)[:, :1]
        return x.repeat(1, 2), x[:, :, None].repeat(1, 2, 2)

    index, out = torch.tensor([2, 0]), []
    for epoch in range(4):
        images = torch.full((2, 3, 1, 1), 10.0 * epoch) + torch.tensor([2.0, 0.0])[:, None, None, None]
        vector, matrix = cache.get_or_compute(epoch, index, images, compute)
        assert matrix.shape == (2, 2, 2) and torch.equal(matrix[:, 0], vector)
        out.append(vector[:, 0].tolist())
    assert out == [[2, 0], [12, 10], [2, 0], [12, 10]] and asked == [2, 2]


def test_kept_views_change_nothing_the_first_time(build):
    """A cache of one view gives the losses of the batch that filled it, whatever augmentation comes later."""
    plainly, cached = build("AttriPrompt"), build("AttriPrompt", f"{NODE}.CACHE_VIEWS", 1)
    batch = Batch(IMAGES, torch.tensor([0, 1, 2, 0]), 1, None, torch.tensor([5, 3, 9, 1]))
    cached.learner.load_state_dict(plainly.learner.state_dict())
    cached.epoch = 0
    expected = plainly.losses(batch)
    for images in (IMAGES, IMAGES.flip(3)):
        for name, value in cached.losses(replace(batch, images=images)).items():
            torch.testing.assert_close(value, expected[name])


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    "options, message",
    [
        ((f"{NODE}.N_CLUSTERS", 17), "N_CLUSTERS is 17 .* into 16"),
        ((f"{NODE}.POOL_SIZE", 3, f"{NODE}.TOP_K", 4), "TOP_K 4 .* POOL_SIZE 3"),
        ((f"{NODE}.N_CLUSTERS", 0), "N_CLUSTERS is 0; allowed: a whole number from 1"),
        ((f"{NODE}.PROMPT_DEPTH", 4), "tower has 3 layers; allowed are 1 to 3"),
        ((f"{NODE}.N_CTX", 20), "80 more .* CLIP's context of 77"),
        ((f"{NODE}.POOL", "global"), "'global'; allowed: per_layer, shared"),
        ((f"{NODE}.KEY_INIT", "zeros"), "'zeros'; allowed: data, random"),
        ((f"{NODE}.LAMBDA", -1.0), "LAMBDA is -1.0; allowed: a number from 0"),
        (
            (f"{NODE}.IMAGE_TO_TEXT", 0.0, f"{NODE}.ALPHA", 0.0),
            "IMAGE_TO_TEXT and ALPHA are both 0; one of them must be above 0",
        ),
        ((f"{NODE}.CACHE_VIEWS", 3, f"{NODE}.CACHE_MB", 0), "3 views of 32 images takes 1 MiB .*CACHE_VIEWS"),
    ],
)
def test_settings_that_cannot_be(options, message, build):
    """Catches: settings that cannot work, refused late or without the allowed values."""
    with pytest.raises(ValueError, match=message):
        build("AttriPrompt", *options)


def test_resnet_is_refused(build, tmp_path):
    """A ResNet has no patch tokens."""
    from clip.model import CLIP

    torch.manual_seed(0)
    torch.save(CLIP(128, 64, (1, 1, 1, 1), 16, None, 77, 49408, 128, 2, 3).state_dict(), tmp_path / "resnet.pt")
    with pytest.raises(ValueError, match="ResNet"):
        build("AttriPrompt", "MODEL.BACKBONE.NAME", str(tmp_path / "resnet.pt"))


def test_pool_of_another_size_is_refused(build, tmp_path):
    """A pool of another size is another model."""
    build("AttriPrompt", output=tmp_path).save_model(0, str(tmp_path))
    with pytest.raises(ValueError, match=r"keys is \(2, 32, 192\) in the file and \(2, 8, 192\) here"):
        build("AttriPrompt", f"{NODE}.POOL_SIZE", 8).load_model(str(tmp_path), epoch=1)
