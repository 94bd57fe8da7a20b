import nibabel as nib
import numpy as np
import pytest
from patients import anatomy, patients, write_nifti, write_patient

from tfaug.data import cache, check, preprocess
from tfaug.data.preprocess import Spec
from tfaug.engine.errors import UserError

LABELLED, UNLABELLED = ("patient001", "patient002"), ("patient003",)


@pytest.fixture
def root(tmp_path):
    for seed, case in enumerate((*LABELLED, *UNLABELLED)):
        write_patient(tmp_path / "acdc", case, seed)
    return tmp_path / "acdc"


def examine(root, labelled, unlabelled, **options):
    """In this process, which is quicker."""
    spec = Spec(image_size=32, resolution=1.5, n4_shrink=0)
    splits = {"labelled": labelled, "unlabelled": unlabelled}
    return check.examine(patients(root, **options), splits, spec, root.parent / "cache", num_workers=1)


def cut_off(root, name):
    path = root / name
    path.write_bytes(path.read_bytes()[:-9])


def test_a_sound_data_set_is_one_line_with_its_counts(root):
    findings = examine(root, LABELLED, UNLABELLED)
    assert check.report(findings) == f"{root}: 3 cases (2 labelled) are fine"
    check.refuse(findings)


def test_all_errors_of_all_cases_are_reported_at_once(root):
    cut_off(root, "patient001/patient001_frame12.nii.gz")
    (root / "patient002/patient002_frame12_gt.nii.gz").unlink()
    (root / "patient003/Info.cfg").unlink()
    findings = examine(root, LABELLED, UNLABELLED)
    text = check.report(findings)
    assert [line.split()[:2] for line in text.splitlines() if line.startswith("  ")] == [
        ["patient001", "patient001/patient001_frame12.nii.gz"],
        ["patient002", "patient002/patient002_frame12_gt.nii.gz"],
        ["patient003", "patient003/Info.cfg"],
    ]
    assert "cut off" in text and "is missing" in text and "error, 1 case: write one with" in text
    with pytest.raises(UserError, match="cut off.* and there are 2 more problems; .*all are listed above"):
        check.refuse(findings)


def test_a_single_error_stays_as_it_is(root):
    cut_off(root, "patient001/patient001_frame12.nii.gz")
    with pytest.raises(UserError) as caught:
        check.refuse(examine(root, LABELLED, UNLABELLED))
    assert "more problems" not in str(caught.value) and "--check" not in str(caught.value)


def test_only_what_will_be_read_is_looked_at(root):
    """The other phase, the labels of unlabelled cases, and cases of no split may be as bad as they like."""
    cut_off(root, "patient001/patient001_frame01.nii.gz")
    cut_off(root, "patient003/patient003_frame12_gt.nii.gz")
    cut_off(root, "patient002/patient002_frame12.nii.gz")
    assert not examine(root, LABELLED[:1], UNLABELLED).errors
    assert examine(root, LABELLED[:1], UNLABELLED, phase="ED").errors


def test_d23_a_label_that_lacks_a_class_is_a_warning_beside_the_good_news(root):
    image, label = anatomy()
    write_nifti(root / "patient001/patient001_frame12_gt.nii.gz", label.clip(max=2))
    for _ in range(2):  # a cached label is no better
        findings = examine(root, LABELLED, ())
        check.refuse(findings)
        assert check.report(findings).splitlines() == [
            f"{root}: 2 cases (2 labelled) can be used",
            "warning, 1 case: a structure is not in the prepared label",
            "  patient001: no pixel of its prepared label is LV",
        ]


def test_what_was_examined_is_in_the_cache(root, monkeypatch):
    examine(root, LABELLED, UNLABELLED)
    monkeypatch.setattr(cache, "_make", None)
    assert not examine(root, LABELLED, UNLABELLED).errors


def test_a_missing_root_is_one_error_not_one_for_each_case(tmp_path):
    ((_, error),) = examine(tmp_path / "nowhere", LABELLED, UNLABELLED).errors
    assert error.subject == str(tmp_path / "nowhere")


