"""Prepared volumes on disk, each made once and found again by the content of its files."""
from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator

import numpy as np
import SimpleITK as sitk
import skimage
import tqdm

from tfaug.data import acdc, preprocess
from tfaug.errors import MachineError, TfaugError, UserError

logger = logging.getLogger(__name__)

REPORT_SECONDS = 10.0
STALE_SECONDS = 3600.0  # no entry takes that long to write


@dataclasses.dataclass(frozen=True)
class _Task:
    """One entry to make, in a form that travels to a worker process."""

    root: pathlib.Path
    case: str
    phase: str
    label: str
    spec: preprocess.Spec
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
    cache_dir = pathlib.Path(cache_dir)
    label = "required" if labels else "ignored"
    files = {case: acdc.locate(root, case, phase, label) for case in cases}
    tasks = [
        _Task(pathlib.Path(root), case, phase, label, spec, cache_dir / f"{_key(files[case], spec)}.npz")
        for case in cases
    ]
    found = {task.case: _load_entry(task, files[task.case].image) for task in tasks}
    missing = [task for task in tasks if found[task.case] is None]
    if missing:
        _make_writable(cache_dir)
        for task in _progress(_make_entries(missing, num_workers), len(missing)):
            found[task.case] = _load_entry(task, files[task.case].image)
    return [found[case] for case in cases]


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
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _load_entry(task: _Task, image_path: pathlib.Path) -> preprocess.Prepared | None:
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
            return preprocess.Prepared(task.case, arrays["image"], label, grid, image_path)
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever a damaged file leads to, it is made again
        logger.warning("%s: damaged cache entry of %s, made again (%s)", task.entry, task.case, error)
        return None


def _store(prepared: preprocess.Prepared, entry: pathlib.Path) -> None:
    """Writes an entry so that it is there whole or not at all, whatever happens meanwhile."""
    arrays = {
        "image": prepared.image,
        "native_shape": prepared.grid.native_shape,
        "spacing": prepared.grid.spacing,
    }
    if prepared.label is not None:
        arrays["label"] = prepared.label
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=entry.parent, suffix=".tmp", delete=False) as file:
            temporary = file.name
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, entry)
    except OSError as error:
        if temporary:
            pathlib.Path(temporary).unlink(missing_ok=True)
        raise _not_writable(entry.parent, error) from error


def _make_writable(cache_dir: pathlib.Path) -> None:
    """Finds out before the work is done that its result cannot be kept; clears what killed runs left."""
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cache_dir).close()
        for leftover in cache_dir.glob("*.tmp"):
            if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
                leftover.unlink()
    except OSError as error:
        raise _not_writable(cache_dir, error) from error


def _not_writable(cache_dir: pathlib.Path, error: OSError) -> MachineError:
    return MachineError(cache_dir, f"cannot be written ({error.strerror or error})",
                        "free space there, or name another folder with data.cache_dir")


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
            process.start()
            remote.close()
            processes.append(process)
            busy[connection] = waiting.pop()
            connection.send(busy[connection])
        while busy:
            for connection in multiprocessing.connection.wait(list(busy)):
                task = busy.pop(connection)
                _receive(connection, task.case)
                if waiting:
                    busy[connection] = waiting.pop()
                    connection.send(busy[connection])
                yield task
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _receive(connection: multiprocessing.connection.Connection, case: str) -> None:
    try:
        error = connection.recv()
    except (EOFError, OSError) as gone:
        raise UserError(case, "the process that prepared it died (killed, or out of memory)",
                        "free memory or set data.num_workers to 1, and start again") from gone
    if error is not None:
        raise error


def _work(connection: multiprocessing.connection.Connection) -> None:
    """A worker process: makes one entry after the other, answers each with None or an error for the user."""
    while True:
        try:
            task = connection.recv()
        except EOFError:  # the main process is gone
            return
        try:
            volume = acdc.read(task.root, task.case, task.phase, task.label)
            _store(preprocess.prepare_volume(volume, task.spec), task.entry)
        except TfaugError as error:
            connection.send(error)
        else:
            connection.send(None)


def _progress(done: Iterable, total: int) -> Iterator:
    """Passes `done` on; shows a bar on a terminal, and otherwise a line now and then."""
    if sys.stderr.isatty():
        yield from tqdm.tqdm(done, total=total, desc="preprocessing", unit="volume")
        return
    start = last = time.monotonic()
    for count, item in enumerate(done, start=1):
        now = time.monotonic()
        if now - last >= REPORT_SECONDS or count == total:
            last, seconds = now, (now - start) / count
            print(f"preprocessing: {count} of {total} volumes, {seconds:.1f} s each, "
                  f"{seconds * (total - count):.0f} s left", file=sys.stderr, flush=True)
        yield item
