import re

import nibabel
import numpy as np
import pytest
from patients import anatomy, sform, write_nifti, write_patient

from tfaug.data import nifti
from tfaug.data.readers import acdc, base
from tfaug.data.readers.base import read_files
from tfaug.data.scan import Scan
from tfaug.data.task import Task
from tfaug.engine.errors import UserError

IMAGE, LABEL = anatomy()
CASE = "patient001"
TASK = Task({"RV": 1, "Myo": 2, "LV": 3})
ES_IMAGE, ES_LABEL = f"{CASE}_frame12.nii.gz", f"{CASE}_frame12_gt.nii.gz"


def read(root, case=CASE, label=True, **options):
    reader = acdc.Reader(root, options)
    return read_files(reader.locate(case, label), reader.task())


def test_es_is_the_default_and_ed_a_choice(tmp_path):
    write_patient(tmp_path)
    es, ed = read(tmp_path), read(tmp_path, phase="ED")
    np.testing.assert_array_equal(es.image, IMAGE[..., None])
    np.testing.assert_array_equal(ed.image, (IMAGE - 7)[..., None])
    np.testing.assert_array_equal(es.label, LABEL)
    assert es.spacing == (1.5, 1.25, 8.0)
    assert (es.image.dtype, es.label.dtype) == (np.float32, np.uint8)
    assert (es.path.name, ed.path.name) == (ES_IMAGE, f"{CASE}_frame01.nii.gz")


def test_the_frame_comes_from_info_cfg_not_from_the_order_of_files(tmp_path):
    folder = write_patient(tmp_path)
    (folder / "Info.cfg").write_text("ED: 12\nES: 1\n")
    np.testing.assert_array_equal(read(tmp_path).image[..., 0], IMAGE - 7)


@pytest.mark.parametrize("subfolder", ["training", "testing", "database/training", "database/testing"])
def test_root_may_be_what_the_official_archive_unpacks_to(tmp_path, subfolder):
    write_patient(tmp_path / subfolder)
    assert read(tmp_path).path.parent == tmp_path / subfolder / CASE


def test_ignored_labels_are_never_opened(tmp_path):
    folder = write_patient(tmp_path)
    (folder / ES_LABEL).write_bytes(b"no NIfTI")
    assert read(tmp_path, label=False).label is None
    (folder / ES_LABEL).unlink()
    assert read(tmp_path, label=False).label is None


@pytest.mark.parametrize("case", ["John's scan 7", "; rm -rf $HOME #", "a\nb", "patient001_frame01"], ids=repr)
def test_any_folder_name_is_a_case(tmp_path, case):
    """S8 too: a name is never given to a shell."""
    write_patient(tmp_path, case)
    assert acdc.Reader(tmp_path, {}).cases().labelled == (case,)
    assert read(tmp_path, case).path.parent.name == case


def test_plain_nii_and_the_files_that_come_along_are_fine(tmp_path):
    folder = write_patient(tmp_path)
    (folder / ES_IMAGE).unlink()
    write_nifti(folder / f"{CASE}_frame12.nii", IMAGE + 1)
    (folder / f"{CASE}_4d.nii.gz").write_bytes(b"")
    (folder / f"._{CASE}_frame12.nii.gz").write_bytes(b"left by macOS")
    (folder / "MANDATORY_CITATION.md").write_text("")
    np.testing.assert_array_equal(read(tmp_path).image[..., 0], IMAGE + 1)


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
        read(tmp_path)
    assert caught.value.subject.endswith(subject)
    assert "\n" not in str(caught.value)


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
    np.testing.assert_array_equal(read(tmp_path).label, LABEL)


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
        read(tmp_path)
    assert caught.value.subject == str(folder / ES_LABEL)


@pytest.mark.parametrize("pixdim", [(1, 1, 1), (1.5, 1.25, 1), (0.75, 0.75, 8), (1.5, 1.25, 8)])
@pytest.mark.parametrize(
    ("move", "expect"), [((-1, 0), "mirrored or rotated"), ((1, 30), "lies 30 mm away"), ((1, 0), None)], ids=str
)
def test_d37_labels_are_compared_by_sforms_that_contradict_pixdim(tmp_path, pixdim, move, expect):
    folder, moved = write_patient(tmp_path), np.diag([move[0], 1.0, 1, 1])
    moved[0, 3] = move[1]
    for name, array, affine in ((ES_IMAGE, IMAGE, np.eye(4)), (ES_LABEL, LABEL, moved)):
        fields = sform((1.5, 1.25, 8), 0, affine)
        fields["srow_y"][3] = 100  # a known origin
        write_nifti(folder / name, array, pixdim, **fields)
    if expect is None:
        assert read(tmp_path).spacing == pytest.approx(pixdim)
    else:
        with pytest.raises(UserError, match=f"{re.escape(ES_LABEL)}: .*{expect}"):
            read(tmp_path)


