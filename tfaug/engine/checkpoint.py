"""Checkpoints from which a run goes on exactly: atomic, verified, never pickled.

    RUN/checkpoints/step-00000400/   the newest `keep` of them, and in each
        variables.*      every variable of the objects (TensorFlow's own format)
        state.json       step, step of the best model, hooks, fingerprint, sizes of the event files
        manifest.json    SHA-256 and size of the files above
    RUN/best/step-00000350/          the best model, in the same form

A folder is written under a temporary name, synced and renamed, so that it is there whole or not at all. The first
checkpoint is that of 0 updates: a run that has begun and has none has lost it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfaug.engine.errors import MachineError, UserError
from tfaug.engine.files import machine_errors, sync
from tfaug.engine.hooks import EventLog, Hook
from tfaug.engine.run_dir import check_path, differences, in_one_line

_NAME = re.compile(r"step-(\d{8,})")
_TEMPORARY = "tmp-"
_STATE = {"step": int, "best": (int, type(None)), "hooks": list, "fingerprint": dict, "logs": dict}


class Checkpoints:
    """The checkpoints of one run.

    Args:
      folder: the run directory.
      objects: everything whose variables change, by name: step, models, optimisers. Optimisers must be built.
      fingerprint: what the run depends on, JSON-able: {"config": ..., "data": ...} must not change between two
        sittings, of a change elsewhere ({"environment": ...}: versions, threads, precision) we only warn.
      every: updates between two saves.
      keep: how many are kept.
      log: the event files, which are cut back to the checkpoint on restoring.
      before_save: called before anything is written; raises to keep a bad state from being saved.
      warn: called with each warning.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        objects: Mapping[str, Any],
        fingerprint: Mapping[str, Any],
        every: int,
        keep: int = 2,
        log: EventLog | None = None,
        before_save: Callable[[], None] = lambda: None,
        warn: Callable[[str], None] = warnings.warn,
    ):
        self.every = every
        self._run = pathlib.Path(folder)
        self._objects = dict(objects)
        self._fingerprint = fingerprint
        self._keep, self._log, self._before_save, self._warn = keep, log, before_save, warn
        self._steps, self._best = self._run / "checkpoints", self._run / "best"
        self._best_step: int | None = None

    def save(self, num_done: int, hooks: Sequence[Hook] = ()) -> None:
        """Writes the checkpoint of `num_done` updates and removes those no longer needed.

        Raises:
          MachineError: a value is not finite, or the disk gave way; the checkpoints before stay as they were.
        """
        self._before_save()
        state = {
            "step": num_done,
            "best": self._best_step,
            "hooks": _hook_states(hooks),
            "fingerprint": self._fingerprint,
            "logs": self._log.sizes() if self._log else {},
        }
        _write(self._steps, num_done, self._objects, state)
        self._rotate()

    def save_best(self, num_done: int, objects: Mapping[str, Any]) -> None:
        """Keeps `objects` as the best of the run so far; `load_best` finds them."""
        self._before_save()
        _write(self._best, num_done, objects, {"step": num_done})
        self._best_step = num_done

    def restore(self, hooks: Sequence[Hook] = ()) -> int:
        """Goes back to the newest valid checkpoint; a new run gets its first one, that of 0 updates.

        Returns:
          The number of updates done.

        Raises:
          UserError: the run has begun but no checkpoint is valid, or config or data have changed. Nothing is touched.
          MachineError: the disk gave way.
        """
        with _disk_errors(self._run):
            newest = self._newest_valid()
        if newest is None:
            self.save(0, hooks)
            return 0
        folder, state = newest
        self._compare(state["fingerprint"])
        _read(folder, self._objects, complete=True)
        _restore_hooks(hooks, state["hooks"], folder)
        num_done, self._best_step = state["step"], state["best"]
        with _disk_errors(self._run):
            for parent in (self._steps, self._best):
                _sweep(parent)
                for later in _folders(parent):
                    if _step(later) > num_done:
                        _remove(later)
        if self._log:
            for name in self._log.cut(state["logs"]):
                self._warn(f"{self._log.folder / name}: has lost curves from before step {num_done}")
        return num_done

    def _newest_valid(self) -> tuple[pathlib.Path, dict[str, Any]] | None:
        """The newest valid checkpoint and its state; None for a run that has not begun."""
        damaged = []
        for folder in _folders(self._steps):
            try:
                state = self._state(folder)
            except ValueError as damage:
                damaged.append(f"{folder.name}: {damage}")
                continue
            for line in damaged:
                self._warn(f"{self._steps}/{line}; going on from {folder.name}")
            return folder, state
        remedy = "restore them from a backup, or remove the run to start again"
        if damaged:
            raise UserError(self._steps, f"none of the checkpoints is valid ({', '.join(damaged)})", remedy)
        if _folders(self._best) or (self._log and self._log.sizes()):
            raise UserError(self._steps, "the checkpoints of this run are missing", remedy)
        return None

    def _state(self, folder: pathlib.Path) -> dict[str, Any]:
        """The state saved in `folder`.

        Raises:
          ValueError: says what of the checkpoint, or of the best model that belongs to it, is damaged.
        """
        damage = find_damage(folder)
        if damage:
            raise ValueError(damage)
        state = json.loads((folder / "state.json").read_bytes())
        if not _is_state(state) or state["step"] != _step(folder):
            raise ValueError("state.json is damaged")
        if state["best"] is not None:
            best = _folder(self._best, state["best"])
            damage = find_damage(best)
            if damage:
                raise ValueError(f"best/{best.name}: {damage}")
        return state

    def _compare(self, old: Mapping[str, Any]) -> None:
        for key in ("config", "data"):
            changed = differences({key: old.get(key)}, {key: self._fingerprint.get(key)})
            if changed:
                raise UserError(
                    self._run,
                    f"was started with another {key} ({in_one_line(changed)})",
                    f"bring the old {key} back or choose another --workdir",
                )
        changed = differences(old, self._fingerprint)
        if changed:
            self._warn(f"{self._run}: resumed elsewhere ({in_one_line(changed)}); the last bits may differ")

    def _rotate(self) -> None:
        with _disk_errors(self._run):
            kept = _folders(self._steps)[: self._keep]
            for folder in _folders(self._steps)[self._keep :]:
                _remove(folder)
            # Each checkpoint needs the best model of its own moment: going back to it goes back to that.
            bests = _folders(self._best)
            needed = {next((best for best in bests if _step(best) <= _step(folder)), None) for folder in kept}
            for best in bests:
                if best not in needed:
                    _remove(best)


