import gzip
import io
import itertools
import struct

import nibabel
import numpy as np
import pandas as pd
import pytest

from tfaug import evaluation
from tfaug.data import nifti
from tfaug.data.preprocess import Spec, prepare_volume
from tfaug.engine.errors import MachineError
from tfaug.types import Volume

SHAPE = (56, 48, 7)
SPACING = (1.5, 1.5, 8.0)
OBLIQUE = nibabel.affines.from_matvec(
    nibabel.eulerangles.euler2mat(0.4, -0.2, 0.9) @ np.diag([-1.5, 1.5, 8.0]), [-31.5, 12.25, 77.0]
)


def heart(shift=(0, 0)):
    """An RV, a ring of myocardium and an LV, shrinking along z, absent from the first and last slice."""
    x, y, z = np.indices(SHAPE)
    radius = np.hypot(x - 30 - shift[0], y - 22 - shift[1])
    label = np.zeros(SHAPE, np.uint8)
    label[np.hypot(x - 18 - shift[0], y - 22 - shift[1]) < 11 - z] = 1
    label[radius < 13 - z] = 2
    label[radius < 9 - z] = 3
    label[..., [0, -1]] = 0
    return label


def save_scan(path, header=None):
    """A scan in a file like ACDC's: int16, true voxel size and qform, unit sform."""
    image = (100 * heart() + np.arange(SHAPE[0])[:, None, None]).astype(np.int16)
    scan = nibabel.Nifti1Image(image, None, header)
    if header is None:
        scan.header.set_zooms(SPACING)
        scan.header.set_xyzt_units("mm", "sec")
        scan.header.set_qform(OBLIQUE, code=1)
        scan.header.set_sform(np.eye(4), code=2)
    nibabel.save(scan, path)


def make_case(folder, name="patient001", resolution=1.5, size=60, shift=(0, 0)):
    path = folder / f"{name}_frame01.nii.gz"
    save_scan(path)
    scan = nifti.read(path)
    volume = Volume(name, scan.array, heart(shift), scan.spacing, path)
    return prepare_volume(volume, Spec(image_size=size, resolution=resolution, n4_shrink=0)), volume


def oracle(*cases):
    """A segmenter that knows the prepared label of every prepared image."""
    labels = {prepared.image.tobytes(): prepared.label for prepared, _ in cases}
    return lambda images: np.eye(4, dtype=np.float32)[labels[images.tobytes()]]


def nothing(images):
    """A segmenter that finds background everywhere."""
    return np.broadcast_to(np.eye(4, dtype=np.float32)[0], (*images.shape, 4))


def test_a_perfect_segmenter_is_perfect_on_the_native_grid(tmp_path):
    prepared, volume = make_case(tmp_path)
    rows = evaluation.score(evaluation.segment(oracle((prepared, volume)), prepared), volume)
    assert [(row["case"], row["structure"]) for row in rows] == [("patient001", s) for s in ("RV", "Myo", "LV")]
    assert all((row["dice"], row["hd95_mm"], row["assd_mm"]) == (1, 0, 0) for row in rows)


def test_resampling_to_coarser_pixels_costs_little(tmp_path):
    prepared, volume = make_case(tmp_path, resolution=1.8)
    rows = evaluation.score(evaluation.segment(oracle((prepared, volume)), prepared), volume)
    assert all(0.9 < row["dice"] < 1 for row in rows)
    assert all(0 < row["assd_mm"] < 0.2 for row in rows)


def test_scores_are_against_the_experts_mask_in_mm(tmp_path):
    """Predicting the unshifted heart, the expert's being two voxels (3 mm) along x."""
    prepared, volume = make_case(tmp_path)
    moved = Volume(volume.case, volume.image, heart((2, 0)), volume.spacing, volume.path)
    for row in evaluation.score(evaluation.segment(oracle((prepared, volume)), prepared), moved):
        assert row["hd95_mm"] == pytest.approx(3.0)
        assert row["dice"] < 0.9


def test_validation_dice_is_the_mean_of_the_scores(tmp_path):
    cases = [make_case(tmp_path, "a"), make_case(tmp_path, "b")]
    cases[1] = cases[1][0], Volume("b", cases[1][1].image, heart((3, 1)), SPACING, cases[1][1].path)
    predict = oracle(cases[0])
    table = pd.DataFrame(sum((evaluation.score(evaluation.segment(predict, p), v) for p, v in cases), []))
    expected = table.groupby("structure").dice.mean().to_dict()
    assert evaluation.validation_dice(predict, cases) == pytest.approx({**expected, "mean": table.dice.mean()})


