"""Trained generators applied to whole scans: from prepared slices to fields."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfaug.augment.learned import transform_image
from tfaug.augment.methods import GENERATORS
from tfaug.config import Config
from tfaug.data.preprocess import Prepared
from tfaug.engine import run_dir
from tfaug.experiment import networks, runs

ORDER = ("deform", "intensity")  # G_I after G_V, as for X_VI of section 4


class Generators:
    """The generators of one or two finished runs: of deformations, of intensities, or both.

    Args:
      paths: the runs' folders, see `sources.configs_of_generators`.
    """

    def __init__(self, paths: Sequence[str | os.PathLike]):
        self._models = {}
        for path in map(pathlib.Path, paths):
            kind = GENERATORS[run_dir.read_report(path)["generator"]][0]
            with networks.precision(Config(run_dir.read_config(path))):
                self._models[kind] = runs.generator_of(path, kind)

    def __call__(self, prepared: Prepared, z: np.ndarray) -> dict[str, np.ndarray]:
        """The fields for a scan.

        Args:
          prepared: the scan.
          z: [Z, 100] float32, one for each slice.

        Returns:
          by kind: "deform" [Z, H, W, 2] in pixels, "intensity" [Z, H, W, C] in prepared units.
        """
        image, fields = tf.constant(prepared.image), {}
        for kind in (kind for kind in ORDER if kind in self._models):
            field = tf.cast(self._models[kind]([image, tf.constant(z)], training=False), tf.float32)
            image, fields[kind] = transform_image(kind, image, field), field.numpy()
        return fields
