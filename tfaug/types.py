"""What flows through tfaug: a `Volume` on its way in and out, batches in between."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, NamedTuple

import numpy as np

NUM_CLASSES = 4
STRUCTURES = ("RV", "Myo", "LV")  # labels 1, 2, 3; 0 is background
Z_DIM = 100  # of the generators' noise vector z (paper, section 3.3)


@dataclasses.dataclass(frozen=True)
class Volume:
    """One 3D scan as it lies in its file.

    Attributes:
      case: name of the patient's folder, for example "patient007".
      image: [X, Y, Z] float32, axes in file order.
      label: [X, Y, Z] uint8 in {0: background, 1: RV, 2: Myo, 3: LV}, or None for an unlabelled scan.
      spacing: mm per voxel along X, Y, Z.
      path: the image file; its header is the geometry that predicted masks are written with.
    """

    case: str
    image: np.ndarray
    label: np.ndarray | None
    spacing: tuple[float, float, float]
    path: pathlib.Path


class Batch(NamedTuple):
    """Slices and their labels, always together.

    Attributes:
      image: [N, H, W, C] float32.
      label: [N, H, W, num_classes] float32, one-hot or soft; sums to 1 over the last axis.
    """

    image: Any
    label: Any


class GeneratorBatch(NamedTuple):
    """What one iteration of learning the augmentation looks at.

    Attributes:
      labelled: `Batch` of N affine-augmented labelled slices, which the generator is conditioned on.
      real: [N, H, W, C] float32, affine-augmented scans, labelled or not, for the discriminator.
      z: [N, 100] float32 from a unit Gaussian.
      num_original: how many of S's N slices stay as they are, scalar; the others are generated.
    """

    labelled: Batch
    real: Any
    z: Any
    num_original: Any


class AdversarialBatch(NamedTuple):
    """What one iteration of adversarial training of the segmenter looks at.

    Attributes:
      labelled: `Batch` of N labelled slices.
      unlabelled: [N, H, W, C] float32 scans.
    """

    labelled: Batch
    unlabelled: Any
