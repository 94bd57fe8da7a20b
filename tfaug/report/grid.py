"""The report of a folder of results: the table, its tests, box plots, orders, and the figures in the folder."""

from __future__ import annotations

import pathlib
import re
import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tfaug.augment.methods import METHODS
from tfaug.engine.errors import counted
from tfaug.report import charts, page
from tfaug.report.page import Html, code, details, el, joined
from tfaug.table1 import paper, render, results
from tfaug.table1.paper import ALPHA
from tfaug.table1.table import LEVEL, MARKS, Table, compute, load, marks

_FIGURES = {
    r"figure2-n(\d+)\.png": "One test slice, the reference mask, and those of every method, N_L = {}",
    r"figure3-(\w+)\.png": "A labelled slice, and what generator {} draws for several z",
}


def read(folder: pathlib.Path) -> tuple[Table, Mapping[str, Any]]:
    """The table of a folder of results, with every method that has results, and the config that they share.

    Raises:
      UserError: there are none, or damaged ones.
    """
    found, shared = load(folder), results.read_config(folder)
    present = {result.method for result in found}
    rows = {name: METHODS.get(name) for name in (*METHODS, *sorted(present - {*METHODS})) if name in present}
    return compute(found, shared, rows), shared


def render_page(folder: pathlib.Path, table: Table, shared: Mapping[str, Any]) -> str:
    """The HTML page."""
    parts = [
        ("Table", _table(table)),
        ("Box plots", _box_plots(table)),
        ("Tests", _tests(table)),
        ("Order of the methods", _orders(table)),
        ("Figures", _figures(folder)),
        ("What was done", _facts(folder, table, shared)),
        ("How to repeat it", _repeat(folder, shared)),
    ]
    parts = [(title, content) for title, content in parts if content]
    lead = joined(el("p", _sentence(table, shared), class_="lead"), page.key_figures(_key_figures(table)))
    sections = [page.section(title, content) for title, content in parts]
    title = f"{shared['name']}: {counted(len(table.methods), 'method')} compared"
    return page.whole(title, lead, sections, [title for title, _ in parts])


def _sentence(table, shared):
    runs = len(table.scores.index.droplevel(["patient", "case"]).unique())
    counts = " or ".join(map(str, table.counts))
    text = (
        f"{counted(len(table.methods), 'method')} of training a segmenter of "
        f"{', '.join(table.task.names)} with {counts} labelled case{'s' * (counts != '1')}, in "
        f"{counted(runs, 'run')} on "
    )
    best = [(n, *_best(table, n)) for n in table.counts]
    told = "; ".join(f"with {n} labelled, {method} has the highest mean Dice, {mean:.3f}" for n, method, mean in best)
    scored = counted(len(shared["splits"]["test"]), "test case")
    return joined(
        text,
        el("strong", _data_name(shared)),
        f", scored on {scored}. {told[:1].upper()}{told[1:]}.",
    )


def _best(table, n):
    means = table.cells["mean"].xs((n, "mean"), level=("num_labelled", "structure")).dropna()
    return (means.idxmax(), float(means.max())) if len(means) else ("no method", float("nan"))


def _key_figures(table):
    for n in table.counts:
        method, mean = _best(table, n)
        yield f"Highest mean Dice, {n} labelled", f"{mean:.3f}", method
    yield "Runs", len(table.scores.index.droplevel(["patient", "case"]).unique()), None


def _table(table):
    parts = []
    for n in table.counts:
        lines = []
        for method in table.methods:
            if not table.num_runs(method, n):
                continue
            cells = [_cell(table, method, n, name) for name in table.columns]
            theirs = []
            if table.correlations:
                known = method in paper.ROWS and n in paper.COUNTS
                theirs = [f"{paper.ROWS[method].mean(n):.3f}" if known else "–"]
            lines.append([code(method), *cells, table.num_runs(method, n), *theirs])
        head = ["method", *table.columns, "runs", *(["paper (ACDC)"] if table.correlations else [])]
        parts.append(page.table(f"{n} labelled: mean Dice ± standard deviation over runs", head, lines))
    items = ["A run's value is the mean over its test cases. Cells with few runs are not directly comparable."]
    if table.marks:
        signs = ", ".join(f"{sign} {reference}" for reference, sign in table.marks.items())
        items.append(
            f"{signs}: better than that with p < {ALPHA} (Wilcoxon's signed-rank test, one-sided, paired by labelled "
            "set, seed and case); in brackets if not after Holm's correction."
        )
    if table.correlations and not table.with_paper:
        items.append("The paper's numbers are of other data and a longer schedule: compare orders, not numbers.")
    return joined(parts, el("ul", [el("li", item) for item in items]))


def _cell(table, method, n, name):
    key = (method, n, name)
    if key not in table.cells.index or not table.cells.loc[key].runs:
        return "–"
    found = table.cells.loc[key]
    text = f"{found['mean']:.3f}" + ("" if np.isnan(found["std"]) else f" ± {found['std']:.3f}")
    signs = "".join(MARKS[ref] if kept else f"({MARKS[ref]})" for ref, kept in marks(table, method, n, name))
    return f"{text} {signs}".rstrip()


