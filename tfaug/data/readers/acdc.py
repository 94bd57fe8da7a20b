"""Patients in the ACDC challenge's folder layout.

ROOT/patient001/Info.cfg                        lines `key: value`; ED and ES give the frame numbers
ROOT/patient001/patient001_frame01.nii.gz       one frame, for ED and for ES
ROOT/patient001/patient001_frame01_gt.nii.gz    the expert's labels; unlabelled patients need none

ROOT may also be the folder that the official archive unpacks to. Any folder name will do as a case's name,
as long as its files begin with it.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tfaug.data import nifti
from tfaug.data.preprocess import normalise
from tfaug.engine.errors import UserError, printable
from tfaug.types import NUM_CLASSES, STRUCTURES, Volume

PHASES = ("ES", "ED")
SUBFOLDERS = ("", "training", "testing", "database/training", "database/testing")
FRAME = re.compile(r"(?P<case>.+)_frame(?P<number>[0-9]+)(?P<label>_gt)?\.nii(\.gz)?", re.DOTALL)
MAX_INFO_SIZE = 2**16  # bytes
MAX_DIRECTION_ERROR = 0.02  # of a unit vector; a quaternion in float32 may be off by 0.006
FITTING = "replace the label by the one that belongs to the image"


class Files(NamedTuple):
    """Where one case's frame lies; `label` is None if labels are ignored."""

    image: pathlib.Path
    label: pathlib.Path | None


def locate(root, case: str, phase: str = "ES", label: str = "required") -> Files:
    """Finds a case's files without opening them.

    Args:
      root: the data set's folder, see the module's description.
      case: name of the patient's folder.
      phase: "ES" or "ED".
      label: "required", or "ignored" for unlabelled use.

    Raises:
      UserError: the root, the case, its Info.cfg or a key of it, the frame or the label is missing or not
        unique, or the folder holds frames that Info.cfg does not name.
    """
    try:
        folder = _folder(pathlib.Path(root), case)
        info_file = folder / "Info.cfg"
        numbers = _frame_numbers(info_file)
        if phase not in numbers:
            raise UserError(info_file, f"has no line `{phase}: <frame number>`", "add it")
        image = _only_frame(folder, numbers, phase, is_label=False)
        return Files(image, _only_frame(folder, numbers, phase, is_label=True) if label == "required" else None)
    except OSError as error:
        raise nifti.unreadable(error.filename or root, error) from error


def read(root, case: str, phase: str = "ES", label: str = "required") -> Volume:
    """Reads one case; arguments as for `locate`.

    Raises:
      UserError: as `locate` and `nifti.read`; or the label does not fit the image, or has values other
        than 0, 1, 2, 3.
    """
    files = locate(root, case, phase, label)
    scan = nifti.read(files.image)
    mask = None if files.label is None else _read_label(files.label, scan)
    return Volume(case, scan.array, mask, scan.spacing, files.image)


def check(root, case: str, phase: str = "ES", label: str = "required") -> tuple[list[UserError], list[str]]:
    """Everything that is wrong with one case, for a report on a whole data set.

    Returns:
      The errors for which the case cannot be used, and the warnings despite which it can.
    """
    errors, warnings, scan = [], [], None
    with _collected(errors):
        image = locate(root, case, phase, "ignored").image
        scan = nifti.read(image)
        normalise(scan.array, image)
    if label == "required":
        with _collected(errors):
            path = locate(root, case, phase, label).label
            absent = absent_structures(_read_label(path, scan))
            if absent:
                warnings.append(printable(f"{path}: no voxel is labelled {' or '.join(absent)}"))
    return errors, warnings


@contextlib.contextmanager
def _collected(errors: list[UserError]) -> Iterator[None]:
    """Adds the error that ends the block to `errors`, unless it is there already."""
    try:
        yield
    except UserError as error:
        if str(error) not in map(str, errors):
            errors.append(error)


def absent_structures(label: np.ndarray) -> list[str]:
    """The names of the structures of which `label` has no voxel."""
    present = np.bincount(label.ravel(), minlength=NUM_CLASSES)
    return [name for value, name in enumerate(STRUCTURES, start=1) if not present[value]]


