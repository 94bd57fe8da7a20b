"""The paper's experiment on ACDC (Chaitanya et al., IPMI 2019), with this project's choices where the paper is silent.

    python train.py --config=configs/acdc.py --config.data.root=DIR

DIR holds patient001, patient002, ... as the challenge's training archive does. Three trainings of 10 000 iterations
at 224 x 224: days on a small CPU, hours on a GPU.
"""

from __future__ import annotations

import ml_collections
from ml_collections.config_dict import FieldReference

from tfaug.configs import splits

CLASS_WEIGHTS = (0.1, 0.3, 0.3, 0.3)  # section 3.4


# Table 1 of the paper, in its order.
METHODS = (
    *("none", "aff", "aff_rd", "aff_gd", "aff_gd_noreg", "aff_ri", "aff_gi", "aff_gi_noreg", "aff_gd_gi"),
    *("aff_mixup", "aff_gd_gi_mixup", "adv_sl", "adv_ssl"),
)


def either(value) -> FieldReference:
    """A value that a flag may replace by one of another type, such as a number by "auto"."""
    return FieldReference(value, field_type=object)


def get_config() -> ml_collections.ConfigDict:
    """Every number of the experiment; the sections are the paper's."""
    config = ml_collections.ConfigDict()
    config.name = "acdc"
    config.seed = 0
    config.num_labelled = 1  # N_L: 1 or 3 (section 4); 40 is an upper bound
    config.labelled_set = 1  # which of the sets of that size, from 1

    config.data = ml_collections.ConfigDict()
    config.data.root = ""  # the data set's folder; empty: the built-in cohort
    config.data.reader = ""  # for its layout: acdc, msd, pairs or "my_module:name"; empty: recognised from the folder
    config.data.structures = either(())  # {"name": value in the label files, ...}; empty: as the data set says
    config.data.channels = ()  # their names; empty: as the data set says
    config.data.images = "images/*"  # layout `pairs` only: where scans and labels are
    config.data.labels = "labels/*"
    config.data.slice_axis = either("auto")  # 0, 1 or 2; "auto": the axis with the largest spacing
    config.data.cohort_seed = 0  # seed of the built-in cohort
    config.data.phase = "ES"  # layout `acdc` only (section 3.1); "ED", as in the released program; or "both"
    config.data.image_size = either(224)  # section 3.2; "auto": large enough for all labelled voxels
    config.data.resolution = either(1.36719)  # mm, section 3.2; "auto": the median of the data set
    config.data.n4_shrink = 2  # N4 on every n-th pixel, for speed (docs/performance.md); 1 is exact, 0 leaves N4 out
    config.data.cache_dir = "cache"
    config.data.num_workers = 2

    # The paper's splits; a file of splits or a random draw replaces them (docs/data.md).
    config.splits = splits.get_splits()
    config.splits.file = ""  # .json or .csv
    config.splits.random = either(())  # {"labelled": 1, "validation": 2, "test": 20}

    # For a network of your own, "my_module:name" (docs/extending.md).
    config.model = ml_collections.ConfigDict()
    config.model.segmenter = "unet"
    config.model.generator = "conditional"
    config.model.discriminator = "dcgan"  # section 3.3; "histogram" and "quantiles" see only grey values
    config.model.filters = 16  # released program
    config.model.half_pixel_centers = True  # the released program's upsampling is off by half a pixel
    # No effect on the forms of G_I that are curves (model.intensity other than "free").
    config.model.head_scale = 1.0  # scales the initial weights of the generators' last layer, and so the first fields
    config.model.norm_momentum = 0.99  # of batch normalisation's moving statistics; released program
    config.model.deformation = "free"  # one displacement per pixel (section 3.3); or "coarse", "velocity"
    # Distance between the control points of "coarse" and "velocity"; "auto": an eighth of the image's side.
    config.model.control_mm = either(22.0)
    config.model.limit_mm = either(22.0)  # soft limit on their displacements; 0: none; "auto": 3/16 of the side
    config.model.fixed_border = False  # whether the outermost of these control points are fixed
    config.model.intensity = "free"  # per pixel (section 3.3); or per grey value: "curve", "increasing", "quantiles"
    config.model.curve_knots = 8  # for these three; linear between knots
    config.model.discriminator_norm = True  # batch normalisation in D (section 3.3)
    config.precision = "float32"  # or "mixed_bfloat16"; on a GPU also "mixed_float16", with loss scaling

    # The released program's variants are called "released".
    config.transforms = ml_collections.ConfigDict()
    config.transforms.affine = "paper"
    config.transforms.random_intensity = "paper"
    config.transforms.elastic_mm = either(10 * 1.36719)  # section 4: 10 pixels; "auto": 10/224 of the image's side
    config.transforms.mixup_alpha = 0.1  # released program; the paper does not give it
    # For `aff_strong`, which is not in the paper.
    config.transforms.strong = ml_collections.ConfigDict()
    config.transforms.strong.scale = (0.6, 1.2)
    config.transforms.strong.elastic_mm = either(14.0)
    config.transforms.strong.contrast = (0.5, 1.5)
    config.transforms.strong.brightness = (-0.2, 0.2)

    # Learning the augmentation (sections 2.1 and 3.4).
    config.augment = ml_collections.ConfigDict()
    config.augment.num_steps = 10_000
    config.augment.warmup_steps = 400  # training S alone; released program
    config.augment.batch_size = 20
    config.augment.learning_rate = 1e-3
    config.augment.class_weights = CLASS_WEIGHTS
    config.augment.lambda_seg = 1.0
    config.augment.lambda_adv = 1.0
    config.augment.lambda_big = 1e-3
    config.augment.adversarial_loss = "non_saturating"  # released program; "saturating": Eq. 5; "energy": no D
    config.augment.task_gradient = True  # Eq. 4; the released program's generators never receive it
    config.augment.discriminator_first = True  # the released program updates G and S, then D
    # X_L and X_UL (section 2.1); "unlabelled": as in the released program; "equal": half of the batch from each.
    config.augment.real_pool = "all"
    config.augment.generator_rate = 1.0  # G's learning rate, as a multiple of learning_rate
    config.augment.discriminator_rate = 1.0  # D's
    config.augment.beta_1 = 0.9  # for G's and D's Adam
    # None of these is in the paper: a penalty on D's gradient, limits on what L_big rewards, a cost on folding, and a
    # reward for fields that differ over z, as L_big rewards large ones.
    config.augment.r1 = 0.0
    config.augment.big_limit_mm = 0.0  # for G_V; 0: no limit
    config.augment.big_limit_intensity = 0.0  # for G_I; 0: no limit
    config.augment.big_of = "displacement"  # what L_big rewards in G_V; "deformation": without translation; "strain"
    config.augment.lambda_fold = 0.0
    config.augment.lambda_diversity = 0.0
    config.augment.diversity = "difference"  # of fields under two z; or the "volume" spanned by a batch's differences
    config.augment.pack = 1  # how many images D judges as one, to see whether they vary as scans do
    config.augment.pack_of = "slices"  # generated from any slices; "draws": from one, so D sees how one slice varies
    # Keys of `augment` and `model` that differ for G_I, as {"pack": 5, "discriminator": "histogram"}.
    config.augment.of_intensity = either(())
    config.augment.partition = "even"  # S's batch: half original, half generated; or "released"
    config.augment.average = 0.0  # decay of the moving average of S's and G's weights that is kept; 0: no average
    config.augment.keep = "best"  # by the validation Dice of S; or "last"
    config.augment.eval_every = 100

    # Training the segmenter with fixed generators (section 2.1, "Optimization Sequence").
    config.segment = ml_collections.ConfigDict()
    config.segment.num_steps = 10_000
    config.segment.batch_size = 20
    config.segment.learning_rate = 1e-3
    # The paper drops the background here, which would leave false positives unpenalised (section 3.4).
    config.segment.class_weights = CLASS_WEIGHTS
    # The generated half is shared evenly by X_V, X_I and X_VI; or "composed": all of it is X_VI; or "released".
    config.segment.partition = "even"
    config.segment.average = 0.0  # decay of the moving average of S's weights that is kept; 0: no average
    config.segment.keep = "best"  # by the validation Dice; or "last"
    config.segment.eval_every = 100
    # For adv_sl and adv_ssl; not given in the paper. D soon wins, and at 0.1 it drowned L_S (docs/schedule.md).
    config.segment.lambda_adv = 0.001

    # The rows of the table, in its order; for a row of your own, "my_module:name".
    config.methods = METHODS

    # The runs whose generators the second stage uses; empty: those of the same config, labelled set and seed.
    config.generators = ml_collections.ConfigDict()
    config.generators.deform = ""
    config.generators.intensity = ""
    config.generators.deform_noreg = ""  # learned with lambda_adv = lambda_big = 0
    config.generators.intensity_noreg = ""

    config.report_every = 20  # steps between two readings of the losses
    config.picture_every = 1000
    config.checkpoint_every = 500
    return config
