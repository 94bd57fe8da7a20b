"""Running trained networks: a segmenter on a volume's slices, a generator on a batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf


def predictor(segmenter: tf.keras.Model, batch_size: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function from slices [Z, H, W] float32 to class probabilities [Z, H, W, 4] float32.

    It always runs batches of the same shape, so that TensorFlow traces it once; the last one is padded.
    """

    @tf.function
    def probabilities(image):
        return tf.nn.softmax(segmenter(image, training=False))

    def predict(image: np.ndarray) -> np.ndarray:
        num_slices = len(image)
        padding = -num_slices % batch_size
        padded = np.pad(image, [(0, padding), (0, 0), (0, 0)])[..., np.newaxis]
        batches = np.split(padded, len(padded) // batch_size)
        return np.concatenate([probabilities(tf.constant(batch)).numpy() for batch in batches])[:num_slices]

    return predict


def frozen(generator: tf.keras.Model) -> Callable:
    """A function from (image [N, H, W, 1], z [N, 100]) to the fields of a trained, fixed generator."""

    def generate(image, z):
        return generator([image, z], training=False)

    return generate
