"""Loads every case that an experiment needs before hours are spent on it, and reports all problems at once."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tfaug.data import cache, oddities
from tfaug.data.dataset import DataSet
from tfaug.data.oddities import Oddity
from tfaug.data.preprocess import PERCENTILES, Prepared, Spec
from tfaug.data.task import Task
from tfaug.engine import workers
from tfaug.engine.errors import UserError, counted, printable

Kinds = Mapping[str, Sequence[str]]  # names of cases, by problem


class View(NamedTuple):
    """One slice of a case as the networks will see it.

    Attributes:
      image: [H, W] float32, the first channel of the middle labelled slice; of the middle slice if none is labelled.
      label: [H, W] uint8, its classes; zeros if there is no label.
    """

    image: np.ndarray
    label: np.ndarray


class Findings(NamedTuple):
    """What was found in a data set.

    Attributes:
      root: its folder.
      num_cases: how many cases were looked at.
      num_labels: how many of them should have a label.
      errors: (case, error) for cases that cannot be used; each distinct error once.
      warnings: what is odd but usable.
      rows: a row of check.csv for each case, see `table`.
      views: the view of each usable case, by its name.
    """

    root: pathlib.Path
    num_cases: int
    num_labels: int
    errors: Sequence[tuple[str, UserError]]
    warnings: Sequence[Oddity] = ()
    rows: Sequence[Mapping[str, Any]] = ()
    views: Mapping[str, View] = {}

    def problems(self) -> dict[str, list[str]]:
        """The problems of each case that has any, by its name."""
        found = {}
        for case, error in self.errors:
            found.setdefault(case, []).append(str(error))
        for oddity in self.warnings:
            for case in oddity.cases:
                found.setdefault(case, []).append(str(oddity))
        return found


def examine(
    dataset: DataSet, splits: Mapping[str, Iterable[str]], spec: Spec, cache_dir, num_workers: int = 2
) -> Findings:
    """Loads each case as a training would, see `cache.load_each`, but keeps none and continues after an error.

    Even then it prepares the other cases, as N4 or the percentiles may fail on a sound file. What it prepares is in the
    cache afterwards.

    Args:
      dataset: the data set to read from.
      splits: names of cases by split; for "unlabelled" ones, a label beside the image is never opened.
      spec: how to prepare them.
      cache_dir: folder of the cache.
      num_workers: maximum number of processes.

    Raises:
      MachineError: the cache cannot be written, or memory runs out.
      Interrupted: a signal asked the program to stop.
    """
    members: dict[cache.Request, list[str]] = {}
    for split, cases in splits.items():
        for case in cases:
            members.setdefault(cache.Request(case, label=split != "unlabelled", volume=True), []).append(split)
    failed, odd, cohort, measured, views = {}, {}, {}, {}, {}
    results = cache.load_each(dataset, list(members), spec, cache_dir, num_workers, after_error="prepare")
    for request, result in workers.progress(results, len(members), "reading", "case"):
        if isinstance(result, UserError):
            failed[request] = result
        elif result is not None:
            odd[request], cohort[request] = oddities.of_scan(dataset.task, result), oddities.traits(result)
            measured[request], views[request.case] = _measures(dataset.task, result), _view(result)
    errors = {}
    for request in filter(failed.get, members):  # workers finish in any order
        errors.setdefault(str(failed[request]), (request.case, failed[request]))  # a missing root is a single error
    return Findings(
        dataset.root,
        len(members),
        sum(request.label for request in members),
        list(errors.values()),
        [
            *(oddity for request in members for oddity in odd.get(request, ())),
            *oddities.of_cohort(cohort[request] for request in members if request in cohort),
        ],
        [
            {"case": request.case, "split": " ".join(dict.fromkeys(names)), **measured.get(request, {})}
            for request, names in members.items()
        ],
        views,
    )


def table(findings: Findings) -> pd.DataFrame:
    """check.csv: a row for each case.

    Columns: case; split; shape, voxels along the file's axes; spacing_mm along the same axes; orientation, which way
    they run by the header, as `types.Volume.order`; slices; percentiles of each channel of the scan, such as p2; voxels
    of each structure in the scan; the share of each structure's voxels that the crop cuts off; the digest of its files;
    problems, "" if there are none. Unknown values are empty.
    """
    problems = findings.problems()
    found = pd.DataFrame(findings.rows)
    found["problems"] = [printable("; ".join(problems.get(case, ()))) for case in found.case]
    return found


def report(findings: Findings, most: int | None = None) -> str:
    """A report for the user: errors by remedy, or a line that there are none; then warnings by kind.

    Args:
      findings: as `examine` returns them.
      most: maximum number of lines for each kind of warning; None: no limit.
    """
    lines = []
    for remedy, errors in _grouped((error.remedy, (case, error)) for case, error in findings.errors).items():
        lines.append(printable(f"error, {counted(len({case for case, _ in errors}), 'case')}: {remedy}"))
        rows = [(case, _below(findings.root, error.subject), error.problem) for case, error in errors]
        lines += _columns(rows)
    if not lines:
        number = findings.num_cases
        fine = "can be used" if findings.warnings else "is fine" if number == 1 else "are fine"
        lines.append(
            f"{printable(str(findings.root))}: {counted(number, 'case')} ({findings.num_labels} labelled) {fine}"
        )
    for kind, group in _grouped((oddity.kind, oddity) for oddity in findings.warnings).items():
        lines.append(f"warning, {counted(len({case for oddity in group for case in oddity.cases}), 'case')}: {kind}")
        lines += [f"  {oddity}" for oddity in group[:most]]
        if most is not None and len(group) > most:
            lines.append(f"  ... and {len(group) - most} more")
    return "\n".join(lines)


def refuse(findings: Findings, most: int | None = None) -> None:
    """Prints a report and raises if there is any error.

    Raises:
      UserError: the first one; it says how many more there are.
    """
    if findings.errors:
        print(report(findings, most))
    cache.refuse([error for _, error in findings.errors], listing="all are listed above")


def _measures(task: Task, scan: Prepared) -> dict[str, Any]:
    """The columns of `table` for a usable scan."""
    volume, axis = scan.volume, scan.grid.axis
    shape, spacing, order = (list(values) for values in (volume.image.shape[:3], volume.spacing, scan.order))
    for values in filter(None, (shape, spacing, order)):
        values.insert(axis, values.pop())  # as in the file
    found = {
        "shape": " x ".join(map(str, shape)),
        "spacing_mm": " x ".join(f"{mm:.4g}" for mm in spacing),
        "orientation": "".join(order),
        "slices": volume.image.shape[2],
    }
    several = len(task.channels) > 1
    for channel, name in enumerate(task.channels):
        ranks = (PERCENTILES[0], 50, PERCENTILES[1])
        for rank, value in zip(ranks, np.percentile(volume.image[..., channel], ranks)):
            found[f"p{rank}_{name}" if several else f"p{rank}"] = float(f"{value:.6g}")
    if scan.label is not None:
        counts = np.bincount(volume.label.ravel(), minlength=task.num_classes)
        cut = np.zeros(len(task.names))
        cut[: len(scan.cut)] = scan.cut
        found.update((f"voxels_{name}", int(counts[index])) for name, index in task.classes.items())
        found.update((f"cut_{name}", round(float(share), 4)) for name, share in zip(task.names, cut))
    return {**found, "digest": scan.digest}


def _view(scan: Prepared) -> View:
    """The slice that represents a scan."""
    if scan.label is None:
        image = scan.image[len(scan.image) // 2, ..., 0]
        return View(image.copy(), np.zeros(image.shape, np.uint8))
    labelled = np.flatnonzero(scan.label.any(axis=(1, 2)))
    z = labelled[len(labelled) // 2] if labelled.size else len(scan.label) // 2
    return View(scan.image[z, ..., 0].copy(), scan.label[z].copy())  # copies: views would keep the scan in memory


def _grouped(pairs: Iterable[tuple[str, Any]]) -> dict[str, list]:
    groups = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def _below(root: pathlib.Path, subject: str) -> str:
    """The path of a file relative to `root`, which is the same for all; any other subject unchanged."""
    path = pathlib.Path(subject)
    return str(path.relative_to(root)) if root in path.parents else subject


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of aligned cells."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)
