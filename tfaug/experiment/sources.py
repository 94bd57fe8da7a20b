"""The cases of an experiment, and their prepared scans. Needs no TensorFlow."""

from __future__ import annotations

import functools
import logging
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tfaug import config as rules
from tfaug import plugins
from tfaug.augment import methods
from tfaug.augment.methods import Method
from tfaug.config import Config, cases, used_generator_path
from tfaug.configs import phantom
from tfaug.data import auto, cache, check, oddities, readers, splits
from tfaug.data.dataset import DataSet
from tfaug.data.preprocess import Prepared, Spec
from tfaug.data.task import Task
from tfaug.engine import run_dir
from tfaug.engine.errors import UserError, counted
from tfaug.phantom import cohort

logger = logging.getLogger(__name__)

SPLITS = ("labelled", "validation", "unlabelled", "test")


def method(config: Config, name: str, flag: str = "--aug") -> tuple[str, Method]:
    """The row of the table that a flag names, by its short name or as "my_module:name".

    Raises:
      UserError: there is none, or no segmenter can be trained with it; see `methods.check`.
    """
    table = {**methods.METHODS, **methods.table(config.methods)}
    found = plugins.load(name, table, flag)
    if not isinstance(found, Method):
        raise UserError(flag, f"{name!r} is of type {type(found).__name__}", "name a tfaug.augment.methods.Method")
    methods.check(name, found, config.segment.partition, config.segment.batch_size)
    return plugins.short_name(name), found


def root(config: Config) -> pathlib.Path:
    """The data set's folder; the built-in cohort is made if needed."""
    if config.data.root:
        return pathlib.Path(config.data.root)
    return cohort.ensure_cohort(config.data.cache_dir, config.data.cohort_seed, config.data.num_workers)


def reader(config: Config) -> readers.Reader:
    """The reader of the data set.

    Raises:
      UserError: the folder does not have the layout, or the config names a layout but no folder.
    """
    if not config.data.root and config.data.reader not in ("", "acdc"):
        problem = f"names {config.data.reader!r}, but data.root is empty and the built-in cohort needs no reader"
        raise UserError("--config.data.reader", problem, "set data.root to the folder of the data set")
    return readers.open(root(config), config.data.to_dict())


def task_of(config: Config) -> Task:
    """The task that a resolved config names."""
    return Task(dict(config.data.structures), tuple(config.data.channels))


def spec_of(config: Config) -> Spec:
    """How a resolved config has scans prepared."""
    return Spec(config.data.image_size, config.data.resolution, config.data.n4_shrink)


def tag_of(reader: readers.Reader, config: Config) -> str:
    """A part of the masks' names: the cardiac phase, if the layout knows one and cases are not named after it."""
    one_phase = isinstance(reader, readers.acdc.Reader) and config.data.phase in readers.acdc.PHASES
    return config.data.phase if one_phase else ""


def config_of_segmenter(path: pathlib.Path) -> Config:
    """The config of a finished run of the second stage.

    Raises:
      UserError: there is none.
    """
    if run_dir.read_report(path) is None:
        remedy = "first train it: `python train.py --stage=seg --aug=METHOD`"
        raise UserError(path, "there is no trained segmenter", remedy)
    config = Config(run_dir.read_config(path))
    if "segment" not in config:
        raise UserError(path, "learns a generator and has no segmenter", "name the folder of a segmenter's run")
    return config


def configs_of_segmenters(paths: Sequence[pathlib.Path]) -> list[Config]:
    """The configs of finished runs whose probabilities can be averaged.

    Raises:
      UserError: a run has no segmenter, or they do not agree on structures, channels or the axis that is sliced.
    """
    configs = [config_of_segmenter(path) for path in paths]
    first = task_of(configs[0])
    for path, config in zip(paths, configs):
        task = task_of(config)
        for what, ours, theirs in (
            ("structures", task.structures, first.structures),
            ("channels", task.channels, first.channels),
            ("slice_axis", config.data.slice_axis, configs[0].data.slice_axis),
        ):
            if ours != theirs:
                problem = f"has other {what} than {paths[0]} ({_shown(ours)} instead of {_shown(theirs)})"
                raise UserError(path, problem, "name runs that agree, or one alone")
    return configs


