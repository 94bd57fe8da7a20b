"""Measures what steps cost against image size, batch size and number of unlabelled volumes.

    python -m benchmarks.scaling

Prints one table. One of the three varies at a time, about the middle value of each list. The ratios are to that middle;
"per pixel" divides the ratio of times by that of pixels in a batch, so 1 is proportional and below 1 is cheaper than
that. With the number of unlabelled volumes, time must not grow, and memory only as the volumes themselves, whose size
the last column gives. Every row is measured in a process of its own, input pipeline included.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks import timing
from benchmarks.timing import Worker

WORKLOADS = "benchmarks.workloads"
S = "S, aff"  # sees no unlabelled volumes
STAGES = {S: "segment_iterations", "learning G_V": "learn_iterations"}


class Shape(NamedTuple):
    """What the cost may depend on; `volumes` counts unlabelled volumes."""

    size: int
    batch: int
    volumes: int


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=timing.numbers, default=[64, 128, 224], help="pixels along a side")
    parser.add_argument("--batches", type=timing.numbers, default=[5, 10, 20], help="images in a batch")
    parser.add_argument("--volumes", type=timing.numbers, default=[5, 25, 100], help="unlabelled volumes")
    parser.add_argument("--steps", type=int, default=3, help="iterations in each measurement")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each row")
    parser.add_argument("--precision", default="float32")
    arguments = parser.parse_args(argv)
    print(f"Cost of an iteration, {arguments.precision}, medians of {arguments.repeats} x {arguments.steps}\n")
    grid = Shape(arguments.sizes, arguments.batches, arguments.volumes)
    print(measure(grid, arguments.steps, arguments.repeats, arguments.precision))
    return 0


def measure(grid: Shape, num_steps: int, repeats: int, precision: str) -> str:
    """Returns the table; `grid` has a list of values in each field."""
    middle = Shape(*(values[len(values) // 2] for values in grid))
    shapes = list(dict.fromkeys([middle, *_variations(grid, middle)]))
    with contextlib.ExitStack() as stack:
        workers = {}
        for stage, function in STAGES.items():
            for shape in shapes:
                arguments = {**shape._asdict(), "precision": precision, "num_steps": num_steps}
                if stage == S:
                    if arguments.pop("volumes") != middle.volumes:
                        continue
                workers[stage, shape] = stack.enter_context(Worker(WORKLOADS, function, **arguments))
        medians = timing.side_by_side(workers, repeats)
        memory = {row: worker.peak_memory() for row, worker in workers.items()}
    lines = []
    for (stage, shape), measured in medians.items():
        ratio = measured["seconds"] / medians[stage, middle]["seconds"]
        pixels = _pixels(shape) / _pixels(middle)
        peak, data = memory[stage, shape], workers[stage, shape].facts["data_mib"]
        name = stage + ", middle" * (shape == middle)
        milliseconds = 1e3 * measured["seconds"] / num_steps
        volumes = None if stage == S else shape.volumes
        lines.append([name, shape.size, shape.batch, volumes, milliseconds, ratio, ratio / pixels])
        lines[-1] += [peak, peak / memory[stage, middle], data]
    time_columns = ["stage", "size", "batch", "unlabelled", "ms", "ratio", "per pixel"]
    return timing.table([*time_columns, "peak MiB", "its ratio", "volumes' MiB"], lines)


def _variations(grid, middle) -> Iterator[Shape]:
    for field, values in grid._asdict().items():
        for value in values:
            yield middle._replace(**{field: value})


def _pixels(shape):
    return shape.batch * shape.size**2


if __name__ == "__main__":
    sys.exit(main())
