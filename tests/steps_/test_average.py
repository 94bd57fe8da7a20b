import numpy as np
import pytest
import tensorflow as tf

from tfaug.compat import keras
from tfaug.steps import Averaged


def network():
    inputs = keras.Input((2,))
    return keras.Model(inputs, keras.layers.BatchNormalization()(keras.layers.Dense(3)(inputs)))


class Jump(tf.Module):
    """Sets every variable of a network to the number of updates done."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def __call__(self, batch, index):
        for variable in self.network.variables:
            variable.assign(tf.fill(variable.shape, float(index + 1)))
        return {"loss": tf.constant(float(batch))}


def start():
    own, average = network(), network()
    average.set_weights([np.zeros_like(weights) for weights in average.get_weights()])
    return own, average


@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_weights_and_moving_statistics_follow_by_hand(decay):
    own, average = start()
    step = Averaged(Jump(own), [own], [average], decay)
    expected = 0.0
    for index in range(30):
        assert float(step(7, index)["loss"]) == 7
        kept = min(decay, (1 + index) / (10 + index))
        expected = kept * expected + (1 - kept) * (index + 1)
    for variable in average.variables:  # kernel, bias, gamma, beta, and both moving statistics
        np.testing.assert_allclose(variable, expected, rtol=1e-5)
    assert len(average.variables) == 6
    for variable in own.variables:
        np.testing.assert_array_equal(variable, 30)


def test_counts_are_copied_and_other_precisions_averaged():
    class Counts(keras.layers.Layer):
        def build(self, shape):
            self.count = self.add_weight("count", (), dtype=tf.int64, initializer="zeros", trainable=False)
            self.total = self.add_weight("total", (), dtype=tf.float64, initializer="zeros", trainable=False)
            self.full = self.add_weight("full", (), dtype=tf.bool, initializer="zeros", trainable=False)

        def call(self, x):
            return x

    def counting():
        inputs = keras.Input((2,))
        return keras.Model(inputs, Counts()(inputs))

    own, average = counting(), counting()
    step = Averaged(lambda batch, index: {}, [own], [average], 0.5)
    own.set_weights([9, 3.0, True])
    for index in range(2):  # decays 0.1 and 2/11
        step(None, index)
    assert average.get_weights() == [9, pytest.approx(3 * (1 - 0.1 * 2 / 11)), True]


def test_a_checkpoint_holds_the_averages():
    own, average = start()
    step = Averaged(Jump(own), [own], [average], 0.9)
    saved = {id(variable) for variable in step.variables}
    assert saved >= {id(variable) for variable in (*own.variables, *average.variables)}
