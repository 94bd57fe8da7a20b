"""Evaluates a segmenter on the scans' own grids, against the untouched reference labels.

A segmenter is given as a function from prepared slices [Z, H, W, C] float32 to class probabilities [Z, H, W, classes].
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd

from tfaug import metrics, pictures
from tfaug.data import images
from tfaug.data.preprocess import Prepared, restore, to_file_order
from tfaug.data.task import Task
from tfaug.engine.files import replacing
from tfaug.engine.workers import progress
from tfaug.types import Volume

Predict = Callable[[np.ndarray], np.ndarray]

_ROOM = "make room or choose another folder, then run the command again"
_replacing = functools.partial(replacing, remedy=_ROOM)


def segment(predict: Predict, prepared: Prepared) -> np.ndarray:
    """The predicted mask [X, Y, Z] uint8 of classes of one scan on its native grid."""
    return restore(predict(prepared.image), prepared.grid)


def validation_dice(predict: Predict, scans: Sequence[Prepared], task: Task) -> dict[str, float]:
    """Mean Dice over scans, of each structure and their "mean"; without distances, to be quick during training."""
    scores = []
    for prepared in scans:
        prediction = segment(predict, prepared)
        scores.append([metrics.dice(prediction, prepared.volume.label, index) for index in task.classes.values()])
    by_structure = np.mean(scores, axis=0)
    return {**dict(zip(task.names, by_structure.tolist())), "mean": float(by_structure.mean())}


def score(prediction: np.ndarray, volume: Volume, task: Task) -> list[dict]:
    """Compares a native mask with the reference: one row a structure.

    Returns:
      rows of case, structure, dice, hd95_mm, assd_mm, and whether both masks lack the structure; undefined distances
        are NaN (see `metrics`).
    """
    rows = []
    for structure, index in task.classes.items():
        distance = metrics.surface_distance(prediction, volume.label, index, volume.spacing)
        rows.append(
            {
                "case": volume.case,
                "structure": structure,
                "dice": metrics.dice(prediction, volume.label, index),
                "hd95_mm": distance.hd95,
                "assd_mm": distance.assd,
                "in_neither": not np.any((prediction == index) | (volume.label == index)),
            }
        )
    return rows


def evaluate(
    predict: Predict, scans: Iterable[Prepared], num_scans: int, out_dir: pathlib.Path, task: Task, tag: str = ""
) -> pd.DataFrame:
    """Segments, scores and draws every scan.

    Writes, below `out_dir`: masks (see `mask_file`), pictures/<case>.png, pictures/overview.png, summary.txt and, last,
    dice.csv: where that exists, the evaluation is complete. Each file appears whole or not at all, and running an
    interrupted evaluation again replaces what it left.

    Args:
      predict: the segmenter.
      scans: with their native volumes and labels; one is held at a time.
      num_scans: how many there are.
      out_dir: made if it is missing.
      task: what the labels mean.
      tag: a part of the masks' names, as "ES".

    Returns:
      the rows of `score` for all scans.

    Raises:
      MachineError: a file cannot be written.
    """
    rows, tiles = [], []
    done = (_evaluate_case(predict, prepared, out_dir, task, tag) for prepared in scans)
    for case_rows, tile in progress(done, num_scans, "evaluation", "case"):
        rows += case_rows
        tiles.append(tile)
    table = pd.DataFrame(rows)
    shown, masks, titles, references = zip(*tiles)
    overview = pictures.overlay(shown, masks, titles, task.colours, references)
    with _replacing(out_dir / "pictures" / "overview.png") as path:
        pictures.save(overview, path)
    write_scores(table, out_dir)
    return table


def write_scores(table: pd.DataFrame, folder: pathlib.Path, remedy: str = _ROOM) -> None:
    """Writes summary.txt and, last, dice.csv.

    Raises:
      MachineError: a file cannot be written.
    """
    with replacing(folder / "summary.txt", remedy) as path:
        path.write_text(summary(table) + "\n", encoding="utf-8")
    with replacing(folder / "dice.csv", remedy) as path:
        table.to_csv(path, index=False, float_format="%.6f")


def _evaluate_case(predict, prepared, out_dir, task, tag):
    """Writes a case's mask and picture; returns the rows of `score` and its tile of the overview."""
    volume, prediction = prepared.volume, segment(predict, prepared)
    rows = score(prediction, volume, task)
    with _replacing(mask_file(out_dir, volume, tag)) as path:
        images.write_label(path, task.to_values(to_file_order(prediction, volume.axis)), volume.path)
    picture = case_picture(prediction, volume, task)
    with _replacing(out_dir / "pictures" / f"{volume.case}.png") as path:
        pictures.save(picture, path)
    return rows, _tile(prediction, volume, rows)


