"""Shared by the three networks: the convolution block, bilinear upsampling, initial weights, frozen statistics."""

from __future__ import annotations

import contextlib

import tensorflow as tf

from tfaug import streams
from tfaug.compat import keras
from tfaug.engine import devices

layers = keras.layers


def conv(
    x,
    filters: int,
    kernel: int,
    name: str,
    seed: int,
    stride: int = 1,
    activation="relu",
    norm: bool = True,
    bias: bool = True,
    norm_momentum: float = 0.99,
    scale: float = 1.0,
    dtype: str | None = None,
):
    """A 'same'-padded convolution, batch normalisation and an activation.

    A bias directly before batch normalisation cannot change the output, so there is one only without `norm`. With
    mixed precision, the convolution is in float32 on machines that could only sum it in 16 bits.

    Args:
      x: [N, H, W, C] Keras tensor.
      filters: number of output channels.
      kernel: side of the square kernel.
      name: the layer's name; `<name>_bn` is its norm's.
      seed: the initial weights are a pure function of (seed, name): normal, std `scale` sqrt(2 / (kernel^2 C)).
      stride: stride of the convolution.
      activation: a Keras activation, or None.
      norm: whether batch normalisation (epsilon 1e-3) follows.
      bias: whether there is a bias, if no norm follows.
      norm_momentum: momentum of the norm's moving statistics.
      scale: scale of the initial weights.
      dtype: type of the convolution; None: that of the precision policy.

    Returns:
      [N, ceil(H / stride), ceil(W / stride), filters] Keras tensor.
    """
    policy = keras.mixed_precision.global_policy()
    x = layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="same",
        use_bias=bias and not norm,
        kernel_initializer=keras.initializers.VarianceScaling(
            2.0 * scale**2, "fan_in", "untruncated_normal", seed=streams.scalar_seed(seed, "weights", name)
        ),
        dtype=dtype or (policy if devices.adds_in_float32(policy.compute_dtype) else "float32"),
        name=name,
    )(x)
    if norm:
        x = layers.BatchNormalization(momentum=norm_momentum, name=f"{name}_bn")(x)
    return layers.Activation(activation, name=f"{name}_activation")(x) if activation else x


def dense(x, units: int, name: str, seed: int, activation=None):
    """A fully connected layer whose weights start as a truncated normal with std 0.01, its biases at 0."""
    initializer = keras.initializers.TruncatedNormal(stddev=0.01, seed=streams.scalar_seed(seed, "weights", name))
    return layers.Dense(units, activation=activation, kernel_initializer=initializer, name=name)(x)


def leaky_relu(x):
    """Leaky ReLU with a negative slope of 0.2 (paper, section 3.3)."""
    return tf.nn.leaky_relu(x, alpha=0.2)


class Upsample(layers.Layer):
    """Bilinear upsampling by 2.

    Args:
      half_pixel_centers: True samples at (destination + 0.5) / 2 - 0.5, which treats left and right alike; False at
        destination / 2, as TensorFlow 1.8 did.
    """

    def __init__(self, half_pixel_centers: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.half_pixel_centers = half_pixel_centers

    def call(self, x):
        """Maps [N, H, W, C] to [N, 2 H, 2 W, C] in the same dtype."""
        size = [2 * x.shape[1], 2 * x.shape[2]]
        up = tf.raw_ops.ResizeBilinear(images=x, size=size, half_pixel_centers=self.half_pixel_centers)
        return tf.cast(up, x.dtype)

    def get_config(self):
        """The layer's config, for Keras."""
        return {**super().get_config(), "half_pixel_centers": self.half_pixel_centers}


@contextlib.contextmanager
def frozen_statistics(*models: keras.Model):
    """Calls of `models` in training mode use batch statistics in the block, but leave every variable as it was.

    One network's update runs the others in training mode too, but may change only its own. This holds for whatever a
    layer keeps, such as moving statistics or a normalised kernel, eagerly and in a `tf.function`; `models` must not be
    trained in the block.
    """
    variables = [variable for model in models for variable in model.variables]
    before = [variable.read_value() for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, before):
            variable.assign(value)
