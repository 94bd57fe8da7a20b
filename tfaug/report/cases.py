"""The best, the median and the worst case of an evaluation: slices with both contours, and a slider over them."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from skimage import measure

from tfaug import evaluation
from tfaug.config import Config
from tfaug.data.task import Task
from tfaug.engine.errors import TfaugError, printable
from tfaug.engine.signals import check_signals
from tfaug.experiment import evaluated, sources
from tfaug.phantom import cohort
from tfaug.report.page import Html, code, el, picture, png
from tfaug.types import Volume

MOST_SLICES = 24  # per case; evenly spread if there are more
MOST_PIXELS = 256  # along a slice's longer side
SURROUNDINGS = 1.7  # ratio of the side shown to that of the marked region
BEYOND = 1  # slices shown at either end of the marked ones


class Chosen(NamedTuple):
    """A case to be shown.

    Attributes:
      rank: "best", "median", "worst", or several of them.
      case: its name.
      dice: mean over structures.
    """

    rank: str
    case: str
    dice: float


def choose(table: pd.DataFrame) -> list[Chosen]:
    """The cases with the highest, median and lowest mean Dice; each once if there are few.

    Args:
      table: rows of `evaluation.score`.
    """
    means = table.groupby("case", sort=False).dice.mean().sort_values(ascending=False, kind="stable")
    names = {}
    for rank, place in (("best", 0), ("median", len(means) // 2), ("worst", len(means) - 1)):
        names.setdefault(means.index[place], []).append(rank)
    return [Chosen(" and ".join(ranks), case, float(means[case])) for case, ranks in names.items()]


def shown(folder: pathlib.Path, config: Config, table: pd.DataFrame, task: Task) -> list[Html]:
    """The chosen cases, each with its slices or, if its scan is no longer there, the evaluation's picture.

    Args:
      folder: folder of the evaluation.
      config: config of the run, which says where the scans are.
      table: rows of `evaluation.score`.
      task: the structures.
    """
    chosen, missing = choose(table), no_data(config)
    data = None if missing else sources.Data(config)
    cards = []
    for one in chosen:
        check_signals()
        problem, content = missing, None
        if data is not None:
            try:
                content = _viewer(*evaluated.read(data, folder, one.case), task, one, f"case-{len(cards)}")
            except TfaugError as error:
                problem = f"{error.subject}: {error.problem}"
        if content is None:
            left = picture(
                folder / "pictures" / f"{one.case}.png", f"{one.case}: three slices, reference and prediction"
            )
            told = f"No slices to scroll through: {printable(problem)}."
            told += " The picture is the evaluation's." if left else ""
            content = el("div", el("p", told, class_="soft"), left)
        cards.append(
            el("article", el("h3", f"{one.rank.capitalize()}: {one.case}"), _scores(table, one), content, class_="card")
        )
    return cards


def legend(task: Task) -> Html:
    """The legend of colours and lines."""
    entries = [
        el(
            "li",
            el(
                "svg",
                el("rect", x=1, y=1, width=20, height=10, fill=colour, class_="box"),
                viewBox="0 0 26 12",
                aria_hidden="true",
            ),
            name,
        )
        for name, colour in task.colours.items()
    ]
    line = {"x1": 0, "x2": 26, "y1": 6, "y2": 6, "stroke": "currentColor", "stroke_width": 2}
    for name, dash in (("prediction", None), ("reference", "5 4")):
        entries.append(
            el(
                "li",
                el("svg", el("line", **line, stroke_dasharray=dash), viewBox="0 0 26 12", aria_hidden="true"),
                name,
            )
        )
    return el("ul", entries, class_="legend")


def no_data(config: Config) -> str:
    """Why there is no data set to read; "" if there is one. The built-in cohort is not remade."""
    if config.data.root:
        found = pathlib.Path(config.data.root).is_dir()
        return "" if found else f"the data folder {config.data.root} is not there any more"
    found = cohort.folder(config.data.cache_dir, config.data.cohort_seed).is_dir()
    return "" if found else "the built-in cohort has been removed from the cache"


def _viewer(volume: Volume, mask: np.ndarray, task: Task, one: Chosen, name: str) -> Html:
    chosen = slices(volume.label, mask)
    window = evaluation.labelled_window(volume.label, mask, scale=SURROUNDINGS)
    greys = np.percentile(volume.image[(*window, slice(None), 0)], (1, 99))
    marked = evaluation.representative_slices(volume.label)
    start = min(range(len(chosen)), key=lambda k: abs(chosen[k] - marked[len(marked) // 2]))
    drawn, number = [], volume.label.shape[2]
    for k, z in enumerate(chosen):
        image, label, found = (array[(*window, z)] for array in (volume.image[..., 0], volume.label, mask))
        text = f"{one.case}, slice {z + 1} of {number}" + ("" if found.any() else ", nothing found by the segmenter")
        drawn.append(
            el(
                "div",
                el("img", src=_grey(image, greys), alt=text),
                el(
                    "svg",
                    el("g", _contours(label, task), class_="reference"),
                    el("g", _contours(found, task), class_="prediction"),
                    viewBox=f"0 0 {image.shape[0]} {image.shape[1]}",
                    preserveAspectRatio="none",
                    aria_hidden="true",
                ),
                class_="slice",
                data_name=f"{z + 1} of {number}",
                hidden=k != start,
            )
        )
    width, height = (n * mm for n, mm in zip(image.shape, volume.spacing))
    slider = el(
        "div",
        el("label", "Slice", for_=name),
        el("input", type="range", id=name, min=1, max=len(chosen), value=start + 1, disabled=True),
        el("output", f"{chosen[start] + 1} of {number}", for_=name),
        class_="controls",
    )
    boxes = [
        el("label", el("input", type="checkbox", value=what, checked=True, disabled=True), what)
        for what in ("prediction", "reference")
    ]
    stack = el("div", drawn, class_="stack", style=f"aspect-ratio:{width:.4g}/{height:.4g}")
    ticks = el("div", boxes, class_="ticks", role="group", aria_label=f"Contours of {one.case}")
    return el("div", stack, slider, ticks, class_="viewer")


def slices(*masks: np.ndarray) -> list[int]:
    """The slices of masks [X, Y, Z] to show: those with a structure and their neighbours, thinned out if too many."""
    marked = np.flatnonzero(np.any([mask.any(axis=(0, 1)) for mask in masks], axis=0))
    number = masks[0].shape[2]
    first, last = (marked[0] - BEYOND, marked[-1] + BEYOND) if marked.size else (0, number - 1)
    found = np.arange(max(first, 0), min(last, number - 1) + 1)
    spread = np.linspace(0, len(found) - 1, min(MOST_SLICES, len(found))).round().astype(int)
    return [int(z) for z in found[spread]]


def _grey(image: np.ndarray, window: Sequence[float]) -> str:
    low, high = window
    grey = np.clip(255 * (image.T - low) / max(high - low, 1e-6), 0, 255).astype(np.uint8)
    shrink = max(grey.shape) / MOST_PIXELS
    if shrink > 1:
        size = tuple(max(1, round(n / shrink)) for n in reversed(grey.shape))
        grey = np.array(Image.fromarray(grey).resize(size, Image.Resampling.BOX))
    return png(grey)


def _contours(mask: np.ndarray, task: Task) -> list[Html]:
    """Each structure's outline in pixels of the slice."""
    drawn = []
    for structure, index in task.classes.items():
        padded = np.pad((mask.T == index).astype(np.float32), 1)
        path = "".join(_path(line) for line in measure.find_contours(padded, 0.5))
        if path:
            drawn.append(el("path", d=path, stroke=task.colours[structure]))
    return drawn


def _path(line: np.ndarray) -> str:
    """A closed line of (row, column) as a path; the centre of pixel 0, padded by one, is at 0.5."""
    points = np.round(10 * (line[:, ::-1] - 0.5)).astype(int)
    (x, y), moves = points[0], np.diff(points[:-1], axis=0)
    return f"M{x / 10:g} {y / 10:g}l" + " ".join(f"{dx / 10:g} {dy / 10:g}" for dx, dy in moves) + "z"


def _scores(table: pd.DataFrame, one: Chosen) -> Html:
    parts = [f"{row.structure} {row.dice:.3f}" for row in table[table.case == one.case].itertuples()]
    told = f"Mean Dice {one.dice:.3f}" + (f" ({', '.join(parts)})" if len(parts) > 1 else "")
    return el("p", told, class_="soft")


def masks_are_in(folder: pathlib.Path) -> Html:
    """A paragraph that says where the masks are."""
    return el("p", "The masks of all cases are in ", code(folder / "masks"), ".")
