"""Trained networks for programs of your own; reached as `tfaug.load_segmenter` and `tfaug.load_generator`."""

from __future__ import annotations

import logging
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfaug.augment.learned import transform_image, transform_label
from tfaug.augment.methods import GENERATORS
from tfaug.compat import keras
from tfaug.config import Config
from tfaug.data import images
from tfaug.data.dataset import Series, arranged, read_series
from tfaug.data.readers import base
from tfaug.engine import run_dir
from tfaug.engine.errors import UserError, counted, printable
from tfaug.experiment import networks, runs, segmenters
from tfaug.types import Z_DIM

logger = logging.getLogger(__name__)


class Segmenter:
    """A trained segmenter that takes scans and gives masks on their own grids.

    Attributes:
      task: structures and channels; `task.structures` are the values in the masks by name.
      model: the Keras model, from prepared slices [N, H, W, C] to logits [N, H, W, classes].
    """

    def __init__(self, run: str | os.PathLike):
        self._segmenter = segmenters.Segmenter([run])
        self.model, self.task = self._segmenter.models[0], self._segmenter.task

    def __call__(self, scan, spacing: Sequence[float] | None = None) -> np.ndarray:
        """Segments one scan.

        Args:
          scan: a file, several files for the channels of one scan, or an array [X, Y, Z] or [X, Y, Z, C].
          spacing: of an array, in mm along X, Y, Z.

        Returns:
          [X, Y, Z], uint8 or uint16, the values of the structures, on the scan's grid with its axes in file order. Of
          a 4D file, if the segmenter takes one channel, [X, Y, Z, T]: each frame is segmented.

        Raises:
          UserError: the scan cannot be read or has other channels; an array came without its spacing.
        """
        series = self._series(scan, spacing)
        masks = [self._segmenter(self._segmenter.prepare(frame)).classes for frame in series.frames]
        return self.task.to_values(series.in_file_order(masks))

    def write(self, scan: str | os.PathLike, path: str | os.PathLike) -> None:
        """Segments the scan in a file, and writes the mask in the same format, with the scan's geometry."""
        images.write(pathlib.Path(path), self(scan), pathlib.Path(scan))

    def _series(self, scan, spacing):
        """A `Series` of files or of an array."""
        slice_axis = self._segmenter.slice_axis
        if isinstance(scan, (str, os.PathLike, list, tuple)):
            paths = scan if isinstance(scan, (list, tuple)) else [scan]
            files = base.Files(tuple(map(pathlib.Path, paths)), None)
            series = read_series(files.images[0].name, files, self.task, slice_axis)
            if series.contradiction:
                logger.warning(printable(f"{files.images[0]}: {series.contradiction}"))
            return series
        image = np.asarray(scan, np.float32)
        image = image[..., np.newaxis] if image.ndim == 3 else image
        if spacing is None or len(spacing) != 3 or image.ndim != 4:
            problem = f"is an array of the shape {np.shape(scan)} with the spacing {spacing}"
            raise UserError("scan", problem, "give [X, Y, Z] or [X, Y, Z, C], and mm along X, Y, Z")
        if image.shape[-1] != len(self.task.channels):
            problem = f"has {counted(image.shape[-1], 'channel')}, the segmenter takes {len(self.task.channels)}"
            raise UserError("scan", problem, f"give {', '.join(self.task.channels)} in this order")
        content = base.CaseData(image, None, tuple(map(float, spacing)), pathlib.Path("scan"))
        return Series((arranged("scan", content, slice_axis),), is_4d=False)


class Generator(keras.layers.Layer):
    """The learned augmentation as a Keras layer, for a model or for `tf.data.Dataset.map`.

    Called with an image [N, H, W, C], or with (image, label [N, H, W, classes]), it returns the same with the
    generator's changes: a deformation moves image and label alike, an intensity field is added to the image. H and W
    are those that the generator was trained with, and images are normalised as there, (x - p2) / (p98 - p2) of their
    volume. Labels are one-hot or soft, and come back soft. As with Keras's own augmentations, nothing changes with
    training=False.

    Args:
      run: the folder of a finished run of `train.py --stage=aug`.
      seed: of the noise; None draws a new one for every call from the system's.
      **kwargs: those of a Keras layer.

    Attributes:
      kind: "deform" or "intensity".
      model: the trained generator, from (image, z [N, 100]) to fields.

    Raises:
      UserError: the run is not finished, or trains a segmenter.
    """

    def __init__(self, run: str | os.PathLike, seed: int | None = None, **kwargs):
        super().__init__(**{**kwargs, "trainable": False})  # which `get_config` returns too
        path = pathlib.Path(run)
        report = run_dir.read_report(path)
        if report is None or report.get("generator") not in GENERATORS:
            remedy = "give the folder of a finished `train.py --stage=aug`"
            raise UserError(path, "there is no trained generator", remedy)
        self.kind = GENERATORS[report["generator"]][0]
        with networks.precision(Config(run_dir.read_config(path))):
            self.model = runs.generator_of(path, self.kind)
        self.model.trainable = False
        self._run, self._seed = os.fspath(run), seed
        random = tf.random.Generator
        self._random = random.from_non_deterministic_state() if seed is None else random.from_seed(seed)

    def call(self, inputs, training: bool = True, seed=None):
        """Augments a batch.

        Args:
          inputs: image, or (image, label).
          training: False returns the inputs as they are.
          seed: [2] integers; the same give the same noise, in G_V and in G_I. None continues the layer's stream.
        """
        if training is None or (not tf.is_tensor(training) and training):
            return self._augment(inputs, seed)
        if not tf.is_tensor(training):
            return inputs
        return tf.cond(training, lambda: self._augment(inputs, seed), lambda: inputs)

    def _augment(self, inputs, seed):
        image, *label = inputs if isinstance(inputs, (list, tuple)) else (inputs,)
        if seed is None:
            seed = self._random.make_seeds(1)[:, 0]
        z = tf.random.stateless_normal([tf.shape(image)[0], Z_DIM], seed)
        field = self.model([image, z], training=False)
        generated = tf.ensure_shape(transform_image(self.kind, tf.cast(image, tf.float32), field), image.shape)
        if not label:
            return generated
        moved = transform_label(self.kind, tf.cast(label[0], tf.float32), field)
        return generated, tf.ensure_shape(moved, label[0].shape)

    def get_config(self):
        """The arguments that make the layer again, as Keras asks for them."""
        return {**super().get_config(), "run": self._run, "seed": self._seed}


def load_segmenter(run: str | os.PathLike) -> Segmenter:
    """The segmenter of a finished run of `train.py --stage=seg` (or of `train.py`), see `Segmenter`."""
    return Segmenter(run)


def load_generator(run: str | os.PathLike, seed: int | None = None) -> Generator:
    """The generator of a finished run of `train.py --stage=aug` as a Keras layer, see `Generator`."""
    return Generator(run, seed)
