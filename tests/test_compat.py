"""Each TensorFlow resumes what another one saved: `python tests/test_compat.py FOLDER` makes such a folder."""

import pathlib
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf

from tfaug.compat import keras
from tfaug.engine.checkpoint import Checkpoints, load_best
from tfaug.engine.event_log import EventLog
from tfaug.models.blocks import conv, dense
from tfaug.steps.optimizer import adam, descend

SAVED = pathlib.Path(__file__).parent / "data" / "checkpoints"
NUM_STEPS = 3


class Step(tf.Module):
    """A convolution, batch normalisation, a dense layer, and Adam: all that our networks' checkpoints are made of."""

    def __init__(self, seed):
        super().__init__()
        image = keras.Input((6, 6, 1))
        x = conv(image, filters=2, kernel=3, name="conv", seed=seed)
        self.model = keras.Model(image, dense(keras.layers.Flatten()(x), 1, name="dense", seed=seed))
        self.optimizer = adam(self.model, 0.01)

    def update(self, batch):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.model(batch, training=True) - 1.0))
        descend(self.optimizer, tape, loss, self.model.trainable_variables)


def batch(index):
    return np.random.default_rng(index).normal(size=(4, 6, 6, 1)).astype(np.float32)


def output(model):
    return model(batch(99), training=False).numpy()


def checkpoints(folder, step):
    return Checkpoints(folder, {"step": step}, {"config": {}}, every=1, log=EventLog(folder / "events"))


def continued(step):
    """What the network says after one update more, which depends on the optimiser's state."""
    step.update(batch(NUM_STEPS))
    return output(step.model)


@pytest.mark.parametrize("saved", sorted(SAVED.glob("tensorflow-*")), ids=lambda path: path.name)
def test_a_training_of_another_tensorflow_resumes(tmp_path, saved):
    run = shutil.copytree(saved, tmp_path / "run")
    expected = np.load(run / "outputs.npz", allow_pickle=False)
    step = Step(seed=1)
    assert checkpoints(run, step).restore() == NUM_STEPS
    np.testing.assert_allclose(output(step.model), expected["output"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(continued(step), expected["continued"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("saved", sorted(SAVED.glob("tensorflow-*")), ids=lambda path: path.name)
def test_the_best_model_of_another_tensorflow_loads(saved):
    model = Step(seed=1).model
    assert load_best(saved, {"model": model}) == NUM_STEPS
    expected = np.load(saved / "outputs.npz", allow_pickle=False)
    np.testing.assert_allclose(output(model), expected["output"], rtol=1e-5, atol=1e-6)


def main(folder):
    step = Step(seed=0)
    for index in range(NUM_STEPS):
        step.update(batch(index))
    run = checkpoints(folder, step)
    run.save_best(NUM_STEPS, 0.5, {"model": step.model})
    run.save(NUM_STEPS)
    saved = output(step.model)
    np.savez(folder / "outputs.npz", output=saved, continued=continued(step))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
