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


def energy_distance(generated, real):
    """How far what is generated is from being drawn as scans are, without a discriminator; not the paper's.

    An unbiased estimate of the energy distance (Szekely and Rizzo, 2013; Bellemare et al., 2017, section 4): the mean
    distance of generated from real samples, less half the mean distance of samples within each kind. It is 0 in the
    mean only if each of the Q coordinates is distributed alike, so that it rewards the variety that scans have, and not
    more.

    Args:
      generated: K samples of G kinds, [K, G, Q], each kind to be distributed as the scans.
      real: M samples, [M, Q].

    Returns:
      Scalar.
    """
    generated = tf.transpose(generated, [1, 0, 2])
    between = tf.reduce_mean(_distances(generated, real[tf.newaxis]))
    return between - 0.5 * (_mean_apart(generated) + _mean_apart(real[tf.newaxis]))


def _distances(a, b):
    """Of [..., N, Q] from [..., M, Q]: [..., N, M], the mean difference of coordinates."""
    return tf.reduce_mean(tf.abs(a[..., :, tf.newaxis, :] - b[..., tf.newaxis, :, :]), axis=-1)


def _mean_apart(samples):
    """Mean distance of two different ones of [..., N, Q]."""
    number = samples.shape[-2]
    distances = _distances(samples, samples)
    distances = tf.linalg.set_diag(distances, tf.zeros_like(distances[..., 0]))
    return tf.reduce_mean(distances) * number / (number - 1)


def gradient_penalty(gradient):
    """R1 of a discriminator: half the mean squared norm of its gradient at scans (Mescheder et al., ICML 2018, Eq. 9).

    Args:
      gradient: [N, H, W, C], of the sum of D's logits with respect to N scans.

    Returns:
      Scalar.
    """
    return 0.5 * tf.reduce_mean(tf.reduce_sum(gradient**2, axis=[1, 2, 3]))


def big_loss(field, limit: float = 0.0):
    """L_big = -mean |field|, which rewards non-trivial transformations (Eq. 5), up to `limit` where there is one."""
    magnitude = tf.abs(field)
    return -tf.reduce_mean(tf.minimum(magnitude, limit) if limit else magnitude)


def without_translation(deformation):
    """A deformation field [N, H, W, 2] less the mean displacement of each image; not the paper's.

    L_big of it does not pay for moving the whole image, which teaches a convolutional network nothing.
    """
    return deformation - tf.reduce_mean(deformation, axis=[1, 2], keepdims=True)


def strain(deformation):
    """How much a field stretches and turns what it moves, bounded; not the paper's.

    L_big of it pays for deforming much of the image a little, and for neither moving blocks of it nor folding.

    Args:
      deformation: v [N, H, W, 2] in pixels.

    Returns:
      tanh(10/3 dv) [N, H - 1, W - 1, 4] of the derivatives of v's components along rows and columns.
    """
    return tf.tanh(tf.concat(_derivatives(deformation), -1) / 0.3)


def _derivatives(deformation):
    """Of v [N, H, W, 2] along rows and along columns, each [N, H - 1, W - 1, 2]."""
    here = deformation[:, :-1, :-1]
    return deformation[:, 1:, :-1] - here, deformation[:, :-1, 1:] - here


STRAIN_UNIT = 0.5  # in place of the limit of fields, where `strain` is rewarded


def diversity_loss(field, other, limit: float = 0.0):
    """-mean |field - other| of the same images under two z, up to `limit` where there is one; not the paper's.

    A generator that ignores z gains nothing by it (after Mao et al., CVPR 2019, and Yang et al., ICLR 2019).

    Args:
      field: [N, H, W, *].
      other: the same.
      limit: as of `big_loss`.

    Returns:
      Scalar.
    """
    return big_loss(field - other, limit)


def volume_loss(field, other, unit: float):
    """-log det(1 + K) / N of the fields' differences under two z; not the paper's.

    K are the inner products of the N differences, each of as many numbers as a field has, by their mean over the field
    and in units of `unit`. Differences in N directions gain more than the same ones in one, and larger ones ever less
    (after the determinants of Elfeki et al., GDPP, ICML 2019).

    Args:
      field: [N, H, W, *].
      other: the same images' under another z.
      unit: the size of a difference from which on larger ones gain less.

    Returns:
      Scalar.
    """
    number = field.shape[0]
    difference = tf.reshape((field - other) / unit, [number, -1])
    products = tf.matmul(difference, difference, transpose_b=True) / difference.shape[1]
    return -tf.linalg.logdet(tf.eye(number) + products) / number


def packed(images, size: int):
    """Images in packs that D judges as one (PacGAN, Lin et al., NeurIPS 2018); not the paper's.

    Of a pack D sees whether its images differ as scans do. Its images are N // size apart in the batch.

    Args:
      images: [N, H, W, C].
      size: images in a pack.

    Returns:
      [N // size, H, W, size * C]; images that fill no pack are left out.
    """
    if size == 1:
        return images
    number, (height, width, channels) = images.shape[0] // size, images.shape[1:]
    packs = tf.reshape(images[: number * size], [size, number, height, width, channels])
    return tf.reshape(tf.transpose(packs, [1, 2, 3, 0, 4]), [number, height, width, size * channels])


def folding_loss(deformation):
    """Mean of how far the Jacobian determinant of x -> x - v(x) is below 0.2: a cost on folding; not the paper's.

    Args:
      deformation: v [N, H, W, 2] in pixels, (row, column).

    Returns:
      Scalar, 0 where nothing folds or is about to.
    """
    by_row, by_column = _derivatives(deformation)
    determinant = (1 - by_row[..., 0]) * (1 - by_column[..., 1]) - by_row[..., 1] * by_column[..., 0]
    return tf.reduce_mean(tf.nn.relu(0.2 - determinant))
