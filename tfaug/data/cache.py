"""Prepared volumes on disk, each made once and looked up by the contents of its files."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import logging
import multiprocessing
import multiprocessing.connection
import pathlib
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import SimpleITK as sitk
import skimage

from tfaug.data import oddities, preprocess, scan
from tfaug.data.dataset import DataSet
from tfaug.data.preprocess import Grid, Prepared, Spec
from tfaug.data.readers import base
from tfaug.data.readers.base import Files
from tfaug.engine import workers
from tfaug.engine.errors import MachineError, TfaugError, UserError, printable
from tfaug.engine.files import PART, replacing
from tfaug.engine.signals import check_signals

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5  # between two checks for a signal
STALE_SECONDS = 3600.0  # no entry takes that long to write
ROOM = "free space there, or name another folder with data.cache_dir"


class Request(NamedTuple):
    """A case, and what of it is wanted.

    Attributes:
      case: its name.
      label: False never looks for a label, and returns None in its place.
      volume: whether to include the scan on its own grid, for evaluation.
    """

    case: str
    label: bool = True
    volume: bool = False


@dataclasses.dataclass(frozen=True)
class _Job:
    """A case that may have to be prepared, in a form that can be sent to a worker process."""

    dataset: DataSet
    request: Request
    spec: Spec
    files: Files
    contents: dict[pathlib.Path, bytes]
    digest: str
    entry: pathlib.Path
    prepare: bool  # False: only read it


def load(dataset: DataSet, requests: Sequence[Request], spec: Spec, cache_dir, num_workers: int = 2) -> list[Prepared]:
    """Prepared volumes in the order of `requests`; each file is read and decoded at most once.

    Cases that are not cached yet are prepared in worker processes, each with one thread. A single case, or any number
    with one worker, is prepared in this process, where a signal takes effect after the current scan.

    Raises:
      UserError: a case cannot be read or prepared, or its worker process died; it says how many more errors there are.
      MachineError: an entry cannot be written, or memory runs out.
      Interrupted: a signal asked the program to stop.
    """
    found, errors = {}, {}
    results = load_each(dataset, requests, spec, cache_dir, num_workers)
    for request, result in workers.progress(results, len(set(requests)), "reading", "case"):
        if isinstance(result, UserError):
            errors[request] = result
        else:
            found[request] = result
    refuse(errors[request] for request in requests if request in errors)  # workers finish in any order
    oddities.warn(oddities.of_scans(dataset.task, [found[request] for request in dict.fromkeys(requests)]))
    return [found[request] for request in requests]


def digests(dataset: DataSet, requests: Iterable[Request]) -> dict[str, str]:
    """SHA-256 of the contents of each case's files, by case, as `Prepared.digest`; nothing is decoded.

    Raises:
      UserError: a file is missing or cannot be read.
    """
    found = {}
    for request in requests:
        check_signals()
        files = dataset.locate(request.case, request.label)
        found[request.case] = _digest_of(files, _contents(files))
    return found


def load_each(
    dataset: DataSet,
    requests: Sequence[Request],
    spec: Spec,
    cache_dir,
    num_workers: int = 2,
    after_error: Literal["read", "prepare"] = "read",
) -> Iterator[tuple[Request, Prepared | UserError | None]]:
    """Like `load`, but yields each prepared volume or error as soon as it is available.

    After an error the remaining cases are only read, so that faulty files are found soon, and a case that is not cached
    yields None; with `after_error` "prepare" they are prepared all the same, which finds every problem.
    """
    requests, cache_dir = list(dict.fromkeys(requests)), pathlib.Path(cache_dir)
    return _results(dataset, requests, spec, cache_dir, num_workers, after_error)


def refuse(
    errors: Iterable[UserError], listing: str = "`python train.py --check` with the same flags lists all"
) -> None:
    """Raises the first error, if any; it says how many others there are and where they are listed."""
    distinct = list({str(error): error for error in errors}.values())
    if len(distinct) == 1:
        raise distinct[0]
    if distinct:
        first, more = distinct[0], len(distinct) - 1
        raise UserError(
            first.subject,
            f"{first.problem}, and there {'is 1 more problem' if more == 1 else f'are {more} more problems'}",
            f"{first.remedy}; {listing}",
        )


def _results(
    dataset: DataSet,
    requests: Sequence[Request],
    spec: Spec,
    cache_dir: pathlib.Path,
    num_workers: int,
    after_error: str,
) -> Iterator[tuple[Request, Prepared | UserError | None]]:
    located, ready = {}, collections.deque()  # ready: results that needed no job
    for request in requests:  # missing files are found before anything is prepared
        try:
            with explained(request.case):
                located[request] = dataset.locate(request.case, request.label)
        except UserError as error:
            ready.append((request, error))
    go_on = after_error == "prepare"
    read_only = bool(ready) and not go_on

    def jobs() -> Iterator[_Job]:
        nonlocal read_only
        for request, files in located.items():
            check_signals()
            try:
                with explained(request.case):
                    job = _job(dataset, request, files, spec, cache_dir, prepare=not read_only)
                    prepared = _load_entry(job)
            except UserError as error:
                read_only = not go_on
                ready.append((request, error))
            else:
                if prepared is None:
                    yield job
                else:
                    ready.append((request, prepared))

    def take_ready() -> Iterator[tuple[Request, Prepared | UserError]]:
        while ready:
            yield ready.popleft()

    waiting = jobs()
    first = list(itertools.islice(waiting, num_workers))
    yield from take_ready()
    if first:
        if read_only:
            first = [dataclasses.replace(job, prepare=False) for job in first]
        else:
            _make_writable(cache_dir)
        make = _make_here if len(first) == 1 else functools.partial(_make_in_processes, len(first))
        for job, result in make(itertools.chain(first, waiting)):
            read_only = read_only or (isinstance(result, UserError) and not go_on)
            yield job.request, result
            yield from take_ready()
        yield from take_ready()


def _job(dataset: DataSet, request: Request, files: Files, spec: Spec, cache_dir: pathlib.Path, prepare: bool) -> _Job:
    """Reads the bytes of a case's files, which determine its entry."""
    contents = _contents(files)
    digest = _digest_of(files, contents)
    # Everything that a prepared volume depends on, besides its name.
    key = {
        "files": digest,
        "channels": len(dataset.task.channels),
        "values": list(dataset.task.structures.values()) if files.label else None,
        "slice_axis": dataset.slice_axis,
        "spec": dataclasses.asdict(spec),
        "n4_threads": preprocess.N4_THREADS,
        "versions": {
            "tfaug": preprocess.VERSION,
            "SimpleITK": sitk.Version_VersionString(),
            "scikit-image": skimage.__version__,
        },
    }
    return _Job(dataset, request, spec, files, contents, digest, cache_dir / f"{_digest(key)}.npz", prepare)


