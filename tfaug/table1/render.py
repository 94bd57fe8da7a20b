"""The table as Markdown, LaTeX and CSV."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from tfaug.augment.methods import Method
from tfaug.engine.errors import printable
from tfaug.engine.files import replacing
from tfaug.table1 import paper, results
from tfaug.table1.paper import ALPHA
from tfaug.table1.table import DRAWS, LEVEL, MARKS, Correlation, Table, compute, load, marks

_UNITS = {"pairs": ("patients and runs", "p"), "patients": ("patients", "patients_p"), "runs": ("runs", "runs_p")}
_TESTED = ("difference", *(name for unit, (_, p) in _UNITS.items() for name in (unit, p, f"{p}_holm")))
_COUNTS = ("runs", "undefined", "pairs", "patients")
_LATEX_MARKS = {
    **{"aff_rd": r"\ast", "aff_ri": r"\dagger", "aff_mixup": r"\star"},
    **{"aff_rd_ri": r"\ddagger", "aff_strong": r"\S"},
}
TESTS_TEXT = (
    "The mean difference of Dice over all pairs, then one-sided p-values, in brackets after Holm's correction over all "
    "tests of one N_L. Pairs of one patient from several runs, and of one run from several patients, are not "
    "independent, so the p-values over all pairs are too small. With one difference per patient, averaged over the "
    "runs, a p-value generalises to new patients, given these labelled sets and seeds; with one per run, averaged over "
    "the patients, to new trainings on similar sets, given these patients."
)

# Function from a mean, a standard deviation (NaN: none) and the result of `marks` to the text of a cell.
_Cell = Callable[[float, float, Sequence[tuple[str, bool]]], str]


def write(folder, methods: Mapping[str, Method]) -> str:
    """Writes table1.md, table1.tex, table1.csv and table1_dice.csv into a folder of results; returns the Markdown.

    table1_dice.csv has the Dice of every patient of every run, from which the other three are computed.

    Args:
      folder: folder of the results.
      methods: the rows, as `augment.methods.table` returns them.

    Raises:
      UserError: there are no results, or damaged ones, or the method of one has changed since.
      MachineError: a file cannot be written.
    """
    folder = pathlib.Path(folder)
    found = load(folder)
    results.refuse_other_methods(folder, found, methods)
    table = compute(found, results.read_config(folder), methods)
    contents = {
        "table1.md": markdown(table),
        "table1.tex": latex(table),
        "table1.csv": csv(table),
        "table1_dice.csv": table.scores.to_csv(lineterminator="\n"),
    }
    for name, content in contents.items():
        with replacing(folder / name, "make room, or make the folder writable") as path:
            path.write_text(content, encoding="utf-8")
    return contents["table1.md"]


def csv(table: Table) -> str:
    """Tidy CSV: a row per method, N_L and structure (or "mean"); empty where there is nothing."""
    rows = []
    for method in table.methods:
        for n in table.counts:
            for name in table.columns:
                line = {"method": method, "num_labelled": n, "structure": name, "runs": 0}
                if (method, n, name) in table.cells.index:
                    line.update(table.cells.loc[(method, n, name)])
                if table.with_paper and method in paper.ROWS and n in paper.COUNTS:
                    line["paper"] = _papers(paper.ROWS[method], n, name)
                for reference in table.marks:
                    if (method, reference, n, name) in table.tests.index:
                        tested = table.tests.loc[(method, reference, n, name)]
                        line.update({f"{key}_over_{reference}": tested[key] for key in _TESTED})
                rows.append(line)
    over = [f"{key}_over_{reference}" for reference in table.marks for key in _TESTED]
    columns = ["method", "num_labelled", "structure", "mean", "std", "runs", "undefined", "paper", *over]
    frame = pd.DataFrame(rows, columns=columns)
    whole = {name: "Int64" for name in columns if name.split("_over_")[0] in _COUNTS}
    return frame.astype(whole).to_csv(index=False, lineterminator="\n")


def markdown(table: Table) -> str:
    """The table, the tests, the order of methods, and explanations."""

    def cell(mean, deviation, found):
        text = f"{mean:.3f}" if np.isnan(deviation) else f"{mean:.3f} ± {deviation:.3f}"
        signs = "".join(MARKS[ref] if corrected else f"({MARKS[ref]})" for ref, corrected in found)
        return f"{text} {signs}".rstrip()

    columns = [*map(_in_pipes, table.columns), "runs"]
    head = ["`--aug`", "in the paper", *(f"{name}, N_L = {n}" for n in table.counts for name in columns)]
    lines = [
        [f"`{method}`" if ours else "", _plain_name(method) if ours else "the paper", *texts]
        for method, ours, texts in _lines(table, cell, "-")
    ]
    sections = [
        "# Table 1",
        "\n".join(table.notes),
        _pipes(head, lines),
        "\n".join(f"- {item}" for item in _legend(table)),
    ]
    if len(table.tests):
        sections += ["## Tests", TESTS_TEXT, _tests(table)]
    if table.correlations:
        sections += ["## Order of the methods", *(_order(n, found) for n, found in table.correlations.items())]
    return "\n\n".join(sections) + "\n"


def latex(table: Table) -> str:
    """The table as a float, for a document that loads the packages booktabs and graphicx."""

    def cell(mean, deviation, found):
        below = "" if np.isnan(deviation) else rf"_{{\pm{deviation:.3f}}}".replace("0.", ".", 1)
        signs = "".join(_LATEX_MARKS[ref] if corrected else f"({_LATEX_MARKS[ref]})" for ref, corrected in found)
        return f"${mean:.3f}{below}" + (f"^{{{signs}}}$" if signs else "$")

    width = len(table.columns) + 1
    firsts = range(2, 2 + width * len(table.counts), width)
    groups = ["", *(rf"\multicolumn{{{width}}}{{c}}{{$N_L = {n}$}}" for n in table.counts)]
    head = ["Method", *(_latex_text(name) for _ in table.counts for name in (*table.columns, "runs"))]
    lines = [
        [_latex_name(method) if ours else r"\quad the paper", *texts]
        for method, ours, texts in _lines(table, cell, "--")
    ]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,graphicx}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex_caption(table)}}}",
            r"\label{tab:table1}",
            r"\medskip",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{l{(' ' + width * 'r') * len(table.counts)}}}",
            r"\toprule",
            _latex_row(groups),
            "".join(rf"\cmidrule(lr){{{first}-{first + width - 1}}}" for first in firsts),
            _latex_row(head),
            r"\midrule",
            *map(_latex_row, lines),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


def _lines(table: Table, cell: _Cell, absent: str) -> Iterator[tuple[str, bool, list[str]]]:
    """Every row: its method, whether the numbers are ours (or the paper's), and the texts of its cells."""
    for method in table.methods:
        texts = []
        for n in table.counts:
            for name in table.columns:
                found = table.cells.loc[(method, n, name)] if (method, n, name) in table.cells.index else None
                if found is None or not found.runs:
                    texts.append(absent)
                else:
                    texts.append(cell(found["mean"], found["std"], marks(table, method, n, name)))
            texts.append(str(table.num_runs(method, n)))
        yield method, True, texts
        if table.with_paper and method in paper.ROWS:
            yield method, False, _printed(table, paper.ROWS[method], cell, absent)


def _printed(table, row, cell, absent):
    """The texts of the paper's own cells."""
    texts = []
    for n in table.counts:
        if n not in paper.COUNTS:
            texts += [absent] * (len(table.columns) + 1)
            continue
        for name in table.columns:
            found = [(reference, True) for reference, sign in MARKS.items() if sign == row.marks[n].get(name)]
            texts.append(cell(_papers(row, n, name), np.nan, found))
        texts.append(str(paper.NUM_RUNS))
    return texts


def _papers(row, num_labelled, name):
    return round(row.mean(num_labelled), 3) if name == "mean" else row.dice[num_labelled][name]


def _legend(table):
    yield "Mean Dice ± standard deviation over runs; a run's value is the mean over its test patients."
    yield (
        "runs: their number. Cells with few runs, or with different runs from their neighbours, are not directly "
        "comparable."
    )
    if table.marks:
        signs = ", ".join(f"{sign} `{reference}`" for reference, sign in table.marks.items())
        yield (
            f"{signs}: better than that row with p < {ALPHA} (Wilcoxon's signed-rank test, one-sided, paired by "
            "labelled set, seed and patient); in brackets if not after Holm's correction."
        )
    if table.with_paper:
        yield (
            f"the paper: its printed numbers and marks, means over {paper.NUM_RUNS} runs; the mean over structures was "
            "computed here."
        )
    else:
        yield (
            "The paper's numbers are for ACDC, and are shown only if data.root is set, the test patients are those of "
            "configs/splits.py, and the config's name begins with `acdc`."
        )


def _tests(table):
    lines = []
    for (n, method, reference), frame in table.tests.groupby(["num_labelled", "method", "reference"], sort=False):
        found = frame.droplevel(["method", "reference", "num_labelled"])
        start = [str(n), f"`{method}` > `{reference}`"]
        differences = {name: f"{difference:+.3f}" for name, difference in found.difference.items()}
        lines.append([*start, "difference", *(differences.get(name, "-") for name in table.columns)])
        for unit, (what, p) in _UNITS.items():
            texts = {name: f"{p_value(row[p])} ({p_value(row[f'{p}_holm'])})" for name, row in found.iterrows()}
            what = f"p over {found[unit].max()} {what}"
            lines.append([*start, what, *(texts.get(name, "-") for name in table.columns)])
    return _pipes(["N_L", "alternative", "", *map(_in_pipes, table.columns)], lines)


def p_value(value: float) -> str:
    """A p-value with three digits."""
    return f"{value:.3f}" if value >= 0.001 else "<0.001"


def _order(num_labelled: int, found: Correlation) -> str:
    start = f"N_L = {num_labelled}: Spearman's rho of our methods' mean Dice with the paper's"
    if np.isnan(found.rho):
        same = ", with the same Dice" if found.num_methods > 2 else ""
        return f"{start}: not defined, {found.num_methods} of {len(paper.ROWS)} methods have results{same}."
    interval = "no interval, too many resamples lack a method or have all methods tied"
    if not np.isnan(found.low):
        sets = f"{found.num_sets} labelled set{'s' if found.num_sets > 1 else ''}"
        interval = f"{LEVEL} % bootstrap interval over {sets}, runs and patients: {found.low:.2f} to {found.high:.2f}"
        if found.undefined:
            interval += f"; {found.undefined} of {DRAWS} resamples lacked a method or had all methods tied"
    return f"{start} is {found.rho:.2f} for {found.num_methods} of {len(paper.ROWS)} methods ({interval})."


def _pipes(head, lines):
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *lines))


