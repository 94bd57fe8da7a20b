"""Shared by the formats of scans: a `Scan`, the limits of a sound one, and the errors for others."""

from __future__ import annotations

import io
import math
import pathlib
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from tfaug.engine.errors import UserError

MAX_VOXELS = 2**28  # a CT of 512 x 512 x 1024
MAX_HEADER = 2**24  # bytes before the first voxel
MAX_EXTENT_MM = 10_000.0
MIN_WIDTH_MM = 1.0  # in plane: an OCT or a micro-CT has a few mm; an undeclared size in metres gives 0.01 to 0.5
CHUNK = 2**20  # bytes

REPLACE = "replace it by an intact copy"
RESAVE = "save it again as a 3D file with a correct header"


class Frame(NamedTuple):
    """Where voxels lie in the patient.

    Attributes:
      axes: [3, 3] float64; the columns are unit vectors along X, Y, Z. Their components point to the patient's right,
        front and head (RAS).
      origin: [3] float64, mm, of the first voxel's centre.
    """

    axes: np.ndarray
    origin: np.ndarray


class Scan(NamedTuple):
    """The content of one file.

    Attributes:
      array: [X, Y, Z], or [X, Y, Z, C] for a 4D file with C channels or frames; finite, slope and intercept applied,
        axes in file order.
      spacing: mm per voxel along X, Y, Z.
      frames: one for each transform in the header that locates the voxels; may be empty.
    """

    array: np.ndarray
    spacing: tuple[float, float, float]
    frames: tuple[Frame, ...]


def unreadable(path: pathlib.Path, error: OSError) -> UserError:
    """The user's error if the system refuses to open or read `path`."""
    return UserError(
        path, f"cannot be read ({error.strerror or error})", "check that it exists and that you may read it"
    )


def opened(path: pathlib.Path, content: bytes | None) -> BinaryIO:
    """The file, or its content if already read, as a stream."""
    if content is not None:
        return io.BytesIO(content)
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise UserError(path, "is not a regular file", REPLACE)
    return open(path, "rb")


def check_grid(path: pathlib.Path, shape: Sequence[int], spacing: Sequence[float]) -> None:
    """Refuses sizes that no scan has.

    Args:
      path: the file, for errors.
      shape: voxels along X, Y, Z, and the number of channels or frames of a 4D file.
      spacing: mm per voxel along X, Y, Z.
    """
    if min(shape) < 1:
        raise UserError(path, f"has the impossible shape {tuple(shape)}", RESAVE)
    if math.prod(shape) > MAX_VOXELS:
        problem = f"declares the shape {tuple(shape)}, more than the {MAX_VOXELS} voxels that tfaug reads"
        raise UserError(path, problem, "crop it or resample it, or replace it if it is not that large")
    if not all(math.isfinite(mm) and mm > 0 for mm in spacing):
        raise UserError(path, f"has the voxel size {tuple(spacing)} mm", RESAVE)
    extents = [n * mm for n, mm in zip(shape, spacing)]
    if max(extents) > MAX_EXTENT_MM:
        raise UserError(path, f"is {max(extents):.3g} mm long, so its voxel size is wrong", RESAVE)
    if max(extents[:2]) < MIN_WIDTH_MM:
        raise UserError(path, f"is {max(extents[:2]):.3g} mm wide, so its voxel size is wrong", RESAVE)


def unit_axes(path: pathlib.Path, matrix: np.ndarray, name: str) -> np.ndarray:
    """The columns of a [3, 3] matrix, scaled to length 1.

    Raises:
      UserError: they are not finite, of length 0, or not orthogonal; `name` is what the header calls the matrix.
    """
    lengths = np.linalg.norm(matrix, axis=0)
    if not (np.isfinite(matrix).all() and lengths.all()):
        raise UserError(path, f"has {name} that is not finite or has an axis of length 0", RESAVE)
    axes = matrix / lengths
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-3):
        raise UserError(path, f"has {name} whose axes are not orthogonal", RESAVE)
    return axes


def check_type(path: pathlib.Path, dtype: np.dtype) -> np.dtype:
    """Refuses voxels that are not real numbers of at most 8 bytes."""
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise UserError(path, f"has voxels of type {dtype} where real numbers are expected", RESAVE)
    return dtype


def read_exactly(path: pathlib.Path, stream: BinaryIO, size: int) -> bytearray:
    """The next `size` bytes, allocated as they arrive: a short file that declares a large size costs nothing."""
    data = bytearray()
    while len(data) < size:
        chunk = stream.read(min(CHUNK, size - len(data)))
        if not chunk:
            raise UserError(path, "ends before the last voxel that its header declares", REPLACE)
        data += chunk
    return data


def check_end(path: pathlib.Path, stream: BinaryIO) -> None:
    """Refuses a file that continues beyond its last voxel."""
    if stream.read(1):
        raise UserError(path, "holds more data than its header declares", REPLACE)