def configs_of_generators(paths: Sequence[pathlib.Path]) -> list[Config]:
    """The configs of finished runs of the first stage whose generators can be used one after the other.

    Raises:
      UserError: a run has no generator, two have one of the same kind, or they need different scans.
    """
    configs, kinds = [], {}
    for path in paths:
        report = run_dir.read_report(path)
        if report is None or report.get("generator") not in methods.GENERATORS:
            remedy = "give the folder of a finished `train.py --stage=aug`"
            raise UserError(path, "there is no trained generator", remedy)
        kind = methods.GENERATORS[report["generator"]][0]
        if kind in kinds:
            raise UserError(path, f"is of kind {kind!r}, as {kinds[kind]}", "give one run of each kind")
        kinds[kind] = path
        configs.append(Config(run_dir.read_config(path)))
    for path, config in zip(paths, configs):
        for what in ("structures", "channels", "slice_axis", "image_size", "resolution", "n4_shrink"):
            ours, theirs = config.data[what], configs[0].data[what]
            if ours != theirs:
                problem = f"has another data.{what} than {paths[0]} ({_shown(ours)} instead of {_shown(theirs)})"
                raise UserError(path, problem, "name runs that agree, or one alone")
    return configs


def config_of_network(path: pathlib.Path) -> tuple[str, Config]:
    """What a finished run has trained, "segmenter" or a generator of kind "deform" or "intensity", and its config.

    Raises:
      UserError: the run is not finished, or there is none.
    """
    report = run_dir.read_report(path)
    if report is None:
        raise UserError(path, "there is no trained network", "give the folder of a finished run of `tfaug train`")
    if report.get("generator") in methods.GENERATORS:
        return methods.GENERATORS[report["generator"]][0], configs_of_generators([path])[0]
    return "segmenter", config_of_segmenter(path)


def generators_of(path: pathlib.Path, config: Config, report: Mapping[str, Any]) -> dict[str, pathlib.Path]:
    """The folders of the generators that a segmenter's run learned with, by name.

    They may have been removed, or hold other generators since: see `runs.generators_of`.

    Args:
      path: the segmenter's run; a generator's has none.
      config: the run's config.
      report: the run's report.
    """
    workdir = path.absolute().parent
    return {name: used_generator_path(config, workdir, name) for name in report.get("generators", {})}


def about_lost(learned: Mapping[str, Any]) -> str:
    """What to tell of generators that a segmenter learned with and that are not there any more; "" if all are.

    Args:
      learned: by name; None for those that are lost, see `runs.generators_of`.
    """
    lost = [repr(name) for name, one in learned.items() if one is None]
    if not lost:
        return ""
    return (
        "Generators that the segmenter learned with, and whose runs are gone or have learned other ones since: "
        f"{', '.join(lost)}. The sections augment and model need not be those that they were learned with."
    )


def whole_config(config: Config, learned: Sequence[Config]) -> Config:
    """A run's config, completed by the sections of other stages, which its folder does not keep.

    They come from the generators' runs, or from the default config for any structures: the run has not read them.

    Args:
      config: the config of a finished run.
      learned: the configs of the generators that a segmenter learned with, as far as they are there, in the order of
        `generators_of`; see `about_lost`.
    """
    sections: dict[str, Any] = phantom.get_config().to_dict()
    for stage in ("augment", "segment"):
        sections[stage]["class_weights"] = ()
    for one in (*learned, config):
        sections.update(one.to_dict())
    if learned:
        sections["augment"] = rules.augment_of([one.to_dict() for one in learned], sections["model"])
    return Config(sections)


def _shown(value):
    if isinstance(value, dict):
        return ", ".join(f"{number} {name}" for name, number in value.items())
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def scans_to_segment(path: pathlib.Path, config: Config, labels: bool = False) -> DataSet:
    """The scans of a file, a folder or a data set, for the segmenter with this config.

    Args:
      path: the file or folder.
      config: the config of a run.
      labels: whether labels are needed too, as for scores.

    Raises:
      UserError: there are none, or they have other channels, or labels of another coding.
    """
    reader, task = readers.find(path, config.data.to_dict()), task_of(config)
    channels = reader.channels()
    if len(channels) != len(task.channels):
        problem = f"has {counted(len(channels), 'channel')} ({_shown(channels)}), the run takes {len(task.channels)}"
        raise UserError(path, problem, f"give scans with {_shown(task.channels)}, or another --run")
    refuse_other_coding(reader, task, labels)
    return DataSet(reader, task, config.data.slice_axis)


def refuse_other_coding(reader: readers.Reader, task: Task, labels: bool = True) -> None:
    """Refuses a data set that declares an order of channels or values of labels other than a run's.

    Structures with other names may be the same ones, and only give a warning.

    Args:
      reader: reader of the data set.
      task: task of the run.
      labels: whether labels are needed.

    Raises:
      UserError: channels are in another order, or a structure has another value.
    """
    channels = reader.channels()
    if channels != task.channels and sorted(channels) == sorted(task.channels):
        problem = f"has the channels {_shown(channels)}, in another order than the run, {_shown(task.channels)}"
        raise UserError(reader.root, problem, "bring them into the run's order")
    found = reader.task() if labels and reader.reads_structures else None
    if found is None:
        return
    other = {name: value for name, value in found.structures.items() if task.structures.get(name, value) != value}
    if other:
        ours = {name: task.structures[name] for name in other}
        problem = f"marks structures by other values than the run, {_shown(other)} instead of {_shown(ours)}"
        raise UserError(reader.root, problem, "give labels with the run's values")
    names = {value: name for name, value in task.structures.items()}
    for name, value in found.structures.items():
        if names.get(value, name) != name:
            logger.warning(f"{reader.root}: the value {value} is {name!r} here, and {names[value]!r} in the run")


