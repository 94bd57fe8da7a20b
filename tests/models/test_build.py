import sys

import numpy as np
import pytest
import tensorflow as tf

from tfaug import models
from tfaug.compat import keras
from tfaug.engine.errors import UserError
from tfaug.models.blocks import frozen_statistics

OPTIONS = {"filters": 2, "half_pixel_centers": True, "norm_momentum": 0.9, "head_scale": 0.5}

OWN = """
import tensorflow as tf
from tfaug.compat import keras

def tiny(image_size, num_classes, channels, seed, filters=1):
    image = keras.Input((image_size, image_size, channels))
    x = keras.layers.Conv2D(filters, 3, padding="same")(image)
    return keras.Model(image, keras.layers.Conv2D(num_classes, 1, name=f"head_{filters}")(x))

def any_size(num_classes, channels, **options):
    image = keras.Input((None, None, channels))
    return keras.Model(image, keras.layers.Conv2D(num_classes, 1)(image))

def field(kind, image_size, channels, seed):
    image, z = keras.Input((image_size, image_size, channels)), keras.Input((100,))
    return keras.Model([image, z], keras.layers.Conv2D(2, 3, padding="same")(image))

def rows(channels, **options):
    return keras.layers.TimeDistributed(keras.layers.GRU(channels, return_sequences=True, **options))

def random(image_size, num_classes, channels, seed, layer="Dropout"):
    image = keras.Input((image_size, image_size, channels))
    x = {
        "Dropout": lambda x: keras.layers.Dropout(0.5, seed=3)(x),
        "SpatialDropout2D": lambda x: keras.layers.SpatialDropout2D(0.5)(x),
        "GaussianNoise": lambda x: keras.layers.GaussianNoise(1.0)(x),
        "RandomFlip": lambda x: keras.layers.RandomFlip()(x),
        "GRU": lambda x: rows(channels, dropout=0.5)(x),
        "nested": lambda x: keras.Sequential([keras.layers.Dropout(0.5)])(x),
        "off": lambda x: rows(channels)(keras.layers.GaussianNoise(0.0)(keras.layers.Dropout(0.0)(x))),
    }[layer](image)
    return keras.Model(image, keras.layers.Conv2D(num_classes, 1)(x))

def random_field(kind, image_size, channels, seed):
    image, z = keras.Input((image_size, image_size, channels)), keras.Input((100,))
    x = keras.layers.Dropout(0.5, seed=3)(keras.layers.GaussianNoise(0.1)(image))
    return keras.Model([image, z], keras.layers.Conv2D(2, 3, padding="same")(x))

def without_classes(image_size, channels, seed):
    raise AssertionError("not to be called")

def too_few_classes(image_size, num_classes, channels, seed):
    return tiny(image_size, num_classes - 1, channels, seed)

def half(image_size, num_classes, channels, seed):
    image = keras.Input((image_size, image_size, channels))
    return keras.Model(image, keras.layers.Conv2D(num_classes, 1, dtype="float16")(image))

def two_outputs(image_size, num_classes, channels, seed):
    image = keras.Input((image_size, image_size, channels))
    logits = keras.layers.Conv2D(num_classes, 1)(image)
    return keras.Model(image, [logits, logits])

def broken(image_size, num_classes, channels, seed):
    return 1 / 0

def layer(image_size, num_classes, channels, seed):
    return keras.layers.Conv2D(num_classes, 1)

class subclass(keras.Model):
    def __init__(self, image_size, num_classes, channels, seed):
        super().__init__()
        self.head = keras.layers.Conv2D(num_classes, 1)

    def call(self, x):
        return self.head(x)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's module `own`, in the working directory."""
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own", None)


def segmenter(name, **changes):
    arguments = {"image_size": 32, "num_classes": 3, "channels": 2, "seed": 1, **changes}
    return models.build("segmenter", name, OPTIONS, **arguments)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("num_classes", [2, 6])
