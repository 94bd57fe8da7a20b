"""The update rules by name, the user's own among them, for any number of classes and channels."""

import functools
import pathlib
import re
import sys

import numpy as np
import pytest
import tensorflow as tf
from fast_networks import discriminator, generator, segmenter

from tfaug import steps
from tfaug.augment import methods
from tfaug.augment.methods import METHODS
from tfaug.engine.errors import UserError
from tfaug.types import AdversarialBatch, Batch, GeneratorBatch

SIZE, N = 32, 4

OWN = """
import tensorflow as tf
from tfaug import losses
from tfaug.steps import Rule, adam, descend

class Smoothed(tf.Module):
    def __init__(self, setup):
        super().__init__()
        self.segmenter, self.weights = setup.segmenter, setup.class_weights
        self.optimizer = adam(setup.segmenter, setup.learning_rate)

    def __call__(self, batch, index):
        return self.update(batch)

    @tf.function
    def update(self, batch):
        label = 0.9 * batch.label + 0.1 / batch.label.shape[-1]
        with tf.GradientTape() as tape:
            loss = losses.segmentation_loss(self.segmenter(batch.image, training=True), label, self.weights)
        descend(self.optimizer, tape, loss, self.segmenter.trainable_variables)
        return {"loss/segmentation": loss}

class Unnamed(tf.Module):
    def __init__(self, setup):
        super().__init__()
        self.model = setup.segmenter

    def __call__(self, batch, index):
        raise AssertionError("not to be called")

smoothed = Rule(Smoothed)
no_segmenter = Rule(Unnamed)
unlabelled = Rule(Smoothed, unlabelled=True)
no_rule = Smoothed
no_arguments = Rule(lambda: None)
no_step = Rule(lambda setup: setup.segmenter.summary)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A user's module `own`, in the working directory."""
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own", None)


def setup_of(num_classes=3, channels=2):
    build = functools.partial(discriminator, SIZE, seed=3)
    weights = tuple(np.full(num_classes, 1 / num_classes))
    return steps.Setup(segmenter(SIZE, num_classes, channels, seed=1), build, 1e-3, weights, 0.1)


def labelled_batch(num_classes=3, channels=2):
    rng = np.random.RandomState(0)
    image = rng.uniform(size=(N, SIZE, SIZE, channels)).astype(np.float32)
    label = np.eye(num_classes, dtype=np.float32)[rng.randint(0, num_classes, size=(N, SIZE, SIZE))]
    return Batch(tf.constant(image), tf.constant(label))


@pytest.mark.parametrize("name, num_classes, channels", zip(steps.RULES, (6, 2, 5), (1, 3, 2)))
def test_every_rule_updates_the_segmenter_on_the_batch_that_it_asks_for(name, num_classes, channels):
    setup, batch = setup_of(num_classes, channels), labelled_batch(num_classes, channels)
    before = setup.segmenter.get_weights()
    step = steps.create(name, setup)
    scalars = step(AdversarialBatch(batch, batch.image) if steps.rule(name).unlabelled else batch, 0)
    assert np.isfinite(scalars["loss/segmentation"])
    assert not all(np.array_equal(a, b) for a, b in zip(before, setup.segmenter.get_weights()))


@pytest.mark.parametrize("kind", ["deform", "intensity"])
def test_augmentations_are_learned_for_any_number_of_classes_and_channels(kind):
    batch = labelled_batch(num_classes=2, channels=3)
    step = steps.LearnAugmentation(
        kind,
        segmenter(SIZE, 2, 3, seed=1),
        generator(kind, SIZE, 3, seed=2),
        discriminator(SIZE, 3, seed=3),
        learning_rate=1e-3,
        class_weights=(0.1, 0.9),
        lambda_seg=1.0,
        lambda_adv=1.0,
        lambda_big=1e-3,
        adversarial_form="non_saturating",
        task_gradient=True,
        discriminator_first=True,
        warmup_steps=0,
    )
    z = tf.random.stateless_normal([N, 100], [1, 2])
    before = step.generator.get_weights()
    scalars = step(GeneratorBatch(batch, batch.image[::-1], z, tf.constant(N // 2)), 0)
    assert all(np.isfinite(value) for value in scalars.values())
    assert not all(np.array_equal(a, b) for a, b in zip(before, step.generator.get_weights()))


def test_every_method_names_a_rule():
    assert {method.rule for method in METHODS.values()} == set(steps.RULES)
    assert methods.RULES == tuple(steps.RULES)


def test_the_users_own_rule_trains_the_segmenter(own):
    setup = setup_of()
    step = steps.create("own:smoothed", setup)
    losses = [float(step(labelled_batch(), index)["loss/segmentation"]) for index in range(20)]
    assert losses[-1] < losses[0]
    assert steps.rule("own:unlabelled").unlabelled and not steps.rule("own:smoothed").unlabelled


def test_the_documented_rule_is_traced_once(tmp_path, monkeypatch):
    page = pathlib.Path(__file__).parents[2] / "docs/extending.md"
    (block,) = re.findall(r"```python\n(# my_rule\.py\n.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "documented_rule.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    batch, traced = labelled_batch(), []
    step = steps.create("documented_rule:dice", setup_of())
    descend = sys.modules["documented_rule"].descend
    monkeypatch.setattr("documented_rule.descend", lambda *args: (traced.append(1), descend(*args)))
    losses = [float(step(batch, index)["loss/dice"]) for index in range(12)]
    assert len(traced) == 1 and losses[-1] < losses[0]


@pytest.mark.parametrize(
    "name, words",
    [
        ("segmant", ["segment", "module:name"]),
        ("own:no_rule", ["tfaug.steps.Rule"]),
        ("own:no_arguments", ["TypeError", "tfaug.steps.Setup"]),
        ("own:no_segmenter", ["Unnamed", "self.segmenter = setup.segmenter"]),
        ("own:no_step", ["type method", "tf.Module"]),
    ],
)
def test_a_rule_that_does_not_fit_is_refused_in_one_line(name, words, own):
    with pytest.raises(UserError) as error:
        steps.create(name, setup_of())
    text = str(error.value)
    assert text.startswith("rule") and "\n" not in text
    assert all(word in text for word in words), text


def test_what_the_papers_rules_ask_for():
    assert {name: rule.unlabelled for name, rule in steps.RULES.items()} == {
        "segment": False,
        "adversarial_sl": False,
        "adversarial_ssl": True,
    }
    assert (METHODS["adv_sl"].rule, METHODS["adv_ssl"].rule) == ("adversarial_sl", "adversarial_ssl")
    setup = setup_of()
    for name in ("adversarial_sl", "adversarial_ssl"):
        assert steps.create(name, setup).lambda_adv == setup.lambda_adv > 0
