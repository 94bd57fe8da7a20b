import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfaug import losses
from tfaug.data import pipeline
from tfaug.types import Batch

SIZE, CLASSES = 8, 6


def numbered_slices(num_slices, with_label=True, first=0):
    """Slice s holds the number `first` + s, and its negative as second channel; its label is the class s % CLASSES."""
    numbers = np.arange(first, first + num_slices)
    image = np.broadcast_to(numbers[:, None, None], (num_slices, SIZE, SIZE)).astype(np.float32)
    label = (image % CLASSES).astype(np.uint8) if with_label else None
    return pipeline.slices([np.stack([image, -image], axis=-1)], None if label is None else [label])


def keep(batch, step, purpose):
    return batch


def step_of(number):
    return tf.constant(number, tf.int64)


@pytest.mark.parametrize("num_slices", [1, 7, 20, 33])
def test_every_epoch_shows_every_slice_once_in_a_new_order(num_slices):
    drawn = np.concatenate([pipeline.indices(num_slices, 20, step_of(s), 0, "x") for s in range(2 * num_slices)])
    epochs = drawn.reshape(-1, num_slices)
    assert (np.sort(epochs, axis=1) == np.arange(num_slices)).all()
    if num_slices > 2:
        assert len({tuple(epoch) for epoch in epochs}) > len(epochs) // 2


def test_seed_and_purpose_each_give_another_order():
    def draw(seed, purpose):
        return tuple(pipeline.indices(50, 20, step_of(3), seed, purpose).numpy())

    assert draw(0, "a") == draw(0, "a")
    assert len({draw(0, "a"), draw(1, "a"), draw(0, "b")}) == 3


def test_image_and_label_come_from_the_same_slice():
    batch = pipeline.labelled_batches(numbered_slices(9), CLASSES, 20, keep, seed=0)(step_of(0))
    assert batch.image.shape == (20, SIZE, SIZE, 2) and batch.label.shape == (20, SIZE, SIZE, CLASSES)
    np.testing.assert_array_equal(np.argmax(batch.label, -1), batch.image[..., 0].numpy() % CLASSES)
    np.testing.assert_array_equal(batch.image[..., 1], -batch.image[..., 0])
    np.testing.assert_array_equal(np.sum(batch.label, -1), 1)


def test_iterating_from_the_middle_gives_what_iterating_from_the_start_gave():
    def shift(batch, step, purpose):
        noise = tf.random.stateless_normal(batch.image.shape, pipeline.seed_at(0, purpose, step))
        return Batch(batch.image + noise, batch.label)

    make = pipeline.generator_batches(numbered_slices(5), [numbered_slices(9, False)], CLASSES, 6, shift, seed=4)
    from_start, from_three = pipeline.iterate(make, 0), pipeline.iterate(make, 3)
    whole = [next(from_start) for _ in range(5)]
    for late in whole[3:]:
        for a, b in zip(tf.nest.flatten(late), tf.nest.flatten(next(from_three))):
            np.testing.assert_array_equal(a, b)
    assert not np.array_equal(whole[0].z, whole[1].z)


def test_ending_an_iterator_does_not_wait_for_a_tuner():
    options = pipeline.dataset(lambda step: step, 0).options()
    assert options.autotune.enabled is False


def test_generator_batch_takes_labelled_and_real_from_their_own_pools():
    make = pipeline.generator_batches(
        numbered_slices(5), [numbered_slices(9, False, first=100)], CLASSES, 8, keep, seed=0
    )
    batch = make(step_of(0))
    assert batch.labelled.image[..., 0].numpy().max() < 100 <= batch.real[..., 0].numpy().min()
    assert batch.real.shape == (8, SIZE, SIZE, 2) and batch.z.shape == (8, 100)
    assert batch.num_original == 4


def test_a_pack_of_draws_is_one_labelled_slice_under_different_z():
    make = pipeline.generator_batches(
        numbered_slices(7), [numbered_slices(9, False)], CLASSES, 6, keep, seed=0, repeats=3
    )
    seen = set()
    for step in range(7):
        batch = make(step_of(step))
        packs = losses.packed(batch.labelled.image, 3).numpy()
        assert packs.shape[0] == 2 and (packs == packs[..., [0, 1] * 3]).all()
        assert len({*batch.z.numpy()[:, 0]}) == 6
        seen.update(packs[:, 0, 0, 0])
    assert len(seen) == 7
    assert len({*batch.labelled.image.numpy()[: batch.num_original, 0, 0, 0]}) == 2  # S sees all slices of the batch


def test_pools_of_scans_have_equal_shares_of_a_batch_however_large_they_are():
    pools = [numbered_slices(3, False, first=100), numbered_slices(30, False, first=200)]
    make = pipeline.generator_batches(numbered_slices(5), pools, CLASSES, 8, keep, seed=0)
    seen = set()
    for step in range(20):
        real = make(step_of(step)).real[..., 0].numpy().max((1, 2))
        assert (real[:4] < 200).all() and (real[4:] >= 200).all()
        seen.update(real)
    assert len(seen) == 33


def test_released_partition_keeps_5_to_14_of_20_original():
    make = pipeline.generator_batches(
        numbered_slices(5), [numbered_slices(5, False)], CLASSES, 20, keep, seed=0, released_partition=True
    )
    drawn = {int(make(step_of(step)).num_original) for step in range(120)}
    assert drawn == set(range(5, 15))


def test_an_adversarial_batch_has_labelled_slices_and_unlabelled_ones():
    labelled, unlabelled = numbered_slices(5), numbered_slices(9, False, first=100)
    batch = pipeline.adversarial_batches(labelled, unlabelled, CLASSES, 8, keep, seed=0)(step_of(0))
    assert np.max(batch.labelled.image[..., 0]) < 100 <= np.min(batch.unlabelled[..., 0])


def test_z_is_normal():
    pools = [numbered_slices(9, False)]
    make = pipeline.generator_batches(numbered_slices(5), pools, CLASSES, 20, keep, seed=4)
    z = np.ravel([make(step_of(number)).z for number in range(5)])
    assert stats.kstest(z, "norm").pvalue > 1e-3
