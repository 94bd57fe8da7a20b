"""Trained generators applied to whole scans: from prepared slices to fields."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfaug.augment.learned import transform_image
from tfaug.augment.methods import GENERATORS
from tfaug.config import Config
from tfaug.data.preprocess import Prepared
from tfaug.engine import memory, run_dir
from tfaug.experiment import networks, runs

# Of slices that go through the networks at once: about 0.7 GiB of memory, whatever the number and size of the slices.
# Most scans are one batch, as another batch size changes the last bits of the fields.
PIXELS = 2**21
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

        Raises:
          MachineError: memory runs out.
        """
        at_once = max(1, PIXELS // math.prod(prepared.image.shape[1:3]))
        with memory.running_out("free some, or use a machine with more"):
            starts = range(0, len(prepared.image), at_once)
            parts = [self._fields(prepared.image[k : k + at_once], z[k : k + at_once]) for k in starts]
            return {kind: np.concatenate([part[kind] for part in parts]) for kind in parts[0]}

    def _fields(self, slices: np.ndarray, z: np.ndarray) -> dict[str, np.ndarray]:
        image, fields = tf.constant(slices), {}
        for kind in (kind for kind in ORDER if kind in self._models):
            field = tf.cast(self._models[kind]([image, tf.constant(z)], training=False), tf.float32)
            image, fields[kind] = transform_image(kind, image, field), field.numpy()
        return fields
