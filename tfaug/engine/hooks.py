# ruff: noqa: D102 -- a hook overrides what `Hook` documents
"""What happens every n updates: stopping on NaN, progress, TensorBoard, validation and keeping the best.

A hook is called after an update with the number of updates done and the update's scalars. The scalars are device
tensors: reading one waits for the device, so hooks read them only when they are due.
"""

from __future__ import annotations

import contextlib
import csv
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tqdm

from tfaug.engine.errors import MachineError
from tfaug.engine.files import machine_errors, sync

Scores = Mapping[str, float]


class Hook:
    """Base of all hooks; each method but the call has a default.

    Attributes:
      every: the hook is called when the number of updates done is a multiple of this, and after the last update.
    """

    every: int = 1

    def begin(self, num_done: int, num_steps: int) -> None:
        """Called once before the loop, `num_done` > 0 when resuming."""

    def __call__(self, num_done: int, scalars: Mapping[str, tf.Tensor]) -> None:
        """Called after update number `num_done` (1-based)."""
        raise NotImplementedError

    def end(self) -> None:
        """Called once after the loop, also when it failed."""

    def state(self) -> Any:
        """What a checkpoint must hold of this hook, JSON-able; None for nothing."""
        return None

    def restore(self, state: Any) -> None:
        """Takes back what `state` returned."""


class EventLog:
    """The TensorBoard event files of one run and diagnostics.csv, which can be cut back to an earlier moment.

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
        """Adds a row to diagnostics.csv; the first gives the columns their names."""
        with self._errors(), open(self._table, "a", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            if file.tell() == 0:
                rows.writerow(["step", *values])
            rows.writerow([num_done, *(f"{float(value):.6g}" for value in values.values())])

    def seconds(self) -> float:
        """Time from the first to the last write of every sitting, summed, without what was cut back."""
        with self._errors():
            return sum(_duration(path) for path in self._event_files())

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
        """Goes back to the moment when `sizes` was taken: later files are removed, longer ones truncated.

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
        return self.folder / "diagnostics.csv"

    def _event_files(self) -> list[pathlib.Path]:
        return sorted(self.folder.glob("events.out.tfevents.*"))

    def _files(self) -> list[pathlib.Path]:
        return self._event_files() + [self._table] * self._table.exists()

    @contextlib.contextmanager
    def _writing(self, num_done: int) -> Iterator[None]:
        with self._errors():
            if self._writer is None:
                self._writer = tf.summary.create_file_writer(str(self.folder))
            with self._writer.as_default(step=num_done):  # flushes when it is left
                yield

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        remedy = "see that it can be written and has room, then run the same command to go on"
        return machine_errors(self.folder, remedy, tf.errors.OpError)


def _duration(events: pathlib.Path) -> float:
    times = []
    with contextlib.suppress(tf.errors.DataLossError):  # from where the file is damaged
        for event in tf.compat.v1.train.summary_iterator(str(events)):
            times.append(event.wall_time)
    return times[-1] - times[0] if times else 0.0


class StopOnNonFinite(Hook):
    """Ends the run at the first update one of whose scalars is NaN or infinite.

    Every update is looked at, but only once in `interval` updates, so that the device need not wait. Hand `check`,
    which looks at once, to `Checkpoints` as `before_save`.
    """

    def __init__(self, interval: int = 50):
        self._interval = interval
        self._unseen: list[tuple[int, Mapping[str, tf.Tensor]]] = []

    def begin(self, num_done, num_steps):
        self._unseen, self._num_steps = [], num_steps

    def __call__(self, num_done, scalars):
        self._unseen.append((num_done, scalars))
        if len(self._unseen) >= self._interval or num_done == self._num_steps:
            self.check()

    def check(self) -> None:
        """Looks at all updates since the last look.

        Raises:
          MachineError: names the first bad update and its scalar.
        """
        unseen, self._unseen = self._unseen, []
        for num_done, scalars in unseen:
            for name, tensor in scalars.items():
                value = float(tensor)
                if not math.isfinite(value):
                    raise MachineError(
                        name,
                        f"became {value} in step {num_done}",
                        "lower the learning rate in a new run; what was saved before is kept",
                    )


class Scalars(Hook):
    """Writes the update's scalars to TensorBoard."""

    def __init__(self, every: int, log: EventLog):
        self.every, self._log = every, log

    def __call__(self, num_done, scalars):
        self._log.scalars({name: float(value) for name, value in scalars.items()}, num_done)


