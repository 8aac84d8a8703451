"""ImageNetV2 (Recht et al. 2019), matched frequency: 10,000 new test images of ImageNet's classes."""

from .imagenet import ImageNetVariant, Listed


class ImageNetV2(ImageNetVariant):
    """New images of the 1000 classes; a folder is named by its class's line in ``classnames.txt``, counted from 0."""

    folder = "imagenetv2"
    images = "imagenetv2-matched-frequency-format-val"
    homepage = "https://huggingface.co/datasets/vaishaal/ImageNetV2"
    n_classes = 1000
    counts = {"test": 10000}

    def read(self) -> tuple[None, None, list[Listed]]:
        """See :meth:`ImageNetVariant.read`."""
        names = self.classnames_by_folder().values()
        return None, None, self.list_classes(self.image_dir, {str(number): name for number, name in enumerate(names)})
