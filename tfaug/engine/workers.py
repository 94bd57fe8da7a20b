"""Worker processes: how many the machine can run, how they end, and their progress."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pathlib
import signal
import sys
import threading
import time
import types
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker
from typing import TypeVar

import psutil

from tfaug.engine.progress import Display
from tfaug.engine.signals import check_signals

T = TypeVar("T")

REPORT_SECONDS = 10.0
CGROUP_LIMITS = tuple(
    pathlib.Path("/sys/fs/cgroup", name) for name in ("memory.max", "memory.high", "memory/memory.limit_in_bytes")
)


def how_many(memory: int) -> int:
    """The number of single-threaded processes that the machine can run, at least one.

    Args:
      memory: bytes that each needs.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, memory_limit() // memory))


def memory_limit() -> int:
    """Bytes that all processes here may use together: the machine's, or fewer in a container."""
    limits = [psutil.virtual_memory().total]
    for path in CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # missing, or "max"
            limits.append(int(path.read_text()))
    return min(limits)


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Processes spawned in the block never receive SIGINT, and never run the main program again.

    ^C reaches all processes, but only the main one reacts, and not before the end of the block. A spawned process would
    import the main program, which may be a user's script without a `__main__` guard, or a notebook.
    """
    resource_tracker.ensure_running()  # otherwise it starts with the first process, and unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    main, sys.modules["__main__"] = sys.modules["__main__"], types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start() -> None:
    """To be called first in a worker, so that none outlives a killed main process."""
    threading.Thread(target=_end_with_main_process, daemon=True).start()


def _end_with_main_process() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def progress(done: Iterable[T], total: int, title: str, unit: str) -> Iterator[T]:
    """Passes on the items of `done` and shows progress; without a terminal, by an occasional line.

    Raises:
      Interrupted: a signal asked the program to stop; what is done stays.
    """
    with Display(title, total, unit) as display:
        last = time.monotonic()
        for count, item in enumerate(done, start=1):
            if display.on_terminal or count == total or time.monotonic() - last >= REPORT_SECONDS:
                display.update(count)
                last = time.monotonic()
            yield item
            check_signals()
