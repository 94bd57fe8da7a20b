"""Measures N4's shrink factors, and the preparation of a set of volumes.

    python -m benchmarks.preprocessing

Prints two tables. The first has a row for each shrink factor: N4's seconds per volume on one thread, how many times
faster that is than the first factor (1 unless --shrinks says otherwise), and how far the normalised image is from the
first factor's: the mean absolute difference, as the mean over volumes and in the worst of them. The second compares
preparing all volumes one by one with the first factor, through `cache.load` with the last one in several processes, and
once more from the cache. At full resolution N4 takes minutes a volume: --extrapolate=K measures only the first K.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks import timing
from tfaug.data import cache, readers
from tfaug.data.dataset import DataSet
from tfaug.data.preprocess import Spec, correct_bias, normalise, prepare_volume
from tfaug.data.task import Task
from tfaug.phantom import cohort


class _Case(NamedTuple):
    """Measurements on one volume: seconds without N4; by shrink factor, seconds of N4 and mean image difference."""

    rest: float
    seconds: dict[int, float]
    differences: dict[int, float]


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="a data set's folder, as --config.data.root; otherwise the built-in cohort")
    parser.add_argument("--cases", type=int, default=4, help="volumes to prepare")
    parser.add_argument("--extrapolate", type=int, default=0, help="volumes to measure N4 on; 0: all of them")
    parser.add_argument("--shrinks", type=timing.numbers, default=[1, 2, 3, 4], help="with commas between")
    parser.add_argument("--size", type=int, default=224, help="pixels along a side of a prepared slice")
    parser.add_argument("--resolution", type=float, default=1.36719, help="mm per pixel of a prepared slice")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes of `cache.load`")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        root = pathlib.Path(arguments.root) if arguments.root else _cohort(folder / "cohort", arguments.cases)
        reader = readers.open(root, {})
        dataset = DataSet(reader, Task({"any": 1}, reader.channels()))  # no label is read
        listing = dataset.cases()
        cases = sorted((*listing.labelled, *listing.unlabelled))[: arguments.cases]
        measured = cases[: arguments.extrapolate or len(cases)]
        specs = {n: Spec(arguments.size, arguments.resolution, n) for n in arguments.shrinks}
        shrinks, one_by_one = compare_shrinks(dataset, measured, specs)
        print(f"N4 of {len(measured)} volumes, one thread\n\n{shrinks}\n")
        first, last = arguments.shrinks[0], arguments.shrinks[-1]
        how = "measured"
        if len(measured) < len(cases):
            how = f"extrapolated from {len(measured)}"
        lone = f"one by one, shrink {first} ({how})"
        seconds = one_by_one * len(cases) / len(measured)
        print(f"Preparing {len(cases)} volumes\n")
        print(compare_loading(dataset, cases, specs[last], folder / "cache", arguments.workers, {lone: seconds}))
    return 0


def compare_shrinks(dataset: DataSet, cases: Sequence[str], specs: dict[int, Spec]) -> tuple[str, float]:
    """Runs N4 on every volume with every shrink factor.

    Args:
      dataset: the data set to read from.
      cases: its volumes to measure.
      specs: by shrink factor; the first is the reference.

    Returns:
      the table, and the seconds that all of `cases` take one by one with the first factor, reading and N4 included.
    """
    measured = [_measure(dataset, case, specs) for case in cases]
    seconds = {n: [one.seconds[n] for one in measured] for n in specs}
    differences = {n: [one.differences[n] for one in measured] for n in specs}
    exact_seconds = next(iter(seconds.values()))
    lines = [
        [
            n,
            float(np.median(taken)),
            sum(exact_seconds) / sum(taken),
            float(np.mean(differences[n])),
            max(differences[n]),
        ]
        for n, taken in seconds.items()
    ]
    header = ["shrink", "N4 s/volume", "times faster", "mean abs. difference", "in the worst volume"]
    return timing.table(header, lines), sum(exact_seconds) + sum(one.rest for one in measured)


def _measure(dataset, case, specs) -> _Case:
    start = time.perf_counter()
    volume = dataset.read(case, label=False)
    exact, spec = next(iter(specs.items()))
    prepare_volume(volume, dataclasses.replace(spec, n4_shrink=0))
    rest = time.perf_counter() - start
    seconds, images = {}, {}
    for n in specs:
        start = time.perf_counter()
        channels = np.moveaxis(volume.image, -1, 0)
        corrected = [correct_bias(channel, volume.spacing, n, case) for channel in channels]
        seconds[n] = time.perf_counter() - start
        images[n] = np.stack([normalise(channel, case) for channel in corrected])
    return _Case(rest, seconds, {n: float(np.abs(image - images[exact]).mean()) for n, image in images.items()})


def compare_loading(
    dataset: DataSet, cases: Sequence[str], spec: Spec, cache_dir: pathlib.Path, num_workers: int, lone: dict
) -> str:
    """Times the preparation of all of `cases`; returns the table.

    Args:
      dataset: the data set to read from.
      cases: its volumes.
      spec: how to prepare them.
      cache_dir: must be empty.
      num_workers: passed to `cache.load`.
      lone: the seconds of preparing them one by one, by row name.
    """

    def load():
        with contextlib.redirect_stdout(io.StringIO()):  # hides progress lines
            requests = [cache.Request(case, label=False) for case in cases]
            cache.load(dataset, requests, spec, cache_dir, num_workers)

    seconds = {
        **lone,
        f"cache.load, shrink {spec.n4_shrink}, {num_workers} processes": timing.timed(load)["seconds"],
        "cache.load once more": timing.timed(load)["seconds"],
    }
    slow = next(iter(seconds.values()))
    lines = [[name, taken, taken / len(cases), slow / taken] for name, taken in seconds.items()]
    return timing.table(["work", "s", "s/volume", "times faster"], lines)


def _cohort(root, number):
    """The first patients of the built-in cohort."""
    cohort.write_cohort(root, numbers=range(1, number + 1), num_workers=os.cpu_count())
    return root


if __name__ == "__main__":
    sys.exit(main())
