"""A running Dask cluster as an executor; needs the extra `tfaug[cluster]`."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import distributed
from distributed.core import Status
from distributed.worker import thread_state

from tfaug.engine.errors import MachineError

POLL_SECONDS = 0.5

_tags: list[str] = []  # on a worker: tags of the calls that it is executing


class ClusterExecutor(concurrent.futures.Executor):
    """Gives each call to a free thread of a worker.

    Dask itself would assign calls by their estimated duration, and leave workers idle if calls take hours.

    Args:
      address: tcp://HOST:PORT of the scheduler.

    Raises:
      MachineError: on construction or in any call, if the scheduler does not answer.
    """

    def __init__(self, address: str):
        self._address, self._tag = address, uuid.uuid4().hex
        self._running: dict[concurrent.futures.Future, str] = {}  # future to its worker's address
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # a lost scheduler is our own error
        with self._lost():
            self._client = distributed.Client(address)

    def num_workers(self) -> int:
        """How many calls the cluster can execute at a time; calls on workers that are gone are cancelled."""
        with self._lost():
            self._threads = self._client.nthreads()
        for future, worker in self._running.items():
            if worker not in self._threads:
                future.cancel()
        self._running = {future: worker for future, worker in self._running.items() if not future.done()}
        return sum(self._threads.values())

    def submit(self, function: Callable, /, *args: Any) -> concurrent.futures.Future:
        """Calls `function(*args)` on a free worker; according to the last `num_workers` there must be one."""
        free = collections.Counter(self._threads)
        free.subtract(self._running.values())
        worker = max(free, key=free.__getitem__)
        with self._lost():
            executor = self._client.get_executor(workers=[worker], pure=False)
            future = executor.submit(_call, self._tag, function, *args)
        self._running[future] = worker
        return future

    def shutdown(self, wait: bool = True, **_: Any) -> None:
        """Makes `wanted` false for all calls and waits until they have returned."""
        with contextlib.suppress(OSError, asyncio.TimeoutError):  # a lost scheduler has ended them
            for future in self._running:
                future.cancel()
            while any(self._tag in tags for tags in self._client.run(_executing, on_error="ignore").values()):
                time.sleep(POLL_SECONDS)
            self._client.close()

    @staticmethod
    def wanted() -> bool:
        """On a worker: False once the call is cancelled, its client gone or the worker closing."""
        worker = distributed.get_worker()
        task = worker.state.tasks.get(thread_state.key)
        return task is not None and task.state == "executing" and worker.status in (Status.running, Status.paused)

    @contextlib.contextmanager
    def _lost(self) -> Iterator[None]:
        try:
            yield
        except (OSError, asyncio.TimeoutError) as error:
            remedy = "see that the cluster runs, then run the same command to resume"
            raise MachineError(self._address, f"is lost ({error or 'no answer'})", remedy) from error


def _call(tag: str, function: Callable, *args: Any) -> Any:
    _tags.append(tag)
    try:
        result = function(*args)
        if not ClusterExecutor.wanted():
            raise distributed.Reschedule
        return result
    finally:
        _tags.remove(tag)


def _executing() -> list[str]:
    return _tags
