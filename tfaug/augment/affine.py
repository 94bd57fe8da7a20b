"""Random affine transformations: the paper's Aug_A (section 4)."""

from __future__ import annotations

import dataclasses
import math

import tensorflow as tf

from tfaug.types import Batch


@dataclasses.dataclass(frozen=True)
class Affine:
    """Applies one of five equally likely choices per slice: none, rotation, scaling, N * 45 deg rotation, flip.

    The paper draws the choice "between 0 and 5" for five choices, so its "N between 0 to 8" is read the
    same way, as 0 to 7; N = 8 would be the identity again.

    Attributes:
      max_rotation: degrees; angles are uniform in +-max_rotation.
      scale_range: uniform range of the scale factor; above 1 enlarges the content.
      scale_decimals: decimals that the scale factor is rounded to (released program: 2); None: not rounded.
      extra_flip_coin: whether a chosen flip also depends on a coin toss, as in the released program.
    """

    max_rotation: float = 15.0
    scale_range: tuple[float, float] = (0.9, 1.1)
    scale_decimals: int | None = None
    extra_flip_coin: bool = False

    def sample(self, batch: Batch, seed) -> dict[str, tf.Tensor]:
        """Draws one transformation per slice.

        Args:
          batch: gives the number of slices N.
          seed: [2] integer, already folded for purpose and step.

        Returns:
          A dict, [N] each, with `angle` (float32 degrees, 0 unless a rotation was chosen), `scale` (float32, 1 unless
          scaling was chosen) and `flip` (bool).
        """
        shape = [tf.shape(batch.image)[0]]
        seeds = tf.random.experimental.stateless_split(seed, 5)
        choice = tf.random.stateless_uniform(shape, seeds[0], maxval=5, dtype=tf.int32)
        rotation = tf.random.stateless_uniform(shape, seeds[1], -self.max_rotation, self.max_rotation)
        scale = tf.random.stateless_uniform(shape, seeds[2], *self.scale_range)
        eighths = tf.random.stateless_uniform(shape, seeds[3], maxval=8, dtype=tf.int32)
        if self.scale_decimals is not None:
            scale = tf.round(scale * 10**self.scale_decimals) / 10**self.scale_decimals
        flip = choice == 4
        if self.extra_flip_coin:
            flip &= tf.random.stateless_uniform(shape, seeds[4]) < 0.5
        angle = tf.where(choice == 3, 45.0 * tf.cast(eighths, tf.float32), 0.0)
        return {
            "angle": tf.where(choice == 1, rotation, angle),
            "scale": tf.where(choice == 2, scale, 1.0),
            "flip": flip,
        }

    def apply(self, batch: Batch, params: dict[str, tf.Tensor]) -> Batch:
        """Transforms image (bilinear) and label (nearest) alike, about the centre of the image.

        Pixels from outside are 0 in the image and background in the label. Content is first flipped along the
        second array axis, then scaled, then rotated counter-clockwise as seen with row 0 at the top.

        Args:
          batch: `Batch`, its label one-hot or soft.
          params: as `sample` returns them.

        Returns:
          A `Batch` of the same shapes; bit-exact where the transformation is the identity or a flip.
        """
        size = tf.shape(batch.image)[1:3]
        matrices = _output_to_input(params["angle"], params["scale"], params["flip"], size)
        image = _resample(batch.image, matrices, size, "BILINEAR")
        label = _resample(batch.label, matrices, size, "NEAREST")
        outside = tf.reduce_max(label, axis=-1, keepdims=True) == 0
        background = tf.one_hot(0, batch.label.shape[-1])
        return Batch(image, tf.where(outside, background, label))


@dataclasses.dataclass(frozen=True)
class Scale:
    """Random scaling of every slice about the centre of the image; stronger than in `Affine`, and not in the paper.

    Attributes:
      scale_range: uniform range of the scale factor; above 1 enlarges the content.
    """

    scale_range: tuple[float, float] = (0.6, 1.2)

    def sample(self, batch: Batch, seed) -> dict[str, tf.Tensor]:
        """Draws `scale`, [N] float32, from a [2] seed."""
        return {"scale": tf.random.stateless_uniform([tf.shape(batch.image)[0]], seed, *self.scale_range)}

    def apply(self, batch: Batch, params: dict[str, tf.Tensor]) -> Batch:
        """Scales image (bilinear) and label (nearest) alike, as `Affine.apply` does."""
        scale = params["scale"]
        whole = {"angle": tf.zeros_like(scale), "scale": scale, "flip": tf.zeros_like(scale, tf.bool)}
        return Affine().apply(batch, whole)


def _output_to_input(angle, scale, flip, size):
    """The [N, 8] projective matrices, over (column, row), that take output to input coordinates."""
    radians = angle * (math.pi / 180)
    cos, sin = tf.cos(radians) / scale, tf.sin(radians) / scale
    mirror = tf.where(flip, -1.0, 1.0)
    row, column = tf.unstack(tf.cast(size - 1, tf.float32) / 2)
    xx, xy, yx, yy = mirror * cos, -mirror * sin, sin, cos
    zero = tf.zeros_like(angle)
    return tf.stack([xx, xy, column - xx * column - xy * row, yx, yy, row - yx * column - yy * row, zero, zero], axis=1)


def _resample(images, matrices, size, interpolation):
    resampled = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=matrices,
        output_shape=size,
        fill_value=0.0,
        interpolation=interpolation,
        fill_mode="CONSTANT",
    )
    return tf.ensure_shape(resampled, images.shape)