def summary(table: pd.DataFrame) -> str:
    """A text table of means and standard deviations over cases, for each structure and for their mean.

    The last row averages, within each case, over the structures, and then over cases. Undefined distances are left out
    of means, and counted in the last column. Below it is told how often a structure was in neither mask.

    Args:
      table: rows of `score`.
    """
    scores = ["dice", "hd95_mm", "assd_mm"]
    of_means = table.groupby("case", sort=False)[scores].mean()
    names = [*table.structure.unique(), "mean"]
    width = max(map(len, names))
    lines = [f"{'':{width}}  {'Dice':>16}  {'HD95 (mm)':>16}  {'ASSD (mm)':>16}  undefined distances"]
    for structure in names:
        selected = table if structure == "mean" else table[table.structure == structure]
        values = of_means if structure == "mean" else selected[scores]
        cells = [_mean_and_deviation(values[name], 3 if name == "dice" else 2) for name in scores]
        undefined = f"{selected.hd95_mm.isna().sum()} of {len(selected)}"
        lines.append(f"{structure:{width}}  " + "  ".join(f"{cell:>16}" for cell in cells) + f"  {undefined:>19}")
    in_neither = table[table.in_neither].groupby("structure", sort=False).size()
    if len(in_neither):
        counts = ", ".join(f"{structure} in {number}" for structure, number in in_neither.items())
        lines.append(
            f"Neither in the reference nor in the prediction, which counts as a Dice of 1 and 0 mm: {counts} of "
            f"{table.case.nunique()} cases"
        )
    return "\n".join(lines)


def mask_file(out_dir: pathlib.Path, volume: Volume, tag: str = "") -> pathlib.Path:
    """Where `evaluate` keeps the mask of a scan, in the scan's own format: masks/<case>[_<tag>]_prediction.nii.gz."""
    name = "_".join(filter(None, (volume.case, tag, "prediction")))
    return out_dir / "masks" / f"{name}{images.suffix(volume.path)}"


def case_picture(prediction: np.ndarray, volume: Volume, task: Task) -> np.ndarray:
    """Scan, reference and prediction in the middle slices of the labelled region's three thirds."""
    chosen = representative_slices(volume.label)
    window = labelled_window(volume.label[..., chosen], prediction[..., chosen])
    stacks = (volume.image[..., 0], volume.label, prediction)
    return pictures.segmentation_panel(
        *([stack[(*window, z)] for z in chosen] for stack in stacks),
        colours=task.colours,
        names=[f"slice {z + 1} of {volume.label.shape[2]}" for z in chosen],
    )


def representative_slices(label: np.ndarray) -> list[int]:
    """The middle slices of the three thirds of a labelled stack [X, Y, Z], fewer if it has fewer slices."""
    labelled = np.flatnonzero(label.any(axis=(0, 1)))
    if not labelled.size:
        labelled = np.arange(label.shape[2])
    middles = (np.array([1, 3, 5]) * labelled.size) // 6
    return sorted({int(z) for z in labelled[middles]})


def labelled_window(*masks: np.ndarray, scale: float = 1.4) -> tuple[slice, slice]:
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
    """(image, prediction, title, reference) of one case for the overview, in the middle of the stack."""
    chosen = representative_slices(volume.label)
    z = chosen[len(chosen) // 2]
    window = labelled_window(volume.label[..., z : z + 1], prediction[..., z : z + 1])
    title = f"{volume.case}  {np.mean([row['dice'] for row in case_rows]):.2f}"
    return volume.image[(*window, z, 0)], prediction[(*window, z)], title, volume.label[(*window, z)]


def _mean_and_deviation(values: pd.Series, decimals: int) -> str:
    defined = values.dropna()
    if defined.empty:
        return "undefined"
    # The population's deviation: it exists for a single case too.
    return f"{defined.mean():.{decimals}f} +- {defined.std(ddof=0):.{decimals}f}"
