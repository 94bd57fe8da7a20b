"""Folder layouts, one file each."""

from __future__ import annotations

import inspect
import pathlib
from collections.abc import Mapping
from typing import Any

from tfaug import plugins
from tfaug.data.readers import acdc, msd, pairs
from tfaug.data.readers.base import Files, Listing, Reader
from tfaug.engine.errors import UserError

__all__ = ["READERS", "Files", "Listing", "Reader", "open"]

READERS = {"acdc": acdc.Reader, "msd": msd.Reader, "pairs": pairs.Reader}


def open(root: pathlib.Path, options: Mapping[str, Any]) -> Reader:
    """The reader of a data set.

    Args:
      root: its folder.
      options: the config's section `data`. `reader` names the layout, "module:name" for one of the user's own (a
        subclass of `base.Reader`); if it is missing or empty, the layout is recognised.

    Raises:
      UserError: the folder is missing or of no known layout, or a reader of the user's own cannot be used.
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
