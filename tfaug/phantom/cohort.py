"""The built-in cohort: 100 simulated patients in ACDC's folder layout, so that tfaug runs without any data.

Every patient is a short-axis cine stack at end-diastole and end-systole with reference masks.
`docs/phantom.md` says what is modelled and what is not.
"""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import functools
import hashlib
import multiprocessing
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterable
from typing import NamedTuple

import nibabel as nib
import numpy as np

from tfaug import streams
from tfaug.engine import errors, workers
from tfaug.engine.signals import check_signals
from tfaug.phantom import anatomy, image

NUMBERS = range(1, 101)
TEMPORARY = ".tmp-"  # between a cohort's name and a random ending while it is being made
STALE_SECONDS = 3600.0  # no cohort takes that long to make


class Phase(NamedTuple):
    """One cardiac phase: image [X, Y, Z] int16 and mask [X, Y, Z] uint8 (0 background, 1 RV, 2 Myo, 3 LV)."""

    image: np.ndarray
    mask: np.ndarray


class Patient(NamedTuple):
    """End-diastole and end-systole, mm per voxel along X, Y, Z, and the lines of Info.cfg."""

    ed: Phase
    es: Phase
    spacing: tuple[float, float, float]
    info: dict


def group_of(number: int) -> str:
    """The group of patient `number` as in ACDC: DCM, HCM, MINF, NOR and RV, twenty each."""
    return list(anatomy.GROUPS)[(number - 1) // 20]


def patient(seed: int, number: int) -> Patient:
    """Makes one patient, the same whoever else is made.

    Args:
      seed: the cohort's seed.
      number: 1..100.
    """
    if number not in NUMBERS:
        raise ValueError(f"the cohort's patients are numbered 1 to 100, not {number}")
    rng = streams.generator(seed, "phantom", number)
    heart = anatomy.draw_heart(rng, group_of(number))
    grid = image.draw_grid(rng, heart)
    scene = image.Scene(rng, heart, grid)
    ed = Phase(*scene.phase(rng, systole=False))
    es = Phase(*scene.phase(rng, systole=True))
    num_frames = int(rng.integers(24, 36))
    height = rng.normal(171 + 60 * (heart.size - 1), 6)
    body_mass_index = np.clip(rng.normal(25, 4), 18, 38)
    info = {
        "ED": 1,
        "ES": round(num_frames * rng.uniform(0.3, 0.42)),
        "Group": group_of(number),
        "Height": round(height, 1),
        "NbFrame": num_frames,
        "Weight": round(body_mass_index * (height / 100) ** 2, 1),
    }
    return Patient(ed, es, grid.spacing, info)


def write_patient(root, seed: int, number: int) -> pathlib.Path:
    """Writes one patient's folder, patient001 .. patient100, below `root` and returns it."""
    case = f"patient{number:03d}"
    folder = pathlib.Path(root) / case
    folder.mkdir(parents=True, exist_ok=True)
    made = patient(seed, number)
    for frame, phase in ((made.info["ED"], made.ed), (made.info["ES"], made.es)):
        _save(phase.image, made.spacing, folder / f"{case}_frame{frame:02d}.nii.gz")
        _save(phase.mask, made.spacing, folder / f"{case}_frame{frame:02d}_gt.nii.gz")
    (folder / "Info.cfg").write_text("".join(f"{key}: {value}\n" for key, value in made.info.items()))
    return folder


def _save(array, spacing, path):
    """Writes a NIfTI file with ACDC's geometry: the spacing in pixdim and qform, but a unit sform.

    The bytes depend on the content alone: nibabel writes neither time nor file name into the gzip header.
    """
    scan = nib.Nifti1Image(array, np.eye(4))
    scan.header.set_qform(np.diag([-spacing[0], -spacing[1], spacing[2], 1.0]), code=1)
    scan.header.set_sform(np.eye(4), code=1)
    scan.header.set_xyzt_units("mm", "sec")
    nib.save(scan, path)


def write_cohort(root, seed: int = 0, numbers: Iterable[int] = NUMBERS, num_workers: int = 2) -> None:
    """Writes the patients `numbers` below `root`, with a bar on a terminal and plain lines elsewhere.

    Raises:
      MachineError: a worker process died.
      Interrupted: a signal asked the program to stop.
    """
    numbers = list(numbers)
    # spawn: the caller may hold TensorFlow's threads, which do not survive a fork.
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(num_workers, spawn, workers.start) as pool:
        with workers.starting():
            made = pool.map(functools.partial(write_patient, root, seed), numbers)
        try:
            for _ in workers.progress(made, len(numbers), "built-in cohort", "patient"):
                pass
        except concurrent.futures.process.BrokenProcessPool as error:
            check_signals()  # a scheduler's signal reaches all processes, and a worker may be the first to go
            raise errors.MachineError(
                root,
                "a process that made the built-in cohort died (killed, or out of memory?)",
                "free memory or set data.num_workers to 1, and start again",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def folder(cache_dir, seed: int = 0) -> pathlib.Path:
    """Where the built-in cohort is, if it has been made."""
    return pathlib.Path(cache_dir) / f"phantom-seed{seed}-{_version()}"


def ensure_cohort(cache_dir, seed: int = 0, num_workers: int = 2) -> pathlib.Path:
    """The built-in cohort's folder below `cache_dir`, made on first use.

    The folder's name holds a hash of the generator's source, so a changed generator never meets an old cohort. It
    appears whole or not at all, and any number of processes may ask at once.

    Raises:
      MachineError: the folder cannot be written, or a worker process died.
    """
    cache_dir, cohort = pathlib.Path(cache_dir), folder(cache_dir, seed)
    if cohort.is_dir():
        return cohort
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(cache_dir)
        with tempfile.TemporaryDirectory(prefix=f"{cohort.name}{TEMPORARY}", dir=cache_dir) as temporary:
            made = pathlib.Path(temporary) / cohort.name
            made.mkdir()
            write_cohort(made, seed, num_workers=num_workers)
            made.rename(cohort)
    except OSError as error:
        if not cohort.is_dir():  # else another process was first, and its cohort is the same
            raise errors.MachineError(
                cache_dir,
                f"the built-in cohort cannot be written ({error.strerror or error})",
                "free space there, or name another folder with data.cache_dir",
            ) from error
    return cohort


def _remove_leftovers(cache_dir):
    """Removes what processes that were killed long ago have left behind."""
    for leftover in cache_dir.glob(f"phantom-*{TEMPORARY}*"):
        if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)


def _version():
    sources = (__file__, anatomy.__file__, image.__file__)
    return hashlib.sha256(b"".join(pathlib.Path(source).read_bytes() for source in sources)).hexdigest()[:8]
