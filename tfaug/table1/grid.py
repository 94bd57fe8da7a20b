"""Runs the jobs of a plan on Dask: each is a process of its own, is retried and can be continued.

Dask reaches the workers and tells which of them live; which job runs where is decided here. Dask hands out whatever is
ready at once, by what it believes that jobs take, and with jobs of minutes or hours it left workers without work. Here
a worker gets the next job when it is free. What a job leaves is on the disk, which all workers must share: whatever
dies, a training, a worker, the scheduler or this process, the same command finds out what is missing and goes on.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import fcntl
import itertools
import logging
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TextIO

import dask.config
import dask.system
import distributed
import tqdm
from distributed.core import Status
from distributed.system import MEMORY_LIMIT
from distributed.worker import thread_state

from tfaug.engine import run_dir
from tfaug.engine.errors import MachineError, TfaugError, UserError, printable
from tfaug.engine.files import machine_errors
from tfaug.engine.signals import check_signals, received_signal
from tfaug.table1.plan import Job

RETRIES = 2
MEMORY_OF_A_TRAINING = 4 << 30  # bytes
POLL_SECONDS = 0.5
RESULT_SECONDS = 30  # until a worker is taken for dead whose job is done

_CHILD = pathlib.Path(__file__).with_name("child.py")
_alive: set[str] = set()  # on a worker: keys of the tasks whose job has a process


class Program(NamedTuple):
    """What all jobs have in common.

    Attributes:
      command: the program's file, and the flags of every job.
      logs: the folder of the logs.
      threads: of one operation in a training.
    """

    command: tuple[str, ...]
    logs: pathlib.Path
    threads: int

    def log(self, job: Job) -> pathlib.Path:
        """Where the job's processes write, each attempt below the one before."""
        return self.logs / f"{job.name}.log"


class Outcome(NamedTuple):
    """What has become of a job.

    Attributes:
      status: 0 if it is done, else how its process ended; None if it was not started, as one that it needs failed.
      text: a few words, or why it failed and where to read more.
      seconds: what it took; 0 if nothing was left to do.
    """

    status: int | None
    text: str
    seconds: float = 0.0

    @property
    def kind(self) -> str:
        """One of "done", "skipped" and "failed"."""
        return {0: "done", None: "skipped"}.get(self.status, "failed")


SKIPPED = Outcome(None, "skipped, as a job that it needs is not done")


def run(
    jobs: Sequence[Job],
    command: Sequence[str],
    logs: pathlib.Path,
    scheduler: str = "",
    num_workers: int = 0,
    threads: int = 1,
) -> None:
    """Runs all jobs, each after those that it needs, and otherwise the first first.

    Args:
      jobs: see `plan.missing`.
      command: the file of the program that they run, and the flags that they share.
      logs: the folder for their logs.
      scheduler: address of a running Dask cluster; "" for one that is started here and ends with the jobs.
      num_workers: jobs at a time of the cluster that is started here; 0: as many as cores and memory allow.
      threads: of each training.

    Raises:
      UserError: jobs failed by the user's error alone. Everything that does not need them is done.
      MachineError: jobs failed in another way as well, or the cluster is lost.
      Interrupted: SIGTERM or SIGINT came; the trainings have saved what they had.
    """
    cores, room = dask.system.CPU_COUNT, MEMORY_LIMIT // MEMORY_OF_A_TRAINING
    num_workers = num_workers or max(1, min(cores, room))
    program = Program(tuple(command), logs, threads)
    with machine_errors(logs, "choose a --workdir that can be written"):
        logs.mkdir(parents=True, exist_ok=True)
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # we report a lost scheduler, in one line
    with _lost(scheduler or "Dask"), _cluster(scheduler, num_workers) as client:
        not_done = _watch(client, jobs, program)
    if not_done:
        raise _failure(not_done, len(jobs), logs)


@contextlib.contextmanager
def _lost(cluster: str) -> Iterator[None]:
    """Turns the errors of a connection into MachineErrors."""
    try:
        yield
    except (OSError, asyncio.TimeoutError) as error:
        if getattr(error, "errno", None) in (errno.EPIPE, errno.ENOSPC):
            raise  # that is our standard output: Dask's own errors are wrapped
        remedy = "see that the cluster runs, then run the same command to go on"
        raise MachineError(cluster, f"is lost ({error or 'no answer'})", remedy) from error


@contextlib.contextmanager
def _cluster(scheduler: str, num_workers: int) -> Iterator[distributed.Client]:
    if scheduler:
        with distributed.Client(scheduler) as client:
            yield client
        return
    cluster = distributed.LocalCluster(
        n_workers=num_workers,
        threads_per_worker=1,
        security=True,  # a scheduler runs what anybody sends it, and other users of the machine reach it, too
        memory_limit=0,  # of the worker, which only waits for a training
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,  # the view tells enough of workers that die and come back
    )
    with cluster:
        with distributed.Client(cluster) as client:
            client.register_plugin(_DeafToSignals())
            yield client


class _DeafToSignals(distributed.WorkerPlugin):
    """^C reaches all processes of a terminal, but only the main one answers it."""

    def setup(self, worker):  # noqa: D102 -- overrides what `WorkerPlugin` documents
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


