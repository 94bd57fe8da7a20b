"""Results of finished segmenters; they may be committed, and the grid resumes from them on another machine.

A folder of results holds one small JSON file for each, named after the segmenter's run, such as
phantom-n1-set1-seg-aff-seed0.json, and config.json, the config that all of them share, with their structures.
"""

from __future__ import annotations

import csv
import json
import math
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from tfaug.augment.methods import Method
from tfaug.config import Config, run_name
from tfaug.data.task import Task
from tfaug.engine.errors import UserError
from tfaug.engine.files import machine_errors, read_json, replacing, sealed, unsealed
from tfaug.engine.run_dir import differences, in_one_line, read_report
from tfaug.experiment import identity

_RESULT, _RESULT_FORMAT = "tfaug_result", 1
CONFIG_MARK, _CONFIG_FORMAT = "tfaug_results_of", 2  # 1: without structures
CONFIG_FILE = "config.json"
DECIMALS = 5

# Keys that vary over the grid or affect no number.
UNBOUND = {
    *("seed", "num_labelled", "labelled_set", "methods", "data.cache_dir", "data.num_workers"),
    *("splits.file", "splits.random"),  # only the resulting splits matter
    *("report_every", "picture_every", "checkpoint_every"),
}


class Result(NamedTuple):
    """The scores of a trained segmenter on the test patients, and how it was made.

    Attributes:
      method: a row of the table, by its short name.
      num_labelled: N_L.
      labelled_set: which set of that size, from 1.
      seed: seed of the run.
      best_step: the update whose model was kept: the best by `validation_dice`, or the last.
      validation_dice: its mean Dice on the validation patients.
      dice: by test patient, the Dice of the structures in the order of the task; NaN, null in the file, is undefined.
      seconds: training time, over all sessions.
      commit: commit of the program that trained, with "-dirty" if its code differed; several, separated by
        commas, if it was updated between sessions; None if unknown.
      threads: threads of one operation.
      tensorflow: its version.
      data: identity of its scans (`experiment.identity.of_result`); None if unknown.
      row: its method (`experiment.identity.row_of`); None if unknown.
      generators: those that its method uses, by name (`experiment.identity.of_generators`); None if unknown.
    """

    method: str
    num_labelled: int
    labelled_set: int
    seed: int
    best_step: int
    validation_dice: float
    dice: Mapping[str, tuple[float, ...]]
    seconds: float
    commit: str | None
    threads: int
    tensorflow: str
    data: str | None = None
    row: Mapping[str, Any] | None = None
    generators: Mapping[str, str] | None = None


def file_name(config_name: str, num_labelled: int, labelled_set: int, method: str, seed: int) -> str:
    """The name of a result's file: that of the segmenter's run, with .json."""
    return run_name(config_name, num_labelled, labelled_set, f"seg-{method}", seed) + ".json"


def name_of(result: Result, config_name: str) -> str:
    """The name of a result's file in a config's folder of results."""
    return file_name(config_name, result.num_labelled, result.labelled_set, result.method, result.seed)


def decisive(config: Config | Mapping[str, Any], structures: Sequence[str]) -> dict[str, Any]:
    """The part of a config that all results of a folder share: what determines numbers, without personal paths.

    Args:
      config: config of the experiment.
      structures: names in the order of the task, which become the config's data.structures. The values that mark them
        in label files determine no number.
    """
    values = json.loads(json.dumps(config.to_dict() if isinstance(config, Config) else config))
    for key in UNBOUND:
        *parents, last = key.split(".")
        section = values
        for parent in parents:
            section = section[parent]
        section.pop(last, None)
    values["data"]["root"] = os.path.basename(values["data"]["root"].rstrip("/"))
    values["data"]["structures"] = list(structures)
    values["generators"] = {name: os.path.basename(path.rstrip("/")) for name, path in values["generators"].items()}
    return values


def changes(then: Mapping[str, Any], now: Mapping[str, Any], generators: Collection[str] = ()) -> dict[str, str]:
    """The differences between two configs as returned by `decisive`: dotted key to "old -> new".

    The name of the data's folder is left out, as a renamed folder holds the same data, and so are all generators but
    those named: each result records its own.
    """
    ignored = {"data.root", *(f"generators.{name}" for name in now["generators"] if name not in generators)}
    return {key: change for key, change in differences(then, now).items() if key not in ignored}


def of_config(
    folder: str | os.PathLike, config: Config, structures: Sequence[str], generators: Collection[str]
) -> list[Result]:
    """All results of a folder, as `load`, if results of `config` can be added to it; nothing is written.

    Args:
      folder: folder of the results.
      config: config of the experiment.
      structures: names in the order of the task.
      generators: names of those that the methods to be added use.

    Raises:
      UserError: the folder holds results of another config, or made with other generators of these names, or something
        else.
    """
    found = load(folder)
    _refuse_other_config(pathlib.Path(folder), config, structures)
    refuse_other_generators(folder, config, found, generators)
    return found


