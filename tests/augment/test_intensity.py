import numpy as np
import tensorflow as tf
from scipy import stats

from tfaug import streams
from tfaug.augment.intensity import ContrastBrightness
from tfaug.types import Batch


def draws(transform, num_slices):
    batch = Batch(tf.zeros([num_slices, 2, 2, 1]), tf.zeros([num_slices, 2, 2, 4]))
    params = transform.sample(batch, streams.key(0, "intensity"))
    return params["contrast"].numpy(), params["brightness"].numpy()


def test_contrast_is_about_the_mean_of_each_slice_then_brightness():
    image = np.float32([[[0, 1], [2, 5]], [[10, 10], [12, 16]]])[..., None]
    label = np.eye(4, dtype=np.float32)[np.random.default_rng(0).integers(0, 4, (2, 2, 2))]
    params = {"contrast": tf.constant([1.5, 0.5]), "brightness": tf.constant([0.1, -0.25])}
    out = ContrastBrightness().apply(Batch(tf.constant(image), tf.constant(label)), params)
    expected = [[[-0.9, 0.6], [2.1, 6.6]], [[10.75, 10.75], [11.75, 13.75]]]
    np.testing.assert_allclose(out.image[..., 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(out.label, label)


def test_draws_are_uniform_and_independent():
    contrast, brightness = draws(ContrastBrightness(), 20000)
    assert stats.kstest(contrast, stats.uniform(0.8, 0.4).cdf).pvalue > 1e-3
    assert stats.kstest(brightness, stats.uniform(-0.1, 0.2).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(contrast, brightness)[0, 1]) < 0.03


def test_the_released_program_changes_contrast_or_brightness():
    contrast, brightness = draws(ContrastBrightness(split=True), 7)
    np.testing.assert_array_equal(contrast == 1, [False] * 3 + [True] * 4)
    np.testing.assert_array_equal(brightness == 0, [True] * 3 + [False] * 4)
