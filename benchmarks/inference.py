"""Times the prediction of masks as `evaluate.py` does it, in batches and slice by slice.

    python -m benchmarks.inference

Prints one table: volumes of the built-in cohort per second, from prepared slices to masks on the scans' own grids, the
ratio to the slice-by-slice loop of the same precision (above 1 is faster), and where the time of a volume goes: to the
network, and to the way back (`preprocess.restore`), once more with its share. The segmenter is untrained.
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
    arguments = parser.parse_args(argv)
    print(f"Masks of {arguments.patients} volumes at {arguments.size} x {arguments.size}\n")
    print(measure(arguments.size, arguments.batch, arguments.patients, arguments.repeats, arguments.precision))
    return 0


def measure(size: int, batch: int, patients: int, repeats: int, precisions: Sequence[str]) -> str:
    """The table."""
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


if __name__ == "__main__":
    sys.exit(main())
