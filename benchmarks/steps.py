"""Times our training steps beside a plain Keras program's, PyTorch's and the machine's matrix product.

    python -m benchmarks.steps

Prints one table. Every row is measured in a process of its own, all of them in turn, and is a median. The ratio is to
`train_on_batch` of the same U-Net in float32, compiled as a Keras user does, with biases before its norms as the
released program has them; below 1 is faster. GFLOP count the multiplications and additions of convolutions and dense
layers, forwards and backwards; the last columns set their rate against that of a matrix product of the same type on
this machine, and give the most memory that the process has used.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import sys
from collections.abc import Sequence

from benchmarks import timing
from benchmarks.timing import Worker

WORKLOADS = "benchmarks.workloads"
TORCH = "benchmarks.torch_unet"
REFERENCE = ("plain Keras train_on_batch, with biases", "float32")
OURS = {
    "S iteration, with pipeline (aff)": ("segment_iterations", {}),
    "S update alone": ("segment_updates", {}),
    "learning G_V, with pipeline, task gradient": ("learn_iterations", {"task_gradient": True}),
    "learning G_V, with pipeline, no task gradient": ("learn_iterations", {"task_gradient": False}),
}
MATRIX_TYPES = {"float32": "float32", "mixed_bfloat16": "bfloat16"}
Row = tuple[str, str]  # work and precision


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="pixels along a side of the images")
    parser.add_argument("--batch", type=int, default=20, help="images in a batch")
    parser.add_argument("--repeats", type=int, default=8, help="measurements of each row")
    parser.add_argument("--precision", type=timing.words, default=list(MATRIX_TYPES), help="which, with commas between")
    parser.add_argument("--matrix", type=int, default=2048, help="rows of the matrices whose product is timed")
    parser.add_argument("--only", default="", help="part of the names of the rows; with little memory, measure some")
    arguments = parser.parse_args(argv)
    print(f"Steps at {arguments.size} x {arguments.size}, batch {arguments.batch}, medians of {arguments.repeats}\n")
    shape = (arguments.size, arguments.batch)
    print(measure(*shape, arguments.repeats, arguments.precision, arguments.matrix, arguments.only))
    if not _has_torch():
        print("\nPyTorch is not installed and was left out.")
    return 0


def measure(size: int, batch: int, repeats: int, precisions: Sequence[str], matrix: int, only: str = "") -> str:
    """Returns the table of the rows whose name contains `only`, and of those they are compared with."""
    with contextlib.ExitStack() as stack:
        workers = _start(stack, size, batch, precisions, matrix, only)
        medians = timing.side_by_side(workers, repeats)
        memory = {row: worker.peak_memory() for row, worker in workers.items()}
    gflop = {row: worker.facts.get("gflop", workers[REFERENCE].facts["gflop"]) for row, worker in workers.items()}
    rate = {row: gflop[row] / measured["seconds"] for row, measured in medians.items()}
    reference = medians[REFERENCE]["seconds"]
    lines = []
    for row, measured in medians.items():
        name, precision = row
        ratio = None if row == _matrix_row(precision) else measured["seconds"] / reference
        share = rate[row] / rate[_matrix_row(precision)]
        lines.append([name, precision, 1e3 * measured["seconds"], ratio, gflop[row], rate[row], share, memory[row]])
    header = ["work", "precision", "ms", "ratio", "GFLOP", "GFLOP/s", "of the matrix product's rate", "peak MiB"]
    return timing.table(header, lines)


def _start(stack, size, batch, precisions, matrix, only) -> dict[Row, Worker]:
    """Starts a worker for each row of the table, one after another, as tracing would slow the others down."""
    shape, workers = {"size": size, "batch": batch}, {}
    matrix_rows = [_matrix_row(precision) for precision in dict.fromkeys(["float32", *precisions])]
    compared = {REFERENCE, *matrix_rows}

    def start(row, module, function, **arguments):
        if only in row[0] or row in compared:
            workers[row] = stack.enter_context(Worker(module, function, **arguments))

    start(REFERENCE, WORKLOADS, "plain_keras", **shape, precision="float32")
    if "mixed_bfloat16" in precisions:
        row = (REFERENCE[0], "mixed_bfloat16")
        start(row, WORKLOADS, "plain_keras", **shape, precision="mixed_bfloat16")
    for precision in precisions:
        for name, (function, more) in OURS.items():
            start((name, precision), WORKLOADS, function, **shape, precision=precision, **more)
    if _has_torch():
        for precision in precisions:
            for channels_last in (False, True):
                row = (f"PyTorch, eager{', channels last' * channels_last}", precision)
                low = precision == "mixed_bfloat16"
                start(row, TORCH, "updates", **shape, bfloat16=low, channels_last=channels_last)
    for row in matrix_rows:
        start(row, timing.__name__, "matrix_product", dtype=MATRIX_TYPES[row[1]], size=matrix)
    return workers


def _matrix_row(precision) -> Row:
    return "matrix product", precision


def _has_torch():
    return importlib.util.find_spec("torch") is not None


if __name__ == "__main__":
    sys.exit(main())
