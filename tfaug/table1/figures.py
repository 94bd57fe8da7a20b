"""Pictures of the grid: Figures 2 and 3 of the paper, from the grid's runs, and plots of its results.

    figure2-n1.png          a test slice: image, reference, and the masks of every method; likewise for other N_L
    figure3-deform.png      a labelled slice: fields of the generator for several z, and the images they give
    figure3-intensity.png   the same
    boxplots.png            Dice of every run and patient, by method
    order.png               the order of the methods in the paper and here

Methods are named as on the command line, and structures have the same colours as elsewhere.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from tfaug import evaluation, metrics, pictures
from tfaug.augment.methods import GENERATORS, Method
from tfaug.config import Config, segmenter_path
from tfaug.engine import run_dir
from tfaug.engine.errors import UserError
from tfaug.engine.files import replacing
from tfaug.experiment import evaluated, sources
from tfaug.pictures import DPI, FONT
from tfaug.table1 import paper, results
from tfaug.table1.table import Table, compute, load

FIGURE_3 = ("deform", "intensity")  # generators
SURROUNDINGS = 2.0  # ratio of the side of Figure 2's tiles to that of the labelled region
BOXES = 0.78  # share of a method's width taken by its boxes
LEGEND_COLUMNS = 12
LEAP = 2  # ranks; a move of at least this many is coloured
RISEN, FALLEN, STEADY = "#0072B2", "#D55E00", "#777777"  # Okabe and Ito's


class Variant(NamedTuple):
    """One cell of the grid, whose methods were all trained on the same volumes with the same seed."""

    num_labelled: int
    labelled_set: int
    seed: int


def draw(folder, config: Config, workdir, methods: Mapping[str, Method]) -> list[str]:
    """Draws what can be drawn from a folder of results and, for Figures 2 and 3, from the runs in `workdir`.

    Args:
      folder: folder of the results, where the pictures are written.
      config: config of the runs.
      workdir: folder of the runs.
      methods: the methods shown, as `augment.methods.table` returns them.

    Returns:
      a line per picture: where it is, or why it could not be drawn.

    Raises:
      UserError: there are no results, or the method of one has changed since.
      MachineError: a picture cannot be written.
    """
    folder = pathlib.Path(folder)
    found, shared = load(folder), results.read_config(folder)
    results.refuse_other_methods(folder, found, methods)
    table = compute(found, shared, methods)
    used = {name for method in methods.values() for name in method.generators}

    def checked() -> Config:
        """`config`, if it is that of the results."""
        changed = results.changes(shared, results.decisive(config, table.task.names))
        if changed:
            problem = f"is not that of the results ({run_dir.in_one_line(changed)})"
            raise UserError("--config", problem, "give the flags that they were trained with")
        results.refuse_other_generators(folder, config, [one for one in found if one.method in methods], used)
        return config

    drawings: dict[str, Callable[[], np.ndarray]] = {}
    for n in table.counts:
        drawings[f"figure2-n{n}.png"] = lambda n=n: segmentations(table, n, checked(), workdir)
    for name in [name for name in FIGURE_3 if any(name in method.generators for method in methods.values())]:
        drawings[f"figure3-{name}.png"] = lambda name=name: generated(table, name, checked(), workdir)
    drawings["boxplots.png"] = lambda: box_plots(table)
    drawings["order.png"] = lambda: order(table)
    lines = []
    for name, make in drawings.items():
        try:
            picture = make()
        except UserError as error:
            lines.append(f"{name} not drawn: {error}")
            continue
        with replacing(folder / name, "make room, or make the folder writable") as path:
            pictures.save_small(picture, path)
        lines.append(str(folder / name))
    return lines


def segmentations(table: Table, num_labelled: int, config: Config, workdir) -> np.ndarray:
    """Figure 2: the masks of every method on one slice, from the first labelled set and seed that has most of them.

    The patient is the one with the median Dice over the methods shown, the slice the middle one of its labelled slices;
    beside each method is its mean Dice on the whole image.

    Raises:
      UserError: no run has its masks here, a run or an image is damaged or not what was evaluated, or the data set has
        other structures.
    """
    runs = {variant: _evaluated(table, variant, config, workdir) for variant in _variants(table, num_labelled)}
    variant = max(runs, key=lambda v: len(runs[v]))  # the first of equals
    if not runs[variant]:
        raise UserError(workdir, f"has no evaluated run for N_L = {num_labelled}", "give the --workdir of the grid")
    scores = _scores(table, variant)
    scores = scores[scores.index.get_level_values("method").isin(list(runs[variant]))]
    by_case = scores["mean"].groupby(level="case").mean().sort_values(kind="stable")
    case = by_case.index[(len(by_case) - 1) // 2]
    data = sources.Data(config)
    if data.task.names != table.task.names:
        found, expected = (", ".join(task.names) for task in (data.task, table.task))
        raise UserError("--config.data", f"has {found}, the results have {expected}", "give the data of the results")
    masks = {}
    for method, run in runs[variant].items():
        volume, masks[method] = evaluated.read(data, run / "evaluation" / "test", case)
    chosen = evaluation.representative_slices(volume.label)
    z = chosen[len(chosen) // 2]
    window = (*evaluation.labelled_window(volume.label[..., z : z + 1], scale=SURROUNDINGS), z)
    tiles = [np.zeros_like(volume.label), volume.label, *masks.values()]
    titles = [f"{case}, slice {z + 1}", "reference"]
    for method, mask in masks.items():
        dice = np.mean([metrics.dice(mask, volume.label, index) for index in data.task.classes.values()])
        titles.append(f"{method}  {dice:.2f}")
    image = volume.image[(*window, 0)]  # the first channel
    masks_shown = [mask[window] for mask in tiles]
    return pictures.overlay([image] * len(tiles), masks_shown, titles, colours=table.task.colours)


def generated(table: Table, name: str, config: Config, workdir) -> np.ndarray:
    """Figure 3: what a generator makes of one labelled slice for several z, as on the run's own page of instruments.

    Shows the first labelled set and seed with results whose generator is in `workdir`, and only the first channel.

    Raises:
      UserError: there is none, or the image is damaged.
    """
    from tfaug import inference  # with TensorFlow, which the other pictures do not need
    from tfaug.experiment import drawing, networks

    networks.set_up_tensorflow(config)
    config, model = _first_generator(table, name, config, workdir)
    data = sources.Data(config)
    data.load(["labelled"])
    kind, generate = GENERATORS[name][0], inference.inference_mode(model)
    return drawing.draws_picture(kind, generate, data["labelled"], config, table.task)


def _first_generator(table, name, config, workdir):
    """The config and the model of the first generator found; raises the first error if there is none."""
    from tfaug.experiment import runs

    errors = []
    for variant in _variants(table):
        chosen = _at(config, variant)
        try:
            return chosen, runs.load_generator(chosen, workdir, name)
        except UserError as error:
            errors.append(error)
    raise errors[0]


def _variants(table, num_labelled=None):
    """The cells of the grid that have results, in order."""
    rows = table.scores.index.droplevel(["method", "patient", "case"]).unique()
    variants = sorted(Variant(*map(int, row)) for row in rows)
    return [variant for variant in variants if num_labelled in (None, variant.num_labelled)]


def _at(config, variant):
    """`config` in one cell of the grid."""
    config = config.copy_and_resolve_references()
    config.update(variant._asdict())
    return config


def _scores(table, variant):
    levels = table.scores.index.get_level_values
    return table.scores[np.all([levels(key) == value for key, value in variant._asdict().items()], axis=0)]


def _evaluated(table, variant, config, workdir):
    """The folders of the runs that have results, masks and this very config, by method, in the order of the table."""
    config = _at(config, variant)
    of_segmenter = {key: values for key, values in config.to_dict().items() if key != "augment"}
    wanted = results.decisive(of_segmenter, table.task.names)
    finished = set(_scores(table, variant).index.get_level_values("method"))
    runs = {method: segmenter_path(config, workdir, method) for method in table.methods if method in finished}
    return {
        method: run
        for method, run in runs.items()
        if (run / "evaluation" / "test" / "dice.csv").exists()
        and not results.changes(results.decisive(run_dir.read_config(run), table.task.names), wanted, _used(run))
    }


def _used(run):
    """The names of the generators that a segmenter was trained with."""
    return (run_dir.read_report(run) or {}).get("generators", ())


@pictures.in_our_style
def box_plots(table: Table) -> np.ndarray:
    """Dice of every run and test patient as boxes by method and structure, one row of axes per N_L."""
    methods, colours = table.methods, table.task.colours
    width = BOXES / len(colours)
    size = max(11, 0.6 * len(methods), 0.12 * len(methods) * len(colours)), 0.9 + 2.9 * len(table.counts)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(len(table.counts), sharex=True, squeeze=False)[:, 0]
    for axes, n in zip(rows, table.counts):
        for k, method in enumerate(methods):
            chosen = table.of(method, n)
            axes.text(k, 1.03, str(table.num_runs(method, n)), ha="center", fontsize=FONT - 1, color="#555555")
            for i, (structure, colour) in enumerate(colours.items()):
                axes.boxplot(
                    chosen[structure].dropna(),
                    positions=[k + (i - (len(colours) - 1) / 2) * width],
                    widths=0.8 * width,
                    patch_artist=True,
                    manage_ticks=False,
                    boxprops={"facecolor": colour, "linewidth": 0.7},
                    medianprops={"color": "black", "linewidth": 1.2},
                    whiskerprops={"linewidth": 0.7},
                    capprops={"linewidth": 0.7},
                    flierprops={"marker": ".", "markersize": 2, "markeredgecolor": "#555555"},
                )
        axes.text(-0.57, 1.03, "runs", ha="left", fontsize=FONT - 1, color="#555555")
        axes.set_ylabel(f"test Dice, N_L = {n}", fontsize=FONT)
        axes.set_ylim(-0.02, 1.1)
        axes.set_yticks(np.linspace(0, 1, 6))
        axes.set_xlim(-0.6, len(methods) - 0.4)
        axes.tick_params(labelsize=FONT)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
    rows[-1].set_xticks(range(len(methods)), methods, rotation=25, ha="right")
    handles = [
        Patch(facecolor=colour, edgecolor="black", linewidth=0.7, label=name) for name, colour in colours.items()
    ]
    ncols = min(len(handles), LEGEND_COLUMNS)
    figure.legend(handles=handles, loc="outside upper center", ncols=ncols, fontsize=FONT, frameon=False)
    return pictures.rendered(figure)


@pictures.in_our_style
def order(table: Table) -> np.ndarray:
    """The paper's methods ranked by mean Dice, the paper's order at the left of each panel, ours at the right.

    Raises:
      UserError: there are fewer than two methods to compare, or none that the paper has with as many labelled volumes.
    """
    if not table.correlations:
        known = " or ".join(map(str, paper.COUNTS))
        raise UserError("the order of methods", f"the paper has results with {known} labelled volumes", "run those")
    means = {
        n: table.cells["mean"].xs((n, "mean"), level=("num_labelled", "structure")).dropna() for n in table.correlations
    }
    means = {n: values[values.index.isin(list(paper.ROWS))] for n, values in means.items()}
    means = {n: values for n, values in means.items() if len(values) > 1}
    if not means:
        raise UserError("the order of methods", "needs results of two of them", "run the grid further")
    figure = Figure(figsize=(5.4 * len(means), 4.2), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (n, ours) in zip(figure.subplots(1, len(means), squeeze=False)[0], means.items()):
        theirs = {method: paper.ROWS[method].mean(n) for method in ours.index}
        places = [{m: k for k, m in enumerate(sorted(v, key=v.get, reverse=True))} for v in (theirs, dict(ours))]
        for method in ours.index:
            left, right = (place[method] for place in places)
            colour = STEADY if abs(left - right) < LEAP else RISEN if right < left else FALLEN
            axes.plot([0, 1], [left, right], color=colour, linewidth=1.6, marker="o", markersize=4)
            axes.text(-0.05, left, method, ha="right", va="center", fontsize=FONT, color=colour)
            axes.text(1.05, right, f"{ours[method]:.3f}  {method}", va="center", fontsize=FONT, color=colour)
        axes.set_xlim(-0.9, 2.2)
        axes.set_ylim(len(ours) - 0.5, -1.2)
        for x, side, text in ((-0.05, "right", "the paper"), (1.05, "left", "here")):
            axes.text(x, -0.9, text, ha=side, va="center", fontsize=FONT, fontweight="bold")
        found = table.correlations[n]
        rho = "" if np.isnan(found.rho) else f", rho {found.rho:.2f}"
        interval = "" if np.isnan(found.low) else f" ({found.low:.2f} to {found.high:.2f})"
        axes.set_title(f"N_L = {n}: order by mean Dice{rho}{interval}", fontsize=FONT + 1)
        axes.axis("off")
    legend = {RISEN: f"{LEAP} or more ranks higher", FALLEN: f"{LEAP} or more lower", STEADY: "in between"}
    handles = [Line2D([], [], color=colour, linewidth=1.6, label=text) for colour, text in legend.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=FONT, frameon=False)
    return pictures.rendered(figure)
