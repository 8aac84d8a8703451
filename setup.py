"""Packaging of clusterprompt.

The working folders lie at the top of the checkout, as everybody in this field expects (``trainers/``, ``datasets/``,
``configs/``), and are installed under the one import name ``clusterprompt``: plain top-level ``trainers`` and
``datasets`` would be shadowed inside a CoOp checkout, and collide with Hugging Face's ``datasets``.

Two packages are needed that cannot be plain requirements:

- ``dassl``. Either the real Dassl.pytorch, which is not on PyPI (``DASSL=/path/to/Dassl.pytorch``, or PYTHONPATH), or
  the import-compatible stand-in of this checkout: ``pip install --no-build-isolation --no-deps -e ./toolbox``. Never
  both.
- ``clip``. Either OpenAI's own (``pip install git+https://github.com/openai/CLIP``), or its copy on PyPI, which needs
  an older setuptools while it is built and imported: ``pip install "setuptools<81" && pip install --no-build-isolation
  openai-clip``. PyPI's ``clip`` is an unrelated clipboard tool.

``source scripts/setup_env.sh`` does all of this.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
# Where each package lies in the checkout.
WINGS = {
    "clusterprompt": "clusterprompt",
    **{f"clusterprompt.{folder}": folder for folder in ("trainers", "datasets", "clip_patches", "configs")},
}
DATA = {".csv", ".html", ".json", ".md", ".safetensors", ".typed", ".yaml"}  # endings of the files that are not Python


def packages() -> list[str]:
    """Return the dotted names of all packages."""
    return [
        name
        for package, folder in WINGS.items()
        for name in (package, *(f"{package}.{inner}" for inner in find_packages(str(ROOT / folder))))
    ]


def package_data() -> dict[str, list[str]]:
    """Return the files that are not Python, by package, relative to its folder."""
    return {
        package: sorted(
            path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob("*") if path.suffix in DATA
        )
        for package, folder in WINGS.items()
    }


def version() -> str:
    """Read the version without importing the package, whose dependencies may not be installed yet."""
    text = (ROOT / "clusterprompt" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    assert found, 'clusterprompt/__init__.py should hold a line such as: __version__ = "0.1.0"'
    return found[1]


TEST = ["pytest>=7.2", "pytest-xdist>=3.5"]
CHECK = ["ruff==0.17.6", "mypy==2.4.1"]  # pinned: a newer one formats and finds other things

setup(
    name="clusterprompt",
    version=version(),
    description=(
        "CLIP prompt learning by clustering (TAC, AttriPrompt) and its baselines, as trainers for Dassl and CoOp"
    ),
    license="MIT",
    author="clusterprompt contributors",
    python_requires=">=3.10",
    packages=packages(),
    package_dir=WINGS,
    package_data=package_data(),
    include_package_data=False,
    zip_safe=False,
    entry_points={"console_scripts": ["clusterprompt = clusterprompt.__main__:main"]},
    install_requires=[  # the lower bounds are versions that the tests were run with, all together
        "torch>=2.6",
        "torchvision>=0.21",
        "numpy>=1.24",
        "pillow>=9.4",
        "yacs>=0.1.8",
        "scikit-learn>=1.2",
        "tabulate>=0.9",
        "tqdm>=4.64",
        "safetensors>=0.4",
        "ftfy>=6.1",
        "regex>=2022.10",
        "packaging>=21.3",
        "jinja2",  # these three come with torch, scikit-learn and yacs, in versions that suit them
        "scipy",
        "pyyaml",
        "setuptools<81",  # openai-clip imports pkg_resources, which later ones no longer carry
    ],
    extras_require={
        "clip": ["openai-clip>=1.0.1"],
        "tensorboard": ["tensorboard>=2.11"],
        "wandb": ["wandb>=0.16"],
        "data": ["gdown>=5.2"],  # files on Google Drive, such as CoOp's splits
        "pictures": ["matplotlib>=3.6"],
        "onnx": ["onnx>=1.17", "onnxscript>=0.2", "onnxruntime>=1.20"],
        "search": ["optuna>=3.6"],  # clusterprompt search --trials
        "completion": ["argcomplete>=3.1"],
        "cluster": ["ray>=2.49"],
        "test": TEST,
        "check": CHECK,
        "dev": [*TEST, *CHECK, "pre-commit>=3.5"],
    },
    classifiers=[
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: MIT License",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
