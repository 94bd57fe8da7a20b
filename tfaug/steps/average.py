"""Exponential moving averages of networks' weights (Polyak and Juditsky, SIAM J. Control Optim. 1992)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfaug.compat import keras


class Averaged(tf.Module):
    """An update rule that also averages the weights, and the moving statistics, of some of its networks.

    After update number n (0-based), an average moves towards its network by 1 - min(decay, (1 + n) / (10 + n)) of their
    distance, so that it soon forgets the initial weights (as `tf.train.ExponentialMovingAverage` does). Variables that
    are not floating-point numbers, such as a layer's count of batches, are copied.

    Args:
      step: the update rule.
      networks: networks of `step` whose weights are averaged.
      averages: networks of the same architectures, one each, with the same initial weights.
      decay: decay of the averages, from 0 to below 1.
    """

    def __init__(self, step: tf.Module, networks: Sequence[keras.Model], averages: Sequence[keras.Model], decay: float):
        super().__init__()
        self.step, self.networks, self.averages, self.decay = step, list(networks), list(averages), decay

    def __call__(self, batch, index: int) -> dict[str, tf.Tensor]:
        """Updates the networks on a batch, then the averages; returns what the update rule returns."""
        scalars = self.step(batch, index)
        self._average(tf.constant(min(self.decay, (1 + index) / (10 + index)), tf.float32))
        return scalars

    @tf.function(autograph=False)
    def _average(self, decay):
        for network, own in zip(self.networks, self.averages):
            for weight, average in zip(network.variables, own.variables):
                if weight.dtype.is_floating:
                    average.assign_sub(tf.cast(1 - decay, weight.dtype) * (average - weight))
                else:
                    average.assign(weight)
