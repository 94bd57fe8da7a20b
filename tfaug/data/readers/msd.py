"""Folders of the Medical Segmentation Decathlon, and raw folders of nnU-Net v1 and v2.

ROOT/dataset.json                  `labels`, and `channel_names` or `modality`; `file_ending` if it is not .nii.gz
ROOT/imagesTr/CASE_0000.nii.gz     the first channel, CASE_0001 the second, ...; or CASE.nii.gz, which holds them all
ROOT/labelsTr/CASE.nii.gz          the reference label; a case without one is unlabelled
ROOT/imagesTs                      unlabelled cases; may be missing

Each case counts as a patient of its own.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from tfaug.data import images, scan
from tfaug.data.readers import base
from tfaug.data.readers.base import Files, Listing
from tfaug.data.task import Task
from tfaug.engine.errors import UserError, counted

CHANNEL = re.compile(r"(?P<case>.+)_(?P<number>[0-9]{4})", re.DOTALL)
MAX_JSON_SIZE = 2**26  # bytes


class Reader(base.Reader):
    """The cases that `dataset.json` describes."""

    looks_for = "dataset.json beside imagesTr"

    def __init__(self, root: pathlib.Path, options: Mapping[str, Any]):
        super().__init__(root, options)
        self._file = self.root / "dataset.json"
        self._content = _read_json(self._file)
        self._suffix = self._content.get("file_ending", ".nii.gz")
        if self._suffix not in images.SUFFIXES:
            raise self._wrong(f"has the file_ending {self._suffix!r}", f"give one of {', '.join(images.SUFFIXES)}")
        self._channels = self._read_channels()

    @staticmethod
    def recognises(root: pathlib.Path) -> bool:
        """Whether there is a dataset.json."""
        return pathlib.Path(root, "dataset.json").is_file()

    def task(self) -> Task:
        """The structures in the order of their values.

        Raises:
          UserError: `labels` is missing, or does not give each name one value.
        """
        labels = self._content.get("labels")
        if not isinstance(labels, dict) or not labels:
            raise self._wrong("has no labels", 'add them, for example "labels": {"background": 0, "liver": 1}')
        pairs = list(labels.items())
        if all(isinstance(name, str) for name in labels.values()):  # {"1": "liver"}
            pairs = [(name, int(value) if re.fullmatch("[0-9]{1,9}", value) else value) for value, name in pairs]
        for name, value in pairs:
            if isinstance(value, list):
                raise self._wrong(
                    f"makes {name!r} a region of the labels {value}",
                    "give it one value: overlapping structures are not supported",
                )
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise self._wrong(f"gives the label {name!r} the value {value!r}", "give a whole number")
            if name == "ignore":
                raise self._wrong("has an 'ignore' label", "leave it out, and label every voxel")
        if len({name for name, _ in pairs}) < len(pairs):
            raise self._wrong("has two labels of one name", "give each its own")
        background = [name for name, value in pairs if value == 0]
        if len(background) != 1:
            raise self._wrong(f"has {len(background)} labels of the value 0", "give it to background alone")
        structures = {name: value for name, value in sorted(pairs, key=lambda pair: pair[1]) if value}
        try:
            return Task(structures, self._channels)
        except UserError as error:
            raise self._wrong(f"has labels that cannot be used: {error.problem}", error.remedy) from error

    def channels(self) -> tuple[str, ...]:
        """The channels that dataset.json names, even if its labels cannot be used."""
        return self._channels

    def cases(self) -> Listing:
        """The cases of imagesTr and imagesTs.

        Raises:
          UserError: dataset.json gives another number of labelled cases or names a missing one, a label has no image
            or another ending than dataset.json says, or as `locate`.
        """
        training, _, labels = self._files()
        if not training:
            raise self._empty("imagesTr")
        for path in self._others("labelsTr"):
            raise UserError(path, self._unlike(), f"save it with the ending {self._suffix}, or remove it")
        for case in sorted(labels.keys() - training):
            raise UserError(labels[case], "has no image in imagesTr", "add it, or remove the label")
        labelled = tuple(sorted(labels))
        count = self._content.get("numTraining", len(labelled))
        if count != len(labelled):
            problem = f"gives numTraining as {count!r}, but labelsTr holds {counted(len(labelled), 'label')}"
            raise self._wrong(problem, "correct it, or add what is missing")
        listed = self._content.get("training")
        for entry in listed if isinstance(listed, list) else ():
            name = str(entry.get("label", "")) if isinstance(entry, dict) else ""
            if name and pathlib.PurePosixPath(name).name.removesuffix(self._suffix) not in labels:
                raise self._wrong(f"names {name!r}, which is missing", "add the file, or take it out of the list")
        return Listing(labelled, tuple(case for case in self.scans() if case not in labels))

    def scans(self) -> tuple[str, ...]:
        """The cases of imagesTr and imagesTs, see `base.Reader.scans`.

        Raises:
          UserError: files of the folder contradict each other.
        """
        training, test, _ = self._files()
        return tuple(sorted({*training, *test}))

    def locate(self, case: str, label: bool = True) -> Files:
        """Finds the channels and the label of a case, see `base.Reader.locate`.

        Raises:
          UserError: the case, a channel of it or its label is missing, there are more channels than dataset.json
            names, or the files of the folder contradict each other.
        """
        training, test, labels = self._files()
        found = training.get(case) or test.get(case)
        if found is None:
            remedy = base.absent(case, [*training, *test], "add the case, or take it out of the split")
            raise UserError(self.root / "imagesTr" / case, "does not exist", remedy)
        if label and case not in labels:
            path = self.root / "labelsTr" / f"{case}{self._suffix}"
            raise UserError(path, "is missing", "add it, or take the case out of the split")
        return Files(self._in_order(case, found), labels[case] if label else None)

    def _in_order(self, case: str, found: Mapping[int | None, pathlib.Path]) -> tuple[pathlib.Path, ...]:
        folder = next(iter(found.values())).parent
        named = f"but dataset.json names {counted(len(self._channels), 'channel')}"
        surplus = (named, "remove it, or name it in dataset.json")

        def path_of(number):
            return folder / f"{case}_{number:04d}{self._suffix}"

        return base.in_order(found, self._channels, path_of, surplus, "add it, or remove the case")

    def _list(self) -> tuple[dict, dict, dict]:
        """The images of imagesTr and imagesTs (case: {channel number, or None for all: path}), the labels by case."""
        labels = dict(self._stems("labelsTr"))
        stems = dict(self._stems("imagesTr"))
        for path in (*self._others("imagesTr"), *self._others("imagesTs")):
            base.warn_of_image(path, self._unlike())
        of_test = dict(self._stems("imagesTs"))
        if not (stems or of_test):
            raise self._empty("imagesTr")
        # Labels are named after cases, which distinguishes a case heart_0001 from the second channel of a case heart.
        named = stems or of_test
        whole = bool(stems.keys() & labels) if stems and labels else not all(map(CHANNEL.fullmatch, named))
        training, test = self._by_case(stems, whole), self._by_case(of_test, whole)
        for case in sorted(training.keys() & test):
            raise UserError(self.root / "imagesTs" / case, "is also the name of a case in imagesTr", "rename one")
        return training, test, labels

    def _empty(self, folder: str) -> UserError:
        problem = f"holds no {self._suffix} files"
        return UserError(self.root / folder, problem, "set data.root to the folder of dataset.json, or add them")

    def _stems(self, folder: str) -> list[tuple[str, pathlib.Path]]:
        """The files of a subfolder by their names without the suffix; none if there is no such folder."""
        if not (self.root / folder).is_dir():
            return []
        paths = [path for path in sorted((self.root / folder).iterdir()) if not path.name.startswith(".")]
        return [(p.name[: -len(self._suffix)], p) for p in paths if p.name.endswith(self._suffix)]

    def _others(self, folder: str) -> list[pathlib.Path]:
        """The scans or labels of a subfolder that have another ending, and no file of their name has the right one."""
        stems, found = {stem for stem, _ in self._stems(folder)}, []
        for path in sorted((self.root / folder).iterdir()) if (self.root / folder).is_dir() else ():
            ending = images.ending(path)
            if ending and not path.name.endswith(self._suffix) and path.name[: -len(ending)] not in stems:
                found.append(path)
        return found

    def _unlike(self) -> str:
        return f"does not end in {self._suffix}, the file_ending of {self._file.name}"

    def _by_case(self, stems: Mapping[str, pathlib.Path], whole: bool) -> dict[str, dict[int | None, pathlib.Path]]:
        cases: dict[str, dict[int | None, pathlib.Path]] = {}
        for stem, path in stems.items():
            match = CHANNEL.fullmatch(stem)
            if whole:
                cases[stem] = {None: path}
            elif match is None:
                problem = "has neither a label of its name nor the number of a channel, as CASE_0000 has"
                raise UserError(path, problem, "rename it")
            else:
                cases.setdefault(match["case"], {})[int(match["number"])] = path
        return cases

    def _read_channels(self) -> tuple[str, ...]:
        found = self._content.get("channel_names", self._content.get("modality"))
        if not isinstance(found, dict) or sorted(found) != sorted(str(n) for n in range(len(found))) or not found:
            raise self._wrong(
                "has no channel_names (or modality)", 'add them, for example "channel_names": {"0": "MR"}'
            )
        return tuple(str(found[str(number)]) for number in range(len(found)))

    def _wrong(self, problem: str, remedy: str) -> UserError:
        return UserError(self._file, problem, remedy)


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read(MAX_JSON_SIZE)
        content = json.loads(text)
    except OSError as error:
        raise scan.unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise UserError(path, f"is not JSON ({error})", "correct it") from error
    if not isinstance(content, dict):
        raise UserError(path, "is not a JSON object", "correct it")
    return content
