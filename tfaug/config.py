"""The rules for a config and its splits, and the names of its runs."""

from __future__ import annotations

import collections
import hashlib
import json
import math
import pathlib
import pprint
import re
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from tfaug.augment.methods import GENERATORS
from tfaug.engine.errors import UserError, nearest
from tfaug.engine.files import replacing
from tfaug.plugins import short_name

Config = ml_collections.ConfigDict


def check(config: Config) -> None:
    """Refuses values that no experiment can have.

    Splits that are yet to be drawn or read are checked later.

    Raises:
      UserError: names the key, its value and what is allowed.
    """
    _check_values(config)
    of_intensity = of_generator(config, "intensity")  # G_V's differs in nothing
    try:
        _check_values(of_intensity)
    except UserError as error:  # all but the values of this key have been checked
        problem = f"{error.subject.removeprefix('--config.')}: {error.problem}"
        raise UserError("--config.augment.of_intensity", problem, error.remedy) from None
    if not (config.splits.random or config.splits.file):
        check_splits(config)


def check_keys(config: Config, keys: Collection[str] | None = None) -> None:
    """Refuses values that some keys, or all, cannot have whatever the others are.

    Args:
      config: the config.
      keys: dotted keys; None: all.

    Raises:
      UserError: names the key, its value and what is allowed.
    """
    for key, allowed, text in _RULES:
        if keys is not None and key not in keys:
            continue
        value = config
        for part in key.split("."):
            if not isinstance(value, Config) or part not in value:
                raise UserError(f"--config.{key}", "is missing in the config", "start from a file of configs/")
            value = value[part]
        if not _holds(allowed, value):
            raise UserError(f"--config.{key}", f"cannot be {value!r}", f"give {text}")


def _check_values(config):
    check_keys(config)
    if config.augment.warmup_steps >= config.augment.num_steps:
        raise UserError(
            "--config.augment.warmup_steps",
            f"{config.augment.warmup_steps} steps leave none of {config.augment.num_steps} to learn the augmentation",
            "give fewer",
        )
    if config.augment.batch_size % config.augment.pack:
        raise UserError(
            "--config.augment.pack",
            f"packs of {config.augment.pack} do not fill a batch of {config.augment.batch_size}",
            "give a divisor of augment.batch_size",
        )
    num_classes = len(config.data.structures) + 1
    for stage in ("augment", "segment"):
        weights = config[stage].class_weights
        if config.data.structures and weights and len(weights) != num_classes:
            raise UserError(
                f"--config.{stage}.class_weights",
                f"has {len(weights)} numbers for {num_classes} classes",
                "give one a class, background first, or () for the default",
            )


def of_generator(config: Config, name: str) -> Config:
    """The config for training one of `GENERATORS`: for G_I, the keys of `augment.of_intensity` are applied."""
    changes = dict(config.augment.of_intensity)
    config = copied(config)
    with config.ignore_type():
        config.augment.of_intensity = ()
    if name.startswith("intensity"):
        for key, value in changes.items():
            try:
                _section(config, key)[key] = value
            except TypeError:
                remedy = "give a value of the type that the config's has"
                raise UserError("--config.augment.of_intensity", f"{key} cannot be {value!r}", remedy) from None
    return config


def augment_of(learned: Sequence[Mapping[str, Any]], model: Mapping[str, Any]) -> dict[str, Any]:
    """The section `augment` with which several generators were learned; the inverse of `of_generator`.

    Args:
      learned: the configs of their runs as dicts, G_V's before G_I's.
      model: the section `model` that the runs share.
    """
    first, last = learned[0]["augment"], learned[-1]
    of_intensity = {
        key: value
        for section, shared in (("augment", first), ("model", model))
        for key, value in last[section].items()
        if key != "of_intensity" and json.dumps(value) != json.dumps(shared[key])
    }
    return {**first, "of_intensity": of_intensity or ()}


