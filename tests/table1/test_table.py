import csv
import io
import itertools
import math
import shutil
import subprocess

import numpy as np
import pytest
from scipy import stats

from tfaug.augment.methods import AFFINE, PAPER, Method
from tfaug.configs import acdc, phantom
from tfaug.engine.errors import UserError
from tfaug.table1 import paper, render, results, table
from tfaug.table1.results import Result

STRUCTURES = ("RV", "Myo", "LV")
PATIENTS = tuple(f"P{k:02d}" for k in range(8))


def result(method, dice, n=1, labelled_set=1, seed=0):
    """A run with given Dice by patient: a number for each of three structures, or one for each."""
    dice = {case: tuple(np.broadcast_to(v, np.shape(v) or 3).tolist()) for case, v in dice.items()}
    return Result(method, n, labelled_set, seed, 500, 0.5, dice, 1800.0, "abc", 1, "2.15.1")


def grid(values, n=1, sets=(1, 2), seeds=(0, 1), patients=PATIENTS, noise=0.01):
    """Runs of methods with some mean Dice, and noise that is the run's, the patient's, and the pair's own."""
    rng = np.random.default_rng(0)
    of_patient, of_run = rng.normal(0, 0.05, len(patients)), rng.normal(0, 0.05, (len(sets), len(seeds)))
    return [
        result(
            method,
            {
                case: np.clip(mean + of_patient[k] + of_run[i, j] + noise * rng.normal(size=3), 0, 1)
                for k, case in enumerate(patients)
            },
            n,
            labelled_set,
            seed,
        )
        for method, mean in values.items()
        for i, labelled_set in enumerate(sets)
        for j, seed in enumerate(seeds)
    ]


def config(structures=STRUCTURES, **changes):
    values = phantom.get_config()
    values.splits.test = PATIENTS
    values.update_from_flattened_dict(changes)
    return results.decisive(values, structures)


def compute(found, structures=STRUCTURES, methods=PAPER, **changes):
    return table.compute(found, config(structures, **changes), methods)


def scores(found, structures=STRUCTURES):
    return table.scores(found, structures)


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_cell_is_the_mean_over_runs_of_means_over_patients():
    found = [
        result("aff", {"A": (0.1, 0.2, 0.3), "B": (0.3, 0.4, 0.8)}),  # 0.2 0.3 0.55
        result("aff", {"A": (0.5, 0.5, 0.5), "B": (0.7, 0.9, 0.7)}, seed=1),  # 0.6 0.7 0.6
        result("aff", {"A": 0.9, "B": 0.9}, n=3),
    ]
    cells = table.cells(scores(found))
    assert cells.loc[("aff", 1, "RV"), ["mean", "std", "runs"]].tolist() == pytest.approx([0.4, 0.4 / math.sqrt(2), 2])
    assert cells.loc[("aff", 1, "mean"), "mean"] == pytest.approx((0.4 + 0.5 + 0.575) / 3)
    # The runs' means are 0.35 and 0.6333...
    assert cells.loc[("aff", 1, "mean"), "std"] == pytest.approx((1.9 / 3 - 0.35) / math.sqrt(2))
    assert cells.loc[("aff", 3, "LV"), "mean"] == pytest.approx(0.9) and math.isnan(cells.loc[("aff", 3, "LV"), "std"])


def test_runs_weigh_the_same_whatever_is_undefined():
    found = [
        result("aff", {"A": (math.nan, 0.2, 0.2), "B": (0.4, 0.2, 0.2)}),
        result("aff", {"A": (0.8, 0.2, 0.2), "B": (0.8, 0.2, 0.2)}, seed=1),
        result("aff", {"A": (math.nan, 0.2, 0.2), "B": (math.nan, 0.2, 0.2)}, seed=2),
    ]
    cells = table.cells(scores(found))
    assert cells.loc[("aff", 1, "RV"), ["mean", "runs", "undefined"]].tolist() == pytest.approx([0.6, 2, 3])
    assert cells.loc[("aff", 1, "Myo"), ["mean", "runs", "undefined"]].tolist() == pytest.approx([0.2, 3, 0])
    assert cells.loc[("aff", 1, "mean"), ["mean", "runs"]].tolist() == pytest.approx([1 / 3, 2])
    text = render.markdown(compute(found))
    assert "| 0.600 ± 0.283 | 0.200 ± 0.000 | 0.200 ± 0.000 | 0.333 ± 0.094 | 3 |" in text and "nan" not in text


