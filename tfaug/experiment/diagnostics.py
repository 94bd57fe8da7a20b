"""What a validation tells of a generator in numbers, and the pictures of both trainings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tfaug import evaluation, metrics, pictures, streams
from tfaug.augment.learned import transform_image, transform_label
from tfaug.augment.methods import GENERATORS
from tfaug.config import Config
from tfaug.data.preprocess import Prepared
from tfaug.data.task import Task
from tfaug.types import Z_DIM, Batch

PICTURED_SLICES = 3
Z_DRAWS = 4  # fields per image
COLLAPSED = 0.01  # a generator ignores z if its fields vary by less than this share of their magnitude
NEGLIGIBLE = {"deform": 0.1, "intensity": 0.03}  # pixels; normalised intensity, of which an image spans about 1

Generate = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # from images and z to fields


class Pictured:
    """Some labelled slices, spread over their scans, that every picture of a training shows.

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


def of_generator(kind: str, generate: Generate, scans: Sequence[Prepared], config: Config) -> dict[str, float]:
    """Magnitude, folding and diversity of a generator's fields, by tag."""
    drawn = fields(generate, Pictured(scans).images, config, Z_DRAWS)
    if kind == "deform":
        values = metrics.deformation_diagnostics(drawn, config.data.resolution)
    else:
        values = metrics.intensity_diagnostics(drawn)
    return {f"generator/{name}": value for name, value in values.items()}


def warnings_of_generator(name: str, generate: Generate, scans: Sequence[Prepared], config: Config) -> list[str]:
    """What is wrong with a generator: fields that are next to nothing, or that hardly differ over z."""
    drawn = fields(generate, Pictured(scans).images, config, Z_DRAWS)
    spread, magnitude = drawn.std(axis=0).mean(), np.abs(drawn).mean()
    found = []
    if magnitude < NEGLIGIBLE[GENERATORS[name][0]]:
        found.append(f"generator {name} hardly changes an image: its fields have a mean magnitude of {magnitude:.2g}")
    if spread <= COLLAPSED * magnitude:
        found.append(
            f"generator {name} has collapsed: its fields vary by {spread:.2g} over z, of {magnitude:.2g} in mean"
        )
    return found


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


def batch_picture(batch: Batch, names: Sequence[str], task: Task) -> np.ndarray:
    """Every slice of a training batch (its first channel) with its label."""
    labels = np.argmax(batch.label, axis=-1)
    return pictures.overlay(batch.image.numpy()[..., 0], labels, names, task.colours, one_window=True)


def segmentation_picture(predict, scans: Sequence[Prepared], task: Task) -> np.ndarray:
    """Reference and prediction on some slices."""
    shown = Pictured(scans)
    predictions = np.argmax(predict(shown.images), axis=-1)
    return pictures.segmentation_panel(shown.images[..., 0], shown.labels, predictions, task.colours, shown.names)
