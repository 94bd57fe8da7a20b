"""Prints and draws mean Dice on the development patients against steps and minutes.

    python docs/results/acdc/curves.py docs/results/acdc/curves                   # the table
    python docs/results/acdc/curves.py docs/results/acdc/curves --figure=FILE.png
    python docs/results/acdc/curves.py FOLDER --collect=RUNS --setting=NAME       # first: adds NAME.csv to FOLDER

Dice is the mean over structures and over the 41 patients, on their own grids, of the model of each step. RUNS holds
segmenters that were trained with curves.json, so that these patients were validated and none was tested. Minutes are
steps times the seconds a step in the folder's seconds.csv, which `python -m benchmarks.steps --size=64 --batch=10
--only="S iteration"` measured on two cores that did nothing else.
"""

from __future__ import annotations

import argparse
import pathlib
import re
from collections.abc import Sequence

import matplotlib
import pandas as pd

from tfaug.engine import event_files

SECONDS = "seconds.csv"
TAG = "dice/mean"
STEPS = (100, 200, 300, 500, 700, 1000, 1500, 2000, 3000)  # that the table shows


def collect(runs: str, file: pathlib.Path) -> None:
    """Writes the validations of the segmenters in a folder of runs as a table."""
    rows = []
    for run in sorted(pathlib.Path(runs).glob("*-seg-*")):
        number, method, seed = re.search(r"-set(\d+)-seg-(\w+)-seed(\d+)$", run.name).groups()
        steps, values = event_files.scalars(run)[TAG]
        rows += [
            {"method": method, "set": int(number), "seed": int(seed), "step": step, "dice": value}
            for step, value in zip(steps, values)
        ]
    pd.DataFrame(rows).to_csv(file, index=False, float_format="%.4f")


def curves(folder: str) -> pd.DataFrame:
    """One row a setting, method, labelled set and step: mean Dice over seeds, their number, and minutes."""
    files = [file for file in sorted(pathlib.Path(folder).glob("*.csv")) if file.name != SECONDS]
    found = pd.concat([pd.read_csv(file).assign(setting=file.stem) for file in files])
    found = found.groupby(["setting", "method", "set", "step"], sort=False).dice.agg(["mean", "size"]).reset_index()
    seconds = pd.read_csv(pathlib.Path(folder) / SECONDS).set_index("setting").seconds
    return found.assign(minutes=found.step * found.setting.map(seconds) / 60)


def table(found: pd.DataFrame, steps: Sequence[int]) -> str:
    """Mean Dice at some steps, a row a setting, method and labelled set, and the minutes of the last of them."""
    shown = found[found.step.isin(steps)].set_index(["setting", "method", "set", "step"])
    by_step = {column: shown[column].unstack("step") for column in ("mean", "size", "minutes")}
    last = {"runs": by_step["size"].max(axis=1).astype(int), "minutes": by_step["minutes"].max(axis=1)}
    return by_step["mean"].assign(**last).to_string(float_format="{:.3f}".format)


def draw(found: pd.DataFrame, file: str) -> None:
    """A panel a method, a colour a setting, a kind of line a labelled set, Dice against minutes."""
    matplotlib.use("agg")
    from matplotlib import pyplot, ticker

    methods = list(dict.fromkeys(found.method))
    colours = {setting: f"C{k}" for k, setting in enumerate(dict.fromkeys(found.setting))}
    styles = dict(zip(sorted(set(found["set"])), ("-", "--", ":")))
    figure, axes = pyplot.subplots(1, len(methods), figsize=(4.2 * len(methods), 3.6), sharey=True, squeeze=False)
    for axis, method in zip(axes[0], methods):
        for (setting, number), one in found[found.method == method].groupby(["setting", "set"], sort=False):
            axis.plot(
                one.minutes, one["mean"], colours[setting], linestyle=styles[number], label=f"{setting}, set {number}"
            )
        axis.set(title=method, xlabel="minutes on two cores", xscale="log")
        least, most = found.minutes.min(), found.minutes.max()
        ticks = [tick for tick in (0.2, 0.5, 1, 2, 5, 10, 20, 50) if least <= tick <= most]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.xaxis.set_minor_locator(ticker.NullLocator())
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("mean Dice, 41 development patients")
    lines = {line.get_label(): line for axis in axes[0] for line in axis.lines}
    axes[0][0].legend(lines.values(), lines, fontsize=7)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--collect", metavar="RUNS")
    parser.add_argument("--setting")
    parser.add_argument("--figure", metavar="FILE")
    options = parser.parse_args()
    if options.collect and not options.setting:
        parser.error("--collect needs --setting, the name of the table")
    if options.collect:
        collect(options.collect, pathlib.Path(options.folder) / f"{options.setting}.csv")
    found = curves(options.folder)
    print(table(found, STEPS))
    if options.figure:
        draw(found, options.figure)