def resolve(config: Config, skip_unusable: bool = False) -> Config:
    """A copy of a config in which everything that depends on the data has a value; prints what was found.

    Structures and channels come from the data set, splits from their file or a random draw, the grid from spacings and
    labels. A resolved config is returned unchanged.

    Args:
      config: a config.
      skip_unusable: choose the grid from the cases that can be used, for a check that goes on to name the others.

    Raises:
      UserError: data and config do not match.
    """
    if rules.is_resolved(config):
        return config
    config = rules.copied(config)
    with config.ignore_type():  # a number replaces "auto"
        _resolve(config, skip_unusable)
    return config


def _resolve(config, skip_unusable):
    source = reader(config) if _needs_files(config) else readers.acdc.Reader(pathlib.Path(), config.data.to_dict())
    task = readers.task(source, config.data.to_dict())
    config.data.structures = tuple(task.structures.items())
    config.data.channels = config.data.channels or task.channels
    config.data.reader = readers.name_of(source)
    _resolve_splits(config, source)
    rules.check(config)
    if config.data.root:
        _check_cases(config, source)
    if config.data.root:
        found = ", ".join(f"{value} {name}" for name, value in task.structures.items())
        print(f"data: {root(config)}, layout {config.data.reader}, structures {found}")
    _resolve_grid(config, DataSet(source, task_of(config), config.data.slice_axis), skip_unusable)
    for section in rules.unweighted(config):
        section["class_weights"] = task.class_weights
    rules.check(config)


def _needs_files(config):
    """Whether files are needed: without, all but measurements is known of the built-in cohort before it is made."""
    splits, data = config.splits, config.data
    return bool(data.root or data.reader or splits.file or splits.random) or "auto" in (
        data.image_size,
        data.resolution,
    )


def _resolve_splits(config, source):
    if config.splits.file:
        chosen = splits.from_file(pathlib.Path(config.splits.file))
    elif config.splits.random:
        chosen = splits.random(source.cases(), source.patient, dict(config.splits.random))
    else:
        _check_sizes(config, source)
        _name_cases(config, source)
        return
    labelled = chosen.pop("labelled")
    config.splits.labelled = Config(labelled)  # replaces the sets of another data set
    for split, names in chosen.items():
        config.splits[split] = tuple(names)
    config.splits.file = ""
    config.splits.random = ()
    _name_cases(config, source)
    sizes = ", ".join(f"{len(config.splits[split])} {split}" for split in ("validation", "test", "unlabelled"))
    sets = ", ".join(
        f"{len(of_size)} labelled {'set' if len(of_size) == 1 else 'sets'} of {key[1:]}"
        for key, of_size in labelled.items()
    )
    print(f"splits: {sets}; cases: {sizes}")


def _name_cases(config, source):
    """Replaces the name of a patient by the patient's cases."""

    def cases_of(names):
        return tuple(case for name in names for case in source.members(name))

    sets = config.splits.labelled
    config.splits.labelled = Config({size: tuple(map(cases_of, of_size)) for size, of_size in sets.items()})
    for split in SPLITS[1:]:
        config.splits[split] = cases_of(config.splits[split])


def _check_sizes(config, source):
    """Refuses labelled sets given by the user whose size is not the one that their name says."""
    for size, sets in config.splits.labelled.items():
        for members in sets:
            if size not in (f"n{len(members)}", f"n{len({source.patient(case) for case in members})}"):
                raise UserError(
                    f"--config.splits.labelled.{size}",
                    f"has a set of {len(members)} ({', '.join(members[:3])}{', ...' * (len(members) > 3)})",
                    f"move it to splits.labelled.n{len(members)}, or correct it",
                )


def _check_cases(config, source):
    """Distinguishes splits of another data set from a missing case."""
    named = {case for split in SPLITS for case in cases(config, split)}
    if any(_is_there(source, case) for case in sorted(named)):
        return
    listing = source.cases()
    known = [*listing.labelled, *listing.unlabelled]
    if named.isdisjoint(known):
        shown = ", ".join([*known[:3], *["..."] * (len(known) > 3)])
        problem = f"names none of the {len(known)} cases of {root(config)} ({shown})"
        remedy = f"give --config.splits.file, or draw them by --config.splits.random={splits.EXAMPLE}"
        raise UserError("--config.splits", problem, remedy)


