"""ACDC on two cores: the paper's method with what one labelled volume and few steps ask for.

    python train.py --config=configs/acdc_quick.py --config.data.root=DIR

Frozen before it was scored on any test patient: docs/results/acdc/development.md has the runs behind it, all of them on
patients that no split of the paper names. docs/differences.md explains the keys. What departs from `configs/acdc.py`:

- 64 x 64 pixels of 2.75 mm, batches of 10, 500 steps (G_I: 600): for time. Strengths in mm stay what they are.
- The last, averaged weights of S and G are kept: two validation patients choose the best of many steps by noise.
- G_V displaces control points 22 mm apart, those at the border excepted, by up to 33 mm, with a cost on folding:
  displacements of single pixels grow and fold, and a repeated edge gives a generated image away.
- G_V is not rewarded for large displacements, but for the variety with which a batch is stretched: L_big alone moves
  the whole image to one side, for all z the same.
- G_I draws new quantiles for each slice, so that brighter stays what is brighter. It has no D, which would know the one
  labelled patient by the anatomy, whatever the grey values: in its place is the energy distance between what a slice
  becomes under five z and the unlabelled slices, over all directions in which their grey values differ.
- G_V's D has a penalty on its gradient in place of batch normalisation, learns at a third of the rate, and sees
  labelled and unlabelled scans in equal shares.
"""

from __future__ import annotations

import ml_collections

from tfaug.configs import acdc


def get_config() -> ml_collections.ConfigDict:
    """`configs/acdc.py` with another schedule, another game, and fields that stay whole."""
    config = acdc.get_config()
    config.name = "acdc_quick"
    config.data.image_size = 64
    config.data.resolution = 2.75
    config.data.n4_shrink = 4
    # The moving statistics must follow networks that learn in hundreds of steps rather than thousands.
    config.model.norm_momentum = 0.9
    config.model.head_scale = 0.1  # of the fields that learning starts from
    config.model.deformation = "coarse"
    config.model.limit_mm = 33.0
    config.model.fixed_border = True
    config.model.intensity = "quantiles"
    config.model.curve_knots = 32
    config.model.discriminator_norm = False
    config.augment.batch_size = 10
    config.augment.num_steps = 500
    config.augment.warmup_steps = 100
    config.augment.average = 0.99
    config.augment.keep = "last"
    config.augment.real_pool = "equal"
    config.augment.r1 = 1.0
    config.augment.discriminator_rate = 0.3
    config.augment.lambda_big = 0.0
    config.augment.big_of = "strain"
    config.augment.lambda_fold = 10.0
    config.augment.lambda_diversity = 1.0
    config.augment.diversity = "volume"
    config.augment.of_intensity = {
        **{"adversarial_loss": "energy", "real_pool": "unlabelled", "pack": 5, "pack_of": "draws"},
        **{"lambda_diversity": 0.0, "beta_1": 0.5, "num_steps": 600},
    }
    config.segment.batch_size = 10
    config.segment.num_steps = 500
    config.segment.average = 0.99
    config.segment.keep = "last"
    config.picture_every = 500
    # The paper's rows, and controls that it lacks: `aff_rd_ri` directly above what it is the control of.
    index = acdc.METHODS.index("aff_gd_gi")
    config.methods = (
        *acdc.METHODS[:index],
        "aff_rd_ri",
        *acdc.METHODS[index:],
        *("aff_hm_rd", "aff_strong", "aff_strong_gd_gi"),
    )
    return config
