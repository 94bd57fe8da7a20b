"""Worker processes of the data modules: how they end, and what the user sees of their progress."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from multiprocessing import resource_tracker
from typing import TypeVar

import tqdm

from tfaug.engine.signals import check_signals

T = TypeVar("T")

REPORT_SECONDS = 10.0


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Processes that start in the block never get SIGINT, be it during their imports.

    ^C reaches all processes, but only the main one answers it, and not before the end of the block.
    """
    resource_tracker.ensure_running()  # else it starts with the first process, and unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start() -> None:
    """To be called first in a worker: none outlives a killed main process."""
    threading.Thread(target=_end_with_main_process, daemon=True).start()


def _end_with_main_process() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def progress(done: Iterable[T], total: int, title: str, unit: str) -> Iterator[T]:
    """Passes `done` on; shows a bar on a terminal, and otherwise a line now and then.

    Raises:
      Interrupted: a signal asked the program to stop; what is done stays.
    """
    if sys.stdout.isatty():
        for item in tqdm.tqdm(done, total=total, desc=title, unit=unit, file=sys.stdout):
            yield item
            check_signals()
        return
    start = last = time.monotonic()
    for count, item in enumerate(done, start=1):
        now = time.monotonic()
        if now - last >= REPORT_SECONDS or count == total:
            last, seconds = now, (now - start) / count
            print(
                f"{title}: {count} of {total} {unit}s, {seconds:.1f} s each, {seconds * (total - count):.0f} s left",
                flush=True,
            )
        yield item
        check_signals()