def load_best(run: str | os.PathLike, objects: Mapping[str, Any], step: int | None = None) -> int:
    """Restores the best model of a run, which may still be going on.

    Args:
      run: the run directory.
      objects: what to restore, under the names given to `Checkpoints.save_best`; it may be a part of that.
      step: the number of updates after which it was the best, if that is known; else the newest is taken.

    Returns:
      The number of updates after which it was the best.

    Raises:
      UserError: there is no best model, or it is damaged or belongs to another network.
    """
    run = pathlib.Path(run)
    check_path(run)
    with machine_errors(run, "make it readable"):
        while True:
            folder = next(iter(_folders(run / "best")), None) if step is None else _folder(run / "best", step)
            if folder is None:
                raise UserError(run, "holds no best model", "give the folder of a trained run")
            try:
                damage = find_damage(folder)
                if damage:
                    raise UserError(folder, damage, "restore it from a backup, or train the run again")
                _read(folder, objects, complete=False)
                return _step(folder)
            except UserError:
                # A run that goes on may have replaced it meanwhile; what is still there is truly damaged.
                if step is not None or folder.exists():
                    raise


def find_damage(folder: pathlib.Path) -> str | None:
    """What is wrong with a checkpoint's files, by its manifest; None if nothing is."""
    if not folder.exists():
        return "is missing"
    try:
        manifest = json.loads((folder / "manifest.json").read_bytes())
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return "manifest.json is missing"
    except (IsADirectoryError, ValueError, KeyError, TypeError, AttributeError):
        return "manifest.json is damaged"
    if not {"state.json", "variables.index"} <= set(files):
        return "manifest.json is damaged"
    for name, (size, digest) in files.items():
        path = folder / name
        try:
            if path.parent != folder or path.stat().st_size != size or _sha256(path) != digest:
                return f"{name} is damaged"
        except FileNotFoundError:
            return f"{name} is missing"
        except (IsADirectoryError, NotADirectoryError, ValueError):  # no name of a file
            return "manifest.json is damaged"
    return None


