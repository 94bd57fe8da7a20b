"""The only file that depends on the version of TensorFlow: Keras 2 and dense warping for each.

With TensorFlow 2.15 (Python 3.9 to 3.11), `tf.keras` is Keras 2 and TensorFlow Addons has `dense_image_warp`. From
TensorFlow 2.16 on (here for Python 3.12 and later), Keras 2 is the package tf-keras, and TensorFlow Addons, whose last
release is 0.23, does not import.
"""

from __future__ import annotations

import types
import warnings
from importlib import metadata

import tensorflow as tf


def bilinear_warp(image: tf.Tensor, flow: tf.Tensor) -> tf.Tensor:
    """Computes `tensorflow_addons.image.dense_image_warp` by the same operations in the same order.

    out[n, i, j] = image[n, i - flow[n, i, j, 0], j - flow[n, i, j, 1]], bilinearly, edges repeated.

    Args:
      image: [N, H, W, C] float32, H and W at least 2.
      flow: [N, H, W, 2] float32 in pixels, (row, column).

    Returns:
      [N, H, W, C] float32.
    """
    image, flow = tf.convert_to_tensor(image), tf.convert_to_tensor(flow)
    shape = tf.shape(image)
    batch, height, width = shape[0], shape[1], shape[2]
    grid = tf.meshgrid(tf.range(height), tf.range(width), indexing="ij")
    corners, weights = [], []
    for axis, size in enumerate((height, width)):
        query = tf.cast(grid[axis], flow.dtype) - flow[..., axis]
        corner = tf.clip_by_value(tf.floor(query), 0.0, tf.cast(size - 2, flow.dtype))
        corners.append(tf.cast(corner, tf.int32))
        weights.append(tf.minimum(tf.maximum(0.0, query - corner), 1.0)[..., None])

    flat = tf.reshape(image, [batch * height * width, shape[3]])
    offset = (tf.range(batch) * height * width)[:, None, None]

    def gather(rows, columns):
        return tf.gather(flat, offset + rows * width + columns)

    (row, column), (down, right) = corners, weights
    top_left, top_right = gather(row, column), gather(row, column + 1)
    bottom_left, bottom_right = gather(row + 1, column), gather(row + 1, column + 1)
    top = right * (top_right - top_left) + top_left
    bottom = right * (bottom_right - bottom_left) + bottom_left
    return tf.ensure_shape(down * (bottom - top) + top, image.shape)


if metadata.version("keras").startswith("2."):
    keras = tf.keras
    with warnings.catch_warnings():
        # setup.py pins the last release, so its end-of-life notice leaves the user nothing to do.
        warnings.filterwarnings("ignore", message=r"\s*TensorFlow Addons \(TFA\) has ended development")
        from tensorflow_addons.image import dense_image_warp as _dense_image_warp
        from tensorflow_addons.image import interpolate_bilinear as _interpolate_bilinear

    def _plain(function, **names):
        """The function in a `tf.function`, without AutoGraph, which takes half a second to find nothing to convert."""
        python = function.python_function
        return types.FunctionType(python.__code__, {**python.__globals__, **names}, argdefs=python.__defaults__)

    dense_image_warp = _plain(_dense_image_warp, interpolate_bilinear=_plain(_interpolate_bilinear))
else:
    import tf_keras as keras

    dense_image_warp = bilinear_warp

__all__ = ["bilinear_warp", "dense_image_warp", "keras"]
