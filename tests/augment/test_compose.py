import numpy as np
import pytest
import tensorflow as tf

from tfaug.augment.compose import Augmenter
from tfaug.augment.learned import Learned
from tfaug.augment.methods import METHODS, Method
from tfaug.data.pipeline import seed_at
from tfaug.types import Batch

N = 20


class Tag:
    """Writes its number, a hexadecimal digit, and its draw into a batch of zeros: a test can read what was done."""

    def __init__(self, number):
        self.number = number

    def sample(self, batch, seed):
        return {"draw": tf.random.stateless_uniform([batch.image.shape[0]], seed)}

    def apply(self, batch, params):
        return Batch(batch.image * 16 + self.number, batch.label + params["draw"][:, None, None, None])


class Keep:
    def sample(self, batch, seed):
        return {}

    def apply(self, batch, params):
        return batch


def augmenter(**changes):
    names = ("affine", "deform", "intensity", "elastic", "contrast_brightness", "mixup")
    transforms = {name: Tag(number) for number, name in enumerate(names, start=1)}
    more = ("deform_noreg", "intensity_noreg", "histogram", "scale", "elastic_strong", "contrast_brightness_strong")
    transforms.update({name: Tag(number) for number, name in enumerate(more, start=7)})
    return Augmenter(transforms, lambda purpose, step: seed_at(0, purpose, step), **changes)


def tags(name, step=0, **changes):
    """For each slice, the numbers of the transforms that were applied to it, in their order, as hexadecimal digits."""
    zeros = Batch(tf.zeros([N, 4, 4, 1]), tf.zeros([N, 4, 4, 4]))
    batch = augmenter(**changes).method(METHODS[name])(zeros, tf.constant(step, tf.int64), "labelled")
    return [f"{int(tag):x}" for tag in batch.image[:, 0, 0, 0].numpy()]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("none", [0] * 20),
        ("aff", [1] * 20),
        ("aff_gd", [1] * 10 + [12] * 10),
        ("aff_gi", [1] * 10 + [13] * 10),
        ("aff_gd_gi", [1] * 10 + [12] * 3 + [13] * 3 + [123] * 4),
        ("aff_rd", [1] * 10 + [14] * 10),
        ("aff_ri", [1] * 10 + [15] * 10),
        ("aff_gd_noreg", [1] * 10 + [17] * 10),
        ("aff_gi_noreg", [1] * 10 + [18] * 10),
        ("aff_rd_ri", [1] * 10 + [14] * 3 + [15] * 3 + [145] * 4),
        ("aff_hm_rd", [1] * 10 + [14] * 3 + [19] * 3 + [149] * 4),
        ("aff_strong", [1] * 10 + ["1abc"] * 10),
        ("aff_strong_gd_gi", [1] * 10 + ["1abc23"] * 10),
        ("aff_mixup", [1] * 10 + [16] * 10),
        ("aff_gd_gi_mixup", [1] * 10 + [126] * 3 + [136] * 3 + [1236] * 4),
        ("adv_sl", [1] * 20),
        ("adv_ssl", [1] * 20),
    ],
)
def test_rows_compose_the_batch(name, expected):
    """1 affine, 2 deform, 3 intensity, 4 elastic, 5 contrast and brightness, 6 mixup, 7 and 8 without L_reg:
    half real, half generated, shared evenly by the recipes."""
    assert tags(name) == [str(tag) for tag in expected]


def test_composed_the_whole_generated_half_gets_all_transforms_in_turn():
    def composed(name):
        return tags(name, partition="composed")

    assert composed("aff_gd_gi") == ["1"] * 10 + ["123"] * 10
    assert composed("aff_rd_ri") == ["1"] * 10 + ["145"] * 10
    assert composed("aff_hm_rd") == ["1"] * 10 + ["149"] * 10
    for name in ("none", "aff", "aff_gd", "aff_mixup", "aff_strong"):
        assert composed(name) == tags(name)


@pytest.mark.parametrize("changes", [{}, {"partition": "released"}, {"partition": "composed"}])
def test_names_tell_what_was_done(changes):
    digits = {"affine": 1, "deform": 2, "intensity": 3, "elastic": 4, "contrast_brightness": 5, "mixup": 6}
    digits.update(original=0, deform_noreg=7, intensity_noreg=8, histogram=9, scale=10, elastic_strong=11)
    digits.update(contrast_brightness_strong=12)
    for name, method in METHODS.items():
        for step in range(3):
            names = augmenter(**changes).names(method, N, tf.constant(step, tf.int64), "labelled")
            told = [[digits[word] for word in text.split("+")] for text in names]
            done = [[int(digit, 16) for digit in tag] for tag in tags(name, step, **changes)]
            assert [tag if name == "none" or tag[0] == 1 else [1, *tag] for tag in told] == done


