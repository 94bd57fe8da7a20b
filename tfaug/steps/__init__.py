"""The update rules: each is a `tf.Module` that holds its networks and optimisers; a call does one update.

A step draws nothing at random: all that is random comes with the batch. `step(batch, index)` returns scalars by name;
its variables, as those of any `tf.Module`, are in the checkpoints. The update rules of the segmenter have names,
`RULES`; a `tfaug.augment.methods.Method` names one of them, or a user-defined `Rule` as "my_module:rule".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import tensorflow as tf

from tfaug import plugins
from tfaug.compat import keras
from tfaug.engine.errors import UserError
from tfaug.steps.adversarial import AdversarialSegment
from tfaug.steps.average import Averaged
from tfaug.steps.learn_augmentation import NETWORKS, LearnAugmentation
from tfaug.steps.optimizer import Adam, adam, descend
from tfaug.steps.segment import Segment

__all__ = [
    "NETWORKS",
    "RULES",
    "Adam",
    "AdversarialSegment",
    "Averaged",
    "LearnAugmentation",
    "Rule",
    "Segment",
    "Setup",
    "adam",
    "create",
    "descend",
    "rule",
]


class Setup(NamedTuple):
    """The parts of an update rule of the segmenter.

    Attributes:
      segmenter: S, from images [N, H, W, channels] to logits [N, H, W, num_classes].
      discriminator: builds a D for a number of channels.
      learning_rate: learning rate of Adam.
      class_weights: weights of L_S, one per class.
      lambda_adv: weight of an adversarial loss.
    """

    segmenter: keras.Model
    discriminator: Callable[[int], keras.Model]
    learning_rate: float
    class_weights: tuple[float, ...]
    lambda_adv: float


class Rule(NamedTuple):
    """One way of updating the segmenter.

    Attributes:
      create: makes the step, a `tf.Module` that trains `setup.segmenter`. Its attribute `segmenter` is the network to
        validate and keep: the same one, or one of the same architecture. The step is called with `index`, a Python int:
        a `tf.function` that took it would be traced anew at each step.
      unlabelled: whether its batch is an `AdversarialBatch`, with unlabelled scans, rather than a `Batch`.
    """

    create: Callable[[Setup], tf.Module]
    unlabelled: bool = False


def _segment(setup: Setup) -> Segment:
    return Segment(setup.segmenter, setup.learning_rate, setup.class_weights)


def _adversarial(semi_supervised: bool) -> Rule:
    def create(setup):
        # D judges images together with the probabilities of their classes.
        channels = setup.segmenter.input_shape[-1] + setup.segmenter.output_shape[-1]
        return AdversarialSegment(
            setup.segmenter,
            setup.discriminator(channels),
            semi_supervised,
            learning_rate=setup.learning_rate,
            class_weights=setup.class_weights,
            lambda_adv=setup.lambda_adv,
        )

    return Rule(create, unlabelled=semi_supervised)


RULES: Mapping[str, Rule] = {
    "segment": Rule(_segment),
    "adversarial_sl": _adversarial(semi_supervised=False),
    "adversarial_ssl": _adversarial(semi_supervised=True),
}
"""The update rules of the segmenter by name."""


def rule(name: str) -> Rule:
    """The update rule that a method names.

    Raises:
      UserError: it is unknown, or not a `Rule`.
    """
    found = plugins.load(name, RULES, "rule of a method")
    if not isinstance(found, Rule):
        raise UserError(f"rule {name}", f"is of type {type(found).__name__}", "make it a tfaug.steps.Rule")
    return found


def create(name: str, setup: Setup) -> tf.Module:
    """The step of the update rule that a method names.

    Raises:
      UserError: the rule is unknown, or a user-defined one fails or creates something other than a step.
    """
    chosen = rule(name)
    if name in RULES:
        return chosen.create(setup)
    try:
        step = chosen.create(setup)
    except Exception as error:  # user code may fail in any way
        problem = f"fails to create a step ({type(error).__name__}: {error})"
        raise UserError(f"rule {name}", problem, "let it take a tfaug.steps.Setup and return a step") from error
    if not isinstance(step, tf.Module) or not callable(step):
        problem = f"creates an object of type {type(step).__name__}"
        raise UserError(f"rule {name}", problem, "let it be a tf.Module with __call__(self, batch, index)")
    if not isinstance(getattr(step, "segmenter", None), keras.Model):
        problem = f"creates an object of type {type(step).__name__}, whose attribute segmenter is no keras.Model"
        raise UserError(f"rule {name}", problem, "let its __init__ say self.segmenter = setup.segmenter")
    return step
