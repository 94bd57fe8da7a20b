"""The only reader of the config: turns it into objects and runs the stages.

learn_augmentation -> a generator        train_segmenter -> a segmenter        evaluate -> Dice, masks, pictures
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import pathlib
import pprint
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfaug import evaluation, inference, metrics, pictures, streams
from tfaug.augment.affine import Affine
from tfaug.augment.compose import Augmenter
from tfaug.augment.elastic import Elastic
from tfaug.augment.intensity import ContrastBrightness
from tfaug.augment.learned import Learned, transform_image, transform_label
from tfaug.augment.methods import GENERATORS, METHODS
from tfaug.augment.mixup import MixUp
from tfaug.compat import keras
from tfaug.config import TOLERATED, Config, cases, generator_path, require, segmenter_path
from tfaug.data import cache, check, pipeline
from tfaug.data.preprocess import Prepared, Spec
from tfaug.data.readers import acdc
from tfaug.engine import checkpoint, determinism, hooks, memory, run_dir
from tfaug.engine.errors import UserError
from tfaug.engine.files import machine_errors
from tfaug.engine.loop import fit
from tfaug.models.discriminator import discriminator
from tfaug.models.generator import generator
from tfaug.models.unet import unet
from tfaug.phantom import cohort
from tfaug.steps import AdversarialSegment, LearnAugmentation, Segment
from tfaug.types import NUM_CLASSES, Z_DIM

PICTURED_SLICES = 3
Z_DRAWS = 4  # fields per image in the generators' diagnostics
COLLAPSED = 0.01  # a generator ignores z if its fields vary by less than this share of their magnitude
NEGLIGIBLE = {"deform": 0.1, "intensity": 0.03}  # pixels; normalised intensity, of which an image spans about 1


def set_up_tensorflow(config: Config) -> None:
    """Sets what is global in TensorFlow; to be called before anything else uses it."""
    determinism.fix_order()
    keras.mixed_precision.set_global_policy(config.precision)


def data_root(config: Config) -> pathlib.Path:
    """The folder with the patients; the built-in cohort is made when it is asked for."""
    if config.data.root:
        return pathlib.Path(config.data.root)
    return cohort.ensure_cohort(config.data.cache_dir, config.data.cohort_seed, config.data.num_workers)


def examine_data(
    config: Config, splits: Sequence[str] = ("labelled", "validation", "unlabelled", "test")
) -> check.Findings:
    """Reads every file of some splits; hours of training would otherwise end at the first bad one."""
    labelled = [case for split in splits if split != "unlabelled" for case in cases(config, split)]
    unlabelled = cases(config, "unlabelled") if "unlabelled" in splits else ()
    return check.examine(data_root(config), labelled, unlabelled, config.data.phase)


def prepare_data(config: Config) -> None:
    """Makes everything that the patients of all splits need before they can be trained with or scored."""
    check.refuse(examine_data(config))
    for split in ("labelled", "validation", "unlabelled", "test"):
        prepared(config, split)


def prepared(config: Config, split: str) -> list[Prepared]:
    """The preprocessed patients of a split."""
    return cache.load(
        data_root(config),
        cases(config, split),
        Spec(config.data.image_size, config.data.resolution, config.data.n4_shrink),
        config.data.cache_dir,
        phase=config.data.phase,
        labels=split != "unlabelled",
        num_workers=config.data.num_workers,
    )


def with_experts(config: Config, scans: Sequence[Prepared]) -> list[evaluation.Case]:
    """Pairs preprocessed scans with what lies in their files."""
    root = data_root(config)
    return [(scan, acdc.read(root, scan.case, config.data.phase)) for scan in scans]


@contextlib.contextmanager
def _open_run(path, config, without):
    """An open run directory that keeps what is warned of while its data are read.

    Args:
      path: its folder.
      config: of the experiment.
      without: sections that the stage does not read, and which therefore may change.
    """
    with run_dir.RunDir(path, _relevant(config, without), TOLERATED) as run:
        handler = _ToReport(run)
        logging.getLogger("tfaug").addHandler(handler)
        try:
            yield run
        finally:
            logging.getLogger("tfaug").removeHandler(handler)


def _relevant(config, without):
    return {key: value for key, value in config.to_dict().items() if key not in without}


def _refuse_difference(run, saved, asked):
    """Refuses a run whose saved config is not the one that the user goes on with."""
    changed = run_dir.differences(saved, asked)
    changed = {key: change for key, change in changed.items() if key not in TOLERATED}
    if changed:
        raise UserError(
            run,
            f"was made with another config ({run_dir.in_one_line(changed)})",
            "go back to the old values, or choose another --workdir or --config.name",
        )


class _ToReport(logging.Handler):
    def __init__(self, run):
        super().__init__(logging.WARNING)
        self._run = run

    def emit(self, record):
        self._run.warn(record.getMessage())


def learn_augmentation(config: Config, workdir, name: str) -> None:
    """Stage "aug": trains one of `GENERATORS` with S and D, and keeps the best by the validation Dice of S."""
    stage, schedule = f"aug-{name}", config.augment
    kind, regularised = GENERATORS[name]
    path = generator_path(config, workdir, name)
    with _open_run(path, config, without=("segment", "generators")) as run:
        if _already_finished(run):
            return
        check.refuse(examine_data(config, ("labelled", "validation", "unlabelled")))
        labelled, validation = prepared(config, "labelled"), prepared(config, "validation")
        unlabelled = prepared(config, "unlabelled")
        size, build = config.data.image_size, _network_arguments(config, "aug")
        step = LearnAugmentation(
            kind,
            unet(size, **build),
            generator(kind, size, **build, head_scale=config.model.head_scale),
            discriminator(size, filters=config.model.filters, seed=build["seed"]),
            learning_rate=schedule.learning_rate,
            class_weights=schedule.class_weights,
            lambda_seg=schedule.lambda_seg,
            lambda_adv=schedule.lambda_adv if regularised else 0.0,
            lambda_big=schedule.lambda_big if regularised else 0.0,
            adversarial_form=schedule.adversarial_loss,
            task_gradient=schedule.task_gradient,
            discriminator_first=schedule.discriminator_first,
            warmup_steps=schedule.warmup_steps,
        )
        real = unlabelled + labelled if schedule.real_pool == "all" else unlabelled
        require(real, "unlabelled")
        make = pipeline.generator_batches(
            _slices(labelled),
            _images(real),
            schedule.batch_size,
            _augmenter(config, schedule.partition).affine,
            config.seed,
            released_partition=schedule.partition == "released",
        )
        generate = tf.function(inference.frozen(step.generator))
        predict = inference.predictor(step.segmenter, schedule.batch_size)
        experts = with_experts(config, validation)
        report = _fit(
            config,
            run,
            stage,
            step,
            make,
            schedule,
            keep={"generator": step.generator, "segmenter": step.segmenter},
            score=lambda: {
                **_dice(predict, experts),
                **_generator_diagnostics(kind, generate, labelled, config),
            },
            draw=lambda _: {
                "generator": _generator_picture(kind, generate, labelled, config),
                "segmentation": _segmentation_picture(predict, validation),
            },
            data=labelled + validation + unlabelled,
            start=schedule.warmup_steps + 1,
        )
        _warn_if_useless(run, name, _fields(generate, _pictured(labelled)[0], config, Z_DRAWS))
        run.finish(report)


def train_segmenter(config: Config, workdir, method: str) -> None:
    """Stage "seg": trains S anew with one method of Table 1, its generators fixed, and keeps the best."""
    schedule = config.segment
    row = METHODS[method]
    if row.adversary == "unlabelled":
        require(cases(config, "unlabelled"), "unlabelled")
    path = segmenter_path(config, workdir, method)
    with _open_run(path, config, without=("augment",)) as run:
        if _already_finished(run):
            return
        learned = {name: load_generator(config, workdir, name) for name in row.generators}
        splits = ["labelled", "validation"] + (["unlabelled"] if row.adversary == "unlabelled" else [])
        check.refuse(examine_data(config, splits))
        labelled, validation = prepared(config, "labelled"), prepared(config, "validation")
        unlabelled = prepared(config, "unlabelled") if "unlabelled" in splits else []
        augmenter = _augmenter(config, schedule.partition, learned)
        arguments = (schedule.batch_size, augmenter.method(row), config.seed)
        step = _segmenter_step(config, row)
        slices = _slices(labelled)
        make = supervised = pipeline.labelled_batches(slices, *arguments)
        if row.adversary:
            # The supervised adversary has no use for its second image batch, and gets labelled slices.
            make = pipeline.adversarial_batches(slices, _images(unlabelled or labelled), *arguments)
        predict = inference.predictor(step.segmenter, schedule.batch_size)
        experts = with_experts(config, validation)
        again = tf.function(supervised)

        def draw(num_done):
            index = tf.constant(num_done - 1, tf.int64)
            names = augmenter.names(row, schedule.batch_size, index, "labelled")
            return {
                "batch": _batch_picture(again(index), names),
                "segmentation": _segmentation_picture(predict, validation),
            }

        report = _fit(
            config,
            run,
            f"seg-{method}",
            step,
            make,
            schedule,
            keep={"segmenter": step.segmenter},
            score=lambda: _dice(predict, experts),
            draw=draw,
            data=labelled + validation + unlabelled,
            learned=learned,
        )
        run.finish(report)


def evaluate_run(run, split: str, asked: Config | None = None) -> str:
    """Evaluates a trained segmenter on a split, on the scans' own grids, as the config saved with it says.

    Args:
      run: the run's folder; results go to its `evaluation/<split>`.
      split: "test" or "validation".
      asked: the config that the user expects the run to have; None if the run was named.

    Returns:
      The table, as text, and where everything is.

    Raises:
      UserError: there is no finished run.
    """
    run = pathlib.Path(run)
    report = run_dir.read_report(run)
    if report is None:
        raise UserError(
            run, "there is no trained segmenter", "first train it: `python train.py --stage=seg --aug=METHOD`"
        )
    saved = run_dir.read_config(run)
    if "segment" not in saved:
        raise UserError(run, "learns a generator and has no segmenter", "name the folder of a segmenter's run")
    if asked is not None:
        _refuse_difference(run, saved, _relevant(asked, without=("augment",)))
    config = Config(saved)
    require(cases(config, split), split)
    set_up_tensorflow(config)
    out_dir = run / "evaluation" / split
    if (out_dir / "dice.csv").is_file() and (out_dir / "summary.txt").is_file():
        print(f"{out_dir}: evaluated before; nothing to do")
    else:
        segmenter = unet(config.data.image_size, **_network_arguments(config, "seg"))
        checkpoint.load_best(run, {"segmenter": segmenter}, report["best_step"])
        predict = inference.predictor(segmenter, config.segment.batch_size)
        scans = with_experts(config, prepared(config, split))
        with run_dir.locked(run), memory.running_out():
            evaluation.evaluate(predict, scans, out_dir, config.data.phase)
    table = (out_dir / "summary.txt").read_text(encoding="utf-8", errors="replace")
    where = "\n".join(f"{name:9} {out_dir / file}" for name, file in _RESULTS.items())
    return f"{run.name}, {split} split, {len(cases(config, split))} patients\n\n{table}\n{where}"


def provenance(run) -> dict[str, Any]:
    """How long a finished run took in seconds, and what decides the last bits of its numbers."""
    return {"seconds": hooks.EventLog(run).seconds(), "threads": int(_num_threads()), "tensorflow": tf.__version__}


_RESULTS = {"Dice": "dice.csv", "masks": "masks", "pictures": "pictures"}


def load_generator(config: Config, workdir, name: str) -> keras.Model:
    """The trained generator that the second stage uses, built as its own run's config says.

    Raises:
      UserError: it has not been trained, or for another image size.
    """
    path = pathlib.Path(config.generators[name] or generator_path(config, workdir, name))
    report = run_dir.read_report(path)
    if report is None:
        raise UserError(
            path,
            f"there is no trained generator {name!r}",
            f"first run `python train.py --stage=aug --gen={name}` with the same config",
        )
    saved = run_dir.read_config(path)
    if config.generators[name]:  # named by the user: only what must fit must be equal
        sizes = ({"data": {"image_size": size}} for size in (saved["data"]["image_size"], config.data.image_size))
        _refuse_difference(path, *sizes)
    else:
        _refuse_difference(path, saved, _relevant(config, without=("segment", "generators")))
    own = Config(saved)
    # The tf.data pipeline runs it, and that lives on the CPU.
    with tf.device("CPU"):
        model = generator(GENERATORS[name][0], own.data.image_size, **_network_arguments(own, "aug"))
    checkpoint.load_best(path, {"generator": model}, report["best_step"])
    return model


def _fit(config, run, stage, step, make, schedule, *, keep, score, draw, data, start=0, learned=None):
    """Trains one stage, goes back to its best model and draws it.

    Args:
      config: of the experiment.
      run: the open `RunDir`.
      stage: its name.
      step: the update rule.
      make: from a step number to its batch.
      schedule: `config.augment` or `config.segment`.
      keep: models saved as the best, by name.
      score: validation, a function returning named scores.
      draw: function from the number of updates done to pictures by tag.
      data: the preprocessed scans that the run depends on.
      start: no validation before this many steps.
      learned: the fixed generators that the run depends on, by name.

    Returns:
      the report: best score and its step.
    """
    log = hooks.EventLog(run.path)  # a folder below would lengthen the run's name in every legend
    finite = hooks.StopOnNonFinite()
    fingerprint = {
        "config": run.config,
        "data": {
            "scans": {scan.case: _digest(a for a in (scan.image, scan.label) if a is not None) for scan in data},
            "generators": {name: _digest(model.get_weights()) for name, model in (learned or {}).items()},
        },
        "environment": {
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
            "threads": _num_threads(),
            "precision": config.precision,
        },
    }
    checkpoints = checkpoint.Checkpoints(
        run.path,
        {"step": step},
        fingerprint,
        every=config.checkpoint_every,
        log=log,
        before_save=finite.check,
        warn=run.warn,
    )

    def while_finite(call):
        """Of a state that is NaN there is nothing to score or draw: the run ends first."""

        def checked(*args):
            finite.check()
            return call(*args)

        return checked

    best = hooks.KeepBest(
        schedule.eval_every,
        while_finite(score),
        lambda num_done: checkpoints.save_best(num_done, keep),
        log,
        start=start,
    )
    memory.require(list(keep.values()), schedule.batch_size)
    every = config.report_every
    text = "```\n" + pprint.pformat(run.config, width=100, compact=True) + "\n```"
    fit(
        step,
        lambda start: pipeline.iterate(make, start),
        schedule.num_steps,
        [
            finite,
            hooks.Text("config", text, log),
            hooks.Scalars(every, log),
            best,
            hooks.Pictures(config.picture_every, while_finite(draw), log),
            hooks.Progress(stage, every, best),
        ],
        checkpoints,
    )
    checkpoint.load_best(run.path, keep, best.best_step)
    with machine_errors(run.path, "make room, then run the same command to go on"):
        for tag, picture in draw(best.best_step).items():
            pictures.save(picture, run.path / f"{tag}.png")
    return best.state()


def _num_threads():
    """How many threads share one operation, which decides the order in which numbers are summed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return os.environ.get("TF_NUM_INTRAOP_THREADS") or str(cores)