def check_generator(config: Config, name: str) -> None:
    """Refuses values with which one of `GENERATORS` cannot be learned; the needs of the others are not checked.

    Raises:
      UserError: names the key and what is missing.
    """
    schedule, (kind, regularised) = of_generator(config, name).augment, GENERATORS[name]
    if not regularised:  # so there is no reward for diversity either
        return
    deform = kind == "deform"
    key = "big_limit_mm" if deform else "big_limit_intensity"
    bounded = schedule[key] or (deform and schedule.big_of == "strain")
    if schedule.lambda_diversity and schedule.diversity == "volume" and not bounded:
        raise UserError(f"--config.augment.{key}", "is 0, and augment.diversity='volume' has no unit", "give one")


def limits_intensity(config: Config) -> bool:
    """Whether tanh keeps G_I's dI in (-1, 1), as in two of tfaug's own forms; not assumed of a user-defined G_I."""
    return config.model.generator == "conditional" and config.model.intensity in ("free", "curve")


def draws_of_a_slice(schedule: Config) -> int:
    """How often each labelled slice occurs in a batch of the section `augment`, each time with another z."""
    return schedule.pack if schedule.pack_of == "draws" else 1


def copied(config: Config) -> Config:
    """A copy in which the structures are pairs: their names may contain dots, which a config's keys may not."""
    values = config.to_dict()
    values["data"]["structures"] = tuple(dict(values["data"]["structures"]).items())
    return Config(values)


def _section(config, key):
    """The section of the config, `augment` or `model`, that has a key of `augment.of_intensity`."""
    sections = [config[name] for name in ("augment", "model") if key in config[name]]
    if not sections or key == "of_intensity":
        remedy = nearest(key, sorted({*config.augment, *config.model} - {"of_intensity"}))
        raise UserError("--config.augment.of_intensity", f"{key!r} is in neither augment nor model", remedy)
    return sections[0]


def is_resolved(config: Config) -> bool:
    """Whether a config fixes all that depends on the data: structures, channels, reader, weights, grid and splits."""
    unresolved = "auto" in (config.data.image_size, config.data.resolution)
    unnamed = not (config.data.structures and config.data.channels and config.data.reader)
    return not (unresolved or unnamed or unweighted(config) or config.splits.random or config.splits.file)


def unweighted(config: Config) -> list[Config]:
    """The sections of a config whose class weights are yet to be replaced by the default."""
    sections = (config.augment, config.segment, config.augment.of_intensity)
    return [section for section in sections if "class_weights" in section and not section["class_weights"]]


def check_splits(config: Config) -> None:
    """Refuses splits that are not lists of names, or that share a case.

    Raises:
      UserError: names the key and the case.
    """
    for size, sets in config.splits.labelled.items():
        key = f"--config.splits.labelled.{size}"
        if not re.fullmatch("n[1-9][0-9]{0,8}", size):
            raise UserError(key, f"{size!r} tells no number of volumes", "call it n2 if its sets are of 2 volumes")
        if not (_is_list(sets) and sets and all(map(_are_names, sets))):
            raise UserError(key, f"cannot be {sets!r}", "write a tuple of sets, as (('CASE1',),)")
        for members in sets:
            refuse_twice(key, members)
    seen = {}
    for split in ("labelled", "validation", "unlabelled", "test"):
        patients, key = cases(config, split), f"--config.splits.{split}"
        if split in ("labelled", "validation"):
            require(patients, split)
        refuse_twice(key, patients)
        for case in patients:
            if case in seen:
                raise UserError(key, f"{case} is also in {seen[case]}", "keep the splits apart")
            seen[case] = split


def refuse_twice(key: str, names: Iterable[str]) -> None:
    """Raises a UserError that names a flag and the first of its cases that it names more than once."""
    for case, count in collections.Counter(names).items():
        if count > 1:
            raise UserError(key, f"names {case} {'twice' if count == 2 else f'{count} times'}", "leave one")


