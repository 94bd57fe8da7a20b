import dataclasses
import itertools

import nibabel as nib
import numpy as np
import pytest
from patients import anatomy, nifti_bytes, patients, sform, write_nifti, write_patient

from tfaug.data import cache, check, oddities
from tfaug.data.preprocess import Grid, Prepared, Spec
from tfaug.data.task import Task

HEART = Task({"RV": 1, "Myo": 2, "LV": 3})
NUMBERS = itertools.count()


def scan(label=None, task=HEART, **values):
    """A prepared scan with all structures, and an image that no other has."""
    label = anatomy()[1].transpose(2, 0, 1) if label is None else label
    name, image = f"case{next(NUMBERS)}", np.full((*label.shape, 1), next(NUMBERS), np.float32)
    grid = Grid((*label.shape[1:], len(label)), (1.0, 1.0, 8.0), label.shape[1], 1.0)
    return Prepared(name, image, label, grid, None, **{"cut": np.zeros(len(task.names)), **values})


def lines(found):
    return [str(oddity) for oddity in found]


def test_of_sound_scans_there_is_nothing_to_say():
    assert oddities.of_scans(HEART, [scan(), scan(), dataclasses.replace(scan(), label=None)]) == []


def write_axes(root, case, columns, axis=2, directions=(1, 1, 1)):
    """A patient whose header has these axes and directions of the body, and whose slices of 8 mm lie along `axis`."""
    folder = write_patient(root, case)
    image, label = (np.moveaxis(array, 2, axis) for array in anatomy(int(case[-1])))
    spacing = np.insert([1.5, 1.25], axis, 8.0)
    fields = {
        f"srow_{row}": (*(np.eye(3)[list(columns)].T * spacing * directions)[k], 0) for k, row in enumerate("xyz")
    }
    for name, array in (("frame12", image), ("frame12_gt", label)):
        write_nifti(folder / f"{case}_{name}.nii.gz", array, spacing, sform_code=1, **fields)


def test_d31_a_case_that_is_stored_or_cut_otherwise_than_the_others_is_named(tmp_path):
    for number in range(1, 4):
        write_axes(tmp_path / "data", f"patient00{number}", (0, 1, 2))
    write_axes(tmp_path / "data", "patient004", (2, 0, 1), axis=0)  # the same slices, stored first
    write_axes(tmp_path / "data", "patient005", (1, 0, 2))  # lies on its side
    names = [f"patient00{number}" for number in range(1, 6)]
    expected = [
        "patient004: is sliced across axis 0 of its file, most other cases across axis 2; data.slice_axis sets one for "
        "all",
        "patient005: its axes run to front, right, head by its header, those of most other cases to right, front, head",
    ]
    for _ in range(2):  # the cache tells the same
        requests = [cache.Request(case) for case in names]
        scans = cache.load(patients(tmp_path / "data"), requests, Spec(32, 1.5, 0), tmp_path / "cache", num_workers=1)
        assert [scan.order for scan in scans] == ["RAS"] * 4 + ["ARS"]
        assert lines(oddities.of_scans(HEART, scans)) == expected
    splits, spec = {"labelled": names}, Spec(32, 1.5, 0)
    table = check.table(check.examine(patients(tmp_path / "data"), splits, spec, tmp_path / "cache", num_workers=1))
    files = [tmp_path / "data" / name / f"{name}_frame12.nii.gz" for name in names]
    assert list(table.orientation) == ["".join(nib.aff2axcodes(nib.load(file).affine)) for file in files]


def test_d31_a_slice_that_is_mirrored_or_upside_down_is_turned_and_a_stack_from_the_head_down_is_not(tmp_path):
    for number, directions in enumerate([(1, 1, 1)] * 3 + [(-1, -1, 1), (-1, 1, 1), (1, 1, -1)], start=1):
        write_axes(tmp_path, f"patient00{number}", (0, 1, 2), directions=directions)
    scans = [patients(tmp_path).read(f"patient00{number}") for number in range(1, 7)]
    assert [scan.order for scan in scans] == ["RAS"] * 3 + ["LPS", "LAS", "RAI"]
    cohort = [oddities.Traits(scan.case, scan.axis, scan.order, scan.case) for scan in scans]
    problem = "{}: its axes run to {}, head by its header, those of most other cases to right, front, head"
    expected = [problem.format("patient004", "left, back"), problem.format("patient005", "left, front")]
    assert lines(oddities.of_cohort(cohort)) == expected


