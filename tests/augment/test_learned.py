import numpy as np
import tensorflow as tf

from tfaug.augment.learned import Learned
from tfaug.types import Batch


def transformed(kind, field):
    rng = np.random.default_rng(0)
    batch = Batch(tf.constant(rng.random((1, 6, 8, 2), np.float32)), tf.one_hot(rng.integers(0, 3, (1, 6, 8)), 3))
    learned = Learned(kind, lambda image, z: tf.broadcast_to(tf.constant(field), [1, 6, 8, len(field)]))
    return batch, learned.apply(batch, learned.sample(batch, tf.constant([0, 1], tf.int64)))


def test_one_deformation_moves_all_channels_and_the_label():
    batch, made = transformed("deform", [1.0, -2.0])
    for before, after in zip(batch, made):
        np.testing.assert_allclose(after[:, 1:, :6], before[:, :5, 2:], atol=1e-6)


def test_an_intensity_field_has_a_channel_for_each_of_the_image():
    batch, made = transformed("intensity", [0.5, -0.25])
    np.testing.assert_allclose(made.image - batch.image, np.broadcast_to([0.5, -0.25], (1, 6, 8, 2)), atol=1e-6)
    np.testing.assert_array_equal(made.label, batch.label)
