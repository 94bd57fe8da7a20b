"""Reads NIfTI files without believing them: a damaged or strange file is an error, never wrong data."""

from __future__ import annotations

import gzip
import math
import pathlib
import zlib
from typing import BinaryIO, NamedTuple

import nibabel
import numpy as np

from tfaug.engine.errors import UserError

HEADER_SIZE = 348  # bytes, NIfTI-1
MAX_VOXELS = 2**26
MAX_HEADER_EXTENSION = 2**24  # bytes between the header and the first voxel
MAX_EXTENT_MM = 10_000.0
MIN_WIDTH_MM = 10.0  # in plane: a voxel size that is given in metres, without saying so, stays far below
CHUNK = 2**20  # bytes

REPLACE = "replace it by an intact copy"
RESAVE = "save it again as a 3D NIfTI-1 file with a correct header"


class Scan(NamedTuple):
    """The content of one NIfTI file.

    Attributes:
      array: [X, Y, Z] float, finite, slope and intercept applied, axes in file order.
      spacing: mm per voxel along X, Y, Z.
      header: as stored in the file.
    """

    array: np.ndarray
    spacing: tuple[float, float, float]
    header: nibabel.Nifti1Header


def read(path: pathlib.Path, dtype=np.float32) -> Scan:
    """Reads one 3D scalar volume from a `.nii` or `.nii.gz` file, to the end of the stream.

    The spacing is `pixdim`, not the affine: ACDC's files carry a unit sform beside a true qform. Memory is
    taken only as data arrives, and never for more voxels than the header declares or `MAX_VOXELS`.

    Args:
      path: the file.
      dtype: of the array, float32 or float64.

    Raises:
      UserError: the file cannot be opened, is damaged (the checksum of a `.gz` is verified), or is not a 3D
        real-valued volume with a sound header and finite voxels.
    """
    path = pathlib.Path(path)
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise UserError(path, "is not a regular file", REPLACE)
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
            header = _header(path, stream)
            _check_geometry(path, header)
            raw = _voxels(path, stream, header)
    except gzip.BadGzipFile as error:
        raise UserError(path, f"is not an intact gzip file ({error})", REPLACE) from error
    except (EOFError, zlib.error) as error:
        raise UserError(path, f"is cut off or damaged ({error})", REPLACE) from error
    except OSError as error:
        raise unreadable(path, error) from error

    array = _scaled(path, np.frombuffer(raw, _dtype(path, header)), header, dtype)
    if not np.isfinite(array).all():
        raise UserError(path, "holds NaN or infinite voxels", REPLACE)
    return Scan(array.reshape(_shape(header), order="F"), _spacing(header), header)


def directions(header: nibabel.Nifti1Header) -> list[np.ndarray]:
    """Where the voxel axes of a `Scan` point, by each transform of its header that says so; may be empty.

    An sform whose axes are not as long as `pixdim` is a placeholder, as in ACDC's files.

    Returns:
      [3, 3] float64 each, with unit axes as columns.
    """
    found = []
    if header["qform_code"]:
        b, c, d = _quaternion(header)
        axes = nibabel.quaternions.quat2mat([math.sqrt(max(0, 1 - (b * b + c * c + d * d))), b, c, d])
        found.append(axes * [1, 1, -1 if header["pixdim"][0] < 0 else 1])
    if header["sform_code"]:
        matrix = _sform(header)[:, :3]
        lengths = np.linalg.norm(matrix, axis=0)
        if np.allclose(lengths, _spacing(header), rtol=1e-2):
            found.append(matrix / lengths)
    return found


def unreadable(path: pathlib.Path, error: OSError) -> UserError:
    """The error for the user when the system refuses to open or read `path`."""
    return UserError(
        path, f"cannot be read ({error.strerror or error})", "check that it exists and that you may read it"
    )


def _header(path: pathlib.Path, stream: BinaryIO) -> nibabel.Nifti1Header:
    block = stream.read(HEADER_SIZE)
    if not block:
        raise UserError(path, "is empty", REPLACE)
    if len(block) < HEADER_SIZE or block[344:348] != b"n+1\0":
        raise UserError(path, "is not a NIfTI-1 file", REPLACE)
    header = nibabel.Nifti1Header(block, check=False)
    if header["sizeof_hdr"] != HEADER_SIZE:
        raise UserError(path, "is not a NIfTI-1 file", REPLACE)

    if header["dim"][0] != 3:
        raise UserError(path, f"has {header['dim'][0]} dimensions where 3 are expected", RESAVE)
    shape = _shape(header)
    if min(shape) < 1:
        raise UserError(path, f"has the impossible shape {shape}", RESAVE)
    if math.prod(shape) > MAX_VOXELS:
        raise UserError(path, f"declares the shape {shape}, more than {MAX_VOXELS} voxels", RESAVE)
    offset = float(header["vox_offset"])
    if not (HEADER_SIZE + 4 <= offset <= MAX_HEADER_EXTENSION and offset.is_integer()):
        raise UserError(path, f"has the impossible vox_offset {offset}", RESAVE)
    dtype = _dtype(path, header)
    if header["bitpix"] != 8 * dtype.itemsize:
        raise UserError(path, f"has bitpix {header['bitpix']} for voxels of type {dtype}", RESAVE)
    return header


