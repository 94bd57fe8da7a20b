import re

import numpy as np
import pytest
from patients import anatomy, write_nifti, write_patient

from tfaug.data.readers import acdc
from tfaug.engine.errors import UserError

IMAGE, LABEL = anatomy()
CASE = "patient001"
ES_IMAGE, ES_LABEL = f"{CASE}_frame12.nii.gz", f"{CASE}_frame12_gt.nii.gz"


def test_es_is_the_default_and_ed_a_choice(tmp_path):
    write_patient(tmp_path)
    es, ed = acdc.read(tmp_path, CASE), acdc.read(tmp_path, CASE, phase="ED")
    np.testing.assert_array_equal(es.image, IMAGE)
    np.testing.assert_array_equal(ed.image, IMAGE - 7)
    np.testing.assert_array_equal(es.label, LABEL)
    assert (es.case, es.spacing) == (CASE, (1.5, 1.25, 8.0))
    assert (es.image.dtype, es.label.dtype) == (np.float32, np.uint8)
    assert (es.path.name, ed.path.name) == (ES_IMAGE, f"{CASE}_frame01.nii.gz")


def test_the_frame_comes_from_info_cfg_not_from_the_order_of_files(tmp_path):
    folder = write_patient(tmp_path)
    (folder / "Info.cfg").write_text("ED: 12\nES: 1\n")
    np.testing.assert_array_equal(acdc.read(tmp_path, CASE).image, IMAGE - 7)


@pytest.mark.parametrize("subfolder", ["training", "testing", "database/training", "database/testing"])
def test_root_may_be_what_the_official_archive_unpacks_to(tmp_path, subfolder):
    write_patient(tmp_path / subfolder)
    assert acdc.read(tmp_path, CASE).path.parent == tmp_path / subfolder / CASE


def test_ignored_labels_are_never_opened(tmp_path):
    folder = write_patient(tmp_path)
    (folder / ES_LABEL).write_bytes(b"no NIfTI")
    assert acdc.read(tmp_path, CASE, label="ignored").label is None
    (folder / ES_LABEL).unlink()
    assert acdc.read(tmp_path, CASE, label="ignored").label is None


@pytest.mark.parametrize("case", ["John's scan 7", "; rm -rf $HOME #", "a\nb", "patient001_frame01"], ids=repr)
def test_any_folder_name_is_a_case(tmp_path, case):
    """S8 too: a name is never given to a shell."""
    write_patient(tmp_path, case)
    assert acdc.read(tmp_path, case).case == case


def test_plain_nii_and_the_files_that_come_along_are_fine(tmp_path):
    folder = write_patient(tmp_path)
    (folder / ES_IMAGE).unlink()
    write_nifti(folder / f"{CASE}_frame12.nii", IMAGE + 1)
    (folder / f"{CASE}_4d.nii.gz").write_bytes(b"")
    (folder / f"._{CASE}_frame12.nii.gz").write_bytes(b"left by macOS")
    (folder / "MANDATORY_CITATION.md").write_text("")
    np.testing.assert_array_equal(acdc.read(tmp_path, CASE).image, IMAGE + 1)


def label_with(value):
    label = LABEL.astype(np.float64)
    label[4, 4, 1] = value
    return label


def info(text):
    return lambda folder: (folder / "Info.cfg").write_text(text)


def image(array, **fields):
    return lambda folder: write_nifti(folder / ES_IMAGE, array, **fields)


def label(array, **fields):
    return lambda folder: write_nifti(folder / ES_LABEL, array, **fields)


def extra(name):
    return lambda folder: write_nifti(folder / name, IMAGE)


def without(name):
    return lambda folder: (folder / name).unlink()


def dangling(name):
    def inject(folder):
        (folder / name).unlink()
        (folder / name).symlink_to(folder / "nowhere")

    return inject


