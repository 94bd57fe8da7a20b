"""The two trainings: a generator with S and D ("aug"), and S anew with a method's augmentation ("seg")."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import pathlib
import pprint
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfaug import evaluation, inference, models, pictures, steps
from tfaug.augment.methods import GENERATORS, Method
from tfaug.compat import keras
from tfaug.config import (
    Config,
    cases,
    check_generator,
    draws_of_a_slice,
    generator_path,
    of_generator,
    require,
    segmenter_path,
)
from tfaug.data import pipeline, traits
from tfaug.engine import checkout, checkpoint, determinism, devices, hooks, memory, run_dir
from tfaug.engine.errors import UserError
from tfaug.engine.event_log import EventLog
from tfaug.engine.files import machine_errors
from tfaug.engine.loop import fit
from tfaug.experiment import drawing, identity, instruments, networks, runs
from tfaug.experiment.sources import Data

Scores = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Conclusion:
    """What a training says of its networks when it is finished.

    Attributes:
      report: what the run's report contains besides the best score and its step.
      warnings: warnings for the report.
      pictures: pictures of the whole run by name.
    """

    report: Mapping[str, Any]
    warnings: Sequence[str] = ()
    pictures: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


class Stage:
    """One training, from its config to its finished run; `run` does all of it.

    A subclass sets the class attributes, builds in `build`, and scores and draws.

    Attributes:
      keys: keys and sections of the config that reach the training; the others may change between sessions.
      unread: sections of the config that the run's folder does not keep, as they are another stage's.
      schedule: the config's section with its numbers of steps.
      splits: the splits that it needs.
      path: the run's folder.
      step: the update rule, once it is built.
      batches: function from a step number to its batch.
      keep: networks that are kept as the best, by name.
      start: no validation before this many updates.
      learned: fixed generators that the run depends on, by name.

    Raises:
      UserError: a part that the config or the method names cannot be used, or a split is empty. Raised on creation, as
        data and other trainings take long.
    """

    keys: tuple[str, ...]
    unread: tuple[str, ...] = ()
    step: tf.Module
    batches: Callable
    keep: Mapping[str, tf.Module]
    start = 0
    learned: Mapping[str, tf.Module] = {}

    def __init__(self, name: str, path: pathlib.Path, config: Config, data: Data, schedule: Config):
        self.name, self.path, self.config, self.data, self.schedule = name, path, config, data, schedule
        self.splits = ["labelled", "validation"]
        self._commit = checkout.commit()  # now: it may change while other trainings run
        networks.check(config)

    def find(self) -> None:
        """Loads the results of earlier trainings, before the data, which may take long."""

    def refuse_other(self, report: Mapping[str, Any]) -> None:
        """Refuses a finished run that, by its report, was trained on other data or with other parts than now.

        Raises:
          UserError: names them.
        """
        identity.refuse_other_scans(self.path, report, self.data.digests(self.splits))

    def build(self) -> None:
        """Makes `step`, `batches` and `keep`, once the data are loaded."""
        raise NotImplementedError

    def uses(self) -> Sequence[str]:
        """The names of the networks, transforms and rule that it trains with, tfaug's and the user's."""
        return [self.config.model[role] for role in models.ROLES]

    def score(self) -> Scores:
        """Validates; returns named scores, "dice/mean" among them."""
        dice = evaluation.validation_dice(self.predict, self.data["validation"], self.data.task)
        return {f"dice/{name}": value for name, value in dice.items()}

    def draw(self, num_done: int) -> Mapping[str, np.ndarray]:
        """Pictures by tag after `num_done` updates."""
        picture = drawing.segmentation_picture(self.predict, self.data["validation"], self.data.task)
        return {"segmentation": picture}

    def conclude(self, rows: Sequence[Mapping[str, float]]) -> Conclusion:
        """What is said of the trained networks; `rows` are those of the run's diagnostics.csv."""
        raise NotImplementedError

    def run(self) -> None:
        """Trains, or resumes where an earlier session stopped; does nothing if the run is finished.

        Raises:
          UserError: data or config cannot be used, or are not those that the run began with.
          MachineError: disk or memory failed, or a loss is not finite.
          Interrupted: SIGTERM or SIGINT was received; the updates so far are saved.
        """
        saved = {key: value for key, value in self.config.to_dict().items() if key not in self.unread}
        with run_dir.RunDir(self.path, saved, self.keys) as run, _warnings_into(run):
            identity.refuse_other_splits(self.path, run.config, self.config, self.splits)
            if run.report is not None:
                self.refuse_other(run.report)
                print(f"{run.path}: finished before, kept step {run.report['best_step']}; nothing to do")
                if (other := runs.other_precision(run.path, self.config)) is not None:
                    print(f"warning: {run.path}: was trained in {other}, and stays so", file=sys.stderr)
                return
            self.find()
            self.data.load(self.splits)
            # Warnings from before the run was opened are not in its report yet.
            slow = networks.slow_precision(self.config)
            for warning in (*devices.idle_gpus(), *slow, *self.data.warnings(self.splits)):
                run.warn(warning, show=False)
            keras.utils.set_random_seed(self.config.seed % 2**32)  # for layers without a seed of their own
            self.build()
            for warning in networks.random_layers(self.step):
                run.warn(warning)
            with networks.answerable(self.uses()):
                best, sessions = self._fit(run)
            checkpoint.load_best(run.path, self.keep, best.step)
            rows, damaged = EventLog(run.path).rows()
            conclusion = self.conclude(rows)
            for warning in conclusion.warnings:
                run.warn(warning)
            if damaged:
                run.warn(f"{run.path}/diagnostics.csv: has damaged rows, which the pictures of the run lack")
            with machine_errors(run.path, "make room, then run the same command to resume"):
                for tag, picture in {**self.draw(best.step), **conclusion.pictures}.items():
                    pictures.save(picture, run.path / f"{tag}.png")
            made_from = {"digests": self.data.digests(self.splits), **self.parts()}
            made_on = {"environment": self._environment(), **sessions}
            run.finish({"best": best.score, "best_step": best.step, **conclusion.report, **made_from, **made_on})

    def kept(self, **builders: Callable[[], tf.Module]) -> Mapping[str, tf.Module]:
        """The networks to validate and keep, by name: the step's own, or their averages, which then follow the updates.

        Args:
          **builders: functions that make a second network of the same architecture, for the average.
        """
        own = {name: getattr(self.step, name) for name in builders}
        if not self.schedule.average:
            return own
        averages = {name: build() for name, build in builders.items()}
        self.step = steps.Averaged(self.step, own.values(), averages.values(), self.schedule.average)
        return averages

    def _fit(self, run) -> tuple[checkpoint.Best, dict[str, list]]:
        """Trains; returns the best score with its step, and the commits and precisions of all sessions that trained."""
        config, log, finite = self.config, EventLog(run.path), hooks.StopOnNonFinite()
        checkpoints = checkpoint.Checkpoints(
            run.path,
            {"step": self.step},
            self._fingerprint(run.config),
            every=config.checkpoint_every,
            log=log,
            before_save=finite.check,
            warn=run.warn,
            commit=self._commit,
        )

        def while_finite(call):
            """Ends the run before a state with NaN is scored or drawn."""

            def checked(*args):
                finite.check()
                return call(*args)

            return checked

        validation = hooks.KeepBest(
            self.schedule.eval_every,
            while_finite(self.score),
            self.keep,
            checkpoints,
            log,
            start=self.start,
            latest=self.schedule.keep == "last",
        )
        memory.require(list(self.keep.values()), self.schedule.batch_size)
        text = "```\n" + pprint.pformat(run.config, width=100, compact=True) + "\n```"
        fit(
            self.step,
            lambda start: pipeline.iterate(self.batches, start),
            self.schedule.num_steps,
            [
                finite,
                hooks.Text("config", text, log),
                hooks.Scalars(config.report_every, log),
                validation,
                hooks.Pictures(config.picture_every, while_finite(self.draw), log),
                hooks.Progress(self.name, config.report_every, checkpoints),
            ],
            checkpoints,
        )
        precisions = list(dict.fromkeys(environment["precision"] for environment in checkpoints.environments))
        return checkpoints.best, {"commits": checkpoints.commits, "precisions": precisions}

    def _fingerprint(self, config):
        return {
            "config": identity.select(config, self.keys),
            "data": {"scans": self.data.digests(self.splits), **self.parts()},
            "environment": self._environment(),
        }

    def _environment(self):
        """What changes the last bits of a training."""
        return {
            "device": devices.used(),
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
            "threads": determinism.num_threads(),
            "onednn": determinism.uses_onednn(),
            "precision": self.config.precision,
        }

    def parts(self) -> Mapping[str, Any]:
        """What identifies the parts of the training besides config and data, JSON-able."""
        return {"generators": {name: runs.digest_of(model) for name, model in self.learned.items()}}