def _is_there(source, case):
    try:
        source.locate(case, label=False)
    except UserError:
        return False
    return True


def _resolve_grid(config, dataset, skip_unusable):
    data = config.data
    if "auto" not in (data.image_size, data.resolution):
        return
    labelled = {case for sets in config.splits.labelled.values() for one in sets for case in one}
    with_label = sorted(labelled | set(config.splits.validation))
    given = None if data.resolution == "auto" else data.resolution
    chosen = auto.choose(dataset, (*config.splits.unlabelled, *config.splits.test), with_label, given, skip_unusable)
    data.resolution = chosen.resolution
    data.image_size = chosen.image_size if data.image_size == "auto" else data.image_size
    print(f"grid: {data.image_size} x {data.image_size} pixels of {data.resolution:g} mm")


class Data:
    """The prepared scans of an experiment by split, each read once.

    Args:
      config: resolved.
    """

    def __init__(self, config: Config):
        self._config = config
        self._loaded: dict[str, list[Prepared]] = {}
        self._digests: dict[str, str] = {}

    @functools.cached_property
    def dataset(self) -> DataSet:
        """The data set that the scans are read from."""
        return DataSet(reader(self._config), task_of(self._config), self._config.data.slice_axis)

    @property
    def task(self) -> Task:
        """Structures and channels."""
        return self.dataset.task

    @property
    def tag(self) -> str:
        """A part of the names of masks, see `tag_of`."""
        return tag_of(self.dataset.reader, self._config)

    def counts(self) -> str:
        """The number of cases in each split, as text."""
        return ", ".join(f"{len(cases(self._config, split))} {split}" for split in SPLITS)

    def load(self, names: Iterable[str]) -> None:
        """Reads and prepares the cases of some splits, unless already loaded.

        Raises:
          UserError: cases cannot be used.
          MachineError: the cache cannot be written, or memory runs out.
          Interrupted: a signal asked the program to stop.
        """
        wanted = {name: self._requests(name) for name in names if name not in self._loaded}
        found = iter(self._read([request for requests in wanted.values() for request in requests]))
        self._loaded.update({name: [next(found) for _ in requests] for name, requests in wanted.items()})
        self._digests.update({scan.case: scan.digest for name in wanted for scan in self._loaded[name]})

    def __getitem__(self, name: str) -> list[Prepared]:
        """The prepared scans of a split that has been loaded; those for validation with their native volumes."""
        return self._loaded[name]

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """Digests of the contents of the files of some splits, by case; for scans already read, as they were then.

        Raises:
          UserError: a file is missing or cannot be read.
        """
        requests = [request for name in names for request in self._requests(name)]
        self._digests.update(cache.digests(self.dataset, (one for one in requests if one.case not in self._digests)))
        return {request.case: self._digests[request.case] for request in requests}

    def warnings(self, names: Iterable[str]) -> list[str]:
        """The oddities of the scans of loaded splits."""
        return [str(oddity) for oddity in oddities.of_scans(self.task, [scan for name in names for scan in self[name]])]

    def with_volumes(self, name: str) -> Iterator[Prepared]:
        """The scans of a split with their native volumes, in order, without holding all of them; warns of odd headers.

        Raises:
          UserError: a case cannot be used; those before it have been passed on.
        """
        requests = [cache.Request(case, volume=True) for case in cases(self._config, name)]
        waiting, found = iter(requests), {}
        wanted = next(waiting, None)
        data = self._config.data
        each = cache.load_each(self.dataset, requests, spec_of(self._config), data.cache_dir, data.num_workers)
        for request, result in each:  # workers finish in any order
            if isinstance(result, UserError):
                raise result
            found[request] = result
            while wanted in found:
                self._digests[wanted.case] = found[wanted].digest
                oddities.warn(oddities.of_header(found[wanted]))
                yield found.pop(wanted)
                wanted = next(waiting, None)

    def check(self) -> check.Findings:
        """Reads and prepares every case of every split, and continues after an error; see `check.examine`."""
        splits, data = {name: cases(self._config, name) for name in SPLITS}, self._config.data
        return check.examine(self.dataset, splits, spec_of(self._config), data.cache_dir, data.num_workers)

    def _requests(self, name):
        label, volume = name != "unlabelled", name == "validation"
        return [cache.Request(case, label, volume) for case in cases(self._config, name)]

    def _read(self, requests):
        data = self._config.data
        return cache.load(self.dataset, requests, spec_of(self._config), data.cache_dir, data.num_workers)
