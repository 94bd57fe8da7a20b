import numpy as np
import pytest
import tensorflow as tf

from tfaug.compat import keras
from tfaug.models.blocks import Upsample, conv
from tfaug.models.generator import KINDS, generator
from tfaug.models.unet import unet


@pytest.mark.parametrize("centred", [True, False])
def test_centred_upsampling_alone_treats_left_and_right_alike(centred):
    x = np.random.RandomState(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    up = Upsample(centred)
    mirrored = up(tf.constant(x[:, :, ::-1]))[:, :, ::-1]
    assert up(tf.constant(x)).shape == (2, 8, 12, 3)
    assert np.allclose(up(tf.constant(x)), mirrored, atol=1e-6) == centred


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gradients_of_sixteen_bits_are_as_good_as_their_rounding(dtype):
    draw = np.random.default_rng(0).normal
    shapes = ((8, 48, 48, 16), (3, 3, 16, 4), (4,), (8, 48, 48, 4))
    values = [tf.cast(draw(size=shape), dtype) for shape in shapes]
    exact, rounded = (_layer_and_gradients(policy, *values) for policy in ("float64", f"mixed_{dtype}"))
    for right, found in zip(exact, rounded):
        assert np.linalg.norm(found - right) < 0.004 * np.linalg.norm(right)


def _layer_and_gradients(policy, image, kernel, bias, upstream):
    """What a convolution makes of an image, and the gradients at the image, its weights and its biases."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(policy)
    try:
        of_image = keras.Input(image.shape[1:])
        of_policy = keras.layers.Activation("linear")(conv(of_image, 4, 3, "conv", 0, activation=None, norm=False))
        model = keras.Model(of_image, of_policy)
    finally:
        keras.mixed_precision.set_global_policy(before)
    model.set_weights([tf.cast(value, tf.float64).numpy() for value in (kernel, bias)])
    image = tf.cast(image, model.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(image)
        convolved = model(image)
        loss = tf.reduce_sum(tf.cast(convolved, tf.float64) * tf.cast(upstream, tf.float64))
    found = (convolved, *tape.gradient(loss, [image, *model.trainable_weights]))
    return [tf.cast(value, tf.float64).numpy() for value in found]


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


@pytest.mark.parametrize("form", ["curve", "increasing", "quantiles"])
def test_curves_of_grey_values_have_no_scale_of_the_head_and_start_near_no_change(form):
    usual, small = (generator("intensity", 32, filters=4, seed=1, head_scale=s, intensity=form) for s in (1.0, 0.1))
    assert all(np.array_equal(a, b) for a, b in zip(usual.get_weights(), small.get_weights()))
    image = tf.random.stateless_uniform((2, 32, 32, 1), [1, 2])
    assert np.abs(usual([image, tf.random.stateless_normal((2, 100), [1, 2])], training=True)).max() < 0.1
