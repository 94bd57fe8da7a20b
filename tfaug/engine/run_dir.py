"""The folder of one run: whose it is, who works in it, with which config, and whether it is finished.

    RUN/config.json     the resolved config that the run was started with
    RUN/lock            locked while a process works here; holds its PID
    RUN/warnings.json   what the report will warn of
    RUN/report.json     the result; it exists if and only if the run is finished
    RUN/checkpoints/, RUN/best/   see checkpoint.py

Free of TensorFlow, so that a scheduler can look at many runs quickly.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from tfaug.engine.errors import UserError, printable
from tfaug.engine.files import PART, machine_errors, write_json

_MARK = "tfaug_run"  # tells our config.json from that of another program
_FORMAT = 1
# All that a run without a result has.
_BIRTH = frozenset({"lock", "config.json", f"{PART}config.json", "warnings.json"})


class RunDir:
    """An open, locked run directory; use it as a context manager.

    Args:
      path: the folder; created when missing.
      config: the resolved config, JSON-able, possibly nested.
      tolerated: dotted keys of `config` that may change between two sittings of one run (what it runs on).

    Attributes:
      path: the folder.
      config: the config that the run was started with, as in config.json: of tolerated keys the first sitting's values.

    Raises:
      UserError: the folder belongs to something else, to another process, or to a run with another config.
      MachineError: the folder cannot be written. Raised before anything else is done.
    """

    def __init__(self, path: str | os.PathLike, config: Mapping[str, Any], tolerated: Collection[str] = ()):
        self.path = pathlib.Path(path)
        with machine_errors(self.path, "choose a --workdir that can be written"):
            _refuse_foreign(self.path)
            self._created = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock: int | None = _lock(self.path)
        # A forked worker that outlives a killed parent must not go on holding the lock.
        os.register_at_fork(after_in_child=self.close)
        try:
            self._warnings = _read_warnings(self.path / "warnings.json")
            self.config = self._adopt_config(_plain(config), tolerated)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        """Closes; a new run that a UserError ends before its first result leaves no folder behind."""
        if kind is not None and issubclass(kind, UserError):
            self._remove_if_unborn()
        self.close()

    def close(self) -> None:
        """Releases the lock; the folder stays."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def report(self) -> dict[str, Any] | None:
        """See `read_report`."""
        return read_report(self.path)

    @property
    def finished(self) -> bool:
        """Whether the run has its report, so that nothing is left to do."""
        return self.report is not None

    def warn(self, message: str) -> None:
        """Prints one line and keeps it for the report, also across interruptions; a repetition is dropped."""
        message = printable(message)
        if message not in self._warnings:
            print(f"warning: {message}", file=sys.stderr, flush=True)
            self._warnings.append(message)
            write_json(self.path / "warnings.json", self._warnings)

    def finish(self, report: Mapping[str, Any]) -> None:
        """Marks the run as finished: writes `report`, with the warnings, in one atomic step.

        Args:
          report: "best" and "best_step", as of `KeepBest`.
        """
        write_json(self.path / "report.json", {**report, "warnings": self._warnings})

    def _adopt_config(self, config: dict[str, Any], tolerated: Collection[str]) -> dict[str, Any]:
        if not (self.path / "config.json").exists():
            write_json(self.path / "config.json", {_MARK: _FORMAT, "config": config})
            return config
        first = read_config(self.path)
        changed = differences({"config": first}, {"config": config})
        fatal = {key: change for key, change in changed.items() if key[len("config.") :] not in tolerated}
        if fatal:
            raise UserError(
                self.path,
                f"was started with another config ({in_one_line(fatal)})",
                "go back to the old values, or choose another --workdir or --config.name",
            )
        return first

    def _remove_if_unborn(self) -> None:
        """Takes back the folders that this sitting created, if nothing has come of them."""
        with contextlib.suppress(OSError):
            if self._created and {path.name for path in self.path.iterdir()} <= _BIRTH:
                for name in _BIRTH:
                    (self.path / name).unlink(missing_ok=True)
                for folder in self._created:
                    folder.rmdir()


