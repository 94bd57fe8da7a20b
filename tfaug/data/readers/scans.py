"""Scans to be segmented, without labels: a file, or all files of a folder.

ROOT/NAME.nii.gz               a scan; if 4D, one of several channels or a series of frames
ROOT/NAME_0000.nii.gz, ...     the channels of a scan, as nnU-Net names them

`options["channels"]` names the channels that a scan must have. ROOT may also be one of these files.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from tfaug.data import images
from tfaug.data.readers import base
from tfaug.data.readers.base import Files, Listing
from tfaug.data.readers.msd import CHANNEL
from tfaug.engine.errors import UserError


class Reader(base.Reader):
    """The scans of a folder, without its subfolders; a file's name without its suffix is a case."""

    looks_for = "files of scans"

    def __init__(self, root: pathlib.Path, options: Mapping[str, Any]):
        super().__init__(root, options)
        self._channels = tuple(options.get("channels") or ("image",))

    def task(self) -> None:
        """None: the images alone do not name structures."""

    def channels(self) -> tuple[str, ...]:
        """The channels that the options name."""
        return self._channels

    def cases(self) -> Listing:
        """All cases are unlabelled.

        Raises:
          UserError: there is none, or two files have the same name.
        """
        return Listing((), tuple(sorted(self._files())))

    def locate(self, case: str, label: bool = True) -> Files:
        """Finds the channels of a case, see `base.Reader.locate`.

        Raises:
          UserError: a channel is missing, there are more than the options name, or tfaug does not read the format.
        """
        found = self._files()[case]
        one = next(iter(found.values()))
        if images.suffix(one) is None:
            raise images.unread(one)
        if label:
            raise UserError(one, "has no label", "give a data set with labels")
        surplus = (f"where scans of {len(self._channels)} are expected", "remove it")

        def path_of(number):
            return one.with_name(f"{case}_{number:04d}{images.suffix(one)}")

        return Files(base.in_order(found, self._channels, path_of, surplus, "add it, or remove the others"), None)

    def _list(self) -> dict[str, dict[int | None, pathlib.Path]]:
        """The files of each case by number of the channel; None for a file with all channels, or one in no format.

        Of the latter, each is a case that `locate` refuses, unless there is a readable file of its name.
        """
        alone = not self.root.is_dir()
        stems: dict[str, pathlib.Path] = {}
        unread: dict[str, dict[None, pathlib.Path]] = {}
        for path in [self.root] if alone else sorted(self.root.iterdir()):
            suffix = images.suffix(path)
            if suffix and not path.name.startswith("."):
                stem = path.name[: -len(suffix)]
                if stem in stems:
                    raise UserError(path, f"is of the same name as {stems[stem].name}", "remove one, or rename it")
                stems[stem] = path
            elif found := images.ending(path):
                unread.setdefault(path.name[: -len(found)], {None: path})
        if not stems:
            known = ", ".join(images.SUFFIXES)
            problem = "is in no format that tfaug reads" if alone else "holds no scans"
            raise UserError(self.root, problem, f"give scans in files that end in {known}")
        matches = {stem: CHANNEL.fullmatch(stem) for stem in stems}
        if not self._are_channels(matches.values()):
            return {**unread, **{stem: {None: path} for stem, path in stems.items()}}
        cases: dict[str, dict[int | None, pathlib.Path]] = {}
        for stem, path in stems.items():
            case, number = matches[stem]["case"], int(matches[stem]["number"])
            cases.setdefault(case, {})[number] = path
            if alone:  # the first channel stands for all of them
                names = [f"{case}_{n:04d}{path.name[len(stem) :]}" for n in range(len(self._channels))]
                cases[case].update({n: path.with_name(name) for n, name in enumerate(names)})
                cases[case] = {n: other for n, other in cases[case].items() if other.exists()}
        return {**{stem: files for stem, files in unread.items() if stem not in stems}, **cases}

    def _are_channels(self, matches) -> bool:
        """Whether final numbers in names count channels: all names have one, some (for one channel, all) have 0000."""
        numbers = {match["number"] for match in matches if match} if all(matches) else set()
        return "0000" in numbers and (len(self._channels) > 1 or numbers == {"0000"})