def refuse_other_generators(
    folder: str | os.PathLike, config: Config, found: Sequence[Result], names: Collection[str]
) -> None:
    """Refuses results that were made with generators other than the config's.

    Args:
      folder: folder of the results, for the error.
      config: config of the experiment.
      found: results; those without a record of their generators pass.
      names: names of the generators to compare.

    Raises:
      UserError: names the first such result; or a generator that the config names has not been trained.
    """
    known = {name for result in found for name in result.generators or () if name in names}
    now = identity.of_generators(config, sorted(known))
    for result in found:
        for name in known.intersection(result.generators or ()):
            if result.generators[name] != now[name]:
                raise UserError(
                    pathlib.Path(folder) / name_of(result, config.name),
                    f"was made with another generator {name!r}",
                    "go back to the old one, or choose another --workdir and --results",
                )


def refuse_other_methods(folder: str | os.PathLike, found: Sequence[Result], methods: Mapping[str, Method]) -> None:
    """Refuses to show results under the name of a method that has changed since.

    Args:
      folder: folder of the results, with its config.
      found: results; those without a record of their method pass.
      methods: the rows that are shown, as `augment.methods.table` returns them.

    Raises:
      UserError: names the first such result.
    """
    rows = {name: identity.row_of(method) for name, method in methods.items()}
    for result in found:
        if result.row is not None and result.row != rows.get(result.method, result.row):
            raise UserError(
                pathlib.Path(folder) / name_of(result, read_config(folder)["name"]),
                f"is of what the method {result.method!r} was before",
                "run `python train.py --stage=table1` again, or go back to the old method",
            )


def bind(folder: str | os.PathLike, config: Config, structures: Sequence[str]) -> None:
    """Makes `folder` a folder for results of `config` on `structures`, unless it is one already.

    Raises:
      UserError: it holds results of another config, or something else.
      MachineError: it cannot be written.
    """
    folder = pathlib.Path(folder)
    _refuse_other_config(folder, config, structures)
    if not (folder / CONFIG_FILE).exists():
        content = {CONFIG_MARK: _CONFIG_FORMAT, "config": decisive(config, structures)}
        _write(folder / CONFIG_FILE, json.dumps(content, indent=1) + "\n")


def _refuse_other_config(folder, config, structures):
    if not (folder / CONFIG_FILE).exists():
        _refuse_foreign(folder)
        return
    changed = changes(read_config(folder), decisive(config, structures))
    if changed:
        raise UserError(
            folder,
            f"holds results of another config ({in_one_line(changed)})",
            "go back to the old values, or choose another --results",
        )


def save(folder: str | os.PathLike, result: Result, config: Config, structures: Sequence[str]) -> None:
    """Adds one result, in one atomic step.

    Args:
      folder: folder of the results.
      result: holds the Dice of `structures`, in their order.
      config: config of the experiment.
      structures: names in the order of the task.

    Raises:
      UserError: the folder is bound to another config.
      MachineError: it cannot be written.
    """
    bind(folder, config, structures)
    _write(pathlib.Path(folder) / name_of(result, config.name), _render(result))


def load(folder: str | os.PathLike) -> list[Result]:
    """All results of a folder, by file name; none if the folder is missing or empty.

    Raises:
      UserError: names the first file that is damaged, or belongs to something else.
    """
    folder = pathlib.Path(folder)
    if not (folder / CONFIG_FILE).exists():
        _refuse_foreign(folder)
        return []
    config = read_config(folder)
    with machine_errors(folder, "make it readable"):
        files = [path for path in sorted(folder.glob("[!.]*.json")) if path.name != CONFIG_FILE]
    return [_read(path, config) for path in files]


def read_config(folder: str | os.PathLike) -> dict[str, Any]:
    """The config that the results in `folder` share, as returned by `decisive`.

    Raises:
      UserError: there is none, or it is damaged, or from an older tfaug.
    """
    file = pathlib.Path(folder) / CONFIG_FILE
    content = read_json(file)
    try:
        if content[CONFIG_MARK] == 1:
            raise UserError(file, "is of results of tfaug 0.1.0", "choose another --results")
        if content[CONFIG_MARK] == _CONFIG_FORMAT:
            config = content["config"]
            test, texts = config["splits"]["test"], (config["name"], config["data"]["root"])
            if isinstance(test, list) and test and all(isinstance(value, str) for value in (*test, *texts)):
                task_of(config)
                return config
    except (TypeError, KeyError, IndexError, ValueError):
        pass
    raise UserError(file, "is not the config of results of tfaug", "give the folder that --stage=table1 fills")