def test_p_greater_counted_by_hand():
    # Of the 2^5 assignments of signs to the ranks 1..5, those with a positive rank sum of at least 13: 15, 14 and 13.
    assert table.p_greater(np.array([0.1, -0.05, 0.3, 0.2, 0.4])) == pytest.approx(2 / 32)  # sum 14: 15 and 14
    assert table.p_greater(np.array([0.1, 0.2, 0.3, 0.4, 0.5])) == pytest.approx(1 / 32)
    assert table.p_greater(-np.array([0.1, 0.2, 0.3, 0.4, 0.5])) == 1
    assert table.p_greater(np.zeros(5)) == 1


def test_holm_on_a_hand_computed_example():
    corrected = table.holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert corrected.tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])  # 3 x .01, 1 x .04 raised, 2 x .03, 4 x .005
    assert table.holm(np.array([0.6, 0.5])).tolist() == [1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_holm_rejects_no_more_than_none_and_no_less_than_bonferroni(seed):
    p = np.random.default_rng(seed).uniform(0, 0.05, 12)
    corrected = table.holm(p)
    assert (corrected >= p).all() and (corrected <= np.minimum(12 * p, 1)).all()
    assert (np.argsort(corrected, kind="stable")[:1] == np.argmin(p)).all()


def test_a_better_method_is_significant_and_a_worse_one_is_not():
    p = table.tests(scores(grid({"aff_gd": 0.60, "aff_gi": 0.50, "aff_rd": 0.58, "aff_ri": 0.52}))).p
    for name in (*STRUCTURES, "mean"):
        assert p["aff_gd", "aff_rd", 1, name] < 0.001
        assert p["aff_gi", "aff_ri", 1, name] > 0.999


def test_tests_compare_the_same_patient_of_the_same_run():
    """Noise of patients and runs is five times the difference: only the right pairs show it."""
    found = grid({"aff_gd": 0.51, "aff_rd": 0.50})
    right = table.tests(scores(found)).p["aff_gd", "aff_rd", 1, "mean"]
    assert right < 1e-4
    for key in ("case", "seed", "labelled_set"):
        shuffled = scores(found).reset_index()
        mine = shuffled.method == "aff_gd"
        renamed = dict(zip(shuffled[key].unique(), np.roll(shuffled[key].unique(), 1)))
        shuffled.loc[mine, key] = shuffled.loc[mine, key].map(renamed)
        shuffled["patient"] = shuffled["case"]
        shuffled = shuffled.set_index(["method", "num_labelled", "labelled_set", "seed", "patient", "case"])
        assert table.tests(shuffled).p["aff_gd", "aff_rd", 1, "mean"] > 100 * right, key


def test_tests_use_common_pairs_and_average_over_runs_for_patients():
    reference = {"A": 0.5, "B": 0.5, "C": 0.5}
    found = [
        result("aff_rd", reference),
        result("aff_rd", reference, seed=1),
        result("aff_rd", reference, seed=2),
        result("aff_gd", {"A": 0.6, "B": 0.7, "C": 0.2}),
        result("aff_gd", {"A": 0.6, "B": 0.6, "C": (math.nan, 0.9, 0.9)}, seed=1),
        result("aff_gd", {"A": 0.0, "B": 0.0, "C": 0.0}, labelled_set=2, seed=2),
    ]
    tests = table.tests(scores(found))
    assert set(tests.index.get_level_values("method")) == {"aff_gd"}
    myo = tests.loc[("aff_gd", "aff_rd", 1, "Myo")]
    # A: 0.1 0.1, B: 0.2 0.1, C: -0.3 0.4
    assert (myo.pairs, myo.patients) == (6, 3)
    assert myo.difference == pytest.approx(0.6 / 6)
    assert myo.patients_p == pytest.approx(1 / 8)  # 0.1, 0.15, 0.05: all positive
    assert myo.runs == 2 and myo.runs_p == pytest.approx(1 / 2)  # 0 and 0.2; the test leaves the zero out
    rv = tests.loc[("aff_gd", "aff_rd", 1, "RV")]
    assert (rv.pairs, rv.patients) == (5, 3) and rv.patients_p == pytest.approx(5 / 8)  # -0.3 has the largest rank


def test_both_phases_of_a_patient_are_one_patient():
    """Ten of ten cases are better, which are five patients; their order is drawn by patient, too."""
    names = [f"patient{number:03d}" for number in range(5)]
    cases = {f"{name}_{phase}": 0.5 + k / 100 for k, name in enumerate(names) for phase in ("ED", "ES")}
    found = [result("aff_rd", cases), result("aff_ri", cases), result("none", cases)]
    found.append(result("aff_gd", {case: dice + 0.1 + dice / 100 for case, dice in cases.items()}))
    data = {"data.root": "acdc", "data.reader": "acdc"}
    both = compute(found, **data, **{"data.phase": "both"})
    mean = both.tests.loc[("aff_gd", "aff_rd", 1, "mean")]
    assert (mean.pairs, mean.patients) == (10, 5)
    assert mean.p == pytest.approx(2**-10) and mean.patients_p == pytest.approx(2**-5)
    assert compute(found, **data).tests.loc[("aff_gd", "aff_rd", 1, "mean")].patients == 10


def test_what_two_runs_of_three_show_is_no_matter_of_many_patients():
    """Twenty patients agree in each run, but the runs do not."""
    many = [f"P{number}" for number in range(20)]
    found = [result("aff_rd", dict.fromkeys(many, 0.5), 1, 1, seed) for seed in range(3)]
    found += [result("aff_gd", dict.fromkeys(many, value), 1, 1, seed) for seed, value in enumerate((0.6, 0.65, 0.48))]
    mean = table.tests(scores(found)).loc[("aff_gd", "aff_rd", 1, "mean")]
    assert mean.p < 1e-4 and mean.patients_p < 1e-4
    assert mean.runs == 3 and mean.runs_p == pytest.approx(2 / 8)  # ranks 2, 3 of 1, 2, 3, or more
    assert mean.difference == pytest.approx(0.23 / 3)


def test_holm_is_over_all_tests_of_one_number_of_volumes():
    methods = {method: 0.5 for pair in table.COMPARISONS for method in pair}
    tests = table.tests(scores(grid(methods, noise=0.05) + grid(methods, n=3, seeds=(0,), noise=0.05)))
    assert len(tests) == 2 * len(table.COMPARISONS) * 4
    for n in (1, 3):
        of_n = tests.xs(n, level="num_labelled")
        for name in ("p", "patients_p", "runs_p"):
            assert of_n[f"{name}_holm"].to_numpy() == pytest.approx(table.holm(of_n[name].to_numpy()))
        assert of_n.p_holm.min() == pytest.approx(min(1, 4 * len(table.COMPARISONS) * of_n.p.min()))


def test_marks_are_bracketed_where_holm_takes_them_back():
    found = compute(grid({"aff_gd": 0.6, "aff_rd": 0.5}))
    found.tests["p"], found.tests["p_holm"] = 0.04, 0.04
    found.tests.loc[("aff_gd", "aff_rd", 1, "Myo"), "p_holm"] = 0.06
    found.tests.loc[("aff_gd", "aff_rd", 1, "LV"), ["p", "p_holm"]] = 0.05, 0.05
    line = next(line for line in render.markdown(found).splitlines() if line.startswith("| `aff_gd`"))
    ends = [cell.split()[3:] for cell in line.split(" | ")[2:5]]
    assert ends == [["∗"], ["(∗)"], []]
    latex = render.latex(found)
    assert latex.count(r"^{\ast}$") == 2 and latex.count(r"^{(\ast)}$") == 1


def test_the_papers_own_order_has_rho_1_and_its_reverse_minus_1():
    for n in paper.COUNTS:
        values = {method: row.mean(n) for method, row in paper.ROWS.items()}
        reverse = {method: 1 - value for method, value in values.items()}
        for ours, expected in ((values, 1), (reverse, -1)):
            found = [result(method, {"A": value, "B": value}, n) for method, value in ours.items()]
            assert table.rank_correlation(scores(found), n, draws=10)[:3] == pytest.approx([expected] * 3)


def test_rho_is_over_the_methods_present_with_the_papers_numbers_of_that_count():
    values = {"none": 0.3, "aff": 0.2, "aff_rd": 0.4, "aff_gd_gi": 0.5}  # one swap: 1 - 6 x 2 / (4 x 15)
    found = table.rank_correlation(scores(grid(values, noise=0)), 1, draws=10)
    assert (found.rho, found.num_methods) == (pytest.approx(0.8), 4)
    few = table.rank_correlation(scores(grid({"none": 0.1, "aff": 0.2})), 1)
    assert math.isnan(few.rho) and "2 of 13 methods" in render.markdown(compute(grid({"none": 0.1, "aff": 0.2})))
    # aff_gd_noreg is the last of these for N_L = 1 and the first for N_L = 3.
    values = {"aff_gd_noreg": 0.1, "adv_sl": 0.2, "aff_ri": 0.3, "aff_gi_noreg": 0.4}
    for n, wanted in ((1, [0.5397, 0.5407, 0.575, 0.616]), (3, [0.8133, 0.7917, 0.7997, 0.8023])):
        expected = stats.spearmanr(list(values.values()), wanted)[0]
        assert table.rank_correlation(scores(grid(values, n, noise=0)), n, draws=10).rho == pytest.approx(expected)


def test_the_interval_reflects_sets_runs_and_patients():
    """Two methods whose order hangs on what is drawn; where nothing differs, nothing is uncertain."""
    steady = {"none": 0.1, "aff_gd_gi": 0.9}
    runs = list(itertools.product((1, 2, 3), (0, 1, 2)))

    def interval(values):
        found = [result(m, dict.fromkeys("ABC", v), 1, s, k) for m, v in steady.items() for s, k in runs]
        found += [result("aff", dict.fromkeys("ABC", 0.5), 1, s, k) for s, k in runs]
        found += [result("aff_rd", {c: 0.5 + values(s, k, i) for i, c in enumerate("ABC")}, 1, s, k) for s, k in runs]
        return table.rank_correlation(scores(found), 1, draws=200)

    sure = interval(lambda s, k, i: 0.01)
    assert (sure.rho, sure.low, sure.high) == pytest.approx((1, 1, 1))
    for one in (lambda s, k, i: s, lambda s, k, i: k + 1, lambda s, k, i: i + 1):
        doubtful = interval(lambda s, k, i, one=one: 0.1 if one(s, k, i) == 1 else -0.04)
        assert (doubtful.rho, doubtful.low, doubtful.high) == pytest.approx((1, 0.8, 1))


def test_resamples_that_lack_a_method_are_counted_and_may_leave_no_interval():
    values = {"none": 0.2, "aff": 0.4, "aff_rd": 0.5}
    found = grid(values, sets=(1, 2, 3, 4)) + grid({"aff_gd": 0.6}, sets=(4,))
    correlation = table.rank_correlation(scores(found), 1, draws=400)
    assert correlation.undefined == pytest.approx(400 * 0.75**4, abs=40) and correlation.low == pytest.approx(1)
    found = grid(values, sets=range(1, 9)) + grid({"aff_gd": 0.6}, sets=(1,)) + grid({"aff_gi": 0.6}, sets=(2,))
    correlation = table.rank_correlation(scores(found), 1, draws=400)
    assert correlation.undefined > 200 and math.isnan(correlation.low) and not math.isnan(correlation.rho)
    assert "no interval" in render.markdown(compute(found))


@pytest.mark.filterwarnings("error")
def test_resamples_in_which_all_methods_are_the_same_are_counted_too():
    dice = {"none": 0.2, "aff": 0.3, "aff_rd": 0.4}
    found = [result(method, {"A": value, "B": 0.0, "C": 0.0}) for method, value in dice.items()]
    correlation = table.rank_correlation(scores(found), 1, draws=400)
    assert correlation.undefined == pytest.approx(400 * (2 / 3) ** 3, abs=40) and correlation.low == pytest.approx(1)
    assert "had all methods tied" in render.markdown(compute(found))
    same = render.markdown(compute([result(method, {"A": 0.0, "B": 0.0}) for method in dice]))
    assert "3 of 13 methods have results, with the same Dice." in same


def test_the_result_does_not_depend_on_the_order_of_the_files():
    found = grid({"aff_gd": 0.52, "aff_rd": 0.5, "none": 0.3, "aff": 0.4}, noise=0.1)
    first, second = compute(found), compute(found[::-1])
    assert render.csv(first) == render.csv(second) and render.markdown(first) == render.markdown(second)


def test_an_unfinished_grid():
    found = grid({"aff_gd": 0.6, "aff_rd": 0.5}, sets=(1,)) + grid({"aff_gd": 0.7}, n=3, seeds=(0,))
    text = render.markdown(compute(found))
    lines = [line for line in text.splitlines() if line.startswith("| `")][1:]
    assert len(lines) == 13
    assert lines[0] == "| `none` | Aug_none | - | - | - | - | 0 | - | - | - | - | 0 |"
    by_method = {line.split("`")[1]: line.split(" | ") for line in lines}
    assert by_method["aff_gd"][6] == "2" and by_method["aff_gd"][11] == "2 |"
    assert by_method["aff_rd"][6] == "2" and by_method["aff_rd"][7:] == ["-", "-", "-", "-", "0 |"]
    assert "16 patients and runs" in text and "8 patients" in text
    assert render.latex(compute(found)).count(" & -- & -- & -- & -- & 0") == 2 * 11 + 1


def test_numbers_of_volumes_that_the_paper_lacks_are_shown_without_it():
    found = compute(grid({"aff": 0.9, "none": 0.8, "aff_rd": 0.9}, n=40))
    assert "RV, N_L = 40" in render.markdown(found) and found.correlations == {}


def test_other_structures_fill_every_output():
    """Their names may be those of columns, or text that Markdown and LaTeX would read."""
    names = ("seed", "a|b_c$")
    found = [
        result(method, {case: (value, value + 0.1 + k / 100) for k, case in enumerate("ABCD")}, seed=seed)
        for method, value in (("aff_rd", 0.3), ("aff_gd", 0.5), ("none", 0.1))
        for seed in (3, 7)
    ]
    got = compute(found, names)
    assert got.cells.loc[("aff_gd", 1, "seed"), ["mean", "runs"]].tolist() == pytest.approx([0.5, 2])
    assert got.cells.loc[("aff_gd", 1, "mean"), "mean"] == pytest.approx((0.5 + 0.6 + 0.015) / 2)
    assert got.tests.loc[("aff_gd", "aff_rd", 1, "seed"), "pairs"] == 8 and not got.with_paper
    assert "RV" not in render.markdown(got) + render.latex(got) + render.csv(got)
    (head, *body) = [line for line in render.markdown(got).splitlines() if line.startswith("| `")]
    assert r"| a\|b_c$, N_L = 1 | mean, N_L = 1 |" in head
    assert next(line for line in body if "`none`" in line).startswith("| `none` | Aug_none | 0.100 ± 0.000 | 0.215 ")
    assert r" & seed & a|b\_c\$ & mean & runs" in render.latex(got) and "{l rrrr}" in render.latex(got)
    assert [row["structure"] for row in rows(render.csv(got))][:3] == [*names, "mean"]


OWN = {"blur": Method(AFFINE), "aff_rd": PAPER["aff_rd"], "aff_gd": PAPER["aff_gd"]}


def test_the_rows_are_the_methods_of_the_config_in_its_order():
    found = grid({"aff_rd": 0.4, "aff_gd": 0.5, "none": 0.2, "aff_mixup": 0.3, "blur": 0.6})
    got = compute(found, methods=OWN)
    text = render.markdown(got)
    (_, *body) = [line for line in text.splitlines() if line.startswith("| `")]
    assert [line.split(" | ")[:2] for line in body] == [
        ["| `blur`", "not in the paper"],
        ["| `aff_rd`", "Aug_A,RD"],
        ["| `aff_gd`", "Aug_A,GD (λ_adv = 1, λ_big = 0.001)"],
    ]
    assert "12 runs" in text and "Not shown: aff_mixup, none." in text and "3 of 13" not in text
    assert r"\texttt{blur} (not in the paper) & $0.5" in render.latex(got)
    assert list(dict.fromkeys(row["method"] for row in rows(render.csv(got)))) == list(OWN)
    assert set(got.scores.index.get_level_values("method")) == set(OWN)


def test_tests_and_marks_are_those_of_the_rows_that_are_there():
    got = compute(grid({"aff_rd": 0.4, "aff_gd": 0.5, "aff_ri": 0.4, "aff_gi": 0.5}), methods=OWN)
    assert set(got.tests.index.get_level_values("reference")) == {"aff_rd"} and got.marks == {"aff_rd": "∗"}
    for text in (render.markdown(got), render.latex(got), render.csv(got)):
        assert "over_aff_ri" not in text and "> `aff_ri`" not in text and "dagger" not in text and "†" not in text
    alone = compute(grid({"blur": 0.4}), methods={"blur": Method(AFFINE)})
    assert alone.correlations == {} and alone.tests.empty and alone.marks == {}
    assert "Holm" not in render.markdown(alone) + render.latex(alone) and "Wilcoxon" not in render.latex(alone)


def test_the_rank_correlation_ignores_methods_that_the_paper_lacks():
    values = {"none": 0.3, "aff": 0.2, "aff_rd": 0.4, "aff_gd_gi": 0.5}
    rows_of_paper = grid(values, noise=0.1)
    extra = grid({"blur": 0.9}, sets=(1, 2, 3), patients=("other",))
    assert table.rank_correlation(scores(rows_of_paper + extra), 1) == table.rank_correlation(scores(rows_of_paper), 1)


def test_the_papers_numbers_stand_beside_its_own_rows_alone():
    got = compute(grid({"blur": 0.6, "aff_gd": 0.5}), methods=OWN, **ACDC)
    lines = render.markdown(got).splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("| `blur`"))
    assert lines[first + 1].startswith("| `aff_rd`") and lines[first + 2].startswith("|  | the paper | 0.397")
    assert [row["paper"] for row in rows(render.csv(got)) if row["structure"] == "RV"] == ["", "0.397", "0.487"]


