import numpy as np
import pytest

from tfaug.augment.methods import PAPER
from tfaug.configs import acdc, splits
from tfaug.table1 import paper


def test_the_rows_are_the_methods_in_the_papers_order():
    assert list(paper.ROWS) == list(PAPER) == list(acdc.METHODS)
    assert paper.ROWS["aff_gd_noreg"].name == "Aug_{A,GD} (λ_{adv} = 0, λ_{big} = 0)"


def test_the_columns_add_up_as_those_of_the_printed_table():
    sums = {
        n: [sum(row.dice[n][name] for row in paper.ROWS.values()) for name in paper.STRUCTURES] for n in paper.COUNTS
    }
    np.testing.assert_allclose(sums[1], [6.093, 7.120, 9.291])
    np.testing.assert_allclose(sums[3], [9.846, 9.914, 11.630])


@pytest.mark.parametrize(
    "better, worse",
    [
        ("aff", "none"),
        ("aff_rd", "aff"),
        ("aff_ri", "aff"),
        ("aff_gd", "aff_rd"),
        ("aff_gi", "aff_ri"),
        ("aff_gd_gi", "aff_gd"),
        ("aff_gd_gi", "aff_gi"),
        ("aff_mixup", "aff_rd"),
        ("aff_gd_gi_mixup", "aff_gd_gi"),
        ("adv_ssl", "none"),
    ],
)
def test_the_numbers_say_what_section_5_says(better, worse):
    for n in paper.COUNTS:
        assert paper.ROWS[better].mean(n) > paper.ROWS[worse].mean(n)
        assert all(paper.ROWS[better].dice[n][name] > paper.ROWS[worse].dice[n][name] for name in paper.STRUCTURES)


def test_marks_are_on_the_compared_methods_and_no_others():
    for method, row in paper.ROWS.items():
        marks = {mark for n in paper.COUNTS for mark in row.marks[n].values()} - {""}
        assert marks == {paper.MARKS[reference] for name, reference in paper.COMPARISONS if name == method}
    assert sum(mark != "" for row in paper.ROWS.values() for n in paper.COUNTS for mark in row.marks[n].values()) == 26
    assert paper.ROWS["aff_gi"].marks[3] == {"RV": "†", "Myo": "†", "LV": ""}
    below = paper.ROWS["aff_gi_noreg"], paper.ROWS["aff_ri"]
    assert below[0].marks[3]["Myo"] and below[0].dice[3]["Myo"] < below[1].dice[3]["Myo"]  # as the docstring says


def test_the_test_patients_are_those_of_the_splits():
    assert paper.TEST_PATIENTS == set(splits.get_splits().test)
