"""Runs the jobs of a plan: each is a process of its own, is retried if it fails, and can be resumed.

Jobs go to a `concurrent.futures.Executor`: threads of this process, or the workers of a Dask cluster (cluster.py). Each
call runs one process and waits for it. All that a job produces is on the disk, which all workers must share: whatever
dies, a training, a worker, the scheduler or this process, the same command finds what is missing and resumes.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import fcntl
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TextIO

from tfaug.engine import run_dir
from tfaug.engine.errors import MachineError, TfaugError, UserError, printable
from tfaug.engine.files import make_folder
from tfaug.engine.progress import Display
from tfaug.engine.signals import check_signals
from tfaug.engine.workers import how_many
from tfaug.table1.plan import Job

RETRIES = 2  # in a row, without a new checkpoint
MEMORY_OF_A_TRAINING = 4 << 30  # bytes
POLL_SECONDS = 0.5

_CHILD = pathlib.Path(__file__).with_name("child.py")


class Program(NamedTuple):
    """What all jobs have in common.

    Attributes:
      command: what Python is to run, `-m` and a module or a file, and the flags of every job.
      logs: the folder of the logs.
      threads: threads of one operation in a training.
      folder: the working directory of every job, where the user's own modules may be.
    """

    command: tuple[str, ...]
    logs: pathlib.Path
    threads: int
    folder: pathlib.Path

    def log(self, job: Job) -> pathlib.Path:
        """The file to which the job's processes write, each attempt below the previous one."""
        return self.logs / f"{job.name}.log"


class Outcome(NamedTuple):
    """The outcome of a job.

    Attributes:
      status: 0 if it is done, else how its process ended; None if it was not started.
      text: a few words, or why it failed and where to read more.
      warnings: warnings of its process.
    """

    status: int | None
    text: str
    warnings: tuple[str, ...] = ()


WAS_DONE = Outcome(0, "was done before")
SKIPPED = Outcome(None, "skipped, as a job that it needs is not done")


def run(
    jobs: Sequence[Job],
    command: Sequence[str],
    logs: pathlib.Path,
    scheduler: str = "",
    num_workers: int = 0,
    threads: int = 1,
) -> None:
    """Runs all jobs, each after those that it needs, otherwise in the given order.

    Args:
      jobs: see `plan.missing`.
      command: what Python is to run, `-m` and a module or a file, and the flags that the jobs share.
      logs: the folder for their logs.
      scheduler: address of a running Dask cluster; "" for this machine.
      num_workers: jobs at a time on this machine; 0: as many as cores and memory allow.
      threads: threads of each training.

    Raises:
      UserError: jobs failed only by user errors, and everything that does not need them is done; or Dask is missing.
      MachineError: jobs failed in other ways too, or the cluster is lost.
      Interrupted: SIGTERM or SIGINT was received; the trainings have saved their state.
    """
    program = Program(tuple(command), logs, threads, pathlib.Path.cwd())
    make_folder(logs, "choose a --workdir that can be written")
    with _executor(scheduler, num_workers) as executor:
        not_done = _run_all(executor, jobs, program)
    if not_done:
        raise _failure(not_done, len(jobs), logs)


class ThreadExecutor(concurrent.futures.ThreadPoolExecutor):
    """Runs calls in threads of this process, and tells them when to end."""

    def __init__(self, num_workers: int):
        super().__init__(num_workers)
        self._num_workers, self._stop = num_workers, threading.Event()

    def num_workers(self) -> int:
        """How many calls it executes at a time."""
        return self._num_workers

    def wanted(self) -> bool:
        """Whether calls should continue."""
        return not self._stop.is_set()

    def shutdown(self, *args, **kwargs) -> None:
        """Makes `wanted` false and waits for the calls."""
        self._stop.set()
        super().shutdown(*args, **kwargs)


def _executor(scheduler: str, num_workers: int) -> concurrent.futures.Executor:
    if not scheduler:
        return ThreadExecutor(num_workers or how_many(MEMORY_OF_A_TRAINING))
    try:
        from tfaug.table1.cluster import ClusterExecutor  # deferred: it needs the extra, and a second to load
    except ModuleNotFoundError as error:
        raise UserError(
            "--scheduler", f"needs {error.name}, which is not installed", "pip install 'tfaug[cluster]'"
        ) from error
    return ClusterExecutor(scheduler)


class _Attempts(NamedTuple):
    """How many attempts of a job have failed in a row without a new checkpoint, and its newest checkpoint."""

    count: int = 0
    checkpoint: str = ""

    def after(self, job: Job) -> _Attempts:
        """The state after one more attempt."""
        newest = max((path.name for path in job.run.glob("checkpoints/step-*")), default="") if job.run else ""
        return _Attempts(0 if newest != self.checkpoint else self.count + 1, newest)


