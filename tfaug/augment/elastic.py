"""Random elastic deformations: the paper's RD (section 4)."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tfaug.types import Batch
from tfaug.warp import warp


@dataclasses.dataclass(frozen=True)
class Elastic:
    """Smooth random deformations: a 3 x 3 grid of normal displacements, upscaled bicubically.

    Attributes:
      stddev_px: standard deviation of the grid's displacements, in pixels; None: 10/224 of the image's height (rows)
        and width (columns), the paper's 10 pixels at 224 x 224.
    """

    stddev_px: float | None = None

    def sample(self, batch: Batch, seed) -> dict[str, tf.Tensor]:
        """Draws one grid of displacements per slice.

        Args:
          batch: gives the number of slices N and their size.
          seed: [2] integer, already folded for purpose and step.

        Returns:
          A dict with `grid`, [N, 3, 3, 2] float32 in pixels, (row, column).
        """
        shape = tf.shape(batch.image)
        size = tf.cast(shape[1:3], tf.float32)
        stddev = 10 / 224 * size if self.stddev_px is None else self.stddev_px
        return {"grid": tf.random.stateless_normal([shape[0], 3, 3, 2], seed) * stddev}

    def apply(self, batch: Batch, params: dict[str, tf.Tensor]) -> Batch:
        """Warps image and one-hot label along the same field; the label comes back soft, edges repeat."""
        deformation = self.deformation(params, tf.shape(batch.image)[1:3])
        return Batch(warp(batch.image, deformation), warp(batch.label, deformation))

    @staticmethod
    def deformation(params: dict[str, tf.Tensor], size) -> tf.Tensor:
        """The field [N, H, W, 2], in pixels, defined by `params` for images of size (H, W)."""
        return tf.image.resize(params["grid"], size, method="bicubic")