def require(patients: Sequence, split: str) -> None:
    """Raises a UserError that names the split if `patients`, its names or scans, is empty."""
    if not patients:
        others = ", or leave some cases out of the other splits" if split == "unlabelled" else ""
        raise UserError(f"--config.splits.{split}", "is empty", f"name at least one patient{others}")


def _holds(allowed, value):
    try:
        return allowed(value)
    except (TypeError, OverflowError):
        return False


def _one_of(*values):
    return (lambda value: value in values), " or ".join(map(repr, values))


def _whole(least, most=None):
    """A rule for counts; steps are stored as 64-bit integers."""
    text = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"
    return (lambda value: type(value) is int and least <= value <= (most or 2**63 - 1)), text


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _positive(value):
    return _is_number(value) and value > 0


def _not_negative(value):
    return _is_number(value) and value >= 0


def _weights(value):
    return _is_list(value) and (not value or (len(value) > 1 and all(map(_not_negative, value)) and any(value)))


def _image_size(value):
    return value == "auto" or (type(value) is int and value in range(32, 4097, 32))


def _resolution(value):
    return value == "auto" or (_is_number(value) and 0.1 <= value <= 100)


def _structures(value):
    """Whether it is a dict, or pairs as they are saved."""
    if isinstance(value, (dict, Config)):
        value = tuple(value.items())
    return _is_list(value) and all(_is_list(pair) and len(pair) == 2 for pair in value)


def _methods(value):
    return _are_names(value) and bool(value) and len(set(map(short_name, value))) == len(value)


def _range_from(least):
    """A rule for the two ends of a range."""
    return lambda value: (
        _is_list(value) and len(value) == 2 and all(map(_is_number, value)) and least <= value[0] <= value[1]
    )


def _is_list(value):
    return isinstance(value, (tuple, list))


def _mapping(value):
    return isinstance(value, (dict, Config)) or (_is_list(value) and not value)


def _is_text(value):
    return isinstance(value, str)


def _are_names(value):
    return _is_list(value) and all(map(_is_text, value))


