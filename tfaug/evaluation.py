"""Evaluates a segmenter on the scans' own grids, against the experts' untouched masks.

A segmenter is given as a function from prepared slices [Z, H, W] float32 to class probabilities [Z, H, W, 4].
"""

from __future__ import annotations

import functools
import pathlib
import sys
from collections.abc import Callable, Sequence

import nibabel
import numpy as np
import pandas as pd
import tqdm

from tfaug import metrics, pictures
from tfaug.data import nifti
from tfaug.data.preprocess import Prepared, restore
from tfaug.engine.files import replacing
from tfaug.engine.signals import check_signals
from tfaug.types import STRUCTURES, Volume

Predict = Callable[[np.ndarray], np.ndarray]
Case = tuple[Prepared, Volume]  # one scan, as the segmenter sees it and as it lies in its file

_replacing = functools.partial(replacing, remedy="make room or choose another folder, then run the command again")

LABELS = {structure: label for label, structure in enumerate(STRUCTURES, start=1)}

# The header fields that say where voxels lie. Both transforms are copied as they are: ACDC's scans carry a true
# qform beside a unit sform, and a mask must follow its scan in every viewer, whichever of the two that prefers.
GEOMETRY = (
    "pixdim xyzt_units qform_code quatern_b quatern_c quatern_d qoffset_x qoffset_y qoffset_z "
    "sform_code srow_x srow_y srow_z"
).split()


def segment(predict: Predict, prepared: Prepared) -> np.ndarray:
    """The predicted mask [X, Y, Z] uint8 of one scan on its native grid."""
    return restore(predict(prepared.image), prepared.grid)


def validation_dice(predict: Predict, cases: Sequence[Case]) -> dict[str, float]:
    """Mean Dice over cases, of each structure and their "mean"; without distances, to be quick during training."""
    scores = []
    for prepared, volume in cases:
        prediction = segment(predict, prepared)
        scores.append([metrics.dice(prediction, volume.label, label) for label in LABELS.values()])
    by_structure = np.mean(scores, axis=0)
    return {**dict(zip(LABELS, by_structure.tolist())), "mean": float(by_structure.mean())}


def score(prediction: np.ndarray, volume: Volume) -> list[dict]:
    """Compares a native mask with the expert's: one row a structure.

    Returns:
      rows of case, structure, dice, hd95_mm, assd_mm; undefined distances are NaN (see `metrics`).
    """
    rows = []
    for structure, label in LABELS.items():
        distance = metrics.surface_distance(prediction, volume.label, label, volume.spacing)
        rows.append(
            {
                "case": volume.case,
                "structure": structure,
                "dice": metrics.dice(prediction, volume.label, label),
                "hd95_mm": distance.hd95,
                "assd_mm": distance.assd,
            }
        )
    return rows


def evaluate(predict: Predict, cases: Sequence[Case], out_dir: pathlib.Path, phase: str) -> pd.DataFrame:
    """Segments, scores and draws every case.

    Writes, below `out_dir`: masks/<case>_<phase>_prediction.nii.gz, pictures/<case>.png, pictures/overview.png,
    summary.txt and, last, dice.csv: where that exists, the evaluation is complete. Each file appears whole or not
    at all, and running an interrupted evaluation again replaces what it left.

    Args:
      predict: the segmenter.
      cases: the volumes have their experts' masks.
      out_dir: made if it is missing.
      phase: "ES" or "ED", for the masks' names.

    Returns:
      the rows of `score` for all cases.

    Raises:
      MachineError: a file cannot be written.
    """
    rows, tiles = [], []
    bar = tqdm.tqdm(cases, desc="evaluation", unit="case", file=sys.stdout, disable=not sys.stdout.isatty())
    for number, (prepared, volume) in enumerate(bar, start=1):
        check_signals()
        prediction = segment(predict, prepared)
        case_rows = score(prediction, volume)
        rows += case_rows
        mask = mask_image(prediction, volume.path)
        with _replacing(mask_file(out_dir, volume.case, phase)) as path:
            nibabel.save(mask, path)
        picture = case_picture(prediction, volume)
        with _replacing(out_dir / "pictures" / f"{volume.case}.png") as path:
            pictures.save(picture, path)
        tiles.append(_tile(prediction, volume, case_rows))
        if bar.disable:
            scores = " ".join(f"{row['structure']} {row['dice']:.3f}" for row in case_rows)
            print(f"evaluation: {volume.case} ({number}/{len(cases)}): Dice {scores}", flush=True)
    table = pd.DataFrame(rows)
    overview = pictures.overlay(*zip(*tiles))
    with _replacing(out_dir / "pictures" / "overview.png") as path:
        pictures.save(overview, path)
    with _replacing(out_dir / "summary.txt") as path:
        path.write_text(summary(table) + "\n", encoding="utf-8")
    with _replacing(out_dir / "dice.csv") as path:
        table.to_csv(path, index=False, float_format="%.6f")
    return table


