"""What a data set is: lists of labelled image paths."""

import os
import random
import tarfile
import zipfile

from ...utils import ChoiceError, MissingFileError, download_url


class Datum:
    """One labelled image.

    Lists of these are pickled into the family's split files, so the module, the class's name and its four fields are
    part of a file format.

    Args:
        impath: Path of the image.
        label: Class label, from 0.
        domain: Domain label.
        classname: Name of the class.

    Raises:
        MissingFileError: There is no file (a FileNotFoundError and AssertionError). Unpickling does not check.
    """

    def __init__(self, impath="", label=0, domain=0, classname=""):
        impath = os.fspath(impath)
        if not os.path.isfile(impath):
            raise MissingFileError(
                f"No image at {impath!r} (class {classname!r}); check DATASET.ROOT and that the data set is complete"
            )
        self._impath = impath
        self._label = label
        self._domain = domain
        self._classname = classname

    @property
    def impath(self):
        return self._impath

    @property
    def label(self):
        return self._label

    @property
    def domain(self):
        return self._domain

    @property
    def classname(self):
        return self._classname

    def __repr__(self):
        return (
            f"Datum(impath={self._impath!r}, label={self._label}, domain={self._domain}, classname={self._classname!r})"
        )


class DatasetBase:
    """Lists of ``Datum`` for training, validation and test.

    Args:
        train_x: Labelled training data.
        train_u: Unlabelled training data.
        val: Validation data.
        test: Test data.

    Raises:
        ValueError: ``train_x`` is empty: classes are read from it.
    """

    dataset_dir = ""
    domains = []

    def __init__(self, train_x=None, train_u=None, val=None, test=None):
        if not train_x:
            raise ValueError(f"{type(self).__name__}: the training set is empty; class names are read from it")
        self._train_x = train_x
        self._train_u = train_u
        self._val = val
        self._test = test
        self._num_classes = self.get_num_classes(train_x)
        self._lab2cname, self._classnames = self.get_lab2cname(train_x)

    @property
    def train_x(self):
        return self._train_x

    @property
    def train_u(self):
        return self._train_u

    @property
    def val(self):
        return self._val

    @property
    def test(self):
        return self._test

    @property
    def lab2cname(self) -> dict[int, str]:
        """From label to class name, in order of the labels."""
        return self._lab2cname

    @property
    def classnames(self) -> list[str]:
        """Class names in order of the labels present."""
        return self._classnames

    @property
    def num_classes(self) -> int:
        """The highest label plus one, which exceeds ``len(classnames)`` where labels are missing."""
        return self._num_classes

    @staticmethod
    def get_num_classes(data_source) -> int:
        """Return the highest label of a list of ``Datum``, plus one."""
        return max(item.label for item in data_source) + 1

    @staticmethod
    def get_lab2cname(data_source) -> tuple[dict[int, str], list[str]]:
        """Return the dict from label to class name of a list of ``Datum``, and the names in order of the labels."""
        names = {item.label: item.classname for item in data_source}
        lab2cname = {label: names[label] for label in sorted(names)}
        return lab2cname, list(lab2cname.values())

    def check_input_domains(self, source_domains, target_domains) -> None:
        """Check domain names of a config.

        Raises:
            ChoiceError: One is not in ``domains``.
        """
        for domain in (*source_domains, *target_domains):
            if domain not in self.domains:
                raise ChoiceError(f"{type(self).__name__} has no domain {domain!r}; it has {list(self.domains)}")

    def download_data(self, url: str, dst: str, from_gdrive: bool = False) -> None:
        """Fetch an archive (zip or tar) to the file ``dst`` and unpack it beside itself.

        Raises:
            NotImplementedError: ``from_gdrive`` is not in this toolbox.
        """
        if from_gdrive:
            raise NotImplementedError(
                f"Downloads from Google Drive are not in this toolbox; fetch {url} by hand to {dst}"
            )
        download_url(url, dst)
        folder = os.path.dirname(dst)
        if zipfile.is_zipfile(dst):
            with zipfile.ZipFile(dst) as archive:
                archive.extractall(folder)
        else:
            with tarfile.open(dst) as archive:
                archive.extractall(folder, filter="data")

    def generate_fewshot_dataset(self, *data_sources, num_shots: int = -1, repeat: bool = False):
        """Draw a few images of each class from Python's global generator.

        The order of draws (source by source, class by class in order of first appearance, one ``random.sample`` each)
        is what makes a seed give the same few shots everywhere.

        Args:
            data_sources: Lists of ``Datum``.
            num_shots: Images a class; below 1: all.
            repeat: Draw with replacement where a class has too few; otherwise take what it has.

        Returns:
            One list, grouped by class; or a list of them for several sources.
        """
        if num_shots < 1:
            return data_sources[0] if len(data_sources) == 1 else data_sources
        print(f"Creating a {num_shots}-shot dataset")
        output = []
        for data_source in data_sources:
            chosen = []
            for items in self.split_dataset_by_label(data_source).values():
                if len(items) >= num_shots:
                    chosen.extend(random.sample(items, num_shots))
                elif repeat:
                    chosen.extend(random.choices(items, k=num_shots))
                else:
                    chosen.extend(items)
            output.append(chosen)
        return output[0] if len(output) == 1 else output

    def split_dataset_by_label(self, data_source) -> dict[int, list]:
        """Group a list of ``Datum`` by label, in order of first appearance."""
        return _group_by(data_source, lambda item: item.label)

    def split_dataset_by_domain(self, data_source) -> dict[int, list]:
        """Group a list of ``Datum`` by domain, in order of first appearance."""
        return _group_by(data_source, lambda item: item.domain)


def _group_by(data_source, key):
    groups = {}
    for item in data_source:
        groups.setdefault(key(item), []).append(item)
    return groups
