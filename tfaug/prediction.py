"""Masks of new scans, written to one folder.

    OUT/NAME.nii.gz           the mask, in the scan's own format, with its geometry and the user's label values
    OUT/NAME.npz              on request: `probabilities`, float16 [classes, Z, Y, X] as in nnU-Net
    OUT/pictures/NAME.png     on request: the scan with the mask's contours
    OUT/dice.csv, indices.csv, agreement.png, summary.txt    on request: scores, where there are labels
    OUT/predict.json          what made the masks, from which scans, and what is odd about each
    OUT/lock                  locked while a process works here

Needs no TensorFlow: a segmenter is passed in, see `experiment.segmenters`.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage

from tfaug import evaluation, indices, metrics, pictures
from tfaug.data import cache, check, images
from tfaug.data.dataset import DataSet, Series
from tfaug.data.preprocess import Segmentation
from tfaug.data.readers import acdc, base
from tfaug.data.readers.base import Files
from tfaug.engine import run_dir, workers
from tfaug.engine.errors import UserError, counted, printable
from tfaug.engine.files import check_writable, machine_errors, make_folder, read_json, replacing, write_json
from tfaug.engine.signals import check_signals
from tfaug.types import Volume

logger = logging.getLogger(__name__)

FRAMES_SHOWN = 5  # of a 4D scan, in its picture
RECORD = "predict.json"
_MARK = "tfaug_predict"  # distinguishes our record from another program's file
_FORMAT = 1
_ROOM = "make room or choose another --output, then run the command again"
_FOLDER = "choose an --output that can be written"
_OTHERWISE = "choose another --output, or add --overwrite"

_Paths = dict[str, pathlib.Path]  # files of a scan: by "mask", or an option's name

_replacing = functools.partial(replacing, remedy=_ROOM)


class Options(NamedTuple):
    """What is wanted besides masks.

    Attributes:
      probabilities: the probabilities of all classes.
      overlay: a picture of each scan.
      score: scores of the scans that have a label.
      overwrite: existing masks are made again; what was made beside them before is removed.
      keep_largest: structures of which only the largest connected component is kept.
      distances: the definition of HD95 and ASSD in the scores, a key of `metrics.DISTANCES`.
    """

    probabilities: bool = False
    overlay: bool = False
    score: bool = False
    overwrite: bool = False
    keep_largest: tuple[str, ...] = ()
    distances: str = metrics.DEFAULT_DISTANCES


class Job:
    """The masks of all scans of a data set; problems are found before a network is loaded.

    Args:
      dataset: the scans, with the task and the sliced axis of the segmenter.
      folder: folder for the masks; created if missing.
      runs: identities of the segmenter's runs, JSON-able.
      options: see `Options`.
      tag: a part of the masks' names, such as "ES".

    Attributes:
      waiting: the scans whose mask, or a file that the options ask for beside it, is still missing.

    Raises:
      UserError: there are no scans, or the folder cannot hold their masks.
      MachineError: the folder cannot be written.
    """

    def __init__(self, dataset: DataSet, folder: pathlib.Path, runs: Sequence[Any], options: Options, tag: str = ""):
        self._dataset, self._folder, self._options, self._tag = dataset, pathlib.Path(folder), options, tag
        self._settings = {"runs": list(runs), "keep_largest": sorted(options.keep_largest)}
        self._errors: dict[str, UserError] = {}
        self._masks: dict[str, pathlib.Path] = {}
        inputs = set()
        for case in dataset.reader.scans():
            try:
                with cache.explained(case):
                    files = dataset.locate(case, label=False)
            except UserError as error:
                self._fail(case, error)
                continue
            name = "_".join(filter(None, (case, tag)))
            self._masks[case] = self._folder / f"{name}{images.suffix(files.images[0])}"
            inputs |= _folders(files)
        if not (self._masks or self._errors):
            raise UserError(dataset.root, "holds no scans", "give a scan, a folder of scans, or a data set")
        labelled = set(dataset.cases().labelled) if options.score else set()
        self._labelled = [case for case in self._masks if case in labelled]
        if options.score and not self._labelled:
            raise UserError("--score", f"no scan of {dataset.root} has a label", "leave it out")
        for case in self._masks:
            with contextlib.suppress(UserError), cache.explained(case):  # if there is a label; errors matter to scores
                inputs |= _folders(dataset.locate(case))
        self._check_folder(inputs)
        self._look()

    def _look(self) -> None:
        """Reads the folder's record, checks the existing files, and finds what is missing."""
        self._found = _read(self._folder / RECORD)
        self._record = self._open_record(self._found)
        if not self._options.overwrite:
            self._check_files()
        self._missing = {case: self._find_missing(case) for case in self._masks}
        self.waiting = [case for case, files in self._missing.items() if files]

    def run(self, segmenter) -> str:
        """Makes the missing masks, and what the options ask for.

        Args:
          segmenter: such as `experiment.segmenters.Segmenter`; may be None if nothing is waiting.

        Returns:
          a summary for the user.

        Raises:
          UserError: scans cannot be used, and all others have been segmented; or another command has worked in the
            folder since this job was created and its masks cannot be continued.
          MachineError: a file cannot be written, or memory runs out; finished masks are kept.
          Interrupted: a signal asked the program to stop; finished masks are kept.
        """
        make_folder(self._folder, _FOLDER)
        with run_dir.locked(self._folder, "--output"):
            if _read(self._folder / RECORD) != self._found:
                self._look()
            if self.waiting and segmenter is None:
                problem = "has been changed by another `tfaug predict` in the meantime"
                raise UserError(self._folder, problem, "run the command again")
            again = any("mask" in files and case in self._record["cases"] for case, files in self._missing.items())
            if self._record["scored"] and (again or self._options.overwrite):
                _remove(self._folder / name for name in evaluation.SCORES)
                self._record["scored"] = False
            self._save_record()
            done = (self._make(case, segmenter) for case in self.waiting)
            made = sum(workers.progress(done, len(self.waiting), "prediction", "scan"))
            scores = self._score() if self._options.score else []
        before = sum("mask" not in files for files in self._missing.values())
        counts = counted(made, "mask") + " made" + (f", {before} there before" if before else "")
        text = "\n".join([printable(f"{self._folder}: {counts}"), *scores])
        self._refuse(text)
        return text

    def _make(self, case: str, segmenter) -> bool:
        """Writes what is missing for a scan; returns whether it made a mask."""
        try:
            digest = self._digest(case)
            with cache.explained(case):
                series = self._dataset.series(case)
            found, odd = [], {"header": series.contradiction} if series.contradiction else {}
            for frame in series.frames:
                check_signals()
                with cache.explained(case):
                    prepared = segmenter.prepare(frame)
                odd = {**segmenter.unlike(prepared), **odd}
                found.append(self._cleaned(segmenter(prepared, self._options.probabilities)))
            files = self._missing[case]
            anew = "mask" in files
            with cache.explained(case):
                masks = [one.classes for one in found] if anew else self._read_masks(case, series.frames)
            warnings = [printable(f"{case}: {line}") for line in odd.values()]
            for warning in warnings:
                logger.warning(warning)
            entry = self._record["cases"].setdefault(case, {"files": []})
            outdated = {*entry["files"]} - {*files} if anew else set()
            entry.update(files=sorted({*entry["files"], *files}), warnings=warnings)
            if anew:
                entry.update(scan=digest, unfinished=True)
            self._save_record()  # before any file, so that its origin is known after a kill
            _remove(path for what, path in self._files(case).items() if what in outdated)
            with cache.explained(case):
                self._write(series, [one.probabilities for one in found], masks, files)
        except UserError as error:
            self._fail(case, error)
            return False
        if anew:
            del entry["unfinished"]
            entry["files"] = sorted(files)
            self._save_record()
        return anew

    def _write(self, series: Series, probabilities, masks: Sequence[np.ndarray], files: _Paths) -> None:
        """Writes those of `files`, the mask last."""
        if "probabilities" in files:
            with _replacing(files["probabilities"]) as path:
                np.savez_compressed(path, probabilities=series.in_file_order(probabilities).T)
        if "overlay" in files:
            shown = picture(series, masks, self._dataset.task.colours)
            with _replacing(files["overlay"]) as path:
                pictures.save(shown, path)
        if "mask" in files:
            with _replacing(files["mask"]) as path:
                values = self._dataset.task.to_values(series.in_file_order(masks))
                images.write(path, values, series.frames[0].path)

    def _read_masks(self, case: str, frames: Sequence[Volume]) -> list[np.ndarray]:
        """The mask that is there of each frame of a scan, as classes with the sliced axis last.

        Raises:
          UserError: it cannot be read; or somebody has changed it, and it does not lie on the scan's grid now.
        """
        remedy = "save it on the scan's grid, or remove it"
        masks = base.read_mask(self._masks[case], frames[0].path, self._dataset.task, len(frames), remedy)
        return [np.moveaxis(mask, frames[0].axis, 2) for mask in masks]

    def _cleaned(self, found: Segmentation) -> Segmentation:
        for structure in self._options.keep_largest:
            keep_largest(found.classes, self._dataset.task.classes[structure])
        return found

    def _files(self, case: str) -> _Paths:
        """All files that a scan may have."""
        mask = self._masks[case]
        name = mask.name[: -len(images.suffix(mask))]
        extras = {"probabilities": self._folder / f"{name}.npz", "overlay": self._folder / "pictures" / f"{name}.png"}
        return {"mask": mask, **extras}

    def _wanted(self, case: str) -> _Paths:
        """The files of a scan that the options ask for."""
        options = {"mask": True, "probabilities": self._options.probabilities, "overlay": self._options.overlay}
        return {what: path for what, path in self._files(case).items() if options[what]}

    def _find_missing(self, case: str) -> _Paths:
        """The files to be written for a scan: all, or those missing beside its finished mask."""
        files = self._wanted(case)
        stays = not self._options.overwrite and self._is_finished(case) and files["mask"].is_file()
        return {what: path for what, path in files.items() if not (stays and path.is_file())}

    def _is_finished(self, case: str) -> bool:
        """Whether the record has a completely written mask of a scan."""
        return case in self._record["cases"] and not self._record["cases"][case].get("unfinished")

    def _check_files(self) -> None:
        """Refuses to replace files that are not in the record, or to take files of another scan for this one's.

        Raises:
          UserError: there is such a file.
        """
        there, foreign = {}, []
        if self._options.score and not self._record["scored"]:
            foreign += [path for path in map(self._folder.joinpath, evaluation.SCORES) if path.exists()]
        for case in self._masks:
            recorded = self._record["cases"].get(case, {"files": []})["files"]
            there[case] = {what: path for what, path in self._files(case).items() if path.exists()}
            wanted = self._wanted(case).items()
            foreign += [path for what, path in wanted if what in there[case] and what not in recorded]
        if foreign:
            problem = "is there already, and no `tfaug predict` has recorded it"
            raise UserError(foreign[0], problem, f"move it away, {_OTHERWISE}")
        # Records of earlier versions do not identify the scan.
        known = {case: entry["scan"] for case, entry in self._record["cases"].items() if "scan" in entry}
        compared = [case for case, files in there.items() if files and case in known]
        for case in workers.progress(compared, len(compared), "comparison", "scan") if compared else ():
            try:
                digest = self._digest(case)
            except UserError as error:
                self._fail(case, error)
                continue
            if digest != known[case]:
                scan = self._dataset.locate(case, label=False).images[0]
                problem = f"was made of another scan than {scan}, or before that was changed"
                raise UserError(next(iter(there[case].values())), problem, f"move it away, {_OTHERWISE}")

    def _digest(self, case: str) -> str:
        return cache.digests(self._dataset, [cache.Request(case, label=False)])[case]

    def _check_folder(self, inputs: set[str]) -> None:
        """Refuses a path that is not a folder, and a folder in which masks would be among scans or labels."""
        if self._folder.exists() and not self._folder.is_dir():
            raise UserError(self._folder, "is not a folder", "choose another --output")
        if os.path.realpath(self._folder) in inputs:
            raise UserError(self._folder, "holds files that are to be read", "choose another --output")
        check_writable(self._folder, _FOLDER)

    def _open_record(self, record: dict[str, Any] | None) -> dict[str, Any]:
        """The folder's record, as `_read` returns it, with these settings; or a new one.

        Raises:
          UserError: the folder holds masks made with other settings, and `overwrite` is not set, or not all of them
            would be made again.
        """
        path, new = self._folder / RECORD, {_MARK: _FORMAT, **self._settings, "scored": False, "cases": {}}
        if record is None:
            return new
        new["scored"] = bool(record.get("scored"))
        made = {key: record.get(key) for key in self._settings}
        if made == self._settings:
            return {**new, "cases": copy.deepcopy(record["cases"])}
        if not self._options.overwrite:
            changed = run_dir.in_one_line(run_dir.differences(made, self._settings))
            raise UserError(path, f"tells that the masks here were made otherwise ({changed})", _OTHERWISE)
        self._refuse_rest(record["cases"])
        # Their files stay recorded, and are removed when they are made again.
        cases = {case: {**one, "unfinished": True} for case, one in record["cases"].items() if case in self._masks}
        return {**new, "cases": cases}

    def _refuse_rest(self, cases: Iterable[str]) -> None:
        """Refuses to leave files of recorded cases beside masks that are made otherwise, where no record knows them.

        Raises:
          UserError: there is one that is not to be made again: its scan is not given now, or its name would be another.
        """
        stems = ["_".join(filter(None, (case, tag))) for case in cases for tag in ("", *acdc.PHASES)]
        endings = (*images.SUFFIXES, ".npz")
        known = {path for case in self._masks for path in self._files(case).values()}
        paths = [self._folder / f"{stem}{ending}" for stem in stems for ending in endings]
        paths += [self._folder / "pictures" / f"{stem}.png" for stem in stems]
        left = [path for path in paths if path not in known and path.exists()]
        if left:
            others = f", like {counted(len(left) - 1, 'other file')}" if len(left) > 1 else ""
            problem = f"was made otherwise{others}, and would not be made again"
            raise UserError(left[0], problem, "move it away, or choose another --output")

    def _save_record(self) -> None:
        write_json(self._folder / RECORD, self._record, _ROOM)

    def _score(self) -> list[str]:
        """Writes the scores of all masks whose scans have a label; returns the table, for the user."""
        rows, volumes = [], []
        task = self._dataset.task
        for case in self._labelled:
            check_signals()
            if self._is_finished(case):
                try:
                    with cache.explained(case):
                        volume = self._dataset.read(case)
                        (mask,) = self._read_masks(case, [volume])
                        rows += evaluation.score(mask, volume, task, self._options.distances)
                        volumes += evaluation.volumes(mask, volume, task)
                except UserError as error:
                    self._fail(case, error)
        if not rows:
            return []
        measured = indices.compute(volumes, self._dataset.reader.hearts(self._labelled))
        self._record["scored"] = True
        self._save_record()
        text = evaluation.write_scores(pd.DataFrame(rows), measured, self._folder, task, _ROOM)
        return ["", text, "", printable(str(self._folder / "dice.csv"))]

    def _fail(self, case: str, error: UserError) -> None:
        """Keeps an error for the end; a copy, as its traceback would keep the scan in memory."""
        self._errors[case] = UserError(error.subject, error.problem, error.remedy)

    def _refuse(self, text: str) -> None:
        """Prints everything, then raises an error about the scans that could not be used, if any."""
        if not self._errors:
            return
        print(text)
        if len(self._errors) > 1:
            errors = list(self._errors.items())
            findings = check.Findings(self._dataset.root, len(self._masks), len(self._labelled), errors)
            print(check.report(findings))
        cache.refuse(self._errors.values(), listing="all are listed above")


