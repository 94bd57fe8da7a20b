"""What a folder layout provides: its cases, where their files are, and the task."""

from __future__ import annotations

import abc
import difflib
import functools
import itertools
import logging
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfaug.data import images
from tfaug.data.scan import Scan, unreadable
from tfaug.data.task import Task
from tfaug.engine.errors import UserError, counted, printable
from tfaug.types import Hearts

logger = logging.getLogger(__name__)

MIN_ALONG = 0.9  # cosine of the angle to a direction of the body: 26 degrees
MAX_SHIFT = 0.75  # voxels; programs that count from a voxel's corner rather than its centre are half a voxel off


class Files(NamedTuple):
    """The files of one case.

    Attributes:
      images: one 3D file per channel, in the order of the task's channels; or one file with all of them.
      label: None for unlabelled use.
    """

    images: tuple[pathlib.Path, ...]
    label: pathlib.Path | None

    @property
    def paths(self) -> tuple[pathlib.Path, ...]:
        """All of them."""
        return self.images if self.label is None else (*self.images, self.label)


class Listing(NamedTuple):
    """The cases of a data set, sorted by name.

    Attributes:
      labelled: cases with a label.
      unlabelled: cases without one, or that the layout sets aside as such.
    """

    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]


def absent(case: str, known: Iterable[str], remedy: str) -> str:
    """The remedy for a missing case: the known name that it misspells, or `remedy`.

    A misspelled name has the numbers of the right one: patient34 is patient034, but patient035 is another patient.
    """
    numbers = _numbers(case)
    found = difflib.get_close_matches(case, [name for name in known if _numbers(name) == numbers], n=1)
    return f"did you mean {found[0]!r}? Otherwise {remedy}" if found else remedy


def _numbers(name: str) -> list[str]:
    return [digits.lstrip("0") for digits in re.findall("[0-9]+", name)]


class Reader(abc.ABC):
    """A folder layout: one subclass per file, listed in `readers.READERS`. Instances can be pickled.

    Args:
      root: the data set's folder.
      options: the config's section `data`, as a dict, from which a layout may read its own keys.
    """

    looks_for = ""  # what `recognises` looks for, in words for the user
    reads_structures = True  # whether `task` is read from the folder, rather than what such folders usually contain
    _found: Any = None  # see `_files`

    def __init__(self, root: pathlib.Path, options: Mapping[str, Any]):
        self.root = pathlib.Path(root)

    @staticmethod
    def recognises(root: pathlib.Path) -> bool:
        """Whether a folder has this layout; looks at names only."""
        return False

    @abc.abstractmethod
    def task(self) -> Task | None:
        """The task according to the folder; None if only the config can name structures."""

    def channels(self) -> tuple[str, ...]:
        """The names of a scan's channels, in the order of `Files.images`."""
        task = self.task()
        return ("image",) if task is None else task.channels

    @abc.abstractmethod
    def cases(self) -> Listing:
        """Every case of the folder.

        Raises:
          UserError: the folder contradicts itself.
        """

    def scans(self) -> tuple[str, ...]:
        """The cases that have an image, sorted: those that can be segmented, even where labels contradict the folder.

        Raises:
          UserError: the images contradict each other.
        """
        return tuple(sorted({case for cases in self.cases() for case in cases}))

    @abc.abstractmethod
    def locate(self, case: str, label: bool = True) -> Files:
        """Finds a case's files without opening them.

        Args:
          case: its name.
          label: False for unlabelled use: the label is not looked for, and None.

        Raises:
          UserError: a file is missing or not unique.
        """

    def _files(self) -> Any:
        """The result of `_list`, which is called once."""
        if self._found is None:
            try:
                self._found = self._list()
            except OSError as error:
                raise unreadable(error.filename or self.root, error) from error
        return self._found

    def _list(self) -> Any:
        """All files of the folder, for a reader that looks at the whole folder before it locates a case."""
        raise NotImplementedError

    def patient(self, case: str) -> str:
        """The patient of a case; cases of one patient never fall into different splits."""
        return case

    def members(self, name: str) -> tuple[str, ...]:
        """The cases that a name in the splits stands for: that case, or all cases of a patient; opens no file."""
        return (name,)

    def hearts(self, cases: Iterable[str]) -> Hearts | None:
        """What the clinical indices of the heart need to know about some cases; None unless they show both phases."""
        return None


