"""Reads and writes ITK's formats: NRRD (`.nrrd`) and MetaImage (`.mha`), with header and voxels in one file.

SimpleITK writes them. It is not used for reading: it returns a damaged file half filled, without an exception, takes
missing voxel sizes for 1 mm, and cannot read from memory.
"""

from __future__ import annotations

import math
import pathlib
import re
import zlib
from collections.abc import Iterator, Mapping
from typing import BinaryIO, NamedTuple

import numpy as np
import SimpleITK as sitk

from tfaug.data import scan
from tfaug.data.scan import REPLACE, RESAVE, Frame, Scan
from tfaug.engine.errors import UserError

SUFFIXES = (".nrrd", ".mha")
ITK_AXES = np.array([-1.0, -1.0, 1.0])  # ITK's axes point left, back and up (LPS), `Frame`'s right, front and up

# Where the axes of NRRD's spaces point, in RAS. ITK treats any other space as its own (LPS).
SPACES = {
    **dict.fromkeys(("left-posterior-superior", "lps"), ITK_AXES),
    **dict.fromkeys(("right-anterior-superior", "ras"), np.array([1.0, 1.0, 1.0])),
    **dict.fromkeys(("left-anterior-superior", "las"), np.array([-1.0, 1.0, 1.0])),
}
NRRD_FIELDS = ("data file", "line skip", "byte skip", "space directions", "space origin", "space units", "axis mins")
NRRD_SYNONYMS = {**{name.replace(" ", ""): name for name in NRRD_FIELDS}, "centerings": "centers"}
NRRD_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("unsigned char", "uchar", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("unsigned short", "unsigned short int", "ushort", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("unsigned int", "uint", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("long long", "long long int", "signed long long", "longlong", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("unsigned long long", "unsigned long long int", "ulonglong", "uint64", "uint64_t"), "u8"),
    **{"float": "f4", "double": "f8"},
}
MHA_TYPES = {
    **{"MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4"},
    **{"MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8"},
}
# Synonyms in MetaImage: where there are several, ITK takes the first.
MHA_DIRECTIONS = ("TransformMatrix", "Rotation", "Orientation")
MHA_ORIGINS = ("Origin", "Offset", "Position")


class Header(NamedTuple):
    """The checked content of a header.

    Attributes:
      shape: voxels along X, Y, Z.
      spacing: mm per voxel along X, Y, Z.
      frames: one, or none if the header does not say where voxels lie.
      dtype: type of the voxels.
      compressed: whether the voxels are compressed, by zlib or gzip.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, float, float]
    frames: tuple[Frame, ...]
    dtype: np.dtype
    compressed: bool


def read(path: pathlib.Path, stream: BinaryIO, channels: int | None = 1) -> Scan:
    """Reads a volume, to the end of the stream; arguments and errors as for `images.read`."""
    if channels not in (None, 1):
        raise UserError(path, f"holds 1 channel where {channels} are expected", "give a file for each")
    header = geometry(path, stream)
    size = math.prod(header.shape) * header.dtype.itemsize
    raw = _inflate(path, stream, size) if header.compressed else scan.read_exactly(path, stream, size)
    scan.check_end(path, stream)
    array = np.frombuffer(raw, header.dtype).reshape(header.shape, order="F")
    return Scan(array, header.spacing, header.frames)


def geometry(path: pathlib.Path, stream: BinaryIO) -> Header:
    """The header of a scan."""
    header = (_nrrd if path.suffix.lower() == ".nrrd" else _mha)(path, stream)
    scan.check_grid(path, header.shape, header.spacing)
    return header


def contradiction(header: Header) -> str:
    """Always "", see `images.contradiction`: these formats give the voxel size once."""
    return ""


def write(path: pathlib.Path, values: np.ndarray, like: Header) -> None:
    """Writes a label or an image [X, Y, Z] with the geometry of the scan whose header is `like`."""
    values = values.astype(values.dtype.newbyteorder("="), copy=False)  # SimpleITK accepts no other byte order
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    image.SetSpacing(like.spacing)
    for axes, origin in like.frames:
        image.SetDirection((ITK_AXES[:, None] * axes).ravel().tolist())
        image.SetOrigin((ITK_AXES * origin).tolist())
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise OSError(str(error).strip().splitlines()[-1]) from error


def _nrrd(path: pathlib.Path, stream: BinaryIO) -> Header:
    fields = {}
    for number, line in enumerate(_lines(path, stream)):
        if number == 0:
            if not re.fullmatch("NRRD000[1-5]", line):
                raise UserError(path, "is not an NRRD file", REPLACE)
        elif not line:
            break
        elif not line.startswith("#") and ":=" not in line:  # neither a comment nor a custom key
            key, _, value = line.partition(": ")
            key = NRRD_SYNONYMS.get(key.strip().lower(), key.strip().lower())
            if key == "data file":
                raise UserError(path, "keeps its voxels in another file", "save it again as one file")
            _add(path, fields, key, value)
    _expect(path, fields, "dimension", ("3",))
    for key in ("line skip", "byte skip"):
        _expect(path, fields, key, ("0", None))
    kinds = fields.get("kinds", "domain").lower().split()
    if not set(kinds) <= {"domain", "space", "???", "none"}:
        raise UserError(path, f"has axes of the kinds {' '.join(kinds)}, where 3 axes of space are expected", RESAVE)
    units = fields.get("space units", fields.get("units", "mm"))
    if not set(re.findall(r'"([^"]*)"', units)) <= {"", "mm", "millimeter", "millimeters"}:
        raise UserError(path, "gives its voxel size in another unit than mm", RESAVE)

    if "space directions" in fields:
        matrix = np.reshape(_numbers(path, fields, "space directions", 9), (3, 3)).T  # the vectors are its columns
        axes = scan.unit_axes(path, matrix, "space directions")
        spacing = tuple(np.linalg.norm(matrix, axis=0).tolist())
    else:
        axes, spacing = np.eye(3), _numbers(path, fields, "spacings", 3)
    origin = np.zeros(3)
    if set(fields.get("axis mins", "").lower().split()) == {"nan"}:
        del fields["axis mins"]  # unknown
    if "space origin" in fields:
        origin = np.array(_numbers(path, fields, "space origin", 3))
    elif "axis mins" in fields:  # where the first voxel begins, or on an axis of the kind "node", its centre
        centers = fields.get("centers", "cell cell cell").lower().split()
        if len(centers) != 3:
            raise UserError(path, f"has {_shown(fields, 'centers')} where 3 words are expected", RESAVE)
        halves = [0 if word == "node" else mm / 2 for word, mm in zip(centers, spacing)]
        origin = np.add(_numbers(path, fields, "axis mins", 3), halves)
    flips = SPACES.get(fields.get("space", "").lower(), ITK_AXES)
    known = fields.keys() & {"space directions", "space origin", "axis mins"}
    frames = (Frame(flips[:, None] * axes, flips * origin),) if known else ()
    encoding = _expect(path, fields, "encoding", ("raw", "gzip", "gz"))
    dtype = _type(path, fields, "type", NRRD_TYPES)
    if dtype.itemsize > 1:
        dtype = dtype.newbyteorder("<" if _expect(path, fields, "endian", ("little", "big")) == "little" else ">")
    return Header(_shape(path, fields, "sizes"), spacing, frames, dtype, encoding != "raw")


def _mha(path: pathlib.Path, stream: BinaryIO) -> Header:
    fields = {}
    for line in _lines(path, stream):
        key, equals, value = line.partition("=")
        if not equals:
            raise UserError(path, "is not a MetaImage file", REPLACE)
        _add(path, fields, key, value)
        if key.strip() == "ElementDataFile":
            break
    _expect(path, fields, "ObjectType", ("Image", None))
    _expect(path, fields, "NDims", ("3",))
    if fields["ElementDataFile"].upper() != "LOCAL":
        raise UserError(path, "keeps its voxels in another file", "save it again as one file")
    _expect(path, fields, "ElementNumberOfChannels", ("1", None))
    _expect(path, fields, "HeaderSize", ("0", None))
    _expect(path, fields, "BinaryData", ("True",))
    _expect(path, fields, "ElementToIntensityFunctionSlope", ("1", None))
    _expect(path, fields, "ElementToIntensityFunctionOffset", ("0", None))

    turn, place = (next((key for key in keys if key in fields), None) for keys in (MHA_DIRECTIONS, MHA_ORIGINS))
    axes = np.eye(3)
    if turn:
        matrix = np.reshape(_numbers(path, fields, turn, 9), (3, 3)).T  # lists one axis after the other
        if not np.allclose(np.linalg.norm(matrix, axis=0), 1, atol=1e-3):
            raise UserError(path, f"has directions ({turn}) whose axes are not of length 1", RESAVE)
        axes = scan.unit_axes(path, matrix, f"directions ({turn})")
    origin = _numbers(path, fields, place, 3) if place else (0.0, 0.0, 0.0)
    frames = (Frame(ITK_AXES[:, None] * axes, ITK_AXES * origin),) if turn or place else ()
    spacing = _numbers(path, fields, "ElementSpacing" if "ElementSpacing" in fields else "ElementSize", 3)
    dtype = _type(path, fields, "ElementType", MHA_TYPES)
    orders = [_expect(path, fields, f"{of}ByteOrderMSB", ("False", "True", None)) for of in ("BinaryData", "Element")]
    dtype = dtype.newbyteorder(">" if "True" in orders else "<")
    compressed = _expect(path, fields, "CompressedData", ("False", "True", None)) == "True"
    return Header(_shape(path, fields, "DimSize"), spacing, frames, dtype, compressed)


def _lines(path: pathlib.Path, stream: BinaryIO) -> Iterator[str]:
    """The lines of a header, without line ends."""
    left = scan.MAX_HEADER
    while True:
        line = stream.readline(min(left, 2**16))
        left -= len(line)
        if not line and left == scan.MAX_HEADER:
            raise UserError(path, "is empty", REPLACE)
        if not line.endswith(b"\n"):
            raise UserError(path, "ends within its header, or has none", REPLACE)
        yield line.decode("utf-8", "replace").rstrip("\r\n")


def _add(path: pathlib.Path, fields: dict[str, str], key: str, value: str) -> None:
    key = key.strip()
    if key in fields:
        raise UserError(path, f"gives {key} twice in its header", RESAVE)
    fields[key] = value.strip()


def _expect(path: pathlib.Path, fields: Mapping[str, str], key: str, known: tuple) -> str | None:
    """The value of a field, which must be in `known`; None there means that the field may be missing."""
    value = fields.get(key)
    if value not in known:
        raise UserError(path, f"has {_shown(fields, key)} where {known[0]} is expected", RESAVE)
    return value


def _type(path: pathlib.Path, fields: Mapping[str, str], key: str, known: Mapping[str, str]) -> np.dtype:
    if fields.get(key) not in known:
        raise UserError(path, f"has {_shown(fields, key)} where real numbers are expected", RESAVE)
    return np.dtype(known[fields[key]])


def _numbers(path: pathlib.Path, fields: Mapping[str, str], key: str, count: int) -> tuple[float, ...]:
    """The numbers of a field, ignoring brackets and commas."""
    try:
        numbers = tuple(float(word) for word in re.sub("[(),]", " ", fields[key]).split())
    except (KeyError, ValueError):
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise UserError(path, f"has {_shown(fields, key)} where {count} numbers are expected", RESAVE)
    return numbers


def _shape(path: pathlib.Path, fields: Mapping[str, str], key: str) -> tuple[int, ...]:
    words = fields.get(key, "").split()
    if len(words) != 3 or not all(re.fullmatch("-?[0-9]{1,9}", word) for word in words):
        raise UserError(path, f"has {_shown(fields, key)} where 3 sizes are expected", RESAVE)
    return tuple(map(int, words))


def _shown(fields: Mapping[str, str], key: str) -> str:
    return f"the {key} {fields[key][:40]!r}" if key in fields else f"no {key}"


def _inflate(path: pathlib.Path, stream: BinaryIO, size: int) -> bytearray:
    """Decompresses `size` bytes of zlib or gzip data and verifies the checksum."""
    inflate, data = zlib.decompressobj(wbits=47), bytearray()
    while not inflate.eof:
        chunk = inflate.unconsumed_tail or stream.read(scan.CHUNK)
        if not chunk:
            raise EOFError("compressed data end early")
        data += inflate.decompress(chunk, size + 1 - len(data))
        if len(data) > size:
            break
    if len(data) > size or inflate.unused_data:
        raise UserError(path, "holds more data than its header declares", REPLACE)
    if len(data) < size:
        raise UserError(path, "ends before the last voxel that its header declares", REPLACE)
    return data