def test_networks_follow_the_channels_of_the_image_and_the_classes_of_the_task(num_classes, channels):
    image = tf.random.stateless_normal([2, 32, 32, channels], [1, 2])
    z = tf.random.stateless_normal([2, 100], [3, 4])
    sizes = {"image_size": 32, "channels": channels, "seed": 0}
    assert segmenter("unet", num_classes=num_classes, channels=channels)(image).shape == (2, 32, 32, num_classes)
    for kind, depth in (("deform", 2), ("intensity", channels)):
        field = models.build("generator", "conditional", OPTIONS, kind=kind, **sizes)([image, z])
        assert field.shape == (2, 32, 32, depth)
    assert models.build("discriminator", "dcgan", OPTIONS, **sizes)(image).shape == (2, 1)


def test_each_channel_of_an_intensity_field_is_its_own():
    model = models.build("generator", "conditional", OPTIONS, kind="intensity", image_size=32, channels=2, seed=0)
    inputs = [tf.random.stateless_normal(shape, [1, 2]) for shape in ((2, 32, 32, 2), (2, 100))]
    field = model(inputs, training=True).numpy()
    assert np.abs(field).max() < 1
    assert not np.allclose(field[..., 0], field[..., 1], atol=1e-3)


def test_options_reach_a_network_that_has_them(own):
    assert segmenter("own:tiny").get_layer("head_2")
    assert segmenter("unet").get_layer("enc_c1_a").filters == 2
    assert segmenter("unet").get_layer("enc_c1_a_bn").momentum == 0.9


@pytest.mark.parametrize(
    "name, words",
    [
        ("unett", ["unet", "module:name"]),
        ("own:without_classes", ["num_classes"]),
        ("own:too_few_classes", ["outputs", "32, 32, 2", "32, 32, 3"]),
        ("own:any_size", ["inputs", "(None, None, None, 2)", "keras.Input((image_size, image_size, channels))"]),
        ("own:half", ["float16", "float32"]),
        ("own:two_outputs", ["outputs"]),
        ("own:broken", ["ZeroDivisionError"]),
        ("own:layer", ["Conv2D", "keras.Model"]),
        ("own:subclass", ["keras.Model(inputs, outputs)"]),
        ("own:keras", ["own:keras"]),
    ],
)
def test_a_network_that_does_not_fit_is_refused_in_one_line(name, words, own):
    with pytest.raises(UserError) as error:
        segmenter(name)
    text = str(error.value)
    assert text.startswith("model.segmenter: ") and "\n" not in text
    assert all(word in text for word in words), text


def test_a_generator_has_one_intensity_field_a_channel(own):
    sizes = {"image_size": 32, "channels": 3, "seed": 0}
    models.build("generator", "own:field", {}, kind="deform", **sizes)
    with pytest.raises(UserError, match="model.generator: own:field has outputs"):
        models.build("generator", "own:field", {}, kind="intensity", **sizes)


def test_frozen_statistics_reach_norms_within_a_nested_model():
    inner = segmenter("unet")
    image = keras.Input((32, 32, 2))
    outer = keras.Model(image, inner(image))
    before = [value.numpy() for value in inner.non_trainable_variables]
    with frozen_statistics(outer):
        outer(tf.random.stateless_normal([2, 32, 32, 2], [1, 2]), training=True)
    assert all(np.array_equal(a, b) for a, b in zip(before, inner.non_trainable_variables))


@pytest.mark.parametrize(
    "layer, found",
    [(name, [name]) for name in ("Dropout", "SpatialDropout2D", "GaussianNoise", "RandomFlip")]
    + [("nested", ["Dropout"]), ("GRU", ["GRU", "GRUCell"]), ("off", [])],
)
def test_layers_that_draw_at_random_are_found(layer, found, own):
    import own as users

    assert models.random_layers(users.random(32, 3, 2, 0, layer)) == found
    assert models.random_layers(segmenter("unet")) == []


def test_a_generator_that_draws_at_random_is_refused_in_one_line(own):
    with pytest.raises(UserError) as error:
        models.build("generator", "own:random_field", {}, kind="deform", image_size=32, channels=1, seed=0)
    text = str(error.value)
    assert text.startswith("model.generator: own:random_field draws at random within (Dropout, GaussianNoise)")
    assert "\n" not in text
    assert segmenter("own:random")  # it is a warning
