"""A training small enough for tests, with all that a resumed run must carry over.

Batch norm (moving statistics), Adam (slots), a variable of the step itself, a best score that is not the last one,
and TensorBoard scalars. `python toy.py FOLDER NUM_STEPS SECONDS` runs it, waiting SECONDS before each batch.
"""

from __future__ import annotations

import hashlib
import itertools
import pathlib
import sys
import time

import numpy as np
import tensorflow as tf

from tfaug import streams
from tfaug.compat import keras
from tfaug.engine import determinism
from tfaug.engine.checkpoint import Checkpoints, load_best
from tfaug.engine.event_log import EventLog
from tfaug.engine.hooks import KeepBest, Progress, Scalars, StopOnNonFinite
from tfaug.engine.loop import fit
from tfaug.engine.signals import Interrupted, deferred_signals

FINGERPRINT = {"config": {"rate": 0.01, "net": {"units": 4}}, "data": {"a": "1"}, "environment": {"tf": "2.15.1"}}
SAVE_EVERY, SCORE_EVERY, LOG_EVERY = 4, 3, 2


class ToyStep(tf.Module):
    def __init__(self):
        super().__init__()
        initial = keras.initializers.RandomNormal(seed=1)
        self.model = keras.Sequential(
            [
                keras.layers.Dense(4, input_shape=(3,), kernel_initializer=initial),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(1, kernel_initializer=initial),
            ]
        )
        self.optimizer = keras.optimizers.Adam(0.01)
        self.optimizer.build(self.model.trainable_variables)
        self.average_loss = tf.Variable(0.0, trainable=False)

    def __call__(self, batch, index):
        return self.update(batch)

    @tf.function
    def update(self, batch):
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.model(batch, training=True) - 1.0))
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        self.average_loss.assign(0.9 * self.average_loss + 0.1 * loss)
        return {"loss/toy": loss, "average": self.average_loss}


class Toy:
    """One session of the run in `folder`; a new object is a new process as far as the state goes."""

    def __init__(self, folder, fingerprint=None, commit=None):
        self.folder = pathlib.Path(folder)
        self.step = ToyStep()
        self.log = EventLog(self.folder / "events")
        self.warnings = []
        stop = StopOnNonFinite(interval=1000)
        self.checkpoints = Checkpoints(
            self.folder,
            {"step": self.step},
            fingerprint or FINGERPRINT,
            every=SAVE_EVERY,
            log=self.log,
            before_save=stop.check,
            warn=self.warnings.append,
            commit=commit,
        )
        models = {"model": self.step.model}
        self.keep_best = KeepBest(SCORE_EVERY, self.score, models, self.checkpoints, self.log, key="score", start=2)
        self.hooks = [stop, Scalars(LOG_EVERY, self.log), self.keep_best, Progress("toy", 1, self.checkpoints)]

    def score(self):
        """Depends on the moving statistics, and rises at 3, 6 and 9, then falls."""
        output = self.step.model(batch(999), training=False)
        return {"score": -abs(float(tf.reduce_mean(output)) - 0.11)}

    def batches(self, start):
        return map(batch, itertools.count(start))

    def fit(self, num_steps):
        fit(self.step, self.batches, num_steps, self.hooks, self.checkpoints)


def batch(index):
    return tf.constant(streams.generator(0, "toy", index).normal(size=(8, 3)).astype(np.float32))


def outcome(toy):
    """All that must be equal between two runs: variables, slots, best score, step and model, logged scalars."""
    best = ToyStep()
    return {
        "step": fingerprint_of(toy.step.variables),
        "optimizer": fingerprint_of(toy.step.optimizer.variables),
        "best": toy.checkpoints.best,
        "best model": (load_best(toy.folder, {"model": best.model}), fingerprint_of(best.model.variables)),
        "scalars": logged(toy.folder / "events"),
    }


def fingerprint_of(variables):
    return [hashlib.sha256(variable.numpy().tobytes()).hexdigest() for variable in variables]


def logged(folder):
    """(tag, step, bytes of the value) of every scalar in a folder of event files, sorted; a repetition shows."""
    return sorted((tag, step, value.tobytes()) for tag, step, value in summaries(folder))


def summaries(folder):
    return [
        (value.tag, event.step, tf.make_ndarray(value.tensor))
        for path in sorted(folder.glob("events*"))
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]


def main(folder, num_steps, seconds):
    determinism.fix_order()
    toy = Toy(folder)

    def slow_batches(start):
        for item in toy.batches(start):
            time.sleep(float(seconds))
            yield item

    try:
        with deferred_signals():
            fit(toy.step, slow_batches, int(num_steps), toy.hooks, toy.checkpoints)
    except Interrupted as stop:
        sys.exit(stop.exit_status)


if __name__ == "__main__":
    main(*sys.argv[1:])
