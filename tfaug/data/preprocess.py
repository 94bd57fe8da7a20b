"""Preprocessing as in the paper's section 3.2, and its inverse for evaluation on the native grid."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from skimage import transform

from tfaug.engine.errors import UserError
from tfaug.types import Volume

VERSION = 4  # increase it when results change, so that cached volumes are prepared again

N4_CONVERGENCE_THRESHOLD = 0.001
N4_ITERATIONS = (50, 50, 50, 50)  # one entry per fitting level
# The result depends on ITK's number of threads. Only the global number counts: N4 passes its own to no inner filter.
N4_THREADS = 1
PERCENTILES = (2, 98)
MAX_NORMALISED = 1e6  # a voxel further from the others is damaged, and would overflow in a network


@dataclasses.dataclass(frozen=True)
class Spec:
    """The parameters of preprocessing.

    Attributes:
      image_size: pixels along each side of a prepared slice.
      resolution: mm per pixel in plane.
      n4_shrink: N4 estimates the bias field on every n-th pixel in plane; 1 is exact, 0 leaves N4 out.
    """

    image_size: int
    resolution: float
    n4_shrink: int


@dataclasses.dataclass(frozen=True)
class Grid:
    """How prepared slices are located in their scan.

    Attributes:
      native_shape: (X, Y, Z) of the scan; slices lie along Z.
      spacing: mm per voxel of the scan along X, Y, Z.
      image_size: pixels along each side of a prepared slice.
      resolution: mm per pixel of a prepared slice.
      axis: the file's axis that became Z.
    """

    native_shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    image_size: int
    resolution: float
    axis: int = 2

    @property
    def rescaled_shape(self) -> tuple[int, int]:
        """The size in pixels of a whole slice at `resolution`, before cropping or padding."""
        scale = np.divide(self.spacing[:2], self.resolution)
        return tuple(int(n) for n in np.maximum(np.round(self.native_shape[:2] * scale), 1))


@dataclasses.dataclass(frozen=True)
class Prepared:
    """One scan, ready for the networks.

    Attributes:
      case: its name.
      image: [Z, H, W, C] float32; H and W are the X and Y of its `Volume`.
      label: [Z, H, W] uint8, the classes of the task, or None for an unlabelled scan.
      grid: how to map back to the scan.
      path: the file of the first channel.
      cut: the share of each structure's voxels that the crop cuts off, in the order of the classes up to the last one
        in the label; None without a label.
      order: that of its `Volume`.
      digest: SHA-256 of the contents of its files, "" if unknown.
      contradiction: how a header of its files contradicts itself about the voxel size; "" if it does not, or unknown.
      volume: the scan on its own grid, if requested.
    """

    case: str
    image: np.ndarray
    label: np.ndarray | None
    grid: Grid
    path: pathlib.Path
    cut: np.ndarray | None = None
    order: str = ""
    digest: str = ""
    contradiction: str = ""
    volume: Volume | None = None


class Segmentation(NamedTuple):
    """A prediction on a scan's native grid; `to_file_order` restores the order of the axes.

    Attributes:
      classes: [X, Y, Z] uint8, the most probable class.
      probabilities: [X, Y, Z, num_classes] float16, which sum to 1; None if not requested.
    """

    classes: np.ndarray
    probabilities: np.ndarray | None


def prepare_volume(volume: Volume, spec: Spec) -> Prepared:
    """Corrects the bias field and normalises, channel by channel; rescales in plane, crops or pads (section 3.2).

    Raises:
      UserError: the image cannot be normalised, or N4 fails on it.
    """
    check(volume)  # N4 would turn a constant into noise
    grid = Grid(volume.image.shape[:3], volume.spacing, spec.image_size, spec.resolution, volume.axis)
    return Prepared(
        case=volume.case,
        image=np.stack([_prepare_channel(channel, volume, spec, grid) for channel in _channels(volume)], axis=-1),
        label=None if volume.label is None else _to_network(volume.label, grid, order=0).astype(np.uint8),
        grid=grid,
        path=volume.path,
        cut=None if volume.label is None else _cut(volume.label, grid),
        order=volume.order,
    )


def check(volume: Volume) -> None:
    """The quick checks of `prepare_volume`.

    Raises:
      UserError: a channel of the image cannot be normalised.
    """
    for channel in _channels(volume):
        normalise(channel, volume.path)


def _channels(volume: Volume) -> Iterator[np.ndarray]:
    """Each channel, [X, Y, Z]."""
    return (volume.image[..., c] for c in range(volume.image.shape[-1]))


def _prepare_channel(image: np.ndarray, volume: Volume, spec: Spec, grid: Grid) -> np.ndarray:
    """[X, Y, Z] to [Z, H, W] float32."""
    if spec.n4_shrink:
        image = correct_bias(image, volume.spacing, spec.n4_shrink, volume.case)
    return _to_network(normalise(image, volume.path), grid, order=1).astype(np.float32)


def correct_bias(image: np.ndarray, spacing, shrink: int, case: str) -> np.ndarray:
    """Divides one channel by the smooth bias field that N4 estimates.

    N4 takes logarithms: an image with negative values is shifted first, so that its minimum is 0. The field of a single
    slice is two-dimensional.

    Args:
      image: [X, Y, Z] float32.
      spacing: mm per voxel along X, Y, Z.
      shrink: the field is estimated on every `shrink`-th pixel in plane and applied to all.
      case: named in errors.

    Returns:
      [X, Y, Z] float32.

    Raises:
      UserError: N4 fails or its result is not finite.
    """
    if image.min() < 0:
        image = image - image.min()
    dimensions = 2 if image.shape[2] == 1 else 3
    shape = image.shape[:dimensions]
    full = sitk.GetImageFromArray(np.ascontiguousarray(image.reshape(shape).T, np.float32))
    full.SetSpacing([float(mm) for mm in spacing[:dimensions]])
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetConvergenceThreshold(N4_CONVERGENCE_THRESHOLD)
    n4.SetMaximumNumberOfIterations(N4_ITERATIONS)
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(N4_THREADS)
    try:
        n4.Execute(sitk.Shrink(full, [shrink, shrink, 1][:dimensions]))
        log_field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(full)).T.reshape(image.shape)
    except RuntimeError as error:
        raise _n4_failed(case, f"fails ({str(error).strip().splitlines()[-1]})") from error
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    with np.errstate(all="ignore"):  # non-finite voxels are reported
        corrected = image / np.exp(log_field)
    if not np.isfinite(corrected).all():
        raise _n4_failed(case, "gives NaN or infinite voxels")
    return corrected


def _n4_failed(case: str, problem: str) -> UserError:
    return UserError(
        case, f"N4 bias correction {problem}", "take the case out of the split, or set data.n4_shrink to 0"
    )


def normalise(image: np.ndarray, subject) -> np.ndarray:
    """(x - p2) / (p98 - p2) with the percentiles of one channel [X, Y, Z], not clipped.

    Raises:
      UserError: about `subject`: the percentiles coincide, or voxels lie too far from the others.
    """
    with np.errstate(all="ignore"):  # non-finite voxels are reported
        low, high = np.percentile(image, PERCENTILES)
        # With the percentiles as they are, NumPy 2 would compute in float64.
        normalised = (image - np.float32(low)) / np.float32(high - low)
    if low == high:
        raise UserError(
            subject,
            f"has no contrast: its 2nd and 98th percentile are both {low:g}",
            "replace the scan, or leave it out",
        )
    if not np.abs(normalised).max() <= MAX_NORMALISED:  # true for NaN as well
        raise UserError(
            subject,
            f"has voxels of up to {np.abs(image).max():g} beside 2nd and 98th percentiles of {low:g} and {high:g}",
            "replace the scan, or leave it out",
        )
    return normalised


def restore(probabilities: np.ndarray, grid: Grid) -> np.ndarray:
    """The inverse of preprocessing: a prediction on the native grid.

    Probabilities are put back where the crop was taken, resized bilinearly to the native size, and only then
    compared. Voxels outside the crop are background.

    Args:
      probabilities: [Z, H, W, num_classes], a softmax or a one-hot label.
      grid: grid of the scan.

    Returns:
      [X, Y, Z] uint8, the most probable class; `to_file_order` restores the order of the axes.
    """
    return restore_mean([(probabilities, grid)]).classes


def restore_mean(parts: Sequence[tuple[np.ndarray, Grid]], keep_probabilities: bool = False) -> Segmentation:
    """Like `restore`, for the mean of several predictions of one scan, each with its own grid; slice by slice.

    Outside its own crop, a prediction does not contribute.
    """
    shape, num_classes = parts[0][1].native_shape, parts[0][0].shape[-1]
    classes = np.zeros(shape, np.uint8)
    kept = np.zeros((*shape, num_classes), np.float16) if keep_probabilities else None
    for z, scores in enumerate(zip(*(_native_slices(*part) for part in parts))):
        total = functools.reduce(np.add, scores)
        classes[..., z] = np.argmax(total, axis=0)
        if keep_probabilities:
            kept[..., z, :] = np.moveaxis(_distribution(total), 0, -1)
    return Segmentation(classes, kept)


def _native_slices(probabilities: np.ndarray, grid: Grid) -> Iterator[np.ndarray]:
    """[num_classes, X, Y] of each slice, 0 outside the crop."""
    for scores in probabilities:
        whole = _crop_or_pad(scores, grid.rescaled_shape)
        yield np.stack([_resize(whole[..., c], grid.native_shape[:2], order=1) for c in range(whole.shape[-1])])


def _distribution(scores: np.ndarray) -> np.ndarray:
    """Scores [num_classes, X, Y] as probabilities that sum to 1; background where all are 0."""
    total = scores.sum(axis=0)
    outside = total == 0
    probabilities = scores / np.where(outside, 1, total)
    probabilities[0][outside] = 1
    return probabilities


def to_file_order(array: np.ndarray, axis: int) -> np.ndarray:
    """Brings an array [X, Y, Z, ...] on a `Volume`'s grid into the file's order of axes; `axis` is the volume's."""
    return np.moveaxis(array, 2, axis)