def test_methods_without_results_are_one_line():
    with pytest.raises(UserError, match=r"--config.methods: has none of the results' methods \(aff, none\)"):
        compute(grid({"none": 0.1, "aff": 0.2}), methods=OWN)


ACDC = {"name": "acdc64", "data.root": "DIR", "splits.test": tuple(sorted(paper.TEST_PATIENTS))}


def test_the_papers_numbers_stand_beside_acdc():
    found = compute(grid({"aff": 0.5, "aff_gd": 0.6}), **ACDC)
    line = render.markdown(found).splitlines()
    below = line[next(k for k, text in enumerate(line) if text.startswith("| `aff_gd`")) + 1]
    assert below.startswith("|  | the paper | 0.487 ∗ | 0.560 ∗ | 0.717 ∗ | 0.588 | 15 |")
    assert render.latex(found).count("the paper") == 13 and r"$0.487^{\ast}$" in render.latex(found)
    assert [row["paper"] for row in rows(render.csv(found))][:4] == ["0.259", "0.291", "0.446", "0.332"]


def test_the_papers_numbers_do_not_stand_beside_other_structures():
    got = compute([result("aff", {"A": (0.5, 0.5)})], ("wall", "LV"), **ACDC)
    assert not got.with_paper and "| the paper |" not in render.markdown(got)
    assert compute([result("aff", {"A": 0.5})], ("LV", "Myo", "RV"), **ACDC).with_paper


