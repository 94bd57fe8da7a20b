"""The masks of an evaluation, with their scans. Needs no TensorFlow."""

from __future__ import annotations

import pathlib

import numpy as np

from tfaug import evaluation
from tfaug.data import cache
from tfaug.data.readers import base
from tfaug.engine.errors import UserError
from tfaug.experiment import identity
from tfaug.experiment.sources import Data
from tfaug.types import Volume

_AGAIN = "evaluate the run again"


def read(data: Data, folder: pathlib.Path, case: str) -> tuple[Volume, np.ndarray]:
    """A scan with its label, and its mask [X, Y, Z] of classes from an evaluation.

    Args:
      data: the data that were evaluated.
      folder: folder of the evaluation.
      case: name of the scan.

    Raises:
      UserError: the evaluation has not scored the case, or somebody has changed its files; or scan, label or mask
        cannot be read, or are not what was evaluated.
      MachineError: there is too little memory.
    """
    with cache.explained(case):
        then = identity.scans_of(folder).get(case)
        if then is None:
            raise UserError(folder, f"holds no intact evaluation of {case}", _AGAIN)
        if cache.digests(data.dataset, [cache.Request(case)])[case] != then:
            raise UserError(case, "the scan or its label has changed since it was evaluated", _AGAIN)
        volume = data.dataset.read(case)
        file = evaluation.mask_file(folder, volume, data.tag)
        (mask,) = base.read_mask(file, volume.path, data.task, 1, _AGAIN)
    return volume, np.moveaxis(mask, volume.axis, 2)
