"""Shows which operations the time of a training step goes to.

    python -m benchmarks.operations [--work segment|learn] [--size=224 --batch=20 --precision=float32]

Traces some iterations with TensorFlow's profiler and prints milliseconds an iteration by kind of operation, the largest
first. With one inter-op thread the operations of a step run one after the other; those of the input pipeline, which run
beside them, are counted too.
"""

from __future__ import annotations

import argparse
import collections
import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence

from benchmarks import timing

WORK = {"segment": "segment_iterations", "learn": "learn_iterations"}
SHOWN = 20


def main(argv: Sequence[str] | None = None) -> int:
    """Traces and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default="segment", choices=WORK, help="train S, or learn G_V")
    parser.add_argument("--size", type=int, default=224, help="pixels along a side of the images")
    parser.add_argument("--batch", type=int, default=20, help="images in a batch")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--steps", type=int, default=3, help="iterations to trace")
    arguments = parser.parse_args(argv)

    from benchmarks import workloads  # deferred: --help need not wait for TensorFlow

    job = getattr(workloads, WORK[arguments.work])(arguments.size, arguments.batch, arguments.precision)
    for _ in range(2):  # trace graphs, fill buffers
        job.run()
    print(report(milliseconds(job.run, arguments.steps)))
    return 0


def milliseconds(run: Callable[[], None], steps: int) -> dict[str, float]:
    """Milliseconds per run spent in each kind of operation, averaged over `steps` runs."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(steps):
            run()
        tf.profiler.experimental.stop()
        (file,) = pathlib.Path(folder).rglob("*.xplane.pb")
        space.ParseFromString(file.read_bytes())
    spent: dict[str, float] = collections.Counter()
    for plane in space.planes:
        for event in (event for line in plane.lines for event in line.events):
            name, _, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
            if name and kind[:1].strip() and not name.endswith(":"):  # "node:Kind"; the runtime has "Class::Method"
                spent[kind] += event.duration_ps / 1e9 / steps
    return spent


def report(spent: dict[str, float]) -> str:
    """A table of the operations that take the longest."""
    total = sum(spent.values())
    ranked = sorted(spent.items(), key=lambda item: -item[1])
    rest = sum(taken for _, taken in ranked[SHOWN:])
    rows = [*ranked[:SHOWN], ("other", rest), ("all operations", total)]
    return timing.table(
        ["operation", "ms", "share"], [[kind, float(taken), f"{taken / total:.1%}"] for kind, taken in rows]
    )


if __name__ == "__main__":
    sys.exit(main())