def _contents(files: Files) -> dict[pathlib.Path, bytes]:
    return {path: _read(path) for path in files.paths}


def _digest_of(files: Files, contents: dict[pathlib.Path, bytes]) -> str:
    hashes = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    return _digest({"images": [hashes[path] for path in files.images], "label": hashes.get(files.label)})


def _read(path: pathlib.Path) -> bytes:
    try:
        with scan.opened(path, None) as stream:
            return stream.read()
    except OSError as error:
        raise scan.unreadable(path, error) from error


def _digest(content) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _load_entry(job: _Job) -> Prepared | None:
    """The cached volume, or None if there is no entry or only a damaged one."""
    case = job.request.case
    try:
        with zipfile.ZipFile(job.entry) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("checksum")
        with np.load(job.entry, allow_pickle=False) as arrays:
            grid = Grid(
                tuple(int(n) for n in arrays["native_shape"]),
                tuple(float(mm) for mm in arrays["spacing"]),
                job.spec.image_size,
                job.spec.resolution,
                int(arrays["axis"]),
            )
            label, cut = (arrays["label"], arrays["cut"]) if job.request.label else (None, None)
            path, order = job.files.images[0], str(arrays["order"])
            prepared = Prepared(case, arrays["image"], label, grid, path, cut, order, job.digest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # whatever is wrong with it, the entry is made again
        logger.warning(printable(f"{job.entry}: damaged cache entry of {case}, made again ({error})"))
        return None
    prepared = dataclasses.replace(prepared, contradiction=base.contradiction(job.files, job.contents))
    if job.request.volume:
        prepared = dataclasses.replace(prepared, volume=job.dataset.decode(case, job.files, job.contents))
    return prepared


def _store(prepared: Prepared, entry: pathlib.Path) -> None:
    """Writes an entry atomically: whatever happens, it exists whole or not at all."""
    grid = prepared.grid
    arrays = {"image": prepared.image, "native_shape": grid.native_shape, "spacing": grid.spacing, "axis": grid.axis}
    arrays["order"] = prepared.order
    if prepared.label is not None:
        arrays.update(label=prepared.label, cut=prepared.cut)
    content = io.BytesIO()
    np.savez(content, **arrays)
    # Another process may be writing the same entry.
    with replacing(entry, ROOM, subject=entry.parent, unique=True) as temporary:
        temporary.write_bytes(content.getvalue())  # a view (getbuffer) in an error's traceback crashes Python 3.12.1


def _make_writable(cache_dir: pathlib.Path) -> None:
    """Fails before any work is done if its result could not be stored; removes what killed runs left."""
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cache_dir).close()
        for leftover in cache_dir.glob(f"{PART}*"):
            if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
                leftover.unlink(missing_ok=True)
    except OSError as error:
        raise MachineError(cache_dir, f"cannot be written ({error.strerror or error})", ROOM) from error


