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
      stddev: of the grid's displacements, as a share of the image's height (rows) and width (columns).
        The paper's 10 pixels are meant at its 224 x 224.
    """

    stddev: float = 10 / 224

    def sample(self, batch: Batch, seed) -> dict[str, tf.Tensor]:
        """Draws one grid of displacements per slice.

        Args:
          batch: gives the number of slices N and their size.
          seed: [2] integer, already folded for purpose and step.

        Returns:
          `grid`: [N, 3, 3, 2] float32 in pixels, (row, column).
        """
        shape = tf.shape(batch.image)
        stddev = self.stddev * tf.cast(shape[1:3], tf.float32)
        return {"grid": tf.random.stateless_normal([shape[0], 3, 3, 2], seed) * stddev}

    def apply(self, batch: Batch, params: dict[str, tf.Tensor]) -> Batch:
        """Warps image and one-hot label along the same field; the label comes back soft, edges repeat."""
        deformation = tf.image.resize(params["grid"], tf.shape(batch.image)[1:3], method="bicubic")
        return Batch(warp(batch.image, deformation), warp(batch.label, deformation))
