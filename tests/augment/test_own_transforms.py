"""Transforms of the user's own, named in a method as "module:name"."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from tfaug.augment.affine import Affine
from tfaug.augment.compose import Augmenter
from tfaug.augment.methods import Method
from tfaug.data.pipeline import seed_at
from tfaug.engine.errors import UserError
from tfaug.types import Batch

OWN = """
import numpy as np
import tensorflow as tf
from tfaug.types import Batch

class Shift:
    def __init__(self, by=1.0):
        self.by = by

    def sample(self, batch, seed):
        return tf.random.stateless_uniform([tf.shape(batch.image)[0], 1, 1, 1], seed, 1.0, 2.0)

    def apply(self, batch, params):
        return Batch(batch.image + self.by * params, batch.label)

shift_by_ten = Shift(10.0)

class NeedsArguments(Shift):
    def __init__(self, by):
        self.by = by

class OneStep:
    def apply(self, batch, params):
        return batch

class ImageAlone(Shift):
    def apply(self, batch, params):
        return batch.image

class OtherSize(Shift):
    def apply(self, batch, params):
        return Batch(batch.image[:, ::2], batch.label)

class NoLabel(Shift):
    def apply(self, batch, params):
        return Batch(batch.image, None)

class Doubles(Shift):
    def apply(self, batch, params):
        return Batch(tf.cast(batch.image, tf.float64), batch.label)

class InNumPy(Shift):
    def apply(self, batch, params):
        return Batch(np.sort(batch.image.numpy(), axis=1), batch.label)

class WrongSignature(Shift):
    def sample(self, batch):
        return {}

function = print
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's module `own`, in the working directory."""
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own", None)


def augmenter():
    return Augmenter({"affine": Affine()}, lambda purpose, step: seed_at(0, purpose, step))


def method(transform):
    return Method(("affine",), ((transform,),))


def test_it_generates_its_share_of_the_batch_with_draws_of_its_own(own):
    zeros = Batch(tf.zeros([8, 4, 4, 2]), tf.one_hot(tf.zeros([8, 4, 4], tf.int32), 3))
    augment = augmenter().method(method("own:Shift"))
    one, again, next_step = (augment(zeros, tf.constant(step, tf.int64), "labelled").image for step in (0, 0, 1))
    assert np.all(one[:4] == 0) and np.all(one[4:] >= 1)
    np.testing.assert_array_equal(one, again)
    assert not np.isin(next_step[4:], one[4:]).any()


def test_an_object_will_do_as_well_as_a_class(own):
    zeros = Batch(tf.zeros([4, 4, 4, 1]), tf.zeros([4, 4, 4, 3]))
    made = augmenter().method(method("own:shift_by_ten"))(zeros, tf.constant(0, tf.int64), "labelled")
    assert np.all(made.image[2:] >= 10)


def test_captions_have_its_short_name(own):
    names = augmenter().names(method("own:Shift"), 4, tf.constant(0, tf.int64), "labelled")
    assert names == ["affine", "affine", "Shift", "Shift"]


def test_a_sound_one_passes_the_check(own):
    augmenter().check(method("own:Shift"), image_size=16, channels=2, num_classes=5)


@pytest.mark.parametrize(
    "name, words",
    [
        ("elastik", ["unknown"]),
        ("own:Shifd", ["Shift"]),
        ("own:NeedsArguments", ["without arguments"]),
        ("own:OneStep", ["'sample'"]),
        ("own:function", ["'sample'"]),
        ("own:ImageAlone", ["Batch"]),
        ("own:OtherSize", ["image", "(2, 8, 16, 1)", "(2, 16, 16, 1)"]),
        ("own:NoLabel", ["label", "None"]),
        ("own:Doubles", ["float64", "float32"]),
        ("own:InNumPy", ["numpy", "TensorFlow operations"]),
        ("own:WrongSignature", ["'sample'", "too many positional arguments"]),
    ],
)
def test_one_that_does_not_fit_is_refused_in_one_line(name, words, own):
    with pytest.raises(UserError) as error:
        augmenter().check(method(name), image_size=16, channels=1, num_classes=3)
    text = str(error.value)
    assert text.startswith("transform") and "\n" not in text and len(text) < 300
    assert all(word in text for word in words), text
