"""Evaluates a segmenter on the scans' own grids, against the untouched reference labels.

A segmenter is given as a function from prepared slices [Z, H, W, C] float32 to class probabilities [Z, H, W, classes].
"""

from __future__ import annotations

import functools
import math
import pathlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd

from tfaug import indices, metrics, pictures
from tfaug.data import images
from tfaug.data.preprocess import Prepared, restore, to_file_order
from tfaug.data.readers import acdc
from tfaug.data.task import Task
from tfaug.engine.errors import counted
from tfaug.engine.files import machine_errors, replacing
from tfaug.engine.workers import progress
from tfaug.types import Hearts, Volume

Predict = Callable[[np.ndarray], np.ndarray]
SCORES = ("dice.csv", "indices.csv", "agreement.png", "summary.txt")  # what `write_scores` writes

_ROOM = "make room or choose another folder, then run the command again"
_replacing = functools.partial(replacing, remedy=_ROOM)


def segment(predict: Predict, prepared: Prepared) -> np.ndarray:
    """The predicted mask of one scan on its native grid, [X, Y, Z] uint8 classes."""
    return restore(predict(prepared.image), prepared.grid)


def validation_dice(predict: Predict, scans: Sequence[Prepared], task: Task) -> dict[str, float]:
    """Mean Dice over scans, of each structure and their "mean"; no distances, to be fast during training."""
    scores = []
    for prepared in scans:
        prediction = segment(predict, prepared)
        scores.append([metrics.dice(prediction, prepared.volume.label, index) for index in task.classes.values()])
    by_structure = np.mean(scores, axis=0)
    return {**dict(zip(task.names, by_structure.tolist())), "mean": float(by_structure.mean())}


def score(prediction: np.ndarray, volume: Volume, task: Task, distances: str = metrics.DEFAULT_DISTANCES) -> list[dict]:
    """Compares a native mask with the reference: one row per structure.

    Args:
      prediction: [X, Y, Z] classes.
      volume: the scan with its label.
      task: what the classes mean.
      distances: the definition of HD95 and ASSD, a key of `metrics.DISTANCES`.

    Returns:
      rows of case, structure, dice, hd95_mm, assd_mm, and whether both masks lack the structure; undefined distances
        are NaN (see `metrics`). Distances of another than the default definition are named after it, as hd95_medpy_mm.
    """
    rows = []
    hd95, assd = _distance_columns(distances)
    for structure, index in task.classes.items():
        distance = metrics.surface_distance(prediction, volume.label, index, volume.spacing, distances)
        rows.append(
            {
                "case": volume.case,
                "structure": structure,
                "dice": metrics.dice(prediction, volume.label, index),
                hd95: distance.hd95,
                assd: distance.assd,
                "in_neither": not np.any((prediction == index) | (volume.label == index)),
            }
        )
    return rows


def volumes(prediction: np.ndarray, volume: Volume, task: Task) -> list[dict]:
    """The volumes of all structures in a native mask and in the reference, see `indices.volumes`."""
    return indices.volumes(volume.case, prediction, volume.label, task.classes, volume.spacing)


