"""The curves and pictures of one run, in TensorBoard's event files, and its diagnostics.csv."""

from __future__ import annotations

import contextlib
import csv
import os
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from tfaug.engine import event_files
from tfaug.engine.files import machine_errors, sync

Scores = Mapping[str, float]


class EventLog:
    """The TensorBoard event files of one run and diagnostics.csv, which can be truncated to an earlier state.

    A file is opened at the first write. Everything written must be a function of the run's state: rates and times
    would make two equal runs differ.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = pathlib.Path(folder)
        self._writer: tf.summary.SummaryWriter | None = None

    def scalars(self, values: Scores, num_done: int) -> None:
        """Adds one point to the curve of each tag."""
        with self._writing(num_done):
            for tag, value in values.items():
                tf.summary.scalar(tag, value)

    def pictures(self, images: Mapping[str, np.ndarray], num_done: int) -> None:
        """Adds uint8 pictures [H, W, 3] or [N, H, W, 3] under their tags."""
        with self._writing(num_done):
            for tag, image in images.items():
                stack = image if image.ndim == 4 else image[np.newaxis]
                tf.summary.image(tag, stack, max_outputs=len(stack))

    def text(self, tag: str, text: str, num_done: int) -> None:
        """Adds a text, shown as Markdown."""
        with self._writing(num_done):
            tf.summary.text(tag, text)

    def row(self, values: Scores, num_done: int) -> None:
        """Adds a row to diagnostics.csv; the first row names the columns, and later ones add none."""
        names = ["step", *values]
        with self._errors(), open(self._table, "a+", newline="", encoding="utf-8", errors="replace") as file:
            rows = csv.writer(file)
            file.seek(0)
            if first := file.readline():
                with contextlib.suppress(csv.Error):
                    names = next(csv.reader([first]))
            else:
                rows.writerow(names)
            rows.writerow([num_done, *(f"{float(values[name]):.6g}" for name in names if name in values)])

    def rows(self) -> tuple[list[dict[str, float]], bool]:
        """The intact rows of diagnostics.csv, and whether others are damaged; no rows if there is no such file."""
        with self._errors():
            return event_files.rows(self.folder)

    def seconds(self) -> float:
        """Time from the first to the last write of every session, summed, without what was truncated."""
        with self._errors():
            return event_files.seconds(self.folder)

    def sizes(self) -> dict[str, int]:
        """Syncs every file and returns its size in bytes."""
        with self._errors():
            sizes = {}
            for path in self._files():
                sync(path)
                sizes[path.name] = path.stat().st_size
            if sizes:
                sync(self.folder)
            return sizes

    def cut(self, sizes: Mapping[str, int]) -> list[str]:
        """Restores the state in which `sizes` was taken: later files are removed, longer ones truncated.

        Must precede the first write.

        Returns:
          The names of files that are missing or shorter than they were.
        """
        lost = set(sizes)
        with self._errors():
            for path in self._files():
                if path.name not in sizes:
                    path.unlink()
                elif path.stat().st_size >= sizes[path.name]:
                    os.truncate(path, sizes[path.name])
                    lost.remove(path.name)
        return sorted(lost)

    @property
    def _table(self) -> pathlib.Path:
        return event_files.table(self.folder)

    def _files(self) -> list[pathlib.Path]:
        return event_files.files(self.folder) + [self._table] * self._table.exists()

    @contextlib.contextmanager
    def _writing(self, num_done: int) -> Iterator[None]:
        with self._errors():
            if self._writer is None:
                self._writer = tf.summary.create_file_writer(str(self.folder))
            with self._writer.as_default(step=num_done):  # flushes on exit
                yield

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        remedy = "see that it can be written and has room, then run the same command to resume"
        return machine_errors(self.folder, remedy, tf.errors.OpError)