class LearnAugmentation(Stage):
    """Stage "aug": trains one of `GENERATORS` with S and D."""

    keys = identity.GENERATOR
    unread = ("segment", "generators", "methods")

    def __init__(self, config: Config, workdir, name: str, data: Data):
        check_generator(config, name)
        config = of_generator(config, name)
        super().__init__(f"aug-{name}", generator_path(config, workdir, name), config, data, config.augment)
        self.generator_name, self.kind = name, GENERATORS[name][0]
        self.splits.append("unlabelled")
        if config.augment.real_pool != "all":
            require(cases(config, "unlabelled"), "unlabelled")
        self.start = config.augment.warmup_steps + 1

    def build(self):  # noqa: D102 -- overrides what `Stage` documents
        config, schedule = self.config, self.schedule
        labelled, unlabelled = self.data["labelled"], self.data["unlabelled"]
        pools = {"all": [unlabelled + labelled], "unlabelled": [unlabelled], "equal": [unlabelled, labelled]}
        pools = pools[schedule.real_pool]
        scans = [scan.image for pool in pools for scan in pool]
        self.step = networks.learn_augmentation(config, self.generator_name, scans)
        self.judge = tf.function(self.step.judge, autograph=False) if self.step.asks_discriminator else None
        self.batches = pipeline.generator_batches(
            _slices(labelled),
            [_images(pool) for pool in pools],
            self.data.task.num_classes,
            schedule.batch_size,
            networks.augmenter(config, schedule.partition).affine,
            config.seed,
            released_partition=schedule.partition == "released",
            repeats=draws_of_a_slice(schedule),
        )
        self.keep = self.kept(
            generator=functools.partial(networks.generator, config, self.kind),
            segmenter=functools.partial(networks.segmenter, config, "aug"),
        )
        self.instruments = instruments.Instruments(
            self.generator_name, labelled, unlabelled, self.data["validation"], config
        )
        self.generate = tf.function(inference.inference_mode(self.keep["generator"]), autograph=False)
        self.predict = inference.predictor(self.keep["segmenter"], schedule.batch_size)

    def score(self):  # noqa: D102
        return {**super().score(), **self.instruments.measure(self.generate, self.judge)}

    def draw(self, num_done):  # noqa: D102
        shown = (self.kind, self.generate, self.data["labelled"], self.config, self.data.task)
        return {"generator": drawing.generator_picture(*shown), **super().draw(num_done)}

    def conclude(self, rows):  # noqa: D102
        reading = self.instruments.measure(self.generate)
        verdict, reasons = self.instruments.verdict(reading)
        drawn = {}
        if rows:
            shown = (self.kind, self.generate, self.data["labelled"], self.config, self.data.task)
            title = "\n".join([f"{self.path.name}: {verdict}", *reasons, self.instruments.in_short(reading)])
            steps, charts = [int(row["step"]) for row in rows], self.instruments.charts(rows)
            drawn["instruments"] = pictures.curves_page(title, drawing.draws_picture(*shown), steps, charts)
        return Conclusion({"generator": self.generator_name, "verdict": verdict}, reasons, drawn)


