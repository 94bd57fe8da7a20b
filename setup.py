"""Installs tfaug: learned, task-driven augmentation for medical image segmentation."""

from setuptools import find_packages, setup

setup(
    name="tfaug",
    version="0.2.0.dev0",
    description="Semi-supervised, task-driven data augmentation for medical image segmentation "
    "(Chaitanya et al., IPMI 2019) in TensorFlow 2 / Keras",
    license="Apache-2.0",
    packages=find_packages(include=["tfaug", "tfaug.*"]),  # tfaug/configs is a link to configs/
    entry_points={"console_scripts": ["tfaug = tfaug.commands.main:main"]},
    python_requires=">=3.9,<3.14",
    install_requires=[
        # TensorFlow Addons ended at 0.23, whose compiled ops match TensorFlow 2.15; Keras 3 starts at 2.16.
        "tensorflow==2.15.1; python_version < '3.12'",
        "tensorflow-addons==0.23.0; python_version < '3.12'",
        "numpy>=1.23,<2; python_version < '3.12'",
        # TensorFlow 2.15 has no release for later Pythons: there Keras 2 is tf-keras (tfaug/compat.py).
        "tensorflow~=2.21.0; python_version >= '3.12'",
        "tf-keras~=2.21.0; python_version >= '3.12'",
        "tensorboard~=2.21.0; python_version >= '3.12'",
        "numpy>=2; python_version >= '3.12'",
        "SimpleITK>=2.3,<3",
        "nibabel>=5,<6",
        "absl-py>=1.4",
        "ml_collections>=0.1.1,<2",
        "scipy>=1.10",
        "scikit-image>=0.20",
        "pandas>=1.5",
        "matplotlib>=3.7",
        "pillow>=9.1",
        "tqdm>=4.64",
        "psutil>=5.8",
        # TensorBoard 2.15 imports pkg_resources, which setuptools 82 removed; its own advice was to stay below 81.
        "setuptools<81; python_version < '3.12'",
    ],
    extras_require={
        "cluster": ["distributed>=2024.8"],
        "onnx": [  # tf2onnx that takes the protobuf of TensorFlow 2.15 begins at 1.17, for Python 3.10
            "tf2onnx>=1.17,<2; python_version >= '3.10'",
            "onnx>=1.17,<1.19; python_version >= '3.10' and python_version < '3.12'",  # later: another ml_dtypes
            "onnx>=1.19; python_version >= '3.12'",
            "onnxruntime>=1.19; python_version >= '3.10'",
        ],
        "docs": [  # MkDocs 2 and Material 10 would be other programs
            "mkdocs>=1.6,<2",
            "mkdocs-material>=9.6,<10",
            "mkdocstrings-python>=1.18,<3",
            "latex2mathml>=3.77,<4",
        ],
        "test": [
            "distributed>=2024.8",
            "import-linter>=2",
            "ipykernel>=6",
            "nbclient>=0.8",
            "packaging>=21",
            "pytest>=7",
            "pytest-timeout>=2",
            "pytest-xdist>=3.7",
            "ruff~=0.17.6",  # how it formats changes from one minor version to the next
        ],
    },
)