class Pictures(Hook):
    """Writes what `draw(num_done)` returns to TensorBoard: a dict of tag to uint8 [H, W, 3] or [N, H, W, 3]."""

    def __init__(self, every: int, draw: Callable[[int], Mapping[str, np.ndarray]], log: EventLog):
        self.every, self._draw, self._log = every, draw, log

    def __call__(self, num_done, scalars):
        self._log.pictures(self._draw(num_done), num_done)


class Text(Hook):
    """Writes a text to TensorBoard once, with the first update."""

    def __init__(self, tag: str, text: str, log: EventLog):
        self._tag, self._text, self._log = tag, text, log

    def __call__(self, num_done, scalars):
        if num_done == 1:
            self._log.text(self._tag, self._text, num_done)


class KeepBest(Hook):
    """Validates, and keeps the model whose score is highest; of equal scores the earlier.

    Args:
      every: updates between two validations.
      score: returns named scores, for example {"dice/mean": 0.8, "dice/RV": 0.7}; must not change the model.
      save: called with the number of updates done when `key` has improved.
      log: where every score goes.
      key: the score that decides.
      start: no validation before this many updates (warm-up).

    Attributes:
      best: the highest score so far, None before the first.
      best_step: the number of updates done when it was reached.
    """

    def __init__(
        self,
        every: int,
        score: Callable[[], Scores],
        save: Callable[[int], None],
        log: EventLog,
        key: str = "dice/mean",
        start: int = 0,
    ):
        self.every, self.key, self.start = every, key, start
        self.best: float | None = None
        self.best_step: int | None = None
        self._score, self._save, self._log = score, save, log

    def __call__(self, num_done, scalars):
        if num_done < self.start:
            return
        scores = self._score()
        self._log.scalars(scores, num_done)
        self._log.row(scores, num_done)
        score = float(scores[self.key])
        if score > (-math.inf if self.best is None else self.best):
            self._save(num_done)
            self.best, self.best_step = score, num_done

    def state(self):
        return {"best": self.best, "best_step": self.best_step}

    def restore(self, state):
        self.best, self.best_step = state["best"], state["best_step"]


class Progress(Hook):
    """Shows how far a stage is: a bar on a terminal, else one line per interval.

    Args:
      stage: name of the stage, shown in front.
      every: updates between two readings of the scalars.
      best: the hook whose best score is shown.
      stream: where to; standard output if None, so that standard error keeps errors only.
    """

    def __init__(self, stage: str, every: int, best: KeepBest | None = None, stream=None):
        self._stream = stream or sys.stdout
        self._on_terminal = self._stream.isatty()
        self._interval = every
        self.every = 1 if self._on_terminal else every
        self._stage, self._best = stage, best
        self._bar: tqdm.tqdm | None = None

    def begin(self, num_done, num_steps):
        self._start, self._num_steps, self._begun = num_done, num_steps, time.monotonic()
        if self._on_terminal:
            self._bar = tqdm.tqdm(
                desc=self._stage, initial=num_done, total=num_steps, file=self._stream, dynamic_ncols=True
            )

    def __call__(self, num_done, scalars):
        due = num_done % self._interval == 0 or num_done == self._num_steps
        if self._bar is not None:
            self._bar.update(num_done - self._bar.n)
            if due:
                self._bar.set_postfix_str(self._numbers(scalars))
        elif due:
            print(self._line(num_done, scalars), file=self._stream, flush=True)

    def end(self):
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _line(self, num_done: int, scalars: Mapping[str, tf.Tensor]) -> str:
        rate = (num_done - self._start) / max(time.monotonic() - self._begun, 1e-9)
        left = tqdm.tqdm.format_interval((self._num_steps - num_done) / rate)
        return f"{self._stage} {num_done}/{self._num_steps} {rate:.2f} it/s {left} left {self._numbers(scalars)}"

    def _numbers(self, scalars: Mapping[str, tf.Tensor]) -> str:
        shown = [f"{name}={float(value):.4g}" for name, value in scalars.items() if "loss" in name]
        if self._best is not None and self._best.best is not None:
            shown.append(f"best {self._best.key}={self._best.best:.4f} (step {self._best.best_step})")
        return " ".join(shown)