def _already_finished(run):
    if run.finished:
        print(f"{run.path}: finished before, best step {run.report['best_step']}; nothing to do")
    return run.finished


def _network_arguments(config, stage):
    return {
        "filters": config.model.filters,
        "half_pixel_centers": config.model.half_pixel_centers,
        "norm_momentum": config.model.norm_momentum,
        "seed": streams.scalar_seed(config.seed, stage),
    }


def _augmenter(config, partition, learned=None):
    """All transforms by name; `learned` are the trained generators by name."""
    released_affine = config.transforms.affine == "released"
    transforms = {
        "affine": Affine(scale_decimals=2, extra_flip_coin=True) if released_affine else Affine(),
        "elastic": Elastic(),
        "contrast_brightness": ContrastBrightness(split=config.transforms.random_intensity == "released"),
        "mixup": MixUp(config.transforms.mixup_alpha),
        **{name: Learned(GENERATORS[name][0], inference.frozen(model)) for name, model in (learned or {}).items()},
    }
    return Augmenter(
        transforms, functools.partial(pipeline.seed_at, config.seed), released_partition=partition == "released"
    )


def _segmenter_step(config, row):
    """The update rule of the second stage: plain, or against a discriminator."""
    size, arguments = config.data.image_size, _network_arguments(config, "seg")
    schedule = config.segment
    segmenter = unet(size, **arguments)
    if not row.adversary:
        return Segment(segmenter, schedule.learning_rate, schedule.class_weights)
    return AdversarialSegment(
        segmenter,
        discriminator(size, channels=1 + NUM_CLASSES, filters=config.model.filters, seed=arguments["seed"]),
        row.adversary,
        learning_rate=schedule.learning_rate,
        class_weights=schedule.class_weights,
        lambda_adv=schedule.lambda_adv,
    )


