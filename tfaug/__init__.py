"""Learned, task-driven augmentation for segmentation with few labels (Chaitanya et al., IPMI 2019)."""

from importlib import metadata

__version__ = "0.1.0"

# Read from the package index, not by importing Keras: preprocessing workers import tfaug without TensorFlow.
_KERAS = metadata.version("keras")
if not _KERAS.startswith("2."):
    raise ImportError(
        f"tfaug needs Keras 2.x, found {_KERAS}; run `pip install tensorflow==2.15.1` in a fresh environment"
    )
