"""Prints what folders of results on the development patients hold, a line for each method of each.

    python docs/results/develop.py FOLDER ...
    python docs/results/develop.py --collect=RUNS FOLDER      # first: what the generators in RUNS do

A folder is what `--stage=table1 --results=FOLDER` fills. The Dice of a run is its mean over patients and structures,
the standard error that of the mean over labelled volumes, each the mean of its seeds. A second table has what the
generators did at the end of their runs, beside random transforms: means over runs. Last comes how each folder's
config differs from `configs/acdc_quick.py` or from that of another folder.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re

import pandas as pd

from tfaug.configs import acdc_quick
from tfaug.engine import run_dir
from tfaug.table1 import results

# Of a generator's last reading, by kind: the columns of diagnostics.csv, and the random transforms beside it.
TELLING = {
    "deform": ("displacement_p95_px", "folded", "diversity_px", "lost_anatomy"),
    "intensity": ("intensity_p95", "saturated", "diversity", "histogram_distance"),
}
SOURCES = {"deform": ("generator", "elastic"), "intensity": ("generator", "contrast_brightness", "histogram")}
JUDGED = ("discriminator/accuracy_generated", "discriminator/accuracy_unlabelled")
FILE = "generators.csv"


def table(folders: list[str]) -> pd.DataFrame:
    """One row a folder and method: mean Dice, its standard error, runs, and the mean by labelled volume."""
    rows = [
        {
            "folder": pathlib.Path(folder).name,
            "method": one.method,
            "set": one.labelled_set,
            "dice": pd.DataFrame(one.dice).mean().mean(),
        }
        for folder in folders
        for one in results.load(folder)
    ]
    by_set = pd.DataFrame(rows).groupby(["folder", "method", "set"], sort=False).dice.mean().unstack("set")
    runs = pd.DataFrame(rows).groupby(["folder", "method"], sort=False).size()
    return pd.DataFrame(
        {
            "mean": by_set.mean(axis=1),
            "error": by_set.sem(axis=1),
            "runs": runs,
            **{f"set {n}": by_set[n] for n in by_set},
        }
    )


def collect(runs: str, folder: str) -> None:
    """Writes the last readings of the generators with regularisation in a folder of runs into a folder of results."""
    rows = []
    for file in sorted(pathlib.Path(runs).glob("*-aug-*/diagnostics.csv")):
        number, kind = re.search(r"-set(\d+)-aug-(\w+)-seed", file.parent.name).groups()
        if kind not in SOURCES:
            continue
        last = pd.read_csv(file).iloc[-1]
        for source in SOURCES[kind]:
            values = {key: last[f"{source}/{key}"] for key in TELLING[kind]}
            of_d = JUDGED if source == "generator" else ()
            judged = {key.split("/")[1]: last.get(key) for key in of_d}  # not every G has a D
            rows.append({"kind": kind, "set": int(number), "source": source, **values, **judged})
    pd.DataFrame(rows).to_csv(pathlib.Path(folder) / FILE, index=False, float_format="%.6g")


def generators(folders: list[str], kind: str) -> pd.DataFrame:
    """One row a folder and source: means of the last readings of its generators of one kind."""
    files = {pathlib.Path(folder).name: pathlib.Path(folder) / FILE for folder in folders}
    parts = [pd.read_csv(file).assign(folder=name) for name, file in files.items() if file.exists()]
    if not parts:
        return pd.DataFrame()
    found = pd.concat(parts)
    found = found[found.kind == kind]
    if found.empty:
        return found
    shown = [*TELLING[kind], "accuracy_generated", "accuracy_unlabelled"]
    return found.groupby(["folder", "source"], sort=False)[shown].mean()


def settings(folders: list[str]) -> str:
    """A line a folder: which other one, or the recipe, its config is nearest to, and what it has otherwise.

    The lines are those of the shortest tree: each folder is told by the fewest keys that tell it from one before it.
    """
    told = {"configs/acdc_quick.py": results.decisive(acdc_quick.get_config(), ())}
    left = {pathlib.Path(folder).name: results.read_config(folder) for folder in folders}
    lines = []
    nearest = {name: _change("configs/acdc_quick.py", told, config) for name, config in left.items()}
    while left:
        name = min(left, key=lambda name: len(nearest[name][1]))
        other, changed = nearest.pop(name)
        told[name] = left.pop(name)
        lines.append(f"{name}: as {other}{', but ' if changed else ''}{', '.join(changed)}")
        for one, config in left.items():
            nearest[one] = min(nearest[one], _change(name, told, config), key=lambda found: len(found[1]))
    return "\n".join(lines)


def _change(name: str, told: dict[str, dict], config: dict) -> tuple[str, list[str]]:
    differences = run_dir.differences(_rounded(told[name]), _rounded(config))
    values = {key: change.partition(" -> ")[2] for key, change in differences.items()}
    values.pop("augment.of_intensity", None)  # empty on one side: the keys in it are told
    return name, [
        f"no {key}" if value == "absent" else f"{key}={value}"
        for key, value in values.items()
        if not _NOT_SHOWN.fullmatch(key)
    ]


def _rounded(config: dict) -> dict:
    """Without the last digits of what was computed."""
    return json.loads(json.dumps(config), parse_float=lambda text: float(f"{float(text):.6g}"))


# The data and their splits; what no training reads.
_NOT_SHOWN = re.compile(r"name|methods|(data|splits|generators)\..*|.*_every")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--collect", metavar="RUNS")
    options = parser.parse_args()
    if options.collect:
        collect(options.collect, *options.folders)
    print(table(options.folders).to_string(float_format="{:.3f}".format))
    for one in TELLING:
        if len(found := generators(options.folders, one)):
            print(f"\n{found.to_string(float_format='{:.3g}'.format)}")
    print(f"\n{settings(options.folders)}")
