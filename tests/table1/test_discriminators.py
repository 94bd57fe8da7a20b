"""The discriminators that were tried on ACDC's development patients."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tfaug.compat import keras

FOLDER = pathlib.Path(__file__).parents[2] / "docs/results/acdc"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))


def load(name):
    return getattr(__import__("discriminators"), name)


@pytest.mark.parametrize("name", ["patches", "spectral", "augmented"])
def test_one_logit_an_image(name):
    judge = load(name)(64, channels=2, filters=2, discriminator_norm=False)
    image = tf.random.stateless_normal([3, 64, 64, 2], [0, 1])
    assert judge(image, training=True).shape == (3, 1)


def test_spectral_kernels_have_a_norm_of_one():
    kernel = tf.random.stateless_normal([5, 5, 3, 8], [0, 1])
    divided = load("Spectral")()(kernel).numpy().reshape(-1, 8)
    assert np.linalg.norm(divided, 2) == pytest.approx(1, rel=1e-5)


def test_patches_see_only_their_surroundings():
    judge = load("patches")(64, filters=2, discriminator_norm=False)
    image = tf.random.stateless_normal([1, 64, 64, 1], [0, 1])
    before_the_mean = keras.Model(judge.input, judge.layers[-3].output)
    changed = tf.tensor_scatter_nd_add(image, [[0, 0, 0, 0]], [9.0])
    moved = (before_the_mean(changed) != before_the_mean(image)).numpy()[0, ..., 0]
    assert moved.any() and not moved[29 // 8 :].any() and not moved[:, 29 // 8 :].any()


def test_each_call_augments_otherwise():
    augment = load("Augmented")()
    image = tf.random.stateless_normal([8, 64, 64, 1], [0, 1])
    first, second = augment(image), augment(image)
    assert first.shape == image.shape
    assert not np.array_equal(first, second)