def headers():
    both = nibabel.Nifti1Header()
    both.set_data_shape(SHAPE)
    both.set_zooms(SPACING)
    both.set_xyzt_units("mm")
    qform_only, big_endian = both.copy(), both.as_byteswapped(">")
    both.set_qform(OBLIQUE, code=1)
    both.set_sform(OBLIQUE, code=1)
    qform_only.set_qform(OBLIQUE, code=3)
    qform_only.set_sform(None, code=0)
    big_endian.set_sform(OBLIQUE, code=4)
    return {"acdc": None, "both": both, "qform only": qform_only, "big endian, sform only": big_endian}


@pytest.mark.parametrize("name", headers())
def test_a_mask_lies_where_its_scan_lies(tmp_path, name):
    save_scan(tmp_path / "scan.nii.gz", headers()[name])
    nibabel.save(evaluation.mask_image(heart(), tmp_path / "scan.nii.gz"), tmp_path / "mask.nii.gz")
    scan, mask = (nibabel.load(tmp_path / f"{kind}.nii.gz") for kind in ("scan", "mask"))
    np.testing.assert_array_equal(np.asarray(mask.dataobj), heart())
    np.testing.assert_array_equal(mask.affine, scan.affine)
    for transform in ("get_qform", "get_sform"):
        ours, theirs = (getattr(image.header, transform)(coded=True) for image in (mask, scan))
        assert ours[1] == theirs[1]
        np.testing.assert_array_equal(ours[0], theirs[0])  # None where the code is 0
    assert mask.header.get_zooms() == scan.header.get_zooms()
    assert mask.header.get_xyzt_units() == scan.header.get_xyzt_units()
    assert mask.get_data_dtype() == np.uint8
    raw = gzip.open(tmp_path / "mask.nii.gz").read(348)
    assert struct.unpack("<ff", raw[112:120]) == (1.0, 0.0)  # scl_slope, scl_inter


@pytest.mark.parametrize("size", [0, 7, 48, 2**31 - 1, -16])
def test_a_mask_can_be_written_for_every_scan_that_can_be_read(tmp_path, size, capfd):
    """The scan's header extension is nonsense, and its qform's handedness is neither 1 nor -1."""
    save_scan(tmp_path / "sound.nii")
    content = bytearray((tmp_path / "sound.nii").read_bytes())
    content[76:80] = struct.pack("<f", 5)  # pixdim[0]
    content[108:112] = struct.pack("<f", 384)  # vox_offset
    content[348:352] = b"\1\0\0\0" + struct.pack("<i", size) + bytes(28)
    (tmp_path / "scan.nii").write_bytes(content)
    np.testing.assert_array_equal(nifti.read(tmp_path / "scan.nii").array, nifti.read(tmp_path / "sound.nii").array)
    mask = evaluation.mask_image(heart(), tmp_path / "scan.nii")
    nibabel.save(mask, tmp_path / "mask.nii")
    np.testing.assert_array_equal(nifti.read(tmp_path / "mask.nii").array, heart())
    assert capfd.readouterr().err == ""


