"""Objects from outside the package: "module:name" in a config stands for an object of the user's module."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

from tfaug.engine.errors import UserError, nearest


def load(name: str, known: Mapping[str, Any], key: str) -> Any:
    """The object that a name in the config stands for.

    Args:
      name: one of `known`, or "module:name" for a module on Python's path or in the working directory.
      known: tfaug's own objects by name.
      key: the config key or flag that holds `name`, for errors.

    Raises:
      UserError: the name is unknown, the module cannot be imported, or it has no such name.
    """
    if name in known:
        return known[name]
    module_name, colon, attribute = name.partition(":")
    if not colon:
        hint = nearest(name, known)
        raise UserError(key, f"{name!r} is unknown", f"{hint} (your own is 'module:name')")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a console script does not look there
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # user code may fail in any way
        problem = f"{module_name} cannot be imported ({type(error).__name__}: {error})"
        raise UserError(key, problem, "mend it, or put it into the working directory or on PYTHONPATH") from error
    if not hasattr(module, attribute):
        names = [known_name for known_name in vars(module) if not known_name.startswith("_")]
        raise UserError(key, f"{module_name} has no {attribute!r}", nearest(attribute, names))
    return getattr(module, attribute)


def line_of(error: Exception, names: Iterable[str]) -> str:
    """The last line of the modules of `names` that an exception came through, as "my_module.py, line 7"; "" if none."""
    modules = (sys.modules.get(name.partition(":")[0]) for name in names)
    files = {getattr(module, "__file__", None) for module in modules}
    passed = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
    return f"{os.path.basename(passed[-1].filename)}, line {passed[-1].lineno}" if passed else ""


def short_name(name: str) -> str:
    """The name used in tables, folders and flags: "blur" for "my_module:blur"."""
    return name.rpartition(":")[2]
