"""Chooses the resolution and the size of slices from a data set, for `data.resolution` and `data.image_size` "auto"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tfaug.data import cache, check, preprocess
from tfaug.data.dataset import DataSet
from tfaug.data.preprocess import Grid, overlap
from tfaug.engine import workers
from tfaug.engine.errors import UserError
from tfaug.types import Volume

DIGITS = 4  # of the resolution
MARGIN = 0.1  # of the labelled region's length, on either side
MULTIPLE = 32  # a generator upsamples by 2 five times


class Region(NamedTuple):
    """Where a volume is labelled, in plane.

    Attributes:
      shape: (X, Y, Z) of the volume.
      spacing: mm along X, Y, Z.
      box: ((first, last + 1) along X, the same along Y) of the labelled voxels.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    box: tuple[tuple[int, int], tuple[int, int]]


class Choice(NamedTuple):
    """The chosen resolution (mm per pixel) and image size (pixels along each side of a slice)."""

    resolution: float
    image_size: int


def choose(
    dataset: DataSet,
    cases: Iterable[str],
    labelled: Iterable[str],
    given_resolution: float | None = None,
    skip_unusable: bool = False,
) -> Choice:
    """Reads a data set and chooses resolution and image size.

    Args:
      dataset: the data set to read from.
      cases: all cases in use; their spacings determine the resolution, their labels are not looked for.
      labelled: the labelled and validation cases; their labels determine the size.
      given_resolution: mm per pixel, if only the size is to be chosen; then only `labelled` is read.
      skip_unusable: choose from the other cases, if these have labels.

    Raises:
      UserError: cases cannot be used, see `check.refuse`, or no voxel of `labelled` is labelled.
      Interrupted: a signal asked the program to stop.
    """
    labelled = dict.fromkeys(labelled)
    others = [case for case in dict.fromkeys(cases) if case not in labelled] if given_resolution is None else []
    spacings, regions, errors = [], [], {}
    wanted = [*((case, True) for case in labelled), *((case, False) for case in others)]
    for case, label in workers.progress(wanted, len(wanted), "choosing resolution and image size", "case"):
        try:
            with cache.explained(case):
                volume = dataset.read(case, label)
                preprocess.check(volume)
        except UserError as error:
            errors.setdefault(str(error), (case, error))
            continue
        spacings.append(volume.spacing)
        found = None if volume.label is None else labelled_region(volume)
        regions += [] if found is None else [found]
    if not (skip_unusable and regions):
        check.refuse(check.Findings(dataset.root, len(wanted), len(labelled), list(errors.values())))
    chosen = resolution(spacings) if given_resolution is None else given_resolution
    return Choice(chosen, image_size(regions, chosen))


def resolution(spacings: Sequence[tuple[float, float, float]]) -> float:
    """The median in-plane spacing of all cases, mm, rounded to four significant digits.

    Args:
      spacings: mm along X, Y, Z of each case; slices lie along Z.
    """
    median = float(np.median([mm for spacing in spacings for mm in spacing[:2]]))
    return float(f"{median:.{DIGITS}g}")


def image_size(regions: Sequence[Region], resolution: float) -> int:
    """The smallest multiple of 32 that holds every labelled region with a margin of a tenth of its length on each side.

    Slices are cropped about their centre, so an off-centre region needs more; none needs more than its whole slice.

    Args:
      regions: regions of the labelled cases.
      resolution: mm per pixel.

    Raises:
      UserError: there is no region.
    """
    if not regions:
        remedy = "give a number, or check the splits and data.structures"
        raise UserError("data.image_size", "cannot be chosen: no voxel of the labelled cases is labelled", remedy)
    size = MULTIPLE
    while not all(_holds(size, region, resolution) for region in regions):
        size += MULTIPLE
    return size


def labelled_region(volume: Volume) -> Region | None:
    """The region in which a volume is labelled; None if no voxel is."""
    marked = volume.label.any(axis=2)
    if not marked.any():
        return None
    box = tuple((int(found.min()), int(found.max()) + 1) for found in np.nonzero(marked))
    return Region(volume.label.shape, volume.spacing, box)


def _holds(size: int, region: Region, resolution: float) -> bool:
    """Whether the crop to `size` pixels keeps a region and its margin."""
    rescaled_shape = Grid(region.shape, region.spacing, size, resolution).rescaled_shape
    for n, rescaled, (first, last) in zip(region.shape, rescaled_shape, region.box):
        kept, _ = overlap(rescaled, size)
        margin = MARGIN * (last - first)
        start, stop = max(first - margin, 0) * rescaled / n, min(last + margin, n) * rescaled / n
        if start < kept.start or stop > kept.stop:
            return False
    return True
