"""Running trained networks: a segmenter on a volume's slices, a generator on a batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfaug.compat import keras


def predictor(segmenter: keras.Model, batch_size: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function from slices [Z, H, W, C] float32 to class probabilities [Z, H, W, num_classes] float32.

    It runs at most `batch_size` slices at a time, and is traced once for any number of slices.
    """

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, *segmenter.input_shape[1:]], tf.float32)])
    def probabilities(image):
        return tf.nn.softmax(segmenter(image, training=False))

    def predict(image: np.ndarray) -> np.ndarray:
        parts = np.array_split(image, -(-len(image) // batch_size))
        return np.concatenate([probabilities(tf.constant(part)).numpy() for part in parts])

    return predict


def inference_mode(generator: keras.Model) -> Callable:
    """A function from (image [N, H, W, C], z [N, 100]) to the fields of a trained generator, which stays unchanged."""

    def generate(image, z):
        return generator([image, z], training=False)

    return generate