def test_released_partition_draws_its_boundaries():
    """20 slices: X_V ends in 1..4, X_I in 5..9, X_VI in 10..14, the rest stays affine."""
    seen = set()
    for step in range(60):
        drawn = tags("aff_gd_gi", step, partition="released")
        counts = [drawn.count(tag) for tag in ("12", "13", "123", "1")]
        assert sum(counts) == N
        seen.add(tuple(np.cumsum(counts)[:3]))
    assert {a for a, _, _ in seen} == set(range(1, 5))
    assert {b for _, b, _ in seen} == set(range(5, 10))
    assert {c for _, _, c in seen} == set(range(10, 15))


def test_draws_differ_between_transforms_purposes_recipes_and_steps():
    def draws(name, purpose="labelled", step=0):
        zeros = Batch(tf.zeros([N, 4, 4, 1]), tf.zeros([N, 4, 4, 4]))
        batch = augmenter().method(METHODS[name])(zeros, tf.constant(step, tf.int64), purpose)
        return batch.label[:, 0, 0, 0].numpy()  # the sum of the draws of each slice

    affine = draws("aff")
    assert np.array_equal(affine, draws("aff"))
    assert not np.isin(draws("aff", step=1), affine).any()
    assert not np.isin(draws("aff", purpose="real"), affine).any()
    assert np.array_equal(draws("aff_rd")[:10], affine[:10])
    recipes = draws("aff_gd_gi") - affine
    assert len(np.unique(np.round(recipes[10:16], 5))) == 6  # X_V and X_I have z of their own
    assert not np.allclose(draws("aff_rd")[10:] - affine[10:], draws("aff_ri")[10:] - affine[10:])


@pytest.mark.parametrize(
    "method",
    [
        Method(generated=(("elastic",), ("elastic",), ("contrast_brightness",))),
        Method(generated=(("elastic", "elastic"), ("elastic", "elastic"))),
        Method(("elastic", "elastic")),
        Method(("mixup",), mixup=True),
        Method(generated=(("deform", "intensity"), ("deform", "intensity"), ("deform", "deform"))),
        METHODS["aff_strong_gd_gi"],
    ],
)
def test_what_occurs_twice_in_a_method_draws_anew_and_alone_the_generators_share_z(method):
    seeds = []

    class Seen(Keep):
        def __init__(self, name):
            self.name = name

        def sample(self, batch, seed):
            seeds.append((self.name, *seed.numpy().tolist()))
            return {}

    one = Augmenter({name: Seen(name) for name in method.transforms}, lambda purpose, step: seed_at(0, purpose, step))
    one.method(method)(Batch(tf.zeros([N, 4, 4, 1]), tf.zeros([N, 4, 4, 4])), tf.constant(0, tf.int64), "labelled")
    together = [k for k, (name, *_) in enumerate(seeds) if name == "intensity"]
    assert all(seeds[k][1:] == seeds[k - 1][1:] for k in together)
    alone = [seed for _, *seed in (one for k, one in enumerate(seeds) if k not in together)]
    assert len(alone) > 1 and len({tuple(seed) for seed in alone}) == len(alone)


@pytest.mark.parametrize("partition", ["even", "composed", "released"])
@pytest.mark.parametrize("number", range(1, 8))
def test_from_the_smallest_batch_on_every_recipe_gets_a_slice_at_every_step(partition, number):
    method = Method(generated=tuple((f"transform{k}",) for k in range(number)))
    recipes, least = len(method.recipes(partition)), method.smallest_batch(partition)

    def fewest(batch_size):
        steps = range(40 if partition == "released" and number == 3 else 1)
        return min(int(min(augmenter(partition=partition).shares(batch_size, recipes, k, "x")[1:])) for k in steps)

    assert all(fewest(batch_size) >= 1 for batch_size in range(least, least + 6))
    assert least == 1 or fewest(least - 1) == 0


def test_mixup_partners_come_from_the_whole_batch():
    class FromFirst:
        def sample(self, batch, seed):
            assert batch.image.shape[0] == N
            return {}

        def apply(self, batch, params):
            return Batch(batch.image + batch.image[:1] + 1, batch.label)

    batch = Batch(tf.reshape(tf.range(N, dtype=tf.float32), [N, 1, 1, 1]), tf.zeros([N, 1, 1, 4]))
    one = Augmenter({"affine": Keep(), "mixup": FromFirst()}, lambda purpose, step: seed_at(0, purpose, step))
    mixed = one.method(METHODS["aff_mixup"])(batch, tf.constant(0, tf.int64), "labelled")
    assert mixed.image[:, 0, 0, 0].numpy().tolist() == [*range(10), *range(11, 21)]


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
    v, vi = seen["deform"]
    i, vi_again = seen["intensity"]
    np.testing.assert_array_equal(vi, vi_again)
    assert not np.isin(v, vi).any() and not np.isin(v, i).any()
