"""Shared by the benchmarks: interleaved repetitions and their medians, worker processes, tables.

Imports no TensorFlow at module level, as processes that only wait for their workers need none.
"""

from __future__ import annotations

import importlib
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tfaug.engine import workers

Measurement = dict[str, float]  # numbers by name; "seconds" is always among them

SETTLE_SECONDS = 0.1  # pause between two measurements, for background work of the first to end


class Job(NamedTuple):
    """Work that a worker does repeatedly.

    Attributes:
      run: does it once; may return further numbers, by name.
      facts: numbers known beforehand, by name.
    """

    run: Callable[[], Mapping[str, float] | None]
    facts: Mapping[str, float] = {}


def timed(run: Callable[[], Mapping[str, float] | None]) -> Measurement:
    """Calls `run` once; returns its "seconds" and the numbers that it returned."""
    start = time.perf_counter()
    more = run()
    return {"seconds": time.perf_counter() - start, **(more or {})}


def side_by_side(calls: Mapping[str, Callable[[], Measurement]], repeats: int) -> dict[str, Measurement]:
    """Medians of measurements taken in turn, so that a slow spell of the machine affects them all.

    Args:
      calls: functions by name, each of which takes one measurement.
      repeats: measurements of each.

    Returns:
      the median of each number, by name of the call.
    """
    taken: dict[str, list[Measurement]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            taken[name].append(call())
            time.sleep(SETTLE_SECONDS)
    return {
        name: {number: statistics.median(one[number] for one in several) for number in several[0]}
        for name, several in taken.items()
    }


class Worker:
    """A process that builds one `Job` and runs it on request, with its own global settings and memory.

    Use it as a context manager.

    Args:
      module: contains the function that builds the job; imported in that process only.
      function: the function's name.
      warm_up: number of runs before the first measurement, to trace graphs and fill buffers.
      **arguments: passed to the function.

    Attributes:
      facts: those of the job.

    Raises:
      RuntimeError: on construction or in a call, if the process ended; its standard error says why.
    """

    def __init__(self, module: str, function: str, warm_up: int = 2, **arguments: Any):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        self._name = f"{module}.{function}"
        context = multiprocessing.get_context("spawn")
        self._connection, remote = context.Pipe()
        self._process = context.Process(target=_serve, args=(remote, module, function, warm_up, arguments), daemon=True)
        self._process.start()
        remote.close()
        try:
            self.facts: Mapping[str, float] = self._answer()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __call__(self) -> Measurement:
        """Runs the job once."""
        self._connection.send("run")
        return self._answer()

    def peak_memory(self) -> float:
        """The most memory that the process has used so far, MiB."""
        self._connection.send("memory")
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.join()
        self._connection.close()

    def _answer(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError(f"the process of {self._name} ended") from error


def _serve(
    connection: multiprocessing.connection.Connection, module: str, function: str, warm_up: int, arguments: dict
) -> None:
    workers.start()
    job = getattr(importlib.import_module(module), function)(**arguments)
    for _ in range(warm_up):
        job.run()
    connection.send(dict(job.facts))
    answers = {"run": lambda: timed(job.run), "memory": peak_memory}
    while True:
        connection.send(answers[connection.recv()]())


def peak_memory() -> float:
    """The most memory that this process has used so far, MiB."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # `ru_maxrss` of a new process may be inherited from its parent
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def matrix_product(dtype: str, size: int) -> Job:
    """A product of two square matrices, which sets the rate that arithmetic in `dtype` can reach on this machine."""
    import tensorflow as tf  # deferred: see the module docstring

    a, b = (tf.cast(tf.random.stateless_normal([size, size], (0, seed)), dtype) for seed in (1, 2))

    def run() -> None:
        tf.matmul(a, b)[0, 0].numpy()

    return Job(run, {"gflop": 2 * size**3 / 1e9})


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; floats have at least three significant digits, None is an empty cell."""
    cells = [list(header), ["---"] * len(header), *([_cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def numbers(text: str) -> list[int]:
    """Parses an argument such as "64,128"."""
    return [int(part) for part in text.split(",")]


def words(text: str) -> list[str]:
    """Parses an argument such as "float32,mixed_bfloat16"."""
    return text.split(",")
