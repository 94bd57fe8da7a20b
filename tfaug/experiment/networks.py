"""Builds networks, update rules and augmentations from a config."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfaug import inference, models, plugins, steps, streams
from tfaug.augment import histogram
from tfaug.augment.affine import Affine, Scale
from tfaug.augment.compose import Augmenter
from tfaug.augment.elastic import Elastic
from tfaug.augment.intensity import ContrastBrightness
from tfaug.augment.learned import Learned
from tfaug.augment.methods import GENERATORS, Method
from tfaug.augment.mixup import MixUp
from tfaug.compat import keras
from tfaug.config import Config
from tfaug.data import pipeline
from tfaug.engine import determinism, devices
from tfaug.engine.errors import TfaugError, UserError, cause
from tfaug.engine.signals import Interrupted
from tfaug.experiment.sources import task_of
from tfaug.models.discriminator import GreyValues
from tfaug.steps import LearnAugmentation

logger = logging.getLogger(__name__)

_OF_THE_MACHINE = (
    tf.errors.ResourceExhaustedError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
)


def set_up_tensorflow(config: Config) -> None:
    """Sets global options of TensorFlow; to be called before anything else uses it."""
    determinism.fix_order()
    keras.mixed_precision.set_global_policy(config.precision)
    _warn_of_idle_gpus()


@functools.lru_cache(1)
def _warn_of_idle_gpus():
    for warning in devices.idle_gpus():
        logger.warning(warning)


def slow_precision(config: Config) -> list[str]:
    """A line about 16 bits that this machine emulates in the user's own networks, or none."""
    own = any(config.model[role] not in known for role, known in models.ROLES.items())
    if not own or devices.adds_in_float32(config.precision.removeprefix("mixed_")):
        return []
    return [
        f"precision: {config.precision} is emulated on this machine: networks of your own are slower "
        "and less exact than in float32; use float32"
    ]


def warn_of_slow_precision(config: Config) -> None:
    """Logs the warnings of `slow_precision` before a training."""
    for warning in slow_precision(config):
        logger.warning(warning)


def random_layers(step: tf.Module) -> list[str]:
    """A line about networks of an update rule that draw at random in training, or none."""
    if not (found := models.random_layers(step)):
        return []
    return [
        f"a network draws at random ({', '.join(found)}): a training that is resumed differs from an undisturbed one"
    ]


def machine(config: Config) -> str:
    """Device, precision, threads and TensorFlow's version, in a few words."""
    threads = determinism.num_threads()
    return f"{devices.used()}, {config.precision}, threads: {threads}, TensorFlow {tf.__version__}"


@contextlib.contextmanager
def precision(config: Config) -> Iterator[None]:
    """Networks built in the block have a config's precision; the user's own policy is restored afterwards."""
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(config.precision)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


@contextlib.contextmanager
def answerable(names: Sequence[str]) -> Iterator[None]:
    """What fails in the block is the fault of the user's own parts among `names`, "my_module:name", if there are any.

    What tfaug reports itself, memory, disk, device, network and signals are not, but for an error of the system that
    their own code has caused.

    Raises:
      UserError: names these parts and the cause.
    """
    try:
        yield
    except (TfaugError, Interrupted, MemoryError, *_OF_THE_MACHINE):
        raise
    except Exception as error:  # it is the user's code, and may fail in any way
        own = dict.fromkeys(name for name in names if ":" in name)
        line = plugins.line_of(error, own)
        if not own or (isinstance(error, OSError) and not line):
            raise
        problem = f"cannot be trained with ({line and line + ': '}{cause(error)})"
        remedy = "mend the one that fails: to find it, replace them by tfaug's own, one at a time"
        if line or len(own) == 1:
            remedy = "mend it"
        raise UserError(", ".join(own), problem, f"{remedy}; docs/extending.md tells what each must do") from error


def check(config: Config) -> None:
    """Looks up the networks that a config names.

    Raises:
      UserError: one of them is unknown, or its module cannot be imported.
    """
    for role, known in models.ROLES.items():
        plugins.load(config.model[role], known, f"model.{role}")


def check_transforms(config: Config, method: Method) -> None:
    """Tries a method's user-defined transforms.

    Raises:
      UserError: one cannot be used.
    """
    task = task_of(config)
    own = Method(tuple(name for name in method.transforms if ":" in name))
    augmenter(config, "even").check(own, config.data.image_size, len(task.channels), task.num_classes)


def segmenter(config: Config, stage: str) -> keras.Model:
    """S, with the initial weights of a stage: "aug" or "seg"."""
    return _build(config, "segmenter", stage, _num_channels(config), num_classes=task_of(config).num_classes)


def generator(config: Config, kind: str) -> keras.Model:
    """G_V (kind "deform") or G_I ("intensity")."""
    return _build(config, "generator", "aug", _num_channels(config), kind=kind)


