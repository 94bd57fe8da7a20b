"""The report of a run, of a segmenter or of a generator."""

from __future__ import annotations

import datetime
import math
import pathlib
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from tfaug import config as rules
from tfaug import indices, metrics, tables
from tfaug.augment.methods import GENERATORS, METHODS
from tfaug.config import Config, cases
from tfaug.data.task import Task
from tfaug.engine import event_files, run_dir
from tfaug.engine.errors import UserError, counted
from tfaug.engine.files import machine_errors
from tfaug.experiment import identity, sources
from tfaug.report import cases as case_pages
from tfaug.report import charts, generators, page
from tfaug.report.page import code, details, el, joined

SPLITS = ("test", "validation")
MOST_NAMES = 8  # of cases in one line

_TRANSFORMS = {
    "affine": "random affine transforms",
    "elastic": "random elastic deformations",
    "contrast_brightness": "random contrast and brightness",
    "histogram": "histograms of unlabelled scans",
    "deform": "learned deformations",
    "intensity": "learned intensity fields",
    "deform_noreg": "deformations learned without adversarial and magnitude terms",
    "intensity_noreg": "intensity fields learned without adversarial and magnitude terms",
    "scale": "random scaling",
    "elastic_strong": "strong random elastic deformations",
    "contrast_brightness_strong": "strong random contrast and brightness",
}
_RULES = {
    "adversarial_sl": "trained against a discriminator, on labelled slices alone",
    "adversarial_ssl": "trained against a discriminator, with unlabelled slices",
}
_KINDS = {"deform": "deformation fields (G_V)", "intensity": "intensity fields (G_I)"}
_CURVES = {
    "loss/segmentation": "L_S",
    "loss/adversarial": "adversarial",
    "loss/big": "magnitude (big)",
    "loss/generator": "all of G",
    "loss/discriminator": "L_D",
}


class Run(NamedTuple):
    """What a finished run has left behind.

    Attributes:
      path: its folder.
      config: resolved.
      report: as `run_dir.read_report` returns it.
      rows: rows of its diagnostics.csv.
      scalars: its curves, see `event_files.scalars`.
      seconds: duration of the training.
      started: when it began, or None.
    """

    path: pathlib.Path
    config: Config
    report: Mapping[str, Any]
    rows: Sequence[Mapping[str, float]]
    scalars: Mapping[str, tuple[list[int], list[float]]]
    seconds: float
    started: datetime.datetime | None

    @property
    def task(self) -> Task:
        """Its structures."""
        return sources.task_of(self.config)

    @property
    def generator(self) -> str | None:
        """The name of the generator that it has learned; None for a segmenter's run."""
        return self.report.get("generator")

    @property
    def method(self) -> str:
        """The method of a segmenter's run."""
        return self.report.get("method") or re.sub(r".*-seg-(.+)-seed\d+", r"\1", self.path.absolute().name)


def read(path: pathlib.Path) -> Run:
    """Reads a run.

    Raises:
      UserError: it is not a run, or unfinished or damaged.
    """
    config = Config(run_dir.read_config(path))
    report = run_dir.read_report(path)
    if report is None:
        raise UserError(path, "is not finished", "finish the training first: the same command resumes it")
    with machine_errors(path, "make it readable"):
        files = event_files.files(path)
        first = next((event.wall_time for file in files[:1] for event in event_files.events(file)), None)
        curves, seconds = event_files.scalars(path), event_files.seconds(path)
    started = None if first is None else datetime.datetime.fromtimestamp(first)
    return Run(path, config, report, _diagnostics(path), curves, seconds, started)


def generators_of(run: Run) -> dict[str, Run | None]:
    """The runs of the generators that a segmenter learned with, by name; None for what `runs.generators_of` misses."""
    if not run.report.get("generators"):
        return {}
    from tfaug.experiment import networks, runs  # not before: they load TensorFlow

    networks.set_up_tensorflow(run.config)
    found = runs.generators_of(run.path, run.config, run.report)
    return {name: path and read(path) for name, path in found.items()}


