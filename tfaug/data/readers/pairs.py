"""Images and labels whose names match two patterns, paired by what the star stands for: the case.

data.images    "images/*" by default; "*/t1.nii.gz" or "scans/*_mr.nrrd" are others. Several, separated by commas, are
               the channels.
data.labels    "labels/*" by default; a case without a label is unlabelled.

If the star is at the end, the case's name excludes the suffix; a file that matches the pattern of labels is no image.
Structures come from `data.structures`. Each case counts as a patient of its own.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator, Mapping, Set
from typing import Any

from tfaug.data import images
from tfaug.data.readers import base
from tfaug.data.readers.base import Files, Listing
from tfaug.data.task import Task
from tfaug.engine.errors import UserError


class Reader(base.Reader):
    """The cases that have an image."""

    looks_for = "folders images and labels"

    def __init__(self, root: pathlib.Path, options: Mapping[str, Any]):
        super().__init__(root, options)
        patterns = (options.get("images") or "images/*").split(",")
        self._images = tuple(_checked(pattern.strip(), "data.images") for pattern in patterns)
        self._labels = _checked((options.get("labels") or "labels/*").strip(), "data.labels")

    @staticmethod
    def recognises(root: pathlib.Path) -> bool:
        """Whether there are the two default folders."""
        return all(pathlib.Path(root, name).is_dir() for name in ("images", "labels"))

    def task(self) -> Task | None:
        """None: the files alone do not name structures."""
        return None

    def channels(self) -> tuple[str, ...]:
        """One channel for each pattern of images."""
        if len(self._images) == 1:
            return super().channels()
        return tuple(f"image {number}" for number in range(1, len(self._images) + 1))

    def cases(self) -> Listing:
        """Cases with a label, and those with only an image.

        Raises:
          UserError: no file matches the pattern of images, a label has no image or is in a format that tfaug does not
            read, or two files match one case.
        """
        every, (_, labels) = self.scans(), self._files()
        for case, path in self._unread(self._labels):
            if case not in labels:
                raise images.unread(path)
        for case in sorted(labels.keys() - {*every}):
            raise UserError(labels[case], "has no image", f"add it ({self._images[0]}), or remove the label")
        return Listing(tuple(sorted(labels)), tuple(case for case in every if case not in labels))

    def scans(self) -> tuple[str, ...]:
        """The cases that have an image, see `base.Reader.scans`.

        Raises:
          UserError: no file matches the pattern of images, or two files match one case.
        """
        channels, _ = self._files()
        if not channels[0]:
            raise UserError(self.root, f"holds no file of the pattern {self._images[0]!r}", "set data.images")
        return tuple(sorted({case for channel in channels for case in channel}))

    def locate(self, case: str, label: bool = True) -> Files:
        """Finds the files of a case, see `base.Reader.locate`.

        Raises:
          UserError: a file is missing, or two files match one case.
        """
        channels, labels = self._files()
        wanted = [*zip(channels, self._images), *([(labels, self._labels)] if label else [])]
        for found, pattern in wanted:
            if case not in found:
                path = self.root / pattern.replace("*", case)
                remedy = base.absent(case, found, "add it, or take the case out of the split")
                raise UserError(path, "does not exist", remedy)
        return Files(tuple(channel[case] for channel in channels), labels[case] if label else None)

    def _list(self) -> tuple[list[dict], dict]:
        """The paths by case: of each channel, and of the labels."""
        labels = self._matching(self._labels)
        channels = [self._matching(pattern, set(labels.values())) for pattern in self._images]
        labelled = {path for _, path in self._unread(self._labels)}
        for found, pattern in zip(channels, self._images):
            for case, path in self._unread(pattern):
                if case not in found and path not in labelled:
                    base.warn_of_image(path, images.unread(path).problem)
        return channels, labels

    def _matching(self, pattern: str, others: Set[pathlib.Path] = frozenset()) -> dict[str, pathlib.Path]:
        cases: dict[str, pathlib.Path] = {}
        for case, path in self._matches(pattern):
            if images.suffix(path) is None or path in others:
                continue
            if case in cases:
                raise UserError(path, f"is of the same case as {cases[case].name}", "remove one, or rename it")
            cases[case] = path
        return cases

    def _unread(self, pattern: str) -> list[tuple[str, pathlib.Path]]:
        """The files in formats that tfaug does not read, with their cases."""
        return [(case, path) for case, path in self._matches(pattern) if images.suffix(path) is None]

    def _matches(self, pattern: str) -> Iterator[tuple[str, pathlib.Path]]:
        """The scans and labels, in any known format, that match a pattern, with their cases."""
        before, after = pattern.split("*")
        expression = re.compile(f"{re.escape(before)}([^/]+){re.escape(after)}", re.DOTALL)
        for path in sorted(self.root.glob(pattern)):
            match, ending = expression.fullmatch(path.relative_to(self.root).as_posix()), images.ending(path)
            if match and ending and match[1][0] != ".":
                yield match[1] if after else match[1][: -len(ending)], path


def _checked(pattern: str, key: str) -> str:
    path = pathlib.PurePosixPath(pattern)
    if pattern.count("*") != 1 or set(pattern) & set("?[]\\\0"):
        raise UserError(
            key, f"{pattern!r} is not a pattern", "write one star for the name of the case, as in 'images/*'"
        )
    if path.is_absolute() or ".." in path.parts:
        raise UserError(key, f"{pattern!r} leaves the data set's folder", "give a path below data.root, without '..'")
    return str(path)
