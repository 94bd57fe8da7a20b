"""Checkpoints from which a run resumes exactly: atomic, verified, never pickled.

    RUN/checkpoints/step-00000400/   the newest two, each with
        variables.*      every variable of the objects (TensorFlow's own format)
        state.json       the best score and its step, fingerprint, commits, sizes of the event files
        manifest.json    SHA-256 of each of the files above
    RUN/best/step-00000350/          the best models, in the same form

A folder is written under a temporary name, synced and renamed, so that it is complete or absent. The first
checkpoint is that of 0 updates: a run that has begun but has none must have lost them.
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
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfaug.engine.errors import MachineError, UserError
from tfaug.engine.event_log import EventLog
from tfaug.engine.files import machine_errors, sync
from tfaug.engine.run_dir import check_path, differences, in_one_line, refuse_difference

_NAME = re.compile(r"step-(\d{8,})")
_TEMPORARY = "tmp-"
_KEPT = 2


class Best(NamedTuple):
    """The validation score of the networks that a run keeps so far, its best or last, and their number of updates."""

    score: float
    step: int


class Checkpoints:
    """The checkpoints and the best models of one run.

    Args:
      folder: the run directory.
      objects: everything whose variables change, by name: step, models, optimisers. Optimisers must be built.
      fingerprint: what the run depends on, JSON-able. It must not change between two sessions; a change in
        "environment" (versions, threads, precision) only gives a warning, but for one from or to float16.
      every: updates between two saves.
      log: the event files, which are truncated to the checkpoint when it is restored.
      before_save: called before anything is written; raises to keep a bad state from being saved.
      warn: called with each warning.
      commit: of the program, see `checkout.commit`.

    Attributes:
      best: None before the first `save_best`.
      commits: of the programs of all sessions that have led to the state, in order; None for one that is not known.
      environments: those of the same sessions, in order.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        objects: Mapping[str, Any],
        fingerprint: Mapping[str, Any],
        every: int,
        log: EventLog,
        before_save: Callable[[], None] = lambda: None,
        warn: Callable[[str], None] = warnings.warn,
        commit: str | None = None,
    ):
        self.every = every
        self.commits, self.environments = [commit], [fingerprint.get("environment")]
        self.best: Best | None = None
        self._run = pathlib.Path(folder)
        self._objects = dict(objects)
        self._fingerprint = fingerprint
        self._log, self._before_save, self._warn = log, before_save, warn
        self._steps, self._bests = self._run / "checkpoints", self._run / "best"

    def save(self, num_done: int) -> None:
        """Writes the checkpoint of `num_done` updates and removes those no longer needed.

        Raises:
          MachineError: a value is not finite, or the disk failed; earlier checkpoints stay intact.
        """
        self._before_save()
        state = {
            "best": self.best,
            "fingerprint": self._fingerprint,
            "commits": self.commits,
            "environments": self.environments,
            "logs": self._log.sizes(),
        }
        _write(self._steps, num_done, self._objects, state)
        self._rotate()

    def save_best(self, num_done: int, score: float, objects: Mapping[str, Any]) -> None:
        """Keeps `objects` as the best of the run so far; `load_best` finds them."""
        self._before_save()
        _write(self._bests, num_done, objects, {"score": score})
        self.best = Best(score, num_done)

    def restore(self) -> int:
        """Restores the newest valid checkpoint; a new run gets its first one, that of 0 updates.

        Returns:
          The number of updates done.

        Raises:
          UserError: the run has begun but no checkpoint is valid, or the fingerprint has changed. Nothing is touched.
          MachineError: the disk failed.
        """
        with _disk_errors(self._run):
            newest = self._newest_valid()
        if newest is None:
            self.save(0)
            return 0
        folder, state = newest
        self._compare(state["fingerprint"])
        _read(folder, self._objects, complete=True)
        num_done, self.best = _step(folder), state["best"] and Best(*state["best"])
        self.commits = _continued(state.get("commits", [None]), self.commits)  # checkpoints of before have none
        before = state.get("environments", [state["fingerprint"].get("environment")])
        self.environments = _continued(before, self.environments)
        with _disk_errors(self._run):
            for parent in (self._steps, self._bests):
                _sweep(parent)
                for later in _folders(parent):
                    if _step(later) > num_done:
                        _remove(later)
        for name in self._log.cut(state["logs"]):
            self._warn(f"{self._log.folder / name}: has lost curves from before step {num_done}")
        return num_done

    def _newest_valid(self) -> tuple[pathlib.Path, dict[str, Any]] | None:
        """The newest valid checkpoint and its state; None for a run that has not begun."""
        damaged = []
        for folder in _folders(self._steps):
            damage = find_damage(folder)
            state = {} if damage else json.loads((folder / "state.json").read_bytes())
            if state.get("best"):
                best = _folder(self._bests, Best(*state["best"]).step)
                lost = find_damage(best)
                damage = lost and f"best/{best.name}: {lost}"
            if not damage:
                for line in damaged:
                    self._warn(f"{self._steps}/{line}; resuming from {folder.name}")
                return folder, state
            damaged.append(f"{folder.name}: {damage}")
        remedy = "restore them from a backup, or remove the run to start again"
        if damaged:
            raise UserError(self._steps, f"none of the checkpoints is valid ({', '.join(damaged)})", remedy)
        if _folders(self._bests) or self._log.sizes():
            raise UserError(self._steps, "the checkpoints of this run are missing", remedy)
        return None

    def _compare(self, saved: Mapping[str, Any]) -> None:
        old, new = ({**values, "environment": None} for values in (saved, self._fingerprint))
        refuse_difference(self._run, old, new, what="config or other data")
        before, now = (values.get("environment", {}).get("precision") for values in (saved, self._fingerprint))
        if before != now and "mixed_float16" in (before, now):
            remedy = f"go back to --config.precision={before}, or choose another --workdir or --config.name"
            raise UserError(self._run, f"was begun in {before}: its optimisers do not fit those of {now}", remedy)
        changed = differences(saved, self._fingerprint)
        if changed:
            self._warn(f"{self._run}: resumed elsewhere ({in_one_line(changed)}); the last bits may differ")

    def _rotate(self) -> None:
        with _disk_errors(self._run):
            checkpoints, bests = _folders(self._steps), _folders(self._bests)
            for folder in checkpoints[_KEPT:]:
                _remove(folder)
            # Each checkpoint needs the best model as of its step: restoring it restores that model too.
            needed = {
                next((best for best in bests if _step(best) <= _step(folder)), None) for folder in checkpoints[:_KEPT]
            }
            for best in bests:
                if best not in needed:
                    _remove(best)


