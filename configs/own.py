"""Your own data: any structures, in a layout that tfaug recognises (docs/data.md).

    python train.py --config=configs/own.py --config.data.root=DIR

The recipe is that of `configs/phantom.py`, with lengths as shares of the image; pixel size and image size follow
from the data. One labelled case, two for validation and a fifth of the labelled cases for testing are drawn at random,
and the others are used without their labels.
"""

from __future__ import annotations

import ml_collections

from tfaug.configs import phantom


def get_config() -> ml_collections.ConfigDict:
    """`configs/phantom.py` for any data set."""
    config = phantom.get_config()
    config.name = "own"
    config.data.image_size = "auto"
    config.data.resolution = "auto"
    config.model.control_mm = config.model.limit_mm = "auto"
    config.transforms.elastic_mm = config.transforms.strong.elastic_mm = "auto"
    config.splits.random = {"labelled": 1, "validation": 2, "test": 0.2, "sets": 1}
    # 0.1 for the background, and the rest shared equally by the structures, as by the paper's three.
    config.augment.class_weights = ()
    config.segment.class_weights = ()
    return config
