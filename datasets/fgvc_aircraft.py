"""FGVC-Aircraft (Maji et al. 2013), its own split: 100 variants, 3334 / 3333 / 3333 images."""

from .base import PromptDataset


class FGVCAircraft(PromptDataset):
    """Aircraft by variant.

    The official lists: ``variants.txt`` in order of the labels, and ``images_variant_<part>.txt`` with lines
    ``<image> <variant>``.
    """

    folder = "fgvc_aircraft"
    template = "a photo of a {}, a type of aircraft."
    homepage = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz"
    n_classes = 100
    counts = {"train": 3334, "val": 3333, "test": 3333}

    def read(self) -> tuple[list, list, list]:
        """Return the (train, val, test) lists."""
        labels = {name: label for label, name in enumerate(self.lines_of("variants.txt"))}
        train, val, test = (self._part(f"images_variant_{part}.txt", labels) for part in ("train", "val", "test"))
        return train, val, test

    def _part(self, file: str, labels: dict[str, int]) -> list:
        """Return the images that one of the lists names."""
        rows = []
        for line in self.lines_of(file):
            image, _, variant = line.partition(" ")  # a variant may have blanks itself: "Cessna 172"
            if variant not in labels:
                raise ValueError(
                    f"{file} in {self.dataset_dir}: the line '{line}' names no variant of variants.txt. "
                    f"{self._way_out()}"
                )
            rows.append((f"{image}.jpg", labels[variant], variant))
        return self.as_datums(rows)
