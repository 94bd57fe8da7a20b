"""Reads NIfTI files without trusting them: a damaged or strange file gives an error, never wrong data."""

from __future__ import annotations

import gzip
import math
import pathlib
from typing import BinaryIO

import nibabel
import numpy as np

from tfaug.data import scan
from tfaug.data.scan import REPLACE, RESAVE, Frame, Scan
from tfaug.engine.errors import UserError, counted

SUFFIXES = (".nii.gz", ".nii")

# The header fields that say where voxels lie. Both transforms are copied unchanged: ACDC's scans have a true qform
# beside a unit sform, and a mask must match its scan in every viewer, whichever of the two the viewer prefers.
GEOMETRY = (
    "pixdim xyzt_units qform_code quatern_b quatern_c quatern_d qoffset_x qoffset_y qoffset_z "
    "sform_code srow_x srow_y srow_z"
).split()


def read(path: pathlib.Path, stream: BinaryIO, channels: int | None = 1) -> Scan:
    """Reads a volume from a NIfTI-1 or NIfTI-2 file, to the end of the stream, where gzip verifies its checksum.

    The spacing is `pixdim`, as in ITK, even where the sform says otherwise, see `contradiction`.

    Args:
      path: the file; its suffix tells whether it is compressed.
      stream: its content.
      channels: how many the file has along a fourth axis; 1 for a 3D file, None for either.
    """
    stream = _decompressed(path, stream)
    header = _header(path, stream, channels)
    frames, shape = _frames(path, header), _shape(header, channels)
    dtype = _dtype(path, header)
    scan.read_exactly(path, stream, int(header["vox_offset"]) - header.structarr.dtype.itemsize)
    raw = scan.read_exactly(path, stream, math.prod(shape) * dtype.itemsize)
    scan.check_end(path, stream)
    array = _scaled(path, np.frombuffer(raw, dtype), header)
    return Scan(array.reshape(shape, order="F"), _spacing(header), frames)


def geometry(path: pathlib.Path, stream: BinaryIO) -> nibabel.Nifti1Header:
    """The header of a scan, for `write`; nibabel's own check would reject headers that say enough."""
    return _header(path, _decompressed(path, stream))


def contradiction(header: nibabel.Nifti1Header) -> str:
    """How a sound header contradicts itself about the voxel size; "" if it does not, or if its sform is a placeholder.

    A unit sform is a placeholder beside a qform, to which `pixdim` belongs. In other cases programs read different
    voxel sizes from the header: ITK takes `pixdim`, nibabel the sform.
    """
    if not header["sform_code"] or _agree(header) or (_is_unit(header) and header["qform_code"]):
        return ""
    pixdim, sform = (" x ".join(f"{mm:.4g}" for mm in found) for found in (_spacing(header), _lengths(header)))
    return f"voxels are {pixdim} mm by pixdim (used), {sform} mm by the sform"


def write(path: pathlib.Path, values: np.ndarray, like: nibabel.Nifti1Header) -> None:
    """Writes a label or an image [X, Y, Z], or a series [X, Y, Z, T], with the geometry of the header `like`."""
    header = type(like)()
    for field in GEOMETRY:
        header[field] = like[field]
    header.set_data_dtype(values.dtype)
    header["cal_max"] = values.max()  # upper end of the grey window with which viewers open the label
    kind = nibabel.Nifti2Image if isinstance(like, nibabel.Nifti2Header) else nibabel.Nifti1Image
    nibabel.save(kind(values, None, header), path)  # without an affine, both transforms stay as they are


def _decompressed(path: pathlib.Path, stream: BinaryIO) -> BinaryIO:
    return gzip.GzipFile(fileobj=stream) if path.suffix.lower() == ".gz" else stream


