import numpy as np
import pytest
import tensorflow as tf

from tfaug import inference

BATCH = 4


@pytest.mark.parametrize("num_slices", [1, 4, 5, 11])
def test_every_slice_gets_its_own_probabilities_in_order(num_slices):
    """The fake segmenter's second logit is the slice's value, so that a slice can be told by its probability."""

    def segmenter(image, training):
        assert image.shape[0] == BATCH and training is False
        return tf.concat([tf.zeros_like(image), image, tf.zeros_like(image), tf.zeros_like(image)], axis=-1)

    values = np.linspace(-2, 2, num_slices).astype(np.float32)
    image = np.broadcast_to(values[:, None, None], (num_slices, 3, 3)).copy()
    probabilities = inference.predictor(segmenter, BATCH)(image)
    assert probabilities.shape == (num_slices, 3, 3, 4)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(probabilities[:, 1, 1, 1], np.exp(values) / (3 + np.exp(values)), rtol=1e-5)
