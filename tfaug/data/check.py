"""Loads every case that an experiment needs before hours are spent on it, and tells all that is wrong at once."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tfaug.data import cache, oddities
from tfaug.data.dataset import DataSet
from tfaug.data.preprocess import Spec
from tfaug.engine import workers
from tfaug.engine.errors import UserError, printable


class Findings(NamedTuple):
    """What is wrong with a data set.

    Attributes:
      root: its folder.
      num_cases: how many cases were looked at.
      num_labels: how many of them should have a label.
      errors: (case, error), each error once, for which a case cannot be used.
      warnings: lines about what is odd but can be used.
    """

    root: pathlib.Path
    num_cases: int
    num_labels: int
    errors: list[tuple[str, UserError]]
    warnings: list[str]


def examine(
    dataset: DataSet, labelled: Iterable[str], unlabelled: Iterable[str], spec: Spec, cache_dir, num_workers: int = 2
) -> Findings:
    """Loads each case as a training would, see `cache.load_each`, but keeps none of them and continues after an error.

    It prepares what can be prepared also then: N4 or the percentiles may fail on a file that is sound.

    What it prepares is in the cache afterwards.

    Args:
      dataset: what to read from.
      labelled: cases whose image and label are needed.
      unlabelled: cases of which only the image is; a label beside it is never opened.
      spec: how to prepare them.
      cache_dir: where prepared volumes are kept.
      num_workers: most processes at a time.

    Raises:
      MachineError: the cache cannot be written, or memory runs out.
      Interrupted: a signal asked the program to stop.
    """
    requests = [*(cache.Request(case) for case in labelled), *(cache.Request(case, label=False) for case in unlabelled)]
    failed, warnings, cohort = {}, {}, {}
    results = cache.load_each(dataset, requests, spec, cache_dir, num_workers, after_error="prepare")
    for request, result in workers.progress(results, len(set(requests)), "reading", "case"):
        if isinstance(result, UserError):
            failed[request] = result
        elif result is not None:
            warnings[request], cohort[request] = oddities.of_scan(dataset.task, result), oddities.traits(result)
    errors = {}
    for request in filter(failed.get, requests):  # workers finish in any order
        errors.setdefault(str(failed[request]), (request.case, failed[request]))  # a missing root is one error
    return Findings(
        dataset.root,
        len(requests),
        sum(request.label for request in requests),
        list(errors.values()),
        [
            *(line for request in requests for line in warnings.get(request, ())),
            *oddities.of_cohort(cohort[request] for request in requests if request in cohort),
        ],
    )


def report(findings: Findings) -> str:
    """What `findings` say, for the user: a table of errors, or that there are none; then the warnings."""
    if findings.errors:
        text = _table(
            ("case", "file", "problem", "what to do"),
            [
                (case, _below(findings.root, error.subject), error.problem, error.remedy)
                for case, error in findings.errors
            ],
        )
    else:
        cases = "1 case" if findings.num_cases == 1 else f"{findings.num_cases} cases"
        verb = "is" if findings.num_cases == 1 else "are"
        text = f"{printable(str(findings.root))}: {cases} ({findings.num_labels} labelled) {verb} fine"
    return "\n".join([text, *(f"warning: {warning}" for warning in findings.warnings)])


def refuse(findings: Findings) -> None:
    """Prints a report and ends the program if there is any error.

    Raises:
      UserError: the first one; it tells how many more there are.
    """
    if findings.errors:
        print(report(findings))
    cache.refuse([error for _, error in findings.errors])


def _below(root: pathlib.Path, subject: str) -> str:
    """The path of a file as seen from `root`, which is the same for all; another subject as it is."""
    path = pathlib.Path(subject)
    return str(path.relative_to(root)) if root in path.parents else subject


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [head, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)
