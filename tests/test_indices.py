"""Volumes and clinical indices: of shapes of known volume, by hand, and against the masks' own voxel sums."""

import math

import numpy as np
import pandas as pd
import pytest

from tfaug import indices
from tfaug.types import Hearts

SPACING = (1.25, 1.5, 8.0)
CLASSES = {"RV": 1, "Myo": 2, "LV": 3}
HEARTS = Hearts("LV", "RV", "Myo", {"p": ("p-dia", "p-sys")})


def heart(cavity_mm, wall_mm, right_mm, spacing=(1.0, 1.0, 1.0)):
    """Balls of the given outer radii: an LV inside its wall, and an RV beside it."""
    x, y, z = (mm * (np.arange(int(n / mm)) + 0.5) for n, mm in zip((130, 80, 80), spacing))
    grid = np.meshgrid(x, y, z, indexing="ij")
    left, right = (np.linalg.norm([axis - c for axis, c in zip(grid, at)], axis=0) for at in ((40,) * 3, (100, 40, 40)))
    label = np.zeros(left.shape, np.uint8)
    label[right < right_mm] = 1
    label[left < wall_mm] = 2
    label[left < cavity_mm] = 3
    return label


def ball_ml(radius_mm):
    return 4 / 3 * math.pi * radius_mm**3 / 1000


def values(table, source="predicted"):
    return table.set_index("name")[source]


def rows(case, predicted, reference):
    """Volumes in ml of the structures of a case."""
    pairs = {name: (predicted[name], reference[name]) for name in predicted}
    return [dict(case=case, structure=name, predicted=p, reference=r) for name, (p, r) in pairs.items()]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.25, 1.5, 8.0), (8.0, 1.25, 1.5)])
def test_the_volume_of_a_ball_and_of_a_box_whatever_the_spacing(spacing):
    label = heart(20, 30, 25, spacing)
    for structure, expected in ((3, ball_ml(20)), (2, ball_ml(30) - ball_ml(20)), (1, ball_ml(25))):
        assert indices.volume_ml(label, structure, spacing) == pytest.approx(expected, rel=0.04)
    box = np.zeros((9, 8, 7), np.uint8)
    box[1:5, 2:7, 3:6] = 2
    assert indices.volume_ml(box, 2, SPACING) == pytest.approx((4 * 1.25) * (5 * 1.5) * (3 * 8.0) / 1000)
    assert indices.volume_ml(box, 1, SPACING) == 0


def test_a_volume_is_the_sum_of_areas_times_the_distance_of_slices():
    label = heart(20, 30, 25, SPACING)
    areas = (label == 2).sum(axis=(0, 1)) * 1.25 * 1.5
    (row,) = [row for row in indices.volumes("a", label, 0 * label, CLASSES, SPACING) if row["structure"] == "Myo"]
    assert row == {"case": "a", "structure": "Myo", "predicted": pytest.approx(areas.sum() * 8 / 1000), "reference": 0}


def test_the_indices_of_a_heart_of_known_volumes():
    ed, es = heart(20, 30, 25), heart(15, 28, 20)
    found = [
        *indices.volumes("p-dia", ed, es, CLASSES, (1, 1, 1)),
        *indices.volumes("p-sys", es, ed, CLASSES, (1, 1, 1)),
    ]
    table = indices.compute(found, HEARTS)
    assert list(table) == ["patient", "name", "structure", "unit", "predicted", "reference"]
    expected = {
        "LV_EDV": ball_ml(20),
        "LV_ESV": ball_ml(15),
        "LV_SV": ball_ml(20) - ball_ml(15),
        "LV_EF": 100 * (1 - (15 / 20) ** 3),
        "RV_EDV": ball_ml(25),
        "RV_ESV": ball_ml(20),
        "RV_SV": ball_ml(25) - ball_ml(20),
        "RV_EF": 100 * (1 - (20 / 25) ** 3),
        "Myo_mass_ED": 1.05 * (ball_ml(30) - ball_ml(20)),
    }
    assert values(table).to_dict() == pytest.approx(expected, rel=0.02)
    assert dict(zip(table.name, table.unit))["LV_EF"] == "percent" and set(table.unit) == {"ml", "percent", "g"}
    other = values(table, "reference")  # of the two phases exchanged
    assert other["LV_SV"] == -values(table)["LV_SV"] and other["LV_ESV"] == values(table)["LV_EDV"]
    assert other["Myo_mass_ED"] == pytest.approx(1.05 * (ball_ml(28) - ball_ml(15)), rel=0.02)


