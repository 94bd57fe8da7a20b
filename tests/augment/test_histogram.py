import numpy as np
import pytest
import tensorflow as tf

from tfaug import streams
from tfaug.augment import histogram
from tfaug.types import Batch


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def match(image, references, index):
    label = tf.zeros([*image.shape[:3], 2])
    batch = Batch(tf.constant(image), label)
    made = histogram.MatchHistogram(references).apply(batch, {"index": tf.constant(index)})
    assert made.label is label
    return made.image.numpy()


def test_a_matched_slice_has_the_quantiles_of_the_other_and_keeps_its_order():
    image = noise(3, 32, 32, 2) ** 2
    others = [2 + 3 * noise(4, 32, 32, 2, seed=1), -(noise(2, 16, 16, 2, seed=2) ** 3)]
    references = histogram.quantiles(others)
    assert references.shape == (6, histogram.NUM_QUANTILES, 2)
    made = match(image, references, [0, 5, 2])
    levels = np.linspace(0, 1, 21)
    for n, other in enumerate([others[0][0], others[1][1], others[0][2]]):
        for c in range(2):
            ours, theirs = (np.quantile(x[..., c], levels) for x in (made[n], other))
            np.testing.assert_allclose(ours, theirs, atol=0.02 * np.ptp(other))
            order = np.argsort(image[n, ..., c], axis=None)
            assert (np.diff(made[n, ..., c].ravel()[order]) >= -1e-6).all()


def test_a_slice_matched_to_itself_stays_as_it_is():
    image = noise(2, 32, 32, 1)
    np.testing.assert_allclose(match(image, histogram.quantiles([image]), [0, 1]), image, atol=1e-5)


def test_equal_grey_values_stay_equal_and_a_flat_slice_is_no_fault():
    image = noise(1, 32, 32, 1)
    image[:, :12] = 0  # outside of the scan
    made = match(image, histogram.quantiles([1 + noise(1, 32, 32, 1, seed=3)]), [0])
    assert np.isfinite(made).all()
    assert len(np.unique(made[:, :12])) == 1
    assert np.isfinite(match(np.zeros((1, 32, 32, 1), np.float32), histogram.quantiles([image]), [0])).all()


def test_every_unlabelled_slice_is_drawn():
    transform = histogram.MatchHistogram(noise(7, histogram.NUM_QUANTILES, 1))
    index = transform.sample(Batch(tf.zeros([500, 4, 4, 1]), None), streams.key(0, "histogram"))["index"]
    np.testing.assert_array_less(30, np.bincount(index, minlength=7))
    assert np.bincount(index).size == 7


def test_interpolation_is_numpys():
    xp, fp = np.sort(noise(3, 9, seed=4)), noise(3, 9, seed=5)
    x = 3 * noise(3, 50, seed=6) - 1
    expected = [np.interp(*row) for row in zip(x, xp, fp)]
    np.testing.assert_allclose(histogram.interpolate(*map(tf.constant, (x, xp, fp))), expected, atol=1e-5)


@pytest.mark.parametrize("size", [4, 5, 64])
def test_quantiles_inside_and_outside_tensorflow_agree(size):
    image = noise(1, size, size, 1)
    ours = histogram._quantiles(tf.reshape(image, [1, -1]), histogram.NUM_QUANTILES)
    np.testing.assert_allclose(ours, histogram.quantiles([image])[:, :, 0], atol=1e-6)
