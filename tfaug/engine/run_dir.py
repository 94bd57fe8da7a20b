"""The folder of one run: which process works in it, with which config, and whether it is finished.

    RUN/config.json     the resolved config that the run was started with
    RUN/lock            locked while a process works here; holds its PID
    RUN/warnings.json   the warnings for the report
    RUN/report.json     the result; it exists if and only if the run is finished
    RUN/checkpoints/, RUN/best/   see checkpoint.py

Needs no TensorFlow, so that a scheduler can look at many runs quickly.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tfaug.engine.errors import UserError, printable
from tfaug.engine.files import PART, machine_errors, read_json, sealed, unsealed, write_json

MARK = "tfaug_run"  # distinguishes our config.json from another program's
_REMEDY = "restore it from a backup, or train again"
_FORMAT = 2  # 1 was that of tfaug 0.1.0
# All that a run without a result may contain.
_EMPTY = frozenset({"lock", "config.json", f"{PART}config.json", "warnings.json"})


class RunDir:
    """An open, locked run directory; use it as a context manager.

    Args:
      path: the folder; created when missing.
      config: the resolved config, JSON-able, possibly nested.
      keys: dotted keys of `config`, or sections, that must be the same in all sessions of one run; None: all.

    Attributes:
      path: the folder.
      config: the config that the run was started with, as in config.json: for keys outside `keys`, the first session's
        values.

    Raises:
      UserError: the folder belongs to something else, to another process, or to a run with another config.
      MachineError: the folder cannot be written. Raised before anything else is done.
    """

    def __init__(self, path: str | os.PathLike, config: Mapping[str, Any], keys: Collection[str] | None = None):
        self.path = pathlib.Path(path)
        with machine_errors(self.path, "choose a --workdir that can be written"), contextlib.ExitStack() as stack:
            _refuse_foreign(self.path)
            self._created = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(self.path))
            # A config that an earlier session may have left has not been used yet.
            if {path.name for path in self.path.iterdir()} <= _EMPTY:
                write_json(self.path / "config.json", sealed({MARK: _FORMAT, "config": config}))
            self.config = read_config(self.path)
            refuse_difference(self.path, self.config, config, keys)
            warnings = read_json(self.path / "warnings.json")
            self._warnings = warnings if isinstance(warnings, list) else []
            self._lock = stack.pop_all()

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        """Closes; a new run that ends in a UserError before its first result leaves no folder behind."""
        if kind is not None and issubclass(kind, UserError):
            self._remove_if_empty()
        self.close()

    def close(self) -> None:
        """Releases the lock; the folder stays."""
        self._lock.close()

    @property
    def report(self) -> dict[str, Any] | None:
        """See `read_report`."""
        return read_report(self.path)

    def warn(self, message: str, show: bool = True) -> None:
        """Prints one line and keeps it for the report, even across interruptions; repetitions are dropped.

        Args:
          message: the line.
          show: False only keeps it, as it has been printed before.
        """
        message = printable(message)
        if message not in self._warnings:
            if show:
                print(f"warning: {message}", file=sys.stderr, flush=True)
            self._warnings.append(message)
            write_json(self.path / "warnings.json", self._warnings)

    def finish(self, report: Mapping[str, Any]) -> None:
        """Marks the run as finished: writes `report`, with the warnings, in one atomic step.

        Args:
          report: the validation score "best", its "best_step", and more.
        """
        write_json(self.path / "report.json", sealed({**report, "warnings": self._warnings}))

    def _remove_if_empty(self) -> None:
        """Removes the folders that this session created, if they hold no result."""
        with contextlib.suppress(OSError):
            if self._created and {path.name for path in self.path.iterdir()} <= _EMPTY:
                for name in _EMPTY:
                    (self.path / name).unlink(missing_ok=True)
                for folder in self._created:
                    folder.rmdir()


def read_config(path: str | os.PathLike) -> dict[str, Any]:
    """The resolved config of the run in `path`.

    Raises:
      UserError: there is no run, its config is damaged, or another version of tfaug made it.
    """
    file = pathlib.Path(path) / "config.json"
    content = read_json(file)
    if not isinstance(content, dict) or MARK not in content or not isinstance(content.get("config"), dict):
        raise UserError(file, "is missing or not the config of a tfaug run", "give the folder of a run")
    if content[MARK] != _FORMAT:
        version = "tfaug 0.1.0" if content[MARK] == 1 else "another version of tfaug"
        raise UserError(path, f"is a run of {version}", "use that version for it, or choose another --workdir")
    return unsealed(file, content, _REMEDY)["config"]


def read_report(path: str | os.PathLike) -> dict[str, Any] | None:
    """The report of the run in `path`, with its warnings; None while it is unfinished.

    Raises:
      UserError: it is damaged.
    """
    file = pathlib.Path(path) / "report.json"
    with machine_errors(file, "make it readable"):
        if not file.exists():
            return None
    report = read_json(file)
    if not isinstance(report, dict) or not {"best", "best_step"} <= report.keys():
        raise UserError(file, "is damaged", "restore it from a backup, or remove it and run the training again")
    return unsealed(file, report, _REMEDY)


def identity(path: str | os.PathLike) -> str:
    """An identifier of a finished run, independent of where its folder is."""
    digest = hashlib.sha256()
    with machine_errors(path, "make it readable"):
        for name in ("config.json", "report.json"):
            digest.update(pathlib.Path(path, name).read_bytes())
    return digest.hexdigest()[:16]


def check_path(path: str | os.PathLike) -> None:
    """Refuses a folder in which TensorFlow could not find its own checkpoints again.

    TensorFlow requires UTF-8, and reads a checkpoint's name as a pattern in which nothing can be escaped.

    Raises:
      UserError: names the folder.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(path, "is not UTF-8", "choose or rename a folder so that its path is") from error
    if set(os.fspath(path)) & set("*?[\\"):
        raise UserError(path, "has one of * ? [ \\ in its path", "choose or rename a folder so that it has none")