FAULTS = [
    ("D15 shape", label(LABEL[:-1]), ES_LABEL, r"shape \(19, 23, 3\), its image \(20, 23, 3\)"),
    ("D15 spacing", label(LABEL, spacing=(1.5, 1.3, 8)), ES_LABEL, "voxel size"),
    ("D20", image(np.stack([IMAGE, IMAGE], -1)), ES_IMAGE, "4 dimensions"),
    ("D22 four", label(label_with(4)), ES_LABEL, "holds the label 4"),
    ("D22 negative", label(label_with(-1)), ES_LABEL, "holds the label -1"),
    ("D22 fractional", label(label_with(1.5)), ES_LABEL, "holds the label 1.5"),
    ("D22 barely", label(label_with(1 + 1e-9)), ES_LABEL, "holds the label 1.000000001"),
    ("D22 scaled", label(LABEL, scl_slope=0.5), ES_LABEL, "holds the label 0.5"),
    ("D24 no label", without(ES_LABEL), ES_LABEL, "is missing .*label of ES"),
    ("D24 no image", without(ES_IMAGE), ES_IMAGE, "is missing .*image of ES"),
    ("D24 twice", extra(f"{CASE}_frame12.nii"), CASE, "more than one image of ES .*nii, .*nii.gz"),
    ("D24 two spellings", extra(f"{CASE}_frame012.nii.gz"), CASE, "more than one image"),
    ("D24 label twice", extra(f"{CASE}_frame12_gt.nii"), CASE, "more than one label of ES"),
    ("D24 extra frame", extra(f"{CASE}_frame07.nii.gz"), f"{CASE}_frame07.nii.gz", "not a frame"),
    ("D24 extra label", extra(f"{CASE}_frame07_gt.nii.gz"), f"{CASE}_frame07_gt.nii.gz", "not a frame"),
    ("D24 of another", extra("patient002_frame12.nii.gz"), "patient002_frame12.nii.gz", "not a frame"),
    ("D26 dangling", dangling(ES_IMAGE), ES_IMAGE, "leads nowhere"),
    ("D26 dangling label", dangling(ES_LABEL), ES_LABEL, "leads nowhere"),
    ("Info.cfg missing", without("Info.cfg"), "Info.cfg", "is missing"),
    ("Info.cfg empty", info(""), "Info.cfg", "no line `ES:"),
    ("Info.cfg lacks ES", info("ED: 1\n"), "Info.cfg", "no line `ES:"),
    ("Info.cfg twice", info("ED: 1\nES: 1\nES: 12\n"), "Info.cfg", "more than one frame of ES"),
    ("Info.cfg word", info("ED: 1\nES: twelve\n"), "Info.cfg", "'twelve' as the frame of ES"),
    ("Info.cfg path", info("ED: 1\nES: ../../x\n"), "Info.cfg", "as the frame of ES"),
    (
        "Info.cfg binary",
        lambda folder: (folder / "Info.cfg").write_bytes(bytes(range(256))),
        "Info.cfg",
        "no line `ES:",
    ),
]


