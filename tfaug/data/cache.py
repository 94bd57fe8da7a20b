"""Prepared volumes on disk, each made once and found again by the content of its files."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import multiprocessing
import multiprocessing.connection
import pathlib
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator

import numpy as np
import SimpleITK as sitk
import skimage

from tfaug.data import nifti, preprocess
from tfaug.data.readers import acdc
from tfaug.engine import workers
from tfaug.engine.errors import MachineError, TfaugError, UserError, printable
from tfaug.engine.files import PART, replacing
from tfaug.engine.signals import check_signals

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5  # between two looks for a signal
STALE_SECONDS = 3600.0  # no entry takes that long to write
ROOM = "free space there, or name another folder with data.cache_dir"


@dataclasses.dataclass(frozen=True)
class _Task:
    """One entry of the cache and what it is made from, in a form that travels to a worker process."""

    root: pathlib.Path
    case: str
    phase: str
    label: str
    spec: preprocess.Spec
    image: pathlib.Path
    entry: pathlib.Path


def load(
    root,
    cases: Iterable[str],
    spec: preprocess.Spec,
    cache_dir,
    phase: str = "ES",
    labels: bool = True,
    num_workers: int = 2,
) -> list[preprocess.Prepared]:
    """Prepared volumes in the order of `cases`; those not cached yet are made in worker processes.

    Because workers are spawned, the program's main module is imported in them again: it should import heavy
    libraries only when it runs as the main program.

    Args:
      root: the data set's folder, see `acdc`.
      cases: names of patients' folders.
      spec: how to prepare them.
      cache_dir: where entries are kept; made if missing.
      phase: "ES" or "ED".
      labels: False never opens a label, and gives None as each label.
      num_workers: most processes at a time, each with one thread.

    Raises:
      UserError: a case cannot be read or prepared, or its worker process died.
      MachineError: an entry cannot be written.
    """
    cases, cache_dir = list(cases), pathlib.Path(cache_dir)
    label = "required" if labels else "ignored"
    tasks = {}
    for case in cases:
        files = acdc.locate(root, case, phase, label)
        tasks[case] = _Task(root, case, phase, label, spec, files.image, cache_dir / f"{_key(files, spec)}.npz")
    found = {case: _load_entry(task) for case, task in tasks.items()}
    missing = [task for case, task in tasks.items() if found[case] is None]
    if missing:
        _make_writable(cache_dir)
        for task in workers.progress(_make_entries(missing, num_workers), len(missing), "preprocessing", "volume"):
            found[task.case] = _load_entry(task)
            if found[task.case] is None:
                raise MachineError(task.entry, "cannot be read back", "check the disk, or set data.cache_dir")
    for case in tasks:
        _warn_of_absent_structures(found[case])
    return [found[case] for case in cases]


def _warn_of_absent_structures(prepared: preprocess.Prepared) -> None:
    absent = [] if prepared.label is None else acdc.absent_structures(prepared.label)
    if absent:
        logger.warning(printable(f"{prepared.case}: no pixel of its prepared label is {' or '.join(absent)}"))


def _key(files: acdc.Files, spec: preprocess.Spec) -> str:
    """SHA-256 over everything that a prepared volume depends on, beside its name."""
    content = {
        "image": _hash(files.image),
        "label": None if files.label is None else _hash(files.label),
        "spec": dataclasses.asdict(spec),
        "n4_threads": preprocess.N4_THREADS,
        "versions": {
            "tfaug": preprocess.VERSION,
            "SimpleITK": sitk.Version_VersionString(),
            "scikit-image": skimage.__version__,
        },
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _hash(path: pathlib.Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise nifti.unreadable(path, error) from error


def _load_entry(task: _Task) -> preprocess.Prepared | None:
    """The cached volume, or None if there is no entry or only a damaged one."""
    try:
        with zipfile.ZipFile(task.entry) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile("checksum")
        with np.load(task.entry, allow_pickle=False) as arrays:
            grid = preprocess.Grid(
                tuple(int(n) for n in arrays["native_shape"]),
                tuple(float(mm) for mm in arrays["spacing"]),
                task.spec.image_size,
                task.spec.resolution,
            )
            label = arrays["label"] if task.label == "required" else None
            return preprocess.Prepared(task.case, arrays["image"], label, grid, task.image)
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever a damaged file leads to, it is made again
        logger.warning(printable(f"{task.entry}: damaged cache entry of {task.case}, made again ({error})"))
        return None


def _store(prepared: preprocess.Prepared, entry: pathlib.Path) -> None:
    """Writes an entry so that it is there whole or not at all, whatever happens meanwhile."""
    arrays = {"image": prepared.image, "native_shape": prepared.grid.native_shape, "spacing": prepared.grid.spacing}
    if prepared.label is not None:
        arrays["label"] = prepared.label
    content = io.BytesIO()
    np.savez(content, **arrays)
    # Another process may be writing the same entry.
    with replacing(entry, ROOM, subject=entry.parent, unique=True) as temporary:
        temporary.write_bytes(content.getbuffer())


def _make_writable(cache_dir: pathlib.Path) -> None:
    """Finds out before the work is done that its result cannot be kept; clears what killed runs left."""
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cache_dir).close()
        for leftover in cache_dir.glob(f"{PART}*"):
            if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
                leftover.unlink(missing_ok=True)
    except OSError as error:
        raise MachineError(cache_dir, f"cannot be written ({error.strerror or error})", ROOM) from error


def _make_entries(tasks: list[_Task], num_workers: int) -> Iterator[_Task]:
    """Makes the entries in worker processes; yields each task when it is done.

    Each worker has a pipe of its own, so that one that dies is noticed at once and its case is known.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(tasks))
    busy, processes = {}, []
    try:
        for _ in range(min(num_workers, len(tasks))):
            connection, remote = context.Pipe()
            process = context.Process(target=_work, args=(remote,), daemon=True)
            with workers.starting():
                process.start()
            processes.append(process)
            remote.close()
            busy[connection] = _give(connection, waiting.pop())
        while busy:
            check_signals()  # N4 of one scan at full resolution takes minutes
            for connection in multiprocessing.connection.wait(list(busy), POLL_SECONDS):
                task = busy.pop(connection)
                _await(connection, task)
                if waiting:
                    busy[connection] = _give(connection, waiting.pop())
                yield task
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _give(connection: multiprocessing.connection.Connection, task: _Task) -> _Task:
    try:
        connection.send(task)
    except OSError as error:
        raise _died(task) from error
    return task


