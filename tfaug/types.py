"""The data that flow through tfaug: a `Volume` at the start and the end, batches in between."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

Z_DIM = 100
"""Length of the generators' noise vector z (paper, section 3.3)."""


@dataclasses.dataclass(frozen=True)
class Volume:
    """One 3D scan on its own grid. Slices lie along Z; the file's other two axes keep their order.

    Attributes:
      case: its name, for example "patient007".
      image: [X, Y, Z, C] float32, C channels.
      label: [X, Y, Z] uint8, the classes of the task, or None for an unlabelled scan.
      spacing: mm per voxel along X, Y, Z.
      axis: the file's axis that became Z: 0, 1 or 2.
      path: the file of the first channel; predicted masks are written with its geometry.
      order: which way X, Y and Z run by the header, in nibabel's codes: "RAS" to the patient's right, front (anterior)
        and head (superior); "" if the header does not tell, or the scan is oblique.
    """

    case: str
    image: np.ndarray
    label: np.ndarray | None
    spacing: tuple[float, float, float]
    axis: int
    path: pathlib.Path
    order: str = ""


class Hearts(NamedTuple):
    """Which structures make up a heart, and which cases show it in which phase, according to a data set's reader.

    Attributes:
      lv: name of the left ventricle's cavity.
      rv: name of the right ventricle's cavity.
      myocardium: name of the left ventricle's wall.
      patients: by patient, the case at end-diastole and the case at end-systole.
    """

    lv: str
    rv: str
    myocardium: str
    patients: Mapping[str, tuple[str, str]]


class Batch(NamedTuple):
    """Slices and their labels, always together.

    Attributes:
      image: [N, H, W, C] float32, C channels.
      label: [N, H, W, num_classes] float32, one-hot or soft; sums to 1 over the last axis.
    """

    image: Any
    label: Any


class GeneratorBatch(NamedTuple):
    """The data of one iteration of learning the augmentation.

    Attributes:
      labelled: `Batch` of N affine-augmented labelled slices, on which the generator is conditioned.
      real: [N, H, W, C] float32, affine-augmented scans, labelled or not, for the discriminator.
      z: [N, 100] float32 from a unit Gaussian.
      num_original: how many of S's N slices stay original, scalar; the others are generated.
    """

    labelled: Batch
    real: Any
    z: Any
    num_original: Any


class AdversarialBatch(NamedTuple):
    """The data of one iteration of adversarial training of the segmenter.

    Attributes:
      labelled: `Batch` of N labelled slices.
      unlabelled: [N, H, W, C] float32 scans.
    """

    labelled: Batch
    unlabelled: Any
