"""Measures how many trainings an hour a grid gets done, beside what it did before.

    python -m benchmarks.grid [--before=CLONE] [--bfloat16] [--only=TEXT,TEXT] [--workers=2 --threads=1] [--config=FILE]

Runs `train.py` as the grid does, `workers` at a time, each a process of `threads` threads, for a few steps. When the
steps of the middle half were done, as their event files say, gives the time of a step; the rest is what each training
needs besides, and both together the time of a training with as many steps as the config says. Those of a generator's
warm-up, which are shorter, count as the others. Each row is taken in turn with the others:

    now                 this code
    one at a time       this code, in one process of workers x threads threads
    without oneDNN      this code, with the convolutions that TensorFlow takes by itself on processors without
                        instructions for neural networks
    bfloat16            this code in mixed_bfloat16; only with --bfloat16, as it is slow where the processor lacks it
    before              the code in the folder CLONE, as its own `train.py` runs it

"ratio" is to the last row. Rows of "labelled sets" are computed from the others: how many sets an hour get all that the
table's rows ask for on one of them, a segmenter a method and the four generators. With --only, those rows alone whose
"work code" has one of the texts in it.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

from benchmarks import timing
from tfaug.augment import methods
from tfaug.engine import event_files

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORK = {
    "segmenters": ("segment", "--stage=seg", "--aug=aff_rd_ri"),
    "generators": ("augment", "--stage=aug", "--gen=deform", "--config.augment.warmup_steps=0"),
}
SET = {"segmenters": len(methods.METHODS), "generators": len(methods.GENERATORS)}


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=pathlib.Path, help="the folder of another clone")
    parser.add_argument("--bfloat16", action="store_true", help="a row in mixed_bfloat16")
    parser.add_argument("--only", default="", help='rows to measure, as "bfloat16,before" or "segmenters now"')
    parser.add_argument("--workers", type=int, default=2, help="trainings at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each")
    parser.add_argument("--steps", type=int, default=80, help="of each training, a multiple of 4")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each")
    parser.add_argument("--config", default="phantom", help="as that of train.py")
    arguments, config_flags = parser.parse_known_args(argv)
    flags = [f"--config={arguments.config}", *config_flags]
    both = arguments.workers, arguments.threads
    rows = {
        "now": Row(ROOT, *both),
        "one at a time": Row(ROOT, 1, arguments.workers * arguments.threads),
        "without oneDNN": Row(ROOT, *both, {"TF_ENABLE_ONEDNN_OPTS": "0"}),
        **({"bfloat16": Row(ROOT, *both, flags=["--config.precision=mixed_bfloat16"])} if arguments.bfloat16 else {}),
        **({"before": Row(arguments.before.resolve(), *both)} if arguments.before else {}),
    }
    print(measure(rows, arguments.steps, arguments.repeats, flags, arguments.only))
    return 0


def measure(rows: Mapping[str, Row], steps: int, repeats: int, flags: Sequence[str], only: str = "") -> str:
    """Returns the table, restricted to the rows that `only` selects."""
    asked = [(work, name) for work in WORK for name in rows]
    asked = [row for row in asked if any(text in " ".join(row) for text in only.split(","))]
    with tempfile.TemporaryDirectory() as folder:
        cache = f"--config.data.cache_dir={folder}/cache"
        for name in dict.fromkeys(name for _, name in asked):
            rows[name].run(f"{folder}/check", 1, ["--check", *flags, cache])  # prepares the data
        calls = {
            (work, name): functools.partial(_timed, rows[name], folder, steps, [*flags, cache, *_job(work, steps)])
            for work, name in asked
        }
        medians = timing.side_by_side(calls, repeats)
    lines, rates = [], {}
    for work, of_work in itertools.groupby(asked, key=lambda row: row[0]):
        measured = []
        for _, name in of_work:
            row, step = rows[name], medians[work, name]["step"]
            besides = medians[work, name]["seconds"] - steps * step
            rate = 3600 * row.workers / (besides + full_steps(WORK[work][0], flags) * step)
            rates[work, name] = rate
            measured.append([work, name, row.workers, row.threads, 1e3 * step, besides, rate])
        lines += [[*line, line[-1] / measured[-1][-1]] for line in measured]
    measured = []
    for name, row in rows.items():
        if all((work, name) in rates for work in SET):
            rate = 1 / sum(SET[work] / rates[work, name] for work in SET)
            measured.append(["labelled sets", name, row.workers, row.threads, None, None, rate])
    lines += [[*line, line[-1] / measured[-1][-1]] for line in measured]
    return timing.table(["work", "code", "workers", "threads", "ms/step", "s besides", "an hour", "ratio"], lines)


def _job(work: str, steps: int) -> list[str]:
    part, *job = WORK[work]
    return [*job, *(f"--config.{part}.{key}={steps}" for key in ("num_steps", "eval_every"))]


def full_steps(part: str, flags: Sequence[str]) -> int:
    """Number of steps of a full training with these config flags."""
    program = f"from tfaug.commands import cli; cli.run(lambda: print(cli.config().{part}.num_steps))"
    done = subprocess.run([sys.executable, "-c", program, *flags], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)  # the child has printed why
    return int(done.stdout)


class Row:
    """How trainings are run.

    Args:
      clone: the folder that holds `train.py`.
      workers: number of simultaneous trainings.
      threads: threads per training.
      environment: variables added to those of this process.
      flags: added to each training's flags, after the others.
    """

    def __init__(
        self,
        clone: pathlib.Path,
        workers: int,
        threads: int,
        environment: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
    ):
        self.workers, self.threads, self._clone, self._flags = workers, threads, clone, flags
        own = ("PYTHONPATH", "TF_ENABLE_ONEDNN_OPTS")  # left to each clone
        self._environment = {
            **{name: value for name, value in os.environ.items() if name not in own},
            **{"TF_NUM_INTRAOP_THREADS": str(threads), "PYTHONPATH": str(clone), **(environment or {})},
        }

    def run(self, folder: str, workers: int, flags: Sequence[str]) -> None:
        """Runs trainings with seeds 0, 1, ... simultaneously; exits if one fails, as it has already printed why."""
        command = [sys.executable, str(self._clone / "train.py"), f"--workdir={folder}", *flags, *self._flags]
        started = [
            subprocess.Popen([*command, f"--config.seed={seed}"], stdout=subprocess.DEVNULL, env=self._environment)
            for seed in range(workers)
        ]
        if any([process.wait() for process in started]):
            raise SystemExit(1)


def _timed(row: Row, folder: str, steps: int, flags: Sequence[str]) -> timing.Measurement:
    hooks = [
        f"--config.report_every={steps // 4}",
        f"--config.picture_every={steps}",
        f"--config.checkpoint_every={steps}",
    ]
    with tempfile.TemporaryDirectory(dir=folder) as workdir:

        def run() -> dict[str, float]:
            row.run(workdir, row.workers, [*flags, *hooks])
            runs = {file.parent for file in pathlib.Path(workdir).rglob("events.out.tfevents.*")}
            return {"step": statistics.mean(_seconds_a_step(run, steps) for run in runs)}

        return timing.timed(run)


def _seconds_a_step(run: pathlib.Path, steps: int) -> float:
    times = {
        event.step: event.wall_time
        for file in event_files.files(run)
        for event in event_files.events(file)
        if any(value.tag.startswith("loss/") for value in event.summary.value)
    }
    first, last = steps // 4, 3 * steps // 4
    return (times[last] - times[first]) / (last - first)


if __name__ == "__main__":
    sys.exit(main())
