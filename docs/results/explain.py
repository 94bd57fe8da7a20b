"""Numbers behind the remarks on a grid: python docs/results/explain.py docs/results/phantom --workdir=runs.

From the results: validation and test Dice by method, and the test Dice of every labelled set. From the runs in
--workdir, which are not in the repository: what the kept generators do, and how often their discriminators are right.
What the generators do is then kept beside the results, in generators-nN.csv, and printed without the runs as well.
"""

from __future__ import annotations

import argparse
import json
import pathlib

import pandas as pd


def results(folder: pathlib.Path, num_labelled: int) -> pd.DataFrame:
    """One row a run: the fields of its result, and "test", the mean Dice over patients and structures."""
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob(f"*-n{num_labelled}-*.json"))]
    return pd.DataFrame([{**run, "test": pd.DataFrame(run["dice"], dtype=float).stack().mean()} for run in runs])


def by_method(folder: pathlib.Path, num_labelled: int) -> pd.DataFrame:
    """Mean Dice on validation and test patients, by method."""
    return results(folder, num_labelled).groupby("method")[["validation_dice", "test"]].mean()


def by_set(folder: pathlib.Path, num_labelled: int) -> pd.DataFrame:
    """Mean test Dice over seeds, by labelled set (rows) and method."""
    return results(folder, num_labelled).pivot_table(index="labelled_set", columns="method", values="test")


def deviation_of_seeds(folder: pathlib.Path, num_labelled: int) -> pd.Series:
    """Standard deviation of the test Dice over seeds of one labelled set, pooled over the sets, by method."""
    variance = results(folder, num_labelled).groupby(["method", "labelled_set"]).test.var()
    return variance.groupby("method").mean() ** 0.5


def generators(workdir: pathlib.Path, num_labelled: int) -> pd.DataFrame:
    """The diagnostics of every kept generator, one row a run: its own, and those of random elastic that limit them."""
    rows = {}
    for run in sorted(workdir.glob(f"*-n{num_labelled}-*-aug-*")):
        report = json.loads((run / "report.json").read_text())
        kept = pd.read_csv(run / "diagnostics.csv", index_col="step").loc[report["best_step"]]
        numbers = kept.filter(regex="^(generator/|elastic/lost_anatomy)")
        rows[run.name] = {**numbers, "verdict": report.get("verdict")}  # runs of older versions have none
    return pd.DataFrame(rows).T


def discriminators(workdir: pathlib.Path, num_labelled: int, first_step: int = 300) -> pd.DataFrame:
    """How often the discriminators are right from a step on: one row a run with regularisation."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    rows = {}
    for run in sorted(workdir.glob(f"*-n{num_labelled}-*-aug-*")):
        if "noreg" in run.name:
            continue
        events = EventAccumulator(str(run), {"tensors": 0}).Reload()
        if "discriminator/accuracy_fake" not in events.Tags()["tensors"]:
            continue  # a G without a D
        rows[run.name] = {}
        for tag in ("discriminator/accuracy_fake", "discriminator/accuracy_real"):
            values = pd.Series({event.step: float(make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)})
            rows[run.name][tag] = values.loc[first_step:].mean()
    return pd.DataFrame(rows).T


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=pathlib.Path, help="folder of results")
    parser.add_argument("--num_labelled", type=int, default=1, help="N_L")
    parser.add_argument("--workdir", type=pathlib.Path, help="folder of the runs")
    asked = parser.parse_args()
    sets = by_set(asked.results, asked.num_labelled)
    tables = [by_method(asked.results, asked.num_labelled), sets.T, sets.std().rename("deviation of the sets")]
    tables.append(deviation_of_seeds(asked.results, asked.num_labelled).rename("deviation of the seeds"))
    kept = asked.results / f"generators-n{asked.num_labelled}.csv"
    if asked.workdir:
        found = generators(asked.workdir, asked.num_labelled)
        if kept.exists():  # of other runs
            before = pd.read_csv(kept, index_col=0)
            found = pd.concat([before.drop(found.index, errors="ignore"), found]).sort_index()
        found.to_csv(kept, float_format="%.6g")
        tables.append(discriminators(asked.workdir, asked.num_labelled))
    if kept.exists():
        tables.append(pd.read_csv(kept, index_col=0))
    print("\n\n".join(table.round(3).to_string() for table in tables))


if __name__ == "__main__":
    main()