def test_indices_are_those_of_the_masks_own_voxel_sums():
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 4, (4, 12, 10, 6)).astype(np.uint8)
    found = [
        *indices.volumes("p-sys", masks[0], masks[1], CLASSES, SPACING),
        *indices.volumes("p-dia", masks[2], masks[3], CLASSES, SPACING),
    ]
    table = indices.compute(found, HEARTS)
    for source, es, ed in (("predicted", masks[0], masks[2]), ("reference", masks[1], masks[3])):
        edv, esv = ((mask == 1).sum() for mask in (ed, es))
        index = values(table, source)
        assert index["RV_EDV"] == pytest.approx(edv * 15.0 / 1000)  # 1.25 x 1.5 x 8 mm are 15 cubic mm
        assert index["RV_EF"] == pytest.approx(100 * (edv - esv) / edv)
        assert index["Myo_mass_ED"] == pytest.approx((ed == 2).sum() * 15.0 / 1000 * 1.05)


def test_what_cannot_be_computed_is_left_out_and_an_empty_mask_is_a_volume_of_0():
    ml = {"LV": 100.0, "RV": 80.0, "Myo": 60.0}
    hearts = HEARTS._replace(patients={"whole": ("a", "b"), "no ES": ("c", "d"), "empty": ("e", "f")})
    found = [
        *rows("a", ml, ml),
        *rows("b", {**ml, "LV": 40.0}, ml),
        *rows("c", ml, ml),
        *rows("e", {**ml, "LV": 0.0}, ml),
        *rows("f", {**ml, "LV": 0.0}, ml),
    ]
    table = indices.compute(found, hearts)
    by_name = {name: group.set_index("patient").predicted for name, group in table.groupby("name")}
    assert by_name["LV_EDV"].to_dict() == {"whole": 100, "no ES": 100, "empty": 0}
    assert by_name["LV_ESV"].isna().to_dict() == {"whole": False, "no ES": True, "empty": False}
    assert by_name["LV_EF"].isna().to_dict() == {"whole": False, "no ES": True, "empty": True}
    assert by_name["Myo_mass_ED"].to_dict() == pytest.approx(dict.fromkeys(hearts.patients, 63.0))


def test_a_task_that_is_no_heart_has_the_volume_of_each_structure():
    found = [*rows("a", {"liver": 1500.0, "tumour no. 1": 2.0}, {"liver": 1400.0, "tumour no. 1": 3.0})]
    for hearts in (None, HEARTS):  # structures of the user's own in the layout of a heart
        table = indices.compute(found, hearts)
        assert values(table).to_dict() == {"liver_volume": 1500, "tumour no. 1_volume": 2}
        assert list(table)[0] == "case" and set(table.unit) == {"ml"}


def test_a_structure_that_the_task_lacks_has_no_index():
    found = [*rows("p-dia", {"LV": 100.0, "scar": 1.0}, {"LV": 90.0, "scar": 1.0})]
    assert list(indices.compute(found, HEARTS).name) == ["LV_EDV", "LV_ESV", "LV_SV", "LV_EF"]


def test_wide_has_a_row_a_case_and_units_in_the_names_of_columns():
    found = [
        *rows("b", {"x": 1.0, "y": 2.0}, {"x": 3.0, "y": 4.0}),
        *rows("a", {"x": 5.0, "y": 6.0}, {"x": 7.0, "y": 8.0}),
    ]
    expected = {
        "case": ["b", "a"],
        "x_volume_predicted_ml": [1.0, 5.0],
        "x_volume_reference_ml": [3.0, 7.0],
        "y_volume_predicted_ml": [2.0, 6.0],
        "y_volume_reference_ml": [4.0, 8.0],
    }
    pd.testing.assert_frame_equal(indices.wide(indices.compute(found)), pd.DataFrame(expected))


def test_agreement_by_hand():
    """Differences 1, -1, 3: bias 1, sample standard deviation 2."""
    found = indices.agreement([11, 19, 33, np.nan, 5], [10, 20, 30, 1, np.nan])
    assert found[:3] == pytest.approx((3, 1.0, 1.96 * 2))
    x, y = np.array([11, 19, 33]) - 21, np.array([10, 20, 30]) - 20
    assert found.correlation == pytest.approx((x * y).sum() / math.sqrt((x**2).sum() * (y**2).sum()))
    assert indices.agreement([10, 20, 30], [11, 19, 33]).bias == pytest.approx(-1.0)


def test_agreement_that_is_not_defined_is_nan():
    assert [math.isnan(value) for value in indices.agreement([], [])[1:]] == [True] * 3
    one = indices.agreement([3], [1])
    assert (one.number, one.bias, math.isnan(one.limits)) == (1, 2, True)
    two = indices.agreement([3, 4], [1, 2])
    assert (two.limits, math.isnan(two.correlation)) == (0, True)  # any two points lie on a line
    assert math.isnan(indices.agreement([0, 0, 0], [1, 2, 3]).correlation)