@pytest.mark.parametrize("changes", [{"name": "mine"}, {"data.root": ""}, {"splits.test": PATIENTS}], ids=str)
def test_the_papers_numbers_do_not_stand_beside_other_data(changes):
    found = compute(grid({"aff": 0.5, "aff_gd": 0.6}), **{**ACDC, **changes})
    assert "0.651" not in render.markdown(found) + render.latex(found) + render.csv(found)
    assert "| the paper |" not in render.markdown(found)
    assert "are shown only if data.root is set" in render.markdown(found)


def test_the_configs_for_acdc_have_the_papers_numbers():
    values = acdc.get_config()
    assert not table.is_acdc(results.decisive(values, STRUCTURES))
    values.data.root = "/data/acdc"
    assert table.is_acdc(results.decisive(values, STRUCTURES))


@pytest.fixture
def folder(tmp_path):
    values = phantom.get_config()
    values.splits.test = PATIENTS
    for found in grid({"aff_gd": 0.52, "aff_rd": 0.5, "none": 0.3}, noise=0.1):
        results.save(tmp_path / "results", found, values, STRUCTURES)
    return tmp_path / "results"


def test_all_statistics_follow_from_the_csv_of_dice(folder):
    text = render.write(folder, PAPER)
    assert text == (folder / "table1.md").read_text(encoding="utf-8")
    dice = rows((folder / "table1_dice.csv").read_text())
    values = {}
    for row in dice:
        key = row["labelled_set"], row["seed"], row["case"]
        values.setdefault(row["method"], {})[key] = [float(row[name]) for name in ("RV", "Myo", "LV")]
    gd, rd = (np.array([values[method][key] for key in sorted(values["aff_gd"])]) for method in ("aff_gd", "aff_rd"))
    numbers = {row["structure"]: row for row in rows((folder / "table1.csv").read_text()) if row["method"] == "aff_gd"}
    for k, name in enumerate(("RV", "Myo", "LV")):
        assert float(numbers[name]["mean"]) == pytest.approx(gd[:, k].mean())
        p = stats.wilcoxon(gd[:, k], rd[:, k], alternative="greater").pvalue
        assert float(numbers[name]["p_over_aff_rd"]) == pytest.approx(p)
        assert numbers[name]["pairs_over_aff_rd"] == "32" and numbers[name]["patients_over_aff_rd"] == "8"
    assert float(numbers["mean"]["mean"]) == pytest.approx(gd.mean())


