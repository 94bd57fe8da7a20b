import numpy as np
import pytest
import tensorflow as tf

from tfaug.models.blocks import Upsample
from tfaug.models.generator import KINDS, generator
from tfaug.models.unet import unet


@pytest.mark.parametrize("centred", [True, False])
def test_centred_upsampling_alone_treats_left_and_right_alike(centred):
    x = np.random.RandomState(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    up = Upsample(centred)
    mirrored = up(tf.constant(x[:, :, ::-1]))[:, :, ::-1]
    assert up(tf.constant(x)).shape == (2, 8, 12, 3)
    assert np.allclose(up(tf.constant(x)), mirrored, atol=1e-6) == centred


def test_weights_are_a_pure_function_of_the_seed():
    one, same, other = (unet(32, 4, filters=2, seed=seed).get_weights() for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(one, same))
    assert not np.array_equal(one[0], other[0])


def test_convolutions_start_as_normal_of_the_right_spread():
    kernel = unet(32, 4, seed=0).get_layer("enc_c5_b").kernel.numpy()
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 256)), rtol=0.01)
    assert np.abs(kernel).max() > 3 * kernel.std()  # untruncated


@pytest.mark.parametrize("kind", KINDS)
def test_initial_fields_follow_the_scale_of_the_head(kind):
    usual, small = (generator(kind, 32, filters=4, seed=1, head_scale=scale) for scale in (1.0, 0.1))
    inputs = [tf.random.stateless_normal(shape, [1, 2]) for shape in ((2, 32, 32, 1), (2, 100))]
    fields = [model(inputs, training=True).numpy() for model in (usual, small)]
    if kind == "intensity":
        fields = [np.arctanh(np.float64(field)) for field in fields]
    np.testing.assert_allclose(0.1 * fields[0], fields[1], rtol=1e-3, atol=1e-5)