class TrainSegmenter(Stage):
    """Stage "seg": trains S anew with one method, fixed generators; keeps the best by validation Dice or the last."""

    keys = identity.SEGMENTER
    unread = ("augment", "methods")

    def __init__(self, config: Config, workdir, name: str, method: Method, data: Data):
        super().__init__(f"seg-{name}", segmenter_path(config, workdir, name), config, data, config.segment)
        self.method, self.method_name, self._workdir = method, name, workdir
        self._adversarial = steps.rule(method.rule).unlabelled
        if self._adversarial or method.unlabelled:
            require(cases(config, "unlabelled"), "unlabelled")
            self.splits.append("unlabelled")
        networks.check_transforms(config, method)

    def uses(self):  # noqa: D102
        model, method = self.config.model, self.method
        discriminator = [model.discriminator] if method.rule != "segment" else []
        generator = [model.generator] if method.generators else []
        return [model.segmenter, *discriminator, *generator, method.rule, *method.transforms]

    def find(self):  # noqa: D102
        self._load(self.method.generators)

    def refuse_other(self, report):  # noqa: D102
        super().refuse_other(report)
        self._refuse_generators_of_other_data()
        paths = {name: generator_path(self.config, self._workdir, name) for name in self.method.generators}
        # A generator that the config does not name and that has been removed since is not another one.
        self._load([name for name, path in paths.items() if self.config.generators[name] or run_dir.read_report(path)])
        now = self.parts()
        then = {"generators": {}, "row": now["row"], **report}  # older runs have no row
        other = [
            f"generator {name!r}" for name, one in now["generators"].items() if then["generators"].get(name) != one
        ]
        if then["row"] != now["row"]:
            other.append(f"method {self.method_name!r}")
        if other:
            remedy = "choose another --workdir or --config.name"
            raise UserError(self.path, f"was trained with another {' and another '.join(other)}", remedy)

    def _refuse_generators_of_other_data(self):
        """Refuses generators of other cases or scans; those that the user names may come from other data."""
        config, splits = self.config, identity.SPLITS_OF_GENERATOR
        unnamed = [name for name in self.method.generators if not config.generators[name]]
        if unnamed:
            identity.refuse_other_data(self.path, config, splits)  # its generators may have been removed since
        for name in unnamed:
            path = generator_path(config, self._workdir, name)
            identity.refuse_other_data(path, config, splits, self.data.digests(splits))

    def _load(self, names):
        self.learned = {name: runs.load_generator(self.config, self._workdir, name) for name in names}

    def parts(self):  # noqa: D102
        return {**super().parts(), "row": identity.row_of(self.method)}

    def build(self):  # noqa: D102
        config, schedule, method = self.config, self.schedule, self.method
        self._refuse_generators_of_other_data()
        unlabelled = [scan.image for scan in self.data["unlabelled"]] if "unlabelled" in self.splits else []
        histograms_of = unlabelled if method.unlabelled else []
        self.augmenter = networks.augmenter(config, schedule.partition, self.learned, histograms_of)
        task = self.data.task
        self.step = networks.train_segmenter(config, method)
        slices = _slices(self.data["labelled"])
        arguments = (task.num_classes, schedule.batch_size, self.augmenter.method(method), config.seed)
        self.batches = supervised = pipeline.labelled_batches(slices, *arguments)
        if self._adversarial:
            self.batches = pipeline.adversarial_batches(slices, pipeline.slices(unlabelled), *arguments)
        self.keep = self.kept(segmenter=functools.partial(networks.segmenter, config, "seg"))
        self.predict = inference.predictor(self.keep["segmenter"], schedule.batch_size)
        self._again = supervised  # not as a graph, which takes a second to build, for an occasional batch

    def draw(self, num_done):  # noqa: D102
        index = tf.constant(num_done - 1, tf.int64)
        names = self.augmenter.names(self.method, self.schedule.batch_size, index, "labelled")
        batch = drawing.batch_picture(self._again(index), names, self.data.task)
        return {"batch": batch, **super().draw(num_done)}

    def conclude(self, rows):  # noqa: D102
        scans = (scan for split in self.splits for scan in self.data[split])
        return Conclusion({"method": self.method_name, "scans": {scan.case: traits.of(scan) for scan in scans}})


@contextlib.contextmanager
def _warnings_into(run: run_dir.RunDir) -> Iterator[None]:
    """Warnings that tfaug's modules log in the block are kept for the run's report."""
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: run.warn(record.getMessage())
    logger = logging.getLogger("tfaug")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _images(scans):
    return pipeline.slices([scan.image for scan in scans])


def _slices(scans):
    return pipeline.slices([scan.image for scan in scans], [scan.label for scan in scans])
