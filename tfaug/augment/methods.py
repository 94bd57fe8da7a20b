"""The methods of Table 1 and its controls, as rows; `compose` turns a row into batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from tfaug import plugins
from tfaug.engine.errors import UserError

GENERATORS: Mapping[str, tuple[str, bool]] = {
    "deform": ("deform", True),
    "intensity": ("intensity", True),
    "deform_noreg": ("deform", False),
    "intensity_noreg": ("intensity", False),
}
"""The learned transforms by name: the kind of field, and whether L_reg of Eq. 4 took part in learning it.

Without L_reg, lambda_adv = lambda_big = 0, as are the loss weights that are not in the paper.
"""

TRANSFORMS = (
    *("affine", "scale", "elastic", "elastic_strong", "contrast_brightness", "contrast_brightness_strong"),
    *("mixup", "histogram", *GENERATORS),
)
"""The names of the transforms of `experiment.networks.augmenter`."""
RULES = ("segment", "adversarial_sl", "adversarial_ssl")
"""The names of `tfaug.steps.RULES`, which cannot be read without TensorFlow."""


@dataclasses.dataclass(frozen=True)
class Method:
    """One way of training the segmenter.

    Transforms are named as in `Augmenter`, or are user-defined, "my_module:Blur".

    Attributes:
      first: transforms applied to the whole batch, in turn.
      generated: recipes, each a tuple of transforms applied in turn. They replace the second half of the batch, in
        even shares.
      mixup: whether the second half is then mixed with slices drawn from the whole batch.
      rule: the update rule: one of `tfaug.steps.RULES`, or user-defined, "my_module:rule".

    Raises:
      TypeError: `first` or `generated` is not made of tuples of names.
    """

    first: tuple[str, ...] = ()
    generated: tuple[tuple[str, ...], ...] = ()
    mixup: bool = False
    rule: str = "segment"

    def __post_init__(self):
        """Refuses a string in place of a tuple, as in `generated=("deform",)`: it would be read letter by letter."""
        if not isinstance(self.generated, tuple):
            raise TypeError(f"Method.generated is {self.generated!r}, not a tuple of tuples of names")
        for recipe in (self.first, *self.generated):
            if not isinstance(recipe, tuple) or not all(isinstance(name, str) for name in recipe):
                raise TypeError(f"a recipe of a Method is {recipe!r}, not a tuple of names such as ('affine',)")

    @property
    def transforms(self) -> tuple[str, ...]:
        """The names of all transforms, each once."""
        names = [*self.first, *(name for recipe in self.generated for name in recipe)]
        return tuple(dict.fromkeys([*names, "mixup"] if self.mixup else names))

    @property
    def unlabelled(self) -> bool:
        """Whether a transform needs the unlabelled scans."""
        return "histogram" in self.transforms

    @property
    def generators(self) -> tuple[str, ...]:
        """The names of the generators that must be learned beforehand."""
        return tuple(name for name in GENERATORS if name in self.transforms)

    def recipes(self, partition: str) -> tuple[tuple[str, ...], ...]:
        """The recipes that share the generated half: the method's own, or with "composed" all its transforms in turn.

        The paper divides this half of `aff_gd_gi` into X_V, X_I and X_VI; with "composed", all of it is X_VI.
        """
        if partition != "composed" or not self.generated:
            return self.generated
        return (tuple(dict.fromkeys(name for recipe in self.generated for name in recipe)),)

    def smallest_batch(self, partition: str) -> int:
        """From how many slices on `compose.Augmenter.shares` gives each recipe at least one at every step."""
        number = len(self.recipes(partition))
        return 20 if partition == "released" and number == 3 else max(1, 2 * number - 1)


AFFINE = ("affine",)
V_I_VI = (("deform",), ("intensity",), ("deform", "intensity"))  # X_V, X_I and X_VI of section 4
STRONG = ("scale", "elastic_strong", "contrast_brightness_strong")

PAPER: Mapping[str, Method] = {
    "none": Method(),
    "aff": Method(AFFINE),
    "aff_rd": Method(AFFINE, (("elastic",),)),
    "aff_gd": Method(AFFINE, (("deform",),)),
    "aff_gd_noreg": Method(AFFINE, (("deform_noreg",),)),
    "aff_ri": Method(AFFINE, (("contrast_brightness",),)),
    "aff_gi": Method(AFFINE, (("intensity",),)),
    "aff_gi_noreg": Method(AFFINE, (("intensity_noreg",),)),
    "aff_gd_gi": Method(AFFINE, V_I_VI),
    "aff_mixup": Method(AFFINE, mixup=True),
    "aff_gd_gi_mixup": Method(AFFINE, V_I_VI, mixup=True),
    "adv_sl": Method(AFFINE, rule="adversarial_sl"),
    "adv_ssl": Method(AFFINE, rule="adversarial_ssl"),
}
"""The rows of the paper's table, in its order."""
CONTROLS: Mapping[str, Method] = {
    # `aff_gd_gi` with random fields in place of the learned ones.
    "aff_rd_ri": Method(AFFINE, (("elastic",), ("contrast_brightness",), ("elastic", "contrast_brightness"))),
    # The simplest use of unlabelled scans: their histograms.
    "aff_hm_rd": Method(AFFINE, (("elastic",), ("histogram",), ("elastic", "histogram"))),
    # What a careful user does without learning anything, and learned fields on top of it.
    "aff_strong": Method(AFFINE, (STRONG,)),
    "aff_strong_gd_gi": Method(AFFINE, ((*STRONG, "deform", "intensity"),)),
}
"""Rows that are not in the paper (docs/differences.md)."""

METHODS: Mapping[str, Method] = {**PAPER, **CONTROLS}
"""All rows by name; also `tfaug.METHODS`."""


def table(names: Iterable[str]) -> dict[str, Method]:
    """The methods that a config names, in its order, by the short names used in flags, folders and tables.

    Args:
      names: names of `METHODS`, or of a `Method` in a module of the user's, "my_module:blur".

    Raises:
      UserError: a name is unknown or does not name a `Method`, two share a short name, or a user-defined one has the
        short name of a built-in row.
    """
    rows: dict[str, Method] = {}
    for name in names:
        method, short = plugins.load(name, METHODS, "methods"), plugins.short_name(name)
        if not isinstance(method, Method):
            kind = type(method).__name__
            raise UserError("methods", f"{name!r} is of type {kind}", "make it a tfaug.augment.methods.Method")
        if short in METHODS and short != name:
            raise UserError("methods", f"{name!r} has the name of another row", f"do not call it {short!r}")
        if short in rows:
            raise UserError("methods", f"two methods have the name {short!r}", "name each once")
        rows[short] = method
    return rows


def check(name: str, method: Method, partition: str, batch_size: int) -> None:
    """Refuses a row that no segmenter can be trained with; its generators would be learned in vain.

    Args:
      name: the row's, for errors.
      method: the row.
      partition: how the generated half is made, see `compose.Augmenter`.
      batch_size: of the segmenter's training.

    Raises:
      UserError: a transform or the rule is unknown, or a recipe would get no slice.
    """
    for transform in method.transforms:
        plugins.load(transform, dict.fromkeys(TRANSFORMS), f"transform of {name}")
    plugins.load(method.rule, dict.fromkeys(RULES), f"rule of {name}")
    least = method.smallest_batch(partition)
    if batch_size < least:
        problem = f"{batch_size} slices are too few for the {len(method.recipes(partition))} recipes of {name}"
        raise UserError("--config.segment.batch_size", problem, f"give {least} or more")
