"""Reads every file that an experiment needs before hours are spent on it, and tells all that is wrong at once."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tfaug.data.readers import acdc
from tfaug.engine import workers
from tfaug.engine.errors import UserError, printable


class Findings(NamedTuple):
    """What is wrong with a data set.

    Attributes:
      root: its folder.
      num_cases: how many cases were looked at.
      num_files: how many scans and labels they should have.
      errors: (case, error), each error once, for which a case cannot be used.
      warnings: lines about what is odd but can be used.
    """

    root: pathlib.Path
    num_cases: int
    num_files: int
    errors: list[tuple[str, UserError]]
    warnings: list[str]


def examine(root, labelled: Iterable[str], unlabelled: Iterable[str], phase: str = "ES") -> Findings:
    """Reads each file to its end, as training would, but goes on after an error.

    Args:
      root: the data set's folder, see `acdc`.
      labelled: cases whose scan and label are read.
      unlabelled: cases of which only the scan is; a label beside it is never opened.
      phase: "ES" or "ED".

    Raises:
      Interrupted: a signal asked the program to stop.
    """
    wanted = [*((case, "required") for case in labelled), *((case, "ignored") for case in unlabelled)]
    errors, warnings = {}, []
    checked = ((case, acdc.check(root, case, phase, label)) for case, label in wanted)
    for case, (case_errors, case_warnings) in workers.progress(checked, len(wanted), "checking", "case"):
        for error in case_errors:
            errors.setdefault(str(error), (case, error))  # a missing root is the same error for every case
        warnings += case_warnings
    num_files = sum(2 if label == "required" else 1 for _, label in wanted)
    return Findings(pathlib.Path(root), len(wanted), num_files, list(errors.values()), warnings)


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
        text = f"{printable(str(findings.root))}: {findings.num_cases} cases ({findings.num_files} files) are fine"
    return "\n".join([text, *(f"warning: {warning}" for warning in findings.warnings)])


def refuse(findings: Findings) -> None:
    """Ends the program if there is any error.

    Raises:
      UserError: the first one; it tells how many more there are.
    """
    if not findings.errors:
        return
    first = findings.errors[0][1]
    if len(findings.errors) == 1:
        raise first
    raise UserError(
        first.subject,
        f"{first.problem}, and there are {len(findings.errors) - 1} more problems",
        f"{first.remedy}; `python train.py --check` with the same flags lists all",
    )


def _below(root: pathlib.Path, subject: str) -> str:
    """The path of a file as seen from `root`, which is the same for all; another subject as it is."""
    path = pathlib.Path(subject)
    return str(path.relative_to(root)) if root in path.parents else subject


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [head, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)
