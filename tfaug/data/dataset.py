"""A data set as the rest of tfaug sees it: cases by name, slices along the last axis."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tfaug.data.preprocess import to_file_order
from tfaug.data.readers import base
from tfaug.data.readers.base import Files, Listing, Reader
from tfaug.data.task import Task
from tfaug.engine.errors import UserError
from tfaug.types import Volume

EQUAL_SPACING = 1e-3  # tolerance relative to the largest: spacings in headers are rounded


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A folder's reader with its task; can be pickled.

    Attributes:
      reader: knows the folder's layout.
      task: the structures and channels.
      slice_axis: which axis of the files is sliced: 0, 1, 2, or "auto", see `sliced_axis`.
    """

    reader: Reader
    task: Task
    slice_axis: int | str = "auto"

    @property
    def root(self) -> pathlib.Path:
        """The data set's folder."""
        return self.reader.root

    def cases(self) -> Listing:
        """Every case of the folder, see `Reader.cases`."""
        return self.reader.cases()

    def patient(self, case: str) -> str:
        """The patient of a case."""
        return self.reader.patient(case)

    def locate(self, case: str, label: bool = True) -> Files:
        """The files of a case, without opening them, see `Reader.locate`.

        Raises:
          UserError: as there, or the case's name cannot be written to a table.
        """
        try:
            case.encode()
        except UnicodeEncodeError as error:  # undecodable bytes of a file's name, see os.fsencode
            raise UserError(self.root / case, "has a name that is not UTF-8", "rename its files") from error
        return self.reader.locate(case, label)

    def read(self, case: str, label: bool = True) -> Volume:
        """Reads a case.

        Args:
          case: its name.
          label: False for unlabelled use: a label is not looked for.

        Raises:
          UserError: a file is missing, damaged, or does not match the others or the task.
        """
        return self.decode(case, self.locate(case, label))

    def decode(self, case: str, files: Files, contents: Mapping[pathlib.Path, bytes] | None = None) -> Volume:
        """Reads the files of a case; `contents` are the bytes of those already read.

        Raises:
          UserError: as `read`.
        """
        return arranged(case, base.read_files(files, self.task, contents), self.slice_axis)

    def series(self, case: str) -> Series:
        """Reads the images of a case that is to be segmented, see `read_series`."""
        return read_series(case, self.locate(case, label=False), self.task, self.slice_axis)


class Series(NamedTuple):
    """A scan that is to be segmented.

    Attributes:
      frames: one volume, or those of a 4D file such as a cine stack.
      is_4d: whether they are those of a 4D file.
      contradiction: as in `preprocess.Prepared`.
    """

    frames: tuple[Volume, ...]
    is_4d: bool
    contradiction: str = ""

    def in_file_order(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Joins arrays [X, Y, Z, ...], one per frame, into one in the file's order of axes: [X, Y, Z, (T,) ...]."""
        ordered = [to_file_order(array, frame.axis) for array, frame in zip(arrays, self.frames)]
        return np.stack(ordered, axis=3) if self.is_4d else ordered[0]


def read_series(case: str, files: Files, task: Task, slice_axis: int | str) -> Series:
    """Reads the images of a scan; `slice_axis` is as in `DataSet`.

    Raises:
      UserError: see `base.read_frames`.
    """
    contents, is_4d = base.read_frames(files, task)
    frames = tuple(arranged(case, content, slice_axis) for content in contents)
    return Series(frames, is_4d, base.contradiction(files))


def arranged(case: str, content: base.CaseData, slice_axis: int | str) -> Volume:
    """The `Volume` of what was read, the sliced axis moved last; `slice_axis` is as in `DataSet`."""
    axis = sliced_axis(content.image.shape, content.spacing) if slice_axis == "auto" else slice_axis
    others = [k for k in range(3) if k != axis]
    return Volume(
        case,
        np.moveaxis(content.image, axis, 2),
        None if content.label is None else np.moveaxis(content.label, axis, 2),
        tuple(content.spacing[k] for k in (*others, axis)),
        axis,
        content.path,
        "".join(content.order[k] for k in (*others, axis)) if content.order else "",
    )


def sliced_axis(shape, spacing) -> int:
    """The axis with a single slice, else the one with the largest spacing, as slices are thicker than pixels.

    If there are several, the last.

    Args:
      shape: shape of a volume, (X, Y, Z, ...).
      spacing: voxel size along each axis.
    """
    single = [axis for axis in range(3) if shape[axis] == 1]
    longest = max(spacing)
    thick = [axis for axis in range(3) if spacing[axis] >= longest * (1 - EQUAL_SPACING)]
    return max(single or thick)