@functools.cache
def warn_of_image(path: pathlib.Path, problem: str) -> None:
    """Logs once that an image is passed over."""
    logger.warning(printable(f"{path}: is passed over, as it {problem}"))


def in_order(
    found: Mapping[int | None, pathlib.Path],
    channels: Sequence[str],
    path_of: Callable[[int], pathlib.Path],
    surplus: tuple[str, str],
    missing: str,
) -> tuple[pathlib.Path, ...]:
    """The files of a scan's channels in order.

    Args:
      found: files by number of the channel, from 0; under None, a file with all channels.
      channels: their names.
      path_of: function from a channel's number to where its file should be.
      surplus: for a channel too many, the problem, which continues "is channel 3", and the remedy.
      missing: the remedy for a missing channel.

    Raises:
      UserError: a channel is missing, or there are more channels than names.
    """
    if None in found:
        return (found[None],)
    for number in sorted({*range(len(channels))} ^ {*found}):
        if number in found:
            raise UserError(found[number], f"is channel {number + 1}, {surplus[0]}", surplus[1])
        raise UserError(path_of(number), f"is missing (the channel {channels[number]})", missing)
    return tuple(path for _, path in sorted(found.items()))


class CaseData(NamedTuple):
    """The content of a case's files, axes in file order.

    Attributes:
      image: [X, Y, Z, C] float32.
      label: [X, Y, Z] uint8 classes, or None.
      spacing: mm per voxel along X, Y, Z.
      path: the first channel's file.
      order: see `types.Volume`, of the axes in file order.
    """

    image: np.ndarray
    label: np.ndarray | None
    spacing: tuple[float, float, float]
    path: pathlib.Path
    order: str = ""


def read_files(files: Files, task: Task, contents: Mapping[pathlib.Path, bytes] | None = None) -> CaseData:
    """Reads the files of a case and checks that they belong together.

    Args:
      files: where they are.
      task: its channels are the image's, its structures the label's.
      contents: the bytes of files already read.

    Raises:
      UserError: as `images.read`; or the channels or the label do not match in shape, voxel size, direction or
        position, or the label has a value that belongs to no structure.
    """
    contents = contents or {}
    num_channels = len(task.channels)
    if len(files.images) not in (1, num_channels):
        problem = f"has {counted(len(files.images), 'file')} where the task has {counted(num_channels, 'channel')}"
        raise UserError(files.images[0], problem, "give a file for each, or one 4D file for all")
    in_one_file = num_channels // len(files.images)
    scans = [images.read(path, np.float32, contents.get(path), in_one_file) for path in files.images]
    first = scans[0]
    for path, channel in zip(files.images[1:], scans[1:]):
        _check_fit(path, channel, first, "first channel", "resample the channels of a case to one grid")
    classes = None
    if files.label is not None:
        label = images.read(files.label, None, contents.get(files.label))  # float32 would round near-integers
        _check_fit(files.label, label, first, "image", "replace the label by the one that belongs to the image")
        classes = task.to_classes(label.array, files.label)
    arrays = [scan.array if scan.array.ndim == 4 else scan.array[..., None] for scan in scans]
    image = np.concatenate(arrays, axis=-1) if len(arrays) > 1 else arrays[0]
    return CaseData(image, classes, first.spacing, files.images[0], _order(first))