class _Flight(NamedTuple):
    """A job on its way: the future of its task, and the address of the worker that has it."""

    future: distributed.Future
    worker: str


class _LostWorkers(NamedTuple):
    """How many workers a job has lost, one after the other, without having got on, and the checkpoint that it had."""

    count: int = 0
    checkpoint: str = ""

    def again(self, job: Job) -> _LostWorkers:
        """After one more. A worker that ends in good order, its time being over, lets the training save."""
        newest = max((path.name for path in job.run.glob("checkpoints/step-*")), default="") if job.run else ""
        return _LostWorkers(1 if newest != self.checkpoint else self.count + 1, newest)


def _watch(client, jobs, program) -> dict[str, Outcome]:
    """Runs all jobs and shows how far they are; returns what was not done, by the job's name."""
    waiting, not_done = {job.name: job for job in jobs}, {}
    flights: dict[str, _Flight] = {}
    lost: dict[str, _LostWorkers] = {}

    def alive():
        keys = set(itertools.chain(*client.run(_alive_keys, on_error="ignore").values()))
        return any(flight.future.key in keys for flight in flights.values())

    with View(len(jobs)) as view:
        while waiting:
            if received_signal():
                client.cancel([flight.future for flight in flights.values()], force=True)
                while alive():
                    time.sleep(POLL_SECONDS)
                check_signals()
            workers, ended = client.nthreads(), []
            for name, job in list(waiting.items()):
                outcome = None
                if any(need in not_done for need in job.needs):
                    outcome = SKIPPED
                elif name in flights:
                    outcome = _landed(client, flights, job, workers, lost)
                if outcome is not None:
                    del waiting[name]
                    ended.append((job, outcome))
                    if outcome.status != 0:
                        not_done[name] = outcome
            _dispatch(client, waiting, flights, workers, program)
            view.update(ended, list(waiting.values()), list(flights), sum(workers.values()))
            time.sleep(POLL_SECONDS)
    return not_done


def _landed(client, flights, job, workers, lost) -> Outcome | None:
    """What has become of a job on its way, which then is it no longer; None if it still is, or has to start again."""
    flight = flights[job.name]
    if flight.future.done():
        with contextlib.suppress(distributed.TimeoutError):  # the worker has died with what it had to tell
            outcome = _outcome(flight.future)
            del flights[job.name]
            return outcome
    elif flight.worker in workers:
        return None
    client.cancel([flight.future], force=True)
    del flights[job.name]
    lost[job.name] = lost.get(job.name, _LostWorkers()).again(job)
    if lost[job.name].count <= dask.config.get("distributed.scheduler.allowed-failures"):
        return None
    return Outcome(MachineError.exit_status, f"failed: it has lost {lost[job.name].count} workers")


def _dispatch(client, waiting, flights, workers, program) -> None:
    """Hands the first jobs that nothing holds back to the workers that are free."""
    busy = collections.Counter(flight.worker for flight in flights.values())
    free = [address for address, threads in workers.items() for _ in range(threads - busy[address])]
    ready = (job for name, job in waiting.items() if name not in flights and not any(n in waiting for n in job.needs))
    for address, job in zip(free, ready):
        key = f"{job.name}-{uuid.uuid4().hex}"  # on a running cluster a task of another sitting may still be ending
        future = client.submit(do, job, program, key=key, workers=[address], pure=False)
        flights[job.name] = _Flight(future, address)


def _outcome(future: distributed.Future) -> Outcome:
    """Of a future that is done. An error is Dask's own."""
    if future.status == "finished":
        return future.result(timeout=RESULT_SECONDS)
    if future.status != "error":
        raise OSError("the connection ended")
    return Outcome(MachineError.exit_status, f"failed: {future.exception()}")


def _failure(not_done: Mapping[str, Outcome], num_jobs: int, logs: pathlib.Path) -> TfaugError:
    failed = [name for name, outcome in not_done.items() if outcome.kind == "failed"]
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    skipped = f", {len(not_done) - len(failed)} skipped that need them" if len(not_done) > len(failed) else ""
    only_the_users = all(not_done[name].status == UserError.exit_status for name in failed)
    return (UserError if only_the_users else MachineError)(
        logs,
        f"{len(failed)} of {num_jobs} jobs failed{skipped}: {failed[0]}{more}",
        "see the lines above and the logs, then run the same command: it does what is missing",
    )


def _alive_keys() -> list[str]:
    return list(_alive)


def do(job: Job, program: Program) -> Outcome:
    """On a worker: does a job, unless it is done already.

    A job that fails is tried again, but not after a user's error. Once it is done, the run's checkpoints are removed:
    they serve an unfinished run alone, and those of the whole grid would fill a disk. The best model stays.

    Raises:
      Reschedule: nobody waits for the job any more, or the worker closes; the process has been stopped by SIGTERM.
    """
    key = thread_state.key
    _alive.add(key)
    try:
        with _turn(job, program):
            if job.proof is not None and job.proof.exists():
                return Outcome(0, "was done before")
            start = time.monotonic()
            for _ in range(1 + RETRIES):
                status = _attempt(job, program)
                if not _wanted():
                    raise distributed.Reschedule
                if status in (0, UserError.exit_status):
                    break
            seconds = time.monotonic() - start
    finally:
        _alive.discard(key)
    if status != 0:
        log = program.log(job)
        return Outcome(status, f"failed ({_ending(status)}): {_last_line(log)} (log: {log})", seconds)
    if job.run is not None:
        shutil.rmtree(job.run / "checkpoints", ignore_errors=True)
    return Outcome(0, f"done in {seconds:.0f} s", seconds)


