"""Trained networks for your own programs; available as `tfaug.load_segmenter` and `tfaug.load_generator`."""

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
    """A trained segmenter, from scans to masks on the scans' own grids.

    Attributes:
      task: structures and channels; `task.structures` maps names to the values in the masks.
      model: the Keras model, from prepared slices [N, H, W, C] to logits [N, H, W, classes].
    """

    def __init__(self, run: str | os.PathLike):
        self._segmenter = segmenters.Segmenter([run])
        self.model, self.task = self._segmenter.models[0], self._segmenter.task

    def __call__(self, scan, spacing: Sequence[float] | None = None) -> np.ndarray:
        """Segments one scan.

        Args:
          scan: a file, several files for the channels of one scan, or an array [X, Y, Z] or [X, Y, Z, C].
          spacing: mm per voxel along X, Y, Z; only for an array, which needs it.

        Returns:
          [X, Y, Z] uint8 or uint16, the values of the structures, on the scan's grid with axes in file order. For a 4D
          file and a segmenter of one channel, [X, Y, Z, T]: each frame is segmented.

        Raises:
          UserError: the scan cannot be read or does not have the right channels, or an array comes without its spacing.
        """
        series = self._series(scan, spacing)
        masks = [self._segmenter(self._segmenter.prepare(frame)).classes for frame in series.frames]
        return self.task.to_values(series.in_file_order(masks))

    def write(self, scan: str | os.PathLike, path: str | os.PathLike) -> None:
        """Segments the scan in a file, and writes the mask in the same format, with the scan's geometry."""
        images.write(pathlib.Path(path), self(scan), pathlib.Path(scan))

    def _series(self, scan, spacing):
        """The `Series` in files or in an array."""
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

    Called with an image [N, H, W, C], or with (image, label [N, H, W, classes]), it returns the same after the
    generator's change: a deformation moves image and label alike, an intensity field is added to the image. H and W
    must be those of the generator's training, and images must be normalised as in training, (x - p2) / (p98 - p2) with
    the percentiles of their volume. Labels are one-hot or soft, and come back soft. As with Keras's own augmentations,
    training=False changes nothing.

    Args:
      run: the folder of a finished run of `train.py --stage=aug`.
      seed: seed of the noise; None takes a non-deterministic one from the system.
      **kwargs: keyword arguments of a Keras layer.

    Attributes:
      kind: "deform" or "intensity".
      model: the trained generator, from (image, z [N, 100]) to fields.

    Raises:
      UserError: the run is not finished, or trains a segmenter.
    """

    def __init__(self, run: str | os.PathLike, seed: int | None = None, **kwargs):
        super().__init__(**{**kwargs, "trainable": False})  # `get_config` returns it too
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
          training: False returns the inputs unchanged.
          seed: [2] integers; equal seeds give equal noise, in G_V and in G_I too. None continues the layer's stream.
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
        """The arguments from which Keras rebuilds the layer."""
        return {**super().get_config(), "run": self._run, "seed": self._seed}


def load_segmenter(run: str | os.PathLike) -> Segmenter:
    """The segmenter of a finished run of `train.py --stage=seg` (or of `train.py`), see `Segmenter`."""
    return Segmenter(run)


def load_generator(run: str | os.PathLike, seed: int | None = None) -> Generator:
    """The generator of a finished run of `train.py --stage=aug` as a Keras layer, see `Generator`."""
    return Generator(run, seed)