def _run_all(executor, jobs: Sequence[Job], program: Program) -> dict[str, Outcome]:
    """Runs all jobs and shows their progress; returns the outcomes of those not done, by name."""
    waiting = {job.name: job for job in jobs}
    running: dict[str, concurrent.futures.Future] = {}
    attempts: dict[str, _Attempts] = collections.defaultdict(_Attempts)
    not_done: dict[str, Outcome] = {}
    had_workers, warned = True, set()
    with Display("table1", len(jobs), "job") as display:
        while waiting:
            check_signals()
            num_workers, lines, quick = executor.num_workers(), [], 0
            for name, job in list(waiting.items()):
                if any(need in not_done for need in job.needs):
                    outcome = SKIPPED
                elif name in running and running[name].done():
                    outcome = _outcome(running.pop(name))
                    attempts[name] = attempts[name].after(job)
                    for warning in outcome.warnings:
                        if warning not in warned:  # most concern the data, and every job repeats them
                            display.keep(f"{name}: {warning}")
                            warned.add(warning)
                    if outcome.status not in (0, UserError.exit_status) and attempts[name].count <= RETRIES:
                        continue
                else:
                    continue
                del waiting[name]
                lines.append(f"{name}: {outcome.text}")
                quick += job.run is None or outcome in (WAS_DONE, SKIPPED)
                if outcome.status != 0:
                    not_done[name] = outcome
                    if display.on_terminal:
                        display.keep(lines[-1])
            ready = [j for n, j in waiting.items() if n not in running and not any(need in waiting for need in j.needs)]
            for job in ready[: max(0, num_workers - len(running))]:
                running[job.name] = executor.submit(do, job, program, executor.wanted)
            state = f"running: {', '.join(running) or 'none'}" if num_workers else "waiting for a worker"
            state += f"; {len(not_done)} not done" if not_done else ""
            num_ended = len(jobs) - len(waiting)
            for _ in range(quick):  # they say nothing about the trainings' time
                display.leave_out()
            if display.on_terminal or (had_workers and not num_workers and not lines):
                display.update(num_ended, state)
            else:
                for number, line in enumerate(lines, num_ended - len(lines) + 1):
                    display.update(number, f"{line}; {state}")
            had_workers = num_workers > 0
            time.sleep(POLL_SECONDS)
    return not_done


def _outcome(future: concurrent.futures.Future) -> Outcome:
    """The outcome of a finished future."""
    if future.cancelled():
        return Outcome(MachineError.exit_status, "failed: its worker was lost")
    if future.exception() is not None:
        return Outcome(MachineError.exit_status, f"failed: {future.exception()}")
    return future.result()


def _failure(not_done: Mapping[str, Outcome], num_jobs: int, logs: pathlib.Path) -> TfaugError:
    failed = [name for name, outcome in not_done.items() if outcome is not SKIPPED]
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    skipped = f", {len(not_done) - len(failed)} skipped that need them" if len(not_done) > len(failed) else ""
    only_the_users = all(not_done[name].status == UserError.exit_status for name in failed)
    return (UserError if only_the_users else MachineError)(
        logs,
        f"{len(failed)} of {num_jobs} jobs failed{skipped}: {failed[0]}{more}",
        "see the lines above and the logs, then run the same command: it does what is missing",
    )


def do(job: Job, program: Program, wanted: Callable[[], bool]) -> Outcome:
    """Attempts a job once, unless it is already done; called by the executor.

    Once it is done, the run's checkpoints are removed: only an unfinished run needs them, and those of all runs would
    fill a disk. The best model stays.

    Args:
      job: what to do.
      program: the program that does it.
      wanted: whether to continue; once it returns False, the process is asked to save and end.
    """
    log = program.log(job)
    with open(log, "a", encoding="utf-8") as file:
        while _is_busy(job, file):
            if not wanted():
                return Outcome(None, "was not started")
            time.sleep(POLL_SECONDS)
        if job.proof is not None and job.proof.exists():
            return WAS_DONE
        start, written = time.monotonic(), log.stat().st_size
        status = _attempt([sys.executable, *program.command, *job.flags], program, file, wanted)
        seconds = time.monotonic() - start
    warnings = _warnings(log, written)
    if status != 0:
        ending = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return Outcome(status, f"failed ({ending}): {_last_line(log)} (log: {log})", warnings)
    if job.run is not None:
        shutil.rmtree(job.run / "checkpoints", ignore_errors=True)
    return Outcome(0, f"done in {seconds:.0f} s", warnings)


def _is_busy(job: Job, log: TextIO) -> bool:
    """Whether another command with the same logs is doing the job, or a process of an earlier one is still saving.

    If not, the log stays locked until it is closed.
    """
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return job.run is not None and run_dir.in_use(job.run)


def _attempt(command: Sequence[str], program: Program, log: TextIO, wanted: Callable[[], bool]) -> int:
    """Runs a process, which is asked to end once it is no longer wanted; returns its exit status."""
    print("$", shlex.join(command), file=log, flush=True)
    process = subprocess.Popen(
        [sys.executable, str(_CHILD), str(os.getpid()), *command],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**_environment(), "TF_NUM_INTRAOP_THREADS": str(program.threads)},
        cwd=program.folder,
        start_new_session=True,  # only the main process handles ^C
    )
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(POLL_SECONDS)
            if not wanted():
                process.terminate()
    finally:
        process.kill()


def _environment() -> dict[str, str]:
    """This process's environment, changed so that `-m tfaug` is also found in a clone that is not installed."""
    root = pathlib.Path(__file__).resolve().parent.parent.parent
    if not (root / "train.py").is_file():
        return {**os.environ}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))}


def _warnings(log: pathlib.Path, start: int) -> tuple[str, ...]:
    """The lines of a log that begin with "warning: ", from byte `start` on."""
    with open(log, "rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").split("\n")
    return tuple(printable(line) for line in lines if line.startswith("warning: "))


def _last_line(log: pathlib.Path) -> str:
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").split("\n")
    return printable(next((line for line in reversed(lines) if line.strip()), ""))
