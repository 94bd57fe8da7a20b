"""The `tf.data` pipeline: which slices make up which batch.

A batch is a pure function of (seed, step): a resumed run starts the pipeline at its step, and no other state is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfaug import streams
from tfaug.types import Z_DIM, AdversarialBatch, Batch, GeneratorBatch

Augment = Callable[[Batch, tf.Tensor, str], Batch]  # (batch, step, purpose of the draws)


class Slices(NamedTuple):
    """All 2D slices of some volumes.

    Attributes:
      image: [S, H, W, C] float32.
      label: [S, H, W] uint8 classes, or None where only images are used.
    """

    image: tf.Tensor
    label: tf.Tensor | None


def slices(images: Sequence[np.ndarray], labels: Sequence[np.ndarray] | None = None) -> Slices:
    """Stacks volumes' images [Z, H, W, C] and labels [Z, H, W] along Z."""
    label = None if labels is None else tf.constant(np.concatenate(labels))
    return Slices(tf.constant(np.concatenate(images)), label)


def seed_at(seed: int, purpose: str, step) -> tf.Tensor:
    """The [2] seed for the draws of one purpose at one step."""
    return tf.random.experimental.stateless_fold_in(tf.constant(streams.key(seed, purpose)), step)


def indices(num_slices: int, batch_size: int, step, seed: int, purpose: str) -> tf.Tensor:
    """Which slices make up the batch of a step: every slice once per epoch, each epoch shuffled anew.

    Args:
      num_slices: S, the number to draw from.
      batch_size: N; may exceed S.
      step: 0-based, int64 scalar.
      seed: seed of the run.
      purpose: name of the stream of draws.

    Returns:
      [N] int64 in [0, S).
    """
    first_epoch, offset = step * batch_size // num_slices, step * batch_size % num_slices
    orders = [
        tf.random.experimental.stateless_shuffle(
            tf.range(num_slices, dtype=tf.int64), seed_at(seed, f"order/{purpose}", first_epoch + epoch)
        )
        for epoch in range(batch_size // num_slices + 2)
    ]
    return tf.ensure_shape(tf.concat(orders, 0)[offset : offset + batch_size], [batch_size])


def labelled_batches(
    slices: Slices, num_classes: int, batch_size: int, augment: Augment, seed: int, repeats: int = 1
) -> Callable:
    """Batches to train a segmenter on.

    Args:
      slices: labelled slices.
      num_classes: number of classes, including the background.
      batch_size: N.
      augment: applied to each batch.
      seed: seed of the run.
      repeats: how often each slice is in a batch, which is then that many repetitions of the same slices.

    Returns:
      Function from the step (int64 scalar) to its `Batch`.
    """

    def make(step) -> Batch:
        chosen = indices(slices.image.shape[0], batch_size // repeats, step, seed, "labelled")
        chosen = tf.tile(chosen, [repeats])
        label = tf.one_hot(tf.gather(slices.label, chosen), num_classes)
        return augment(Batch(tf.gather(slices.image, chosen), label), step, "labelled")

    return make


def image_batches(
    slices: Slices, num_classes: int, batch_size: int, augment: Augment, seed: int, purpose: str = "real"
) -> Callable:
    """Batches of images only, for a discriminator or as unlabelled scans.

    Arguments as for `labelled_batches`; a transform sees each image with a label of background only. `purpose` names
    the stream of draws.

    Returns:
      Function from the step (int64 scalar) to [N, H, W, C] images.
    """

    def make(step) -> tf.Tensor:
        chosen = indices(slices.image.shape[0], batch_size, step, seed, purpose)
        image = tf.gather(slices.image, chosen)
        no_label = tf.one_hot(tf.zeros(image.shape[:3], tf.int32), num_classes)
        return augment(Batch(image, no_label), step, purpose).image

    return make


def generator_batches(
    labelled: Slices,
    real: Sequence[Slices],
    num_classes: int,
    batch_size: int,
    augment: Augment,
    seed: int,
    released_partition: bool = False,
    repeats: int = 1,
) -> Callable:
    """Batches to learn an augmentation from.

    Args:
      labelled: X_L, to condition the generator on.
      real: pools of scans for the discriminator, with an equal share of the batch from each.
      num_classes: number of classes, including the background.
      batch_size: N, of both labelled and real slices.
      augment: the affine augmentation of both.
      seed: seed of the run.
      released_partition: draws the number of original slices in S's batch from 5..14 of 20, as the released program
        does; otherwise it is half the batch.
      repeats: how often each labelled slice is in a batch, see `labelled_batches`, each time augmented anew and with
        another z.

    Returns:
      Function from the step (int64 scalar) to its `GeneratorBatch`.
    """
    make_labelled = labelled_batches(labelled, num_classes, batch_size, augment, seed, repeats)
    ends = [batch_size * index // len(real) for index in range(len(real) + 1)]
    make_real = [
        image_batches(pool, num_classes, end - start, augment, seed, f"real{index or ''}")
        for index, (pool, start, end) in enumerate(zip(real, ends, ends[1:]))
    ]

    def make(step) -> GeneratorBatch:
        z = tf.random.stateless_normal([batch_size, Z_DIM], seed_at(seed, "z", step))
        num_original = tf.constant(batch_size // 2)
        if released_partition:
            of_20 = tf.random.stateless_uniform([], seed_at(seed, "partition", step), 5, 15, tf.int32)
            num_original = of_20 * batch_size // 20
        scans = tf.concat([make_pool(step) for make_pool in make_real], 0)
        return GeneratorBatch(make_labelled(step), scans, z, num_original)

    return make


def adversarial_batches(
    labelled: Slices, unlabelled: Slices, num_classes: int, batch_size: int, augment: Augment, seed: int
) -> Callable:
    """Batches to train a segmenter on with unlabelled scans too.

    Arguments as for `labelled_batches`; a batch has `batch_size` labelled and as many `unlabelled` slices.

    Returns:
      Function from the step (int64 scalar) to its `AdversarialBatch`.
    """
    make_labelled = labelled_batches(labelled, num_classes, batch_size, augment, seed)
    make_unlabelled = image_batches(unlabelled, num_classes, batch_size, augment, seed)

    def make(step) -> AdversarialBatch:
        return AdversarialBatch(make_labelled(step), make_unlabelled(step))

    return make


def iterate(make: Callable, start: int):
    """Iterates over make(start), make(start + 1), ..., which are prefetched."""
    return iter(dataset(make, start))


def dataset(make: Callable, start: int) -> tf.data.Dataset:
    """The data set that `iterate` iterates over."""
    steps = tf.data.Dataset.range(start, np.iinfo(np.int64).max)
    make = tf.autograph.experimental.do_not_convert(make)
    options = tf.data.Options()
    # There is nothing to tune, and a training's end had to wait for the tuner, which sleeps for longer and longer.
    options.autotune.enabled = False
    return steps.map(make, num_parallel_calls=2, deterministic=True).prefetch(2).with_options(options)
