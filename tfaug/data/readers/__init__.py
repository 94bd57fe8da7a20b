"""Folder layouts, one file each."""

from __future__ import annotations

import contextlib
import inspect
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from tfaug import plugins
from tfaug.data.readers import acdc, msd, pairs, scans
from tfaug.data.readers.base import Files, Listing, Reader
from tfaug.data.task import Task
from tfaug.engine.errors import UserError

__all__ = ["READERS", "Files", "Listing", "Reader", "find", "name_of", "open", "task"]

READERS = {"acdc": acdc.Reader, "msd": msd.Reader, "pairs": pairs.Reader}
"""The layouts by name."""


def open(root: pathlib.Path, options: Mapping[str, Any]) -> Reader:
    """The reader of a data set.

    Args:
      root: its folder.
      options: the config's section `data`. `reader` names the layout, "module:name" for a user-defined one (a subclass
        of `base.Reader`); if it is missing or empty, the layout is recognised.

    Raises:
      UserError: the folder is missing or has no known layout, or a user-defined reader cannot be used.
    """
    root = pathlib.Path(root)
    if not root.is_dir():
        raise UserError(root, "is not a folder", "set data.root to the folder of the data set")
    name = options.get("reader", "")
    if name:
        kind = plugins.load(name, READERS, "data.reader")
        _check(kind, name)
        return kind(root, options)
    for kind in READERS.values():
        if kind.recognises(root):
            return kind(root, options)
    known = ", ".join(f"{name} ({kind.looks_for})" for name, kind in READERS.items())
    raise UserError(root, f"is of no known layout: {known}", "set data.root to such a folder, or name data.reader")


def find(path: pathlib.Path, options: Mapping[str, Any]) -> Reader:
    """The reader of scans to be segmented; labels and structures may be missing.

    Args:
      path: a file, a folder of scans, or a data set.
      options: the section `data` of the segmenter's config. The layout that it names comes first, if it finds scans
        here; then a recognised one; then plain files.

    Raises:
      UserError: the path does not exist, or a data set contradicts itself.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise UserError(path, "does not exist", "give a scan, a folder of scans, or a data set")
    if not path.is_dir():
        return scans.Reader(path, options)
    if options.get("reader"):
        with contextlib.suppress(Exception):  # a user-defined reader may fail in any way on another layout
            reader = open(path, options)
            if reader.scans():
                return reader
    kinds = (kind for kind in READERS.values() if kind.recognises(path))
    return next(kinds, scans.Reader)(path, options)


def patient_of(options: Mapping[str, Any]) -> Callable[[str], str]:
    """The function from a case to its patient, where there are no data.

    Of the built-in layouts, only ACDC's has several cases per patient. For a user-defined reader, which may need the
    data to tell, each case is a patient.

    Args:
      options: the section `data` of a config whose `reader` is known.
    """
    return acdc.Reader(pathlib.Path(), options).patient if options.get("reader") == "acdc" else str


def name_of(reader: Reader) -> str:
    """The value of `reader` with which `open` returns such a reader again."""
    for name, kind in READERS.items():
        if type(reader) is kind:
            return name
    return f"{type(reader).__module__}:{type(reader).__qualname__}"


def task(reader: Reader, options: Mapping[str, Any]) -> Task:
    """The task of a data set: from `structures` in the options, else from the reader.

    Raises:
      UserError: neither names structures.
    """
    if options.get("structures"):
        return Task(dict(options["structures"]), reader.channels())
    found = reader.task()
    if found is None:
        remedy = "name them, for example --config.data.structures=\"{'liver': 1, 'tumour': 2}\""
        raise UserError("data.structures", "is empty, and the data set does not tell its structures", remedy)
    return found


def _check(kind: Any, name: str) -> None:
    if not (inspect.isclass(kind) and issubclass(kind, Reader)):
        raise UserError("data.reader", f"{name} is no reader", "make it a subclass of tfaug.data.readers.Reader")
    if inspect.isabstract(kind):
        missing = ", ".join(sorted(kind.__abstractmethods__))
        raise UserError("data.reader", f"{name} lacks {missing}", "define each as tfaug.data.readers.Reader has it")
    try:
        inspect.signature(kind).bind("root", {})
    except TypeError as error:
        raise UserError("data.reader", f"{name} does not take (root, options): {error}", "correct it") from error
