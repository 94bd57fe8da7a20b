"""The numbers of the table: means over runs, tests of significance, and the order of methods.

What the tests show. The paper names the Wilcoxon signed-rank test and says no more. Here the differences are paired by
labelled set, seed and test patient, and the alternative is that the method is better than the one it is compared with.
A patient's pairs from several runs are not independent, nor are the pairs of one run, although the test assumes so: its
p-values are too small, the more so the more runs there are. So it is repeated with one difference per patient, averaged
over the common runs, which generalises to new patients, but only for these labelled sets and seeds; and with one per
run, averaged over its patients, which generalises to new trainings, but only for these patients.
Holm's correction is over all tests of one N_L: every comparison, on every structure and on their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from tfaug.augment.methods import Method
from tfaug.data import readers
from tfaug.data.task import Task
from tfaug.engine.errors import UserError, counted
from tfaug.table1 import paper, results
from tfaug.table1.paper import ALPHA
from tfaug.table1.results import Result

# (method, reference), tested where both have runs. The whole method should also beat each kind of random augmentation,
# both of them composed as its own fields are and, on top of the strongest augmentation, that augmentation alone.
COMPARISONS = (
    *paper.COMPARISONS,
    *(("aff_gd_gi", reference) for reference in ("aff_rd", "aff_ri", "aff_rd_ri")),
    ("aff_strong_gd_gi", "aff_strong"),
)
MARKS = {**paper.MARKS, "aff_rd_ri": "‡", "aff_strong": "§"}

_CELL = ["method", "num_labelled"]
_RUN = ["labelled_set", "seed"]
_PAIRED = [*_RUN, "patient"]
DRAWS = 2000
LEVEL = 95  # per cent, of the bootstrap interval


class Correlation(NamedTuple):
    """Spearman's rank correlation of our methods' mean Dice with the paper's.

    Attributes:
      rho: over the methods that have results; NaN for fewer than three, or if all have the same Dice.
      low: lower end of the bootstrap interval; NaN if there is none.
      high: upper end, likewise.
      num_methods: how many methods have results.
      num_sets: how many labelled sets there were to draw from; with one, the interval does not reflect their choice.
      undefined: resamples, of `DRAWS`, left out as a method had no run or all had the same Dice.
    """

    rho: float
    low: float
    high: float
    num_methods: int
    num_sets: int
    undefined: int


class Table(NamedTuple):
    """All numbers of the table.

    Attributes:
      task: the structures; its values are classes.
      methods: the rows in order, with or without results.
      scores: see `scores`.
      cells: see `cells`.
      tests: see `tests`.
      correlations: by N_L, for those in the paper.
      with_paper: whether to show the paper's numbers beside ours.
      notes: where the results come from.
    """

    task: Task
    methods: tuple[str, ...]
    scores: pd.DataFrame
    cells: pd.DataFrame
    tests: pd.DataFrame
    correlations: Mapping[int, Correlation]
    with_paper: bool
    notes: Sequence[str]

    @property
    def counts(self) -> list[int]:
        """The N_L of the results."""
        return sorted(set(self.scores.index.get_level_values("num_labelled").tolist()))

    @property
    def columns(self) -> list[str]:
        """The columns of numbers: the structures and their mean."""
        return [*self.task.names, "mean"]

    @property
    def marks(self) -> dict[str, str]:
        """Those of `MARKS` whose methods are rows."""
        return {reference: sign for reference, sign in MARKS.items() if reference in self.methods}

    def of(self, method: str, num_labelled: int) -> pd.DataFrame:
        """The rows of `scores` for one method and N_L; may be empty."""
        levels = self.scores.index.get_level_values
        return self.scores[(levels("method") == method) & (levels("num_labelled") == num_labelled)]

    def num_runs(self, method: str, num_labelled: int) -> int:
        """The number of runs of one method and N_L."""
        return len(self.of(method, num_labelled).index.droplevel(["patient", "case"]).unique())


def load(folder) -> list[Result]:
    """The results in a folder; a UserError if there are none."""
    found = results.load(folder)
    if not found:
        raise UserError(folder, "holds no results", "first run `python train.py --stage=table1`, or give --results")
    return found


def compute(found: Iterable[Result], config: Mapping[str, Any], methods: Mapping[str, Method]) -> Table:
    """All numbers of the table.

    Args:
      found: results, including those of methods not shown.
      config: the config they share, as `results.read_config` returns it.
      methods: the rows in their order, as `augment.methods.table` returns them.

    Raises:
      UserError: no row has results.
    """
    found, task = list(found), results.task_of(config)
    shown = [result for result in found if result.method in methods]
    left_out = sorted({result.method for result in found} - {*methods})
    if not shown:
        raise UserError("--config.methods", f"has none of the results' methods ({', '.join(left_out)})", "name some")
    by_case = scores(shown, task.names, readers.patient_of(config["data"]))
    counts = sorted({result.num_labelled for result in shown}) if any(m in paper.ROWS for m in methods) else []
    return Table(
        task,
        tuple(methods),
        by_case,
        cells(by_case),
        tests(by_case),
        {n: rank_correlation(by_case, n) for n in counts if n in paper.COUNTS},
        is_acdc(config),
        _notes(shown, left_out, config),
    )


def is_acdc(config: Mapping[str, Any]) -> bool:
    """Whether the results are on the paper's data, so that its numbers may be shown beside ours.

    The files alone cannot tell, as other data may have ACDC's layout. So four conditions must hold: the data are the
    user's, the structures and the test patients are those of the experiment on ACDC, and the config's name, which the
    user chooses, begins with "acdc", as that of configs/acdc.py does.
    """
    same_structures = set(config["data"]["structures"]) == set(paper.STRUCTURES)
    same_patients = set(config["splits"]["test"]) == paper.TEST_PATIENTS
    return bool(config["data"]["root"]) and same_structures and same_patients and config["name"].startswith("acdc")


def scores(found: Iterable[Result], structures: Sequence[str], patient_of: Callable[[str], str] = str) -> pd.DataFrame:
    """The Dice of every test case of every run.

    Args:
      found: the results.
      structures: the names of the structures.
      patient_of: function from a case to its patient; by default each case is a patient.

    Returns:
      by (method, num_labelled, labelled_set, seed, patient, case): Dice of each structure, and "mean", which is NaN if
      one of them is. The keys form the index, as a structure may have the name of a key.
    """
    rows = [
        (r.method, r.num_labelled, r.labelled_set, r.seed, patient_of(case), case, *dice, np.mean(dice))
        for r in found
        for case, dice in r.dice.items()
    ]
    keys = [*_CELL, *_PAIRED, "case"]
    index = pd.MultiIndex.from_tuples([row[: len(keys)] for row in rows], names=keys)
    return pd.DataFrame([row[len(keys) :] for row in rows], index, columns=[*structures, "mean"])


def cells(by_case: pd.DataFrame) -> pd.DataFrame:
    """The table's numbers.

    A run's value is the mean over its test cases without undefined ones; its "mean" is the mean over its structures.

    Returns:
      by (method, num_labelled, structure): mean and sample std (NaN for one run) over runs, runs: their number,
      undefined: how many cases' values were left out.
    """
    runs = by_case.drop(columns="mean").groupby(level=[*_CELL, *_RUN]).mean()
    runs["mean"] = runs.mean(axis=1, skipna=False)
    columns = {}
    for name in by_case.columns:
        of_runs = runs[name].groupby(level=_CELL)
        undefined = by_case[name].isna().groupby(level=_CELL).sum()
        columns[name] = pd.DataFrame(
            {"mean": of_runs.mean(), "std": of_runs.std(), "runs": of_runs.count(), "undefined": undefined}
        )
    return pd.concat(columns, names=["structure"]).reorder_levels([*_CELL, "structure"]).sort_index()


def tests(by_case: pd.DataFrame) -> pd.DataFrame:
    """Wilcoxon's signed-rank test of `COMPARISONS`, on the pairs that both methods have in common.

    Returns:
      by (method, reference, num_labelled, structure): difference, the mean of method - reference over pairs; pairs, p
      and p_holm; patients, patients_p and patients_p_holm with one difference per patient; runs, runs_p and
      runs_p_holm with one per run. No row where there are no pairs.
    """
    rows = []
    for n, of_n in by_case.groupby(level="num_labelled"):
        by_method = {method: frame.droplevel(_CELL) for method, frame in of_n.groupby(level="method")}
        for method, reference in COMPARISONS:
            if method in by_method and reference in by_method:
                differences = by_method[method] - by_method[reference]  # aligned; NaN where one has no such run
                rows += [
                    {"method": method, "reference": reference, "num_labelled": n, "structure": name, **_tested(column)}
                    for name, column in differences.items()
                    if column.notna().any()
                ]
    keys = ["method", "reference", "num_labelled", "structure"]
    columns = ["difference", "pairs", "p", "patients", "patients_p", "runs", "runs_p"]
    frame = pd.DataFrame(rows, columns=[*keys, *columns])
    for name in ("p", "patients_p", "runs_p"):
        frame[f"{name}_holm"] = frame.groupby("num_labelled")[name].transform(lambda p: holm(p.to_numpy()))
    return frame.set_index(keys)


def _tested(differences: pd.Series) -> dict[str, float]:
    pairs = differences.dropna()
    patients, runs = pairs.groupby(level="patient").mean(), pairs.groupby(level=_RUN).mean()
    return {
        "difference": pairs.mean(),
        "pairs": len(pairs),
        "p": p_greater(pairs.to_numpy()),
        "patients": len(patients),
        "patients_p": p_greater(patients.to_numpy()),
        "runs": len(runs),
        "runs_p": p_greater(runs.to_numpy()),
    }


def p_greater(differences: np.ndarray) -> float:
    """The one-sided p-value of Wilcoxon's signed-rank test that differences tend to be above 0; 1 if all are 0."""
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences, alternative="greater").pvalue)


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction (1979): the adjusted p-values, to be compared with the same threshold."""
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(np.arange(len(p), 0, -1) * p[order]), 1)
    return corrected


def rank_correlation(by_case: pd.DataFrame, num_labelled: int, draws: int = DRAWS) -> Correlation:
    """The agreement of our order of methods with the paper's, by mean Dice, for one N_L.

    The interval is a percentile bootstrap over what our numbers depend on: labelled sets are drawn with replacement,
    then runs (seeds) within each, and test patients; the same draws for all methods. The paper's numbers are fixed.

    Args:
      by_case: rows of `scores`.
      num_labelled: N_L.
      draws: number of resamples.
    """
    levels = by_case.index.get_level_values
    frame = by_case[(levels("num_labelled") == num_labelled) & levels("method").isin(list(paper.ROWS))]
    present = set(frame.index.get_level_values("method"))
    methods = [method for method in paper.ROWS if method in present]
    if len(methods) < 3:
        num_sets = frame.index.get_level_values("labelled_set").nunique()
        return Correlation(np.nan, np.nan, np.nan, len(methods), num_sets, 0)
    theirs = [paper.ROWS[method].mean(num_labelled) for method in methods]
    ours = cells(frame)["mean"]
    rho = float(_spearman(np.array([ours[method, num_labelled, "mean"] for method in methods]), theirs))
    values = _as_array(frame, methods)
    _, num_sets, num_seeds, num_patients = values.shape
    rng = np.random.default_rng(0)
    resampled = []
    for _ in range(draws):
        sets = rng.integers(num_sets, size=(num_sets, 1))
        seeds = rng.integers(num_seeds, size=(num_sets, num_seeds))
        drawn = values[:, sets, seeds][..., rng.integers(num_patients, size=num_patients)].reshape(len(methods), -1)
        num_defined = np.sum(~np.isnan(drawn), axis=1)
        if num_defined.all():
            resampled.append(np.nansum(drawn, axis=1) / num_defined)
    resampled = _spearman(np.reshape(resampled, [-1, len(methods)]), theirs)
    resampled = resampled[~np.isnan(resampled)]
    low, high = np.nan, np.nan
    if len(resampled) > draws / 2:
        low, high = np.percentile(resampled, [(100 - LEVEL) / 2, (100 + LEVEL) / 2])
    return Correlation(rho, float(low), float(high), len(methods), num_sets, draws - len(resampled))


def _spearman(ours, theirs):
    """Spearman's correlation of each row [..., M] with [M]; NaN for a row of equal numbers. SciPy's takes one row."""
    ours, theirs = (stats.rankdata(one, axis=-1) - (len(theirs) + 1) / 2 for one in (ours, theirs))
    with np.errstate(invalid="ignore"):
        return ours @ theirs / np.sqrt(np.sum(ours**2, axis=-1) * np.sum(theirs**2))


def _as_array(frame, methods):
    """Mean Dice [method, labelled set, seed, patient]; NaN where there is no run."""
    frame = frame.groupby(level=["method", *_PAIRED]).mean()
    levels = frame.index.get_level_values
    indices = [pd.Categorical(levels("method"), methods).codes]
    indices += [pd.factorize(levels(key))[0] for key in _PAIRED]
    values = np.full([len(methods), *(index.max() + 1 for index in indices[1:])], np.nan)
    values[tuple(indices)] = frame["mean"]
    return values


def _notes(found, left_out, config):
    data = "the user's" if config["data"]["root"] else "the built-in cohort"
    distinct = {
        name: sorted({str(getattr(r, name) or "unknown") for r in found})
        for name in ("commit", "tensorflow", "threads")
    }
    notes = (
        f"Config `{config['name']}`, data: {data}, {counted(len(config['splits']['test']), 'test patient')}, "
        f"{counted(len(found), 'run')}, {sum(r.seconds for r in found) / 3600:.1f} hours of training segmenters.",
        "; ".join(f"{name} {', '.join(values)}" for name, values in distinct.items()) + ".",
    )
    return (*notes, f"Not shown: {', '.join(left_out)}.") if left_out else notes


def marks(table: Table, method: str, num_labelled: int, structure: str) -> list[tuple[str, bool]]:
    """Those of `MARKS` that a method beats with p < 0.05, and whether this holds after Holm's correction."""
    found = []
    for reference in MARKS:
        key = (method, reference, num_labelled, structure)
        if key in table.tests.index and table.tests.loc[key, "p"] < ALPHA:
            found.append((reference, bool(table.tests.loc[key, "p_holm"] < ALPHA)))
    return found
