"""Patients in the ACDC challenge's folder layout.

ROOT/patient001/Info.cfg                        lines `key: value`; ED and ES give the frame numbers
ROOT/patient001/patient001_frame01.nii.gz       one frame, for ED and for ES
ROOT/patient001/patient001_frame01_gt.nii.gz    the reference label; unlabelled patients need none

ROOT may also be the folder that the official archive unpacks to. Any folder name can be a case's name, as long as
its files begin with it. The config's `data.phase` chooses the frame, "ES" by default. With "both" each frame is a case,
patient001_ED and patient001_ES, and a patient's name in the splits stands for both.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

from tfaug.data import images, scan
from tfaug.data.readers import base
from tfaug.data.readers.base import Files, Listing
from tfaug.data.task import Task
from tfaug.engine.errors import UserError, nearest
from tfaug.types import Hearts

STRUCTURES = {"RV": 1, "Myo": 2, "LV": 3}
PHASES = ("ES", "ED")
BOTH = "both"
SUBFOLDERS = ("", "training", "testing", "database/training", "database/testing")
FRAME = re.compile(r"(?P<case>.+)_frame(?P<number>[0-9]+)(?P<label>_gt)?\.nii(\.gz)?", re.DOTALL)
MAX_INFO_SIZE = 2**16  # bytes


class Reader(base.Reader):
    """The patients of a folder in one phase of the heartbeat, or in both."""

    looks_for = "folders of patients, each with an Info.cfg"
    reads_structures = False

    def __init__(self, root: pathlib.Path, options: Mapping[str, Any]):
        super().__init__(root, options)
        self._phase = options.get("phase", "ES")
        if self._phase not in (*PHASES, BOTH):
            raise UserError("data.phase", f"{self._phase!r} is unknown", nearest(str(self._phase), (*PHASES, BOTH)))

    @staticmethod
    def recognises(root: pathlib.Path) -> bool:
        """Whether there is any patient's Info.cfg."""
        return any(any(pathlib.Path(root, subfolder).glob("*/Info.cfg")) for subfolder in SUBFOLDERS)

    def task(self) -> Task:
        """The challenge's structures and their values."""
        return Task(STRUCTURES)

    def cases(self) -> Listing:
        """Every folder with an Info.cfg, in each phase; a case without a label is unlabelled.

        Raises:
          UserError: as `locate`.
        """
        with self._explained():
            labelled, unlabelled = [], []
            for case in self.scans():
                (labelled if self._has_label(case) else unlabelled).append(case)
            return Listing(tuple(labelled), tuple(unlabelled))

    def scans(self) -> tuple[str, ...]:
        """Every folder with an Info.cfg, in each phase, see `base.Reader.scans`."""
        with self._explained():
            found = [
                path.parent.name
                for subfolder in SUBFOLDERS
                for path in (self.root / subfolder).glob("*/Info.cfg")
                if not path.parent.name.startswith(".")
            ]
            return tuple(sorted(case for patient in set(found) for case in self._cases(patient)))

    def locate(self, case: str, label: bool = True) -> Files:
        """Finds the frame and its label, see `base.Reader.locate`.

        Raises:
          UserError: the root, the case, its Info.cfg or a key of it, the frame or the label is missing or not unique,
            or the folder holds frames that Info.cfg does not name.
        """
        with self._explained():
            folder, numbers, phase = self._open(case)
            image = _only_frame(folder, numbers, phase, is_label=False)
            return Files((image,), _only_frame(folder, numbers, phase, is_label=True) if label else None)

    def patient(self, case: str) -> str:
        """The name of the folder."""
        return self._split(case)[0]

    def members(self, name: str) -> tuple[str, ...]:
        """With both phases, the two cases of a patient."""
        return (name,) if self._split(name)[1] else self._cases(name)

    def hearts(self, cases: Iterable[str]) -> Hearts | None:
        """With both phases, the patients of the cases and ACDC's names of the structures; otherwise None."""
        if self._phase != BOTH:
            return None
        patients = dict.fromkeys(map(self.patient, cases))
        return Hearts("LV", "RV", "Myo", {patient: (f"{patient}_ED", f"{patient}_ES") for patient in patients})

    def _cases(self, patient: str) -> tuple[str, ...]:
        return tuple(f"{patient}_{phase}" for phase in PHASES) if self._phase == BOTH else (patient,)

    def _split(self, case: str) -> tuple[str, str]:
        """The patient and the phase of a case; the phase is "" if the case's name has to give it and does not."""
        if self._phase != BOTH:
            return case, self._phase
        patient, _, phase = case.rpartition("_")
        return (patient, phase) if patient and phase in PHASES else (case, "")

    def _has_label(self, case: str) -> bool:
        folder, numbers, phase = self._open(case)
        return any(number == numbers[phase] for _, number in _frames(folder, numbers, is_label=True))

    def _open(self, case: str) -> tuple[pathlib.Path, dict[str, int], str]:
        """The folder of a case, the frame number of each phase, and the wanted phase, which is among them."""
        patient, phase = self._split(case)
        if not phase:
            raise UserError(repr(case), "names no phase", f"with data.phase=both, name {case}_ED or {case}_ES")
        folder = _folder(self.root, patient)
        numbers = _frame_numbers(folder / "Info.cfg")
        if phase not in numbers:
            raise UserError(folder / "Info.cfg", f"has no line `{phase}: <frame number>`", "add it")
        return folder, numbers, phase

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
    if is_label:
        _refuse_other_formats(folder, {path.name.partition(".nii")[0] for path, _ in found})
    return found


def _refuse_other_formats(folder: pathlib.Path, stems: Set[str]) -> None:
    """Refuses a label that is no NIfTI file, unless one of `stems` has its name: its case would be unlabelled."""
    for path in sorted(folder.iterdir()):
        ending = images.ending(path)
        stem = path.name[: -len(ending)] if ending else ""
        if stem not in stems and re.search("_frame[0-9]+_gt$", stem):
            raise UserError(path, "is no NIfTI file", "save it with the ending .nii.gz, or remove it")


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
