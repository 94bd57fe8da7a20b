"""Which cases an experiment has, and their prepared scans. Needs no TensorFlow."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator, Sequence

from tfaug import config as rules
from tfaug import plugins
from tfaug.augment import methods
from tfaug.augment.methods import Method
from tfaug.config import Config, cases
from tfaug.data import auto, cache, check, readers, splits
from tfaug.data.dataset import DataSet
from tfaug.data.preprocess import Prepared, Spec
from tfaug.data.task import Task
from tfaug.engine.errors import UserError
from tfaug.phantom import cohort

SPLITS = ("labelled", "validation", "unlabelled", "test")


def method(config: Config, name: str, flag: str = "--aug") -> tuple[str, Method]:
    """The row of the table that a flag names, by its short name or as "my_module:name".

    Raises:
      UserError: there is none.
    """
    table = {**methods.METHODS, **methods.table(config.methods)}
    found = plugins.load(name, table, flag)
    if not isinstance(found, Method):
        raise UserError(flag, f"{name!r} is of type {type(found).__name__}", "name a tfaug.augment.methods.Method")
    return plugins.short_name(name), found


def root(config: Config) -> pathlib.Path:
    """The data set's folder; the built-in cohort is made when it is asked for."""
    if config.data.root:
        return pathlib.Path(config.data.root)
    return cohort.ensure_cohort(config.data.cache_dir, config.data.cohort_seed, config.data.num_workers)


def reader(config: Config) -> readers.Reader:
    """What knows the data set's layout."""
    return readers.open(root(config), config.data.to_dict())


def task_of(config: Config) -> Task:
    """The task that a resolved config names."""
    return Task(dict(config.data.structures), tuple(config.data.channels))


def spec_of(config: Config) -> Spec:
    """How a resolved config wants scans prepared."""
    return Spec(config.data.image_size, config.data.resolution, config.data.n4_shrink)


def resolve(config: Config) -> Config:
    """A copy of a config in which everything that its data decide has a value, and which says so on standard output.

    Structures and channels come from the data set, splits from their file or a random draw, the grid from spacings and
    labels. A resolved config stays as it is.

    Raises:
      UserError: data and config do not fit together.
    """
    if rules.is_resolved(config):
        return config
    config = config.copy_and_resolve_references()
    source = reader(config)
    found = source.task()
    if not config.data.structures and found is None:
        raise UserError(
            "--config.data.structures", "is empty, and the data set does not name its structures", "give {'name': value}"
        )
    structures = dict(config.data.structures or found.structures)
    task = Task(structures, tuple(config.data.channels) or (found.channels if found else ("image",)))
    with config.data.ignore_type():
        config.data.structures = tuple(task.structures.items())
        config.data.channels = task.channels
    _resolve_splits(config, source)
    dataset = DataSet(source, task, config.data.slice_axis)
    if config.data.root:
        print(f"data: {root(config)} ({config.data.reader or type(source).__name__}), structures {_listed(structures)}")
    _resolve_grid(config, dataset)
    for stage in ("augment", "segment"):
        if not config[stage].class_weights:
            config[stage].class_weights = task.class_weights
        if len(config[stage].class_weights) != task.num_classes:
            raise UserError(
                f"--config.{stage}.class_weights",
                f"has {len(config[stage].class_weights)} numbers for {task.num_classes} classes",
                "give one a class, background first, or () for the default",
            )
    rules.check(config)
    return config


def _listed(structures):
    return ", ".join(f"{value} {name}" for name, value in structures.items())


def _resolve_splits(config, source):
    if config.splits.file:
        chosen = splits.from_file(pathlib.Path(config.splits.file))
    elif config.splits.random:
        chosen = splits.random(source.cases(), source.patient, dict(config.splits.random))
    else:
        return
    labelled = chosen.pop("labelled")
    config.splits.labelled = Config(labelled)
    for split, names in chosen.items():
        config.splits[split] = tuple(names)
    config.splits.file = ""
    config.splits.random = ()
    sizes = ", ".join(f"{len(config.splits[split])} {split}" for split in ("validation", "test", "unlabelled"))
    sets = ", ".join(f"{len(of_size)} labelled sets of {key[1:]}" for key, of_size in labelled.items())
    print(f"splits: {sets}; cases: {sizes}")


def _resolve_grid(config, dataset):
    size, resolution = config.data.image_size, config.data.resolution
    if "auto" not in (size, resolution):
        return
    labelled = {case for sets in config.splits.labelled.values() for one in sets for case in one}
    with_label = sorted(labelled | set(config.splits.validation))
    size, resolution = auto.grid(dataset, with_label, config.splits.unlabelled, size, resolution)
    config.data.image_size, config.data.resolution = size, resolution
    print(f"grid: {size} x {size} pixels of {resolution:g} mm")


class Data:
    """The prepared scans of an experiment, each read once.

    Attributes:
      task: structures and channels.
      tag: a part of the names of masks: the cardiac phase, where the layout knows one.
    """

    def __init__(self, config: Config):
        self._config = config
        self.task = task_of(config)
        self._loaded: dict[str, list[Prepared]] = {}

    @functools.cached_property
    def _dataset(self):
        return DataSet(reader(self._config), self.task, self._config.data.slice_axis)

    @property
    def tag(self) -> str:
        """A part of the names of masks."""
        return self._dataset.tag

    def load(self, names: Sequence[str]) -> None:
        """Reads and prepares the cases of some splits that are not loaded yet.

        Raises:
          UserError: the first of all cases that cannot be used; it says how many there are.
        """
        missing = [name for name in names if name not in self._loaded]
        findings = self._examine(missing)
        check.refuse(findings)

    def check(self) -> str:
        """Reads and prepares the cases of all splits; a report of what is wrong."""
        findings = self._examine(SPLITS)
        print(check.report(findings))
        check.refuse(findings)
        return ""

    def __getitem__(self, name: str) -> list[Prepared]:
        """The prepared scans of a split that has been loaded."""
        return self._loaded[name]

    def with_volumes(self, name: str) -> Iterator[Prepared]:
        """The scans of a split with their native volumes, one after the other."""
        raise NotImplementedError