def render(run: Run) -> str:
    """The page."""
    learned = generators_of(run)
    if run.generator:
        parts = [("The generator", generators.described(run.path, run.config, run.report, run.rows))]
        parts += [("Learning curves", _learning(run))]
        figures, sentence = _generator_figures(run), _generator_sentence(run)
    else:
        found = {split: _evaluation(run, split) for split in SPLITS}
        found = {split: table for split, table in found.items() if table is not None}
        figures, sentence = _segmenter_figures(run, found), _segmenter_sentence(run, found)
        parts = [("Scores", _scores(run, found))]
        if found:
            parts.append(("Cases", _cases(run, *next(iter(found.items())))))
            parts.append(("Volumes and clinical indices", _indices(run, next(iter(found)))))
        parts.append(("Learning curves", _learning(run)))
        parts.append(("What the segmenter learned from", _batch(run)))
        parts.append(("Generators", _generators(learned)))
    parts.append(("What was done", _facts(run, {} if run.generator else found)))
    parts.append(("How to repeat it", _repeat(run, learned)))
    parts = [(title, content) for title, content in parts if content]
    sections = [page.section(title, content) for title, content in parts]
    lead = joined(el("p", sentence, class_="lead"), page.key_figures(figures), _warnings(run, learned))
    return page.whole(run.path.absolute().name, lead, sections, [title for title, _ in parts])


def _segmenter_sentence(run, found):
    structures = run.task.names
    number = len(cases(run.config, "labelled"))
    made = joined(
        f"A segmenter of {_listed(structures)} was trained on {counted(number, 'labelled case')} of ",
        el("strong", _data_name(run.config)),
        ", with the method ",
        code(run.method),
        f": {_method_in_words(run)}.",
    )
    if not found:
        return joined(made, " It has not been evaluated yet.")
    split, table = next(iter(found.items()))
    means = table.groupby("case").dice.mean()
    scored = f"On {counted(len(means), f'{split} case')} its mean Dice is {_spread(means, 3)}."
    if others := _others(run, split, table):
        scored += f" These are not the {split} cases of its config, and may be of another data set: {_some(others)}."
    return joined(made, " ", scored)


def _others(run, split, table):
    """The cases that an evaluation has scored, if they are not those of the run's config."""
    scored = list(dict.fromkeys(table.case))
    return scored if {*scored} != {*cases(run.config, split)} else []


def _generator_sentence(run):
    kind, regularised = GENERATORS[run.generator]
    terms = "" if regularised else ", without adversarial and magnitude terms"
    number, unlabelled = len(cases(run.config, "labelled")), len(cases(run.config, "unlabelled"))
    return joined(
        f"A generator of {_KINDS[kind]} was learned{terms} from {counted(number, 'labelled case')} and "
        f"{counted(unlabelled, 'unlabelled case')} of ",
        el("strong", _data_name(run.config)),
        ", together with a segmenter of ",
        f"{_listed(run.task.names)}. {generators.WORDS.get(run.report.get('verdict'), '')}",
    )


def _method_in_words(run):
    method = METHODS.get(run.method)
    if method is None:
        return "a method of your own"
    words = [_listed([_TRANSFORMS.get(name, name) for name in method.first]) or "slices as they are"]
    if method.generated:
        names = dict.fromkeys(name for recipe in method.generated for name in recipe)
        words.append(f"half of each batch also with {_listed([_TRANSFORMS.get(name, name) for name in names])}")
    if method.mixup:
        words.append("half of it mixed with other slices (mixup)")
    if method.rule in _RULES:
        words.append(_RULES[method.rule])
    return ", ".join(words)


def _segmenter_figures(run, found):
    for split, table in found.items():
        means = table.groupby("case").dice.mean()
        yield f"Dice, {split}", f"{means.mean():.3f}", f"± {means.std(ddof=0):.3f} over {counted(len(means), 'case')}"
        hd95, assd = _distances(table)
        for name, column in (("HD95", hd95), ("ASSD", assd)):
            values = table.groupby("case")[column].mean().dropna()
            if len(values):
                yield f"{name}, {split}", f"{values.mean():.2f} mm", f"± {values.std(ddof=0):.2f} mm"
        break
    yield from _common_figures(run)


def _generator_figures(run):
    yield "Verdict", run.report.get("verdict", "not recorded"), None
    yield from _common_figures(run)


def _common_figures(run):
    yield "Validation Dice of the kept step", f"{run.report['best']:.3f}", f"step {run.report['best_step']}"
    if run.seconds:
        yield "Training time", _duration(run.seconds), run.started and f"begun {run.started:%Y-%m-%d %H:%M}"


