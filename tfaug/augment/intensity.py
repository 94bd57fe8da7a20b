"""Random contrast and brightness: the paper's RI (section 4)."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tfaug.types import Batch


@dataclasses.dataclass(frozen=True)
class ContrastBrightness:
    """Per slice, x = (x - mean) * contrast + mean, then x + brightness.

    The mean is taken per channel; the channels of a slice share contrast and brightness.

    Attributes:
      contrast_range: uniform range of the contrast.
      brightness_range: uniform range of the brightness, in units of the normalised image.
      split: as in the released program, contrast on the first half of the batch only and brightness on the
        second half only (which includes an odd slice).
    """

    contrast_range: tuple[float, float] = (0.8, 1.2)
    brightness_range: tuple[float, float] = (-0.1, 0.1)
    split: bool = False

    def sample(self, batch: Batch, seed) -> dict[str, tf.Tensor]:
        """Draws one contrast and one brightness per slice.

        Args:
          batch: gives the number of slices N.
          seed: [2] integer, already folded for purpose and step.

        Returns:
          A dict, [N] float32 each, with `contrast` (1 where there is no change) and `brightness` (0 likewise).
        """
        num_slices = tf.shape(batch.image)[0]
        seeds = tf.random.experimental.stateless_split(seed, 2)
        contrast = tf.random.stateless_uniform([num_slices], seeds[0], *self.contrast_range)
        brightness = tf.random.stateless_uniform([num_slices], seeds[1], *self.brightness_range)
        if self.split:
            first_half = tf.range(num_slices) < num_slices // 2
            contrast = tf.where(first_half, contrast, 1.0)
            brightness = tf.where(first_half, 0.0, brightness)
        return {"contrast": contrast, "brightness": brightness}

    def apply(self, batch: Batch, params: dict[str, tf.Tensor]) -> Batch:
        """Changes the image, without clipping it; the label is unchanged."""
        contrast = params["contrast"][:, None, None, None]
        brightness = params["brightness"][:, None, None, None]
        mean = tf.reduce_mean(batch.image, axis=[1, 2], keepdims=True)
        return Batch((batch.image - mean) * contrast + mean + brightness, batch.label)
