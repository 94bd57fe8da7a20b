"""Dense warping of images and labels along a deformation field."""

from __future__ import annotations

import tensorflow as tf

from tfaug.compat import dense_image_warp


def warp(image, deformation):
    """Resamples `image` along a dense deformation field, bilinearly.

    out[n, i, j] = image[n, i - d[n, i, j, 0], j - d[n, i, j, 1]]; the edge repeats beyond the border, so
    that any deformation, however large, gives a finite image. Where it is NaN, so is the image.

    Computed in float32 whatever the precision policy: bfloat16 cannot hold coordinates beyond 128 exactly.

    Args:
      image: [N, H, W, C] image or one-hot label, H and W at least 2.
      deformation: [N, H, W, 2] in pixels, (row, column); +1 moves content towards larger indices.

    Returns:
      [N, H, W, C] float32; one-hot labels come back soft.
    """
    deformation = tf.cast(deformation, tf.float32)
    unknown = tf.math.is_nan(deformation)
    moved = dense_image_warp(tf.cast(image, tf.float32), tf.where(unknown, tf.zeros_like(deformation), deformation))
    # The gather fails on NaN; adding it costs less than a choice by pixel, with its gradient.
    return moved + tf.where(unknown[..., :1] | unknown[..., 1:], float("nan"), 0.0)
