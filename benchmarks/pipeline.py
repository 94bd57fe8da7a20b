"""Measures how long the training loop waits for its batches.

    python -m benchmarks.pipeline

Prints one table, a row for each stage at the paper's and at the default size. The share is that of an iteration which
passes in `next(batches)`; it should stay below 0.02. As the pipeline works on the same cores, the step also slows down:
the ratio is an iteration, waiting included, over the same step on one batch with no pipeline at work. The last columns
are the time of making one batch while nothing else runs, and its share of that step. Generators are untrained.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence

from benchmarks import timing
from benchmarks.timing import Worker

WORKLOADS = "benchmarks.workloads"
STAGES = {
    "S, aff": ("segment_waiting", {"method": "aff"}),
    "S, aff_gd_gi": ("segment_waiting", {"method": "aff_gd_gi"}),
    "learning G_V": ("learn_waiting", {}),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="224/20,64/10", help="sizes of image and batch, as SIZE/BATCH,SIZE/BATCH")
    parser.add_argument("--steps", type=int, default=5, help="iterations in each measurement")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each row")
    parser.add_argument("--precision", default="float32")
    arguments = parser.parse_args(argv)
    shapes = [tuple(map(int, shape.split("/"))) for shape in arguments.shapes.split(",")]
    print(
        f"Waiting for batches, {arguments.precision}, medians of {arguments.repeats} x {arguments.steps} iterations\n"
    )
    print(measure(shapes, arguments.steps, arguments.repeats, arguments.precision))
    return 0


def measure(shapes: Sequence[tuple[int, int]], num_steps: int, repeats: int, precision: str) -> str:
    """Returns the table; `shapes` are pairs of image size and batch size."""
    with contextlib.ExitStack() as stack:
        workers = {}
        for size, batch in shapes:
            for stage, (function, more) in STAGES.items():
                worker = Worker(
                    *(WORKLOADS, function), size=size, batch=batch, precision=precision, num_steps=num_steps, **more
                )
                workers[stage, f"{size}/{batch}"] = stack.enter_context(worker)
        medians = timing.side_by_side(workers, repeats)
    lines = [
        [
            *row,
            1e3 * m["iteration"],
            1e3 * m["waited"],
            m["waited"] / m["iteration"],
            m["iteration"] / m["step"],
            1e3 * m["batch"],
            m["batch"] / m["step"],
        ]
        for row, m in medians.items()
    ]
    header = ["stage", "size/batch", "iteration ms", "waiting ms", "share"]
    return timing.table([*header, "ratio to step alone", "batch alone ms", "of step alone"], lines)


if __name__ == "__main__":
    sys.exit(main())
