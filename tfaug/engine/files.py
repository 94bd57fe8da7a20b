"""Atomic file writes, and machine errors in one line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from tfaug.engine.errors import MachineError, UserError

PART = ".part-"  # prefix of the name of an unfinished file
_SEAL = "sha256"


@contextlib.contextmanager
def replacing(path: pathlib.Path, remedy: str, *, subject=None, unique: bool = False) -> Iterator[pathlib.Path]:
    """Yields the name of a temporary file beside `path`, which replaces `path` at the end of the block.

    At any moment `path` is either the old file or the new one, even after a power failure. The temporary name ends with
    that of `path`.

    Args:
      path: the file; its folder is created if missing.
      remedy: what a user can do about a file that cannot be written.
      subject: what the error is about, if not `path`.
      unique: whether other processes may be writing `path` at the same time. What a killed process leaves is then not
        replaced by the next attempt.

    Raises:
      MachineError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f"{PART}{uuid.uuid4().hex}-{path.name}" if unique else f"{PART}{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise MachineError(subject or path, f"cannot be written ({_reason(error)})", remedy) from error
        raise


def write_json(path: pathlib.Path, content: Any, remedy: str = "free some space or choose another --workdir") -> None:
    """Writes a JSON file atomically, see `replacing`."""
    with replacing(path, remedy) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_json(path: pathlib.Path) -> Any:
    """The content of a JSON file; None when it is missing or no JSON.

    Raises:
      MachineError: the file is there and cannot be read.
    """
    with machine_errors(path, "make it readable"):
        try:
            return json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
            return None


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with a digest of itself, by which `unsealed` detects changes."""
    return {**content, _SEAL: _digest(content)}


def unsealed(path: pathlib.Path, content: Mapping[str, Any], remedy: str) -> dict[str, Any]:
    """The JSON object that was sealed, without its digest. One without a digest is accepted as it is.

    Args:
      path: its file.
      content: what was read from it.
      remedy: what a user can do about a changed file.

    Raises:
      UserError: it is not what was sealed.
    """
    content = dict(content)
    seal = content.pop(_SEAL, None)
    if seal not in (None, _digest(content)):
        raise UserError(path, "has been changed since it was written", remedy)
    return content


def _digest(content):
    plain = json.loads(json.dumps(content))  # as it is read back
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def check_writable(folder: pathlib.Path, remedy: str) -> None:
    """Fails before any work is done if nothing can be written to a folder, which need not exist yet.

    Raises:
      UserError: it, or a folder above it, is a link that leads nowhere.
      MachineError: it cannot be written.
    """
    with machine_errors(folder, remedy):
        existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
        if not existing.exists():
            raise UserError(existing, "is a link that leads nowhere", remedy)
        tempfile.TemporaryFile(dir=existing).close()


def make_folder(folder: pathlib.Path, remedy: str) -> None:
    """Makes a folder, and those above it, unless it is there.

    Raises:
      MachineError: it cannot be made.
    """
    with machine_errors(folder, remedy):
        folder.mkdir(parents=True, exist_ok=True)


def sync(path: pathlib.Path) -> None:
    """Makes a file's content, or a folder's entries (creations, renames), survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def machine_errors(subject, remedy: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turns an OSError of the block, or one of `kinds`, into a MachineError about `subject`."""
    try:
        yield
    except (OSError, *kinds) as error:
        raise MachineError(subject, _reason(error), remedy) from error


def _reason(error: Exception) -> str:
    """The system's message, around which TensorFlow puts the operation and the file."""
    return getattr(error, "strerror", None) or str(error).split(" [Op:")[0].rpartition("; ")[2]