def test_the_files_lie_beside_the_results_without_disturbing_them(folder):
    before = results.load(folder)
    render.write(folder, PAPER)
    first = {path.name: path.read_bytes() for path in folder.glob("table1*")}
    assert sorted(first) == ["table1.csv", "table1.md", "table1.tex", "table1_dice.csv"]
    assert results.load(folder) == before
    render.write(folder, PAPER)
    assert {path.name: path.read_bytes() for path in folder.glob("table1*")} == first


def test_no_results_are_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no results; first run"):
        render.write(tmp_path, PAPER)


def test_the_csv_is_tidy():
    found = rows(render.csv(compute(grid({"aff_gd": 0.6, "aff_rd": 0.5}, seeds=(0,)))))
    assert len(found) == 13 * 4
    assert [row["structure"] for row in found[:4]] == ["RV", "Myo", "LV", "mean"]
    assert (found[0]["mean"], found[0]["runs"], found[0]["paper"]) == ("", "0", "")
    aff_gd = next(row for row in found if row["method"] == "aff_gd")
    assert (aff_gd["runs"], aff_gd["undefined"], aff_gd["pairs_over_aff_rd"]) == ("2", "0", "16")
    assert aff_gd["p_over_aff_ri"] == ""


def test_latex_has_as_many_cells_in_every_row():
    text = render.latex(compute(grid({"aff_gd": 0.6, "aff_rd": 0.5}) + grid({"aff": 0.6}, n=3), **ACDC))
    assert text.isascii()
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
    assert len(body) == 26 and {line.count(" & ") for line in body} == {10}
    assert r"Aug$_{\mathrm{A,GD}}$ ($\lambda_{\mathrm{adv}}$ = 1, $\lambda_{\mathrm{big}}$ = $10^{-3}$)" in text
    assert text.count("{") == text.count("}") and text.count("$") % 2 == 0


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles(tmp_path):
    (tmp_path / "table1.tex").write_text(render.latex(compute(grid({"aff_gd": 0.6, "aff_rd": 0.5}))))
    document = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{table1}\end{document}"
    (tmp_path / "document.tex").write_text(document)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "document.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    if "sty' not found" in done.stdout:
        pytest.skip("LaTeX lacks a package")
    assert done.returncode == 0, done.stdout


def test_what_is_tested_is_the_papers_and_the_whole_method_against_each_control():
    paper = [("aff_gd", "aff_rd"), ("aff_gd_noreg", "aff_rd"), ("aff_gi", "aff_ri"), ("aff_gi_noreg", "aff_ri")]
    whole = [("aff_gd_gi", reference) for reference in ("aff_mixup", "aff_rd", "aff_ri", "aff_rd_ri")]
    assert [*table.COMPARISONS] == [*paper, *whole, ("aff_strong_gd_gi", "aff_strong")]
    assert table.MARKS == {"aff_rd": "∗", "aff_ri": "†", "aff_mixup": "⋆", "aff_rd_ri": "‡", "aff_strong": "§"}
