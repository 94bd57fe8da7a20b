"""Times the prediction of masks as `evaluate.py` does it, in batches and slice by slice, and `tfaug predict` in memory.

    python -m benchmarks.inference
    python -m benchmarks.inference --only=predict

The first table: volumes of the built-in cohort per second, from prepared slices to masks on the scans' own grids, the
ratio to the slice-by-slice loop of the same precision (above 1 is faster), and where the time of a volume goes: to the
network, and to the way back (`preprocess.restore`), once more with its share.

The second: slices of whole scans per second, prepared, segmented and brought back to their grids as by `tfaug predict`
between reading and writing, beside those of the forward pass alone, and their ratio. N4 is left out, unless
`--n4_shrink` asks for it. The segmenter is untrained.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence

from benchmarks import timing
from benchmarks.timing import Worker


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224, help="pixels along a side of the prepared slices")
    parser.add_argument("--batch", type=int, default=20, help="slices in a batch")
    parser.add_argument("--patients", type=int, default=3, help="volumes, at most 100")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each row")
    parser.add_argument("--precision", type=timing.words, default=["float32", "mixed_bfloat16"], help="with commas")
    parser.add_argument("--n4_shrink", type=int, default=0, help="N4 on every n-th pixel in the second table; 0: none")
    parser.add_argument("--only", choices=["masks", "predict"], help="one of the tables")
    arguments = parser.parse_args(argv)
    shape = (arguments.size, arguments.batch, arguments.patients, arguments.repeats, arguments.precision)
    print(f"Masks of {arguments.patients} volumes at {arguments.size} x {arguments.size}")
    if arguments.only != "predict":
        print(f"\n{measure(*shape)}")
    if arguments.only != "masks":
        print(f"\n{measure_predict(*shape, arguments.n4_shrink)}")
    return 0


def measure(size: int, batch: int, patients: int, repeats: int, precisions: Sequence[str]) -> str:
    """Times prediction in batches and slice by slice; returns the table."""
    rows = {(f"batches of {n}" if n > 1 else "slice by slice", p): n for p in precisions for n in (1, batch)}
    with contextlib.ExitStack() as stack:
        workers = {}
        for (name, precision), n in rows.items():
            worker = Worker(
                *("benchmarks.workloads", "predictions"), size=size, batch=n, precision=precision, patients=patients
            )
            workers[name, precision] = stack.enter_context(worker)
        medians = timing.side_by_side(workers, repeats)
        slices = {row: worker.facts["slices"] / worker.facts["volumes"] for row, worker in workers.items()}
    lines = []
    for row, m in medians.items():
        name, precision = row
        ratio = medians["slice by slice", precision]["seconds"] / m["seconds"]
        network, restoring = m["network"] / patients, m["restore"] / patients
        share = restoring / (network + restoring)
        lines.append([*row, slices[row], patients / m["seconds"], ratio, 1e3 * network, 1e3 * restoring, share])
    header = ["work", "precision", "slices/volume", "volumes/s", "ratio", "network ms", "restore ms", "restore's share"]
    return timing.table(header, lines)


def measure_predict(
    size: int, batch: int, patients: int, repeats: int, precisions: Sequence[str], n4_shrink: int
) -> str:
    """Times prediction of whole scans; returns the table."""
    with contextlib.ExitStack() as stack:
        workers = {}
        for precision in precisions:
            shape = {"size": size, "batch": batch, "precision": precision, "patients": patients}
            worker = Worker("benchmarks.workloads", "whole_predictions", n4_shrink=n4_shrink, **shape)
            workers[precision] = stack.enter_context(worker)
        medians = timing.side_by_side(workers, repeats)
        slices = {precision: worker.facts["slices"] for precision, worker in workers.items()}
    lines = []
    for precision, m in medians.items():
        share = m["network"] / m["seconds"]
        lines.append(["predict", precision, slices[precision] / m["seconds"], share])
        lines.append(["forward pass", precision, slices[precision] / m["network"], 1.0])
    return timing.table(["work", "precision", "slices/s", "ratio"], lines)


if __name__ == "__main__":
    sys.exit(main())