def _await(connection: multiprocessing.connection.Connection, task: _Task) -> None:
    try:
        error = connection.recv()
    except (EOFError, OSError) as gone:
        raise _died(task) from gone
    if error is not None:
        raise error


def _died(task: _Task) -> UserError:
    check_signals()  # a scheduler's signal reaches all processes, and a worker may be the first to go
    return UserError(
        task.case,
        "the process that prepared it died (killed, or out of memory?)",
        "free memory or set data.num_workers to 1, and start again",
    )


def _work(connection: multiprocessing.connection.Connection) -> None:
    """A worker process: makes one entry after the other, answers each with None or an error for the user."""
    workers.start()
    with contextlib.suppress(EOFError):  # there is no more to do
        while True:
            connection.send(_make_entry(connection.recv()))


def _make_entry(task: _Task) -> TfaugError | None:
    try:
        volume = acdc.read(task.root, task.case, task.phase, task.label)
        _store(preprocess.prepare_volume(volume, task.spec), task.entry)
    except TfaugError as error:
        return error
    except MemoryError:
        return MachineError(
            task.case, "there is too little memory to prepare it", "free some, or raise data.resolution"
        )
    except Exception as error:  # of a library, about what none of the checks foresaw
        problem = f"cannot be prepared ({type(error).__name__}: {error})"
        return UserError(task.case, problem, "replace the scan, or take the case out of the split")
    return None
