"""ACDC on two cores: the paper's method, adapted to one labelled volume and few steps.

    python train.py --config=configs/acdc_quick.py --config.data.root=DIR

Frozen before it was scored on any test patient: docs/results/acdc/development.md has the runs behind it, all on
patients outside the paper's splits. docs/differences.md explains the keys. Differences from `configs/acdc.py`:

- 64 x 64 pixels of 2.75 mm, batches of 10 and 500 steps (G_I: 600), to save time. Strengths in mm are unchanged.
- The last, averaged weights of S and G are kept: with two validation patients, noise would pick the best of many steps.
- G_V displaces control points 22 mm apart, except those at the border, by up to 33 mm, with a cost on folding:
  per-pixel displacements grow and fold, and a repeated edge gives a generated image away.
- G_V is rewarded not for large displacements but for varied strain within a batch: L_big alone shifts the whole image
  to one side, in the same way for all z.
- G_I draws new quantiles for each slice, which keeps the order of grey values. It has no D, which would recognise the
  one labelled patient by the anatomy, whatever the grey values. Its loss is instead the energy distance between five
  versions of a slice and the unlabelled slices, over all directions of their quantiles.
- G_V's D has a gradient penalty instead of batch normalisation, 0.3 times the learning rate, and sees labelled and
  unlabelled scans in equal shares.
"""

from __future__ import annotations

import ml_collections

from tfaug.configs import acdc


def get_config() -> ml_collections.ConfigDict:
    """`configs/acdc.py` with a shorter schedule, another adversarial game and a cost on folding."""
    config = acdc.get_config()
    config.name = "acdc_quick"
    config.data.image_size = 64
    config.data.resolution = 2.75
    config.data.n4_shrink = 4
    # The moving statistics must keep up with networks that learn in hundreds of steps rather than thousands.
    config.model.norm_momentum = 0.9
    config.model.head_scale = 0.1  # small initial fields
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
    # The paper's rows, and controls that it lacks; `aff_rd_ri` is directly above `aff_gd_gi`, whose control it is.
    index = acdc.METHODS.index("aff_gd_gi")
    config.methods = (
        *acdc.METHODS[:index],
        "aff_rd_ri",
        *acdc.METHODS[index:],
        *("aff_hm_rd", "aff_strong", "aff_strong_gd_gi"),
    )
    return config
