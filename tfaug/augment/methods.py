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

Without it lambda_adv = lambda_big = 0, and so are the weights that the paper does not have.
"""


@dataclasses.dataclass(frozen=True)
class Method:
    """One way of training the segmenter.

    A transform is named as `Augmenter` knows it, or is the user's own, "my_module:Blur".

    Attributes:
      first: transforms applied to the whole batch, in turn.
      generated: recipes, each a tuple of transforms applied in turn. They replace the second half of the batch, an
        even share each.
      mixup: whether the second half is then mixed with slices drawn from the whole batch.
      rule: the update rule: one of `tfaug.steps.RULES`, or the user's own, "my_module:rule".

    Raises:
      TypeError: `first` or `generated` is not made of tuples of names.
    """

    first: tuple[str, ...] = ()
    generated: tuple[tuple[str, ...], ...] = ()
    mixup: bool = False
    rule: str = "segment"

    def __post_init__(self):
        """Refuses a string where a tuple is meant, as in `generated=("deform",)`: it would be read by letters."""
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
        """The names of the generators that must have been learned before."""
        return tuple(name for name in GENERATORS if name in self.transforms)


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
    # What `aff_gd_gi` is, with random fields for the learned ones.
    "aff_rd_ri": Method(AFFINE, (("elastic",), ("contrast_brightness",), ("elastic", "contrast_brightness"))),
    # The simplest use of unlabelled scans: their histograms.
    "aff_hm_rd": Method(AFFINE, (("elastic",), ("histogram",), ("elastic", "histogram"))),
    # What a careful user does without learning anything; and learned fields on top of it.
    "aff_strong": Method(AFFINE, (STRONG,)),
    "aff_strong_gd_gi": Method(AFFINE, ((*STRONG, "deform", "intensity"),)),
}
"""Rows that the paper does not have (docs/differences.md)."""

METHODS: Mapping[str, Method] = {**PAPER, **CONTROLS}
"""All rows by name; also `tfaug.METHODS`."""


def table(names: Iterable[str]) -> dict[str, Method]:
    """The methods that a config names, by the short names that flags, folders and tables show, in the config's order.

    Args:
      names: of `METHODS`, or of a `Method` in the user's own module, "my_module:blur".

    Raises:
      UserError: a name stands for nothing or for no `Method`, two have the same short name, or one of the user's own
        has that of a row of the table.
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
