import numpy as np
import pytest
import tensorflow as tf

from tfaug.models.blocks import Upsample
from tfaug.models.unet import unet


@pytest.mark.parametrize("centred", [True, False])
def test_centred_upsampling_alone_treats_left_and_right_alike(centred):
    x = np.random.RandomState(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    up = Upsample(centred)
    mirrored = up(tf.constant(x[:, :, ::-1]))[:, :, ::-1]
    assert up(tf.constant(x)).shape == (2, 8, 12, 3)
    assert np.allclose(up(tf.constant(x)), mirrored, atol=1e-6) == centred


def test_weights_are_a_pure_function_of_the_seed():
    one, same, other = (unet(32, filters=2, seed=seed).get_weights() for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(one, same))
    assert not np.array_equal(one[0], other[0])


def test_convolutions_start_as_normal_of_the_right_spread():
    kernel = unet(32, seed=0).get_layer("enc_c5_b").kernel.numpy()
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 256)), rtol=0.01)
    assert np.abs(kernel).max() > 3 * kernel.std()  # untruncated