def _box_plots(table):
    drawn = []
    for n in table.counts:
        rows = {}
        for method in table.methods:
            chosen = table.of(method, n)
            if len(chosen):
                names = [f"{case}, set {k}, seed {seed}" for *_, k, seed, _, case in chosen.index]
                rows[method] = {name: dict(zip(names, chosen[name])) for name in table.task.names}
        title, caption = f"{n} labelled", "Every test case of every run; points are outliers."
        drawn.append(charts.boxes(title, rows, table.task.colours, "test Dice", points=False, caption=caption))
    return el("div", drawn, class_="cards")


def _tests(table):
    if not len(table.tests):
        return None
    tables = []
    for n, frame in table.tests.groupby("num_labelled"):
        lines = []
        for key, row in frame.xs("mean", level="structure").iterrows() if "mean" in _structures(frame) else ():
            pairs = [map(render.p_value, (row[p], row[f"{p}_holm"])) for p in ("p", "patients_p", "runs_p")]
            cells = [f"{alone} ({corrected})" for alone, corrected in pairs]
            difference = page.with_minus(f"{row.difference:+.3f}")
            lines.append([f"{key[0]} > {key[1]}", difference, *cells])
        if lines:
            counts = [f"p over {int(frame[unit].max())} {unit}" for unit in ("pairs", "patients", "runs")]
            caption = f"{n} labelled, mean over structures: one-sided p-values, in brackets after Holm's correction"
            tables.append(page.table(caption, ["alternative", "difference", *counts], lines))
    text = el("p", render.TESTS_TEXT)
    whole = details("By structure", [_by_structure(n, frame) for n, frame in table.tests.groupby("num_labelled")])
    return joined(tables, text, whole)


def _structures(frame):
    return set(frame.index.get_level_values("structure"))


def _by_structure(n, frame: pd.DataFrame) -> Html:
    lines = [
        [
            f"{method} > {reference}",
            structure,
            page.with_minus(f"{row.difference:+.3f}"),
            render.p_value(row.p),
            render.p_value(row.p_holm),
        ]
        for (method, reference, _, structure), row in frame.iterrows()
    ]
    return page.table(
        f"{n} labelled, all pairs", ["alternative", "structure", "difference", "p", "after Holm"], lines, texts=[1]
    )


def _orders(table):
    drawn = []
    for n, found in table.correlations.items():
        means = table.cells["mean"].xs((n, "mean"), level=("num_labelled", "structure")).dropna()
        ours = {method: float(means[method]) for method in means.index if method in paper.ROWS}
        if len(ours) < 2:
            continue
        theirs = {method: paper.ROWS[method].mean(n) for method in ours}
        chart = charts.order(f"{n} labelled: order by mean Dice", theirs, ours, ("paper, ACDC", "here"))
        told = None
        if not np.isnan(found.rho):
            interval = (
                "" if np.isnan(found.low) else f", {LEVEL} % bootstrap interval {found.low:.2f} to {found.high:.2f}"
            )
            told = el("p", f"Spearman's rho {found.rho:.2f}{interval}.", class_="soft")
        drawn.append(el("div", chart, told))
    return el("div", drawn, class_="cards") if drawn else None


def _figures(folder):
    drawn = []
    for pattern, text in _FIGURES.items():
        for file in sorted(folder.glob("figure*.png")):
            if match := re.fullmatch(pattern, file.name):
                told = text.format(match[1])
                shown = page.picture(file, told, told + ".")
                drawn.append(shown)
    return joined(drawn) if any(drawn) else None


def _facts(folder, table, shared):
    data, segment = shared["data"], shared["segment"]
    index = table.scores.index
    sets, seeds = (sorted(set(index.get_level_values(name))) for name in ("labelled_set", "seed"))
    schedule = (
        f"{segment['num_steps']} steps of {segment['batch_size']} slices, learning rate {segment['learning_rate']:g}"
    )
    cases = shared["splits"]
    return page.facts(
        [
            ("Data set", _data_name(shared)),
            ("Structures", ", ".join(table.task.names)),
            (
                "Cases",
                ", ".join(f"{len(cases[split])} {split}" for split in ("test", "validation", "unlabelled")),
            ),
            ("Labelled sets", f"{', '.join(map(str, sets))}, of {' or '.join(map(str, table.counts))} labelled"),
            ("Seeds", ", ".join(map(str, seeds))),
            ("Slices", f"{data['image_size']} × {data['image_size']} pixels of {data['resolution']:g} mm"),
            ("Training of a segmenter", schedule),
            ("Precision", shared.get("precision")),
            ("Versions and time", " ".join(table.notes).replace("`", "")),
            ("Folder", code(folder)),
        ]
    )


def _repeat(folder, shared):
    where = shlex.quote(str(folder))
    start = f"--config={shared['name']} --results={where}"
    lines = [f"tfaug table1 {start}", f"tfaug evaluate --table1 --results={where}", f"tfaug evaluate --figures {start}"]
    told = (
        "The first command trains what is missing, on all cores or a cluster, and the others make table and figures. "
        "Give the flags that the results were trained with: a config that differs from the folder's is refused."
    )
    return joined(el("p", told), page.scrolled(el("pre", "\n".join(lines)), "Commands"))


def _data_name(shared):
    return shared["data"]["root"] or "the built-in cohort of simulated hearts"
