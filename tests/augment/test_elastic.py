import numpy as np
import pytest
import tensorflow as tf

from tfaug import streams
from tfaug.augment.elastic import Elastic
from tfaug.types import Batch

SIZE = 30


def displacements(grid):
    """The [SIZE, SIZE, 2] field that `Elastic` makes of a grid, read off two ramps it warped."""
    ramps = np.indices((SIZE, SIZE), np.float32)[..., None]
    label = np.zeros((2, SIZE, SIZE, 4), np.float32)
    params = {"grid": tf.constant([grid, grid], tf.float32)}
    warped = Elastic().apply(Batch(tf.constant(ramps), tf.constant(label)), params).image
    return np.moveaxis(ramps - warped.numpy(), 0, -1)[:, :, 0]


def test_a_constant_grid_translates():
    image = np.zeros((1, SIZE, SIZE, 1), np.float32)
    image[0, 12, 17] = 1
    label = np.eye(4, dtype=np.float32)[image[..., 0].astype(int)]
    params = {"grid": tf.broadcast_to(tf.constant([2.0, -3.0]), [1, 3, 3, 2])}
    moved = Elastic().apply(Batch(tf.constant(image), tf.constant(label)), params)
    np.testing.assert_allclose(moved.image, np.roll(image, (2, -3), (1, 2)), atol=1e-5)
    np.testing.assert_allclose(moved.label, np.roll(label, (2, -3), (1, 2)), atol=1e-5)


def test_the_grid_lies_over_the_image_rows_first():
    grid = np.zeros((3, 3, 2))
    grid[0, 2] = [0.5, 0.25]
    field = displacements(grid)
    np.testing.assert_allclose(field[SIZE // 6, 5 * SIZE // 6], [0.5, 0.25], atol=0.05)
    np.testing.assert_allclose(field[5 * SIZE // 6, SIZE // 6], [0, 0], atol=0.05)


def test_upscaling_is_bicubic():
    grid = np.zeros((3, 3, 2))
    grid[1, 1] = 1
    interior = displacements(grid)[2:-2, 2:-2]
    assert interior.max() == pytest.approx(1, abs=0.02)
    # The cubic kernel undershoots beside a peak; bilinear and nearest upscaling never do.
    assert interior.min() < -0.02


@pytest.mark.parametrize("size, stddev", [((224, 224), (10, 10)), ((112, 56), (5, 2.5))])
def test_displacements_are_normal_and_scale_with_the_image(size, stddev):
    batch = Batch(tf.zeros([2000, *size, 1]), None)
    grid = Elastic().sample(batch, streams.key(0, "elastic"))["grid"].numpy()
    assert grid.shape == (2000, 3, 3, 2)
    np.testing.assert_allclose(grid.std((0, 1, 2)), stddev, rtol=0.02)
    np.testing.assert_allclose(grid.mean((0, 1, 2)), 0, atol=0.2)
    # A normal variable exceeds two standard deviations in 4.55 % of all draws.
    assert np.mean(np.abs(grid / stddev) > 2) == pytest.approx(0.0455, abs=0.005)


def test_displacements_in_pixels_do_not_scale_with_the_image():
    batch = Batch(tf.zeros([2000, 112, 56, 1]), None)
    grid = Elastic(stddev_px=3.0).sample(batch, streams.key(0, "elastic"))["grid"].numpy()
    np.testing.assert_allclose(grid.std((0, 1, 2)), [3, 3], rtol=0.02)