def _facts(run, found):
    config = run.config
    others = {split: _others(run, split, table) for split, table in found.items()}
    data, schedule = config.data, config["augment" if run.generator else "segment"]
    done = joined("generator ", code(run.generator)) if run.generator else joined("method ", code(run.method))
    where = (
        code(data.root)
        if data.root
        else "made by tfaug: simulated hearts, for comparing methods, not for clinical claims"
    )
    wanted = ("labelled", "unlabelled", "validation") if run.generator else sources.SPLITS
    weights = ", ".join(f"{weight:g}" for weight in schedule.class_weights)
    commits = run.report.get("commits", [None])
    return page.facts(
        [
            ("Data set", joined(_data_name(config), ", ", where)),
            (
                "Structures",
                _listed([f"{name} ({value} in the label files)" for name, value in run.task.structures.items()]),
            ),
            ("Channels", _listed(run.task.channels)),
            *((f"{split.capitalize()} cases", _names(cases(config, split))) for split in wanted),
            *(
                (f"Scored as {split} cases", f"{_names(names)}; not those of the config, perhaps of another data set")
                for split, names in others.items()
                if names
            ),
            (
                "Slices as the networks see them",
                f"{data.image_size} × {data.image_size} pixels of {data.resolution:g} mm",
            ),
            ("N4", "none" if not data.n4_shrink else f"yes, shrunk by {data.n4_shrink}"),
            ("Learned", done),
            (
                "Training",
                f"{schedule.num_steps} steps of {schedule.batch_size} slices, learning rate "
                f"{schedule.learning_rate:g}, class weights {weights}; validated every {schedule.eval_every} steps, "
                f"step {run.report['best_step']} was kept",
            ),
            ("Seed", config.seed),
            ("Precision", config.precision),
            ("Training time", _duration(run.seconds) if run.seconds else "not recorded"),
            ("Device and versions", _environment(run.report.get("environment"))),
            ("Commit of tfaug", ", ".join(one or "not recorded" for one in commits)),
            ("Folder", code(run.path)),
        ]
    )


def _environment(found):
    if not found:
        return "not recorded by the version of tfaug that made the run"
    return (
        f"{found['device']}, threads: {found['threads']}, TensorFlow {found['tensorflow']}, NumPy {found['numpy']}, "
        f"convolutions of {'oneDNN' if found['onednn'] else 'Eigen'}"
    )


def _warnings(run, learned):
    lines = [*run.report["warnings"]]
    for one in filter(None, learned.values()):
        lines += [line for line in one.report["warnings"] if line not in lines]
    if not lines:
        return el("p", "The run has no warnings.", class_="soft")
    title = el("h2", counted(len(lines), "warning").capitalize())
    return el("aside", title, el("ul", [el("li", line) for line in lines]), class_="warning", aria_label="Warnings")


def _evaluation(run, split):
    """The rows of an evaluation, or None.

    Raises:
      UserError: it is damaged, or belongs to another training.
    """
    folder = run.path / "evaluation" / split
    file = folder / "dice.csv"
    with machine_errors(file, "make it readable"):
        if not file.exists():
            return None
        if not identity.is_of(folder, run_dir.identity(run.path)):
            problem = "is not as it was written, not complete, or of another training"
            raise UserError(folder, problem, f"evaluate the run again: `{_evaluate(run)} --split={split}`")
        try:
            table = tables.read(file)
            columns = [name for name in table if name not in ("case", "structure", "in_neither")]
            table[columns] = table[columns].astype(float)
            complete = {"case", "structure", "dice", *_distances(table)} <= {*table} and len(table) > 0
        except (ValueError, TypeError):
            complete = False
    if not complete or set(table.structure) != set(run.task.names):
        raise _damaged(run, file)
    return table


def _damaged(run, file):
    """The error about an evaluation from before there were digests, which is not remade while the file exists."""
    return UserError(file, "is damaged", f"evaluate the run again: remove the file, then `{_evaluate(run)}`")


def _evaluate(run):
    return f"tfaug evaluate --run={shlex.quote(str(run.path))}"


def _distances(table):
    """The columns of HD95 and ASSD, whatever the definition."""
    return tuple(
        next((name for name in table if re.fullmatch(rf"{key}(_\w+)?_mm", name)), None) for key in ("hd95", "assd")
    )


def _scores(run, found):
    if not found:
        told = joined("The segmenter has not been evaluated. ", code(_evaluate(run)))
        return el("p", told, " scores it; then make this report again.")
    return joined([_of_split(run, split, table) for split, table in found.items()])


