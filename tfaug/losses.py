"""The paper's losses, and others, as pure functions of tensors."""

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
    """L_adv, the generator's adversarial loss.

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
    """The distance of the distribution of generated images from that of scans, without a D; not in the paper.

    An unbiased estimate of the energy distance (Szekely and Rizzo, 2013; Bellemare et al., 2017, section 4): the mean
    distance between generated and real samples, less half the mean distances among the generated and among the real
    ones. Its expectation is 0 only if each of the Q coordinates is equally distributed, so that it rewards as much
    variety as scans have, and no more.

    Args:
      generated: K samples of G kinds, [K, G, Q], each kind to be distributed like the scans.
      real: M samples, [M, Q].

    Returns:
      Scalar.
    """
    generated = tf.transpose(generated, [1, 0, 2])
    between = tf.reduce_mean(_distances(generated, real[tf.newaxis]))
    return between - 0.5 * (_mean_apart(generated) + _mean_apart(real[tf.newaxis]))


def _distances(a, b):
    """Distances of [..., N, Q] from [..., M, Q]: [..., N, M], the mean absolute difference of coordinates."""
    return tf.reduce_mean(tf.abs(a[..., :, tf.newaxis, :] - b[..., tf.newaxis, :, :]), axis=-1)


def _mean_apart(samples):
    """Mean distance between two different samples of [..., N, Q]."""
    number = samples.shape[-2]
    distances = _distances(samples, samples)
    distances = tf.linalg.set_diag(distances, tf.zeros_like(distances[..., 0]))
    return tf.reduce_mean(distances) * number / (number - 1)


def gradient_penalty(gradient):
    """The R1 penalty: half the mean squared norm of D's gradient at scans (Mescheder et al., ICML 2018, Eq. 9).

    Args:
      gradient: [N, H, W, C], of the sum of D's logits with respect to N scans.

    Returns:
      Scalar.
    """
    return 0.5 * tf.reduce_mean(tf.reduce_sum(gradient**2, axis=[1, 2, 3]))


def big_loss(field, limit: float = 0.0):
    """L_big = -mean |field|, which rewards non-trivial transformations (Eq. 5), components up to `limit` if not 0."""
    magnitude = tf.abs(field)
    return -tf.reduce_mean(tf.minimum(magnitude, limit) if limit else magnitude)


def without_translation(deformation):
    """A deformation field [N, H, W, 2] less the mean displacement of each image; not in the paper.

    L_big of it does not reward moving the whole image.
    """
    return deformation - tf.reduce_mean(deformation, axis=[1, 2], keepdims=True)


def strain(deformation):
    """How much a field stretches and rotates what it moves, bounded; not in the paper.

    L_big of it rewards deforming much of the image a little, and neither moving blocks of it nor folding.

    Args:
      deformation: v [N, H, W, 2] in pixels.

    Returns:
      tanh(10/3 dv) [N, H - 1, W - 1, 4] of the derivatives of v's components along rows and columns.
    """
    return tf.tanh(tf.concat(_derivatives(deformation), -1) / 0.3)


def _derivatives(deformation):
    """Forward differences of v [N, H, W, 2] along rows and along columns, each [N, H - 1, W - 1, 2]."""
    here = deformation[:, :-1, :-1]
    return deformation[:, 1:, :-1] - here, deformation[:, :-1, 1:] - here


STRAIN_UNIT = 0.5  # replaces the limit of fields where `strain` is rewarded


def diversity_loss(field, other, limit: float = 0.0):
    """-mean |field - other| for the same images under two z, up to `limit` if not 0; not in the paper.

    A generator that ignores z gains nothing from it (after Mao et al., CVPR 2019, and Yang et al., ICLR 2019).

    Args:
      field: [N, H, W, *].
      other: the same.
      limit: as for `big_loss`.

    Returns:
      Scalar.
    """
    return big_loss(field - other, limit)


def volume_loss(field, other, unit: float):
    """-log det(1 + K) / N for the differences of fields under two z; not in the paper.

    K holds the inner products of the N differences in units of `unit`, as means over the numbers of a field.
    Differences in N directions gain more than equal ones in one direction, and larger ones gain ever less (after the
    determinants of Elfeki et al., GDPP, ICML 2019).

    Args:
      field: [N, H, W, *].
      other: fields for the same images under another z.
      unit: size of a difference beyond which larger ones gain less.

    Returns:
      Scalar.
    """
    number = field.shape[0]
    difference = tf.reshape((field - other) / unit, [number, -1])
    products = tf.matmul(difference, difference, transpose_b=True) / difference.shape[1]
    return -tf.linalg.logdet(tf.eye(number) + products) / number


def packed(images, size: int):
    """Images in packs that D judges as one (PacGAN, Lin et al., NeurIPS 2018); not in the paper.

    From a pack, D sees whether images vary as scans do. The images of a pack are N // size apart in the batch.

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
    """Mean amount by which the Jacobian determinant of x -> x - v(x) is below 0.2: a cost on folding; not in the paper.

    Args:
      deformation: v [N, H, W, 2] in pixels, (row, column).

    Returns:
      Scalar, 0 where nothing folds or is about to.
    """
    by_row, by_column = _derivatives(deformation)
    determinant = (1 - by_row[..., 0]) * (1 - by_column[..., 1]) - by_row[..., 1] * by_column[..., 0]
    return tf.reduce_mean(tf.nn.relu(0.2 - determinant))
