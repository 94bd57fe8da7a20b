"""What a config may say: its rules, its splits, and the names of its runs."""

from __future__ import annotations

import math
import pathlib
import re

import ml_collections

from tfaug.errors import UserError
from tfaug.types import NUM_CLASSES

Config = ml_collections.ConfigDict

# May change between two sittings of one run: where and how fast, not what, is computed.
TOLERATED = ("data.cache_dir", "data.num_workers", "precision")


def check(config: Config) -> None:
    """Refuses values that no experiment can have.

    Raises:
      UserError: names the key, its value and what is allowed.
    """
    for key, allowed, text in _RULES:
        value = config
        for part in key.split("."):
            if part not in value:
                raise UserError(f"--config.{key}", "is missing in the config", "start from a file of configs/")
            value = value[part]
        if not _holds(allowed, value):
            raise UserError(f"--config.{key}", f"cannot be {value!r}", f"give {text}")
    # Every recipe of the generated half must get a slice, however the half is shared.
    least = 20 if config.segment.partition == "released" else 6
    if config.segment.batch_size < least:
        raise UserError(
            "--config.segment.batch_size", f"{config.segment.batch_size} is too small", f"give {least} or more"
        )
    if config.augment.warmup_steps >= config.augment.num_steps:
        raise UserError(
            "--config.augment.warmup_steps",
            f"{config.augment.warmup_steps} steps leave none of {config.augment.num_steps} to learn the augmentation",
            "give fewer",
        )
    _check_splits(config)


def _check_splits(config):
    seen = {}
    for split in ("labelled", "validation", "unlabelled", "test"):
        patients, key = cases(config, split), f"--config.splits.{split}"
        if not all(isinstance(case, str) for case in patients):
            raise UserError(key, f"cannot be {patients!r}", "give names of patients' folders, as ('CASE1', 'CASE2')")
        if not patients and split in ("labelled", "validation"):
            raise UserError(key, "is empty", "name at least one patient")
        for case in patients:
            if case in seen:
                raise UserError(key, f"{case} is also in {seen[case]}", "keep the splits apart")
            seen[case] = split


def _holds(allowed, value):
    try:
        return allowed(value)
    except TypeError:
        return False


def _one_of(*values):
    return (lambda value: value in values), " or ".join(map(repr, values))


def _positive(value):
    return math.isfinite(value) and value > 0


def _not_negative(value):
    return math.isfinite(value) and value >= 0


def _weights(value):
    return len(value) == NUM_CLASSES and all(map(_not_negative, value)) and any(value)


_POSITIVE = (_positive, "a number above 0")
_NOT_NEGATIVE = (_not_negative, "a number of at least 0")
_PAPER_OR_RELEASED = _one_of("paper", "released")
_PARTITION = _one_of("even", "released")
_NAME = re.compile(r"\w[\w.-]*")
_RULES = (
    ("name", lambda value: _NAME.fullmatch(value) is not None, "letters, digits, '.', '_' and '-'"),
    ("seed", *_NOT_NEGATIVE),
    ("num_labelled", *_POSITIVE),
    ("labelled_set", *_POSITIVE),
    ("precision", *_one_of("float32", "mixed_bfloat16")),
    ("data.phase", *_one_of("ES", "ED")),
    ("data.image_size", lambda value: value > 0 and value % 32 == 0, "a multiple of 32"),
    ("data.resolution", *_POSITIVE),
    ("data.n4_shrink", *_NOT_NEGATIVE),
    ("data.num_workers", *_POSITIVE),
    ("model.filters", *_POSITIVE),
    ("model.norm_momentum", lambda value: 0 <= value < 1, "a number from 0 to below 1"),
    ("transforms.affine", *_PAPER_OR_RELEASED),
    ("transforms.random_intensity", *_PAPER_OR_RELEASED),
    ("transforms.mixup_alpha", *_POSITIVE),
    *((f"{stage}.{key}", *_POSITIVE) for stage in ("augment", "segment") for key in ("num_steps", "eval_every")),
    *((f"{stage}.learning_rate", *_POSITIVE) for stage in ("augment", "segment")),
    ("augment.batch_size", lambda value: value > 1, "at least 2"),
    ("segment.batch_size", *_POSITIVE),
    *((f"{stage}.class_weights", _weights, f"{NUM_CLASSES} numbers") for stage in ("augment", "segment")),
    *((f"{stage}.partition", *_PARTITION) for stage in ("augment", "segment")),
    ("augment.warmup_steps", *_NOT_NEGATIVE),
    ("augment.lambda_seg", _positive, "a number above 0 (task_gradient=False keeps L_S from the generator)"),
    ("augment.lambda_adv", *_NOT_NEGATIVE),
    ("augment.lambda_big", *_NOT_NEGATIVE),
    ("segment.lambda_adv", *_NOT_NEGATIVE),
    ("augment.adversarial_loss", *_one_of("non_saturating", "saturating")),
    ("augment.real_pool", *_one_of("all", "unlabelled")),
    *((f"{key}_every", *_POSITIVE) for key in ("report", "picture", "checkpoint")),
)


def cases(config: Config, split: str) -> tuple[str, ...]:
    """The patients of a split: "labelled" (those of the chosen set), "unlabelled", "validation" or "test"."""
    if split != "labelled":
        return tuple(config.splits[split])
    sets = config.splits.labelled.get(f"n{config.num_labelled}")
    if sets is None:
        known = ", ".join(key[1:] for key in config.splits.labelled)
        raise UserError("--config.num_labelled", f"no set has {config.num_labelled} volumes", f"known are {known}")
    if config.labelled_set > len(sets):
        raise UserError("--config.labelled_set", f"there is no set {config.labelled_set}", f"give 1 to {len(sets)}")
    chosen = sets[config.labelled_set - 1]
    if isinstance(chosen, str):
        key = f"--config.splits.labelled.n{config.num_labelled}"
        raise UserError(key, f"{chosen!r} is no set of patients", "write a tuple of sets, as (('CASE1',),)")
    return tuple(chosen)


def generator_path(config: Config, workdir, name: str) -> pathlib.Path:
    """The folder of the run that learns a generator."""
    return _run_path(config, workdir, f"aug-{name}")


def segmenter_path(config: Config, workdir, method: str) -> pathlib.Path:
    """The folder of the run that trains the segmenter with a method."""
    return _run_path(config, workdir, f"seg-{method}")


def _run_path(config, workdir, stage):
    name = run_name(config.name, config.num_labelled, config.labelled_set, stage, config.seed)
    return pathlib.Path(workdir) / name


def run_name(config_name: str, num_labelled: int, labelled_set: int, stage: str, seed: int) -> str:
    """The name of a run's folder; `stage` is that with its generator or method, as in "seg-aff"."""
    return f"{config_name}-n{num_labelled}-set{labelled_set}-{stage}-seed{seed}"