def test_evaluate_writes_masks_scores_and_pictures(tmp_path):
    cases = [make_case(tmp_path, "patient001"), make_case(tmp_path, "patient002", resolution=1.3)]
    out = tmp_path / "out"
    table = evaluation.evaluate(oracle(*cases), cases, out, "ES")
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {
        "dice.csv",
        "summary.txt",
        "masks/patient001_ES_prediction.nii.gz",
        "masks/patient002_ES_prediction.nii.gz",
        "pictures/patient001.png",
        "pictures/patient002.png",
        "pictures/overview.png",
    }
    stored = pd.read_csv(out / "dice.csv")
    assert list(stored) == ["case", "structure", "dice", "hd95_mm", "assd_mm"]
    pd.testing.assert_frame_equal(stored, table, atol=1e-6)
    mask = nibabel.load(out / "masks" / "patient001_ES_prediction.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), heart())
    assert (out / "summary.txt").read_text() == evaluation.summary(table) + "\n"


def test_one_case_in_which_nothing_is_found(tmp_path):
    case = make_case(tmp_path)
    table = evaluation.evaluate(nothing, [case], tmp_path / "out", "ED")
    assert (table.dice == 0).all()
    assert (tmp_path / "out" / "dice.csv").read_text().splitlines()[1] == "patient001,RV,0.000000,,"
    text = evaluation.summary(table)
    assert "nan" not in text.lower()
    assert text.splitlines()[-1].split() == "mean 0.000 +- 0.000 undefined undefined 3 of 3".split()


def test_summary_by_hand():
    table = pd.read_csv(
        io.StringIO(
            "case,structure,dice,hd95_mm,assd_mm\n"
            "a,RV,0.0,,\na,Myo,0.6,4,1\na,LV,0.9,2,0.5\n"
            "b,RV,0.8,6,2\nb,Myo,0.8,8,3\nb,LV,0.8,1,0.5\n"
        )
    )
    rows = {line.split()[0]: line.split()[1:] for line in evaluation.summary(table).splitlines()}
    assert rows["RV"] == "0.400 +- 0.400 6.00 +- 0.00 2.00 +- 0.00 1 of 2".split()
    assert rows["Myo"] == "0.700 +- 0.100 6.00 +- 2.00 2.00 +- 1.00 0 of 2".split()
    # Patient a: mean Dice 0.5, distances over Myo and LV alone; patient b: 0.8, 5 mm, 1.8333 mm.
    assert rows["mean"] == "0.650 +- 0.150 4.00 +- 1.00 1.29 +- 0.54 1 of 6".split()


def test_an_interrupted_evaluation_is_run_again(tmp_path):
    cases = [make_case(tmp_path, f"patient00{k}", resolution=1.2 + 0.1 * k) for k in (1, 2, 3)]
    predict, calls = oracle(*cases), itertools.count(1)

    def killed(images):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return predict(images)

    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(killed, cases, tmp_path / "killed", "ES")
    assert (tmp_path / "killed" / "masks" / "patient002_ES_prediction.nii.gz").exists()
    assert not (tmp_path / "killed" / "dice.csv").exists()
    (tmp_path / "killed" / "masks" / ".part-patient002_ES_prediction.nii.gz").write_bytes(b"half a file")
    for folder in ("killed", "undisturbed"):
        evaluation.evaluate(predict, cases, tmp_path / folder, "ES")
    files = [
        {path.relative_to(tmp_path / folder): path.read_bytes() for path in (tmp_path / folder).rglob("*.*")}
        for folder in ("killed", "undisturbed")
    ]
    assert files[0] == files[1]


def test_a_folder_that_cannot_be_written_is_the_machines_fault(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(MachineError, match="cannot be written"):
        evaluation.evaluate(nothing, [make_case(tmp_path)], tmp_path / "file" / "out", "ES")


def test_progress_is_one_plain_line_a_case_outside_a_terminal(tmp_path, capsys):
    cases = [make_case(tmp_path, "patient001"), make_case(tmp_path, "patient002")]
    evaluation.evaluate(oracle(*cases), cases, tmp_path / "out", "ES")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "evaluation: patient002 (2/2): Dice RV 1.000 Myo 1.000 LV 1.000"
    assert len(lines) == 2


@pytest.mark.parametrize(
    "labelled, expected",
    [(range(10), [1, 5, 8]), (range(3, 9), [4, 6, 8]), ([2, 3, 4], [2, 3, 4]), ([1, 2], [1, 2]), ([4], [4])],
)
def test_slices_are_taken_from_the_thirds_of_the_heart(labelled, expected):
    label = np.zeros((4, 4, 10), np.uint8)
    label[1, 1, list(labelled)] = 3
    assert evaluation.representative_slices(label) == expected


def test_slices_of_a_stack_without_any_label():
    assert evaluation.representative_slices(np.zeros((4, 4, 6), np.uint8)) == [1, 3, 5]


def test_the_window_is_a_square_about_the_heart_inside_the_image():
    mask = np.zeros((100, 80, 2), np.uint8)
    mask[40:60, 30:40, 1] = 1
    assert evaluation.heart_window(mask) == (slice(36, 64), slice(21, 49))
    far = np.zeros_like(mask)
    far[99, 79, 0] = 1  # a false positive in the corner is shown, and the window keeps inside
    rows, columns = evaluation.heart_window(mask, far)
    assert (rows.start, min(rows.stop, 100), columns.start, min(columns.stop, 80)) == (16, 100, 0, 80)
    assert evaluation.heart_window(np.zeros_like(mask)) == (slice(None), slice(None))