def read_mask(path: pathlib.Path, like: pathlib.Path, task: Task, num_frames: int, remedy: str) -> np.ndarray:
    """Reads a mask that was made of a scan, and that somebody may have changed since.

    Args:
      path: the mask's file.
      like: the scan's, or that of its first channel.
      task: its structures are the mask's.
      num_frames: how many frames of the scan have a mask, in one 4D file if there are several.
      remedy: for a mask that does not lie on the scan's grid.

    Returns:
      [num_frames, X, Y, Z] uint8 classes, axes in file order.

    Raises:
      UserError: as `images.read`; or the mask differs from the scan in shape, voxel size, direction, position or number
        of frames, or has a value that belongs to no structure.
    """
    mask, scan = images.read(path, None, channels=None), images.read(like, None, channels=None)
    _check_fit(path, mask, scan, "scan", remedy)
    frames = mask.array if mask.array.ndim == 4 else mask.array[..., None]
    if frames.shape[3] != num_frames:
        problem = f"has {counted(frames.shape[3], 'frame')}, its scan {num_frames}"
        raise UserError(path, problem, remedy)
    return np.moveaxis(task.to_classes(frames, path), 3, 0)


def contradiction(files: Files, contents: Mapping[pathlib.Path, bytes] | None = None) -> str:
    """The first header's self-contradiction, see `images.contradiction`, or ""; arguments as for `read_files`."""
    contents = contents or {}
    found = ((path, images.contradiction(path, contents.get(path))) for path in files.paths)
    return next((f"{problem} of {path.name}" for path, problem in found if problem), "")


def _order(scan: Scan) -> str:
    """Which way X, Y and Z run, see `types.Volume`; "" if the scan is oblique or its transforms disagree."""
    orders = set()
    for frame in scan.frames:
        along = np.abs(frame.axes).argmax(axis=0)
        cosines = frame.axes[along, range(3)]
        letters = ("RAS"[k] if cosine > 0 else "LPI"[k] for k, cosine in zip(along, cosines))
        orders.add("".join(letters) if np.abs(cosines).min() > MIN_ALONG else "")
    return orders.pop() if len(orders) == 1 else ""


def read_frames(files: Files, task: Task) -> tuple[list[CaseData], bool]:
    """Reads the images of a scan to be segmented; a 4D file is a series of frames if the task has one channel.

    Returns:
      the frames, one for a 3D scan; and whether they come from a 4D file.

    Raises:
      UserError: as `read_files`.
    """
    if len(task.channels) > 1 or len(files.images) > 1:
        return [read_files(Files(files.images, None), task)], False
    (path,) = files.images
    scan = images.read(path, np.float32, channels=None)
    frames = scan.array if scan.array.ndim == 4 else scan.array[..., None]
    contents = [CaseData(frames[..., t, None], None, scan.spacing, path) for t in range(frames.shape[3])]
    return contents, scan.array.ndim == 4


def _check_fit(path: pathlib.Path, scan: Scan, reference: Scan, name: str, remedy: str) -> None:
    """Refuses a label, mask or channel on a grid other than that of its case's first file, called `name` in errors."""
    shape, expected = scan.array.shape[:3], reference.array.shape[:3]
    if shape != expected:
        raise UserError(path, f"has the shape {shape}, its {name} {expected}", remedy)
    if not np.allclose(scan.spacing, reference.spacing, rtol=1e-3):
        raise UserError(path, f"has the voxel size {scan.spacing} mm, its {name} {reference.spacing} mm", remedy)
    # The transforms of one file may differ: a label may match any of its image's.
    misfits = []
    corners = np.array(list(itertools.product(*((0, n - 1) for n in shape)))) * reference.spacing
    for ours, theirs in itertools.product(scan.frames, reference.frames):
        gaps = turns = corners @ (ours.axes - theirs.axes).T  # mm, in the patient
        if ours.origin.any() and theirs.origin.any():  # programs that know no origin write 0, 0, 0
            gaps = turns + ours.origin - theirs.origin
        turned, away = (np.abs(far @ theirs.axes / reference.spacing).max() > MAX_SHIFT for far in (turns, gaps))
        if not away:
            return
        misfits.append((turned, np.linalg.norm(gaps, axis=1).max()))
    if misfits:
        turned, distance = min(misfits)
        problem = "is mirrored or rotated against" if turned else f"lies {distance:.3g} mm away from"
        raise UserError(path, f"{problem} its {name}", remedy)