def _make_here(jobs: Iterator[_Job]) -> Iterator[tuple[_Job, Prepared | UserError | None]]:
    """Does the jobs one by one in this process."""
    for job in jobs:
        yield job, _raise_if_machine(_make(job))


def _make_in_processes(num_workers: int, jobs: Iterator[_Job]) -> Iterator[tuple[_Job, Prepared | UserError | None]]:
    """Does the jobs in worker processes; yields each with its result when it is done.

    Each worker has a pipe of its own, so that its death is noticed at once and the case is known. A
    `ProcessPoolExecutor` does not tell whose worker died, and before Python 3.12 it may hang if one dies while being
    sent a job.
    """
    context = multiprocessing.get_context("spawn")
    idle, busy, processes = [], {}, []
    try:
        for _ in range(num_workers):
            connection, remote = context.Pipe()
            process = context.Process(target=_work, args=(remote,), daemon=True)
            with workers.starting():
                process.start()
            processes.append(process)
            remote.close()
            idle.append(connection)
        while True:
            for job in itertools.islice(jobs, len(idle)):
                busy[(connection := idle.pop())] = job
                _talk(connection.send, job, job)
            if not busy:
                return
            check_signals()  # N4 of one scan at full resolution takes minutes
            for connection in multiprocessing.connection.wait(list(busy), POLL_SECONDS):
                job = busy.pop(connection)
                result = _talk(connection.recv, job)
                idle.append(connection)
                yield job, _raise_if_machine(result)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _talk(action: Callable, job: _Job, *arguments):
    """Sends to a worker or receives from it."""
    try:
        return action(*arguments)
    except (EOFError, OSError) as gone:
        check_signals()  # a scheduler's signal reaches all processes, and a worker may be the first to go
        raise UserError(
            job.request.case,
            "the process that prepared it died (killed, or out of memory?)",
            "free memory or set data.num_workers to 1, and start again",
        ) from gone


def _work(connection: multiprocessing.connection.Connection) -> None:
    """The main function of a worker process: answers each job with its result."""
    workers.start()
    with contextlib.suppress(EOFError):  # there are no more jobs
        while True:
            connection.send(_make(connection.recv()))


def _make(job: _Job) -> Prepared | TfaugError | None:
    """Prepares a case and stores the entry, or only reads it and returns None; errors are returned."""
    try:
        with explained(job.request.case):
            volume = job.dataset.decode(job.request.case, job.files, job.contents)
            if not job.prepare:
                return preprocess.check(volume)
            contradiction = base.contradiction(job.files, job.contents)
            prepared = preprocess.prepare_volume(volume, job.spec)
            prepared = dataclasses.replace(prepared, digest=job.digest, contradiction=contradiction)
            _store(prepared, job.entry)
            return dataclasses.replace(prepared, volume=volume) if job.request.volume else prepared
    except TfaugError as error:
        return error


@contextlib.contextmanager
def explained(case: str) -> Iterator[None]:
    """Turns any failure on a case into an error for the user."""
    try:
        yield
    except TfaugError:
        raise
    except MemoryError as error:
        remedy = "free some, or raise data.resolution"
        raise MachineError(case, "there is too little memory to prepare it", remedy) from error
    except Exception as error:  # from a library, about something that no check foresaw
        problem = f"cannot be prepared ({type(error).__name__}: {error})"
        raise UserError(case, problem, "replace the scan, or leave the case out of the split") from error


def _raise_if_machine(result: Prepared | TfaugError | None) -> Prepared | UserError | None:
    """Raises a machine error, which ends everything at once; other results, errors included, are passed on."""
    if isinstance(result, MachineError):
        raise result
    return result