def _write(parent: pathlib.Path, num_done: int, objects: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Writes the folder `step-<num_done>` in `parent`, whole or not at all."""
    final = _folder(parent, num_done)
    temporary = parent / f"{_TEMPORARY}{final.name}"
    try:
        with _disk_errors(final):
            parent.mkdir(parents=True, exist_ok=True)
            sync(parent.parent)
            _sweep(parent)
            temporary.mkdir()
            tf.train.Checkpoint(**objects).write(str(temporary / "variables"))
            _check_finite(temporary / "variables", num_done)
            (temporary / "state.json").write_text(json.dumps(state, indent=1))
            files = {
                path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
                for path in sorted(temporary.iterdir())
            }
            (temporary / "manifest.json").write_text(json.dumps({"files": files}, indent=1))
            for path in temporary.iterdir():
                sync(path)
            sync(temporary)
            os.rename(temporary, final)
            sync(parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_finite(prefix: pathlib.Path, num_done: int) -> None:
    """Reads every variable back from the disk: none may be NaN or infinite, and TensorFlow checks its CRCs."""
    reader = tf.train.load_checkpoint(str(prefix))
    for name, dtype in reader.get_variable_to_dtype_map().items():
        if dtype.is_floating and not np.isfinite(reader.get_tensor(name)).all():
            variable = name.split("/.ATTRIBUTES")[0]
            raise MachineError(
                variable,
                f"is not finite after step {num_done}",
                "lower the learning rate in a new run; what was saved before is kept",
            )


def _read(folder: pathlib.Path, objects: Mapping[str, Any], complete: bool) -> None:
    """Restores `objects`; with `complete` each stored value must also find its object."""
    try:
        # We raise instead of the warnings that `expect_partial` switches off.
        status = tf.train.Checkpoint(**objects).read(str(folder / "variables")).expect_partial()
        if complete:
            status.assert_consumed()
        else:
            status.assert_existing_objects_matched()
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        raise UserError(
            folder, "does not fit these networks and optimisers", "use the program and config that wrote it"
        ) from error


def _hook_states(hooks: Sequence[Hook]) -> list[tuple[str, Any]]:
    """Name and state of each hook that has one."""
    states = [(type(hook).__name__, hook.state()) for hook in hooks]
    return [(name, state) for name, state in states if state is not None]


def _restore_hooks(hooks: Sequence[Hook], saved: Sequence[tuple[str, Any]], folder: pathlib.Path) -> None:
    stateful = [hook for hook in hooks if hook.state() is not None]
    names = [type(hook).__name__ for hook in stateful]
    if names != [name for name, _ in saved]:
        raise UserError(
            folder,
            f"holds the hooks {[name for name, _ in saved]}, not {names}",
            "use the program that wrote it, or choose another --workdir",
        )
    for hook, (name, state) in zip(stateful, saved):
        try:
            hook.restore(state)
        except (KeyError, TypeError) as error:
            raise UserError(
                folder, f"holds no state of {name}", "use the program that wrote it, or choose another --workdir"
            ) from error


def _is_state(state: Any) -> bool:
    """Whether `state` is in the form in which `Checkpoints.save` writes it."""
    return (
        isinstance(state, dict)
        and state.keys() == _STATE.keys()
        and all(isinstance(state[key], kind) for key, kind in _STATE.items())
        and all(isinstance(hook, list) and len(hook) == 2 for hook in state["hooks"])
        and all(type(size) is int for size in state["logs"].values())
    )


def _folders(parent: pathlib.Path) -> list[pathlib.Path]:
    """The checkpoints in `parent`, newest first."""
    if not parent.is_dir():
        return []
    return sorted((path for path in parent.iterdir() if _NAME.fullmatch(path.name)), key=_step, reverse=True)


def _folder(parent: pathlib.Path, num_done: int) -> pathlib.Path:
    return parent / f"step-{num_done:08d}"


def _step(folder: pathlib.Path) -> int:
    return int(_NAME.fullmatch(folder.name)[1])


def _remove(folder: pathlib.Path) -> None:
    """Removes a checkpoint; the rename keeps a reader from finding half of it."""
    temporary = folder.with_name(f"{_TEMPORARY}{folder.name}")
    os.rename(folder, temporary)
    _delete(temporary)


def _sweep(parent: pathlib.Path) -> None:
    """Removes what an interrupted save or removal has left."""
    for path in parent.glob(f"{_TEMPORARY}*"):
        _delete(path)


def _delete(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _sha256(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _disk_errors(subject: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    remedy = "see that it can be written and has room, then run the same command to go on from the last checkpoint"
    return machine_errors(subject, remedy, tf.errors.OpError)
