"""Shows where the time of whole runs goes.

    python -m benchmarks.run_time [--method METHOD] [--config=FILE] [--config.KEY=VALUE ...]

Prepares the data, learns every generator that the method needs, and trains the segmenter, each as `train.py` would with
the same flags of the config, in a process of its own and a new folder of runs. Prints one table of seconds and
percentages: a column for each, a row for each part. Parts do not overlap: a checkpoint that a validation writes counts
as checkpoint. "tracing" is every call that made TensorFlow trace a step, and the first batch; the first validation and
picture trace their own graphs.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

from absl import flags

from benchmarks import timing
from tfaug.augment.methods import METHODS
from tfaug.commands import cli

PARTS = {
    "start": "Python and imports",
    "data": "reading, checking and loading the data",
    "networks": "building networks and optimisers",
    "tracing": "tracing: steps and first batch",
    "waiting": "waiting for batches",
    "steps": "steps",
    "validation": "validation",
    "pictures": "pictures",
    "scalars": "scalars and progress",
    "checkpoints": "checkpoints and best models",
    "end": "end of the process",
}
STAGE = flags.DEFINE_string("run_time_stage", "", "Internal: data, a generator as aug-GEN, or seg.")
LAUNCHED = flags.DEFINE_float("run_time_launched", 0.0, "Internal: when the process was started.")
RESULT = flags.DEFINE_string("run_time_result", "", "Internal: the file for the measured seconds.")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="aff_gd_gi", choices=METHODS, help="of the segmenter")
    arguments, config_flags = parser.parse_known_args(argv)
    stages = ["data", *(f"aug-{name}" for name in METHODS[arguments.method].generators), "seg"]
    with tempfile.TemporaryDirectory() as folder:
        flags_of_all = [f"--workdir={folder}", f"--aug={arguments.method}", *config_flags]
        seconds = {stage: run_stage(stage, pathlib.Path(folder), flags_of_all) for stage in stages}
    print(report(seconds))
    return 0


def report(seconds: dict[str, dict[str, float]]) -> str:
    """The table; `seconds` holds, by stage, the seconds of each part and the "total"."""
    header, lines = ["part"], []
    for stage in seconds:
        header += [f"{stage} s", "%"]
    for part, name in {**PARTS, "other": "other", "total": "total"}.items():
        cells = []
        for taken in seconds.values():
            value = taken.get(part, 0.0)
            if part == "other":
                value = taken["total"] - sum(taken.get(known, 0.0) for known in PARTS)
            cells += [f"{value:.1f}", f"{100 * value / taken['total']:.1f}"]
        lines.append([name, *cells])
    return timing.table(header, lines)


def run_stage(stage: str, folder: pathlib.Path, config_flags: list[str]) -> dict[str, float]:
    """Runs one stage in its own process; returns the seconds of each part and the "total"."""
    result = folder / f"{stage}.json"
    start = time.perf_counter()  # the same clock in all processes; the time of day may be adjusted meanwhile
    command = [
        *(sys.executable, "-m", "benchmarks.run_time", f"--run_time_stage={stage}"),
        *(f"--run_time_launched={start!r}", f"--run_time_result={result}", *config_flags),
    ]
    status = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
    if status:
        raise SystemExit(status)  # the child has printed why
    seconds, end = json.loads(result.read_text()), time.perf_counter()
    return {**seconds, "end": end - seconds["end"], "total": end - start}


class Stopwatch:
    """Exclusive times of parts that may be nested.

    Attributes:
      seconds: by part, excluding parts nested in it.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._within: list[float] = []  # for each open part, the time of parts nested in it

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Attributes the time of the block to `name`."""
        self._within.append(0.0)
        start = time.perf_counter()
        try:
            yield
        finally:
            taken = time.perf_counter() - start
            self.seconds[name] += taken - self._within.pop()
            if self._within:
                self._within[-1] += taken

    def watch(self, owner, attribute: str, name: str) -> None:
        """Attributes the time of every call of a function or method of `owner` to part `name`."""
        call = getattr(owner, attribute)

        @functools.wraps(call)
        def timed(*args, **kwargs):
            with self.part(name):
                return call(*args, **kwargs)

        setattr(owner, attribute, timed)


def _work() -> None:
    """Runs one stage, in a child process."""
    from tfaug import pictures  # deferred: the process that prints needs no TensorFlow
    from tfaug.engine import checkpoint, hooks
    from tfaug.experiment import networks, sources, stages

    watch = Stopwatch()
    watch.seconds["start"] = time.perf_counter() - LAUNCHED.value
    watch.watch(sources, "resolve", "data")
    watch.watch(sources.Data, "load", "data")
    for name in ("learn_augmentation", "train_segmenter", "generator"):
        watch.watch(networks, name, "networks")
    watch.watch(hooks.KeepBest, "__call__", "validation")
    watch.watch(hooks.Pictures, "__call__", "pictures")
    watch.watch(pictures, "generator_panel", "pictures")
    watch.watch(pictures, "segmentation_panel", "pictures")
    watch.watch(pictures, "save", "pictures")
    for hook in (hooks.StopOnNonFinite, hooks.Scalars, hooks.Text, hooks.Progress):
        watch.watch(hook, "__call__", "scalars")
    for name in ("save", "save_best", "restore"):
        watch.watch(checkpoint.Checkpoints, name, "checkpoints")
    watch.watch(checkpoint, "load_best", "checkpoints")
    stages.fit = functools.partial(_watched_fit, watch, stages.fit)

    config, workdir = sources.resolve(cli.config()), cli.WORKDIR.value
    networks.set_up_tensorflow(config)
    data = sources.Data(config)
    if STAGE.value == "data":
        data.load(sources.SPLITS)
    elif STAGE.value == "seg":
        stages.TrainSegmenter(config, workdir, *sources.method(config, cli.AUG.value), data).run()
    else:
        stages.LearnAugmentation(config, workdir, STAGE.value.removeprefix("aug-"), data).run()
    pathlib.Path(RESULT.value).write_text(json.dumps({**watch.seconds, "end": time.perf_counter()}))


def _watched_fit(watch: Stopwatch, fit: Callable, step, batches, *args) -> None:
    """Calls `fit` with its steps and batches timed."""
    traced = 0

    def watched_step(batch, index):
        nonlocal traced
        start = time.perf_counter()
        with watch.part("steps"):
            scalars = step(batch, index)
        now = sum(function.experimental_get_tracing_count() for function in functions)
        if now > traced:
            traced = now
            taken = time.perf_counter() - start
            watch.seconds["steps"] -= taken
            watch.seconds["tracing"] += taken
        return scalars

    def watched_batches(start):
        with watch.part("tracing"):
            source = batches(start)
            first = next(source)
        yield first
        while True:
            with watch.part("waiting"):
                batch = next(source)
            yield batch

    updates = [getattr(module, "update", None) for module in (step, *step.submodules)]
    functions = [update for update in updates if hasattr(update, "experimental_get_tracing_count")]
    fit(watched_step, watched_batches, *args)


if __name__ == "__main__":
    if any(argument.startswith("--run_time_stage=") for argument in sys.argv):
        cli.run(_work)
    sys.exit(main())