def discriminator(config: Config, stage: str, channels: int) -> keras.Model:
    """D, for inputs of `channels`."""
    return _build(config, "discriminator", stage, channels)


def _build(config, role, stage, channels, **arguments):
    options = {key: value for key, value in config.model.to_dict().items() if key not in models.ROLES}
    for name, share in _OF_THE_SIDE.items():  # a length is in mm, so that it means the same on every grid
        length = options.pop(f"{name}_mm")
        options[f"{name}_px"] = share * config.data.image_size if length == "auto" else length / config.data.resolution
    if role != "generator":
        options = {key: value for key, value in options.items() if key not in _OF_GENERATORS}
    return models.build(
        role,
        config.model[role],
        options,
        image_size=config.data.image_size,
        channels=channels,
        seed=streams.scalar_seed(config.seed, stage),
        **arguments,
    )


_OF_THE_SIDE = {"control": 1 / 8, "limit": 3 / 16}  # of the image, where the config says "auto"
_OF_GENERATORS = ("head_scale", "deformation", "control_px", "limit_px", "fixed_border", "intensity", "curve_knots")


def _num_channels(config):
    return len(task_of(config).channels)


def learn_augmentation(config: Config, name: str, scans: Sequence[np.ndarray] = ()) -> LearnAugmentation:
    """The update rule that learns one of `GENERATORS`, with its networks; `scans` [Z, H, W, C] are the real ones."""
    schedule = config.augment
    kind, regularised = GENERATORS[name]
    return LearnAugmentation(
        kind,
        segmenter(config, "aug"),
        generator(config, kind),
        discriminator(config, "aug", schedule.pack * _num_channels(config)),
        learning_rate=schedule.learning_rate,
        class_weights=schedule.class_weights,
        lambda_seg=schedule.lambda_seg,
        lambda_adv=schedule.lambda_adv if regularised else 0.0,
        lambda_big=schedule.lambda_big if regularised else 0.0,
        adversarial_form=schedule.adversarial_loss,
        task_gradient=schedule.task_gradient,
        discriminator_first=schedule.discriminator_first,
        warmup_steps=schedule.warmup_steps,
        generator_rate=schedule.generator_rate,
        discriminator_rate=schedule.discriminator_rate,
        beta_1=schedule.beta_1,
        r1=schedule.r1,
        big_limit=schedule.big_limit_mm / config.data.resolution if kind == "deform" else schedule.big_limit_intensity,
        big_of=schedule.big_of,
        lambda_fold=schedule.lambda_fold if regularised else 0.0,
        lambda_diversity=schedule.lambda_diversity if regularised else 0.0,
        diversity=schedule.diversity,
        pack=schedule.pack,
        grey_values=GreyValues(np.concatenate(scans)) if schedule.adversarial_loss == "energy" else None,
    )


def train_segmenter(config: Config, method: Method):
    """The update rule of the second stage, with its networks."""
    schedule = config.segment
    setup = steps.Setup(
        segmenter(config, "seg"),
        functools.partial(discriminator, config, "seg"),
        schedule.learning_rate,
        schedule.class_weights,
        schedule.lambda_adv,
    )
    return steps.create(method.rule, setup)


def augmenter(
    config: Config,
    partition: str,
    learned: Mapping[str, keras.Model] | None = None,
    unlabelled: Sequence[np.ndarray] = (),
) -> Augmenter:
    """All transforms by name.

    Args:
      config: resolved.
      partition: how the generated half is divided.
      learned: the trained generators by name.
      unlabelled: volumes [Z, H, W, C], if the method needs them.
    """
    released_affine, strong = config.transforms.affine == "released", config.transforms.strong
    transforms = {
        "affine": Affine(scale_decimals=2, extra_flip_coin=True) if released_affine else Affine(),
        "scale": Scale(strong.scale),
        "elastic": _elastic(config, config.transforms.elastic_mm),
        "elastic_strong": _elastic(config, strong.elastic_mm),
        "contrast_brightness": ContrastBrightness(split=config.transforms.random_intensity == "released"),
        "contrast_brightness_strong": ContrastBrightness(strong.contrast, strong.brightness),
        "mixup": MixUp(config.transforms.mixup_alpha),
        **({"histogram": histogram.MatchHistogram(histogram.quantiles(unlabelled))} if unlabelled else {}),
        **{
            name: Learned(GENERATORS[name][0], inference.inference_mode(model))
            for name, model in (learned or {}).items()
        },
    }
    return Augmenter(transforms, functools.partial(pipeline.seed_at, config.seed), partition)


def _elastic(config, stddev_mm):
    return Elastic(None if stddev_mm == "auto" else stddev_mm / config.data.resolution)


def on_cpu():
    """The device of generators in the `tf.data` pipeline, which runs on the CPU."""
    return tf.device("CPU")
