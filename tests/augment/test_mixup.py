import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfaug import streams
from tfaug.augment.mixup import MixUp
from tfaug.types import Batch


def draws(alpha, num_slices):
    batch = Batch(tf.zeros([num_slices, 2, 2, 1]), tf.zeros([num_slices, 2, 2, 4]))
    params = MixUp(alpha).sample(batch, streams.key(0, "mixup"))
    return params["partner"].numpy(), params["weight"].numpy()


def test_mixes_images_and_labels_with_the_same_weight_and_partner():
    image = np.float32([0, 4, 8]).reshape(3, 1, 1, 1) * np.ones((1, 2, 2, 1), np.float32)
    label = np.eye(4, dtype=np.float32)[np.arange(3)].reshape(3, 1, 1, 4) * np.ones((1, 2, 2, 1), np.float32)
    params = {"partner": tf.constant([2, 1, 0]), "weight": tf.constant([0.75, 0.5, 0.0])}
    out = MixUp().apply(Batch(tf.constant(image), tf.constant(label)), params)
    np.testing.assert_array_equal(out.image[:, 0, 1, 0], [2, 4, 0])
    np.testing.assert_array_equal(out.label[:, 1, 0], [[0.75, 0, 0.25, 0], [0, 1, 0, 0], [1, 0, 0, 0]])


@pytest.mark.parametrize("alpha", [0.01, 0.1, 1.0, 5.0])
def test_weights_follow_the_beta_distribution_even_where_gammas_underflow(alpha):
    _, weight = draws(alpha, 100_000)
    assert np.all((weight >= 0) & (weight <= 1))  # false for NaN
    assert weight.mean() == pytest.approx(0.5, abs=0.01)
    assert weight.var() == pytest.approx(stats.beta(alpha, alpha).var(), rel=0.02)
    for quantile in (1e-6, 0.01, 0.2, 0.5, 0.8, 0.99):
        expected = stats.beta(alpha, alpha).cdf(quantile)
        assert np.mean(weight < quantile) == pytest.approx(expected, abs=0.007), quantile


def test_partners_are_drawn_evenly_from_the_whole_batch():
    partner, weight = draws(0.1, 20000)
    assert partner.min() >= 0 and partner.max() < 20000
    assert stats.kstest(partner, stats.uniform(0, 20000).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(partner, np.arange(20000))[0, 1]) < 0.03
    assert abs(np.corrcoef(partner, weight)[0, 1]) < 0.03
