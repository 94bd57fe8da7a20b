import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfaug import streams


def test_a_stream_is_the_same_in_every_process_and_release():
    assert streams.key(0, "affine", 3).tolist() == [-4651522270662409166, -2075059765796950216]
    assert streams.generator(0, "affine", 3).integers(0, 1000, 4).tolist() == [733, 379, 927, 712]
    assert streams.scalar_seed(0, "affine", 3) == 1079591986


def test_a_stream_starts_anew_whatever_was_drawn_before():
    first = streams.generator(7, "z")
    first.normal(size=10)
    expected = streams.generator(7, "z").normal(size=3)
    state = np.random.get_state()[1].copy()
    np.testing.assert_array_equal(streams.generator(7, "z").normal(size=3), expected)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize(
    "one, other",
    [
        ((0, "z", 3), (1, "z", 3)),
        ((0, "z", 3), (0, "affine", 3)),
        ((0, "z", 3), (0, "z", 4)),
        ((0, "z", 3), (0, "z")),
        ((0, "z", 1, 23), (0, "z", 12, 3)),
        ((1, "z", 2), (2, "z", 1)),
    ],
    ids=["seed", "purpose", "step", "depth", "digits", "order"],
)
def test_every_part_of_the_name_tells_streams_apart(one, other):
    assert not (streams.key(*one) == streams.key(*other)).any()
    assert (streams.generator(*one).random(8) != streams.generator(*other).random(8)).all()


def test_neighbouring_streams_are_uniform_and_unrelated():
    draws = np.array([[streams.generator(s, "z", n).random() for n in range(1000)] for s in range(2)])
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 1e-3
    for a, b in itertools.combinations([draws[0, :-1], draws[0, 1:], draws[1, :-1]], 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(a.size)


def test_a_key_seeds_tensorflow():
    draws = [tf.random.stateless_uniform([8], streams.key(0, purpose)).numpy() for purpose in ("z", "z", "affine")]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).all()


def test_scalar_seeds_fit_a_31_bit_integer():
    seeds = [streams.scalar_seed(0, "weights", n) for n in range(200)]
    assert len(set(seeds)) == 200
    assert 0 <= min(seeds) and 2**30 < max(seeds) < 2**31
