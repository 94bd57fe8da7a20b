"""The learned augmentation as a data set for other programs to train on, in the layout of nnU-Net v2.

    OUT/dataset.json                     channels, labels (1 to n, as nnU-Net expects), number of cases
    OUT/imagesTr/CASE_g0001_0000.nii.gz  a generated scan, one file per channel; in the source's format and geometry
    OUT/labelsTr/CASE_g0001.nii.gz       its label
    OUT/imagesTr/CASE_0000.nii.gz ...    on request: the originals
    OUT/generated.csv                    source and z of each generated scan
    OUT/sheet.png                        originals beside scans generated from them
    OUT/generate.json                    how all this was made
    OUT/lock                             locked while a process works here

Fields are computed on prepared slices and applied on the scan's own grid, so that voxels that do not move are not
interpolated. Needs no TensorFlow: generators are passed in, see `experiment.generators`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import ndimage

from tfaug import evaluation, pictures
from tfaug.data import cache, images, oddities
from tfaug.data.dataset import DataSet
from tfaug.data.preprocess import PERCENTILES, Grid, Prepared, Spec, overlap, prepare_volume, to_file_order
from tfaug.data.readers import base
from tfaug.engine import run_dir, workers
from tfaug.engine.errors import MachineError, UserError, counted, printable
from tfaug.engine.files import check_writable, make_folder, replacing, write_json
from tfaug.types import Z_DIM, Volume

FADE = 0.25  # of the crop's side: beyond the crop, where nothing is known, fields fade out over this length
SHOWN = 4  # generated scans beside each original of the sheet
SOURCES_SHOWN = 5
RECORD = "generate.json"
_MARK = "tfaug_generate"  # distinguishes our record from another program's file
_FORMAT = 1
_ROOM = "make room or choose another --output, then run the command again"
_FOLDER = "choose an --output that can be written"
_OTHER = "choose another --output"

_replacing = functools.partial(replacing, remedy=_ROOM)


class Options(NamedTuple):
    """Options of a generated data set.

    Attributes:
      number: how many scans are generated, from the sources in turn.
      seed: seed of all noise; the same seed gives the same scans.
      per_slice: one z per slice; otherwise one for the whole scan, so that fields match along the sliced axis.
      with_originals: the sources are written too.
    """

    number: int
    seed: int = 0
    per_slice: bool = False
    with_originals: bool = False


class Job:
    """A generated data set.

    Args:
      dataset: the sources' data set.
      cases: the sources, with labels.
      spec: how scans are prepared for the generators.
      folder: folder of the data set; created if missing.
      runs: identities of the generators' runs, JSON-able.
      options: see `Options`.

    Attributes:
      waiting: the names of the scans that are still to be made.

    Raises:
      UserError: a source cannot be read, the sources are not in one format, a source has the name of a generated scan,
        or the folder cannot hold this data set.
      MachineError: the folder cannot be written.
    """

    def __init__(
        self,
        dataset: DataSet,
        cases: Sequence[str],
        spec: Spec,
        folder: pathlib.Path,
        runs: Sequence[Any],
        options: Options,
    ):
        self._dataset, self._spec, self._options = dataset, spec, options
        self._folder = pathlib.Path(folder)
        self._sources = {case: dataset.locate(case) for case in cases}
        suffixes = sorted({images.suffix(path) for files in self._sources.values() for path in files.images})
        if len(suffixes) > 1:
            problem = f"has scans in more than one format ({', '.join(suffixes)}), and nnU-Net takes one"
            raise UserError(dataset.root, problem, "convert them to one format")
        (self._suffix,) = suffixes
        digests = cache.digests(dataset, map(cache.Request, cases))
        self._settings = {
            "runs": list(runs),
            "seed": options.seed,
            "per_slice": options.per_slice,
            "sources": {case: digest[:16] for case, digest in digests.items()},
        }
        self._look()

    def _look(self) -> None:
        """Reads the folder's record, and finds what is missing."""
        self._found = self._content()
        self._record = self._open(self._found)
        cases, names = list(self._sources), _names(self._record)
        self._wanted = [(case, case, 0) for case in cases] if self._options.with_originals else []
        for index in range(1, self._options.number + 1):
            case = cases[(index - 1) % len(cases)]
            self._wanted.append((names.get((case, index), f"{case}_g{index:04}"), case, index))
        owners = {name: source_and_index for source_and_index, name in names.items()}
        for name, case, index in self._wanted:
            if owners.setdefault(name, (case, index)) != (case, index):
                problem = "is the name of a source and of a scan that is to be generated"
                raise UserError(name, problem, "rename the source, or leave out --with-originals in a new --output")
        self.waiting = [name for name, _, _ in self._wanted if not self._is_done(name)]

    def run(self, generators) -> str:
        """Makes what is missing.

        Args:
          generators: such as `experiment.generators.Generators`; may be None if nothing is waiting.

        Returns:
          a line on what was made, for the user.

        Raises:
          UserError: a source cannot be used, or another command has worked in the folder since this job was created and
            its scans cannot be continued.
          MachineError: a file cannot be written, or memory runs out; finished scans are kept.
          Interrupted: a signal asked the program to stop; finished scans are kept.
        """
        make_folder(self._folder, _FOLDER)
        with run_dir.locked(self._folder, "--output"):
            if self._content() != self._found:
                self._look()
            if self.waiting and generators is None:
                problem = "has been changed by another `tfaug generate` in the meantime"
                raise UserError(self._folder, problem, "run the command again")
            self._save()
            for _ in workers.progress(self._make_all(generators), len(self.waiting), "generation", "scan"):
                pass
            self._finish()
        number = len(self._record["cases"])
        return printable(f"{self._folder}: {counted(number, 'case')} for nnU-Net, MONAI or others; see sheet.png")

    def _make_all(self, generators) -> Iterator[str]:
        """Makes the waiting scans, source by source, so that each source is read once."""
        waiting = set(self.waiting)
        for case in self._sources:
            todo = [(name, index) for name, source, index in self._wanted if source == case and name in waiting]
            if not todo:
                continue
            with cache.explained(case):
                volume = self._dataset.read(case)
                prepared = prepare_volume(volume, self._spec)
            contradiction = base.contradiction(self._sources[case])
            oddities.warn(oddities.of_header(dataclasses.replace(prepared, contradiction=contradiction)))
            num_slices = len(prepared.image)
            dtypes = [images.read(path, None, channels=None).array.dtype for path in self._sources[case].images]
            for name, index in todo:
                draws = (num_slices if self._options.per_slice else 1) if index else 0
                try:
                    image, label = volume.image, volume.label
                    if index:
                        fields = generators(prepared, np.broadcast_to(self._noise(index, draws), (num_slices, Z_DIM)))
                        image, label = apply(volume, fields, prepared.grid, self._dataset.task.num_classes)
                    self._write(name, prepared, image, label, dtypes)
                except MemoryError as error:
                    problem = "there is too little memory to make it"
                    raise MachineError(name, problem, "free some, or use a machine with more") from error
                self._record["cases"][name] = {"source": case, "index": index, "draws": draws}
                self._save()
                yield name

    def _noise(self, index: int, draws: int) -> np.ndarray:
        """The z of a generated scan, [draws, 100] float32: one draw for all slices, or one for each; none: no noise."""
        return np.random.default_rng([self._options.seed, index]).standard_normal((draws, Z_DIM), np.float32)

    def _write(self, name, prepared: Prepared, image, label, dtypes) -> None:
        """Writes a scan's channels, then its label."""
        axis, (*scans, labelled) = prepared.grid.axis, self._files(name)
        shared = len(scans) // len(dtypes)  # channels in one file of the source
        for channel, path in enumerate(scans):
            like, dtype = self._sources[prepared.case].images[channel // shared], dtypes[channel // shared]
            with _replacing(path) as temporary:
                images.write(temporary, as_type(to_file_order(image[..., channel], axis), dtype), like)
        with _replacing(labelled) as temporary:
            images.write(temporary, to_file_order(label, axis), prepared.path)

    def _files(self, name: str) -> list[pathlib.Path]:
        """The channels of a scan, and last its label."""
        channels = range(len(self._dataset.task.channels))
        scans = [self._folder / "imagesTr" / f"{name}_{channel:04d}{self._suffix}" for channel in channels]
        return [*scans, self._folder / "labelsTr" / f"{name}{self._suffix}"]

    def _is_done(self, name: str) -> bool:
        return name in self._record["cases"] and all(path.is_file() for path in self._files(name))

    def _finish(self) -> None:
        """Writes the description of the data set: the picture, the table and, last, dataset.json."""
        task, made = self._dataset.task, self._record["cases"]
        self._draw()
        rows = [
            {"case": name, "source": one["source"], "index": one["index"], "z": self._text(one)}
            for name, one in sorted(made.items())
        ]
        with _replacing(self._folder / "generated.csv") as path:
            pd.DataFrame(rows).to_csv(path, index=False)
        described = {
            "channel_names": {str(number): name for number, name in enumerate(task.channels)},
            "labels": {"background": 0, **task.classes},
            "numTraining": len(made),
            "file_ending": self._suffix,
            "description": "made by tfaug generate; see generated.csv",
        }
        write_json(self._folder / "dataset.json", described, _ROOM)

    def _draw(self) -> None:
        """Draws sheet.png: a row per original with scans generated from it, in the middle of its labelled slices."""
        columns = min(SHOWN, -(-self._options.number // len(self._sources))) + 1
        tiles = []
        for case in list(self._sources)[:SOURCES_SHOWN]:
            volume = self._dataset.read(case)
            chosen = evaluation.representative_slices(volume.label)
            z = chosen[len(chosen) // 2]
            tiles.append((volume.image[..., z, 0], volume.label[..., z], case))
            names = [name for name, source, index in self._wanted if source == case and index][:SHOWN]
            for name in names:
                image, label = (
                    np.moveaxis(images.read(path, np.float32).array, volume.axis, 2)[..., z]
                    for path in (self._files(name)[0], self._files(name)[-1])
                )
                tiles.append((image, label.astype(np.uint8), name))
            tiles += [(None, None, "")] * (columns - 1 - len(names))
        shown, masks, titles = zip(*tiles)
        sheet = pictures.overlay(shown, masks, titles, self._dataset.task.colours, columns=columns)
        with _replacing(self._folder / "sheet.png") as path:
            pictures.save(sheet, path)

    def _content(self) -> bytes | None:
        """The content of the folder's record; None if there is none."""
        try:
            return (self._folder / RECORD).read_bytes()
        except OSError:
            return None

    def _open(self, content: bytes | None) -> dict[str, Any]:
        """The folder's record, from its content, or a new one.

        Raises:
          UserError: the folder holds something else.
        """
        if self._folder.exists() and not self._folder.is_dir():
            raise UserError(self._folder, "is not a folder", _OTHER)
        if os.path.realpath(self._folder) == os.path.realpath(self._dataset.root):
            raise UserError(self._folder, "holds the scans that are to be read", _OTHER)
        check_writable(self._folder, _FOLDER)
        path, settings = self._folder / RECORD, self._settings
        new = {_MARK: _FORMAT, **settings, "cases": {}}
        if content is None:
            if self._folder.exists() and any(self._folder.iterdir()):
                raise UserError(self._folder, "is not empty, and no `tfaug generate` has recorded it", _OTHER)
            return new
        try:
            record = json.loads(content)
        except (ValueError, RecursionError):
            record = None
        ours = isinstance(record, dict) and record.get(_MARK) == _FORMAT and isinstance(record.get("cases"), dict)
        if not (ours and all(map(_is_entry, record["cases"].values()))):
            raise UserError(path, "is damaged", f"remove the folder, or {_OTHER}")
        record = {"sources": settings["sources"], **record}  # older versions have not written them
        made = {key: record.get(key) for key in settings}
        if made != settings:
            changed = run_dir.in_one_line(run_dir.differences(made, settings))
            raise UserError(path, f"tells that what is here was made otherwise ({changed})", _OTHER)
        return {**new, "cases": {name: _entry(one) for name, one in record["cases"].items()}}

    def _text(self, one) -> str:
        """The noise of a recorded scan for a table: numbers of a slice with spaces, slices with semicolons between."""
        noise = self._noise(one["index"], one["draws"])
        return ";".join(" ".join(f"{value:.9g}" for value in row) for row in noise)

    def _save(self) -> None:
        cases = dict(sorted(self._record["cases"].items()))  # the same file in whatever order they were made
        write_json(self._folder / RECORD, {**self._record, "cases": cases}, _ROOM)


def _is_entry(one) -> bool:
    """Whether a value is a record's entry for a scan."""
    known = isinstance(one, dict) and isinstance(one.get("source"), str) and _is_count(one.get("index"))
    return known and (_is_count(one.get("draws")) or isinstance(one.get("z", 0), (list, type(None))))


def _is_count(value) -> bool:
    return isinstance(value, int) and value >= 0


def _entry(one: Mapping[str, Any]) -> dict[str, Any]:
    """A scan's entry as records have it now: older ones hold the noise itself, which makes them large."""
    draws = one.get("draws", len(one.get("z") or ()))
    return {"source": one["source"], "index": one["index"], "draws": draws}


def _names(record: Mapping[str, Any]) -> dict[tuple[str, int], str]:
    """The names of a record's scans by source and index: earlier versions wrote the index with as many digits as -n."""
    return {(one["source"], one["index"]): name for name, one in record["cases"].items()}


def apply(volume: Volume, fields: Mapping[str, np.ndarray], grid: Grid, num_classes: int):
    """A scan and its label, changed by the fields of its prepared slices: deformed, then brightened.

    Args:
      volume: the scan with its label.
      fields: by kind, "deform" [Z, H, W, 2] and "intensity" [Z, H, W, C], or one of them.
      grid: grid of the scan.
      num_classes: number of classes, including the background.

    Returns:
      image [X, Y, Z, C] float32, label [X, Y, Z] uint8.
    """
    image, label = volume.image, volume.label
    if "deform" in fields:
        image, label = deform(volume, fields["deform"], grid, num_classes)
    if "intensity" in fields:
        image = add_intensity(image, fields["intensity"], grid, like=volume.image)
    return image, label


def native_fields(fields: np.ndarray, grid: Grid) -> np.ndarray:
    """Fields of prepared slices, resampled bilinearly to the grid of their scan; beyond the crop they fade out.

    Args:
      fields: [Z, H, W, K] on the prepared grid.
      grid: grid of the scan.

    Returns:
      [X, Y, Z, K] float32.
    """
    positions, weights = zip(*(_positions(grid, axis) for axis in range(2)))
    rows, columns = np.meshgrid(*positions, indexing="ij")
    weight = np.minimum(weights[0][:, np.newaxis], weights[1][np.newaxis])
    out = np.empty((*grid.native_shape, fields.shape[-1]), np.float32)
    for z, k in np.ndindex(len(fields), fields.shape[-1]):
        sampled = ndimage.map_coordinates(fields[z, ..., k], (rows, columns), order=1, mode="nearest")
        out[:, :, z, k] = weight * sampled
    return out


def _positions(grid: Grid, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of native pixel centres along an axis of the prepared slice; and weights, 1 inside, falling to 0."""
    native, rescaled, size = grid.native_shape[axis], grid.rescaled_shape[axis], grid.image_size
    in_rescaled, in_prepared = overlap(rescaled, size)
    centres = (np.arange(native) + 0.5) * rescaled / native - 0.5
    positions = centres - in_rescaled.start + in_prepared.start
    outside = np.maximum(np.maximum(-positions, positions - (size - 1)), 0)
    return np.clip(positions, 0, size - 1), np.clip(1 - outside / (FADE * size), 0, 1).astype(np.float32)


def deform(volume: Volume, field: np.ndarray, grid: Grid, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """A scan and its label, moved by a deformation of prepared slices as `warp.warp` moves the slices.

    Args:
      volume: the scan with its label.
      field: [Z, H, W, 2] in pixels of the prepared grid.
      grid: grid of the scan.
      num_classes: number of classes, including the background.

    Returns:
      image [X, Y, Z, C] float32, label [X, Y, Z] uint8.
    """
    moved = native_fields(field, grid)
    for axis in range(2):  # from prepared to native pixels
        moved[..., axis] *= grid.native_shape[axis] / grid.rescaled_shape[axis]
    rows, columns = np.meshgrid(*map(np.arange, grid.native_shape[:2]), indexing="ij")
    image, label = np.empty_like(volume.image), np.zeros_like(volume.label)
    for z in range(grid.native_shape[2]):
        where = (rows - moved[:, :, z, 0], columns - moved[:, :, z, 1])
        for c in range(image.shape[-1]):
            image[:, :, z, c] = ndimage.map_coordinates(volume.image[:, :, z, c], where, order=1, mode="nearest")
        shares = [
            ndimage.map_coordinates((volume.label[..., z] == k).astype(np.float32), where, order=1, mode="nearest")
            for k in range(num_classes)
        ]
        label[..., z] = np.argmax(shares, axis=0)
    return image, label


def add_intensity(image: np.ndarray, field: np.ndarray, grid: Grid, like: np.ndarray) -> np.ndarray:
    """A scan with an intensity field of its prepared slices added, in the scan's own units.

    Args:
      image: [X, Y, Z, C] float32.
      field: [Z, H, W, C], in units of the distance between the 2nd and the 98th percentile of a channel.
      grid: grid of the scan.
      like: [X, Y, Z, C], the scan before it was deformed, whose percentiles are used.
    """
    low, high = np.percentile(like, PERCENTILES, axis=(0, 1, 2))
    return image + native_fields(field, grid) * (high - low).astype(np.float32)


def as_type(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Float voxels in the type of a scan's file; for an integer type, rounded and clipped to its range."""
    if dtype.kind == "f":
        return image.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(image), limits.min, limits.max).astype(dtype)