def task_of(config: Mapping[str, Any]) -> Task:
    """The structures of results, from their config as returned by `read_config`; values are classes.

    Raises:
      ValueError: no data set can have such structures.
    """
    names = config["data"]["structures"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len({*names}) < len(names):
        raise ValueError("data.structures")
    try:
        return Task({name: value for value, name in enumerate(names, start=1)})
    except UserError as error:
        raise ValueError("data.structures") from error


def of_run(
    run: pathlib.Path,
    config: Config,
    method: str,
    *,
    seconds: float,
    commit: str | None,
    threads: int,
    tensorflow: str,
    data: str | None = None,
    row: Mapping[str, Any] | None = None,
    generators: Mapping[str, str] | None = None,
) -> Result:
    """The result of a segmenter that has been trained with `config` in the folder `run`, and evaluated.

    Other arguments are as in `Result`.
    """
    report = read_report(run)
    dice: dict[str, list[float]] = {}
    with open(run / "evaluation" / "test" / "dice.csv", newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):  # by patient, then by structure in the order of the task
            dice.setdefault(line["case"], []).append(float(line["dice"] or "nan"))
    return Result(
        method,
        config.num_labelled,
        config.labelled_set,
        config.seed,
        report["best_step"],
        report["best"],
        {case: tuple(values) for case, values in dice.items()},
        seconds,
        commit,
        threads,
        tensorflow,
        data,
        row,
        generators,
    )


def _refuse_foreign(folder):
    with machine_errors(folder, "make it readable, or choose another --results"):
        if folder.exists() and not folder.is_dir():
            raise UserError(folder, "is not a folder", "choose another --results")
        if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise UserError(folder, f"is not empty and has no {CONFIG_FILE} of results", "choose another --results")


def _write(file, text):
    with replacing(file, "make room, or choose --results that can be written", unique=True) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _render(result: Result) -> str:
    """The JSON text, one value or patient per line, for readable diffs."""
    head = {_RESULT: _RESULT_FORMAT, **result._asdict()}
    dice = head.pop("dice")
    for unknown in [key for key in ("data", "row", "generators") if head[key] is None]:
        del head[unknown]
    head.update(seconds=round(result.seconds, 1), validation_dice=round(result.validation_dice, DECIMALS))
    dice = {case: [_rounded(value) for value in values] for case, values in dice.items()}
    head = {key: value for key, value in sealed({**head, "dice": dice}).items() if key != "dice"}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    patients = [f"  {json.dumps(case)}: {json.dumps(values)}" for case, values in dice.items()]
    lines.append(' "dice": {\n' + ",\n".join(patients) + "\n }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _rounded(value):
    return None if math.isnan(value) else round(float(value), DECIMALS)


def _read(path: pathlib.Path, config: Mapping[str, Any]) -> Result:
    content, remedy = read_json(path), "restore it, or remove it: it is then made again"
    try:
        content = unsealed(path, content, remedy)
        if content.pop(_RESULT) != _RESULT_FORMAT:
            raise ValueError("another format")
        content["dice"] = {case: tuple(map(_score, values)) for case, values in content["dice"].items()}
        result = Result(**content)
        num_structures = len(config["data"]["structures"])
        if not result.method.isidentifier() or any(len(values) != num_structures for values in result.dice.values()):
            raise ValueError("no name of a method, or other structures")
        if math.isnan(_score(result.validation_dice)):
            raise ValueError("no validation Dice")
        whole = (result.num_labelled, result.labelled_set, result.seed, result.best_step, result.threads)
        texts = (result.tensorflow, "" if result.commit is None else result.commit)
        if type(result.data) not in (str, type(None)) or type(result.row) not in (dict, type(None)):
            raise ValueError("no identity of data or method")
        if result.generators is not None and {*map(type, result.generators.values())} - {str}:
            raise ValueError("no identity of generators")
        if {*map(type, whole)} != {int} or {*map(type, texts)} != {str} or type(result.seconds) not in (int, float):
            raise ValueError("values of a wrong type")
        if not 0 <= result.seconds < math.inf:
            raise ValueError("impossible time")
        name = name_of(result, config["name"])
        strangers = set(result.dice) != set(config["splits"]["test"])
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(path, "is damaged or no result of tfaug", remedy) from error
    if name != path.name:
        raise UserError(path, f"holds the result that belongs into {name}", "rename or remove it")
    if strangers:
        raise UserError(path, f"is of other patients than {CONFIG_FILE} beside it", "remove it")
    return result


def _score(value) -> float:
    """Checks a Dice read from a file: between 0 and 1, or null (NaN)."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(value)
    return float(value)
