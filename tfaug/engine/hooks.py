# ruff: noqa: D102 -- a hook overrides what `Hook` documents
"""Hooks, called every n updates: stopping on NaN, progress, TensorBoard, validation and keeping the best.

A hook is called after an update with the number of updates done and the update's scalars. The scalars are device
tensors: reading one waits for the device, so hooks read them only when they are due.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import numpy as np
import tensorflow as tf

from tfaug.engine.checkpoint import Checkpoints
from tfaug.engine.errors import MachineError
from tfaug.engine.event_log import EventLog, Scores
from tfaug.engine.progress import Display


class Hook:
    """Base class of all hooks; every method except the call has a default.

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


class StopOnNonFinite(Hook):
    """Ends the run at the first update one of whose scalars is NaN or infinite.

    Every update is checked, but only once per `interval` updates, so that the device need not wait. Pass `check`, which
    checks at once, to `Checkpoints` as `before_save`.
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
        """Checks all updates since the last check.

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
    """Validates, and keeps the models with the highest score (the earlier of equal ones), or always the latest.

    Args:
      every: updates between two validations.
      score: returns named scores, for example {"dice/mean": 0.8, "dice/RV": 0.7}; must not change the models.
      models: what is kept, by name.
      checkpoints: where they are kept; it knows the best score so far.
      log: receives every score; its row also has what the update before returned, such as the losses.
      key: the decisive score.
      start: no validation before this many updates (warm-up).
      latest: whether the models of every validation replace the previous ones, whatever their score.
    """

    def __init__(
        self,
        every: int,
        score: Callable[[], Scores],
        models: Mapping[str, Any],
        checkpoints: Checkpoints,
        log: EventLog,
        key: str = "dice/mean",
        start: int = 0,
        latest: bool = False,
    ):
        self.every, self._key, self._start, self._latest = every, key, start, latest
        self._score, self._models, self._checkpoints, self._log = score, models, checkpoints, log

    def __call__(self, num_done, scalars):
        if num_done < self._start:
            return
        scores = self._score()
        self._log.scalars(scores, num_done)
        self._log.row({**scores, **scalars, **scores}, num_done)  # scores come first, also where tags are the same
        score, best = float(scores[self._key]), self._checkpoints.best
        if self._latest or score > (best.score if best else -math.inf):
            self._checkpoints.save_best(num_done, score, self._models)


class Progress(Hook):
    """Shows the progress of a stage: a bar on a terminal, else one line per interval.

    Args:
      stage: name of the stage, shown in front.
      every: updates between two readings of the scalars.
      checkpoints: those of the run, for its best score.
      stream: where to print; None: standard output.
    """

    def __init__(self, stage: str, every: int, checkpoints: Checkpoints | None = None, stream: TextIO | None = None):
        self._stage, self._interval, self._checkpoints = stage, every, checkpoints
        self._stream = stream or sys.stdout
        self.every = 1 if self._stream.isatty() else every

    def begin(self, num_done, num_steps):
        self._num_steps = num_steps
        self._display = Display(self._stage, num_steps, "step", num_done, self._stream)

    def __call__(self, num_done, scalars):
        due = num_done % self._interval == 0 or num_done == self._num_steps
        self._display.update(num_done, self._numbers(scalars) if due else "")

    def end(self):
        self._display.close()

    def _numbers(self, scalars: Mapping[str, tf.Tensor]) -> str:
        shown = [f"{name}={float(value):.4g}" for name, value in scalars.items() if "loss" in name]
        best = self._checkpoints.best if self._checkpoints else None
        return " ".join(shown + ([f"kept {best.score:.4f} (step {best.step})"] if best else []))
