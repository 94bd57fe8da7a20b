"""Patients in the ACDC challenge's folder layout.

ROOT/patient001/Info.cfg                        lines `key: value`; ED and ES give the frame numbers
ROOT/patient001/patient001_frame01.nii.gz       one frame, for ED and for ES
ROOT/patient001/patient001_frame01_gt.nii.gz    the reference label; unlabelled patients need none

ROOT may also be the folder that the official archive unpacks to. Any folder name will do as a case's name, as long as
its files begin with it. The config's `data.phase` chooses the frame, "ES" by default.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tfaug.data import scan
from tfaug.data.readers import base
from tfaug.data.readers.base import Files, Listing
from tfaug.data.task import Task
from tfaug.engine.errors import UserError, nearest

STRUCTURES = {"RV": 1, "Myo": 2, "LV": 3}
PHASES = ("ES", "ED")
SUBFOLDERS = ("", "training", "testing", "database/training", "database/testing")
FRAME = re.compile(r"(?P<case>.+)_frame(?P<number>[0-9]+)(?P<label>_gt)?\.nii(\.gz)?", re.DOTALL)
MAX_INFO_SIZE = 2**16  # bytes


class Reader(base.Reader):
    """The patients of a folder in one phase of the heartbeat."""

    looks_for = "folders of patients, each with an Info.cfg"

    def __init__(self, root: pathlib.Path, options: Mapping[str, Any]):
        super().__init__(root, options)
        self._phase = options.get("phase", "ES")
        if self._phase not in PHASES:
            raise UserError("data.phase", f"{self._phase!r} is unknown", nearest(str(self._phase), PHASES))

    @staticmethod
    def recognises(root: pathlib.Path) -> bool:
        """Whether any patient's Info.cfg is there."""
        return any(any(pathlib.Path(root, subfolder).glob("*/Info.cfg")) for subfolder in SUBFOLDERS)

    def task(self) -> Task:
        """The challenge's coding."""
        return Task(STRUCTURES)

    def cases(self) -> Listing:
        """Every folder with an Info.cfg; a patient without a label of the phase is unlabelled.

        Raises:
          UserError: as `locate`.
        """
        with self._explained():
            labelled, unlabelled = [], []
            for case in self.scans():
                (labelled if self._has_label(case) else unlabelled).append(case)
            return Listing(tuple(labelled), tuple(unlabelled))

    def scans(self) -> tuple[str, ...]:
        """Every folder with an Info.cfg, see `base.Reader.scans`."""
        with self._explained():
            found = [
                path.parent.name
                for subfolder in SUBFOLDERS
                for path in (self.root / subfolder).glob("*/Info.cfg")
                if not path.parent.name.startswith(".")
            ]
            return tuple(sorted(set(found)))

    def locate(self, case: str, label: bool = True) -> Files:
        """Finds the frame and its label, see `base.Reader.locate`.

        Raises:
          UserError: the root, the case, its Info.cfg or a key of it, the frame or the label is missing or not unique,
            or the folder holds frames that Info.cfg does not name.
        """
        with self._explained():
            folder, numbers = self._open(case)
            image = _only_frame(folder, numbers, self._phase, is_label=False)
            return Files((image,), _only_frame(folder, numbers, self._phase, is_label=True) if label else None)

    def _has_label(self, case: str) -> bool:
        folder, numbers = self._open(case)
        return any(number == numbers[self._phase] for _, number in _frames(folder, numbers, is_label=True))

    def _open(self, case: str) -> tuple[pathlib.Path, dict[str, int]]:
        """The folder of a case, and the frame number of each phase, the wanted one among them."""
        folder = _folder(self.root, case)
        numbers = _frame_numbers(folder / "Info.cfg")
        if self._phase not in numbers:
            raise UserError(folder / "Info.cfg", f"has no line `{self._phase}: <frame number>`", "add it")
        return folder, numbers

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise scan.unreadable(error.filename or self.root, error) from error


def _folder(root: pathlib.Path, case: str) -> pathlib.Path:
    if not root.is_dir():
        raise UserError(root, "is not a folder", "set data.root to the folder that holds the patients")
    if case in ("", ".", "..") or set(case) & set("/\\\0"):
        raise UserError(repr(case), "is not the name of a folder", "name a patient's folder without a path")
    found = [root / subfolder / case for subfolder in SUBFOLDERS if (root / subfolder / case).is_dir()]
    if not found:
        folders = [folder.name for subfolder in SUBFOLDERS for folder in (root / subfolder).glob("*/")]
        remedy = "add the patient, take it out of the split, or set data.root to the folder that holds it"
        remedy = base.absent(case, folders, remedy)
        raise UserError(root / case, "does not exist", remedy)
    if len(found) > 1:
        raise UserError(found[0], f"has the same name as {found[1]}", "rename one of the patients, or remove it")
    return found[0]


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


def _frames(folder: pathlib.Path, numbers: Mapping[str, int], is_label: bool) -> list[tuple[pathlib.Path, int]]:
    """The images or the labels in a folder with their numbers; each must be the case's, and one of `numbers`."""
    found = []
    for path in sorted(folder.iterdir()):
        match = FRAME.fullmatch(path.name)
        if path.name.startswith(".") or not match or bool(match["label"]) != is_label:
            continue
        if match["case"] != folder.name or int(match["number"]) not in numbers.values():
            raise UserError(
                path, "is not a frame that the folder's name and Info.cfg call for", "remove it, or correct Info.cfg"
            )
        found.append((path, int(match["number"])))
    return found


def _only_frame(folder: pathlib.Path, numbers: Mapping[str, int], phase: str, is_label: bool) -> pathlib.Path:
    """The one image or label of `phase`."""
    found = [path for path, number in _frames(folder, numbers, is_label) if number == numbers[phase]]
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
        raise UserError(found[0], "is not a file, or a link that leads nowhere", scan.REPLACE)
    return found[0]