def _of_split(run, split, table):
    hd95, assd = columns = _distances(table)
    definition = next((name for name in metrics.DISTANCES if f"_{name}_" in hd95), metrics.DEFAULT_DISTANCES)
    means = table.groupby("case", sort=False)[["dice", *columns]].mean()
    names = [*run.task.names, "mean"] if len(run.task.names) > 1 else run.task.names
    lines = []
    for name in names:
        rows = means if name == "mean" else table[table.structure == name]
        chosen = table if name == "mean" else rows
        undefined = int(chosen[hd95].isna().sum())
        cells = [_spread(rows.dice, 3), _median(rows.dice), _spread(rows[hd95], 2), _spread(rows[assd], 2)]
        lines.append([name, *cells, f"{undefined} of {len(chosen)}"])
    head = ["", "Dice", "median (range)", "HD95 (mm)", "ASSD (mm)", "undefined distances"]
    number = counted(len(means), "case")
    caption = f"Mean ± standard deviation over {number} of the {split} split, on the scans' own grids"
    parts = [el("h3", f"{split.capitalize()} split"), page.table(caption, head, lines, len(names) > 1)]
    parts.append(el("p", metrics.DISTANCES[definition] + ".", class_="soft"))
    if "in_neither" in table and (neither := (table.in_neither.astype(str) == "True").sum()):
        parts.append(
            el("p", f"{neither} times a structure was in neither mask, which counts as a Dice of 1.", class_="soft")
        )
    drawn = []
    for title, column, unit in (("Dice by structure", "dice", "Dice"), ("HD95 by structure", hd95, "mm")):
        if table[column].notna().any():
            by_structure = {n: _by_case(table[table.structure == n], column) for n in run.task.names}
            limits = (0.0, 1.0) if column == "dice" else None
            drawn.append(charts.boxes(title, {"": by_structure}, run.task.colours, unit, limits))
    parts.append(el("div", drawn, class_="cards"))
    order = means.sort_values("dice", ascending=False, kind="stable").index
    by_case = {n: table[table.structure == n].set_index("case") for n in run.task.names}
    lines = []
    for case in order:
        cells = [_number(by_case[n].dice.get(case, math.nan), 3) for n in run.task.names]
        found = means.loc[case]
        lines.append([case, *cells, _number(found.dice, 3), _number(found[hd95], 2), _number(found[assd], 2)])
    head = ["case", *run.task.names, "mean Dice", "mean HD95 (mm)", "mean ASSD (mm)"]
    parts.append(details(f"All {number}", page.table("Dice of each structure, the best case first", head, lines)))
    return joined(parts)


def _by_case(rows, column):
    return dict(zip(rows.case, rows[column]))


def _cases(run, split, table):
    folder = run.path / "evaluation" / split
    cards = case_pages.shown(folder, run.config, table, run.task)
    told = (
        "By mean Dice over the structures. Slices are cut to what is marked; as in medical viewers, a slice's first "
        "axis runs to the right and its second one down. Move the slider with the mouse, a finger or the arrow keys."
    )
    return joined(
        el("p", told), case_pages.legend(run.task), el("div", cards, class_="cards"), case_pages.masks_are_in(folder)
    )


def _indices(run, split):
    folder = run.path / "evaluation" / split
    file = folder / "indices.csv"
    with machine_errors(file, "make it readable"):
        try:
            table = pd.read_csv(file).filter(regex="_(predicted|reference)_").astype(float)
        except ValueError as error:
            raise _damaged(run, file) from error
    lines = []
    for column in table:
        named = re.fullmatch(r"(.+)_predicted_([a-z]+)", column)
        name, unit = named.groups() if named else (None, None)
        pair = f"{name}_reference_{unit}"
        if pair not in table:
            continue
        found = indices.agreement(table[column].to_numpy(float), table[pair].to_numpy(float))
        limits = (
            "–" if math.isnan(found.limits) else f"{found.bias - found.limits:.2f} to {found.bias + found.limits:.2f}"
        )
        means = [_spread(table[side], 2) for side in (column, pair)]
        bias = _number(found.bias, 2)
        lines.append(
            [
                f"{name.replace('_', ' ')} ({'%' if unit == 'percent' else unit})",
                *(means),
                bias,
                page.with_minus(limits),
                _number(found.correlation, 3),
                found.number,
            ]
        )
    if not lines:
        return None
    head = ["", "prediction", "reference", "bias", "95 % limits of agreement", "r", "n"]
    return joined(
        page.table("Mean ± standard deviation, and prediction − reference as Bland and Altman have it", head, lines),
        page.picture(folder / "agreement.png", "Bland-Altman and correlation plots of every volume or index"),
        el("p", "A small bias alone does not mean good masks: errors of opposite sign cancel.", class_="soft"),
    )


