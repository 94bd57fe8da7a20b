import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfaug import streams
from tfaug.augment.affine import Affine, Scale
from tfaug.types import Batch


def transformed(image, label=None, angle=0.0, scale=1.0, flip=False):
    """`Affine.apply` with one fixed draw for all of [N, H, W] images and [N, H, W] integer labels."""
    if label is None:
        label = np.zeros(image.shape, int)
    params = {
        "angle": tf.fill([len(image)], angle),
        "scale": tf.fill([len(image)], scale),
        "flip": tf.fill([len(image)], flip),
    }
    batch = Affine().apply(Batch(tf.constant(image[..., None]), tf.one_hot(label, 4)), params)
    return batch.image.numpy()[..., 0], batch.label.numpy()


def bright_pixel(row, column, size):
    image = np.zeros((1, *size), np.float32)
    image[0, row, column] = 1
    return image


def draws(affine, num_batches=20, num_slices=1000):
    batch = Batch(tf.zeros([num_slices, 2, 2, 1]), tf.zeros([num_slices, 2, 2, 4]))
    samples = [affine.sample(batch, streams.key(i, "affine")) for i in range(num_batches)]
    return {name: np.concatenate([sample[name] for sample in samples]) for name in samples[0]}


@pytest.mark.parametrize("size", [(9, 12), (224, 224)])
def test_identity_and_flip_are_exact(size):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *size, 1)).astype(np.float32)
    label = rng.dirichlet(np.ones(4), (2, *size)).astype(np.float32)
    params = {"angle": tf.zeros(2), "scale": tf.ones(2), "flip": tf.constant([False, True])}
    out = Affine().apply(Batch(tf.constant(image), tf.constant(label)), params)
    np.testing.assert_array_equal(out.image, [image[0], image[1, :, ::-1]])
    np.testing.assert_array_equal(out.label, [label[0], label[1, :, ::-1]])


@pytest.mark.parametrize(
    "size, angle, before, after",
    [
        ((11, 11), 90.0, (5, 8), (2, 5)),
        ((11, 11), -90.0, (5, 8), (8, 5)),
        ((10, 10), 90.0, (4, 7), (2, 4)),
        ((10, 14), 180.0, (1, 2), (8, 11)),
        ((41, 41), 45.0, (20, 34), (10, 30)),  # 14 pixels from the centre: 9.9 rows up, 9.9 columns right
        ((41, 41), 15.0, (20, 39), (15, 38)),  # 19 pixels: 4.9 rows up, 18.35 columns right
    ],
)
def test_rotation_is_counter_clockwise_about_the_centre(size, angle, before, after):
    image, _ = transformed(bright_pixel(*before, size), angle=angle)
    assert np.unravel_index(image[0].argmax(), size) == after


def test_scale_above_one_enlarges_about_the_centre():
    image, _ = transformed(bright_pixel(4, 6, (9, 9)), scale=2.0)
    expected = np.zeros((9, 9))
    expected[3:6, 7:] = [[0.25, 0.5], [0.5, 1], [0.25, 0.5]]
    np.testing.assert_allclose(image[0], expected, atol=1e-5)


def test_what_comes_from_outside_is_zero_and_background():
    ones = np.ones((1, 40, 40), np.float32)
    image, label = transformed(ones, np.full(ones.shape, 2), angle=45.0)
    for row, column in [(0, 0), (0, 39), (39, 0), (39, 39)]:
        assert image[0, row, column] == 0
        np.testing.assert_array_equal(label[0, row, column], [1, 0, 0, 0])
    np.testing.assert_array_equal(label[0, 20, 20], [0, 0, 1, 0])


def test_images_are_bilinear_and_labels_nearest():
    label = np.random.default_rng(0).integers(0, 4, (1, 30, 30))
    image, moved = transformed((label == 3).astype(np.float32), label, angle=10.0)
    np.testing.assert_array_equal(np.sort(moved, axis=-1), np.broadcast_to([0, 0, 0, 1], moved.shape))
    assert np.mean((image > 0.1) & (image < 0.9)) > 0.2


def test_slices_do_not_share_their_transformation():
    image = np.concatenate([bright_pixel(5, 8, (11, 11))] * 3)
    params = {
        "angle": tf.constant([0.0, 90.0, 0.0]),
        "scale": tf.ones(3),
        "flip": tf.constant([False, False, True]),
    }
    out = Affine().apply(Batch(tf.constant(image[..., None]), tf.one_hot(image > 0, 4)), params)
    positions = [np.unravel_index(np.argmax(slice_), (11, 11)) for slice_ in out.image]
    assert positions == [(5, 8), (2, 5), (5, 2)]


def test_the_five_choices_are_equally_likely():
    angle, scale, flip = draws(Affine()).values()
    eighths = (angle % 45 == 0) & (angle != 0)
    counts = {
        "rotation": (np.sum(angle % 45 != 0), 1 / 5),
        "scale": (np.sum(scale != 1), 1 / 5),
        "flip": (np.sum(flip), 1 / 5),
        "nothing, or none of eight turns": (np.sum((angle == 0) & (scale == 1) & ~flip), 1 / 5 + 1 / 40),
        **{f"{45 * n} deg": (np.sum(eighths & (angle == 45 * n)), 1 / 40) for n in range(1, 8)},
    }
    assert sum(count for count, _ in counts.values()) == len(angle)
    for name, (count, probability) in counts.items():
        assert stats.binomtest(int(count), len(angle), probability).pvalue > 1e-3, name


def test_rotations_and_scales_are_uniform_over_their_ranges():
    angle, scale, _ = draws(Affine()).values()
    assert stats.kstest(angle[angle % 45 != 0], stats.uniform(-15, 30).cdf).pvalue > 1e-3
    assert stats.kstest(scale[scale != 1], stats.uniform(0.9, 0.2).cdf).pvalue > 1e-3


def test_the_released_program_rounds_scales_and_tosses_a_coin_for_the_flip():
    _, scale, flip = draws(Affine(scale_decimals=2, extra_flip_coin=True)).values()
    np.testing.assert_allclose(100 * scale, np.round(100 * scale), atol=1e-4)
    assert len(np.unique(scale)) == 21
    assert stats.binomtest(int(flip.sum()), len(flip), 1 / 10).pvalue > 1e-3


def test_scale_draws_from_its_range():
    scale = draws(Scale((0.4, 2.0)))["scale"]
    assert stats.kstest(scale, stats.uniform(0.4, 1.6).cdf).pvalue > 0.001


@pytest.mark.parametrize("scale, after", [(0.5, (20, 22)), (1.0, (20, 24)), (1.5, (20, 26))])
def test_scale_enlarges_image_and_label_about_the_centre_and_does_nothing_else(scale, after):
    image, label = np.zeros((1, 41, 41, 1), np.float32), np.zeros((1, 41, 41), int)
    image[0, 19:22, 23:26], label[0, 19:22, 23:26] = 1, 2  # 4 pixels right of the centre
    out = Scale().apply(Batch(tf.constant(image), tf.one_hot(label, 4)), {"scale": tf.constant([scale])})
    rows, columns = np.nonzero(out.label.numpy()[0].argmax(-1) == 2)
    assert (rows.mean(), columns.mean()) == after
    rows, columns = np.nonzero(out.image.numpy()[0, ..., 0] > 0.9)
    assert (rows.mean(), columns.mean()) == after
