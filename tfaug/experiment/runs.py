"""The use of finished runs: trained networks and evaluations."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tfaug import evaluation, inference, metrics
from tfaug.augment.methods import GENERATORS, Method
from tfaug.compat import keras
from tfaug.config import Config, cases, of_generator, refuse_twice, require, used_generator_path
from tfaug.data.preprocess import Prepared
from tfaug.engine import checkpoint, memory, run_dir
from tfaug.engine.errors import UserError, counted
from tfaug.engine.event_log import EventLog
from tfaug.engine.files import machine_errors
from tfaug.experiment import identity, networks, sources
from tfaug.experiment.sources import Data, config_of_segmenter, refuse_other_coding

_RESULTS = {"table": "summary.txt", "Dice": "dice.csv", "masks": "masks", "pictures": "pictures"}
_ROOM = "make room, then run the same command again"


def load_generator(config: Config, workdir, name: str) -> keras.Model:
    """The trained generator that the second stage of a config uses, built from its own run's config.

    Raises:
      UserError: it has not been trained, or with another config; or one that the user names does not match.
    """
    named = config.generators[name]
    path = used_generator_path(config, workdir, name)
    report = run_dir.read_report(path)
    if report is None:
        raise UserError(
            path,
            f"there is no trained generator {name!r}",
            f"first run `python train.py --stage=aug --gen={name}` with the same config",
        )
    saved = run_dir.read_config(path)
    asked = of_generator(config, name).to_dict()
    if named:  # only what has to match is compared
        kind = GENERATORS[name][0]
        if "segment" in saved or GENERATORS[report.get("generator", name)][0] != kind:
            raise UserError(path, f"has not learned {name!r}", f"name a run of `train.py --stage=aug --gen={kind}`")
        has, needs = (len(one["data"]["channels"]) for one in (saved, asked))
        if has != needs:
            raise UserError(
                path, f"generates {counted(has, 'channel')}, and the data have {needs}", "name another generator"
            )
    run_dir.refuse_difference(path, saved, asked, ["data.image_size"] if named else identity.GENERATOR)
    return generator_of(path, GENERATORS[name][0])


def generator_of(path: pathlib.Path, kind: str) -> keras.Model:
    """The generator that a finished run of the first stage has learned."""
    with networks.on_cpu():
        model = networks.generator(Config(run_dir.read_config(path)), kind)
    checkpoint.load_best(path, {"generator": model}, run_dir.read_report(path)["best_step"])
    return model


def digest_of(model: keras.Model) -> str:
    """What identifies a generator in the reports of segmenters: a digest of its weights."""
    digest = hashlib.sha256()
    for weights in model.get_weights():
        digest.update(np.ascontiguousarray(weights))
    return digest.hexdigest()


def generators_of(path: pathlib.Path, config: Config, report: Mapping[str, Any]) -> dict[str, pathlib.Path | None]:
    """The runs of the generators that a segmenter learned with, by name.

    None where the run is gone, cannot be read, or has learned another generator since.

    Args:
      path: the segmenter's run; a generator's has none.
      config: the run's config.
      report: the run's report.
    """
    digests, folders = report.get("generators", {}), sources.generators_of(path, config, report)
    return {name: folder if _has_learned(folder, name, digests[name]) else None for name, folder in folders.items()}


def _has_learned(path, name, digest):
    try:
        if (run_dir.read_report(path) or {}).get("generator") not in GENERATORS:
            return False
        with networks.precision(Config(run_dir.read_config(path))):
            return digest_of(generator_of(path, GENERATORS[name][0])) == digest
    except UserError:
        return False


def segmenter_of(path: pathlib.Path) -> keras.Model:
    """The segmenter that a finished run of the second stage has trained."""
    model = networks.segmenter(config_of_segmenter(path), "seg")
    checkpoint.load_best(path, {"segmenter": model}, run_dir.read_report(path)["best_step"])
    return model


def evaluate(
    path,
    split: str,
    asked: Config | None = None,
    changes: Mapping[str, Any] | None = None,
    distances: str = metrics.DEFAULT_DISTANCES,
) -> str:
    """Evaluates a trained segmenter on a split, on the scans' own grids.

    Args:
      path: the run's folder; results go to its `evaluation/<split>`.
      split: "test" or "validation".
      asked: the config whose data are scored, and with which the run must have been trained; None: the run's own.
      changes: values that replace the config's by key, as {"data.root": "/data/acdc"}.
      distances: the definition of HD95 and ASSD, a key of `metrics.DISTANCES`.

    Returns:
      The table, as text, and where everything is.

    Raises:
      UserError: there is no finished run, it was trained with another config, it has used a case for something else,
        or the data cannot be used.
    """
    path = pathlib.Path(path)
    saved, report = config_of_segmenter(path), run_dir.read_report(path)
    config = saved.copy_and_resolve_references()
    if asked is not None:
        run_dir.refuse_difference(path, saved.to_dict(), asked.to_dict(), identity.SEGMENTER)
        config = asked.copy_and_resolve_references()
        config.precision = saved.precision
    if changes:
        with config.ignore_type():  # a list, as saved, in place of a tuple
            config.update_from_flattened_dict(changes)
        refuse_twice(f"--config.splits.{split}", cases(config, split))
    require(cases(config, split), split)
    identity.refuse_used_cases(path, saved, report, config, split)
    if asked is not None:
        identity.refuse_other_splits(path, saved.to_dict(), asked, identity.splits_of_run(saved, report))
    out_dir, data = path / "evaluation" / split, Data(config)
    if "data.root" in (changes or ()):
        refuse_other_coding(data.dataset.reader, data.task)
    model = run_dir.identity(path)
    complete = (out_dir / identity.TABLE).is_file()  # otherwise the scans need not be read twice
    if complete and identity.is_evaluated(out_dir, identity.of_evaluation(model, data.digests([split]), distances)):
        print(f"{out_dir}: evaluated before; nothing to do")
    else:
        networks.set_up_tensorflow(config)
        predict = inference.predictor(segmenter_of(path), config.segment.batch_size)
        with run_dir.locked(path), memory.running_out():
            before = identity.noted_cases(out_dir)
            with machine_errors(out_dir, "make it writable"):
                (out_dir / identity.TABLE).unlink(missing_ok=True)  # where it exists, the evaluation is complete
            scans, num_scans = _noted(data.with_volumes(split), out_dir), len(cases(config, split))
            hearts = data.dataset.reader.hearts(cases(config, split))
            evaluation.evaluate(predict, scans, num_scans, out_dir, data.task, data.tag, hearts, distances, before)
            with machine_errors(out_dir, _ROOM):
                made_from = identity.of_evaluation(model, data.digests([split]), distances)
                identity.mark_evaluated(out_dir, made_from)
    table = (out_dir / "summary.txt").read_text(encoding="utf-8", errors="replace")
    where = "\n".join(f"{name:9} {out_dir / file}" for name, file in _RESULTS.items())
    number = len(cases(config, split))
    return f"{path.name}, {split} split, {number} case{'s' if number > 1 else ''}\n\n{table}\n{where}"


def _noted(scans: Iterable[Prepared], out_dir: pathlib.Path) -> Iterator[Prepared]:
    """Passes on scans; each case is recorded before its files are written."""
    for prepared in scans:
        identity.note_case(out_dir, prepared.case, _ROOM)
        yield prepared


def other_precision(path, config: Config) -> str | None:
    """The precisions of a finished run's sessions, if one differs from the config's."""
    report = run_dir.read_report(path) or {}  # a generator that has served may have been removed
    last = report.get("environment", {}).get("precision", config.precision)
    made_in = report.get("precisions", [last])  # runs of before have none
    return None if set(made_in) <= {config.precision} else " and ".join(made_in)


def refuse_other_precision(path, config: Config, workdir, method: Method) -> None:
    """Refuses a result of runs in a precision other than the config's, which is that of the folder of results.

    Args:
      path: the finished run of a segmenter.
      config: the config, with its labelled set and seed.
      workdir: folder of its generators' runs, unless the config names them.
      method: its row.

    Raises:
      UserError: the run, or that of a generator, was made in another precision.
    """
    of_generators = (used_generator_path(config, workdir, name) for name in method.generators)
    for run in (path, *of_generators):
        if (other := other_precision(run, config)) is not None:
            problem = f"was trained in {other}, and the results are of {config.precision}"
            alone = f", or --config.precision={other}" if " " not in other else ""
            raise UserError(run, problem, f"choose another --workdir{alone}")


def provenance(path) -> dict[str, Any]:
    """How long a finished run took in seconds, the commit of the program, and what determined its numbers' last bits.

    The commits of a run that was resumed by other programs are joined by commas; None if one is not known.
    """
    report = run_dir.read_report(path)
    made_on, commits = report["environment"], report.get("commits", [None])  # runs of before have none
    return {
        "seconds": EventLog(path).seconds(),
        "commit": None if None in commits else ", ".join(commits),
        "threads": int(made_on["threads"]),
        "tensorflow": made_on["tensorflow"],
    }
