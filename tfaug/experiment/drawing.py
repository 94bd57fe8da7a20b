"""The pictures of both trainings, and the fields that they show."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tfaug import evaluation, pictures, streams
from tfaug.augment.learned import transform_image, transform_label
from tfaug.config import Config
from tfaug.data.preprocess import Prepared
from tfaug.data.task import Task
from tfaug.types import Z_DIM, Batch

PICTURED_SLICES = 3
DRAWN_Z = 4

Generate = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # from images and z to fields


class Pictured:
    """A few labelled slices, spread over their scans, that every picture of a training shows.

    Attributes:
      images: [N, H, W, C] float32.
      labels: [N, H, W] classes.
      names: N texts.
    """

    def __init__(self, scans: Sequence[Prepared]):
        chosen = [(scan, z) for scan in scans for z in evaluation.representative_slices(np.moveaxis(scan.label, 0, 2))]
        chosen = chosen[:: max(1, len(chosen) // PICTURED_SLICES)][:PICTURED_SLICES]
        self.images = np.stack([scan.image[z] for scan, z in chosen])
        self.labels = np.stack([scan.label[z] for scan, z in chosen])
        self.names = [f"{scan.case}, slice {z + 1}" for scan, z in chosen]


def fields(generate: Generate, images: np.ndarray, config: Config, num_draws: int) -> np.ndarray:
    """Fields [K, N, H, W, *] of a generator on images [N, H, W, C] for K draws of z, always the same draws."""
    z = streams.generator(config.seed, "diagnostics").normal(size=(num_draws, len(images), Z_DIM))
    image = tf.constant(images)
    return np.stack([generate(image, tf.constant(draw, tf.float32)).numpy() for draw in z])


def generator_picture(kind: str, generate: Generate, scans: Sequence[Prepared], config: Config, task: Task):
    """Input, field and generated image (its first channel) of some labelled slices."""
    shown = Pictured(scans)
    field = fields(generate, shown.images, config, num_draws=1)[0]
    one_hot = tf.one_hot(shown.labels, task.num_classes)
    generated = transform_image(kind, tf.constant(shown.images), field).numpy()[..., 0]
    labels = np.argmax(transform_label(kind, one_hot, field), axis=-1)
    return pictures.generator_panel(
        shown.images[..., 0], field, generated, shown.labels, labels, kind, task.colours, shown.names
    )


def draws_picture(kind: str, generate: Generate, scans: Sequence[Prepared], config: Config, task: Task) -> np.ndarray:
    """What a generator makes of one labelled slice (its first channel) for several z."""
    shown = Pictured(scans)
    middle = len(shown.names) // 2
    image, label = shown.images[middle], shown.labels[middle]
    drawn = fields(generate, image[None], config, DRAWN_Z)[:, 0]
    many = [np.broadcast_to(part, (DRAWN_Z, *part.shape)) for part in (image, np.eye(task.num_classes)[label])]
    generated = transform_image(kind, tf.constant(many[0]), drawn).numpy()[..., 0]
    labels = np.argmax(transform_label(kind, tf.constant(many[1], tf.float32), drawn), axis=-1)
    return pictures.draws_panel(image[..., 0], label, drawn, generated, labels, kind, task.colours)


def batch_picture(batch: Batch, names: Sequence[str], task: Task) -> np.ndarray:
    """Every slice of a training batch (its first channel) with its label."""
    labels = np.argmax(batch.label, axis=-1)
    return pictures.overlay(batch.image.numpy()[..., 0], labels, names, task.colours, one_window=True)


def segmentation_picture(predict, scans: Sequence[Prepared], task: Task) -> np.ndarray:
    """Reference and prediction on some slices."""
    shown = Pictured(scans)
    predictions = np.argmax(predict(shown.images), axis=-1)
    return pictures.segmentation_panel(shown.images[..., 0], shown.labels, predictions, task.colours, shown.names)