def summary(table: pd.DataFrame) -> str:
    """A text table of means and standard deviations over patients, for each structure and for their mean.

    The last row averages, within each patient, over the structures, and then over patients. Undefined distances are
    left out of means, and counted in the last column.

    Args:
      table: rows of `score`.
    """
    scores = ["dice", "hd95_mm", "assd_mm"]
    of_means = table.groupby("case", sort=False)[scores].mean()
    lines = [f"{'':4}  {'Dice':>16}  {'HD95 (mm)':>16}  {'ASSD (mm)':>16}  undefined distances"]
    for structure in (*STRUCTURES, "mean"):
        selected = table if structure == "mean" else table[table.structure == structure]
        values = of_means if structure == "mean" else selected[scores]
        cells = [_mean_and_deviation(values[name], 3 if name == "dice" else 2) for name in scores]
        undefined = f"{selected.hd95_mm.isna().sum()} of {len(selected)}"
        lines.append(f"{structure:4}  " + "  ".join(f"{cell:>16}" for cell in cells) + f"  {undefined:>19}")
    return "\n".join(lines)


def mask_file(out_dir: pathlib.Path, case: str, phase: str) -> pathlib.Path:
    """Where `evaluate` keeps the mask of a case."""
    return out_dir / "masks" / f"{case}_{phase}_prediction.nii.gz"


def mask_image(mask: np.ndarray, scan: pathlib.Path) -> nibabel.Nifti1Image:
    """A mask [X, Y, Z] as uint8 NIfTI with the geometry of the scan in the file `scan`."""
    source = nifti.read(scan).header  # as the volume was read: nibabel objects to headers that say enough
    header = nibabel.Nifti1Header()
    for field in GEOMETRY:
        header[field] = source[field]
    header.set_data_dtype(np.uint8)
    header["cal_max"] = max(LABELS.values())  # the grey window that viewers open the mask with
    # Without an affine, nibabel leaves both of the header's transforms as they are.
    return nibabel.Nifti1Image(mask.astype(np.uint8), None, header)


def case_picture(prediction: np.ndarray, volume: Volume) -> np.ndarray:
    """Scan, expert and prediction in the middle slices of the heart's basal, middle and apical thirds."""
    chosen = representative_slices(volume.label)
    window = heart_window(volume.label[..., chosen], prediction[..., chosen])
    stacks = (volume.image, volume.label, prediction)
    return pictures.segmentation_panel(
        *([stack[(*window, z)] for z in chosen] for stack in stacks),
        names=[f"slice {z + 1} of {volume.image.shape[2]}" for z in chosen],
    )


def representative_slices(label: np.ndarray) -> list[int]:
    """The middle slices of the three thirds of a labelled stack [X, Y, Z], fewer if it has fewer slices."""
    labelled = np.flatnonzero(label.any(axis=(0, 1)))
    if not labelled.size:
        labelled = np.arange(label.shape[2])
    middles = (np.array([1, 3, 5]) * labelled.size) // 6
    return sorted({int(z) for z in labelled[middles]})


def heart_window(*masks: np.ndarray, scale: float = 1.4) -> tuple[slice, slice]:
    """A square around everything marked in masks [X, Y, Z], as far as the image reaches; all of it if nothing is.

    Args:
      *masks: on one grid.
      scale: the square's side over the larger side of what is marked.
    """
    marked = np.any([mask.any(axis=2) for mask in masks], axis=0)
    if not marked.any():
        return slice(None), slice(None)
    extents = [(indices.min(), indices.max() + 1) for indices in np.nonzero(marked)]
    side = int(scale * max(end - start for start, end in extents))
    starts = [max(0, min((start + end - side) // 2, n - side)) for (start, end), n in zip(extents, marked.shape)]
    return tuple(slice(int(start), int(start) + side) for start in starts)


def _tile(prediction, volume, case_rows):
    """(image, prediction, title, expert) of one case for the overview, in the middle of the stack."""
    chosen = representative_slices(volume.label)
    z = chosen[len(chosen) // 2]
    window = heart_window(volume.label[..., z : z + 1], prediction[..., z : z + 1])
    title = f"{volume.case}  {np.mean([row['dice'] for row in case_rows]):.2f}"
    return volume.image[(*window, z)], prediction[(*window, z)], title, volume.label[(*window, z)]


def _mean_and_deviation(values: pd.Series, decimals: int) -> str:
    defined = values.dropna()
    if defined.empty:
        return "undefined"
    # The population's deviation: it exists for a single patient too.
    return f"{defined.mean():.{decimals}f} +- {defined.std(ddof=0):.{decimals}f}"
