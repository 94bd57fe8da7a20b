"""The methods of Table 1, as rows; `compose` turns a row into batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

# The learned transforms by name: the kind of field, and whether L_reg of Eq. 4 took part in learning it
# (lambda_adv = lambda_big = 0 otherwise).
GENERATORS: Mapping[str, tuple[str, bool]] = {
    "deform": ("deform", True),
    "intensity": ("intensity", True),
    "deform_noreg": ("deform", False),
    "intensity_noreg": ("intensity", False),
}


@dataclasses.dataclass(frozen=True)
class Method:
    """One way of training the segmenter.

    Attributes:
      first: transforms applied to the whole batch, in turn.
      generated: recipes, each a tuple of transforms applied in turn. They replace the second half of the batch, an
        even share each.
      mixup: whether the second half is then mixed with slices drawn from the whole batch.
      adversary: what the predictions are compared with by a discriminator: "" for no adversarial training, "expert"
        for the experts' label maps (adv_sl), "unlabelled" for predictions on unlabelled scans (adv_ssl).
    """

    first: tuple[str, ...] = ()
    generated: tuple[tuple[str, ...], ...] = ()
    mixup: bool = False
    adversary: str = ""

    @property
    def generators(self) -> tuple[str, ...]:
        """The names of the generators that must have been learned before."""
        used = {transform for recipe in self.generated for transform in recipe}
        return tuple(name for name in GENERATORS if name in used)


AFFINE = ("affine",)
V_I_VI = (("deform",), ("intensity",), ("deform", "intensity"))  # X_V, X_I and X_VI of section 4

METHODS: Mapping[str, Method] = {
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
    "adv_sl": Method(AFFINE, adversary="expert"),
    "adv_ssl": Method(AFFINE, adversary="unlabelled"),
}
