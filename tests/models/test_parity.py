"""The networks and losses against the numbers that the released program's graph computes."""

import zlib

import numpy as np
import pytest
import reference
import tensorflow as tf

from tfaug import losses
from tfaug.augment.learned import transform_image
from tfaug.compat import keras
from tfaug.models.discriminator import discriminator
from tfaug.models.generator import generator
from tfaug.models.unet import unet

CLASS_WEIGHTS = (0.1, 0.3, 0.3, 0.3)
DENSE = {"gen_fc": "gen_c1"}  # our layer names where they differ from the released program's


@pytest.fixture(scope="module")
def numbers():
    return reference.load("networks.npz")


@pytest.fixture(scope="module")
def inputs(numbers):
    batch, size = numbers["deform_image"].shape[:2]
    seed = int(numbers["seed"]) * 10

    def stream(index):
        return np.random.RandomState(seed + index)

    image = stream(1).uniform(size=(batch, size, size, 1)).astype(np.float32)
    unlabelled = stream(2).uniform(size=(batch, size, size, 1)).astype(np.float32)
    z = stream(3).normal(size=(batch, 100)).astype(np.float32)
    label = np.eye(4, dtype=np.float32)[stream(4).randint(0, 4, size=(batch, size, size))]
    return image, unlabelled, z, label


def released_name(layer, weight):
    """The released program's name of a Keras weight."""
    kind = weight.name.split("/")[-1].split(":")[0]
    if isinstance(layer, keras.layers.Dense):
        return f"{DENSE.get(layer.name, layer.name)}_{'weights' if kind == 'kernel' else 'biases'}"
    if isinstance(layer, keras.layers.Conv2D):
        return f"{layer.name}/{'W' if kind == 'kernel' else 'b'}"
    return f"{layer.name[: -len('_bn')]}/{layer.name}/{kind}"


def fill(model, seed):
    """Gives every trainable weight its reference value; returns {released name: variable}."""
    named = {}
    for layer in model.layers:
        for weight in layer.trainable_weights:
            name = released_name(layer, weight)
            draw = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32).normal(size=weight.shape)
            if name.endswith("gamma"):
                value = 1 + 0.1 * draw
            elif name.endswith(("beta", "/b", "biases")):
                value = 0.1 * draw
            else:
                value = draw * np.sqrt(2 / np.prod(weight.shape[:-1]))
            weight.assign(value)
            named[name] = weight
    return named


def build(kind, numbers):
    size, seed = numbers["deform_image"].shape[1], int(numbers["seed"])
    models = (
        generator(kind, size, half_pixel_centers=False),
        discriminator(size),
        unet(size, 4, half_pixel_centers=False),
    )
    return models, [fill(model, seed) for model in models]


def check_gradient_norms(numbers, prefix, named, gradients):
    """Every gradient norm within 1 %; biases that we leave out have none to compare but must have been zero."""
    expected = dict(zip(numbers[f"{prefix}_grad_names"], numbers[f"{prefix}_grad_norms"]))
    assert set(named) <= set(expected)
    largest = max(expected.values())
    for name in set(expected) - set(named):
        assert name.endswith("/b") and expected[name] < 1e-4 * largest, name
    for name, gradient in zip(named, gradients):
        np.testing.assert_allclose(np.linalg.norm(gradient), expected[name], rtol=0.01, err_msg=name)


@pytest.mark.parametrize("kind", ["deform", "intensity"])
def test_fields_images_losses_and_gradients(kind, numbers, inputs):
    image, unlabelled, z, label = inputs
    (g, d, s), (g_named, d_named, s_named) = build(kind, numbers)
    with tf.GradientTape(persistent=True) as tape:
        field = g([image, z], training=True)
        generated = transform_image(kind, image, field)
        d_logits = d(tf.concat([generated, unlabelled], 0), training=True)
        fake, real = tf.split(d_logits, 2)
        d_loss = losses.discriminator_loss(fake, real)
        g_loss = losses.adversarial_loss(fake, "non_saturating") + 1e-3 * losses.big_loss(field)
        logits = s(image, training=True)
        seg_loss = losses.segmentation_loss(logits, label, CLASS_WEIGHTS)

    np.testing.assert_allclose(field, numbers[f"{kind}_field"], atol=1e-3)
    np.testing.assert_allclose(generated, numbers[f"{kind}_image"], atol=1e-3)
    np.testing.assert_allclose(d_logits, numbers[f"{kind}_d_logits"], atol=1e-3)
    np.testing.assert_allclose(logits, numbers["unet_logits"], atol=1e-3)
    np.testing.assert_allclose(d_loss, numbers[f"{kind}_d_loss"], rtol=1e-4)
    np.testing.assert_allclose(g_loss, numbers[f"{kind}_g_loss"], rtol=1e-4)
    np.testing.assert_allclose(seg_loss, numbers[f"{kind}_seg_loss"], rtol=1e-4)
    np.testing.assert_allclose(g_loss + seg_loss, numbers[f"{kind}_g_net"], rtol=1e-4)

    for network, named, loss in (("gen", g_named, g_loss), ("disc", d_named, d_loss), ("seg", s_named, seg_loss)):
        if kind == "intensity" and network == "seg":
            continue  # the same number as with "deform", so it is stored there alone
        gradients = tape.gradient(loss, list(named.values()))
        check_gradient_norms(numbers, f"{kind}_{network}", named, gradients)


@pytest.mark.parametrize(
    "model, expected",
    [
        (lambda: unet(224, 4), 1_949_508),
        (lambda: generator("deform", 224), 753_618),
        (lambda: generator("intensity", 224), 753_344),
        (lambda: discriminator(224), 1_499_489),
    ],
)
def test_parameter_counts_at_224(model, expected):
    """As in the released program, less the biases before norms, one per channel."""
    model = model()
    trainable = sum(np.prod(weight.shape) for weight in model.trainable_weights)
    biases = sum(
        np.prod(layer.gamma.shape) for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)
    )
    assert trainable + biases == expected