def _folder(root: pathlib.Path, case: str) -> pathlib.Path:
    if not root.is_dir():
        raise UserError(root, "is not a folder", "set data.root to the folder that holds the patients")
    if case in ("", ".", "..") or set(case) & set("/\\\0"):
        raise UserError(repr(case), "is not the name of a folder", "name a patient's folder without a path")
    for subfolder in SUBFOLDERS:
        if (root / subfolder / case).is_dir():
            return root / subfolder / case
    raise UserError(
        root / case,
        "does not exist",
        "add the patient, take it out of the split, or set data.root to the folder that holds it",
    )


def _frame_numbers(info_file: pathlib.Path) -> dict[str, int]:
    """The frame number of each phase that Info.cfg names."""
    if not info_file.is_file():
        raise UserError(info_file, "is missing", "write one with `ED: <frame number>` and `ES: <frame number>`")
    with open(info_file, encoding="utf-8", errors="replace") as file:
        lines = file.read(MAX_INFO_SIZE).removeprefix("\ufeff").splitlines()  # a byte order mark
    numbers = {}
    for key, colon, value in (line.partition(":") for line in lines):
        phase, number = key.strip(), value.strip()
        if colon and phase in PHASES:
            if not re.fullmatch("[0-9]{1,6}", number):
                raise UserError(info_file, f"gives {number!r} as the frame of {phase}", "give a whole number")
            if numbers.setdefault(phase, int(number)) != int(number):
                raise UserError(
                    info_file, f"gives more than one frame of {phase}", "remove all lines but the right one"
                )
    return numbers


def _only_frame(folder: pathlib.Path, numbers: dict[str, int], phase: str, is_label: bool) -> pathlib.Path:
    """The one image or label of `phase`; every frame in the folder must be the case's and one of `numbers`."""
    found = []
    for path in sorted(folder.iterdir()):
        match = FRAME.fullmatch(path.name)
        if path.name.startswith(".") or not match or bool(match["label"]) != is_label:
            continue
        if match["case"] != folder.name or int(match["number"]) not in numbers.values():
            raise UserError(
                path, "is not a frame that the folder's name and Info.cfg call for", "remove it, or correct Info.cfg"
            )
        if int(match["number"]) == numbers[phase]:
            found.append(path)
    kind = "label" if is_label else "image"
    if not found:
        name = f"{folder.name}_frame{numbers[phase]:02d}{'_gt' if is_label else ''}.nii.gz"
        raise UserError(
            folder / name, f"is missing (the {kind} of {phase})", "add it, or take the patient out of the split"
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(folder, f"has more than one {kind} of {phase} ({names})", "remove all but one")
    if not found[0].is_file():
        raise UserError(found[0], "is not a file, or a link that leads nowhere", nifti.REPLACE)
    return found[0]


def _read_label(path: pathlib.Path, scan: nifti.Scan | None) -> np.ndarray:
    """[X, Y, Z] uint8; compared with its image, unless that could not be read (None)."""
    label = nifti.read(path, np.float64)  # float32 would round what is not quite a label
    if scan is not None:
        if label.array.shape != scan.array.shape:
            raise UserError(path, f"has the shape {label.array.shape}, its image {scan.array.shape}", FITTING)
        if not np.allclose(label.spacing, scan.spacing, rtol=1e-3):
            raise UserError(path, f"has the voxel size {label.spacing} mm, its image {scan.spacing} mm", FITTING)
        # The forms of one file may differ: a label may follow any of its image's.
        apart = [np.abs(a - b).max() for a in nifti.directions(label.header) for b in nifti.directions(scan.header)]
        if apart and min(apart) > MAX_DIRECTION_ERROR:
            raise UserError(path, "is mirrored or rotated against its image", FITTING)
    values = np.unique(label.array)
    wrong = values[~np.isin(values, range(NUM_CLASSES))]
    if wrong.size:
        raise UserError(
            path, f"holds the label {wrong[0]:.16g}", "use 0 background, 1 RV, 2 Myo, 3 LV and no other value"
        )
    return label.array.astype(np.uint8)