def refuse_difference(
    run: str | os.PathLike,
    saved: Mapping[str, Any],
    asked: Mapping[str, Any],
    keys: Collection[str] | None = None,
    *,
    what: str = "config",
    folder_flag: str = "--workdir or --config.name",
) -> None:
    """Refuses to continue or use a run with values other than those it was made with.

    Args:
      run: the folder that the error is about.
      saved: what it was made with, nested and JSON-able.
      asked: what is asked for now.
      keys: dotted keys, or sections, that must not differ; None: none may.
      what: the name of these values.
      folder_flag: how the user chooses another folder.

    Raises:
      UserError: shows the differences.
    """
    changed = {key: change for key, change in differences(saved, asked).items() if _is_in(key, keys)}
    if changed:
        raise UserError(
            run,
            f"was made with another {what} ({in_one_line(changed)})",
            f"go back to the old values, or choose another {folder_flag}",
        )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """What differs between two nested JSON-able dicts: dotted key to "old -> new", sorted by key."""
    flat = [_flat(json.loads(json.dumps(values))) for values in (old, new)]  # tuples become lists
    pairs = {key: [values.get(key, "absent") for values in flat] for key in sorted({*flat[0], *flat[1]})}
    return {key: f"{before} -> {after}" for key, (before, after) in pairs.items() if before != after}


def in_one_line(changes: Mapping[str, str], at_most: int = 5) -> str:
    """Renders what `differences` returned, cut short if there are many."""
    lines = [f"{key}: {change}" for key, change in changes.items()]
    more = [f"and {len(lines) - at_most} more"] if len(lines) > at_most else []
    return ", ".join(lines[:at_most] + more)


@contextlib.contextmanager
def locked(path: str | os.PathLike, folder_flag: str = "--workdir") -> Iterator[None]:
    """Keeps other processes out of the run in `path`; `folder_flag` is how the user chooses another folder.

    Raises:
      UserError: another process works there.
      MachineError: the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with machine_errors(path, "make it writable"):
            descriptor = os.open(pathlib.Path(path) / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            stack.callback(os.close, descriptor)  # closing unlocks it
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
                raise UserError(
                    path, f"is in use by process {owner}", f"wait for it, or choose another {folder_flag}"
                ) from None
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        yield


def in_use(path: str | os.PathLike) -> bool:
    """Whether a process has the run in `path` open."""
    if not (pathlib.Path(path) / "lock").exists():
        return False
    try:
        with locked(path):
            return False
    except UserError:
        return True


def _refuse_foreign(path: pathlib.Path) -> None:
    if path.exists() and not path.is_dir():
        raise UserError(path, "is not a folder", "choose another --workdir")
    names = {entry.name for entry in path.iterdir()} if path.exists() else set()
    if "config.json" in names:
        read_config(path)
    elif not names <= _EMPTY:  # a run killed at its start may have these
        raise UserError(path, "is not empty and no run of tfaug", "choose an empty or new --workdir")


def _is_in(key, keys):
    return keys is None or any(key == one or key.startswith(f"{one}.") for one in keys)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys to values as JSON."""
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = json.dumps(value)
    return flat
