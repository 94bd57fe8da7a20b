"""Hippocampi of the Medical Segmentation Decathlon: two structures, 1 mm, volumes of about 35 x 50 x 36 voxels.

    python train.py --config=configs/hippocampus.py --config.data.root=DIR

DIR is the unpacked Task04_Hippocampus, with its dataset.json. The numbers of cases are those of the paper's experiment
on ACDC: N_L labelled, 2 for validation, 20 for testing and 25 without their labels.
"""

from __future__ import annotations

import ml_collections

from tfaug.configs import own


def get_config() -> ml_collections.ConfigDict:
    """`configs/own.py` with fixed numbers of cases and without bias correction."""
    config = own.get_config()
    config.name = "hippocampus"
    config.data.image_size = 64
    config.data.resolution = 1.0
    # The volumes are crops of 5 cm, in which a bias field cannot be told from the anatomy.
    config.data.n4_shrink = 0
    config.splits.random = {"labelled": (1, 3), "validation": 2, "test": 20, "unlabelled": 25, "sets": 5, "seed": 0}
    return config
