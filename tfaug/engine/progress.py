"""Progress for the user: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

import tqdm

_LINE = "{desc}: {n_fmt}/{total_fmt}, {rate_fmt}, {remaining} left{postfix}"


class Display:
    """Shows how many of a total are done, the rate and the time left; use it as a context manager.

    Args:
      title: shown in front.
      total: how many there are.
      unit: what is counted, in the singular.
      done: how many were done before; they are excluded from rate and time left.
      stream: where to print; None: standard output, so that standard error holds only errors.

    Attributes:
      on_terminal: whether it is a bar, which may be updated at any rate; otherwise each update prints a line.
    """

    def __init__(self, title: str, total: int, unit: str, done: int = 0, stream: TextIO | None = None):
        self._stream = stream or sys.stdout
        self.on_terminal = self._stream.isatty()
        self._text = {"prefix": title, "unit": unit}
        self._total, self._done, self._begun, self._shown = total, done, time.monotonic(), done
        self._bar = tqdm.tqdm(
            desc=title,
            total=total,
            unit=unit,
            initial=done,
            file=self._stream,
            dynamic_ncols=True,
            disable=not self.on_terminal,
        )

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def leave_out(self) -> None:
        """Counts an item unlike the others: rate and time left exclude it, and any time before the others."""
        if self._shown <= self._done:
            self._begun = time.monotonic()
            if self.on_terminal:
                self._bar.start_t = time.time()
        self._done += 1
        self._bar.initial = self._done

    def update(self, done: int, note: str = "") -> None:
        """Shows that `done` are done, and a note; on a bar the note stays until the next one."""
        self._shown = done
        if self.on_terminal:
            self._bar.update(done - self._bar.n)
            if note:
                self._bar.set_postfix_str(note)
            return
        elapsed = time.monotonic() - self._begun
        line = tqdm.tqdm.format_meter(
            done, self._total, elapsed, initial=self._done, postfix=note, bar_format=_LINE, **self._text
        )
        print(line, file=self._stream, flush=True)

    def keep(self, line: str) -> None:
        """Prints a line that stays, above the bar."""
        self._bar.write(line, file=self._stream)
        self._stream.flush()

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()
