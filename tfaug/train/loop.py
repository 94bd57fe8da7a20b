"""The one training loop, for every stage, and how signals reach it."""
from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfaug.errors import MachineError
from tfaug.train.hooks import Hook

if TYPE_CHECKING:
    from tfaug.train.checkpoint import Checkpoints

Step = Callable[[Any, int], Mapping[str, tf.Tensor]]


def fit(
    step: Step,
    batches: Callable[[int], Iterator[Any]],
    num_steps: int,
    hooks: Sequence[Hook] = (),
    checkpoint: Checkpoints | None = None,
) -> None:
    """Updates from where `checkpoint` left off, or from 0, until `num_steps` updates are done.

    Args:
      step: `step(batch, index)` does update number `index` (0-based) and returns scalar tensors by name.
      batches: `batches(start)` iterates over the batches of updates start, start + 1, ...; a pure function of the
        index, since no iterator state is saved.
      num_steps: updates in total, those done before an interruption included.
      hooks: called in this order after an update, each when it is due.
      checkpoint: restored from first; saved to when it is due, at the end and when a signal came.

    Raises:
      Interrupted: SIGTERM or SIGINT came; what was done is saved.
      MachineError: the memory or the disk gave way.
    """
    with deferred_signals() as signals, contextlib.ExitStack() as stack:
        start = checkpoint.restore(hooks) if checkpoint else 0
        for hook in hooks:
            stack.callback(hook.end)
            hook.begin(start, num_steps)
        signals.check()
        stack.enter_context(_out_of_memory())
        source = iter(batches(start))
        for index in range(start, num_steps):
            scalars = step(next(source), index)
            num_done = index + 1
            is_last = num_done == num_steps
            for hook in hooks:
                if is_last or num_done % hook.every == 0:
                    hook(num_done, scalars)
            interrupted = signals.received
            if checkpoint and (is_last or interrupted or num_done % checkpoint.every == 0):
                checkpoint.save(num_done, hooks)
            if interrupted:
                raise Interrupted(interrupted)


class Interrupted(Exception):
    """A signal asked the program to stop, and it is at a boundary where nothing is lost.

    Attributes:
      exit_status: 143 for SIGTERM, 130 for SIGINT.
    """

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_status = 128 + signum


class Signals:
    """Remembers the first SIGTERM or SIGINT; a second SIGINT ends the process at once.

    Attributes:
      received: the signal's number, None if there was none.
    """

    def __init__(self):
        self.received: int | None = None

    def check(self) -> None:
        """Raises `Interrupted` if a signal came; call it wherever stopping loses nothing."""
        if self.received:
            raise Interrupted(self.received)

    def handle(self, signum: int, frame) -> None:
        """The signal handler."""
        if self.received and signum == signal.SIGINT:
            for worker in multiprocessing.active_children():
                worker.kill()
            os._exit(128 + signum)
        self.received = self.received or signum


_signals: Signals | None = None  # signal handlers belong to the process, and so does this


def _in_forked_worker() -> None:
    """A worker must die when its pool terminates it, and leave Ctrl-C, which reaches it too, to its parent."""
    if _signals is not None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)


os.register_at_fork(after_in_child=_in_forked_worker)


@contextlib.contextmanager
def deferred_signals() -> Iterator[Signals]:
    """Within the block SIGTERM and SIGINT only set a flag, which `fit` acts on after the current update.

    Blocks may be nested and share the flag: the program wraps its whole work, `fit` its loop. Outside the main thread,
    where Python delivers no signals, the block changes nothing.
    """
    global _signals
    if _signals is not None or threading.current_thread() is not threading.main_thread():
        yield _signals or Signals()
        return
    _signals = Signals()
    previous = {number: signal.signal(number, _signals.handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield _signals
    finally:
        _signals = None
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _out_of_memory() -> Iterator[None]:
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise MachineError("memory", "there is not enough of it", "use a smaller batch size") from error