def test_info_cfg_may_begin_with_a_byte_order_mark_and_repeat_itself(tmp_path):
    folder = write_patient(tmp_path)
    (folder / "Info.cfg").write_text("ES: 12\nED: 1\nED: 01\n", encoding="utf-8-sig")
    assert read(tmp_path).path.name == ES_IMAGE


def test_a_label_that_is_scaled_is_whole_to_the_precision_of_its_slope(tmp_path):
    folder = write_patient(tmp_path)
    label(10 * LABEL, scl_slope=0.1)(folder)
    np.testing.assert_array_equal(read(tmp_path).label, LABEL)


@pytest.mark.parametrize(
    "case", ["../patient001", "/etc", "..", ".", "", "a/b", "a\\b", "patient001/", "a\0b"], ids=repr
)
def test_s4_case_name_that_is_a_path(tmp_path, case):
    write_patient(tmp_path)
    (tmp_path / "root").mkdir()
    with pytest.raises(UserError, match="not the name of a folder"):
        acdc.Reader(tmp_path / "root", {}).locate(case)


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
        acdc.Reader(tmp_path / root, {}).locate(case)


def test_cases_are_patients_and_those_without_a_label_of_the_phase_are_unlabelled(tmp_path):
    write_patient(tmp_path / "training", "patient002")
    write_patient(tmp_path / "testing", "patient101", labelled=False)
    (write_patient(tmp_path / "training") / ES_LABEL).unlink()
    (tmp_path / "training" / "notes").mkdir()
    es, ed = (acdc.Reader(tmp_path, {"phase": phase}).cases() for phase in ("ES", "ED"))
    assert es == (("patient002",), (CASE, "patient101"))
    assert ed == ((CASE, "patient002"), ("patient101",))


def test_d36_a_patient_that_is_there_twice(tmp_path):
    for folder in ("training", "testing"):
        write_patient(tmp_path / folder)
    reader = acdc.Reader(tmp_path, {})
    for ask in (reader.cases, lambda: reader.locate(CASE)):
        with pytest.raises(UserError, match="training/patient001: has the same name as .*testing/patient001"):
            ask()


def test_only_folders_with_patients_are_recognised(tmp_path):
    assert not acdc.Reader.recognises(tmp_path)
    write_patient(tmp_path / "database/training")
    assert acdc.Reader.recognises(tmp_path)


def test_with_both_phases_each_frame_is_a_case_of_its_patient(tmp_path):
    write_patient(tmp_path / "training", "patient_2")
    (write_patient(tmp_path / "testing") / ES_LABEL).unlink()
    reader = acdc.Reader(tmp_path, {"phase": "both"})
    ed, es = f"{CASE}_ED", f"{CASE}_ES"
    assert reader.scans() == (ed, es, "patient_2_ED", "patient_2_ES")
    assert reader.cases() == ((ed, "patient_2_ED", "patient_2_ES"), (es,))
    assert (reader.patient(es), reader.patient("patient_2_ED")) == (CASE, "patient_2")
    np.testing.assert_array_equal(read(tmp_path, "patient_2_ES", phase="both").image[..., 0], IMAGE)
    np.testing.assert_array_equal(read(tmp_path, "patient_2_ED", phase="both").image[..., 0], IMAGE - 7)
    with pytest.raises(UserError, match="'patient_2': names no phase; with data.phase=both, name patient_2_ED or"):
        reader.locate("patient_2")


def test_a_patients_name_stands_for_its_cases_and_its_heart_is_seen_in_both_phases_only(tmp_path):
    both = acdc.Reader(tmp_path, {"phase": "both"})
    assert set(both.members("patient_2")) == {"patient_2_ED", "patient_2_ES"}
    assert both.members("patient_2_ES") == ("patient_2_ES",)
    hearts = both.hearts(["b_ES", "a_ED", "b_ED"])
    assert hearts.patients == {"b": ("b_ED", "b_ES"), "a": ("a_ED", "a_ES")}  # a's ES may not be there
    assert {hearts.lv, hearts.rv, hearts.myocardium} == {*both.task().names}
    one = acdc.Reader(tmp_path, {"phase": "ED"})
    assert (one.members(CASE), one.patient("x_ED"), one.hearts([CASE])) == ((CASE,), "x_ED", None)


def test_an_unknown_phase_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"data.phase: 'es' is unknown"):
        acdc.Reader(tmp_path, {"phase": "es"})


def test_contents_that_have_been_read_already_are_not_read_again(tmp_path):
    folder = write_patient(tmp_path)
    files = acdc.Reader(tmp_path, {}).locate(CASE)
    contents = {path: path.read_bytes() for path in (*files.images, files.label)}
    for path in contents:
        path.write_bytes(b"changed since")
    found = read_files(files, TASK, contents)
    np.testing.assert_array_equal(found.image[..., 0], IMAGE)
    np.testing.assert_array_equal(found.label, LABEL)
    assert found.path == folder / ES_IMAGE


