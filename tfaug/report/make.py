"""Writes the report of a run or of a folder of results."""

from __future__ import annotations

import pathlib

from tfaug.engine import run_dir
from tfaug.engine.errors import UserError, printable
from tfaug.engine.files import check_writable, read_json, replacing
from tfaug.report import grid, runs
from tfaug.table1 import results

SUFFIXES = (".html", ".htm")


class Report:
    """A report to be written; problems with the folder or the output are found on creation.

    Args:
      source: the folder of a finished run, or of results.
      output: the file.
      overwrite: whether the file may already exist.

    Attributes:
      needs_tensorflow: whether the report describes a generator, and so computes fields.

    Raises:
      UserError: the folder is neither, or unfinished, empty or damaged; or the output cannot be used.
      MachineError: the output's folder cannot be written.
    """

    def __init__(self, source: pathlib.Path, output: pathlib.Path, overwrite: bool = False):
        self._output = output
        _check_output(output, overwrite)
        if is_run(source):
            run = runs.read(source)
            self.needs_tensorflow = bool(run.generator or run.report.get("generators"))
            self._render = lambda: runs.render(run)
        else:
            table, shared = grid.read(source)
            self.needs_tensorflow = False
            self._render = lambda: grid.render_page(source, table, shared)

    def write(self) -> str:
        """Writes the file; returns where it is.

        Raises:
          UserError: a file of the folder is damaged.
          MachineError: it cannot be written.
          Interrupted: a signal asked the program to stop; nothing has been written.
        """
        content = self._render().encode("utf-8", "replace")
        with replacing(self._output, "make room or choose another --output") as path:
            path.write_bytes(content)
        return printable(f"{self._output}: {len(content) / 1e6:.1f} MB, open it in a browser")


def is_run(path: pathlib.Path) -> bool:
    """Whether a folder is a run's, rather than one of results.

    Raises:
      UserError: it is neither.
    """
    if not path.exists():
        raise UserError(path, "does not exist", "give the folder of a run, or of results")
    if not path.is_dir():
        raise UserError(path, "is not a folder", "give the folder of a run, or of results")
    content = read_json(path / results.CONFIG_FILE)
    keys = content if isinstance(content, dict) else {}
    if run_dir.MARK in keys:
        return True
    if results.CONFIG_MARK in keys:
        return False
    raise UserError(path, "is neither a run of tfaug nor a folder of its results", "give the folder of one of them")


def _check_output(output: pathlib.Path, overwrite: bool) -> None:
    if output.suffix.lower() not in SUFFIXES:
        raise UserError(output, "does not end in .html", "choose another --output")
    if output.is_dir():
        raise UserError(output, "is a folder", "choose another --output")
    if not output.absolute().parent.is_dir():
        raise UserError(output.absolute().parent, "is no folder", "make it, or choose another --output")
    if output.exists() and not overwrite:
        raise UserError(output, "is there already", "choose another --output, or add --overwrite")
    check_writable(output.absolute().parent, "choose an --output that can be written")
