"""The losses of the paper, as pure functions of tensors."""

from __future__ import annotations

import tensorflow as tf


def segmentation_loss(logits, label, class_weights):
    """L_S: class-weighted cross-entropy, mean over all pixels (paper, section 3.4).

    Args:
      logits: [N, H, W, C] float32.
      label: [N, H, W, C], one-hot or soft. A soft pixel's weight is the mean of the class weights under its label.
      class_weights: C numbers.

    Returns:
      Scalar.
    """
    weight = tf.reduce_sum(label * tf.constant(class_weights, label.dtype), axis=-1)
    cross_entropy = tf.nn.softmax_cross_entropy_with_logits(labels=label, logits=logits)
    return tf.reduce_mean(weight * cross_entropy)


def discriminator_loss(fake_logits, real_logits):
    """L_D (Eq. 6): cross-entropy of "scan" on the scans plus "generated" on the generated images."""
    return tf.reduce_mean(tf.nn.softplus(-real_logits)) + tf.reduce_mean(tf.nn.softplus(fake_logits))


def adversarial_loss(fake_logits, form: str):
    """The generator's side of the game.

    Args:
      fake_logits: [N, 1], D on generated images.
      form: "saturating": log(1 - D(G)), Eq. 5; "non_saturating": -log D(G), the released program's.

    Returns:
      Scalar.
    """
    if form == "saturating":
        return -tf.reduce_mean(tf.nn.softplus(fake_logits))
    if form == "non_saturating":
        return tf.reduce_mean(tf.nn.softplus(-fake_logits))
    raise ValueError(f"adversarial form {form!r} is neither 'saturating' nor 'non_saturating'")


def big_loss(field):
    """L_big = -mean |field|, which rewards non-trivial transformations (Eq. 5)."""
    return -tf.reduce_mean(tf.abs(field))
