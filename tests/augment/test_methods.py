import numpy as np
import pytest
import tensorflow as tf

from tfaug.augment.learned import Learned
from tfaug.augment.methods import METHODS, Augmenter
from tfaug.data.pipeline import seed_at
from tfaug.types import Batch

N = 20


class Tag:
    """Writes its number and its draw into a batch of zeros, so that a test can read what was done."""

    def __init__(self, number):
        self.number = number

    def sample(self, batch, seed):
        return {"draw": tf.random.stateless_uniform([batch.image.shape[0]], seed)}

    def apply(self, batch, params):
        return Batch(batch.image * 10 + self.number, batch.label + params["draw"][:, None, None, None])


def augmenter(**changes):
    names = ("affine", "deform", "intensity", "elastic", "contrast_brightness")
    transforms = {name: Tag(number) for number, name in enumerate(names, start=1)}
    return Augmenter(transforms, lambda purpose, step: seed_at(0, purpose, step), **changes)


def tags(name, step=0, **changes):
    """For each slice, the numbers of the transforms that were applied to it, in their order, as digits."""
    zeros = Batch(tf.zeros([N, 4, 4, 1]), tf.zeros([N, 4, 4, 4]))
    batch = augmenter(**changes).method(METHODS[name])(zeros, tf.constant(step, tf.int64), "labelled")
    return batch.image[:, 0, 0, 0].numpy().astype(int).tolist()


@pytest.mark.parametrize(
    "name, expected",
    [
        ("none", [0] * 20),
        ("aff", [1] * 20),
        ("aff_gd", [1] * 10 + [12] * 10),
        ("aff_gi", [1] * 10 + [13] * 10),
        ("aff_gd_gi", [1] * 10 + [12] * 3 + [13] * 3 + [123] * 4),
    ],
)
def test_rows_compose_the_batch(name, expected):
    """1 affine, 2 deform, 3 intensity: half real, half generated, shared evenly by the recipes."""
    assert tags(name) == expected


def test_released_partition_draws_its_boundaries():
    """20 slices: X_V ends in 1..4, X_I in 5..9, X_VI in 10..14, the rest stays affine."""
    seen = set()
    for step in range(60):
        drawn = tags("aff_gd_gi", step, released_partition=True)
        counts = [drawn.count(tag) for tag in (12, 13, 123, 1)]
        assert sum(counts) == N
        seen.add(tuple(np.cumsum(counts)[:3]))
    assert {a for a, _, _ in seen} == set(range(1, 5))
    assert {b for _, b, _ in seen} == set(range(5, 10))
    assert {c for _, _, c in seen} == set(range(10, 15))


def test_draws_differ_between_transforms_purposes_and_steps():
    def draw(name, purpose, step):
        params = augmenter()._draw(name, Batch(tf.zeros([N, 4, 4, 1]), None), tf.constant(step, tf.int64), purpose)
        return tuple(params["draw"].numpy())

    assert len({draw("affine", "labelled", 0), draw("elastic", "labelled", 0), draw("affine", "real", 0)}) == 3
    assert draw("affine", "labelled", 0) != draw("affine", "labelled", 1)
    assert draw("affine", "labelled", 1) == draw("affine", "labelled", 1)


def test_the_two_generators_share_z():
    """X_VI is G_I applied to X_V with the same z (released program)."""
    seen = {}

    def generate(kind, channels):
        def field(image, z):
            seen.setdefault(kind, []).append(z.numpy())
            return tf.zeros(image.shape[:3] + [channels])

        return field

    transforms = {kind: Learned(kind, generate(kind, c)) for kind, c in (("deform", 2), ("intensity", 1))}
    transforms["affine"] = Tag(1)
    one = Augmenter(transforms, lambda purpose, step: seed_at(0, purpose, step))
    batch = Batch(tf.zeros([N, 4, 4, 1]), tf.zeros([N, 4, 4, 4]))
    one.method(METHODS["aff_gd_gi"])(batch, tf.constant(0, tf.int64), "labelled")
    np.testing.assert_array_equal(seen["deform"][1], seen["intensity"][1])
    assert not np.array_equal(seen["deform"][0], seen["deform"][1][:3])
