from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
from patients import write_nifti

from tfaug.data.dataset import DataSet, sliced_axis
from tfaug.data.preprocess import to_file_order
from tfaug.data.readers.base import Files, Listing, Reader
from tfaug.data.task import Task

SHAPE = (12, 14, 16)
IMAGE = np.random.default_rng(0).integers(0, 500, (*SHAPE, 2)).astype(np.int16)
LABEL = np.random.default_rng(1).choice(np.array([0, 85, 170], np.uint8), SHAPE)
TASK = Task({"a": 170, "b": 85}, ("T1", "T2"))
CLASSES = np.select([LABEL == 85, LABEL == 170], [1, 2])  # in the order of the values


class Flat(Reader):
    """ROOT/CASE_0.nii, ROOT/CASE_1.nii, ROOT/CASE_label.nii; a patient's name is the first letter of the case's."""

    def task(self):
        return TASK

    def cases(self):
        return Listing(("A1",), ())

    def locate(self, case, label=True):
        images = tuple(self.root / f"{case}_{channel}.nii" for channel in range(2))
        return Files(images, self.root / f"{case}_label.nii" if label else None)

    def patient(self, case):
        return case[0]


def write(root, spacing):
    for channel in range(2):
        write_nifti(root / f"A1_{channel}.nii", IMAGE[..., channel], spacing)
    write_nifti(root / "A1_label.nii", LABEL, spacing)
    return Flat(root, {})


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_d30_a_scan_is_sliced_along_its_thick_axis(tmp_path, axis):
    spacing = [1.5, 1.25, 1.0]
    spacing[axis] = 8.0
    volume = DataSet(write(tmp_path, spacing), TASK).read("A1")
    assert volume.axis == axis
    assert volume.spacing[2] == 8.0 and sorted(volume.spacing) == sorted(spacing)
    assert volume.image.shape == tuple(n for k, n in enumerate(SHAPE) if k != axis) + (SHAPE[axis], 2)
    np.testing.assert_array_equal(to_file_order(volume.image, axis), IMAGE)
    np.testing.assert_array_equal(to_file_order(volume.label, axis), CLASSES)
    assert (volume.image.dtype, volume.label.dtype) == (np.float32, np.uint8)
    assert volume.path == tmp_path / "A1_0.nii"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_axis_may_be_given(tmp_path, axis):
    volume = DataSet(write(tmp_path, (1.0, 1.0, 8.0)), TASK, slice_axis=axis).read("A1")
    assert (volume.axis, volume.image.shape[2]) == (axis, SHAPE[axis])
    assert volume.spacing.index(8.0) == {0: 1, 1: 1, 2: 2}[axis]


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [
        ((1, 1, 1), 2),
        ((2, 2, 1), 1),
        ((2, 1, 2), 2),
        ((1.0, 1.0000001, 0.9999999), 2),
        ((1.0, 1.02, 1.0), 1),
        ((8, 1.5, 1.5), 0),
    ],
)
def test_equal_spacings_are_sliced_along_the_last_axis(spacing, axis):
    assert sliced_axis((40, 30, 20, 1), spacing) == axis


@pytest.mark.parametrize(
    ("shape", "axis"), [((64, 64, 1, 1), 2), ((1, 64, 64, 2), 0), ((64, 1, 64), 1), ((64, 1, 1), 2)]
)
def test_d38_a_single_slice_is_sliced_across_its_axis_however_thin_it_is(shape, axis):
    for spacing in ((1.5, 1.5, 1.0), (1.0, 1.5, 1.5), (1.0, 1.0, 1.0), (1.0, 1.0, 8.0)):
        assert sliced_axis(shape, spacing) == axis


def test_unlabelled_use_does_not_look_for_a_label(tmp_path):
    dataset = DataSet(write(tmp_path, (1.0, 1.0, 8.0)), TASK)
    (tmp_path / "A1_label.nii").unlink()
    assert dataset.read("A1", label=False).label is None


def test_files_that_were_read_before_are_not_opened_again(tmp_path):
    dataset = DataSet(write(tmp_path, (1.0, 1.0, 8.0)), TASK)
    files = dataset.locate("A1")
    contents = {path: path.read_bytes() for path in (*files.images, files.label)}
    for path in contents:
        path.unlink()
    np.testing.assert_array_equal(dataset.decode("A1", files, contents).image, IMAGE)


def test_it_travels_to_other_processes_and_knows_patients(tmp_path):
    dataset = ForkingPickler.loads(ForkingPickler.dumps(DataSet(write(tmp_path, (1.0, 1.0, 8.0)), TASK)))
    np.testing.assert_array_equal(dataset.read("A1").label, CLASSES)
    assert (dataset.root, dataset.cases().labelled, dataset.patient("A1")) == (tmp_path, ("A1",), "A")
