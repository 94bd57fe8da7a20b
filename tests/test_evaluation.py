import dataclasses
import io
import itertools

import nibabel
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from data_.patients import patients, write_nifti, write_patient

from tfaug import evaluation, metrics
from tfaug.data import images, readers
from tfaug.data.dataset import DataSet
from tfaug.data.preprocess import Spec, prepare_volume
from tfaug.data.task import Task
from tfaug.engine.errors import MachineError
from tfaug.types import Volume

SHAPE = (56, 48, 7)
SPACING = (1.5, 1.5, 8.0)
HEART = Task({"RV": 1, "Myo": 2, "LV": 3})


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


def make_case(folder, name="patient001", resolution=1.5, size=60):
    """A prepared heart with its native volume."""
    path = folder / f"{name}_frame01.nii.gz"
    image = (100 * heart() + np.arange(SHAPE[0])[:, None, None]).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(image, np.diag([*SPACING, 1])), path)
    volume = Volume(name, image[..., None].astype(np.float32), heart(), SPACING, 2, path)
    return prepared(volume, resolution, size)


def prepared(volume, resolution=1.5, size=60):
    spec = Spec(image_size=size, resolution=resolution, n4_shrink=0)
    return dataclasses.replace(prepare_volume(volume, spec), volume=volume)


def with_label(case, label):
    """The same prepared slices, beside another native reference."""
    return dataclasses.replace(case, volume=dataclasses.replace(case.volume, label=label))


def oracle(*cases, num_classes=4):
    """A segmenter that knows the prepared label of every prepared image."""
    labels = {case.image.tobytes(): case.label for case in cases}
    return lambda image: np.eye(num_classes, dtype=np.float32)[labels[image.tobytes()]]


def nothing(images):
    """A segmenter that finds background everywhere."""
    return np.broadcast_to(np.eye(4, dtype=np.float32)[0], (*images.shape[:3], 4))


def scores(predict, case):
    return evaluation.score(evaluation.segment(predict, case), case.volume, HEART)


def test_a_perfect_segmenter_is_perfect_on_the_native_grid(tmp_path):
    case = make_case(tmp_path)
    rows = scores(oracle(case), case)
    assert [(row["case"], row["structure"]) for row in rows] == [("patient001", s) for s in ("RV", "Myo", "LV")]
    assert all((row["dice"], row["hd95_mm"], row["assd_mm"]) == (1, 0, 0) for row in rows)


def test_resampling_to_coarser_pixels_costs_little(tmp_path):
    case = make_case(tmp_path, resolution=1.8)
    rows = scores(oracle(case), case)
    assert all(0.9 < row["dice"] < 1 for row in rows)
    assert all(0 < row["assd_mm"] < 0.2 for row in rows)


def test_scores_are_against_the_reference_in_mm(tmp_path):
    """Predicting the unshifted heart, the reference being two voxels (3 mm) along x."""
    case = make_case(tmp_path)
    for row in scores(oracle(case), with_label(case, heart((2, 0)))):
        assert row["hd95_mm"] == pytest.approx(3.0)
        assert row["dice"] < 0.9


def test_validation_dice_is_the_mean_of_the_scores(tmp_path):
    cases = [make_case(tmp_path, "a"), with_label(make_case(tmp_path, "b"), heart((3, 1)))]
    predict = oracle(cases[0])
    table = pd.DataFrame(sum((scores(predict, case) for case in cases), []))
    expected = table.groupby("structure").dice.mean().to_dict()
    assert evaluation.validation_dice(predict, cases, HEART) == pytest.approx({**expected, "mean": table.dice.mean()})