def _cut(label: np.ndarray, grid: Grid) -> np.ndarray:
    """The share of each class's voxels, without the background, whose centres lie outside the crop."""
    kept = []
    for n, rescaled in zip(grid.native_shape, grid.rescaled_shape):
        inside, _ = overlap(rescaled, grid.image_size)
        centres = (np.arange(n) + 0.5) * rescaled / n
        kept.append((inside.start <= centres) & (centres < inside.stop))
    cropped = label[np.ix_(*kept)]
    counts = [[np.count_nonzero(part == k) for part in (cropped, label)] for k in range(1, int(label.max()) + 1)]
    return np.array([1 - left / total if total else 0.0 for left, total in counts])


def _to_network(volume: np.ndarray, grid: Grid, order: int) -> np.ndarray:
    """[X, Y, Z] on the native grid to [Z, H, W]."""
    size = (grid.image_size, grid.image_size)
    slices = (volume[..., z] for z in range(volume.shape[2]))
    return np.stack([_crop_or_pad(_resize(s, grid.rescaled_shape, order), size) for s in slices])


def _resize(image: np.ndarray, shape: tuple[int, int], order: int) -> np.ndarray:
    return transform.resize(image, shape, order=order, mode="constant", preserve_range=True, anti_aliasing=False)


def _crop_or_pad(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Crops or zero-pads the first two axes about the centre; with the shapes swapped it is its own inverse."""
    out = np.zeros((*shape, *image.shape[2:]), image.dtype)
    rows, columns = (overlap(n, size) for n, size in zip(image.shape, shape))
    out[rows[1], columns[1]] = image[rows[0], columns[0]]
    return out


def overlap(n: int, size: int) -> tuple[slice, slice]:
    """The overlap of two centred axes of `n` and `size` pixels: (slice of the first, slice of the second)."""
    shared = min(n, size)
    return tuple(slice((m - shared) // 2, (m - shared) // 2 + shared) for m in (n, size))
