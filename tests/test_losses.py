import numpy as np
import pytest
import tensorflow as tf

from tfaug import losses

LOGITS = np.array([[-2.0], [0.5], [2.0]], np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_adversarial_forms_are_equation_5_and_the_released_program():
    saturating = losses.adversarial_loss(tf.constant(LOGITS), "saturating")
    np.testing.assert_allclose(saturating, np.log(1 - sigmoid(LOGITS)).mean(), rtol=1e-5)
    non_saturating = losses.adversarial_loss(tf.constant(LOGITS), "non_saturating")
    np.testing.assert_allclose(non_saturating, -np.log(sigmoid(LOGITS)).mean(), rtol=1e-5)
    with pytest.raises(ValueError, match="wgan"):
        losses.adversarial_loss(tf.constant(LOGITS), "wgan")


def test_discriminator_loss_is_equation_6():
    expected = -np.log(sigmoid(LOGITS + 1)).mean() - np.log(1 - sigmoid(LOGITS)).mean()
    loss = losses.discriminator_loss(tf.constant(LOGITS), tf.constant(LOGITS + 1))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_big_loss_rewards_size():
    assert float(losses.big_loss(tf.constant([[1.0, -3.0]]))) == -2


def test_segmentation_loss_weighs_pixels_by_their_class_and_soft_pixels_by_the_mean():
    logits = tf.zeros([1, 1, 3, 4])
    label = tf.constant([[[[1.0, 0, 0, 0], [0, 0, 1, 0], [0.5, 0.5, 0, 0]]]])
    loss = losses.segmentation_loss(logits, label, (0.1, 0.3, 0.3, 0.3))
    np.testing.assert_allclose(loss, np.log(4) * (0.1 + 0.3 + 0.2) / 3, rtol=1e-6)
