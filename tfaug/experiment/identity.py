"""The identity of a trained model, of an evaluation and of a result of the grid (docs/identity.md).

A trained model is identified by what it was trained on: the contents of its training and validation scans, the use
and order of each, its generators, and the config keys listed below. An evaluation is identified by its run, the
contents of the scans that it scored and the definition of its distances; a result of the grid by the contents of all
scans that reached it. Paths, names of folders, test cases that a config names, the cache, pictures and log intervals
are part of none.
Needs no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfaug import metrics
from tfaug.augment.methods import Method
from tfaug.config import Config, cases
from tfaug.engine import run_dir
from tfaug.engine.errors import UserError
from tfaug.engine.files import read_json, write_json
from tfaug.engine.run_dir import in_one_line, refuse_difference

_BOTH = (
    *("seed", "data.structures", "data.channels", "data.slice_axis"),
    *("data.image_size", "data.resolution", "data.n4_shrink"),
)
_NETWORKS = tuple(
    f"model.{key}"
    for key in ("segmenter", "discriminator", "discriminator_norm", "filters", "half_pixel_centers", "norm_momentum")
)
# The keys, or whole sections, that reach a training.
GENERATOR = (*_BOTH, "model", "transforms.affine", "augment")
SEGMENTER = (*_BOTH, *_NETWORKS, "transforms", "segment")

SPLITS_OF_GENERATOR = ("labelled", "validation", "unlabelled")  # that reach its training

_FILE = "evaluated.json"
_NOTED = "begun"  # in it while an evaluation is incomplete: the cases that have files
# The files of a complete evaluation.
TABLE = "dice.csv"
_FILES = (TABLE, "summary.txt", "indices.csv", "agreement.png")


def select(config: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The values of dotted keys of a config."""
    found = {}
    for key in keys:
        value = config
        for part in key.split("."):
            value = value[part]
        found[key] = value.to_dict() if isinstance(value, Config) else value
    return found


def refuse_other_scans(run: pathlib.Path, report: Mapping[str, Any], now: Mapping[str, str]) -> None:
    """Refuses a finished run whose scans have changed.

    Args:
      run: its folder.
      report: its report, which has the digests of its scans by case.
      now: digests by case of the scans that it would be trained on now.

    Raises:
      UserError: names the cases.
    """
    then = report.get("digests", {})
    changed = {
        f"scan of {case}": "changed" if case in now and case in then else "added or removed"
        for case in sorted({*now, *then})
        if now.get(case) != then.get(case)
    }
    if changed:
        remedy = "restore them, or choose another --workdir or --config.name"
        raise UserError(run, f"was trained on other data ({in_one_line(changed)})", remedy)


def refuse_other_data(
    run: pathlib.Path, asked: Config, splits: Iterable[str], digests: Mapping[str, str] | None = None
) -> None:
    """Refuses a finished run whose cases or scans were others than now; an unfinished or removed one passes.

    Args:
      run: its folder.
      asked: the config that it would be trained with now.
      splits: those that reach the training.
      digests: of the contents of at least their scans as they are now, by case; None compares the cases alone.

    Raises:
      UserError: names the cases.
    """
    report = run_dir.read_report(run)
    if report is None:
        return
    splits = tuple(splits)
    refuse_other_splits(run, run_dir.read_config(run), asked, splits)
    if digests is not None:
        refuse_other_scans(run, report, {case: digests[case] for split in splits for case in cases(asked, split)})


def refuse_other_splits(run: pathlib.Path, saved: Mapping[str, Any], asked: Config, splits: Iterable[str]) -> None:
    """Refuses a run, finished or not, whose cases were in other splits or in another order than now.

    The order matters as it decides which slices a batch has.

    Args:
      run: its folder.
      saved: its config, as `run_dir.read_config` returns it.
      asked: the config that it would be trained with now.
      splits: those that reach the training.

    Raises:
      UserError: names the cases.
    """
    both, splits = (Config(saved), asked), tuple(splits)
    of_case = [{case: split for split in splits for case in cases(config, split)} for config in both]
    refuse_difference(run, *of_case, what="split of the cases")
    places = [
        {case: f"{split} {place}" for split in splits for place, case in enumerate(cases(config, split), 1)}
        for config in both
    ]
    refuse_difference(run, *places, what="order of the cases")


def splits_of_run(saved: Config, report: Mapping[str, Any]) -> list[str]:
    """The splits whose scans a finished run of a segmenter was trained on or validated with, without its generators'.

    Args:
      saved: its config.
      report: its report, which has the digests of its scans by case.
    """
    uses_unlabelled = not report.get("digests", {}).keys().isdisjoint(cases(saved, "unlabelled"))
    return ["labelled", "validation", *["unlabelled"] * uses_unlabelled]