def test_evaluate_writes_masks_scores_and_pictures(tmp_path):
    cases = [make_case(tmp_path, "patient001"), make_case(tmp_path, "patient002", resolution=1.3)]
    out = tmp_path / "out"
    table = evaluation.evaluate(oracle(*cases), cases, 2, out, HEART, "ES")
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {
        "dice.csv",
        "indices.csv",
        "agreement.png",
        "summary.txt",
        "masks/patient001_ES_prediction.nii.gz",
        "masks/patient002_ES_prediction.nii.gz",
        "pictures/patient001.png",
        "pictures/patient002.png",
        "pictures/overview.png",
    }
    stored = pd.read_csv(out / "dice.csv")
    assert list(stored) == ["case", "structure", "dice", "hd95_mm", "assd_mm", "in_neither"]
    pd.testing.assert_frame_equal(stored, table, atol=1e-6)
    mask = nibabel.load(out / "masks" / "patient001_ES_prediction.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), heart())
    assert (out / "summary.txt").read_text().startswith(evaluation.summary(table) + "\nHD95: the larger of ")


def test_scores_are_there_whatever_becomes_of_the_overview(tmp_path, monkeypatch):
    cases = [make_case(tmp_path, "patient001"), make_case(tmp_path, "patient002")]

    def fails(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(evaluation.pictures, "overlay", fails)
        evaluation.evaluate(oracle(*cases), cases, 2, tmp_path / "out", HEART)
    assert {*pd.read_csv(tmp_path / "out/dice.csv").case} == {"patient001", "patient002"}


def test_one_case_in_which_nothing_is_found(tmp_path):
    case = make_case(tmp_path)
    table = evaluation.evaluate(nothing, [case], 1, tmp_path / "out", HEART, "ED")
    assert (table.dice == 0).all()
    assert (tmp_path / "out" / "dice.csv").read_text().splitlines()[1] == "patient001,RV,0.000000,,,False"
    text = evaluation.summary(table)
    assert "nan" not in text.lower()
    assert text.splitlines()[-1].split() == "mean 0.000 +- 0.000 undefined undefined 3 of 3".split()


def test_summary_by_hand():
    table = pd.read_csv(
        io.StringIO(
            "case,structure,dice,hd95_mm,assd_mm,in_neither\n"
            "a,RV,0.0,,,False\na,Myo,0.6,4,1,False\na,LV,0.9,2,0.5,False\n"
            "b,RV,0.8,6,2,False\nb,Myo,0.8,8,3,False\nb,LV,0.8,1,0.5,False\n"
        )
    )
    rows = {line.split()[0]: line.split()[1:] for line in evaluation.summary(table).splitlines()}
    assert rows["RV"] == "0.400 +- 0.400 6.00 +- 0.00 2.00 +- 0.00 1 of 2".split()
    assert rows["Myo"] == "0.700 +- 0.100 6.00 +- 2.00 2.00 +- 1.00 0 of 2".split()
    # Patient a: mean Dice 0.5, distances over Myo and LV alone; patient b: 0.8, 5 mm, 1.8333 mm.
    assert rows["mean"] == "0.650 +- 0.150 4.00 +- 1.00 1.29 +- 0.54 1 of 6".split()


def test_distances_of_another_definition_are_called_so(tmp_path):
    reference = heart((3, 2))
    reference[:, :18] = 0  # so that the two directions have different means
    case = with_label(make_case(tmp_path), reference)
    folders = {name: tmp_path / name for name in metrics.DISTANCES}
    for name, folder in folders.items():
        evaluation.evaluate(oracle(case), [case], 1, folder, HEART, distances=name)
    ours, theirs = (pd.read_csv(folder / "dice.csv") for folder in folders.values())
    assert list(theirs) == ["case", "structure", "dice", "hd95_medpy_mm", "assd_medpy_mm", "in_neither"]
    prediction = evaluation.segment(oracle(case), case)
    for index, column in ((0, "hd95"), (1, "assd")):
        expected = [metrics.surface_distance(prediction, reference, k, SPACING, "medpy")[index] for k in (1, 2, 3)]
        np.testing.assert_allclose(theirs[f"{column}_medpy_mm"], expected, atol=1e-6)
        assert not np.allclose(ours[f"{column}_mm"], expected, atol=1e-3)
    texts = {name: (folder / "summary.txt").read_text() for name, folder in folders.items()}
    for name, text in texts.items():
        assert [line in text for line in metrics.DISTANCES.values()] == [name == other for other in metrics.DISTANCES]
    means = theirs[["hd95_medpy_mm", "assd_medpy_mm"]].mean()
    cells = [line for line in texts["medpy"].splitlines() if line.startswith("mean")][0].split()
    assert (float(cells[4]), float(cells[7])) == pytest.approx((means.iloc[0], means.iloc[1]), abs=0.006)


def test_volumes_of_every_structure_beside_the_references(tmp_path):
    cases = [
        make_case(tmp_path, "a"),
        with_label(make_case(tmp_path, "b"), heart((3, 1)) % 3),
    ]  # no LV in b's reference
    evaluation.evaluate(oracle(cases[0]), cases, 2, tmp_path / "out", HEART)
    table = pd.read_csv(tmp_path / "out/indices.csv", index_col="case")
    voxel = 1.5 * 1.5 * 8.0 / 1000
    for index, structure in enumerate(("RV", "Myo", "LV"), start=1):
        for case in cases:
            name = case.volume.case
            assert table.loc[name, f"{structure}_volume_predicted_ml"] == pytest.approx(
                (heart() == index).sum() * voxel
            )
            reference = (case.volume.label == index).sum() * voxel
            assert table.loc[name, f"{structure}_volume_reference_ml"] == pytest.approx(reference)
    assert table.loc["b", "LV_volume_reference_ml"] == 0
    (line,) = [
        row for row in (tmp_path / "out/summary.txt").read_text().splitlines() if row.startswith("LV volume (ml)")
    ]
    differences = table.LV_volume_predicted_ml - table.LV_volume_reference_ml
    expected = f"{differences.mean():.2f} +- {1.96 * differences.std():.2f} undefined 2"
    assert line.split()[3:] == expected.split()


def test_clinical_indices_of_patients_whose_two_phases_are_cases(tmp_path):
    """From ACDC's folders to indices.csv: every ES mask is a heart smaller by some voxels, and three are mistaken."""
    ed, es = heart(), heart()
    es[(es == 3) & (np.arange(SHAPE[0])[:, None, None] < 30)] = 2  # half of the cavity has become wall
    names = ["p1", "p2", "p3"]
    for name in names:
        folder = write_patient(tmp_path / "data", name, shape=SHAPE)
        for number, label in ((1, ed), (12, es)):
            write_nifti(folder / f"{name}_frame{number:02d}_gt.nii.gz", label, SPACING)
            image = (100 * label + np.arange(SHAPE[0])[:, None, None]).astype(np.int16)
            write_nifti(folder / f"{name}_frame{number:02d}.nii.gz", image, SPACING)
    dataset = patients(tmp_path / "data", phase="both")
    listed = dataset.cases().labelled
    cases = [prepared(dataset.read(case)) for case in listed if case != "p3_ES"]  # of p3 one phase alone is scored
    predicted = [with_label(case, np.zeros_like(case.volume.label)) for case in cases]
    hearts = dataset.reader.hearts(listed)
    out = tmp_path / "out"
    evaluation.evaluate(oracle(*cases), [*cases[:3], predicted[3], *cases[4:]], 5, out, dataset.task, hearts=hearts)
    table = pd.read_csv(out / "indices.csv", index_col="patient")
    voxel = np.prod(SPACING) / 1000
    edv, esv = ((label == 3).sum() * voxel for label in (ed, es))
    assert list(table.index) == names and len(table.columns) == 18
    p1, p2, p3 = (table.loc[name] for name in names)
    assert p1.LV_EDV_predicted_ml == p1.LV_EDV_reference_ml == pytest.approx(edv)
    assert p1.LV_EF_reference_percent == pytest.approx(100 * (edv - esv) / edv)
    assert p1.LV_SV_predicted_ml == pytest.approx(edv - esv)
    assert p1.Myo_mass_ED_reference_g == pytest.approx(1.05 * (ed == 2).sum() * voxel)
    assert (p2.LV_EDV_reference_ml, p2.LV_ESV_reference_ml) == pytest.approx(
        (edv, 0), abs=1e-6
    )  # that of the empty label
    assert np.isnan(p3.LV_ESV_reference_ml) and np.isnan(p3.LV_EF_predicted_percent)
    assert p3.LV_EDV_predicted_ml == pytest.approx(edv)
    text = (out / "summary.txt").read_text()
    (line,) = [row for row in text.splitlines() if row.startswith("LV ESV (ml)")]
    assert line.split()[3:] == [f"{esv / 2:.2f}", "+-", f"{1.96 * esv / 2**0.5:.2f}", "undefined", "2"]
    assert sum(row.startswith(("LV ", "RV ", "Myo mass")) for row in text.splitlines()) == 9 + 2


def test_r2_structures_in_neither_mask_are_counted_below_the_table(tmp_path):
    """They stay a Dice of 1, and nobody is left to believe that they were found."""
    whole, without = make_case(tmp_path, "a"), make_case(tmp_path, "b", resolution=1.4)
    label = without.volume.label % 3  # no LV
    without = prepared(dataclasses.replace(without.volume, label=label), resolution=1.4)
    predict = oracle(whole, without)
    table = evaluation.evaluate(predict, [whole, without], 2, tmp_path / "out", HEART)
    assert table[table.in_neither][["case", "structure", "dice"]].to_numpy().tolist() == [["b", "LV", 1]]
    *rows, count = evaluation.summary(table).splitlines()
    assert (tmp_path / "out/summary.txt").read_text().startswith("\n".join([*rows, count, "HD95"]))
    assert count.endswith("counts as a Dice of 1 and 0 mm: LV in 1 of 2 cases")
    assert rows == evaluation.summary(table.assign(in_neither=False)).splitlines()
    assert evaluation.evaluate(oracle(whole), [whole], 1, tmp_path / "whole", HEART).in_neither.sum() == 0
    assert "neither" not in (tmp_path / "whole/summary.txt").read_text().lower()


def test_an_interrupted_evaluation_is_run_again(tmp_path, capsys):
    cases = [make_case(tmp_path, f"patient00{k}", resolution=1.2 + 0.1 * k) for k in (1, 2, 3)]
    predict, calls = oracle(*cases), itertools.count(1)

    def killed(images):
        if next(calls) == 3:
            raise KeyboardInterrupt
        return predict(images)

    with pytest.raises(KeyboardInterrupt):
        evaluation.evaluate(killed, cases, 3, tmp_path / "killed", HEART, "ES")
    assert "3/3" not in capsys.readouterr().out  # a case counts when it is done
    assert (tmp_path / "killed" / "masks" / "patient002_ES_prediction.nii.gz").exists()
    assert not (tmp_path / "killed" / "dice.csv").exists()
    (tmp_path / "killed" / "masks" / ".part-patient002_ES_prediction.nii.gz").write_bytes(b"half a file")
    for folder in ("killed", "undisturbed"):
        evaluation.evaluate(predict, cases, 3, tmp_path / folder, HEART, "ES")
    files = [
        {path.relative_to(tmp_path / folder): path.read_bytes() for path in (tmp_path / folder).rglob("*.*")}
        for folder in ("killed", "undisturbed")
    ]
    assert files[0] == files[1]


def test_masks_and_pictures_of_earlier_evaluations_go_and_the_users_own_stay(tmp_path):
    names = ("patient001", "patient002", "overview")
    cases, out = [make_case(tmp_path, name) for name in names], tmp_path / "out"
    evaluation.evaluate(oracle(*cases), cases, 3, out, HEART, "ED")
    own = {out / name for name in ("masks/patient001_mended.nii.gz", "masks/notes.txt", "pictures/patient009.png")}
    for path in own:
        path.touch()
    again = itertools.islice(cases, 1, 2)
    evaluation.evaluate(oracle(*cases), again, 1, out, HEART, "ES", before=(*names, "patient003"))
    left = {path for folder in ("masks", "pictures") for path in (out / folder).iterdir()}
    new = ("masks/patient002_ES_prediction.nii.gz", "pictures/patient002.png", "pictures/overview.png")
    assert left == own | {out / name for name in new}


def test_a_folder_that_cannot_be_written_is_the_machines_fault(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(MachineError, match="cannot be written"):
        evaluation.evaluate(nothing, [make_case(tmp_path)], 1, tmp_path / "file" / "out", HEART)


def test_the_end_of_an_evaluation_is_shown_outside_a_terminal(tmp_path, capsys):
    cases = [make_case(tmp_path, "patient001"), make_case(tmp_path, "patient002")]
    evaluation.evaluate(oracle(*cases), cases, 2, tmp_path / "out", HEART)
    assert capsys.readouterr().out.splitlines()[-1].startswith("evaluation: 2/2, ")


ORGANS = {"b": 300, "a": 85}  # not in the order of their values, and too large for a byte
AXES = nibabel.eulerangles.euler2mat(0.4, -0.2, 0.9)


def write(path, array, spacing):
    path.parent.mkdir(exist_ok=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing)
    image.SetDirection(AXES.ravel().tolist())
    image.SetOrigin((10, -20, 30.5))
    sitk.WriteImage(image, str(path))


def organs(folder, axis, suffix):
    """A case of two channels and two structures, whose slices of 8 mm lie along an axis of its files."""
    label = np.zeros((44, 36, 6), np.uint16)  # slices last
    label[8:30, 10:20, 1:4] = 300
    label[20:40, 16:30, 2:6] = 85
    rng = np.random.default_rng(0)
    channels = [(label + rng.integers(0, 50, label.shape)).astype(np.int16) for _ in range(2)]
    spacing = np.insert([1.5, 1.5], axis, 8.0)
    for name, array in (("images/x_t1", channels[0]), ("images/x_t2", channels[1]), ("labels/x", label)):
        write(folder / f"{name}{suffix}", np.moveaxis(array, 2, axis), spacing)
    options = {"images": f"images/*_t1{suffix}, images/*_t2{suffix}", "structures": ORGANS}
    reader = readers.open(folder, options)
    return DataSet(reader, readers.task(reader, options))


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mask_has_the_values_the_axes_and_the_geometry_of_the_case_whichever_axis_is_sliced(tmp_path, axis, suffix):
    dataset = organs(tmp_path, axis, suffix)
    case = prepared(dataset.read("x"))
    assert case.image.shape == (6, 60, 60, 2)
    table = evaluation.evaluate(oracle(case, num_classes=3), [case], 1, tmp_path / "out", dataset.task)
    assert table[["structure", "dice", "hd95_mm"]].to_numpy().tolist() == [["a", 1, 0], ["b", 1, 0]]
    mask = tmp_path / "out" / "masks" / f"x_prediction{suffix}"
    label, scan = tmp_path / "labels" / f"x{suffix}", tmp_path / "images" / f"x_t1{suffix}"
    np.testing.assert_array_equal(images.read(mask, None).array, images.read(label, None).array)
    ours, theirs = (sitk.ReadImage(str(path)) for path in (mask, scan))
    assert ours.IsSameImageGeometryAs(theirs, 1e-9, 1e-9)


def test_a_distance_across_slices_is_in_mm_of_the_axis_that_is_sliced(tmp_path):
    dataset = organs(tmp_path, 0, ".nrrd")
    volume = dataset.read("x")
    rows = evaluation.score(np.roll(volume.label, -1, axis=2), volume, dataset.task)
    assert {row["structure"]: row["hd95_mm"] for row in rows} == pytest.approx({"a": 8.0, "b": 8.0})


@pytest.mark.parametrize(
    "labelled, expected",
    [(range(10), [1, 5, 8]), (range(3, 9), [4, 6, 8]), ([2, 3, 4], [2, 3, 4]), ([1, 2], [1, 2]), ([4], [4])],
)
def test_slices_are_taken_from_the_thirds_of_the_labelled_region(labelled, expected):
    label = np.zeros((4, 4, 10), np.uint8)
    label[1, 1, list(labelled)] = 3
    assert evaluation.representative_slices(label) == expected


def test_slices_of_a_stack_without_any_label():
    assert evaluation.representative_slices(np.zeros((4, 4, 6), np.uint8)) == [1, 3, 5]


def test_the_window_is_a_square_about_all_that_is_marked_inside_the_image():
    mask = np.zeros((100, 80, 2), np.uint8)
    mask[40:60, 30:40, 1] = 1
    assert evaluation.labelled_window(mask) == (slice(36, 64), slice(21, 49))
    far = np.zeros_like(mask)
    far[99, 79, 0] = 1  # a false positive in the corner is shown, and the window keeps inside
    rows, columns = evaluation.labelled_window(mask, far)
    assert (rows.start, min(rows.stop, 100), columns.start, min(columns.stop, 80)) == (16, 100, 0, 80)
    assert evaluation.labelled_window(np.zeros_like(mask)) == (slice(None), slice(None))
