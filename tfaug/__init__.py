"""Learned, task-driven augmentation for segmentation with few labels (Chaitanya et al., IPMI 2019).

    load_config(name)      a config that you can change
    check(config)          reads and prepares every case as a training would: a DataFrame
    train(config)          trains as `tfaug train` does: the folder of the run
    evaluate(run)          scores a trained segmenter: a DataFrame
    load_segmenter(run)    a trained segmenter: scans in, masks on their own grids out
    load_generator(run)    the learned augmentation as a Keras layer
    METHODS                the rows of Table 1, by name
    Task                   the structures and channels of a data set

Each loads what it needs on first use; `import tfaug` alone needs no TensorFlow.
"""

import importlib
import os
from importlib import metadata

__version__ = "0.2.0.dev0"
_WHERE = {
    "METHODS": "tfaug.augment.methods",
    "Task": "tfaug.data.task",
    "check": "tfaug.jobs",
    "evaluate": "tfaug.jobs",
    "load_config": "tfaug.jobs",
    "load_generator": "tfaug.api",
    "load_segmenter": "tfaug.api",
    "train": "tfaug.jobs",
}
__all__ = [*_WHERE]


def __getattr__(name: str):
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'tfaug' has no attribute {name!r}")


def _require_keras_2() -> None:
    """Raises ImportError unless there is a Keras 2: `keras` itself with TensorFlow 2.15, tf-keras with later ones.

    Asks the installed packages' metadata: preprocessing workers import tfaug without TensorFlow.
    """
    try:
        found = metadata.version("tf-keras")
    except metadata.PackageNotFoundError:
        found = "none"
    if metadata.version("keras").startswith("2."):
        if found == "none":  # TensorFlow would look for tf-keras in vain, and uses the same Keras without it
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        return
    if not found.startswith("2."):
        raise ImportError(
            f"tfaug needs Keras 2.x, found keras {metadata.version('keras')} and tf-keras {found}; "
            "run `pip install tf-keras` with the minor version of your TensorFlow"
        )
    # TensorFlow reads this on import: it makes the user's tf.keras the Keras that tfaug uses.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


_require_keras_2()
# TensorFlow reads this on import too. By default it uses oneDNN's convolutions, which are about twice as fast, only on
# processors with instructions for neural networks.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