def _shape(header: nibabel.Nifti1Header) -> tuple[int, int, int]:
    return tuple(int(n) for n in header["dim"][1:4])


def _spacing(header: nibabel.Nifti1Header) -> tuple[float, float, float]:
    return tuple(float(mm) for mm in header["pixdim"][1:4])


def _quaternion(header: nibabel.Nifti1Header) -> tuple[float, float, float]:
    """Of the unit quaternion (a, b, c, d) NIfTI leaves out the first: it is what b, c, d lack in length."""
    return tuple(float(header[f"quatern_{part}"]) for part in "bcd")


def _sform(header: nibabel.Nifti1Header) -> np.ndarray:
    return np.stack([header[f"srow_{axis}"] for axis in "xyz"]).astype(np.float64)


def _dtype(path: pathlib.Path, header: nibabel.Nifti1Header) -> np.dtype:
    try:
        dtype = header.get_data_dtype()
    except KeyError as error:
        raise UserError(path, f"has the unknown voxel type {header['datatype']}", RESAVE) from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise UserError(path, f"has voxels of type {dtype} where real numbers are expected", RESAVE)
    return dtype


def _check_geometry(path: pathlib.Path, header: nibabel.Nifti1Header) -> None:
    spacing = _spacing(header)
    if not all(math.isfinite(mm) and mm > 0 for mm in spacing):
        raise UserError(path, f"has the voxel size (pixdim) {spacing} mm", RESAVE)
    extents = [n * mm for n, mm in zip(_shape(header), spacing)]
    if max(extents) > MAX_EXTENT_MM:
        raise UserError(path, f"is {max(extents):.3g} mm long, so its voxel size (pixdim) is wrong", RESAVE)
    if max(extents[:2]) < MIN_WIDTH_MM:
        raise UserError(path, f"is {max(extents[:2]):.3g} mm wide, so its voxel size (pixdim) is wrong", RESAVE)
    unit = int(header["xyzt_units"]) & 7
    if unit not in (0, 2):  # unknown or mm
        raise UserError(path, "gives its voxel size in another unit than mm", RESAVE)

    if header["qform_code"]:
        if not sum(part * part for part in _quaternion(header)) <= 1 + 1e-5:
            raise UserError(path, "has a qform that is not a rotation", RESAVE)
        if not all(math.isfinite(header[f"qoffset_{axis}"]) for axis in "xyz"):
            raise UserError(path, "has a qform that is not finite", RESAVE)
    if header["sform_code"]:
        matrix = _sform(header)
        lengths = np.linalg.norm(matrix[:, :3], axis=0)
        if not (np.isfinite(matrix).all() and lengths.all()):
            raise UserError(path, "has an sform that is not finite or has an axis of length 0", RESAVE)
        axes = matrix[:, :3] / lengths
        if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-3):
            raise UserError(path, "has an sform whose axes are not orthogonal", RESAVE)


def _voxels(path: pathlib.Path, stream: BinaryIO, header: nibabel.Nifti1Header) -> bytearray:
    """The raw voxels; reads on to the end of the stream, where gzip compares length and checksum."""
    size = math.prod(_shape(header)) * _dtype(path, header).itemsize
    _read(path, stream, int(header["vox_offset"]) - HEADER_SIZE)
    raw = _read(path, stream, size)
    if stream.read(1):
        raise UserError(path, "holds more data than its header declares", REPLACE)
    return raw


def _read(path: pathlib.Path, stream: BinaryIO, size: int) -> bytearray:
    """Exactly `size` bytes, allocated as they come: a short file with a large header costs nothing."""
    data = bytearray()
    while len(data) < size:
        chunk = stream.read(min(CHUNK, size - len(data)))
        if not chunk:
            raise UserError(path, "ends before the last voxel that its header declares", REPLACE)
        data += chunk
    return data


def _scaled(path: pathlib.Path, voxels: np.ndarray, header: nibabel.Nifti1Header, dtype) -> np.ndarray:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise UserError(path, f"has the scale slope {slope} and intercept {intercept}", RESAVE)
    with np.errstate(over="ignore", invalid="ignore"):  # infinite voxels are reported by the caller
        if slope not in (0, 1) or (slope == 1 and intercept):  # slope 0 means: not scaled
            voxels = (voxels * np.float64(slope) + intercept).astype(np.float32)  # a slope is no more precise
        return voxels.astype(dtype)
