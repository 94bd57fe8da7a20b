"""Overlap and surface distance of two masks, and numbers that describe the generators' fields.

HD95 and ASSD are each defined in two ways by different programs; `surface_distance` offers both:

"reloaded"    HD95 is the larger of the two directed 95th percentiles, ASSD the mean of the distances in both directions
              (Metrics Reloaded, Maier-Hein et al., Nature Methods 2024). The default.
"medpy"       HD95 is the 95th percentile of the distances in both directions, ASSD the mean of the two directed means:
              MedPy up to 0.4.0. MedPy 0.5.2 has this HD95, but the ASSD of "reloaded".

Rules for empty masks, so that no NaN ever reaches a mean by accident:

| masks | Dice | HD95, ASSD |
| --- | --- | --- |
| both empty | 1 | 0 mm (the segmenter rightly found nothing; as the BraTS challenge scores it) |
| exactly one empty | 0 | undefined: NaN, to be counted as a failure and left out of means |

`evaluation.summary` counts both kinds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

NUM_LEVELS = 257  # quantiles that stand for a histogram

# The definitions of HD95 and ASSD, as shown to the user.
DISTANCES = {
    "reloaded": "HD95: the larger of the directed 95th percentiles; ASSD: the mean of all distances (Metrics Reloaded)",
    "medpy": "HD95: the 95th percentile of all distances; ASSD: the mean of the directed means (MedPy 0.4.0)",
}
DEFAULT_DISTANCES = "reloaded"


class SurfaceDistance(NamedTuple):
    """Distances between the surfaces of two masks in mm; both NaN where exactly one mask is empty."""

    hd95: float
    assd: float


def dice(prediction: np.ndarray, reference: np.ndarray, structure: int) -> float:
    """The Dice similarity coefficient 2 |P and R| / (|P| + |R|) of one structure; see above for empty masks.

    Args:
      prediction: [X, Y, Z] integer mask.
      reference: the same.
      structure: the structure's class.
    """
    predicted, true = _masks(prediction, reference, structure)
    total = predicted.sum() + true.sum()
    if total == 0:
        return 1.0
    return float(2 * np.count_nonzero(predicted & true) / total)


def surface_distance(
    prediction: np.ndarray,
    reference: np.ndarray,
    structure: int,
    spacing: Sequence[float],
    definition: str = DEFAULT_DISTANCES,
) -> SurfaceDistance:
    """The 95th percentile Hausdorff distance and the average symmetric surface distance of one structure.

    The surface of a mask is the mask without its erosion by the 6-neighbourhood, outside the volume counting as
    background. A directed distance goes from the centre of each surface voxel of one mask to the nearest centre of
    a surface voxel of the other. Across an axis of length 1 there is no surface: in a scan of a single slice, surfaces
    are contours in plane.

    By default, HD95 is the larger of the two directed 95th percentiles (Huttenlocher et al., 1993, with the quantile
    0.95), and ASSD the sum of the distances in both directions divided by their number (Heimann et al., 2009).

    Args:
      prediction: [X, Y, Z] integer mask.
      reference: the same.
      structure: the structure's class.
      spacing: mm per voxel along X, Y, Z.
      definition: of HD95 and ASSD, a key of `DISTANCES`. The rules for empty masks, on which MedPy fails, are common
        to all.

    Raises:
      ValueError: the definition is unknown.
    """
    if definition not in DISTANCES:
        raise ValueError(f"definition of distances: {definition!r}, not one of {', '.join(DISTANCES)}")
    predicted, true = _masks(prediction, reference, structure)
    if not predicted.any() and not true.any():
        return SurfaceDistance(0.0, 0.0)
    if not predicted.any() or not true.any():
        return SurfaceDistance(math.nan, math.nan)
    single = tuple(axis for axis, n in enumerate(predicted.shape) if n == 1)[:2]  # one axis always stays
    predicted, true, spacing = predicted.squeeze(single), true.squeeze(single), np.delete(spacing, single)
    # No surface voxel lies outside the masks' common box: the crop changes no distance and saves most of the time.
    box = ndimage.find_objects((predicted | true).astype(np.uint8))[0]
    predicted_surface, true_surface = _surface(predicted[box]), _surface(true[box])
    to_true = _distance_to(true_surface, spacing)[predicted_surface]
    to_predicted = _distance_to(predicted_surface, spacing)[true_surface]
    both = np.concatenate([to_true, to_predicted])
    if definition == "medpy":
        return SurfaceDistance(float(np.percentile(both, 95)), float((to_true.mean() + to_predicted.mean()) / 2))
    return SurfaceDistance(
        hd95=float(max(np.percentile(to_true, 95), np.percentile(to_predicted, 95))),
        assd=float(both.mean()),
    )


def jacobian_determinant(deformation: np.ndarray) -> np.ndarray:
    """The determinant of the Jacobian of the map x -> x - v(x) that `warp` samples along.

    Args:
      deformation: [..., H, W, 2] in pixels, (row, column).

    Returns:
      [..., H, W], by central differences (one-sided at the border). It is 1 where content only moves, above 1 where it
      shrinks, at most 0 where the field folds.
    """
    rows, columns = np.moveaxis(deformation, -1, 0)
    d_row, d_column = np.gradient(rows, axis=(-2, -1)), np.gradient(columns, axis=(-2, -1))
    return (1 - d_row[0]) * (1 - d_column[1]) - d_row[1] * d_column[0]


def deformation_diagnostics(deformations: np.ndarray, resolution: float) -> dict[str, float]:
    """Describes deformation fields of some images under several z.

    Args:
      deformations: [K, N, H, W, 2] in pixels: K draws of z for N images.
      resolution: mm per pixel.

    Returns:
      mean, median, 95th percentile and maximum of the displacements in pixels and in mm; `folded`, the share of pixels
      whose Jacobian determinant is at most 0; `roughness`, the mean Frobenius norm of the field's Jacobian (0 for a
      translation); `diversity_px`, the root mean square distance of a pixel's K displacements from their mean, averaged
      over pixels and images (0 for a generator that ignores z); `diversity_input_px`, the same over images (0 for one
      that ignores the image).
    """
    displacement = np.linalg.norm(deformations, axis=-1)
    pixels = {f"displacement_{name}": value for name, value in _spread(displacement).items()}
    slopes = np.stack([np.gradient(part, axis=(-2, -1)) for part in np.moveaxis(deformations, -1, 0)])
    return {
        **{f"{name}_px": value for name, value in pixels.items()},
        **{f"{name}_mm": value * resolution for name, value in pixels.items()},
        "folded": float(np.mean(jacobian_determinant(deformations) <= 0)),
        "roughness": float(np.sqrt((slopes**2).sum(axis=(0, 1))).mean()),
        "diversity_px": float(np.sqrt(deformations.var(axis=0).sum(axis=-1)).mean()),
        "diversity_input_px": float(np.sqrt(deformations.var(axis=1).sum(axis=-1)).mean()),
    }


def intensity_diagnostics(intensity_fields: np.ndarray) -> dict[str, float]:
    """Describes intensity fields of some images under several z.

    Args:
      intensity_fields: [K, N, H, W, C], dI for K draws of z and N images.

    Returns:
      mean, median, 95th percentile and maximum of |dI|; `saturated`, the share of pixels with |dI| above 0.95, which
      are near the limit of tanh if there is one; `diversity`, the standard deviation over z, averaged over pixels and
      images (0 for a generator that ignores z); `diversity_input`, the same over images.
    """
    magnitude = np.abs(intensity_fields)
    return {
        **{f"intensity_{name}": value for name, value in _spread(magnitude).items()},
        "saturated": float(np.mean(magnitude > 0.95)),
        "diversity": float(intensity_fields.std(axis=0).mean()),
        "diversity_input": float(intensity_fields.std(axis=1).mean()),
    }


def lost_anatomy(before: np.ndarray, after: np.ndarray) -> float:
    """How much of the labelled structures a transform moves out of the image or shrinks away.

    Args:
      before: [..., H, W, C] one-hot labels, background first.
      after: the same, one-hot or soft, of the transformed slices.

    Returns:
      The mean of 1 - area after / area before, at least 0, over slices and the structures in them; 0 if there are none.
    """
    areas = before[..., 1:].sum(axis=(-3, -2)), after[..., 1:].sum(axis=(-3, -2))
    there = areas[0] > 0
    lost = np.maximum(0, 1 - areas[1][there] / areas[0][there])
    return float(lost.mean()) if there.any() else 0.0


def histogram_distance(one: np.ndarray, other: np.ndarray) -> float:
    """The Wasserstein distance (order 1) between two sets of grey values: the mean gap between their quantiles."""
    levels = np.linspace(0, 1, NUM_LEVELS)
    return float(np.abs(np.quantile(one, levels) - np.quantile(other, levels)).mean())


def _spread(values):
    return {
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "p95": float(np.percentile(values, 95)),
        "max": float(values.max()),
    }


def _masks(prediction, reference, structure):
    if prediction.shape != reference.shape:
        raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} lie on different grids")
    return prediction == structure, reference == structure


def _surface(mask):
    return mask & ~ndimage.binary_erosion(mask)


def _distance_to(surface, spacing):
    return ndimage.distance_transform_edt(~surface, sampling=spacing)
