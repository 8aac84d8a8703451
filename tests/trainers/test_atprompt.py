"""ATPrompt beyond its recordings: where words and vectors stand."""

import pytest
import torch

from clusterprompt.clip_patches.anatomy import token_embeddings, tokenize

NODE = "TRAINER.ATPROMPT"
WORDS = ["shape", "playfulness", "size"]  # the second is two tokens


@pytest.fixture
def made(build):
    """Build a trainer with three attributes, whose vectors are all the word "x"."""

    def make(*pairs):
        texts = [word for i, text in enumerate(WORDS, 1) for word in (f"{NODE}.ATT{i}_TEXT", text)]
        counts = [word for i, count in enumerate((4, 2, 3), 1) for word in (f"{NODE}.N_ATT{i}", count)]
        trainer = build("ATPrompt", f"{NODE}.ATT_NUM", 3, f"{NODE}.N_CTX", 2, *texts, *counts, *pairs)
        x = token_embeddings(trainer.clip, tokenize(trainer.clip, ["x"]))[0, 1]
        with torch.no_grad():
            for vectors in trainer.learner.parameters():
                vectors.copy_(x)
        return trainer

    return make


def stock(trainer, sentences):
    """Features of stock CLIP."""
    features = trainer.clip.encode_text(tokenize(trainer.clip, sentences))
    return features / features.norm(dim=-1, keepdim=True)


def test_whole_words(made):
    """Catches: a vector or a word in another place, half of a word, a name that is cut, a wrong position."""
    trainer = made()
    names = [name.replace("_", " ") for name in trainer.classnames]
    sentences = [f"x x x x shape x x playfulness x x x size x x {name}." for name in names]
    with torch.no_grad():
        torch.testing.assert_close(trainer.text_features(), stock(trainer, sentences), rtol=0, atol=1e-5)
    assert trainer.tokens_in_front(trainer.settings) == 4 + 1 + 2 + 2 + 3 + 1 + 2


def test_official_places(made):
    """Catches: another misplacement than the authors': the second half of a word and what follows it move up."""
    trainer = made(f"{NODE}.OFFICIAL", True)
    tokens = tokenize(trainer.clip, [f"x x x x shape x x playfulness x x x size x x {trainer.classnames[0]}."])[0]
    x = int(tokens[1])
    assert tokens[8:10].tolist() != [x, x] and int(tokens[13]) != x  # play, fulness, size
    at = {8: int(tokens[8]), 12: int(tokens[12])}  # where single tokens would be: "play", and an x for "size"
    with torch.no_grad():
        expected = tokens.clone()
        expected[1:15] = x
        expected[5], expected[8], expected[12] = tokens[5], at[8], at[12]
        features = trainer.clip.encode_text(expected[None])
        torch.testing.assert_close(
            trainer.text_features()[:1], features / features.norm(dim=-1, keepdim=True), rtol=0, atol=1e-5
        )


def test_words_of_one_token_need_no_choice(build):
    """Catches: OFFICIAL that changes what is right already."""
    pairs = [f"{NODE}.ATT1_TEXT", "shape", f"{NODE}.ATT2_TEXT", "size"]
    ours, theirs = (build("ATPrompt", *pairs, f"{NODE}.OFFICIAL", official) for official in (False, True))
    with torch.no_grad():
        torch.testing.assert_close(ours.text_features(), theirs.text_features(), rtol=0, atol=1e-5)


def test_attributes_without_words(build):
    """Catches: "none" as an attribute."""
    with pytest.raises(ValueError, match="ATT3_TEXT is 'none' and ATT_NUM is 3; allowed: a word"):
        trainer = build("ATPrompt")
        trainer.cfg.defrost()
        trainer.cfg.merge_from_list([f"{NODE}.ATT_NUM", 3])
        trainer.check_cfg(trainer.cfg)


def test_the_authors_place_of_n_ctx(build):
    """Catches: the number of context tokens of an official yaml that is read and not used."""
    assert len(build("ATPrompt", "TRAINER.COOP.N_CTX", 3).learner.ctx) == 3