def _images(scans):
    return pipeline.slices([scan.image for scan in scans])


def _slices(scans):
    return pipeline.slices([scan.image for scan in scans], [scan.label for scan in scans])


def _digest(arrays):
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def _dice(predict, experts):
    return {f"dice/{name}": value for name, value in evaluation.validation_dice(predict, experts).items()}


def _pictured(scans):
    """Images [N, H, W], labels [N, H, W] and N names of slices spread over some scans."""
    chosen = [(scan, z) for scan in scans for z in evaluation.representative_slices(np.moveaxis(scan.label, 0, 2))]
    chosen = chosen[:: max(1, len(chosen) // PICTURED_SLICES)][:PICTURED_SLICES]
    return (
        np.stack([scan.image[z] for scan, z in chosen]),
        np.stack([scan.label[z] for scan, z in chosen]),
        [f"{scan.case}, slice {z + 1}" for scan, z in chosen],
    )


def _fields(generate, images, config, num_draws):
    """Fields [K, N, H, W, C] of a generator on images [N, H, W] for K draws of z, always the same."""
    z = streams.generator(config.seed, "diagnostics").normal(size=(num_draws, len(images), Z_DIM))
    image = tf.constant(images[..., np.newaxis])
    return np.stack([generate(image, tf.constant(draw, tf.float32)).numpy() for draw in z])


def _generator_diagnostics(kind, generate, scans, config):
    fields = _fields(generate, _pictured(scans)[0], config, Z_DRAWS)
    if kind == "deform":
        values = metrics.deformation_diagnostics(fields, config.data.resolution)
    else:
        values = metrics.intensity_diagnostics(fields)
    return {f"generator/{name}": value for name, value in values.items()}


def _warn_if_useless(run, name, fields):
    """Warns if fields [K, N, H, W, C] are next to nothing, or hardly differ over K draws of z."""
    spread, magnitude = fields.std(axis=0).mean(), np.abs(fields).mean()
    if magnitude < NEGLIGIBLE[GENERATORS[name][0]]:
        run.warn(f"generator {name} hardly changes an image: its fields have a mean magnitude of {magnitude:.2g}")
    if spread <= COLLAPSED * magnitude:
        run.warn(f"generator {name} has collapsed: its fields vary by {spread:.2g} over z, of {magnitude:.2g} in mean")


def _generator_picture(kind, generate, scans, config):
    images, labels, names = _pictured(scans)
    field = _fields(generate, images, config, num_draws=1)[0]
    one_hot = tf.one_hot(labels, NUM_CLASSES)
    generated = transform_image(kind, tf.constant(images[..., np.newaxis]), field).numpy()[..., 0]
    generated_labels = np.argmax(transform_label(kind, one_hot, field), axis=-1)
    return pictures.generator_panel(images, field, generated, labels, generated_labels, kind, names)


def _batch_picture(batch, names):
    return pictures.overlay(batch.image.numpy()[..., 0], np.argmax(batch.label, axis=-1), names, one_window=True)


def _segmentation_picture(predict, scans):
    images, labels, names = _pictured(scans)
    return pictures.segmentation_panel(images, labels, np.argmax(predict(images), axis=-1), names)