def evaluate(
    predict: Predict,
    scans: Iterable[Prepared],
    num_scans: int,
    out_dir: pathlib.Path,
    task: Task,
    tag: str = "",
    hearts: Hearts | None = None,
    distances: str = metrics.DEFAULT_DISTANCES,
    before: Iterable[str] = (),
) -> pd.DataFrame:
    """Segments, scores and draws every scan.

    Writes, below `out_dir`: masks (see `mask_file`), pictures/<case>.png, the files of `write_scores`, and last
    pictures/overview.png, of some cases if there are very many. Each file is written atomically, and rerunning an
    interrupted evaluation replaces what it left. Then what earlier ones left of `before` is removed.

    Args:
      predict: the segmenter.
      scans: with their native volumes and labels; one is held at a time.
      num_scans: how many there are.
      out_dir: created if missing.
      task: what the labels mean.
      tag: a part of the masks' names, such as "ES".
      hearts: which structures and cases make up hearts, if any do.
      distances: the definition of HD95 and ASSD, see `score`.
      before: the cases of earlier evaluations in `out_dir`, whose masks and pictures are removed unless rewritten now.

    Returns:
      the rows of `score` for all scans.

    Raises:
      MachineError: a file cannot be written or removed.
    """
    rows, found, tiles, written = [], [], [], {out_dir / "pictures" / "overview.png"}
    done = (_evaluate_case(predict, prepared, out_dir, task, tag, distances) for prepared in scans)
    for case_rows, case_volumes, tile, files in progress(done, num_scans, "evaluation", "case"):
        rows += case_rows
        found += case_volumes
        tiles.append(tile)
        written.update(files)
    table = pd.DataFrame(rows)
    write_scores(table, indices.compute(found, hearts), out_dir, task)  # whatever becomes of the picture
    shown, masks, titles, references = zip(*tiles)
    overview = pictures.overlay(shown, masks, titles, task.colours, references)
    with _replacing(out_dir / "pictures" / "overview.png") as path:
        pictures.save(overview, path)
    for path in _files_of(out_dir, before) - written:
        with machine_errors(path, "make its folder writable, then run the command again"):
            path.unlink()
    return table


def write_scores(
    table: pd.DataFrame, measured: pd.DataFrame, folder: pathlib.Path, task: Task, remedy: str = _ROOM
) -> str:
    """Writes indices.csv, agreement.png, summary.txt and, last, dice.csv; returns the text of the summary.

    Args:
      table: rows of `score`.
      measured: what `indices.compute` returns.
      folder: where to write the files.
      task: gives the picture its colours.
      remedy: what a user can do if they cannot be written.

    Raises:
      MachineError: a file cannot be written.
    """
    text = "\n".join([summary(table), metrics.DISTANCES[_definition(table)], "", agreement_summary(measured)])
    picture = pictures.agreement(_comparisons(measured, task))
    with replacing(folder / "indices.csv", remedy) as path:
        indices.wide(measured).to_csv(path, index=False, float_format="%.6f")
    with replacing(folder / "agreement.png", remedy) as path:
        pictures.save(picture, path)
    with replacing(folder / "summary.txt", remedy) as path:
        path.write_text(text + "\n", encoding="utf-8")
    with replacing(folder / "dice.csv", remedy) as path:
        table.to_csv(path, index=False, float_format="%.6f")
    return text


def _evaluate_case(predict, prepared, out_dir, task, tag, distances):
    """Writes mask and picture; returns rows of `score` and `volumes`, the tile of the overview, and both files."""
    volume, prediction = prepared.volume, segment(predict, prepared)
    rows = score(prediction, volume, task, distances)
    files = mask_file(out_dir, volume, tag), out_dir / "pictures" / f"{volume.case}.png"
    with _replacing(files[0]) as path:
        images.write(path, task.to_values(to_file_order(prediction, volume.axis)), volume.path)
    picture = case_picture(prediction, volume, task)
    with _replacing(files[1]) as path:
        pictures.save(picture, path)
    return rows, volumes(prediction, volume, task), _tile(prediction, volume, rows), files


def _files_of(out_dir, cases):
    """The masks and pictures of cases, whatever their tag and format."""
    masks = {"_".join(filter(None, (case, tag, "prediction"))) for case in cases for tag in ("", *acdc.PHASES)}
    return {
        *(path for path in (out_dir / "masks").iterdir() if path.name.removesuffix(images.suffix(path) or "") in masks),
        *(path for path in (out_dir / "pictures").iterdir() if path.suffix == ".png" and path.stem in {*cases}),
    }


