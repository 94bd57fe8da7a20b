"""Prints what folders of results on the development patients hold, a line for each method of each.

    python docs/results/acdc/develop.py FOLDER ...

A folder is what `--stage=table1 --results=FOLDER` fills. The Dice of a run is its mean over patients and structures,
the standard error that of the mean over labelled volumes, each the mean of its seeds.
"""

from __future__ import annotations

import pathlib
import sys

import pandas as pd

from tfaug.table1 import results


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


if __name__ == "__main__":
    print(table(sys.argv[1:]).to_string(float_format="{:.3f}".format))