def _in_pipes(name):
    """A structure's name in a Markdown table: it may be any text."""
    return printable(name).replace("|", r"\|")


def _plain_name(method):
    """The paper's name as text: Aug_{A,GD} becomes Aug_A,GD."""
    if method not in paper.ROWS:
        return "not in the paper"
    return re.sub("[{}]", "", paper.ROWS[method].name.replace("10^{-3}", "0.001"))


def _latex_name(method):
    if method not in paper.ROWS:
        return rf"\texttt{{{_latex_text(method)}}} (not in the paper)"
    name = paper.ROWS[method].name.replace("10^{-3}", "$10^{-3}$")
    return re.sub(r"(λ?)_\{([\w,]+)\}", r"$\1_{\\mathrm{\2}}$", name).replace("λ", r"\lambda")


def _latex_text(name):
    """Any text in LaTeX."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in printable(name))


def _latex_caption(table):
    start = r"Mean Dice $\pm$ standard deviation over runs, each the mean over its test patients."
    if not table.marks:
        return start
    references = ", ".join(f"${_LATEX_MARKS[reference]}$ {_latex_name(reference)}" for reference in table.marks)
    return (
        f"{start} {references}: better than that row with $p < {ALPHA}$ (Wilcoxon's signed-rank test, one-sided, "
        "paired by labelled set, seed and patient), in brackets if not after Holm's correction. Pairs of one patient "
        "are not independent."
    )


def _latex_row(cells):
    return " & ".join(cells) + r" \\"