def summary(table: pd.DataFrame) -> str:
    """A text table of means and standard deviations over cases, for each structure and for their mean.

    The last row averages over the structures of each case, and then over cases. Undefined distances are left out of
    means and counted in the last column. A line below says how often a structure was in neither mask.

    Args:
      table: rows of `score`.
    """
    hd95, assd = _distance_columns(_definition(table))
    scores = ["dice", hd95, assd]
    of_means = table.groupby("case", sort=False)[scores].mean()
    names = [*table.structure.unique(), "mean"]
    width = max(map(len, names))
    lines = [f"{'':{width}}  {'Dice':>16}  {'HD95 (mm)':>16}  {'ASSD (mm)':>16}  undefined distances"]
    for structure in names:
        selected = table if structure == "mean" else table[table.structure == structure]
        values = of_means if structure == "mean" else selected[scores]
        cells = [_mean_and_deviation(values[name], 3 if name == "dice" else 2) for name in scores]
        undefined = f"{selected[hd95].isna().sum()} of {len(selected)}"
        lines.append(f"{structure:{width}}  " + "  ".join(f"{cell:>16}" for cell in cells) + f"  {undefined:>19}")
    in_neither = table[table.in_neither].groupby("structure", sort=False).size()
    if len(in_neither):
        counts = ", ".join(f"{structure} in {number}" for structure, number in in_neither.items())
        lines.append(
            f"Neither in the reference nor in the prediction, which counts as a Dice of 1 and 0 mm: {counts} of "
            f"{counted(table.case.nunique(), 'case')}"
        )
    return "\n".join(lines)


def agreement_summary(measured: pd.DataFrame) -> str:
    """A text table of each index: bias and limits of agreement, correlation, and the number of pairs.

    Args:
      measured: what `indices.compute` returns.
    """
    agreements = _agreements(measured)
    titles = {name: f"{_title(name)} ({unit})" for name, unit in zip(measured.name, measured.unit)}
    width = max(map(len, titles.values()))
    lines = [
        "Prediction - reference: bias +- 1.96 SD (95 % limits of agreement) and Pearson's r; see agreement.png",
        f"{'':{width}}  {'bias +- limits':>18}  {'r':>9}  {'n':>4}",
    ]
    for name, found in agreements.items():
        limits = "undefined" if math.isnan(found.limits) else f"{found.limits:.2f}"
        bias = "undefined" if math.isnan(found.bias) else f"{found.bias:.2f} +- {limits}"
        lines.append(f"{titles[name]:{width}}  {bias:>18}  {_correlation(found):>9}  {found.number:>4}")
    return "\n".join(lines)


def _agreements(measured):
    """The `indices.Agreement` of each index by its name."""
    groups = measured.groupby("name", sort=False)
    return {name: indices.agreement(*(group[source] for source in indices.SOURCES)) for name, group in groups}


def _comparisons(measured, task):
    """The input of `pictures.agreement`."""
    agreements = _agreements(measured)
    comparisons = []
    for name, group in measured.groupby("name", sort=False):
        defined, found = group.dropna(subset=[*indices.SOURCES]), agreements[name]
        values = [defined[source].to_numpy() for source in indices.SOURCES]
        colour, unit = task.colours[group.structure.iloc[0]], group.unit.iloc[0]
        note = f"r = {_correlation(found)}"
        comparisons.append(pictures.Comparison(_title(name), unit, colour, *values, found.bias, found.limits, note))
    return comparisons


def _title(name):
    return name.replace("_", " ")


def _correlation(found):
    return "undefined" if math.isnan(found.correlation) else f"{found.correlation:.3f}"


def _distance_columns(definition):
    """The columns of HD95 and ASSD."""
    part = "" if definition == metrics.DEFAULT_DISTANCES else f"_{definition}"
    return f"hd95{part}_mm", f"assd{part}_mm"


def _definition(table):
    """The definition of the distances in rows of `score`."""
    return next(name for name in metrics.DISTANCES if _distance_columns(name)[0] in table)


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
    """A square around all that is marked in masks [X, Y, Z], within the image; the whole image if nothing is.

    Args:
      *masks: masks on one grid.
      scale: ratio of the square's side to the longer side of what is marked.
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
    # The population's deviation, which is defined for a single case too.
    return f"{defined.mean():.{decimals}f} +- {defined.std(ddof=0):.{decimals}f}"
