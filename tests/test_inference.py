import numpy as np
import tensorflow as tf

from tfaug import inference

BATCH = 4


class FakeSegmenter:
    """Its second logit is the value of the slice's second channel, so that a slice can be told by its probability."""

    input_shape = (None, 3, 3, 2)

    def __init__(self):
        self.traced = 0

    def __call__(self, image, training):
        assert training is False
        self.traced += 1
        tf.debugging.assert_less_equal(tf.shape(image)[0], BATCH)
        zero = tf.zeros_like(image[..., :1])
        return tf.concat([zero, image[..., 1:], zero, zero, zero], axis=-1)


def test_every_slice_gets_its_own_probabilities_in_order():
    segmenter = FakeSegmenter()
    predict = inference.predictor(segmenter, BATCH)
    for num_slices in (1, 4, 5, 11):
        values = np.linspace(-2, 2, num_slices).astype(np.float32)
        image = np.zeros((num_slices, 3, 3, 2), np.float32)
        image[..., 1] = values[:, None, None]
        probabilities = predict(image)
        assert probabilities.shape == (num_slices, 3, 3, 5)
        np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-6)
        np.testing.assert_allclose(probabilities[:, 1, 1, 1], np.exp(values) / (4 + np.exp(values)), rtol=1e-5)
    assert segmenter.traced == 1
