"""Patients in the ACDC challenge's folder layout.

ROOT/patient001/Info.cfg                        lines `key: value`; ED and ES give the frame numbers
ROOT/patient001/patient001_frame01.nii.gz       one frame, for ED and for ES
ROOT/patient001/patient001_frame01_gt.nii.gz    the expert's labels; unlabelled patients need none

ROOT may also be the folder that the official archive unpacks to. Any folder name will do as a case's name,
as long as its files begin with it.
"""
from __future__ import annotations

import pathlib
import re
from typing import NamedTuple

import numpy as np

from tfaug.data import nifti
from tfaug.data.preprocess import check_contrast
from tfaug.errors import UserError
from tfaug.types import NUM_CLASSES, STRUCTURES, Volume

PHASES = ("ES", "ED")
SUBFOLDERS = ("", "training", "testing", "database/training", "database/testing")
FRAME = re.compile(r"(?P<case>.+)_frame(?P<number>\d+)(?P<label>_gt)?\.nii(\.gz)?", re.DOTALL)
MAX_INFO_SIZE = 2**16  # bytes


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
    folder = _folder(pathlib.Path(root), case)
    info_file = folder / "Info.cfg"
    info = _info(info_file)
    numbers = {key: _frame_number(info_file, info[key]) for key in PHASES if key in info}
    if phase not in numbers:
        raise UserError(info_file, f"has no line `{phase}: <frame number>`", "add it")
    return Files(
        image=_only_frame(folder, case, numbers, phase, is_label=False),
        label=_only_frame(folder, case, numbers, phase, is_label=True) if label == "required" else None,
    )


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
    try:
        files = locate(root, case, phase, label)
    except UserError as error:
        return [error], []

    errors, warnings, scan = [], [], None
    try:
        scan = nifti.read(files.image)
        check_contrast(scan.array, files.image)
    except UserError as error:
        errors.append(error)
    if files.label is not None:
        try:
            absent = absent_structures(_read_label(files.label, scan))
            if absent:
                warnings.append(f"{files.label}: no voxel is labelled {', '.join(absent)}")
        except UserError as error:
            errors.append(error)
    return errors, warnings


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
    raise UserError(root / case, "does not exist", "add the patient, take it out of the split, "
                    "or set data.root to the folder that holds it")


def _info(path: pathlib.Path) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(MAX_INFO_SIZE).splitlines()
    except OSError as error:
        raise UserError(path, f"cannot be read ({error.strerror})",
                        "write one with the lines `ED: <frame number>` and `ES: <frame number>`") from error
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _frame_number(info_file: pathlib.Path, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise UserError(info_file, f"gives {text!r} as a frame number", "give a whole number")
    return int(text)


def _only_frame(folder: pathlib.Path, case: str, numbers: dict[str, int], phase: str, is_label: bool):
    """The one image or label file of `phase`; every frame in the folder must be one of `numbers`."""
    found = []
    for path in sorted(folder.iterdir()):
        match = FRAME.fullmatch(path.name)
        if path.name.startswith(".") or not match or bool(match["label"]) != is_label:
            continue
        if match["case"] != case or int(match["number"]) not in numbers.values():
            raise UserError(path, f"is not a frame that {folder.name}/Info.cfg names", "remove it, or correct Info.cfg")
        if int(match["number"]) == numbers[phase]:
            found.append(path)
    name = f"{case}_frame{numbers[phase]:02d}{'_gt' if is_label else ''}.nii.gz"
    if not found:
        raise UserError(folder / name, f"is missing ({'label' if is_label else 'image'} of {phase})",
                        "add it, or take the patient out of the split")
    if len(found) > 1:
        raise UserError(folder, f"holds the same frame twice ({', '.join(p.name for p in found)})", "remove one")
    return found[0]


def _read_label(path: pathlib.Path, scan: nifti.Scan | None) -> np.ndarray:
    """[X, Y, Z] uint8; compared with its image, unless that could not be read (None)."""
    label = nifti.read(path)
    if scan is not None and label.array.shape != scan.array.shape:
        raise UserError(path, f"has the shape {label.array.shape}, its image {scan.array.shape}",
                        "replace the label by the one that belongs to the image")
    if scan is not None and not np.allclose(label.spacing, scan.spacing, rtol=1e-3):
        raise UserError(path, f"has the voxel size {label.spacing} mm, its image {scan.spacing} mm",
                        "replace the label by the one that belongs to the image")
    values = np.unique(label.array)
    wrong = values[~np.isin(values, range(NUM_CLASSES))]
    if wrong.size:
        raise UserError(path, f"holds the label {wrong[0]:g}",
                        "use 0 background, 1 RV, 2 Myo, 3 LV and no other value")
    return label.array.astype(np.uint8)
