"""From a data set to loaders of batches."""

import torch
import torchvision.transforms as T
from tabulate import tabulate
from torch.utils.data import Dataset as TorchDataset

from ..utils import read_image
from .datasets import build_dataset
from .samplers import build_sampler
from .transforms import INTERPOLATION_MODES, build_transform


def build_data_loader(
    cfg,
    sampler_type="SequentialSampler",
    data_source=None,
    batch_size=64,
    n_domain=0,
    n_ins=2,
    tfm=None,
    is_train=True,
    dataset_wrapper=None,
):
    """Construct a loader over a list of ``Datum``.

    In training, the last batch is dropped where it is not full, unless it is the only one.

    Raises:
        ValueError: ``data_source`` is empty.
    """
    if not data_source:
        raise ValueError(
            f"The {'training' if is_train else 'test or validation'} set of {cfg.DATASET.NAME!r} is "
            f"empty: no image to load"
        )
    sampler = build_sampler(
        sampler_type, cfg=cfg, data_source=data_source, batch_size=batch_size, n_domain=n_domain, n_ins=n_ins
    )
    wrapper = dataset_wrapper or DatasetWrapper
    return torch.utils.data.DataLoader(
        wrapper(cfg, data_source, transform=tfm, is_train=is_train),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        drop_last=is_train and len(data_source) >= batch_size,
        pin_memory=torch.cuda.is_available() and cfg.USE_CUDA,
    )


class DataManager:
    """The data set of a config and its loaders.

    Args:
        cfg: The configuration.
        custom_tfm_train: Transform (or list of transforms) in place of the config's.
        custom_tfm_test: The same for validation and test.
        dataset_wrapper: Class in place of ``DatasetWrapper``.
    """

    def __init__(self, cfg, custom_tfm_train=None, custom_tfm_test=None, dataset_wrapper=None):
        dataset = build_dataset(cfg)
        tfm_train = build_transform(cfg, is_train=True) if custom_tfm_train is None else custom_tfm_train
        tfm_test = build_transform(cfg, is_train=False) if custom_tfm_test is None else custom_tfm_test

        def loader(data_source, node, tfm, is_train):
            if not data_source:
                return None
            # The TEST node has no N_DOMAIN and N_INS: only the training samplers know them.
            return build_data_loader(
                cfg,
                sampler_type=node.SAMPLER,
                data_source=data_source,
                batch_size=node.BATCH_SIZE,
                n_domain=node.get("N_DOMAIN", 0),
                n_ins=node.get("N_INS", 2),
                tfm=tfm,
                is_train=is_train,
                dataset_wrapper=dataset_wrapper,
            )

        loaders = cfg.DATALOADER
        train_u = loaders.TRAIN_X if loaders.TRAIN_U.SAME_AS_X else loaders.TRAIN_U
        self.dataset = dataset
        self.train_loader_x = loader(dataset.train_x, loaders.TRAIN_X, tfm_train, True)
        self.train_loader_u = loader(dataset.train_u, train_u, tfm_train, True)
        self.val_loader = loader(dataset.val, loaders.TEST, tfm_test, False)
        self.test_loader = loader(dataset.test, loaders.TEST, tfm_test, False)
        if self.test_loader is None:
            raise ValueError(f"The test set of {cfg.DATASET.NAME!r} is empty: no image to evaluate on")

        self._num_classes = dataset.num_classes
        self._num_source_domains = len(cfg.DATASET.SOURCE_DOMAINS)
        self._lab2cname = dataset.lab2cname
        if cfg.VERBOSE:
            self.show_dataset_summary(cfg)

    @property
    def num_classes(self) -> int:
        return self._num_classes

    @property
    def num_source_domains(self) -> int:
        return self._num_source_domains

    @property
    def lab2cname(self) -> dict[int, str]:
        return self._lab2cname

    def show_dataset_summary(self, cfg) -> None:
        """Print the sizes."""
        table = [["Dataset", cfg.DATASET.NAME]]
        if cfg.DATASET.SOURCE_DOMAINS:
            table.append(["Source", cfg.DATASET.SOURCE_DOMAINS])
        if cfg.DATASET.TARGET_DOMAINS:
            table.append(["Target", cfg.DATASET.TARGET_DOMAINS])
        table.append(["# classes", f"{self.num_classes:,}"])
        for name in ("train_x", "train_u", "val", "test"):
            source = getattr(self.dataset, name)
            if source:
                table.append([f"# {name}", f"{len(source):,}"])
        print(tabulate(table))


class DatasetWrapper(TorchDataset):
    """A list of ``Datum`` as a torch data set of dicts.

    An item has the keys label, domain, impath, index, img, then img2, img3, ... if ``transform`` is a list, and img0,
    the image resized but neither cropped nor augmented, with DATALOADER.RETURN_IMG0. In training with
    DATALOADER.K_TRANSFORMS = K > 1, each of img, img2, ... is a list of K views.

    Args:
        cfg: The configuration.
        data_source: List of ``Datum``.
        transform: From a PIL image to a tensor, (3, H, W), or a list of such; None: img is the PIL image.
        is_train: Whether K_TRANSFORMS counts.

    Raises:
        ValueError: K_TRANSFORMS > 1 without a transform.
    """

    def __init__(self, cfg, data_source, transform=None, is_train=False):
        self.cfg = cfg
        self.data_source = data_source
        self.transform = transform
        self.is_train = is_train
        self.k_tfm = cfg.DATALOADER.K_TRANSFORMS if is_train else 1
        self.return_img0 = cfg.DATALOADER.RETURN_IMG0
        if self.k_tfm > 1 and transform is None:
            raise ValueError(
                f"DATALOADER.K_TRANSFORMS is {self.k_tfm}, but there is no transform to apply that "
                f"often; set it to 1 or INPUT.NO_TRANSFORM to False"
            )
        to_tensor = [T.Resize(cfg.INPUT.SIZE, interpolation=INTERPOLATION_MODES[cfg.INPUT.INTERPOLATION]), T.ToTensor()]
        if "normalize" in cfg.INPUT.TRANSFORMS:
            to_tensor.append(T.Normalize(mean=cfg.INPUT.PIXEL_MEAN, std=cfg.INPUT.PIXEL_STD))
        self.to_tensor = T.Compose(to_tensor)

    def __len__(self):
        return len(self.data_source)

    def __getitem__(self, idx):
        item = self.data_source[idx]
        output = {"label": item.label, "domain": item.domain, "impath": item.impath, "index": idx}
        image = read_image(item.impath)
        if self.transform is None:
            output["img"] = image
        elif isinstance(self.transform, (list, tuple)):
            for i, tfm in enumerate(self.transform):
                output["img" if i == 0 else f"img{i + 1}"] = self._views(tfm, image)
        else:
            output["img"] = self._views(self.transform, image)
        if self.return_img0:
            output["img0"] = self.to_tensor(image)
        return output

    def _views(self, tfm, image):
        views = [tfm(image) for _ in range(self.k_tfm)]
        return views[0] if len(views) == 1 else views
