"""Augmentation by a learned generator of deformation or intensity fields (paper, section 2.1)."""

from __future__ import annotations

import tensorflow as tf

from tfaug.types import Z_DIM, Batch
from tfaug.warp import warp


def transform_image(kind: str, image, field):
    """The generated image: v o X for "deform", X + dI for "intensity".

    Args:
      kind: "deform" or "intensity".
      image: [N, H, W, C] float32.
      field: v [N, H, W, 2] in pixels, which moves all channels alike, or dI [N, H, W, C].

    Returns:
      [N, H, W, C] float32.
    """
    return {"deform": warp, "intensity": tf.add}[kind](image, field)


def transform_label(kind: str, label, field):
    """The label of the generated image: warped with it (soft), or unchanged, as an additive mask moves nothing."""
    return warp(label, field) if kind == "deform" else label


class Learned:
    """Transforms slices by fields drawn from a trained generator.

    Args:
      kind: "deform" or "intensity".
      generate: function from (image [N, H, W, C], z [N, 100]) to fields.
    """

    def __init__(self, kind: str, generate):
        self.kind = kind
        self.generate = generate

    def sample(self, batch: Batch, seed) -> dict[str, tf.Tensor]:
        """Draws z [N, 100] from a unit Gaussian; the same seed gives G_V and G_I the same z."""
        return {"z": tf.random.stateless_normal([tf.shape(batch.image)[0], Z_DIM], seed)}

    def apply(self, batch: Batch, params) -> Batch:
        """Generates one image and label per slice of the batch."""
        field = self.generate(batch.image, params["z"])
        return Batch(transform_image(self.kind, batch.image, field), transform_label(self.kind, batch.label, field))
