"""Reads and prepares every case as a training would, lists what is wrong, draws all: tfaug check

  --config=NAME            phantom (default), acdc_quick, acdc, released_code, hippocampus, own,
                           or a file
  --config.data.root=DIR   the folder of scans
  --config.KEY=VALUE       any number of the config
  --workdir=DIR            for check.csv and check.png, in DIR/NAME-check (default: runs)

What is prepared is in the cache for the training. Exit status 2 if a case cannot be used.
"""

from __future__ import annotations

import pathlib

from tfaug.commands import cli
from tfaug.data import check
from tfaug.data.check import Findings
from tfaug.data.task import Task
from tfaug.engine.files import replacing
from tfaug.experiment import sources

COLUMNS = 10  # of the contact sheet
LONGEST = 28  # characters of a title
LINES = 5  # printed for each kind of warning; all are in check.csv
UNUSABLE, ODD = "red", "darkorange"  # frames
_ROOM = "make room or choose another --workdir, then run the command again"


def main() -> None:
    """Writes check.csv and check.png, prints what is wrong, and exits with status 2 if a case cannot be used."""
    cli.refuse_all_but(("config", "workdir"), "tfaug check")
    workdir = cli.path(cli.WORKDIR)
    cli.check_writable(workdir)
    config = sources.resolve(cli.config(), skip_unusable=True)
    examine(sources.Data(config), workdir / f"{config.name}-check")


def examine(data: sources.Data, folder: pathlib.Path) -> None:
    """Does what `main` does, for `python train.py --check` too.

    Raises:
      UserError: cases cannot be used; the report has been printed, the table and the picture written.
      MachineError: a file cannot be written.
    """
    from tfaug import pictures  # imports Matplotlib, which a mistake in the flags need not wait for

    findings = data.check()
    with replacing(folder / "check.csv", _ROOM) as path:
        check.table(findings).to_csv(path, index=False, errors="backslashreplace")
    with replacing(folder / "check.png", _ROOM) as path:
        pictures.save(sheet(findings, data.task), path)
    print(f"cases: {data.counts()}\ntable: {folder / 'check.csv'}\npicture of every case: {folder / 'check.png'}\n")
    check.refuse(findings, LINES)
    print(check.report(findings, LINES))
    print(f"\nNext: {cli.command('train', without=('check',))}")


def sheet(findings: Findings, task: Task):
    """The middle labelled slice of each case with its contours, as the networks will see it.

    Unusable cases are black with a red frame; odd ones have an orange frame.

    Returns:
      [height, width, 3] uint8.
    """
    import numpy as np

    from tfaug import pictures

    size = max((view.image.shape[0] for view in findings.views.values()), default=1)
    nothing = check.View(np.zeros((size, size), np.float32), np.zeros((size, size), np.uint8))
    problems = findings.problems()
    names = [row["case"] for row in findings.rows]
    views = [findings.views.get(name, nothing) for name in names]
    frames = [None if name not in problems else ODD if name in findings.views else UNUSABLE for name in names]
    titles = [_short(f"{row['case']}, {row['split']}") for row in findings.rows]
    images, labels = zip(*views)
    return pictures.overlay(images, labels, titles, task.colours, columns=COLUMNS, frames=frames)


def _short(title: str) -> str:
    """Cuts a title to fit above its tile."""
    return title if len(title) <= LONGEST else f"...{title[-LONGEST:]}"