def _learning(run):
    drawn, kept = [], run.report["best_step"]
    dice = {tag.removeprefix("dice/"): tag for tag in run.scalars if tag.startswith("dice/")}
    if dice:
        names = [
            name
            for name in ("mean", *run.task.names)
            if name in dice and not (name == "mean" and len(run.task.names) == 1)
        ]
        lines = {
            name: charts.Curve(*run.scalars[dice[name]], run.task.colours.get(name), dashed=name != "mean")
            for name in names
        }
        drawn.append(charts.curves("Dice on the validation cases", lines, limits=(0, 1), marked=kept))
    groups = {"Loss of the segmentation": ["loss/segmentation"]}
    groups["Losses of the adversaries"] = ["loss/discriminator", "loss/adversarial", "loss/generator"]
    groups["Magnitude term"] = ["loss/big"]
    for title, tags in groups.items():
        lines = {
            _CURVES[tag]: charts.Curve(*run.scalars[tag], dashed=tag == "loss/generator")
            for tag in tags
            if tag in run.scalars
        }
        if lines:
            low = 0 if title == "Loss of the segmentation" else None
            drawn.append(charts.curves(title, lines, limits=(low, None), marked=kept))
    if not drawn:
        return el("p", "The run's event files are gone, or hold no curves.", class_="soft")
    told = (
        f"The dashed vertical line is step {kept}, whose networks were kept. Few validation cases make a rough curve: "
        "a difference between neighbouring points is not a result."
    )
    return joined(el("p", told), el("div", drawn, class_="cards"))


def _batch(run):
    caption = f"A batch of step {run.report['best_step']}: every slice with its label, and what has been done to it."
    return page.picture(run.path / "batch.png", "A training batch with contours of its labels", caption)


def _generators(learned):
    parts = []
    for name, one in learned.items():
        if one is not None:
            title = f"{name}: {_KINDS[GENERATORS[name][0]]}"
            parts += [el("h3", title), generators.described(one.path, one.config, one.report, one.rows)]
    note = sources.about_lost(learned)
    if note:
        parts.append(el("p", f"{note} What is not there cannot be described.", class_="soft"))
    return joined(parts) if parts else None


def _repeat(run, learned):
    name = f"{run.config.name}.py"
    note = sources.about_lost(learned)
    whole = sources.whole_config(run.config, [one.config for one in learned.values() if one is not None])
    program = rules.program(whole, note)
    names = [run.generator] if run.generator else list(run.report.get("generators", {}))
    lines = [f"tfaug train --config={name} --stage=aug --gen={one}" for one in names]
    if not run.generator:
        method = run.method if run.method in METHODS else f"MODULE:{run.method}"
        lines.append(f"tfaug train --config={name} --stage=seg --aug={method}")
        lines.append(f"tfaug evaluate --config={name} --aug={method} --split=test")
    link = page.download(name, program, f"save its config as {name}")
    told = joined(link, ", which has every number and the names of all cases, then:")
    end = "On one kind of processor with as many threads the same command gives the same digits again. Other scans are "
    return joined(
        el("p", "To train it again, ", told),
        el("p", note) if note else None,
        page.scrolled(el("pre", "\n".join(lines)), "Commands"),
        el("p", end, "segmented by ", code("tfaug predict --run"), ".") if not run.generator else None,
        details("The config", page.scrolled(el("pre", program), "The config")),
    )


def _diagnostics(path):
    """The intact rows of diagnostics.csv; none if it cannot be read."""
    try:
        return event_files.rows(path)[0]
    except OSError:
        return []


def _data_name(config):
    if config.data.root:
        return pathlib.Path(config.data.root).name
    return f"the built-in cohort (seed {config.data.cohort_seed})"


def _names(names):
    if not names:
        return "none"
    return f"{len(names)}: {_some(names)}"


def _some(names):
    shown = ", ".join(names[:MOST_NAMES])
    return shown + (f", … {names[-1]}" if len(names) > MOST_NAMES else "")


def _spread(values, decimals):
    defined = values.dropna()
    return "undefined" if defined.empty else f"{defined.mean():.{decimals}f} ± {defined.std(ddof=0):.{decimals}f}"


def _median(values):
    defined = values.dropna()
    return "undefined" if defined.empty else f"{defined.median():.3f} ({defined.min():.3f} to {defined.max():.3f})"


def _number(value, decimals):
    return "–" if math.isnan(value) else page.with_minus(f"{value:.{decimals}f}")


def _listed(names):
    names = list(names)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _duration(seconds):
    minutes, hours = seconds / 60, seconds / 3600
    return (
        f"{hours:.1f} hours" if hours >= 2 else f"{minutes:.0f} minutes" if minutes >= 2 else f"{seconds:.0f} seconds"
    )
