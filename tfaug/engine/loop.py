"""The training loop of all stages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfaug.engine import memory
from tfaug.engine.checkpoint import Checkpoints
from tfaug.engine.hooks import Hook
from tfaug.engine.signals import Interrupted, check_signals, deferred_signals, received_signal

Step = Callable[[Any, int], Mapping[str, tf.Tensor]]


def fit(
    step: Step,
    batches: Callable[[int], Iterator[Any]],
    num_steps: int,
    hooks: Sequence[Hook] = (),
    checkpoint: Checkpoints | None = None,
) -> None:
    """Trains from where `checkpoint` left off, or from 0, until `num_steps` updates are done.

    Args:
      step: `step(batch, index)` does update number `index` (0-based) and returns scalar tensors by name.
      batches: `batches(start)` iterates over the batches of updates start, start + 1, ...; a pure function of the
        index, since no iterator state is saved.
      num_steps: updates in total, including those before an interruption.
      hooks: called in this order after an update, each when it is due.
      checkpoint: restored first; saved when due, at the end and after a signal.

    Raises:
      Interrupted: SIGTERM or SIGINT was received; the updates so far are saved.
      MachineError: there was too little memory, or the disk failed.
      TypeError: `step` returned something else.
    """
    with deferred_signals(), contextlib.ExitStack() as stack:
        start = checkpoint.restore() if checkpoint else 0
        for hook in hooks:
            hook.begin(start, num_steps)
            stack.callback(hook.end)
        check_signals()
        stack.enter_context(memory.running_out())
        source = iter(batches(start))
        for index in range(start, num_steps):
            scalars = step(next(source), index)
            _check(scalars)
            num_done = index + 1
            is_last = num_done == num_steps
            for hook in hooks:
                if is_last or num_done % hook.every == 0:
                    hook(num_done, scalars)
            interrupted = received_signal()
            if checkpoint and (is_last or interrupted or num_done % checkpoint.every == 0):
                checkpoint.save(num_done)
            if interrupted:
                raise Interrupted(interrupted)


def _check(scalars):
    if not isinstance(scalars, Mapping):
        raise TypeError(f"the update rule returned an object of type {type(scalars).__name__}, not scalars by name")
    for name, value in scalars.items():
        if tuple(np.shape(value)):
            raise TypeError(f"the update rule returned {name!r} of shape {tuple(np.shape(value))}, not a scalar")
