"""SIGTERM and SIGINT, deferred to a moment when nothing is lost."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator

# A process has one set of signal handlers, and so one flag.
_deferring = False
_received: int | None = None


class Interrupted(Exception):
    """A signal asked the program to stop, which it does at a point where nothing is lost.

    Attributes:
      exit_status: 143 for SIGTERM, 130 for SIGINT.
    """

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_status = 128 + signum


@contextlib.contextmanager
def deferred_signals() -> Iterator[None]:
    """Within the block SIGTERM and SIGINT only set a flag, which `check_signals` acts on; a second SIGINT kills.

    Blocks may be nested and share the flag: the program wraps all of its work, the training loop itself. Outside the
    main thread, where Python delivers no signals, the block changes nothing.
    """
    global _deferring, _received
    if _deferring or threading.current_thread() is not threading.main_thread():
        yield
        return
    _deferring, _received = True, None
    previous = {number: signal.signal(number, _remember) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        _deferring, _received = False, None


def received_signal() -> int | None:
    """The number of the first signal received in the block, or None."""
    return _received


def check_signals() -> None:
    """Raises `Interrupted` if a signal was received; call it wherever stopping loses nothing."""
    if _received:
        raise Interrupted(_received)


def _remember(signum, frame):
    global _received
    if _received and signum == signal.SIGINT:
        for worker in multiprocessing.active_children():
            worker.kill()
        os._exit(128 + signum)
    _received = _received or signum