@contextlib.contextmanager
def _turn(job: Job, program: Program) -> Iterator[None]:
    """Keeps the workers of other commands with the same logs from the job, between its processes as well."""
    with open(program.log(job), "a") as log:
        while True:
            try:
                fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not _wanted():
                    raise distributed.Reschedule from None
                time.sleep(POLL_SECONDS)
        yield


def _wanted() -> bool:
    """Whether the task of this thread shall go on: neither cancelled, nor its client gone, nor its worker closing."""
    worker = distributed.get_worker()
    task = worker.state.tasks.get(thread_state.key)
    return task is not None and task.state == "executing" and worker.status in (Status.running, Status.paused)


def _attempt(job: Job, program: Program) -> int:
    """Runs a job's process, which is asked to end when it is not wanted any more; returns its exit status."""
    while job.run is not None and run_dir.in_use(job.run) and _wanted():
        time.sleep(POLL_SECONDS)  # what an earlier command started may still be saving
    command = [sys.executable, *program.command, *job.flags]
    environment = {**os.environ, "TF_NUM_INTRAOP_THREADS": str(program.threads)}
    with open(program.log(job), "a", encoding="utf-8") as log:
        print("$", shlex.join(command), file=log, flush=True)
        process = subprocess.Popen(
            [sys.executable, str(_CHILD), str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # ^C is the main process's business
        )
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(POLL_SECONDS)
                if not _wanted():
                    process.terminate()
        finally:
            process.kill()


def _ending(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def _last_line(log: pathlib.Path) -> str:
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").split("\n")
    return printable(next((line for line in reversed(lines) if line.strip()), ""))


class View:
    """Shows how far a grid is: a bar on a terminal, else a line for each job that ends.

    Args:
      num_jobs: in all.
      stream: where to; standard output if None.
    """

    def __init__(self, num_jobs: int, stream: TextIO | None = None):
        self._stream = stream or sys.stdout
        self._num_jobs = num_jobs
        self._counts: collections.Counter[str] = collections.Counter()
        self._seconds: dict[str, list[float]] = collections.defaultdict(list)  # by stage, of jobs that ran
        self._has_workers = True
        self._bar: tqdm.tqdm | None = None
        if self._stream.isatty():
            form = "{n_fmt}/{total_fmt} jobs |{bar:20}|{postfix}"
            self._bar = tqdm.tqdm(total=num_jobs, bar_format=form, file=self._stream, dynamic_ncols=True)

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(
        self,
        ended: Sequence[tuple[Job, Outcome]],
        waiting: Sequence[Job],
        running: Sequence[str],
        num_workers: int,
    ) -> None:
        """Shows a moment.

        Args:
          ended: jobs that have ended since the last call.
          waiting: jobs that have not ended, those that run included.
          running: names of those that run, or are on their way to a worker.
          num_workers: how many jobs can run at a time.
        """
        lines = []
        for job, outcome in ended:
            self._counts[outcome.kind] += 1
            if outcome.kind == "done" and outcome.seconds:
                self._seconds[job.flags[0]].append(outcome.seconds)
            lines.append((outcome.kind, f"{sum(self._counts.values())}/{self._num_jobs} {job.name}: {outcome.text}"))
        state = "; ".join(
            [
                f"running: {', '.join(running) or 'none'}",
                *(f"{self._counts[kind]} {kind}" for kind in ("failed", "skipped") if self._counts[kind]),
                self._left(waiting, num_workers),
            ]
        )
        if self._bar is None:
            for _, line in lines:
                print(f"{line}; {state}", file=self._stream, flush=True)
            if self._has_workers and not num_workers:
                print(state, file=self._stream, flush=True)
            self._has_workers = num_workers > 0
            return
        for kind, line in lines:
            if kind == "failed":
                self._bar.write(line, file=self._stream)
        self._bar.update(len(ended))
        self._bar.set_postfix_str(state)

    def _left(self, waiting: Sequence[Job], num_workers: int) -> str:
        """The time left, by what the jobs of a stage took in mean; of a stage that is yet to come, all stages."""
        trainings = [seconds for stage, times in self._seconds.items() if stage != "--stage=data" for seconds in times]
        if not num_workers:
            return "waiting for a worker"
        if not trainings:
            return "time left unknown"
        mean = {stage: sum(times) / len(times) for stage, times in self._seconds.items()}
        overall = sum(trainings) / len(trainings)
        seconds = sum(mean.get(job.flags[0], overall) for job in waiting) / num_workers
        return f"{tqdm.tqdm.format_interval(seconds)} left"