@pytest.mark.parametrize("fields", [{}, {"sform_code": 1, "srow_x": (1, 1, 0, 0), "srow_y": (-1, 1, 0, 0)}])
def test_d31_a_header_without_directions_or_an_oblique_one_is_no_reason_to_warn(tmp_path, fields):
    folder = write_patient(tmp_path, "patient001")
    fields = {**fields, "srow_z": (0, 0, 8, 0)} if fields else fields
    for name, array in zip(("frame12", "frame12_gt"), anatomy()):
        (folder / f"patient001_{name}.nii.gz").unlink()
        (folder / f"patient001_{name}.nii").write_bytes(nifti_bytes(array, **fields))
    assert patients(tmp_path).read("patient001").order == ""


@pytest.mark.parametrize("size", [64, 32, 16])
def test_d33_what_the_crop_cuts_off_is_told_by_structure(tmp_path, size):
    """At 1 mm per pixel, in a scan of 60 mm that is padded, cut and cut further."""
    folder = write_patient(tmp_path / "data", "patient001", shape=(60, 60, 3))
    label = np.zeros((60, 60, 3), np.uint8)
    label[7:26, 20:40], label[28:30, 20:40], label[31:41, 25:35] = 1, 2, 3
    write_nifti(folder / "patient001_frame12_gt.nii.gz", label, (1.0, 1.0, 8.0))
    image = np.random.default_rng(0).integers(0, 100, label.shape).astype(np.int16)
    write_nifti(folder / "patient001_frame12.nii.gz", image, (1.0, 1.0, 8.0))
    kept = slice((60 - size) // 2, (60 + size) // 2) if size < 60 else slice(None)
    names = dict(zip(HEART.names, (1, 2, 3)))
    lost = {name: 1 - (label[kept, kept] == value).sum() / (label == value).sum() for name, value in names.items()}
    expected = [f"{100 * value:.0f} % of {name}" for name, value in lost.items() if value]
    assert len(expected) == {64: 0, 32: 1, 16: 3}[size]
    for _ in range(2):  # the cache tells the same
        splits = {"labelled": ["patient001"]}
        findings = check.examine(patients(tmp_path / "data"), splits, Spec(size, 1.0, 0), tmp_path / "cache", 1)
        found = [str(warning) for warning in findings.warnings if warning.kind == oddities.CUT]
        if not expected:
            assert found == []
        else:
            (line,) = found
            assert line.startswith(f"patient001: the crop cuts off {' and '.join(expected)}; ")
            assert "data.image_size" in line and "data.resolution" in line


def heart(shift=0):
    """A ring of myocardium about the LV, and an RV that touches it."""
    z, x, y = np.indices((3, 40, 40))
    radius = np.hypot(x - 20 - shift, y - 22)
    label = np.zeros(radius.shape, np.uint8)
    label[np.hypot(x - 10, y - 22) < 8] = 1
    label[radius < 11] = 2
    label[radius < 7] = 3
    return label


@pytest.mark.parametrize(
    "values, expect",
    [
        ([0, 1, 2, 3], None),
        ([0, 3, 2, 1], "Myo encloses 100 % of RV, Myo only "),  # M&Ms: LV 1, Myo 2, RV 3
        ([0, 1, 3, 2], "LV encloses 100 % of Myo, Myo only "),
        ([0, 2, 1, 3], "RV encloses 100 % of LV, Myo only 0 % of LV"),
        ([0, 2, 3, 1], "LV encloses 100 % of RV, Myo only "),
        ([0, 1, 2, 2], None),  # another warning tells that there is no LV
        ([0, 1, 0, 3], None),
        ([0, 0, 0, 0], None),
    ],
)
def test_d34_values_that_are_mixed_up_show_in_what_encloses_what(values, expect):
    found = lines(oddities.of_scan(HEART, scan(np.array(values, np.uint8)[heart()])))
    found = [line for line in found if "enclose" in line]
    assert len(found) == (expect is not None)
    if expect:
        assert expect in found[0] and "data.structures" in found[0] and "docs/data.md" in found[0]


def test_d34_other_organs_may_lie_as_they_like_and_a_ring_with_a_gap_is_none():
    swapped = np.array([0, 3, 2, 1], np.uint8)[heart()]
    assert oddities.of_scan(Task({"a": 1, "b": 2, "c": 3}), scan(swapped)) == []
    upper_case = lines(oddities.of_scan(Task({"rv": 1, "MYO": 2, "lv": 3}), scan(swapped)))
    assert len(upper_case) == 1 and "MYO encloses" in upper_case[0]
    open_ring = heart()
    open_ring[:, 20:, :22][open_ring[:, 20:, :22] == 2] = 0
    assert oddities.of_scan(HEART, scan(open_ring)) == []


def test_d35_one_scan_under_two_names_is_named_however_it_was_saved(tmp_path):
    for case, seed in (("patient001", 1), ("patient002", 2), ("copy", 1)):
        write_patient(tmp_path / "data", case, seed)
    path = tmp_path / "data/copy/copy_frame12.nii.gz"
    path.unlink()
    write_nifti(path.with_suffix(""), anatomy(1)[0].astype(np.float32))  # not packed, and of another type
    (tmp_path / "data/copy/copy_frame12_gt.nii.gz").unlink()
    arguments = (Spec(32, 1.5, 0), tmp_path / "cache", 1)
    splits = {"test": ["patient001", "patient002"], "unlabelled": ["copy"]}
    findings = check.examine(patients(tmp_path / "data"), splits, *arguments)
    expected = "patient001 and copy are the same image; scores mean nothing if it is in two splits"
    assert lines(findings.warnings) == [expected]
    assert findings.problems() == {"patient001": [expected], "copy": [expected]}


@pytest.mark.parametrize("num_workers", [1, 2])
def test_d37_a_header_that_contradicts_itself_is_named_whoever_reads_it_and_whether_it_is_cached(
    tmp_path, num_workers, caplog
):
    names = ["patient001", "patient002", "patient003"]
    for seed, case in enumerate(names):
        folder, (image, label) = write_patient(tmp_path / "data", case, seed), anatomy(seed)
        known = {} if case == "patient002" else sform((1.5, 1.25, 8))
        for name, array in (("frame12", image), ("frame12_gt", label)):
            write_nifti(folder / f"{case}_{name}.nii.gz", array, (1, 1, 1), **known)
    expected = [
        f"{case}: voxels are 1 x 1 x 1 mm by pixdim (used), 1.5 x 1.25 x 8 mm by the sform of {case}_frame12.nii.gz"
        for case in ("patient001", "patient003")
    ]
    requests = [cache.Request(case, label=case != "patient003") for case in names]  # nor does it need a label
    splits = {"labelled": names[:2], "unlabelled": names[2:]}
    dataset, spec = patients(tmp_path / "data"), Spec(32, 1.0, 0)
    for _ in range(2):
        scans = cache.load(dataset, requests, spec, tmp_path / "cache", num_workers)
        assert [record.message for record in caplog.records] == lines(oddities.of_scans(HEART, scans)) == expected
        caplog.clear()
        found = check.examine(dataset, splits, spec, tmp_path / "another cache", num_workers)
        assert lines(found.warnings) == expected
        assert {oddity.kind for oddity in found.warnings} == {oddities.VOXEL_SIZE} and not caplog.records


def test_d37_the_header_of_a_label_counts_too(tmp_path):
    path = write_patient(tmp_path / "data") / "patient001_frame12.nii.gz"
    write_nifti(path, anatomy()[0], (1, 1, 1))
    write_nifti(path.with_name("patient001_frame12_gt.nii.gz"), anatomy()[1], (1, 1, 1), **sform((1.5, 1.25, 8)))
    (scan,) = cache.load(
        patients(tmp_path / "data"), [cache.Request("patient001")], Spec(32, 1.0, 0), tmp_path / "cache"
    )
    (line,) = lines(oddities.of_scan(HEART, scan))
    assert line.endswith("1.5 x 1.25 x 8 mm by the sform of patient001_frame12_gt.nii.gz")
