"""Caltech101's spec; its counts and published samples where the data are at hand."""

import os

import pytest

from clusterprompt.datasets.caltech101 import Caltech101

# sha256 of CoOp's few-shot lists (train, val) on the published split; the same as the index files of
# linzhiqiu/cross_modal_adaptation.
PUBLISHED = {
    (1, 1): (
        "8aadd25b3aa3f1fab845944412e8a32a5f55835ef6a48a2ae589ca67212c2be4",
        "8ee017a214693573d89f07b7d5d7ed3e9b94cc4afa114cb443a7e9e3e25e1c58",
    ),
    (4, 2): (
        "6a2883ac92448036081e4acbf8c839bd9e7ff6b164a25fa5f69228e8aa4e0ec7",
        "18f12d7006223008fd006af1f73b87d544c955d7c4370ca1a08b25d0c3d1fa63",
    ),
}


def test_spec():
    """Catches: a folder, split or template that is not CoOp's; a split of theirs would no longer be found."""
    assert (Caltech101.folder, Caltech101.images, Caltech101.split_file) == (
        "caltech-101",
        "101_ObjectCategories",
        "split_zhou_Caltech101.json",
    )
    assert Caltech101.template == "a photo of a {}."


@pytest.mark.skipif(
    "CLUSTERPROMPT_TEST_DATA" not in os.environ, reason="CLUSTERPROMPT_TEST_DATA names no root with the real Caltech101"
)
def test_real_data(cfg_for):
    """Catches: another split, other halves or other few-shot images than everybody's."""
    root = os.environ["CLUSTERPROMPT_TEST_DATA"]
    full = Caltech101(cfg_for(root))
    assert [len(full.train_x), len(full.val), len(full.test)] == [4128, 1649, 2465]
    base, new = (Caltech101(cfg_for(root, shots=16, subsample=half)) for half in ("base", "new"))
    assert [base.num_classes, new.num_classes, len(base.test), len(new.test)] == [50, 50, 1549, 916]
    for (shots, seed), digests in PUBLISHED.items():
        assert tuple(Caltech101(cfg_for(root, shots=shots, seed=seed)).fewshot_digests.values()) == digests
