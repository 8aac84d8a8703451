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

from setuptools import setup

FOLDERS = ("trainers", "datasets", "clip_patches", "configs")
PARTS = ("commands", "data", "record", "results", "running", "use", *FOLDERS, "trainers.parts")

setup(
    name="clusterprompt",
    version="0.1.0",
    description="CLIP prompt learning by clustering (TAC, AttriPrompt) and its baselines, as trainers for Dassl and CoOp",
    license="MIT",
    author="clusterprompt contributors",
    python_requires=">=3.10",
    packages=["clusterprompt", *(f"clusterprompt.{name}" for name in PARTS)],
    package_dir={"clusterprompt": "clusterprompt", **{f"clusterprompt.{name}": name for name in FOLDERS}},
    package_data={
        "clusterprompt.data": ["sources.yaml"],
        "clusterprompt.results": ["report.html", "published.csv"],
        "clusterprompt.configs": ["datasets/*.yaml", "trainers/*/*.yaml"],
        "clusterprompt.clip_patches": ["embedded/*"],
        "clusterprompt.datasets": ["*.json"],
    },
    include_package_data=False,
    zip_safe=False,
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
        "setuptools<81",  # openai-clip imports pkg_resources, which later ones no longer carry
    ],
    extras_require={
        "clip": ["openai-clip>=1.0.1"],
        "test": ["pytest>=7.2", "pytest-xdist>=3.5"],
        "tensorboard": ["tensorboard>=2.11"],
        "data": ["gdown>=5.2"],  # what lies on Google Drive, such as CoOp's split files
        "pictures": ["matplotlib>=3.6"],
        "onnx": ["onnx>=1.17", "onnxscript>=0.2", "onnxruntime>=1.20"],
    },
    classifiers=[
        "License :: OSI Approved :: MIT License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
