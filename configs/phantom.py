"""The whole method in minutes, on the built-in cohort.

    python train.py

The recipe is that of `configs/acdc_quick.py`, which helps here too (docs/schedule.md), with as many steps for G_I as
for G_V, so that `--config.augment.num_steps` sets both, and with more frequent pictures.
"""

from __future__ import annotations

import ml_collections

from tfaug.configs import acdc_quick


def get_config() -> ml_collections.ConfigDict:
    """`configs/acdc_quick.py` with one number of steps, and more pictures and checkpoints."""
    config = acdc_quick.get_config()
    config.name = "phantom"
    of_intensity = dict(config.augment.of_intensity)
    del of_intensity["num_steps"]
    config.augment.of_intensity = of_intensity
    config.picture_every = 100
    config.checkpoint_every = 100
    return config