def test_d23_a_label_that_lacks_a_structure_is_read(tmp_path):
    folder = write_patient(tmp_path)
    label(np.where(LABEL == 2, 0, LABEL).astype(np.uint8))(folder)
    assert set(np.unique(read(tmp_path).label)) == {0, 1, 3}


FAR = {"qform_code": 1, "qoffset_x": 10.0, "qoffset_y": 20.0, "qoffset_z": 30.0}


@pytest.mark.parametrize(
    ("offset", "expect"),
    [((50, 20, 14), "43.1 mm away"), ((10, 20, 22), "8 mm away"), ((11, 20.9, 35), None), ((0, 0, 0), None)],
    ids=["D29", "one slice", "half a voxel", "unknown"],
)
def test_d29_a_label_with_another_origin(tmp_path, offset, expect):
    folder = write_patient(tmp_path)
    image(IMAGE, **FAR)(folder)
    label(LABEL, **{**FAR, **dict(zip(("qoffset_x", "qoffset_y", "qoffset_z"), offset))})(folder)
    if expect is None:
        read(tmp_path)
    else:
        with pytest.raises(UserError, match=f"{re.escape(ES_LABEL)}: lies {expect} from its image"):
            read(tmp_path)


def turned(degrees, axis, about=(0, 0, 0)):
    """An affine map that turns by an angle about an axis through a point."""
    turn = nibabel.eulerangles.euler2mat(**{axis: np.deg2rad(degrees)})
    return nibabel.affines.from_matvec(turn, np.array(about) - turn @ about)


@pytest.mark.parametrize("axis", "xyz")
@pytest.mark.parametrize("known", [True, False])
def test_d29_a_label_that_is_tilted_is_compared_where_it_is_furthest_away(tmp_path, axis, known):
    """By as much as shifts the farthest corner by two thirds or by one voxel in plane, or along Z."""
    folder, size, shape = write_patient(tmp_path), np.array([1.5, 1.25, 8.0]), np.array([120, 100, 12])
    place = np.eye(4)
    place[:3, 3] = (100, -50, 30) if known else 0
    array = np.resize(IMAGE, shape)
    write_nifti(folder / ES_IMAGE, array, size, **sform(size, 0, place))
    reach = {"x": (1, 2), "y": (0, 2), "z": (0, 1)}[axis]  # what is moved along one axis by its place on the other
    per_radian = max((shape - 1)[k] * size[k] / size[j] for j, k in (reach, reach[::-1]))
    for voxels, fits in ((0.67, True), (1.0, False)):
        tilt = place @ turned(np.rad2deg(voxels / per_radian), axis)
        write_nifti(folder / ES_LABEL, np.zeros(shape, np.uint8), size, **sform(size, 0, tilt))
        if fits:
            read(tmp_path)
        else:
            with pytest.raises(UserError, match=f"{re.escape(ES_LABEL)}: is mirrored or rotated against its image"):
                read(tmp_path)


def test_d29_a_label_that_is_tilted_about_its_middle_lies_half_as_far_away(tmp_path):
    folder, shape, place = write_patient(tmp_path), (100, 100, 4), np.diag([1.0, 1, 1, 1])
    place[:3, 3] = 5
    write_nifti(folder / ES_IMAGE, np.resize(IMAGE, shape), (1, 1, 1), **sform((1, 1, 1), 0, place))
    for about, fits in (((54, 54, 5), True), ((5, 5, 5), False)):
        fields = sform((1, 1, 1), 0, turned(0.6, "z", about) @ place)
        write_nifti(folder / ES_LABEL, np.zeros(shape, np.uint8), (1, 1, 1), **fields)
        if fits:
            read(tmp_path)
        else:
            with pytest.raises(UserError, match="is mirrored or rotated"):
                read(tmp_path)


@pytest.mark.parametrize("seed", range(20))
def test_a_quaternion_is_precise_enough_for_a_label_with_an_sform_alone(tmp_path, seed):
    """Near half a turn it is least precise, and most scans are near one: NIfTI's axes point to the right and front."""
    rng = np.random.default_rng(seed)
    turn = nibabel.eulerangles.euler2mat(np.pi, *rng.normal(0, 10.0 ** -rng.integers(0, 6), 2))
    affine = nibabel.affines.from_matvec(turn * [0.5, 0.5, 1], [100, 90, -400])
    scans = {}
    for name in ("qform", "sform"):
        header = nibabel.Nifti1Header()
        header.set_data_shape((512, 512, 300))
        getattr(header, f"set_{name}")(affine, code=1)
        header["pixdim"][1:4] = (0.5, 0.5, 1)
        scans[name] = Scan(np.broadcast_to(np.uint8(0), (512, 512, 300)), (0.5, 0.5, 1), nifti._frames(name, header))
    base._check_fit("label", scans["sform"], scans["qform"], "image", "")
