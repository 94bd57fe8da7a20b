"""What a generator does: the instruments' verdict, its numbers beside those of random transforms, and its fields."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from tfaug.augment.methods import GENERATORS
from tfaug.config import Config, cases, limits_intensity
from tfaug.engine.errors import TfaugError
from tfaug.engine.signals import check_signals
from tfaug.report import charts
from tfaug.report.cases import no_data
from tfaug.report.page import Html, details, el, joined, picture, table

WORDS = {
    "sane": "The generator is sane: it changes images visibly, differently for each z, and within the limits.",
    "next to nothing": "The generator does next to nothing: a segmenter learns little from it.",
    "collapsed": "The generator has collapsed: whatever z is, it makes the same field.",
    "run away": "The generator has run away: its fields are beyond what an organ does.",
}
YARDSTICKS = {
    "elastic": "random elastic",
    "contrast_brightness": "random contrast and brightness",
    "histogram": "histogram matching",
}

# By kind: key in diagnostics.csv, what it is, its unit, and what is sane.
_ROWS = {
    "deform": (
        ("displacement_median_mm", "displacement, median", "mm", ""),
        ("displacement_mean_mm", "displacement, mean", "mm", ""),
        ("displacement_p95_mm", "displacement, 95th percentile", "mm", "up to 3 times random"),
        ("displacement_max_mm", "displacement, maximum", "mm", ""),
        ("folded", "pixels where the image folds over itself", "%", "up to 1 %, or as much as random"),
        ("lost_anatomy", "labelled anatomy that is lost", "%", "up to 10 %, or as much as random"),
        ("diversity_px", "difference between draws of z", "px", "above 0"),
    ),
    "intensity": (
        ("intensity_median", "|dI|, median", "", ""),
        ("intensity_mean", "|dI|, mean", "", ""),
        ("intensity_p95", "|dI|, 95th percentile", "", "up to 3 times random"),
        ("intensity_max", "|dI|, maximum", "", ""),
        ("saturated", "pixels at the limit of |dI|", "%", "up to 1 %, or as much as random"),
        ("diversity", "difference between draws of z", "", "above 0"),
        ("histogram_distance", "distance to unlabelled histograms", "", "small"),
    ),
}


def described(run: pathlib.Path, config: Config, report: Mapping, rows: Sequence[Mapping[str, float]]) -> Html:
    """What the generator of a finished run does.

    Args:
      run: its folder.
      config: config of the run.
      report: report of the run.
      rows: rows of its diagnostics.csv.
    """
    name = report["generator"]
    kind = GENERATORS[name][0]
    verdict = report.get("verdict")
    told = WORDS.get(verdict, "The run has recorded no verdict on the generator.")
    reasons = [line for line in report["warnings"] if line.startswith(f"generator {name} ")]
    words = el("div", el("p", el("strong", told)), el("ul", [el("li", line) for line in reasons]) if reasons else None)
    found = [row for row in rows if row["step"] == report["best_step"]] or list(rows[-1:])
    parts = [el("div", words, class_="warning") if verdict not in (None, "sane") else words]
    parts += [_numbers(kind, row, limits_intensity(config)) for row in found]
    if not rows:
        parts.append(el("p", "The run's diagnostics.csv is gone or damaged: its numbers are not here.", class_="soft"))
    parts.append(el("div", _histogram(run, config, report, kind), _courses(kind, rows), class_="cards"))
    field = "deformation as arrows over its length in pixels" if kind == "deform" else "intensity field, red brightens"
    parts.append(
        picture(
            run / "generator.png",
            f"Generator {name}: input with contours, field, generated image, difference",
            f"Labelled slices of step {report['best_step']}. From the left: the input with the reference contours; the "
            f"{field}; the generated image with its contours; the difference.",
        )
    )
    page = picture(run / "instruments.png", f"All instruments of generator {name} on one page")
    parts.append(details("One slice under several z, and every instrument", page) if page else None)
    return joined(parts)


def _numbers(kind, row, limited):
    sources = [source for source in YARDSTICKS if any(key.startswith(f"{source}/") for key in row)]
    lines = []
    for key, what, unit, sane in _ROWS[kind]:
        if f"generator/{key}" in row and (limited or key != "saturated"):
            texts = [_number(row.get(f"{source}/{key}", math.nan), unit) for source in ("generator", *sources)]
            lines.append([what, *texts, sane])
    if not lines:
        return None
    head = ["", "generator", *(YARDSTICKS[source] for source in sources), "sane"]
    caption = (
        f"Fields on labelled slices at step {row['step']:.0f}, beside those of random transforms on the same slices"
    )
    return table(caption, head, lines, texts=[len(head) - 1])


def _number(value, unit):
    if math.isnan(value):
        return "–"
    if unit == "%":
        return f"{100 * value:.1f} %"
    return f"{value:.2f} {unit}" if unit else f"{value:.2g}"


def _courses(kind, rows):
    """Curves of the instruments over the training."""
    if not rows:
        return []
    steps = [row["step"] for row in rows]
    size = ("displacement_p95_mm", "Displacement, 95th percentile (mm)")
    wanted = {"deform": (size, ("folded", "Share of pixels folded"), ("lost_anatomy", "Share of anatomy lost"))}
    wanted["intensity"] = (("intensity_p95", "|dI|, 95th percentile"), ("histogram_distance", "Distance to histograms"))
    drawn = []
    for key, title in wanted[kind]:
        lines = {}
        for source, name in {"generator": "generator", **YARDSTICKS}.items():
            if f"{source}/{key}" in rows[0]:
                values = [row.get(f"{source}/{key}", math.nan) for row in rows]
                lines[name] = charts.Curve(steps, values, dashed=source != "generator")
        if lines:
            drawn.append(charts.curves(title, lines, limits=(0, None)))
    judged = {
        pool: [row.get(f"discriminator/accuracy_{pool}", math.nan) for row in rows]
        for pool in ("generated", "labelled", "unlabelled", "held_out")
        if f"discriminator/accuracy_{pool}" in rows[0]
    }
    if judged:
        lines = {pool.replace("_", " "): charts.Curve(steps, values) for pool, values in judged.items()}
        drawn.append(charts.curves("How often D is right", lines, limits=(0, 1)))
    return drawn


def _histogram(run, config, report, kind):
    """The histogram of the fields' magnitudes, or why there is none."""
    try:
        found = magnitudes(run, config, report)
    except TfaugError as error:
        return el("p", f"No histogram of the fields: {error.subject}: {error.problem}.", class_="soft")
    if isinstance(found, str):
        return el("p", f"No histogram of the fields: {found}.", class_="soft")
    named = {YARDSTICKS.get(source, source): values for source, values in found.items()}
    title, unit = ("Displacement of pixels", "mm") if kind == "deform" else ("Change of intensity", "|dI|")
    told = "Share of pixels (%). " + "; ".join(
        f"{name}: half are below {np.median(v):.2g}" for name, v in named.items()
    )
    return charts.histogram(title, named, unit, f"{told}. The last bar holds all beyond it.")


def magnitudes(run: pathlib.Path, config: Config, report: Mapping) -> dict[str, np.ndarray] | str:
    """The result of `Instruments.magnitudes` on the labelled scans, or, as text, why the scans are missing.

    Raises:
      TfaugError: scans or generator cannot be used.
    """
    if problem := no_data(config):
        return problem
    import tensorflow as tf

    from tfaug import inference
    from tfaug.experiment import identity, networks, runs
    from tfaug.experiment.instruments import Instruments
    from tfaug.experiment.sources import Data

    networks.set_up_tensorflow(config)
    check_signals()
    data = Data(config)
    data.load(["labelled"])
    then = {case: report.get("digests", {}).get(case) for case in cases(config, "labelled")}
    identity.refuse_other_scans(run, {"digests": then}, data.digests(["labelled"]))
    name = report["generator"]
    instruments = Instruments(name, data["labelled"], (), (), config)
    generate = tf.function(inference.inference_mode(runs.generator_of(run, GENERATORS[name][0])), autograph=False)
    return instruments.magnitudes(generate)
