"""Oxford-IIIT Pet (Parkhi et al. 2012), CoOp's split: 37 breeds, 2944 / 736 / 3669 images."""

from .base import PromptDataset


class OxfordPets(PromptDataset):
    """Breeds of cats and dogs; the official test list, the official training list cut 80 to 20."""

    folder = "oxford_pets"
    split_file = "split_zhou_OxfordPets.json"
    template = "a photo of a {}, a type of pet."
    homepage = "https://www.robots.ox.ac.uk/~vgg/data/pets/"
    lists_url = "https://drive.google.com/file/d/1501r8Ber4nNKvmlFVQZ8SeUHTcdTTEqs/view"
    n_classes = 37
    counts = {"train": 2944, "val": 736, "test": 3669}