def load_best(run: str | os.PathLike, objects: Mapping[str, Any], step: int | None = None) -> int:
    """Restores the best model of a run, which may still be training.

    Args:
      run: the run directory.
      objects: what to restore, under the names given to `Checkpoints.save_best`; a subset is enough.
      step: the number of updates after which it was the best, if known; otherwise the newest is taken.

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
                # A run in progress may have replaced it meanwhile; what is still there is truly damaged.
                if step is not None or folder.exists():
                    raise


def find_damage(folder: pathlib.Path) -> str | None:
    """What is wrong with a checkpoint's files, by its manifest; None if nothing is."""
    if not folder.exists():
        return "is missing"
    name = "manifest.json"
    try:
        files = json.loads((folder / name).read_bytes())
        if not {"state.json", "variables.index"} <= files.keys():
            return f"{name} is damaged"
        for name, digest in files.items():
            if _sha256(folder / name) != digest:
                return f"{name} is damaged"
    except (FileNotFoundError, NotADirectoryError):
        return f"{name} is missing"
    except (IsADirectoryError, ValueError, AttributeError):
        return f"{name} is damaged"
    return None


def write_manifest(folder: pathlib.Path) -> None:
    """Writes the manifest of all other files in `folder`."""
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name != "manifest.json"}
    (folder / "manifest.json").write_text(json.dumps(files, indent=1))


def _write(parent: pathlib.Path, num_done: int, objects: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Writes the folder `step-<num_done>` in `parent`, completely or not at all."""
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
            write_manifest(temporary)
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


def _continued(earlier: list, now: list) -> list:
    """What is known of earlier sessions and of this one, without an immediate repetition."""
    return earlier + [one for one in now if one != earlier[-1]]


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
    shutil.rmtree(temporary)


def _sweep(parent: pathlib.Path) -> None:
    """Removes what an interrupted save or removal has left behind."""
    for path in parent.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(path)


def _sha256(path: pathlib.Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _disk_errors(subject: pathlib.Path) -> contextlib.AbstractContextManager[None]:
    remedy = "see that it can be written and has room, then run the same command to resume from the last checkpoint"
    return machine_errors(subject, remedy, tf.errors.OpError)