_POSITIVE = (_positive, "a number above 0")
_NOT_NEGATIVE = (_not_negative, "a number of at least 0")
_COUNT = _whole(1)
_SEED = _whole(0)
_SWITCH = (lambda value: isinstance(value, bool), "True or False")
_PATH = (_is_text, "a path")
_PATTERN = (lambda value: _is_text(value) and bool(value), "a pattern, as 'images/*.nii.gz'")
_NAMED = (_is_text, "a name, or 'my_module:name'")
_NAMES = "names of cases, as ('CASE1', 'CASE2')"
_PAPER_OR_RELEASED = _one_of("paper", "released")
_MM = (lambda value: value == "auto" or _positive(value), "a number of mm above 0, or auto")
_SHARE = (lambda value: _not_negative(value) and value < 1, "a number from 0 to below 1")
_NAME = re.compile(r"\w[\w.-]{0,99}")
_RULES = (
    ("name", lambda value: _NAME.fullmatch(value) is not None, "up to 100 letters, digits, '.', '_' and '-'"),
    ("seed", *_SEED),
    ("num_labelled", *_COUNT),
    ("labelled_set", *_COUNT),
    ("precision", *_one_of("float32", "mixed_bfloat16", "mixed_float16")),
    ("data.root", *_PATH),
    ("data.reader", *_NAMED),
    ("data.structures", _structures, "names with their values in the label files, as {'anterior': 1, 'posterior': 2}"),
    ("data.channels", _are_names, "names of the channels, as ('T1', 'T2')"),
    ("data.images", *_PATTERN),
    ("data.labels", *_PATTERN),
    ("data.slice_axis", *_one_of("auto", 0, 1, 2)),
    ("data.cohort_seed", *_SEED),
    ("data.phase", *_one_of("ES", "ED", "both")),
    # Both are bounded so that a slice fits into memory, cropped and whole.
    ("data.image_size", _image_size, "a multiple of 32 up to 4096, or auto"),
    ("data.resolution", _resolution, "a number of mm from 0.1 to 100, or auto"),
    ("data.n4_shrink", *_whole(0, 1000)),
    ("data.cache_dir", *_PATH),
    ("data.num_workers", *_COUNT),
    ("splits.file", *_PATH),
    ("splits.random", _mapping, "how many for what, as {'labelled': 1, 'validation': 2, 'test': 20}"),
    ("splits.labelled", lambda value: isinstance(value, Config), "sets of cases, as {'n1': (('CASE1',),)}"),
    *((f"splits.{split}", _are_names, _NAMES) for split in ("validation", "unlabelled", "test")),
    *((f"model.{network}", *_NAMED) for network in ("segmenter", "generator", "discriminator")),
    ("methods", _methods, "rows of the table, as ('aff', 'my_module:aff_blur'), each name once"),
    ("model.filters", *_COUNT),
    ("model.half_pixel_centers", *_SWITCH),
    ("model.head_scale", *_POSITIVE),
    ("model.norm_momentum", *_SHARE),
    ("model.deformation", *_one_of("free", "coarse", "velocity")),
    ("model.control_mm", *_MM),
    ("model.limit_mm", lambda value: value == "auto" or _not_negative(value), "a number of mm of at least 0, or auto"),
    ("model.fixed_border", *_SWITCH),
    ("model.intensity", *_one_of("free", "curve", "increasing", "quantiles")),
    ("model.curve_knots", *_whole(2)),
    ("model.discriminator_norm", *_SWITCH),
    ("transforms.affine", *_PAPER_OR_RELEASED),
    ("transforms.random_intensity", *_PAPER_OR_RELEASED),
    ("transforms.elastic_mm", *_MM),
    ("transforms.mixup_alpha", *_POSITIVE),
    ("transforms.strong.scale", _range_from(0.1), "two numbers from 0.1 on, the smaller first"),
    ("transforms.strong.elastic_mm", *_MM),
    ("transforms.strong.contrast", _range_from(0), "two numbers from 0 on, the smaller first"),
    ("transforms.strong.brightness", _range_from(-1), "two numbers from -1 on, the smaller first"),
    *((f"{stage}.{key}", *_COUNT) for stage in ("augment", "segment") for key in ("num_steps", "eval_every")),
    *((f"{stage}.learning_rate", *_POSITIVE) for stage in ("augment", "segment")),
    ("augment.batch_size", *_whole(2)),
    ("segment.batch_size", *_COUNT),
    *(
        (f"{stage}.class_weights", _weights, "one number a class, or () for the default")
        for stage in ("augment", "segment")
    ),
    ("augment.partition", *_one_of("even", "released")),
    ("segment.partition", *_one_of("even", "composed", "released")),
    *((f"{stage}.average", *_SHARE) for stage in ("augment", "segment")),
    *((f"{stage}.keep", *_one_of("best", "last")) for stage in ("augment", "segment")),
    ("augment.warmup_steps", *_whole(0)),
    ("augment.lambda_seg", _positive, "a number above 0 (task_gradient=False keeps L_S from the generator)"),
    ("augment.lambda_adv", *_NOT_NEGATIVE),
    ("augment.lambda_big", *_NOT_NEGATIVE),
    ("segment.lambda_adv", *_NOT_NEGATIVE),
    ("augment.adversarial_loss", *_one_of("non_saturating", "saturating", "energy")),
    ("augment.task_gradient", *_SWITCH),
    ("augment.discriminator_first", *_SWITCH),
    ("augment.real_pool", *_one_of("all", "unlabelled", "equal")),
    *((f"augment.{key}", *_POSITIVE) for key in ("generator_rate", "discriminator_rate")),
    ("augment.beta_1", *_SHARE),
    ("augment.pack", *_whole(1)),
    ("augment.pack_of", *_one_of("slices", "draws")),
    ("augment.diversity", *_one_of("difference", "volume")),
    ("augment.big_of", *_one_of("displacement", "deformation", "strain")),
    ("augment.of_intensity", _mapping, "keys of augment and model with their values, as {'pack': 5}"),
    *(
        (f"augment.{key}", *_NOT_NEGATIVE)
        for key in ("r1", "big_limit_mm", "big_limit_intensity", "lambda_fold", "lambda_diversity")
    ),
    *((f"generators.{name}", *_PATH) for name in ("deform", "intensity", "deform_noreg", "intensity_noreg")),
    *((f"{key}_every", *_COUNT) for key in ("report", "picture", "checkpoint")),
)


