"""Learned, task-driven augmentation for segmentation with few labels (Chaitanya et al., IPMI 2019)."""

import os
from importlib import metadata

__version__ = "0.1.0"


def _require_keras_2() -> None:
    """Raises ImportError unless there is a Keras 2: `keras` itself with TensorFlow 2.15, tf-keras with later ones.

    Asks the installed packages' metadata: preprocessing workers import tfaug without TensorFlow.
    """
    if metadata.version("keras").startswith("2."):
        return
    try:
        found = metadata.version("tf-keras")
    except metadata.PackageNotFoundError:
        found = "none"
    if not found.startswith("2."):
        raise ImportError(
            f"tfaug needs Keras 2.x, found keras {metadata.version('keras')} and tf-keras {found}; "
            "run `pip install tf-keras` with the minor version of your TensorFlow"
        )
    # TensorFlow reads this while it is imported: with it, the user's tf.keras is the Keras that tfaug uses.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


_require_keras_2()
