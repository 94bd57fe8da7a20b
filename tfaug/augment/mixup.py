"""Mixup: linear combinations of pairs of slices (paper, Eq. 7)."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tfaug.types import Batch


@dataclasses.dataclass(frozen=True)
class MixUp:
    """Mixes every slice with one drawn from the whole batch.

    Attributes:
      alpha: parameter of Beta(alpha, alpha), above 0; not given in the paper, 0.1 in the released program.
    """

    alpha: float = 0.1

    def sample(self, batch: Batch, seed) -> dict[str, tf.Tensor]:
        """Draws a partner and a weight for each slice.

        Args:
          batch: gives the number of slices N.
          seed: [2] integer, already folded for purpose and step.

        Returns:
          A dict, [N] each, with `partner` (int32 in [0, N), independent, possibly the slice itself) and `weight`
          (float32, Eq. 7's lambda, in [0, 1]; exactly 1 is not rare, since float32 rounds to it).
        """
        num_slices = tf.shape(batch.image)[0]
        seeds = tf.random.experimental.stateless_split(seed, 3)
        partner = tf.random.stateless_uniform([num_slices], seeds[0], maxval=num_slices, dtype=tf.int32)
        log_odds = _log_gamma_variate(num_slices, seeds[1], self.alpha) - _log_gamma_variate(
            num_slices, seeds[2], self.alpha
        )
        return {"partner": partner, "weight": tf.sigmoid(log_odds)}

    def apply(self, batch: Batch, params: dict[str, tf.Tensor]) -> Batch:
        """Mixes images and labels alike, weight * own + (1 - weight) * partner's; labels come back soft."""
        weight = params["weight"][:, None, None, None]

        def mix(own):
            return weight * own + (1 - weight) * tf.gather(own, params["partner"])

        return Batch(mix(batch.image), mix(batch.label))


def _log_gamma_variate(num_draws, seed, alpha):
    """[num_draws] logarithms of Gamma(alpha, 1) draws; for a small alpha, the draws themselves would underflow.

    Gamma(alpha) is Gamma(alpha + 1) * U ** (1 / alpha) with U uniform (Marsaglia and Tsang, 2000).
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    boosted = tf.random.stateless_gamma([num_draws], seeds[0], alpha + 1)
    uniform = tf.random.stateless_uniform([num_draws], seeds[1])
    # 1 - U is uniform too, and never 0.
    return tf.math.log(boosted) + tf.math.log1p(-uniform) / alpha
