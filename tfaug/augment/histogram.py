"""Histogram matching of labelled slices to unlabelled scans: a control that is not in the paper."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfaug.types import Batch

NUM_QUANTILES = 64


def quantiles(images: Sequence[np.ndarray]) -> np.ndarray:
    """Evenly spaced quantiles, from 0 to 1, of every slice of some volumes.

    Args:
      images: volumes [Z, H, W, C].

    Returns:
      [S, Q, C] float32 for S slices and Q = `NUM_QUANTILES`.
    """
    levels = np.linspace(0, 1, NUM_QUANTILES)
    found = [np.quantile(image, levels, axis=(1, 2)).swapaxes(0, 1) for image in images]
    return np.concatenate(found).astype(np.float32)


class MatchHistogram:
    """Gives each slice the histogram of an unlabelled slice drawn at random, channel by channel.

    Grey values are mapped by the piecewise linear, increasing function that takes the quantiles of the slice to those
    of the other (Nyul et al., IEEE TMI 2000, with all quantiles as landmarks). The label is unchanged.

    Args:
      references: [S, Q, C] float32, as `quantiles` returns them.
    """

    def __init__(self, references: np.ndarray):
        self.references = tf.constant(references)

    def sample(self, batch: Batch, seed) -> dict[str, tf.Tensor]:
        """Draws the unlabelled slice to which each slice is matched, from a [2] seed.

        Returns:
          A dict with `index`, [N] int32 in [0, S).
        """
        shape, largest = [tf.shape(batch.image)[0]], self.references.shape[0]
        return {"index": tf.random.stateless_uniform(shape, seed, maxval=largest, dtype=tf.int32)}

    def apply(self, batch: Batch, params: dict[str, tf.Tensor]) -> Batch:
        """Maps the grey values of every slice and channel."""
        n, h, w, c = (tf.shape(batch.image)[axis] for axis in range(4))
        values = tf.reshape(tf.transpose(batch.image, [0, 3, 1, 2]), [n * c, h * w])
        target = tf.reshape(
            tf.transpose(tf.gather(self.references, params["index"]), [0, 2, 1]), [n * c, self.references.shape[1]]
        )
        mapped = interpolate(values, _quantiles(values, self.references.shape[1]), target)
        image = tf.transpose(tf.reshape(mapped, [n, c, h, w]), [0, 2, 3, 1])
        return Batch(tf.ensure_shape(image, batch.image.shape), batch.label)


def _quantiles(values, number):
    """The [M, Q] quantiles of [M, P] values, interpolated linearly between order statistics as in NumPy."""
    ordered = tf.sort(values, axis=1)
    position = tf.linspace(0.0, 1.0, number) * tf.cast(tf.shape(values)[1] - 1, tf.float32)
    below = tf.cast(tf.floor(position), tf.int32)
    above = tf.minimum(below + 1, tf.shape(values)[1] - 1)
    share = position - tf.floor(position)
    return tf.gather(ordered, below, axis=1) * (1 - share) + tf.gather(ordered, above, axis=1) * share


def interpolate(x, xp, fp):
    """`np.interp` row by row: x [M, P], increasing xp [M, Q] and their values fp [M, Q]."""
    last = xp.shape[1] - 1
    right = tf.clip_by_value(tf.searchsorted(xp, x, side="right"), 1, last)
    x0, x1 = (tf.gather(xp, index, axis=1, batch_dims=1) for index in (right - 1, right))
    f0, f1 = (tf.gather(fp, index, axis=1, batch_dims=1) for index in (right - 1, right))
    share = tf.clip_by_value(tf.math.divide_no_nan(x - x0, x1 - x0), 0.0, 1.0)
    return f0 + share * (f1 - f0)