def test_s9_every_row_stays_one_printable_line(root):
    case = "a\nb\x1b[31m"
    write_patient(root, case)
    cut_off(root, f"{case}/{case}_frame12.nii.gz")
    _, row = check.report(examine(root, [case], ())).split("\n")
    assert row.isprintable() and row.startswith(r"  a\nb\x1b[31m  ")


def test_d27_after_an_error_the_others_are_prepared_all_the_same(root, monkeypatch):
    """What only preparing finds is listed with what reading finds, and so are warnings."""
    (root / "patient003/Info.cfg").unlink()
    write_nifti(root / "patient001/patient001_frame12_gt.nii.gz", anatomy()[1].clip(max=2))

    def fail(volume, spec, prepare=preprocess.prepare_volume):
        if volume.case == "patient002":
            raise UserError(volume.case, "N4 fails", "take it out")
        return prepare(volume, spec)

    monkeypatch.setattr(preprocess, "prepare_volume", fail)
    findings = examine(root, LABELLED, UNLABELLED)
    assert [case for case, _ in findings.errors] == ["patient002", "patient003"]
    assert list(map(str, findings.warnings)) == ["patient001: no pixel of its prepared label is LV"]


def test_problems_of_a_kind_stand_together_with_the_number_of_cases(root):
    for case in ("patient001", "patient003"):
        cut_off(root, f"{case}/{case}_frame12.nii.gz")
    head, first, second = check.report(examine(root, LABELLED, UNLABELLED)).splitlines()
    assert head == "error, 2 cases: replace it by an intact copy"
    assert first.split()[0] == "patient001" and second.split()[0] == "patient003"


def test_many_warnings_of_a_kind_are_shortened(root):
    image, label = anatomy()
    for case in LABELLED:
        write_nifti(root / case / f"{case}_frame12_gt.nii.gz", label.clip(max=2))
    text = check.report(examine(root, LABELLED, ()), most=1)
    assert text.splitlines()[1:] == [
        "warning, 2 cases: a structure is not in the prepared label",
        "  patient001: no pixel of its prepared label is LV",
        "  ... and 1 more",
    ]


def test_the_table_has_what_is_known_of_each_case(root):
    """As a reader of the files finds it, also when the case was in the cache."""
    cut_off(root, "patient002/patient002_frame12.nii.gz")
    image, label = (nib.load(root / f"patient001/patient001_frame12{end}.nii.gz") for end in ("", "_gt"))
    voxels, classes = image.get_fdata(), label.get_fdata()
    for _ in range(2):
        table = check.table(examine(root, LABELLED, UNLABELLED)).set_index("case")
        first = table.loc["patient001"]
        assert list(table.split) == ["labelled", "labelled", "unlabelled"]
        assert first["shape"] == " x ".join(map(str, image.shape)) and first.slices == image.shape[2]
        assert first.spacing_mm == " x ".join(f"{mm:.4g}" for mm in image.header.get_zooms())
        np.testing.assert_allclose([first.p2, first.p50, first.p98], np.percentile(voxels, (2, 50, 98)), rtol=1e-5)
        assert [first[f"voxels_{name}"] for name in ("RV", "Myo", "LV")] == [(classes == k).sum() for k in (1, 2, 3)]
        assert (first.cut_RV, first.problems) == (0, "") and len(first.digest) == 64
        assert "cut off" in table.problems["patient002"] and np.isnan(table.p2["patient002"])
        assert np.isnan(table.voxels_LV["patient003"]) and table.p50["patient003"] > 0


def test_each_case_is_shown_as_the_networks_will_see_it(root):
    findings = examine(root, LABELLED[:1], UNLABELLED)
    (scan,) = cache.load(patients(root), [cache.Request(LABELLED[0])], Spec(32, 1.5, 0), root.parent / "cache")
    shown, unlabelled = findings.views["patient001"], findings.views["patient003"]
    labelled = np.flatnonzero(scan.label.any(axis=(1, 2)))
    np.testing.assert_array_equal(shown.image, scan.image[labelled[len(labelled) // 2], ..., 0])
    np.testing.assert_array_equal(shown.label, scan.label[labelled[len(labelled) // 2]])
    assert shown.label.any() and not unlabelled.label.any()
