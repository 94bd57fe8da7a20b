"""Discriminators that were tried on ACDC's development patients, in place of `dcgan`.

    export PYTHONPATH=docs/results/acdc
    python train.py --stage=aug --gen=deform --config.model.discriminator=discriminators:patches

`spectral` and `patches` have the widths of `tfaug.models.discriminator.discriminator`; `augmented` is that network.
"""

from __future__ import annotations

import tensorflow as tf

from tfaug.augment.affine import Affine
from tfaug.compat import keras
from tfaug.models.blocks import conv, leaky_relu
from tfaug.models.discriminator import discriminator
from tfaug.types import Batch

layers = keras.layers


def patches(image_size, channels=1, filters=16, seed=0, discriminator_norm=True, **_):
    """A D of patches of 29 x 29 pixels (after Isola et al., CVPR 2017): [N, H, W, channels] to their mean logit."""
    image = keras.Input((image_size, image_size, channels))
    x = image
    for index, width in enumerate((1, 2, 4), start=1):
        x = conv(x, width * filters, 5, f"c{index}", seed, stride=2, activation=leaky_relu, norm=discriminator_norm)
    x = conv(x, 1, 1, "c4", seed, norm=False, activation=None)
    return keras.Model(image, layers.Flatten(dtype="float32")(layers.GlobalAveragePooling2D(keepdims=True)(x)))


def spectral(image_size, channels=1, filters=16, seed=0, **_):
    """A D whose kernels are divided by their largest singular value (Miyato et al., ICLR 2018), without other norms."""
    image = keras.Input((image_size, image_size, channels))
    x = image
    for index, width in enumerate((1, 2, 4, 8, 8), start=1):
        options = {"strides": 2, "padding": "same", "activation": leaky_relu, "name": f"c{index}"}
        x = layers.Conv2D(width * filters, 5, kernel_constraint=Spectral(), **options)(x)
    x = layers.Flatten()(x)
    for index in (1, 2):
        x = layers.Dense(8 * filters, leaky_relu, kernel_constraint=Spectral(), name=f"f{index}")(x)
    return keras.Model(image, layers.Dense(1, kernel_constraint=Spectral(), dtype="float32", name="logit")(x))


class Spectral(keras.constraints.Constraint):
    """Divides a kernel [..., C] by its largest singular value, as a matrix of C columns, after each update."""

    def __call__(self, kernel):
        """The kernel, divided."""
        matrix = tf.reshape(kernel, [-1, kernel.shape[-1]])
        return kernel / tf.sqrt(tf.linalg.eigvalsh(tf.matmul(matrix, matrix, transpose_a=True))[-1])


def augmented(image_size, channels=1, filters=16, seed=0, discriminator_norm=True, **_):
    """The usual D on affine-augmented generated images and scans (after Zhao et al., NeurIPS 2020)."""
    image = keras.Input((image_size, image_size, channels))
    judge = discriminator(image_size, channels, filters, seed, discriminator_norm)
    return keras.Model(image, judge(Augmented()(image)))


class Augmented(layers.Layer):
    """The paper's Aug_A with other draws at each call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.count = self.add_weight("count", (), tf.int32, "zeros", trainable=False)
        self.affine = Affine()

    def call(self, image):
        """Maps [N, H, W, C] to as many augmented slices."""
        self.count.assign_add(1)
        batch = Batch(image, tf.ones_like(image[..., :1]))
        return self.affine.apply(batch, self.affine.sample(batch, tf.stack([self.count, 7]))).image