def refuse_used_cases(run: pathlib.Path, saved: Config, report: Mapping[str, Any], asked: Config, split: str) -> None:
    """Refuses to score cases that a finished run of a segmenter has used for something else.

    These are its labelled cases, its validation cases unless `split` is "validation", and the unlabelled cases that it
    or its generators have learned from; what a generator named by the user has learned from is unknown.

    Args:
      run: its folder.
      saved: its config.
      report: its report.
      asked: the config that names the cases.
      split: which of them are scored.

    Raises:
      UserError: names the cases.
    """
    used = splits_of_run(saved, report)
    if any(not saved.generators[name] for name in report.get("generators", {})):
        used.append("unlabelled")
    of_case = {case: name for name in used if name != split for case in cases(saved, name)}
    found = {case: of_case[case] for case in cases(asked, split) if case in of_case}
    if found:
        problem = f"has used cases of the {split} split itself ({in_one_line(found)})"
        raise UserError(run, problem, f"leave them out of --config.splits.{split}")


def of_evaluation(model: str, scans: Mapping[str, str], distances: str) -> dict[str, Any]:
    """The identity of an evaluation.

    Args:
      model: identity of its run.
      scans: digests by case of the scans that it scores.
      distances: the definition of its distances.
    """
    # The default is left out, so that evaluations from before there was a choice stay valid.
    other = {} if distances == metrics.DEFAULT_DISTANCES else {"distances": distances}
    return {"model": model, "scans": dict(scans), **other}


def is_evaluated(out_dir: pathlib.Path, made_from: Mapping[str, Any]) -> bool:
    """Whether an evaluation is complete, unchanged and of the identity `made_from`, see `of_evaluation`."""
    return _made_from(out_dir) == made_from


def is_of(out_dir: pathlib.Path, model: str) -> bool:
    """Whether an evaluation is complete, unchanged and of this model, whatever scans it has scored."""
    return _made_from(out_dir).get("model") == model


def scans_of(out_dir: pathlib.Path) -> dict[str, str]:
    """Digests by case of the scans that an evaluation has scored; empty unless it is complete and unchanged."""
    return _made_from(out_dir).get("scans", {})


def mark_evaluated(out_dir: pathlib.Path, made_from: Mapping[str, Any]) -> None:
    """Records what a complete evaluation was made from."""
    content = {**made_from, "files": _digests(out_dir)}
    (out_dir / _FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def note_case(out_dir: pathlib.Path, case: str, remedy: str) -> None:
    """Records that an evaluation is about to write files of a case, and so that there is no complete one.

    Args:
      out_dir: its folder.
      case: the name.
      remedy: what a user can do if the record cannot be written.

    Raises:
      MachineError: the record cannot be written.
    """
    write_json(out_dir / _FILE, {_NOTED: sorted({*noted_cases(out_dir), case})}, remedy)


def noted_cases(out_dir: pathlib.Path) -> list[str]:
    """The cases whose files evaluations, complete or interrupted, have left in a folder."""
    content = _content(out_dir)
    return [*content.get("scans", {}), *content.get(_NOTED, [])]


def _made_from(out_dir):
    """The identity of an evaluation; empty if there is none, or somebody has changed its files."""
    try:
        files = _digests(out_dir)
    except OSError:
        return {}
    content = _content(out_dir)
    # Evaluations of older versions have no digests of their files.
    return content if content.pop("files", files) == files else {}


def _content(out_dir):
    content = read_json(out_dir / _FILE)
    kinds = {"scans": dict, _NOTED: list}
    sound = isinstance(content, dict) and all(isinstance(content.get(key, kind()), kind) for key, kind in kinds.items())
    return content if sound else {}


def _digests(out_dir):
    return {name: hashlib.sha256((out_dir / name).read_bytes()).hexdigest() for name in _FILES}


def row_of(method: Method) -> dict[str, Any]:
    """A method as a dict, in the form in which JSON returns it."""
    return json.loads(json.dumps(dataclasses.asdict(method)))


def of_generators(config: Config, names: Iterable[str]) -> dict[str, str]:
    """Which generators a config uses: identities of the runs that it names, "" for those that are learned for each set.

    Args:
      config: its `generators` are paths, or "".
      names: names of generators.

    Raises:
      UserError: one that the config names has not been trained.
    """
    found = {}
    for name in names:
        path = config.generators[name]
        if path and run_dir.read_report(path) is None:
            remedy = f"give --config.generators.{name} the folder of a finished run"
            raise UserError(path, f"there is no trained generator {name!r}", remedy)
        found[name] = run_dir.identity(path) if path else ""
    return found


def splits_of(method: Method) -> list[str]:
    """The splits whose scans reach a result of a method, through its generators too."""
    needs_unlabelled = method.generators or method.unlabelled or method.rule != "segment"
    return ["labelled", "validation", "test", *["unlabelled"] * bool(needs_unlabelled)]


def of_result(config: Config, method: Method, digests: Mapping[str, str]) -> str:
    """The identity of a result of the grid: a digest of all scans that reach it.

    Args:
      config: the config, with the result's labelled set.
      method: its row.
      digests: by case, of at least these scans.
    """
    scans = {split: sorted(digests[case] for case in cases(config, split)) for split in splits_of(method)}
    return hashlib.sha256(json.dumps(scans, sort_keys=True).encode()).hexdigest()[:32]
