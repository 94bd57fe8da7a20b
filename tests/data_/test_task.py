import numpy as np
import pytest

from tfaug.data.task import Task
from tfaug.engine.errors import UserError

TASK = Task({"left": 85, "right": 255, "middle": 170})
VALUES = np.array([[0, 85, 170], [255, 255, 0]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_values_become_classes_in_their_own_order_and_back(dtype, order):
    classes = TASK.to_classes(VALUES.astype(dtype, order=order), "label.nii")
    np.testing.assert_array_equal(classes, [[0, 1, 2], [3, 3, 0]])
    assert classes.dtype == np.uint8
    np.testing.assert_array_equal(TASK.to_values(classes), VALUES)


@pytest.mark.parametrize(
    ("value", "expect"), [(7, "the label 7 in 2 voxels"), (-1, "the label -1 in"), (85.5, "the label 85.5 in")]
)
def test_a_value_that_is_no_structure_is_named_and_counted(value, expect):
    values = VALUES.astype(np.float64)
    values[:, 0] = value
    with pytest.raises(UserError, match=f"label.nii: holds {expect}.*0 background, 85 left, 170 middle, 255 right"):
        TASK.to_classes(values, "label.nii")


@pytest.mark.parametrize("name", ["left\nright", "\x1b[31mred", "a\tb", "\u2028"])
def test_s9_a_name_that_would_break_tables_or_reach_the_terminal_is_refused(name):
    with pytest.raises(UserError, match="data.structures: cannot name a structure .*; choose another name") as caught:
        Task({"right": 1, name: 2})
    assert str(caught.value).isprintable()
    with pytest.raises(UserError, match="channels: one has the name .*; choose another name"):
        Task({"right": 1}, ("T1", name))


@pytest.mark.parametrize("name", ["left ventricle", "Höhle", "左心室", "a,b", "$x$"])
def test_any_other_name_is_a_structure(name):
    assert Task({name: 1}, (name,)).names == (name,)