def read_config(path: str | os.PathLike) -> dict[str, Any]:
    """The resolved config of the run in `path`.

    Raises:
      UserError: there is no run, or its config is damaged.
    """
    file = pathlib.Path(path) / "config.json"
    with machine_errors(file, "make it readable"):
        content = _read_json(file)
    if not isinstance(content, dict) or _MARK not in content or not isinstance(content.get("config"), dict):
        raise UserError(file, "is missing or not the config of a tfaug run", "give the folder of a run")
    return content["config"]


def read_report(path: str | os.PathLike) -> dict[str, Any] | None:
    """What the run in `path` was finished with, and its warnings; None while it is unfinished.

    Raises:
      UserError: it is damaged.
    """
    file = pathlib.Path(path) / "report.json"
    with machine_errors(file, "make it readable"):
        if not file.exists():
            return None
        report = _read_json(file)
    if (
        not isinstance(report, dict)
        or not isinstance(report.get("best"), (int, float))
        or not isinstance(report.get("best_step"), int)
    ):
        raise UserError(file, "is damaged", "restore it from a backup, or remove it and run the training again")
    return report


def check_path(path: str | os.PathLike) -> None:
    """Refuses a folder in which TensorFlow could not find its own checkpoints again.

    It wants UTF-8, and takes the name of a checkpoint for a pattern, in which it finds no escape.

    Raises:
      UserError: names the folder.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(path, "is not UTF-8", "choose or rename a folder so that its path is") from error
    if set(os.fspath(path)) & set("*?[\\"):
        raise UserError(path, "has one of * ? [ \\ in its path", "choose or rename a folder so that it has none")


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """What differs between two nested JSON-able dicts: dotted key to "old -> new", sorted by key."""
    flat = [{key: json.dumps(value) for key, value in _flat(_plain(values))} for values in (old, new)]
    pairs = {key: [values.get(key, "absent") for values in flat] for key in sorted({*flat[0], *flat[1]})}
    return {key: f"{before} -> {after}" for key, (before, after) in pairs.items() if before != after}


def in_one_line(changes: Mapping[str, str], at_most: int = 5) -> str:
    """Renders what `differences` returned, cut short when there is much of it."""
    lines = [f"{key}: {change}" for key, change in changes.items()]
    more = [f"and {len(lines) - at_most} more"] if len(lines) > at_most else []
    return ", ".join(lines[:at_most] + more)


def _refuse_foreign(path: pathlib.Path) -> None:
    if path.exists() and not path.is_dir():
        raise UserError(path, "is not a folder", "choose another --workdir")
    names = {entry.name for entry in path.iterdir()} if path.exists() else set()
    if "config.json" not in names:
        # A run killed at its birth is empty but for these.
        if names <= _BIRTH:
            return
        raise UserError(path, "is not empty and no run of tfaug", "choose an empty or new --workdir")
    read_config(path)


def _lock(path: pathlib.Path) -> int:
    """Locks `path` for this process; returns the descriptor whose closing unlocks it."""
    descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise UserError(path, f"is in use by process {owner}", "wait for it, or choose another --workdir") from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor


@contextlib.contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Keeps other processes from working in the run in `path`.

    Raises:
      UserError: another process does.
      MachineError: the folder cannot be written.
    """
    with machine_errors(path, "make it writable"):
        descriptor = _lock(pathlib.Path(path))
    try:
        yield
    finally:
        os.close(descriptor)


def in_use(path: str | os.PathLike) -> bool:
    """Whether a process has the run in `path` open."""
    try:
        descriptor = os.open(pathlib.Path(path) / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _read_json(path: pathlib.Path) -> Any:
    """The content of `path`; None when it is missing or no JSON."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return None


def _read_warnings(path: pathlib.Path) -> list[str]:
    content = _read_json(path)
    return content if isinstance(content, list) and all(isinstance(line, str) for line in content) else []


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` as JSON gives them back: tuples become lists."""
    return json.loads(json.dumps(values))


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