def _folders(files: Files) -> set[str]:
    """The folders of files, both of links and of what they link to."""
    found = {os.path.realpath(path.parent) for path in files.paths}
    return found | {os.path.dirname(os.path.realpath(path)) for path in files.paths}


def keep_largest(classes: np.ndarray, index: int) -> None:
    """Turns all but the largest connected component of a class of a mask [X, Y, Z] into background, in place.

    Voxels that share a corner are connected. Of components of equal size, the first is kept.
    """
    parts, count = ndimage.label(classes == index, np.ones((3, 3, 3)))
    if count > 1:
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        classes[(parts > 0) & (parts != sizes.argmax())] = 0


def picture(series: Series, masks: Sequence[np.ndarray], colours: pictures.Colours) -> np.ndarray:
    """A scan with the contours of its masks in three slices; for a 4D scan, a row per slice and a column per frame."""
    count = len(series.frames)
    frames = sorted({round(t) for t in np.linspace(0, count - 1, min(count, FRAMES_SHOWN))})
    chosen = evaluation.representative_slices(np.max(masks, axis=0))
    tiles = [(z, t) for z in chosen for t in frames]
    return pictures.overlay(
        [series.frames[t].image[..., z, 0] for z, t in tiles],
        [masks[t][..., z] for z, t in tiles],
        [f"slice {z + 1}" + (f", frame {t + 1}" if series.is_4d else "") for z, t in tiles],
        colours,
        columns=len(frames) if series.is_4d else len(chosen),
    )


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    """The record of a folder; None if there is none of ours."""
    record = read_json(path)
    ours = isinstance(record, dict) and record.get(_MARK) == _FORMAT and isinstance(record.get("cases"), dict)
    entries = record["cases"].values() if ours else ()
    sound = all(isinstance(one, dict) and isinstance(one.get("files"), list) for one in entries)
    return record if ours and sound else None


def _remove(paths: Iterable[pathlib.Path]) -> None:
    for path in paths:
        with machine_errors(path, "remove it, then run the command again"):
            path.unlink(missing_ok=True)
