"""What every transform promises, whichever it is."""

import numpy as np
import pytest
import tensorflow as tf

from tfaug import streams
from tfaug.augment.affine import Affine
from tfaug.augment.elastic import Elastic
from tfaug.augment.intensity import ContrastBrightness
from tfaug.augment.mixup import MixUp
from tfaug.types import Batch

SIZE = (48, 64)
TRANSFORMS = [Affine(), Elastic(), ContrastBrightness(), MixUp()]


def random_batch(num_slices=6, channels=1, num_classes=4):
    rng = np.random.default_rng(0)
    image = rng.random((num_slices, *SIZE, channels), np.float32)
    label = np.eye(num_classes, dtype=np.float32)[rng.integers(0, num_classes, (num_slices, *SIZE))]
    return Batch(tf.constant(image), tf.constant(label))


def off_centre_disc():
    """An image that equals its LV mask."""
    rows, columns = np.indices(SIZE)
    disc = (rows - 17) ** 2 + (columns - 42) ** 2 < 10**2
    label = np.eye(4, dtype=np.float32)[3 * disc.astype(int)]
    return Batch(tf.constant(disc[None, ..., None], tf.float32), tf.constant(label[None]))


def dice(a, b):
    return 2 * np.sum(a & b) / (np.sum(a) + np.sum(b))


def parametrize_transform(function):
    return pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)(function)


@parametrize_transform
def test_a_draw_is_a_function_of_its_seed(transform):
    batch = random_batch()
    first, again, other = (transform.sample(batch, streams.key(seed, "test")) for seed in (1, 1, 2))
    for name, values in first.items():
        assert values.shape[0] == 6
        np.testing.assert_array_equal(values, again[name])
    assert any(np.any(values != other[name]) for name, values in first.items())


@parametrize_transform
def test_each_slice_has_its_own_draw(transform):
    draws = transform.sample(random_batch(64), streams.key(0, "test"))
    for name, values in draws.items():
        assert len(np.unique(values, axis=0)) > 1, name


@parametrize_transform
def test_runs_in_a_tf_data_map_as_it_does_eagerly(transform):
    batch = random_batch()
    seed = streams.key(3, "test")
    eager = transform.apply(batch, transform.sample(batch, seed))

    # .batch leaves the number of slices unknown while the graph is built.
    dataset = tf.data.Dataset.from_tensor_slices(batch).batch(6)
    dataset = dataset.map(lambda slices: transform.apply(slices, transform.sample(slices, seed)))
    assert dataset.element_spec == Batch(
        tf.TensorSpec([None, *SIZE, 1], tf.float32), tf.TensorSpec([None, *SIZE, 4], tf.float32)
    )
    (mapped,) = dataset
    np.testing.assert_allclose(mapped.image, eager.image, atol=1e-6)
    np.testing.assert_allclose(mapped.label, eager.label, atol=1e-6)


@parametrize_transform
@pytest.mark.parametrize("num_classes", [2, 4, 7])
def test_labels_stay_distributions(transform, num_classes):
    batch = random_batch(num_classes=num_classes)
    label = transform.apply(batch, transform.sample(batch, streams.key(4, "test"))).label.numpy()
    assert label.shape == (6, *SIZE, num_classes) and label.min() >= 0
    np.testing.assert_allclose(label.sum(-1), 1, atol=1e-6)


@parametrize_transform
def test_each_channel_is_transformed_as_it_would_be_alone(transform):
    """By the same draw: channels stay on one grid, and none leaks into another."""
    batch = random_batch(channels=3)
    params = transform.sample(batch, streams.key(5, "test"))
    whole = transform.apply(batch, params)
    for channel in range(3):
        alone = transform.apply(Batch(batch.image[..., channel : channel + 1], batch.label), params)
        np.testing.assert_allclose(whole.image[..., channel], alone.image[..., 0], atol=1e-6)
        np.testing.assert_array_equal(whole.label, alone.label)


def affine(angle=0.0, scale=1.0, flip=False):
    return {"angle": tf.constant([angle]), "scale": tf.constant([scale]), "flip": tf.constant([flip])}


@pytest.mark.parametrize(
    "transform, params",
    [
        (Affine(), affine(angle=15.0)),
        (Affine(), affine(angle=-135.0)),
        (Affine(), affine(scale=1.3)),
        (Affine(), affine(flip=True)),
        (Elastic(), {"grid": 4 * tf.random.stateless_normal([1, 3, 3, 2], streams.key(0, "grid"))}),
    ],
)
def test_image_and_label_move_together(transform, params):
    before = off_centre_disc()
    after = transform.apply(before, params)
    moved_image, moved_label = after.image.numpy()[..., 0] > 0.5, after.label.numpy()[..., 3] > 0.5
    assert dice(moved_image, moved_label) > 0.98
    assert dice(moved_label, before.label.numpy()[..., 3] > 0.5) < 0.9
