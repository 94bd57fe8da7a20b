"""The discriminator D_C, which tells generated images from scans (paper, section 3.3), and two of grey values only."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfaug import streams
from tfaug.compat import keras
from tfaug.models.blocks import conv, dense, leaky_relu

BINS = 32
NOISE = 0.01  # of a quantile: smaller spreads are not amplified
RANGE = (-0.2, 1.4)  # of the bins' centres; a normalised image is mostly between 0 and 1


def discriminator(
    image_size: int, channels: int = 1, filters: int = 16, seed: int = 0, discriminator_norm: bool = True
) -> keras.Model:
    """Builds D.

    The paper gives it two outputs; one logit is the same function, as a softmax over two.

    Args:
      image_size: side of the square image.
      channels: of its input; more than an image's for packs, or where label maps are judged as well.
      filters: channels after the first convolution.
      seed: seed of the initial weights.
      discriminator_norm: whether batch normalisation follows the convolutions (the paper's).

    Returns:
      A model from [N, H, W, channels] to [N, 1] float32 logits, positive for "a scan". All inputs of one call share
      its batch statistics: call it once on [generated; scans].
    """
    image = keras.Input((image_size, image_size, channels), name="image")
    x = image
    for index, width in enumerate((1, 2, 4, 8, 8), start=1):
        name, norm = f"disc_c{index}", discriminator_norm
        x = conv(x, width * filters, 5, name, seed, stride=2, activation=leaky_relu, norm=norm)
    x = keras.layers.Flatten(name="flatten")(x)
    x = dense(x, 8 * filters, "fcn_c1", seed, activation=leaky_relu)
    x = dense(x, 8 * filters, "fcn_c2", seed, activation=leaky_relu)
    x = dense(x, 1, "fcn_c3", seed)
    logit = keras.layers.Activation("linear", dtype="float32", name="logit")(x)
    return keras.Model(image, logit, name="discriminator")


def histogram_discriminator(image_size: int, channels: int = 1, filters: int = 16, seed: int = 0) -> keras.Model:
    """Builds a D for G_I that sees only how often each grey value occurs, which is what G_I can change.

    The paper's D recognises the few labelled patients by their anatomy: it tells generated images from scans whatever
    their grey values or, if the labelled scans are among the real ones, rewards no change at all.

    Args:
      image_size: side of the square image.
      channels: channels of its input.
      filters: a quarter of the units of each of the two hidden layers.
      seed: seed of the initial weights.

    Returns:
      As `discriminator`.
    """
    return _of_grey_values(SoftHistogram(dtype="float32", name="histogram"), image_size, channels, filters, seed)


def quantile_discriminator(image_size: int, channels: int = 1, filters: int = 16, seed: int = 0) -> keras.Model:
    """Like `histogram_discriminator`, but sees quantiles, which show by how much an image is too dark or too bright."""
    return _of_grey_values(Quantiles(dtype="float32", name="quantiles"), image_size, channels, filters, seed)


def _of_grey_values(seen, image_size, channels, filters, seed):
    def layer(x, units, name):
        initializer = keras.initializers.HeNormal(streams.scalar_seed(seed, "weights", name))
        return keras.layers.Dense(units, kernel_initializer=initializer, dtype="float32", name=name)(x)

    image = keras.Input((image_size, image_size, channels), name="image")
    x = keras.layers.Flatten(dtype="float32", name="flatten")(seen(image))
    for name in ("histogram_fc1", "histogram_fc2"):
        x = leaky_relu(layer(x, 4 * filters, name))
    return keras.Model(image, layer(x, 1, "histogram_fc3"), name=f"{seen.name}_discriminator")


class Quantiles(keras.layers.Layer):
    """The sorted grey values, as means of `BINS` parts of equally many pixels."""

    def call(self, image):
        """Maps [N, H, W, C] to [N, C, BINS]; H W is a multiple of `BINS`."""
        _, height, width, channels = image.shape
        values = tf.reshape(tf.transpose(tf.cast(image, tf.float32), [0, 3, 1, 2]), [-1, channels, height * width])
        parts = tf.reshape(tf.sort(values, axis=-1), [-1, channels, BINS, height * width // BINS])
        return tf.reduce_mean(parts, axis=-1)


class GreyValues(keras.layers.Layer):
    """Quantiles, in coordinates in which those of some scans are uncorrelated and equally spread.

    Most of the spread of the quantiles themselves is brightness, which a segmenter with batch normalisation hardly
    sees; how dark muscle is relative to blood and fat is in the rest.

    Args:
      scans: [S, H, W, C].

    Attributes:
      directions: number of coordinates, the last ones, in which scans differ by more than noise.
    """

    def __init__(self, scans, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self._quantiles = Quantiles(dtype="float32")
        values = np.concatenate([self._flat(scans[k : k + 1]) for k in range(len(scans))])
        variances, axes = np.linalg.eigh(np.cov(values.T, ddof=min(1, len(values) - 1)))
        self.directions = max(1, int((variances > NOISE**2).sum()))
        self._whitening = tf.constant(axes / np.sqrt(np.maximum(variances, 0) + NOISE**2), tf.float32)

    def call(self, image):
        """Maps [N, H, W, C] to [N, C * BINS]."""
        return tf.matmul(self._flat(image), self._whitening)

    def _flat(self, image):
        return tf.reshape(self._quantiles(image), [image.shape[0], -1])


class SoftHistogram(keras.layers.Layer):
    """A histogram of grey values, with bins that overlap by half, so that it has a gradient."""

    def call(self, image):
        """Maps [N, H, W, C] to [N, C, BINS], with a mean over the bins of 1."""
        width = (RANGE[1] - RANGE[0]) / (BINS - 1)
        position = (tf.clip_by_value(tf.cast(image, tf.float32), *RANGE) - RANGE[0]) / width
        weights = tf.nn.relu(1 - tf.abs(position[..., tf.newaxis] - tf.range(BINS, dtype=tf.float32)))
        return BINS * tf.reduce_mean(weights, axis=(1, 2))
