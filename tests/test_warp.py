import numpy as np
import pytest
import tensorflow as tf

from tfaug import compat
from tfaug.warp import warp


@pytest.fixture(params=["installed", "own"], autouse=True)
def implementation(request, monkeypatch):
    """What `warp` stands on, and our own, which later releases of TensorFlow have in its place."""
    if request.param == "own":
        monkeypatch.setattr("tfaug.warp.dense_image_warp", compat.bilinear_warp)


def bright_pixel(row, column, size=(8, 9)):
    image = np.zeros((1, *size, 1), np.float32)
    image[0, row, column] = 1
    return image


def constant_field(row, column, size=(8, 9)):
    return np.broadcast_to(np.float32([row, column]), (1, *size, 2))


def test_whole_pixels_move_content_towards_larger_indices():
    moved = warp(bright_pixel(3, 4), constant_field(2, -1)).numpy()
    np.testing.assert_array_equal(moved, bright_pixel(5, 3))


def test_fractions_of_a_pixel_are_shared_bilinearly():
    moved = warp(bright_pixel(3, 4), constant_field(0.25, 0.5)).numpy()[0, :, :, 0]
    expected = np.zeros((8, 9))
    expected[3:5, 4:6] = [[0.375, 0.375], [0.125, 0.125]]
    np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_the_field_is_read_at_the_output_pixel():
    deformation = np.zeros((1, 8, 9, 2), np.float32)
    deformation[0, 6, 4] = [3, 0]
    moved = warp(bright_pixel(3, 4), deformation).numpy()
    np.testing.assert_array_equal(moved, bright_pixel(3, 4) + bright_pixel(6, 4))


def test_the_edge_repeats_beyond_the_border():
    image = np.random.default_rng(0).random((1, 8, 9, 1), np.float32)
    moved = warp(image, constant_field(3, 0)).numpy()
    np.testing.assert_array_equal(moved[:, :3], np.repeat(image[:, :1], 3, axis=1))


@pytest.mark.parametrize("component", [0, 1])
def test_n1_where_a_deformation_is_nan_the_image_is(component):
    image = np.random.default_rng(0).random((1, 8, 9, 1), np.float32)
    deformation = np.array(constant_field(0.5, 0.5))
    expected = warp(image, deformation).numpy()
    deformation[0, 3, 4, component] = expected[0, 3, 4, 0] = np.nan
    np.testing.assert_array_equal(warp(image, deformation), expected)


@pytest.mark.parametrize("size", [1e6, -1e6, 1e30, -1e30])
def test_n2_a_huge_deformation_gives_finite_images_and_gradients(size):
    image = np.random.default_rng(0).random((1, 8, 9, 1), np.float32)
    deformation = tf.constant(constant_field(size, size))
    with tf.GradientTape() as tape:
        tape.watch(deformation)
        moved = warp(image, deformation)
    corner = image[0, 0, 0, 0] if size > 0 else image[0, -1, -1, 0]
    np.testing.assert_array_equal(moved, np.full_like(image, corner))
    np.testing.assert_array_equal(tape.gradient(moved, deformation), np.zeros((1, 8, 9, 2)))


def test_the_gradient_reaches_the_deformation_with_the_right_sign():
    ramp = np.broadcast_to(np.arange(9, dtype=np.float32)[None, None, :, None], (1, 8, 9, 1))
    deformation = tf.constant(constant_field(0, 0.5))
    with tf.GradientTape() as tape:
        tape.watch(deformation)
        moved = warp(ramp, deformation)
    gradient = tape.gradient(moved, deformation).numpy()
    np.testing.assert_array_equal(gradient[0, :, 1:], np.broadcast_to([0.0, -1.0], (8, 8, 2)))


def test_half_precision_inputs_are_warped_in_float32():
    image = bright_pixel(2, 201, size=(4, 224))
    moved = warp(tf.cast(image, tf.bfloat16), tf.cast(constant_field(0, 1, (4, 224)), tf.bfloat16))
    assert moved.dtype == tf.float32
    np.testing.assert_array_equal(moved, bright_pixel(2, 202, size=(4, 224)))


def test_a_one_hot_label_stays_a_distribution():
    rng = np.random.default_rng(0)
    label = np.eye(4, dtype=np.float32)[rng.integers(0, 4, (2, 8, 9))]
    moved = warp(label, rng.normal(scale=5, size=(2, 8, 9, 2)).astype(np.float32)).numpy()
    np.testing.assert_allclose(moved.sum(-1), 1, atol=1e-6)
    assert ((moved > 0.1) & (moved < 0.9)).any()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("scale", [0.0, 0.3, 5, 1e6])
def test_the_own_implementation_is_that_of_tensorflow_addons(scale, whole):
    """To the last bit, and where a point falls on a pixel too, where gradients are a matter of convention."""
    addons = pytest.importorskip("tensorflow_addons").image.dense_image_warp
    rng = np.random.default_rng(0)
    image, towards = (tf.constant(rng.normal(size=(3, 8, 9, 2)), tf.float32) for _ in range(2))
    flow = rng.normal(scale=scale, size=(3, 8, 9, 2))
    flow = tf.constant(np.round(flow) if whole else flow, tf.float32)
    results = []
    for implementation in (addons, compat.bilinear_warp, tf.function(compat.bilinear_warp)):
        with tf.GradientTape() as tape:
            tape.watch((image, flow))
            warped = implementation(image, flow)
        results.append((warped, *tape.gradient(warped, (image, flow), output_gradients=towards)))
    for own in results[1:]:
        for value, expected in zip(own, results[0]):
            np.testing.assert_array_equal(value, expected)


def test_the_own_implementation_takes_unknown_sizes_and_keeps_known_ones():
    own = tf.function(
        compat.bilinear_warp,
        input_signature=[tf.TensorSpec([None, None, 9, 1]), tf.TensorSpec([None, None, 9, 2])],
    )
    assert own.get_concrete_function().structured_outputs.shape.as_list() == [None, None, 9, 1]
    np.testing.assert_array_equal(own(bright_pixel(3, 4), constant_field(2, -1)), bright_pixel(5, 3))