def _header(path: pathlib.Path, stream: BinaryIO, channels: int | None = None) -> nibabel.Nifti1Header:
    """The header, checked; `channels` None accepts 3D and 4D files."""
    block = stream.read(348)
    if not block:
        raise UserError(path, "is empty", REPLACE)
    kind = nibabel.Nifti1Header
    if block[4:12] == b"n+2\0\r\n\x1a\n":
        kind, block = nibabel.Nifti2Header, block + stream.read(540 - 348)
    size = kind.template_dtype.itemsize
    if len(block) < size or (kind is nibabel.Nifti1Header and block[344:348] != b"n+1\0"):
        raise UserError(path, "is not a NIfTI file", REPLACE)
    header = kind(block, check=False)
    if header["sizeof_hdr"] != size:
        raise UserError(path, "is not a NIfTI file", REPLACE)

    dimensions = int(header["dim"][0])
    if channels == 1 and dimensions != 3 or dimensions not in (3, 4):
        raise UserError(path, f"has {dimensions} dimensions where 3 are expected", RESAVE)
    if channels not in (None, 1) and (dimensions, int(header["dim"][4])) != (4, channels):
        found = int(header["dim"][4]) if dimensions == 4 else 1
        raise UserError(
            path, f"holds {counted(found, 'channel')} where {channels} are expected", "save all of them in one file"
        )
    scan.check_grid(path, _shape(header, channels), _spacing(header))
    offset = float(header["vox_offset"])
    if not (size + 4 <= offset <= scan.MAX_HEADER and offset.is_integer()):
        raise UserError(path, f"has the impossible vox_offset {offset}", RESAVE)
    dtype = _dtype(path, header)
    if header["bitpix"] != 8 * dtype.itemsize:
        raise UserError(path, f"has bitpix {header['bitpix']} for voxels of type {dtype}", RESAVE)
    unit = int(header["xyzt_units"]) & 7
    if unit not in (0, 2):  # unknown or mm
        raise UserError(path, "gives its voxel size in another unit than mm", RESAVE)
    return header


def _shape(header: nibabel.Nifti1Header, channels: int | None) -> tuple[int, ...]:
    dimensions = int(header["dim"][0]) if channels is None else 3 if channels == 1 else 4
    return tuple(int(n) for n in header["dim"][1 : dimensions + 1])


def _spacing(header: nibabel.Nifti1Header) -> tuple[float, float, float]:
    return tuple(float(mm) for mm in header["pixdim"][1:4])


def _lengths(header: nibabel.Nifti1Header) -> tuple[float, float, float]:
    """The voxel size by the sform: the lengths of its axes."""
    return tuple(np.linalg.norm(_sform(header)[:, :3], axis=0).tolist())


def _agree(header: nibabel.Nifti1Header) -> bool:
    """Whether the axes of the sform are as long as `pixdim` says."""
    return np.allclose(_lengths(header), _spacing(header), rtol=1e-2)


def _is_unit(header: nibabel.Nifti1Header) -> bool:
    """Whether the axes of the sform have length 1."""
    return np.allclose(_lengths(header), 1)


def _dtype(path: pathlib.Path, header: nibabel.Nifti1Header) -> np.dtype:
    try:
        return scan.check_type(path, header.get_data_dtype())
    except KeyError as error:
        raise UserError(path, f"has the unknown voxel type {header['datatype']}", RESAVE) from error


def _frames(path: pathlib.Path, header: nibabel.Nifti1Header) -> tuple[Frame, ...]:
    """The qform and the sform, if the header has them.

    A unit sform where `pixdim` says otherwise is a placeholder, and left out.
    """
    frames = []
    if header["qform_code"]:
        # NIfTI stores b, c, d of the unit quaternion (a, b, c, d); a follows from its length of 1.
        b, c, d = (float(header[f"quatern_{part}"]) for part in "bcd")
        if not b * b + c * c + d * d <= 1 + 1e-5:
            raise UserError(path, "has a qform that is not a rotation", RESAVE)
        origin = np.array([header[f"qoffset_{axis}"] for axis in "xyz"], np.float64)
        if not np.isfinite(origin).all():
            raise UserError(path, "has a qform that is not finite", RESAVE)
        axes = nibabel.quaternions.quat2mat([math.sqrt(max(0, 1 - (b * b + c * c + d * d))), b, c, d])
        frames.append(Frame(axes * [1, 1, -1 if header["pixdim"][0] < 0 else 1], origin))
    if header["sform_code"]:
        matrix = _sform(header)
        axes = scan.unit_axes(path, matrix[:, :3], "an sform")
        if not np.isfinite(matrix).all():
            raise UserError(path, "has an sform that is not finite", RESAVE)
        if _agree(header) or not _is_unit(header):
            frames.append(Frame(axes, matrix[:, 3]))
    return tuple(frames)


def _sform(header: nibabel.Nifti1Header) -> np.ndarray:
    return np.stack([header[f"srow_{axis}"] for axis in "xyz"]).astype(np.float64)


def _scaled(path: pathlib.Path, voxels: np.ndarray, header: nibabel.Nifti1Header) -> np.ndarray:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise UserError(path, f"has the scale slope {slope} and intercept {intercept}", RESAVE)
    if slope not in (0, 1) or (slope == 1 and intercept):  # slope 0 means: not scaled
        with np.errstate(over="ignore", invalid="ignore"):  # infinite voxels are reported by the caller
            return (voxels * np.float64(slope) + intercept).astype(np.float32)  # a slope is no more precise
    return voxels