@pytest.mark.parametrize(("inject", "subject", "expect"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_faulty_case_is_one_line_that_names_the_file(tmp_path, inject, subject, expect):
    folder = write_patient(tmp_path)
    inject(folder)
    with pytest.raises(UserError, match=expect) as caught:
        acdc.read(tmp_path, CASE)
    assert caught.value.subject.endswith(subject)
    assert "\n" not in str(caught.value)
    errors, _ = acdc.check(tmp_path, CASE)
    assert [str(error) for error in errors] == [str(caught.value)]


UNIT = {"sform_code": 1, "srow_x": [1, 0, 0, 0], "srow_y": [0, 1, 0, 0], "srow_z": [0, 0, 1, 0]}
TRUE = {"sform_code": 1, "srow_x": [-1.5, 0, 0, 5], "srow_y": [0, -1.25, 0, 5], "srow_z": [0, 0, 8, 0]}
TURNED = {"qform_code": 1, "quatern_d": 1}  # by 180 degrees about z, as `TRUE`
MIRRORED = {"qform_code": 1, "pixdim": [-1, 1.5, 1.25, 8, 0, 0, 0, 0]}


@pytest.mark.parametrize(
    ("of_image", "of_label"),
    [
        ({**TURNED, **UNIT}, {**TURNED, **UNIT}),
        ({**TURNED, **UNIT}, {**TURNED, **TRUE}),
        ({**TURNED, **UNIT}, TRUE),
        ({**TURNED, **UNIT}, UNIT),
        ({**TURNED, **UNIT}, {}),
        (TRUE, {**TURNED, "qform_code": 2}),
        ({"qform_code": 1, **TRUE}, TRUE),
        ({}, MIRRORED),
    ],
    ids=[
        "ACDC",
        "both forms true",
        "sform alone",
        "placeholder",
        "no code",
        "other codes",
        "forms differ",
        "image without",
    ],
)
def test_d14_a_label_may_say_otherwise_or_less_of_where_it_lies(tmp_path, of_image, of_label):
    folder = write_patient(tmp_path)
    image(IMAGE, **of_image)(folder)
    label(LABEL, **of_label)(folder)
    np.testing.assert_array_equal(acdc.read(tmp_path, CASE).label, LABEL)


@pytest.mark.parametrize(
    ("of_image", "of_label"),
    [
        ({**TURNED, **UNIT}, {**MIRRORED, **UNIT}),
        ({**TURNED, **UNIT}, {"qform_code": 1, **UNIT}),
        (TRUE, {**TRUE, "srow_x": [1.5, 0, 0, 5]}),
        ({**TURNED, **TRUE}, MIRRORED),
    ],
    ids=["mirrored", "turned", "mirrored sform", "other form"],
)
def test_d15_a_label_that_is_mirrored_or_turned_against_its_image(tmp_path, of_image, of_label):
    folder = write_patient(tmp_path)
    image(IMAGE, **of_image)(folder)
    label(LABEL, **of_label)(folder)
    with pytest.raises(UserError, match="mirrored or rotated") as caught:
        acdc.read(tmp_path, CASE)
    assert caught.value.subject == str(folder / ES_LABEL)


def test_info_cfg_may_begin_with_a_byte_order_mark_and_repeat_itself(tmp_path):
    folder = write_patient(tmp_path)
    (folder / "Info.cfg").write_text("ES: 12\nED: 1\nED: 01\n", encoding="utf-8-sig")
    assert acdc.read(tmp_path, CASE).path.name == ES_IMAGE


def test_a_label_that_is_scaled_is_whole_to_the_precision_of_its_slope(tmp_path):
    folder = write_patient(tmp_path)
    label(10 * LABEL, scl_slope=0.1)(folder)
    np.testing.assert_array_equal(acdc.read(tmp_path, CASE).label, LABEL)


@pytest.mark.parametrize(
    "case", ["../patient001", "/etc", "..", ".", "", "a/b", "a\\b", "patient001/", "a\0b"], ids=repr
)
def test_s4_case_name_that_is_a_path(tmp_path, case):
    write_patient(tmp_path)
    (tmp_path / "root").mkdir()
    with pytest.raises(UserError, match="not the name of a folder"):
        acdc.locate(tmp_path / "root", case)


@pytest.mark.parametrize(
    ("root", "case", "expect"),
    [
        ("nowhere", CASE, r"nowhere: is not a folder; set data\.root"),
        ("file", CASE, r"file: is not a folder; set data\.root"),
        (".", "patient007", "patient007: does not exist"),
        (".", "x" * 300, "File name too long"),
        (".", "a\x1b[31m", re.escape(r"a\x1b[31m: does not exist")),
    ],
)
def test_missing_root_or_patient(tmp_path, root, case, expect):
    write_patient(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=expect):
        acdc.locate(tmp_path / root, case)


def test_check_reports_image_and_label_at_once(tmp_path):
    folder = write_patient(tmp_path)
    (folder / ES_IMAGE).write_bytes(b"damaged")
    label(label_with(9))(folder)
    errors, _ = acdc.check(tmp_path, CASE)
    assert [error.subject for error in errors] == [str(folder / ES_IMAGE), str(folder / ES_LABEL)]


def test_check_finds_nothing_in_a_sound_case_and_leaves_ignored_labels_alone(tmp_path):
    folder = write_patient(tmp_path)
    assert acdc.check(tmp_path, CASE) == ([], [])
    (folder / ES_LABEL).write_bytes(b"damaged")
    assert acdc.check(tmp_path, CASE, label="ignored") == ([], [])


def test_d21_check_finds_a_constant_volume(tmp_path):
    folder = write_patient(tmp_path)
    image(np.full_like(IMAGE, 3))(folder)
    (error,), _ = acdc.check(tmp_path, CASE)
    assert error.subject == str(folder / ES_IMAGE)
    assert "no contrast" in str(error)


def test_d21_check_finds_a_voxel_that_normalising_would_not_survive(tmp_path):
    folder = write_patient(tmp_path)
    extreme = IMAGE.astype(np.float32)
    extreme[0, 0, 0] = 3e38
    image(extreme)(folder)
    (error,), _ = acdc.check(tmp_path, CASE)
    assert error.subject == str(folder / ES_IMAGE)
    assert "voxels of up to 3e+38" in str(error)


def test_d23_a_label_that_lacks_a_class_is_a_warning(tmp_path):
    folder = write_patient(tmp_path)
    label(np.where(LABEL == 2, 0, LABEL).astype(np.uint8))(folder)
    errors, warnings = acdc.check(tmp_path, CASE)
    assert errors == []
    assert warnings == [f"{folder / ES_LABEL}: no voxel is labelled Myo"]
    assert acdc.read(tmp_path, CASE).label.max() == 3
