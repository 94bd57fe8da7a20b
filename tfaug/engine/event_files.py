"""Reads TensorBoard's event files and diagnostics.csv without TensorFlow."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import pathlib
import struct
from collections.abc import Iterator

import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event

_HEAD = struct.Struct("<QI")  # a record's length, and the checksum of that; the record is followed by its own checksum
_TAIL = 4


def files(folder: str | os.PathLike) -> list[pathlib.Path]:
    """The event files of a run, one per session, in order."""
    return sorted(pathlib.Path(folder).glob("events.out.tfevents.*"))


def events(file: pathlib.Path) -> Iterator[Event]:
    """The events of a file, up to where it ends or is damaged.

    Raises:
      OSError: it cannot be read.
    """
    content = file.read_bytes()
    start = 0
    while start + _HEAD.size <= len(content):
        length, _ = _HEAD.unpack_from(content, start)
        start += _HEAD.size
        if start + length + _TAIL > len(content):
            return
        try:
            yield Event.FromString(content[start : start + length])
        except DecodeError:
            return
        start += length + _TAIL


def seconds(folder: str | os.PathLike) -> float:
    """Time from the first to the last event of every session, summed."""
    times = [[event.wall_time for event in events(file)] for file in files(folder)]
    return sum(of_file[-1] - of_file[0] for of_file in times if of_file)


def scalars(folder: str | os.PathLike) -> dict[str, tuple[list[int], list[float]]]:
    """The curves of a run by tag: steps, ascending, and values."""
    curves: dict[str, dict[int, float]] = {}
    for file in files(folder):
        for event in events(file):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    curves.setdefault(value.tag, {})[event.step] = _number(value.tensor)
    return {tag: (sorted(points), [points[step] for step in sorted(points)]) for tag, points in curves.items()}


def table(folder: str | os.PathLike) -> pathlib.Path:
    """The file of a run's diagnostics."""
    return pathlib.Path(folder, "diagnostics.csv")


def rows(folder: str | os.PathLike) -> tuple[list[dict[str, float]], bool]:
    """The intact rows of a run's diagnostics.csv, each with "step", and whether others are damaged.

    Without such a file there are no rows.

    Raises:
      OSError: it cannot be read.
    """
    if not table(folder).exists():
        return [], False
    text = table(folder).read_text(encoding="utf-8", errors="replace")
    try:
        names, *lines = csv.reader(io.StringIO(text, newline=""))
    except (csv.Error, ValueError):
        return [], True
    found = []
    for line in lines:
        if len(line) == len(names) and "step" in names:
            with contextlib.suppress(ValueError, OverflowError):
                row = dict(zip(names, map(float, line)))
                int(row["step"])  # raises ValueError, too, if it is NaN
                found.append(row)
    return found, len(found) < max(1, len(lines))


def _number(tensor) -> float:
    if tensor.tensor_content:
        return float(np.frombuffer(tensor.tensor_content, np.float32)[0])
    return float(tensor.float_val[0]) if tensor.float_val else float("nan")
