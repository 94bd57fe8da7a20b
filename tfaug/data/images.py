"""Reads and writes scans in any format that tfaug knows; the suffix of a file's name determines the format."""

from __future__ import annotations

import contextlib
import gzip
import pathlib
import types
import zlib
from collections.abc import Iterator

import numpy as np

from tfaug.data import itk, nifti
from tfaug.data.scan import REPLACE, Scan, opened, unreadable
from tfaug.engine.errors import UserError

FORMATS = {suffix: module for module in (nifti, itk) for suffix in module.SUFFIXES}
SUFFIXES = tuple(FORMATS)
UNREAD = (".mhd", ".nhdr", ".hdr", ".img", ".img.gz", ".mgz", ".mgh", ".mnc", ".dcm")
"""Endings of scans and labels that tfaug does not read, and so must not pass over without a word."""


def read(path: pathlib.Path, dtype=np.float32, content: bytes | None = None, channels: int | None = 1) -> Scan:
    """Reads a volume of one or several channels, to the end of its file.

    Memory is allocated only as data arrive, and never for more voxels than the header declares or `scan.MAX_VOXELS`.

    Args:
      path: the file.
      dtype: type of the array; None keeps the file's, or float32 if the header scales its values.
      content: the bytes of the file, if already read.
      channels: 1 reads a 3D file; more are the fourth axis of a NIfTI file; None reads a file of either kind.

    Raises:
      UserError: the file cannot be opened, is damaged (the checksum of compressed data is verified), or is not a
        real-valued volume with a sound header and finite voxels.
    """
    path = pathlib.Path(path)
    module = _format(path)
    with _explained(path), opened(path, content) as stream:
        scan = module.read(path, stream, channels)
    array = scan.array
    if dtype is not None:
        with np.errstate(over="ignore", invalid="ignore"):  # infinite voxels are reported below
            array = array.astype(dtype)
    if not np.isfinite(array).all():
        raise UserError(path, "holds NaN or infinite voxels", REPLACE)
    return scan._replace(array=array)


def write(path: pathlib.Path, values: np.ndarray, like: pathlib.Path) -> None:
    """Writes a label or an image with the geometry of a scan.

    Args:
      path: the output file; its suffix is that of `like`, or another of the same module (`FORMATS`).
      values: [X, Y, Z] of any real type, axes in the scan's file order; for a 4D NIfTI scan also [X, Y, Z, T].
      like: the scan's file.

    Raises:
      UserError: the scan cannot be read, or the suffix belongs to another format.
      OSError: the file cannot be written.
    """
    path, like = pathlib.Path(path), pathlib.Path(like)
    module = _format(like)
    if _format(path) is not module:
        raise UserError(path, f"is not in the format of {like.name}", f"end its name in {suffix(like)}")
    module.write(path, values, _geometry(like))


def contradiction(path: pathlib.Path, content: bytes | None = None) -> str:
    """How the header of a readable scan contradicts itself about the voxel size; "" if it does not.

    Args:
      path: the file.
      content: its bytes, if already read.

    Raises:
      UserError: the header cannot be read.
    """
    path = pathlib.Path(path)
    return _format(path).contradiction(_geometry(path, content))


def suffix(path: pathlib.Path) -> str | None:
    """The one of `SUFFIXES` that a file's name ends in, spelled as there; None if there is none."""
    name = pathlib.Path(path).name.lower()
    return next((known for known in SUFFIXES if name.endswith(known) and len(name) > len(known)), None)


def ending(path: pathlib.Path) -> str | None:
    """The one of `SUFFIXES` or `UNREAD` that a file's name ends in, as `suffix`; None for a hidden file."""
    name = path.name.lower()
    known = (known for known in (*SUFFIXES, *UNREAD) if name.endswith(known) and len(name) > len(known))
    return None if name.startswith(".") else next(known, None)


def unread(path: pathlib.Path) -> UserError:
    """The user's error for a file that ends in one of `UNREAD`."""
    remedy = f"save it as one file that ends in {', '.join(SUFFIXES)}"
    return UserError(path, "is in a format that tfaug does not read", remedy)


def _format(path: pathlib.Path) -> types.ModuleType:
    found = suffix(path)
    if found is None:
        raise UserError(path, "is in no format that tfaug reads", f"give one of {', '.join(SUFFIXES)}")
    return FORMATS[found]


def _geometry(path: pathlib.Path, content: bytes | None = None):
    """A scan's header, in the form that the module of its format uses."""
    with _explained(path), opened(path, content) as stream:
        return _format(path).geometry(path, stream)


@contextlib.contextmanager
def _explained(path: pathlib.Path) -> Iterator[None]:
    """Turns the errors of a damaged or missing file into errors for the user."""
    try:
        yield
    except gzip.BadGzipFile as error:
        raise UserError(path, f"is not an intact gzip file ({error})", REPLACE) from error
    except (EOFError, zlib.error) as error:
        raise UserError(path, f"is cut off or damaged ({error})", REPLACE) from error
    except OSError as error:
        raise unreadable(path, error) from error
