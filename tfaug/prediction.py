"""Masks of new scans, written beside each other in one folder.

    OUT/NAME.nii.gz           the mask, in the scan's own format, with its geometry and the user's label values
    OUT/NAME.npz              on request: `probabilities`, float16 [classes, Z, Y, X] as nnU-Net has them
    OUT/pictures/NAME.png     on request: the scan with the mask's contours
    OUT/dice.csv, indices.csv, agreement.png, summary.txt    on request: scores, where there are labels
    OUT/predict.json          what has made the masks, and what is odd about each scan
    OUT/lock                  locked while a process works here

Needs no TensorFlow: a segmenter is handed over, see `experiment.segmenters`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage

from tfaug import evaluation, indices, metrics, pictures
from tfaug.data import cache, check, images
from tfaug.data.dataset import DataSet, Series
from tfaug.data.preprocess import Segmentation
from tfaug.engine import run_dir, workers
from tfaug.engine.errors import UserError, printable
from tfaug.engine.files import check_writable, replacing, write_json
from tfaug.engine.signals import check_signals

logger = logging.getLogger(__name__)

FRAMES_SHOWN = 5  # of a 4D scan, in its picture
RECORD = "predict.json"
_MARK = "tfaug_predict"  # tells our record from another program's file
_FORMAT = 1
_ROOM = "make room or choose another --output, then run the command again"
_FOLDER = "choose an --output that can be written"

_replacing = functools.partial(replacing, remedy=_ROOM)


class Options(NamedTuple):
    """What is wanted beside masks.

    Attributes:
      probabilities: the probabilities of all classes.
      overlay: a picture of each scan.
      score: scores of the scans that have a label.
      overwrite: masks that are there already are made again.
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
    """The masks of all scans of a data set; what can be wrong is known before a network is loaded.

    Args:
      dataset: the scans, with the task and the sliced axis of the segmenter.
      folder: for the masks; made if it is missing.
      runs: what tells the segmenter's runs from others, JSON-able.
      options: see `Options`.
      tag: a part of the masks' names, as "ES".

    Attributes:
      waiting: the scans that have no mask yet.

    Raises:
      UserError: there are no scans, or the folder is not one for their masks.
      MachineError: the folder cannot be written.
    """

    def __init__(self, dataset: DataSet, folder: pathlib.Path, runs: Sequence[Any], options: Options, tag: str = ""):
        self._dataset, self._folder, self._options, self._tag = dataset, pathlib.Path(folder), options, tag
        self._settings = {"runs": list(runs), "keep_largest": sorted(options.keep_largest)}
        self._errors: list[tuple[str, UserError]] = []
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
            inputs |= {path.parent.resolve() for path in files.images}
        if not (self._masks or self._errors):
            raise UserError(dataset.root, "holds no scans", "give a scan, a folder of scans, or a data set")
        labelled = set(dataset.cases().labelled) if options.score else set()
        self._labelled = [case for case in self._masks if case in labelled]
        if options.score and not self._labelled:
            raise UserError("--score", f"no scan of {dataset.root} has a label", "leave it out")
        for case in self._labelled:
            with contextlib.suppress(UserError):  # is reported when it is scored
                inputs.add(dataset.locate(case).label.parent.resolve())
        self._check_folder(inputs)
        self._record = self._open_record()
        self.waiting = [case for case in self._masks if not self._is_done(case)]

    def run(self, segmenter) -> str:
        """Makes the masks that are missing, and what the options ask for.

        Args:
          segmenter: as `experiment.segmenters.Segmenter`; None will do if nothing is waiting.

        Returns:
          what there is now, for the user.

        Raises:
          UserError: scans cannot be used; all others have been segmented.
          MachineError: a file cannot be written, or memory runs out; what was done stays.
          Interrupted: a signal asked the program to stop; what was done stays.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with run_dir.locked(self._folder, "--output"):
            self._save_record()
            done = (self._make(case, segmenter) for case in self.waiting)
            made = sum(workers.progress(done, len(self.waiting), "prediction", "scan"))
            scores = self._score() if self._options.score else []
        before = len(self._masks) - len(self.waiting)
        counts = _counted(made, "mask") + " made" + (f", {before} there before" if before else "")
        text = "\n".join([printable(f"{self._folder}: {counts}"), *scores])
        self._refuse(text)
        return text

    def _make(self, case: str, segmenter) -> bool:
        """Writes what is wanted of a scan, its mask last; returns whether it could."""
        try:
            with cache.explained(case):
                series = self._dataset.series(case)
            found, odd = [], {"header": series.contradiction} if series.contradiction else {}
            for frame in series.frames:
                check_signals()
                with cache.explained(case):
                    prepared = segmenter.prepare(frame)
                odd = {**segmenter.unlike(prepared), **odd}
                found.append(self._cleaned(segmenter(prepared, self._options.probabilities)))
        except UserError as error:
            self._fail(case, error)
            return False
        warnings = [printable(f"{case}: {line}") for line in odd.values()]
        for warning in warnings:
            logger.warning(warning)
        self._write(case, series, found)
        before = self._record["cases"].get(case, {"files": []})["files"]
        self._record["cases"][case] = {"files": sorted({*before, *self._files(case)}), "warnings": warnings}
        self._save_record()
        return True

    def _write(self, case: str, series: Series, found: Sequence[Segmentation]) -> None:
        masks = [one.classes for one in found]
        if self._options.probabilities:
            probabilities = series.in_file_order([one.probabilities for one in found])
            with _replacing(self._files(case)["probabilities"]) as path:
                np.savez_compressed(path, probabilities=probabilities.T)
        if self._options.overlay:
            shown = picture(series, masks, self._dataset.task.colours)
            with _replacing(self._files(case)["overlay"]) as path:
                pictures.save(shown, path)
        with _replacing(self._masks[case]) as path:
            values = self._dataset.task.to_values(series.in_file_order(masks))
            images.write(path, values, series.frames[0].path)

    def _cleaned(self, found: Segmentation) -> Segmentation:
        for structure in self._options.keep_largest:
            keep_largest(found.classes, self._dataset.task.classes[structure])
        return found

    def _files(self, case: str) -> dict[str, pathlib.Path]:
        """All files that are wanted of a scan, by their option."""
        mask = self._masks[case]
        name = mask.name[: -len(images.suffix(mask))]
        files = {"mask": mask}
        if self._options.probabilities:
            files["probabilities"] = self._folder / f"{name}.npz"
        if self._options.overlay:
            files["overlay"] = self._folder / "pictures" / f"{name}.png"
        return files

    def _is_done(self, case: str) -> bool:
        if self._options.overwrite or case not in self._record["cases"]:
            return False
        files = self._files(case)
        return {*files} <= {*self._record["cases"][case]["files"]} and all(path.is_file() for path in files.values())

    def _check_folder(self, inputs: set[pathlib.Path]) -> None:
        """Refuses what is no folder, and one in which masks would mingle with scans or labels."""
        if self._folder.exists() and not self._folder.is_dir():
            raise UserError(self._folder, "is not a folder", "choose another --output")
        if self._folder.resolve() in inputs:
            raise UserError(self._folder, "holds files that are to be read", "choose another --output")
        check_writable(self._folder, _FOLDER)

    def _open_record(self) -> dict[str, Any]:
        """The folder's record, or a new one.

        Raises:
          UserError: the folder holds masks of something else, and they are not to be overwritten.
        """
        remedy = "choose another --output, or add --overwrite"
        path, new = self._folder / RECORD, {_MARK: _FORMAT, **self._settings, "cases": {}}
        record = _read(path)
        if record is None:
            there = [path for case in self._masks for path in self._files(case).values() if path.exists()]
            if there and not self._options.overwrite:
                raise UserError(there[0], "is there already, and no `tfaug predict` has recorded it", remedy)
            return new
        made = {key: record.get(key) for key in self._settings}
        if made == self._settings:
            return {**new, "cases": record["cases"]}
        if not self._options.overwrite:
            changed = run_dir.in_one_line(run_dir.differences(made, self._settings))
            raise UserError(path, f"tells that the masks here were made otherwise ({changed})", remedy)
        return new

    def _save_record(self) -> None:
        write_json(self._folder / RECORD, self._record, _ROOM)

    def _score(self) -> list[str]:
        """Writes the scores of all masks that have a label; returns the table, for the user."""
        rows, volumes = [], []
        task = self._dataset.task
        for case in self._labelled:
            check_signals()
            if case in self._record["cases"]:
                try:
                    with cache.explained(case):
                        volume = self._dataset.read(case)
                        classes = task.to_classes(images.read(self._masks[case], None).array, case)
                        mask = np.moveaxis(classes, volume.axis, 2)
                        rows += evaluation.score(mask, volume, task, self._options.distances)
                        volumes += evaluation.volumes(mask, volume, task)
                except UserError as error:
                    self._fail(case, error)
        if not rows:
            return []
        measured = indices.compute(volumes, self._dataset.reader.hearts(self._labelled))
        text = evaluation.write_scores(pd.DataFrame(rows), measured, self._folder, task, _ROOM)
        return ["", text, "", printable(str(self._folder / "dice.csv"))]

    def _fail(self, case: str, error: UserError) -> None:
        """Keeps an error for the end; a copy, as its traceback would keep the scan."""
        self._errors.append((case, UserError(error.subject, error.problem, error.remedy)))

    def _refuse(self, text: str) -> None:
        """Ends with the scans that could not be used, if there are any, after all has been printed."""
        if not self._errors:
            return
        print(text)
        if len(self._errors) > 1:
            findings = check.Findings(self._dataset.root, len(self._masks), len(self._labelled), self._errors)
            print(check.report(findings))
        cache.refuse([error for _, error in self._errors], listing="all are listed above")


def keep_largest(classes: np.ndarray, index: int) -> None:
    """Turns all but the largest connected component of a class of a mask [X, Y, Z] into background, in place.

    Voxels that share a corner are connected. Of components of one size the first is kept.
    """
    parts, count = ndimage.label(classes == index, np.ones((3, 3, 3)))
    if count > 1:
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        classes[(parts > 0) & (parts != sizes.argmax())] = 0


def picture(series: Series, masks: Sequence[np.ndarray], colours: pictures.Colours) -> np.ndarray:
    """A scan with the contours of its masks in three slices; of a 4D scan, a row for each and a column for a frame."""
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
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(record, dict) and record.get(_MARK) == _FORMAT and isinstance(record.get("cases"), dict)
    entries = record["cases"].values() if ours else ()
    return record if ours and all(isinstance(one, dict) and "files" in one for one in entries) else None


def _counted(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"
