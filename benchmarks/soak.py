"""Kills short trainings at random moments, and compares what becomes of them with undisturbed ones.

    python -m benchmarks.soak

Every stage is trained once undisturbed, and once more under SIGKILLs, every other one sent while a checkpoint is being
written. By SHA-256 these must be equal: every variable and optimiser slot of the last checkpoint and of the best model,
the best score and its step, and the logged scalars. Then the negative controls: a training that resumes from a
checkpoint with which somebody has tampered must come out different. Takes some minutes; the exit status is 1 if
anything is not as it must be.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np

from tfaug import streams
from tfaug.phantom import cohort

ROOT = pathlib.Path(__file__).resolve().parent.parent
STAGES = {
    "aug-deform": ("--stage=aug", "--gen=deform"),
    "aug-intensity": ("--stage=aug", "--gen=intensity"),
    "seg-aff_gd_gi": ("--stage=seg", "--aug=aff_gd_gi"),
    "seg-adv_ssl": ("--stage=seg", "--aug=adv_ssl"),
}
PATIENTS = (2, 11, 16, 36)
TINY = (
    "--config.data.image_size=32",
    "--config.data.resolution=5.5",
    "--config.data.n4_shrink=0",
    "--config.model.filters=2",
    "--config.augment.num_steps=24",
    "--config.augment.warmup_steps=3",
    "--config.augment.eval_every=5",
    "--config.segment.num_steps=24",
    "--config.segment.eval_every=5",
    "--config.report_every=2",
    "--config.picture_every=10",
    "--config.checkpoint_every=4",
    "--config.splits.validation=('patient011',)",
    "--config.splits.unlabelled=('patient016','patient036')",
    "--config.splits.test=()",
)
START_UP = 0.3  # rough share of an undisturbed training spent loading Python and TensorFlow, with nothing to lose yet
SAVE_SECONDS = 0.05  # roughly what writing a checkpoint of this size takes
CONTROL_STAGE = "aug-deform"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the soak and its negative controls; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=5, help="SIGKILLs in each of the four stages")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which they are sent")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as folder:
        return _soak(pathlib.Path(folder), arguments.kills, streams.generator(arguments.seed, "soak"))


def _soak(folder: pathlib.Path, kills: int, rng: np.random.Generator) -> int:
    cohort.write_cohort(folder / "cohort", numbers=PATIENTS)
    expected, hits, failures = {}, [], 0
    for stage in STAGES:
        start = time.monotonic()
        Training(folder, "undisturbed", stage).finish()
        seconds = time.monotonic() - start
        expected[stage] = outcome(Training(folder, "undisturbed", stage).run)
        training = Training(folder, "killed", stage)
        for _ in range(kills):
            # A training that finished before the signal arrived starts afresh.
            while (hit := training.kill(rng, seconds, during_save=len(hits) % 2 == 1)) is None:
                shutil.rmtree(training.run)
            hits.append(hit)
        training.finish()
        different = differences(expected[stage], outcome(training.run))
        failures += bool(different)
        verdict = f"{len(different)} DIFFER, as {', '.join(different[:3])}" if different else "equal"
        print(f"{stage:14} {kills} SIGKILLs, {len(expected[stage])} hashes: {verdict}", flush=True)
    print(f"survived {len(hits)} SIGKILLs, {sum(hits)} of them during a save", flush=True)
    for name, tamper in CONTROLS.items():
        different = differences(expected[CONTROL_STAGE], _tampered(folder, name, tamper))
        failures += not different
        verdict = f"{len(different)} hashes differ, as they must" if different else "NOT NOTICED"
        print(f"negative control, {name}: {verdict}", flush=True)
    print("FAILED" if failures else "every killed training equals the undisturbed one")
    return 1 if failures else 0


class Training:
    """A tiny training of one stage, run in child processes.

    Args:
      folder: contains the cohort, the cache and the runs.
      workdir: name of the folder for runs in it.
      stage: a key of `STAGES`.

    Attributes:
      run: the run directory.
    """

    def __init__(self, folder: pathlib.Path, workdir: str, stage: str):
        self._folder = folder
        self._command = [
            *(sys.executable, str(ROOT / "train.py"), f"--workdir={workdir}"),
            *(f"--config.data.root={folder / 'cohort'}", *TINY, *STAGES[stage]),
        ]
        self.run = folder / workdir / f"phantom-n1-set1-{stage}-seed0"

    def finish(self) -> None:
        """Trains to the end, resuming where it stopped."""
        self._check(self._start())

    def kill(self, rng: np.random.Generator, seconds: float, during_save: bool) -> bool | None:
        """Resumes the training and kills it at a random moment.

        Args:
          rng: draws the moment.
          seconds: duration of an undisturbed training.
          during_save: kill it shortly after it starts to write one of the next checkpoints.

        Returns:
          whether it died while writing a checkpoint; None if it finished first.
        """
        process = self._start()
        if during_save:
            for _ in range(rng.integers(3)):
                self._wait(process, self._is_saving)
                self._wait(process, lambda: not self._is_saving())
            self._wait(process, self._is_saving)
            time.sleep(rng.uniform(0, SAVE_SECONDS))
        else:
            moment = time.monotonic() + rng.uniform(START_UP, 1) * seconds
            self._wait(process, lambda: time.monotonic() > moment)
        return self._is_saving() if self._kill(process) else None

    def kill_after_first_checkpoint(self) -> pathlib.Path:
        """Runs until there is a checkpoint after at least one update, kills it and returns the newest checkpoint."""
        process = self._start()
        self._wait(process, lambda: any((self.run / "checkpoints").glob("step-*[1-9]*")))
        self._kill(process)
        return _newest(self.run / "checkpoints")

    def _start(self) -> subprocess.Popen:
        return subprocess.Popen(
            self._command,
            cwd=self._folder,
            env={**os.environ, "TMPDIR": str(self._folder)},  # where TensorFlow leaves files when it is killed
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def _wait(self, process: subprocess.Popen, condition: Callable[[], bool]) -> None:
        """Waits until the condition holds or the process has ended."""
        while process.poll() is None and not condition():
            time.sleep(0.001)

    def _kill(self, process: subprocess.Popen) -> bool:
        """Kills the process; returns False if it had already finished."""
        process.kill()
        if process.wait() == -signal.SIGKILL:
            process.stdout.close()
            return True
        self._check(process)
        return False

    def _check(self, process: subprocess.Popen) -> None:
        output = process.communicate()[0].decode()
        if process.returncode:
            raise RuntimeError(f"{' '.join(self._command)} ended with status {process.returncode}:\n{output}")

    def _is_saving(self) -> bool:
        return any(self.run.glob("*/tmp-*"))


def outcome(run: pathlib.Path) -> dict[str, str]:
    """SHA-256, by name, of what equal trainings share: each variable and slot, the best score and each curve."""
    import tensorflow as tf  # deferred: the processes that make the cohort import this module too

    tf.get_logger().setLevel("ERROR")
    report = json.loads((run / "report.json").read_text())
    result = {"best": _hash(repr((report["best"], report["best_step"])).encode())}
    for kind in ("checkpoints", "best"):
        folder = _newest(run / kind)
        reader = tf.train.load_checkpoint(str(folder / "variables"))
        for name, dtype in reader.get_variable_to_dtype_map().items():
            if dtype != tf.string:  # the names of the objects
                result[f"{kind}/{folder.name}/{name}"] = _hash(reader.get_tensor(name).tobytes())
    curves = {}
    for path in run.glob("events.out.tfevents.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    curves.setdefault(value.tag, []).append((event.step, float(tf.make_ndarray(value.tensor))))
    return {**result, **{f"scalars/{tag}": _hash(repr(sorted(points)).encode()) for tag, points in curves.items()}}


def differences(expected: dict[str, str], actual: dict[str, str]) -> list[str]:
    """The names whose hashes differ, or that only one of the two has."""
    return sorted(name for name in {*expected, *actual} if expected.get(name) != actual.get(name))


def _tampered(folder: pathlib.Path, name: str, tamper: Callable[[pathlib.Path], pathlib.Path]) -> dict[str, str]:
    """The outcome of a training whose checkpoint was tampered with between two sessions."""
    from tfaug.engine.checkpoint import write_manifest  # see `outcome`

    training = Training(folder, f"control {name}", CONTROL_STAGE)
    checkpoint = tamper(training.kill_after_first_checkpoint())
    write_manifest(checkpoint)
    training.finish()
    return outcome(training.run)


def _drop_slot(checkpoint: pathlib.Path) -> pathlib.Path:
    """Sets the largest slot of an optimiser to zero, as if it had not been restored; returns the checkpoint."""
    import tensorflow as tf  # see `outcome`

    reader = tf.train.load_checkpoint(str(checkpoint / "variables"))
    shapes = reader.get_variable_to_shape_map()
    values = {name: reader.get_tensor(name) for name in shapes}
    slot = max((name for name in shapes if "optimizer/_variables" in name), key=lambda name: np.prod(shapes[name]))
    values[slot] = np.zeros_like(values[slot])
    tf.raw_ops.SaveV2(
        prefix=str(checkpoint / "variables"),
        tensor_names=list(values),
        shape_and_slices=[""] * len(values),
        tensors=[tf.constant(value) for value in values.values()],
    )
    return checkpoint


def _shift_step(checkpoint: pathlib.Path) -> pathlib.Path:
    """Adds one to the number of updates done, which is the checkpoint's name; returns the renamed checkpoint."""
    num_done = int(checkpoint.name.partition("-")[2]) + 1
    return checkpoint.rename(checkpoint.with_name(f"step-{num_done:08d}"))


CONTROLS = {"one slot dropped": _drop_slot, "the step shifted": _shift_step}


def _newest(folder: pathlib.Path) -> pathlib.Path:
    return max(folder.glob("step-*"))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