def cases(config: Config, split: str) -> tuple[str, ...]:
    """The cases of a split: "labelled" (those of the chosen set), "unlabelled", "validation" or "test"."""
    if split != "labelled":
        return tuple(config.splits[split])
    sets = config.splits.labelled.get(f"n{config.num_labelled}")
    if sets is None:
        known = ", ".join(key[1:] for key in config.splits.labelled)
        raise UserError("--config.num_labelled", f"no set has {config.num_labelled} volumes", f"known are {known}")
    if config.labelled_set > len(sets):
        raise UserError(
            "--config.labelled_set",
            f"splits.labelled.n{config.num_labelled} has no set {config.labelled_set}",
            f"give 1 to {len(sets)}, for --stage=table1 by --sets",
        )
    return tuple(sets[config.labelled_set - 1])


def generator_path(config: Config, workdir, name: str) -> pathlib.Path:
    """The folder of the run that learns a generator."""
    return _run_path(config, workdir, f"aug-{name}")


def used_generator_path(config: Config, workdir, name: str) -> pathlib.Path:
    """The folder of the generator that a segmenter learns with: the one the config names, or `generator_path`."""
    return pathlib.Path(config.generators[name] or generator_path(config, workdir, name))


def segmenter_path(config: Config, workdir, method: str) -> pathlib.Path:
    """The folder of the run that trains the segmenter with a method."""
    return _run_path(config, workdir, f"seg-{method}")


def _run_path(config, workdir, stage):
    name = run_name(config.name, config.num_labelled, config.labelled_set, stage, config.seed)
    return pathlib.Path(workdir) / name


def run_name(config_name: str, num_labelled: int, labelled_set: int, stage: str, seed: int) -> str:
    """The name of a run's folder; `stage` includes the generator or method, as in "seg-aff"."""
    return f"{config_name}-n{num_labelled}-set{labelled_set}-{stage}-seed{seed}"


def write(config: Config, folder: pathlib.Path) -> pathlib.Path:
    """Writes a config to a file for --config, FOLDER/NAME-DIGEST.py; the digest keeps concurrent commands apart.

    Raises:
      MachineError: it cannot be written.
    """
    text = program(config)
    file = folder / f"{config.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.py"
    with replacing(file, "choose a --workdir that can be written", unique=True) as path:
        path.write_text(text, encoding="utf-8")
    return file


def program(config: Config, note: str = "") -> str:
    """A config as the content of a file that --config takes; a note on it becomes a comment."""
    comment = "".join(f"# {line}\n" for line in textwrap.wrap(note, 118))
    values = pprint.pformat(plain(config.to_dict()), width=120, sort_dicts=False)
    return (
        '"""Written by tfaug: the config of a command."""\n\nimport ml_collections\n\n'
        f"{comment}CONFIG = {values}\n\n\ndef get_config():\n    return ml_collections.ConfigDict(CONFIG)\n"
    )


def plain(value: Any) -> Any:
    """A value of a config in Python's own types, whose text is Python; that of NumPy numbers and texts need not be."""
    if isinstance(value, Mapping):
        return {plain(key): plain(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(map(plain, value))
    value = value.item() if isinstance(value, np.generic) else value
    return next((kind(value) for kind in (bool, int, float, str) if isinstance(value, kind)), value)
