"""A generated data set: what is applied to scans, and what lies in the folder."""

import json
import re

import fast_networks
import numpy as np
import pandas as pd
import programs
import pytest
import tensorflow as tf
from data_.patients import anatomy, patients, sform, write_nifti, write_patient

from tfaug import generation, pictures
from tfaug.configs import phantom
from tfaug.data import images, readers
from tfaug.data.preprocess import Grid, Spec, prepare_volume
from tfaug.engine import run_dir
from tfaug.engine.errors import MachineError, UserError
from tfaug.engine.files import sealed
from tfaug.experiment import generators
from tfaug.types import Volume
from tfaug.warp import warp

SIZE = 32
CASES = ("patient001", "patient002")


def volume(shape=(SIZE, SIZE, 3), spacing=(1.5, 1.5, 8.0), channels=1):
    label = np.zeros(shape, np.uint8)
    label[8:20, 9:22], label[12:16, 13:18] = 1, 2
    image = np.random.default_rng(0).normal(100, 30, (*shape, channels)).astype(np.float32)
    return Volume("case", image, label, spacing, 2, None)


def smooth(shape, size=3.0):
    x, y = np.meshgrid(*(np.linspace(0, 3, n) for n in shape[1:3]), indexing="ij")
    parts = [size * np.sin(x + k) * np.cos(y + z) for z in range(shape[0]) for k in range(shape[3])]
    return np.stack(parts, -1).reshape(*shape[1:3], shape[0], shape[3]).transpose(2, 0, 1, 3).astype(np.float32)


def test_on_the_prepared_grid_a_scan_is_changed_as_the_networks_change_slices():
    """Which are the paper's X_V, Y_V and X_I, in prepared units."""
    scan = volume()
    prepared = prepare_volume(scan, Spec(SIZE, 1.5, 0))
    field, added = smooth((3, SIZE, SIZE, 2)), smooth((3, SIZE, SIZE, 1), 0.3)
    image, label = generation.apply(scan, {"deform": field, "intensity": added}, prepared.grid, 3)
    low, high = np.percentile(scan.image, (2, 98))
    expected = warp(tf.constant(prepared.image), tf.constant(field)).numpy() + added
    np.testing.assert_allclose((image.transpose(2, 0, 1, 3) - low) / (high - low), expected, atol=2e-4)
    one_hot = warp(tf.one_hot(prepared.label, 3), tf.constant(field)).numpy()
    assert (label.transpose(2, 0, 1) == one_hot.argmax(-1)).mean() > 0.999  # but for ties


def test_on_another_grid_content_moves_by_the_same_distance():
    """A blob, by 4 mm and 3 mm, on pixels of another size, in a crop that is smaller than the scan."""
    scan = volume((60, 90, 2), (1.0, 0.75, 8.0))
    x, y = np.meshgrid(np.arange(60), np.arange(90), indexing="ij")
    blob = np.exp(-(((x - 28) * 1.0) ** 2 + ((y - 44) * 0.75) ** 2) / 30)
    scan.image[:] = blob[..., None, None]
    grid = Grid((60, 90, 2), scan.spacing, 24, 2.0)
    field = np.broadcast_to(np.float32([4 / 2.0, -3 / 2.0]), (2, 24, 24, 2))
    image, _ = generation.deform(scan, field, grid, 3)
    weights = image[..., 0, 0]
    centre = [(weights * axis).sum() / weights.sum() for axis in (x, y)]
    np.testing.assert_allclose(centre, [28 + 4 / 1.0, 44 - 3 / 0.75], atol=0.05)


def test_what_is_not_moved_is_not_interpolated():
    """Nor changed far from the crop, beyond which fields fade out."""
    scan = volume((64, 64, 2))
    grid = Grid((64, 64, 2), scan.spacing, SIZE, 1.5)
    image, label = generation.apply(scan, {"deform": np.zeros((2, SIZE, SIZE, 2), np.float32)}, grid, 3)
    np.testing.assert_array_equal(image, scan.image)
    np.testing.assert_array_equal(label, scan.label)
    image, label = generation.apply(scan, {"deform": np.full((2, SIZE, SIZE, 2), 2.0, np.float32)}, grid, 3)
    changed = (image != scan.image).any(axis=(2, 3))
    assert changed[17:47, 17:47].all() and not changed[:8].any() and not changed[:, 56:].any()


@pytest.mark.parametrize("dtype, expected", [("u1", [0, 255, 7]), ("i2", [-4, 300, 7]), ("f4", [-4.4, 300.2, 6.6])])
def test_voxels_keep_the_type_of_the_file(dtype, expected):
    made = generation.as_type(np.float32([-4.4, 300.2, 6.6]), np.dtype(dtype))
    assert made.dtype == dtype and made.tolist() == pytest.approx(expected)


class Shift:
    """Deforms by a constant that z tells, and brightens."""

    def __init__(self):
        self.calls = []

    def __call__(self, prepared, z):
        self.calls.append((prepared.case, z.copy()))
        shape = prepared.image.shape[:3]
        field = np.broadcast_to(z[:, None, None, :2], (*shape, 2)).astype(np.float32)
        return {"deform": field, "intensity": np.full((*shape, 1), 0.1, np.float32)}


@pytest.fixture
def root(tmp_path):
    for seed, case in enumerate(CASES):
        write_patient(tmp_path / "data", case, seed)
    return tmp_path / "data"


def job(root, number=3, folder="out", cases=CASES, **options):
    arguments = (Spec(SIZE, 1.5, 0), root.parent / folder, ["run 1"])
    return generation.Job(patients(root), cases, *arguments, generation.Options(number, **options))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock"}


def test_the_data_set_is_one_that_our_own_reader_of_nnunet_folders_takes(root):
    job(root, with_originals=True).run(Shift())
    out = root.parent / "out"
    reader = readers.find(out, {})
    names = ["patient001", "patient001_g0001", "patient001_g0003", "patient002", "patient002_g0002"]
    assert list(reader.cases().labelled) == names
    described = json.loads((out / "dataset.json").read_text())
    assert described["labels"] == {"background": 0, "RV": 1, "Myo": 2, "LV": 3} and described["numTraining"] == 5
    task = reader.task()
    for name in names:
        case = readers.base.read_files(reader.locate(name), task)
        source = patients(root).read(name[:10])
        assert case.spacing == pytest.approx(source.spacing)
        same = np.array_equal(case.image, source.image) and np.array_equal(case.label, source.label)
        assert same == ("_g" not in name)
    original = images.read(root / "patient001/patient001_frame12.nii.gz", None).array
    assert images.read(out / "imagesTr/patient001_g0001_0000.nii.gz", None).array.dtype == original.dtype


def test_nothing_is_written_but_the_data_set(root):
    """The folder of the runs' cache may be on a machine that is gone."""
    before = contents(root)
    job(root).run(Shift())
    assert sorted(path.name for path in root.parent.iterdir()) == ["data", "out"] and contents(root) == before


def test_a_folder_that_the_built_in_cohort_cannot_be_made_in_is_one_line_that_names_another_way(tmp_path):
    config = phantom.get_config()
    config.data.cache_dir = str(tmp_path / "run/config.json/cache")
    (tmp_path / "run").mkdir()
    content = sealed({run_dir.MARK: 2, "config": config.to_dict()})
    (tmp_path / "run/config.json").write_text(json.dumps(content))
    report = {"best": 0.5, "best_step": 1, "generator": "deform"}
    (tmp_path / "run/report.json").write_text(json.dumps(report))
    result = programs.run("tfaug", "generate", "--run=run", "-n", 1, "-o", "out", cwd=tmp_path)
    assert result.returncode == 3 and re.search(
        "^error: .*cache: the built-in cohort cannot be written .Not a directory.; see that it can be written, or give "
        "the data set with -i\n$",
        result.stderr,
    ), result.stderr


def test_the_same_seed_gives_the_same_files_and_another_seed_others(root):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        job(root, folder=folder, seed=seed).run(Shift())
    first, again, other = (contents(root.parent / folder) for folder in "abc")
    assert first == again
    assert {name for name in first if first[name] != other[name]} >= {"patient001_g0001_0000.nii.gz", "sheet.png"}


def test_each_scan_has_one_z_or_one_a_slice_and_the_table_tells_it(root):
    for per_slice, rows in ((False, 1), (True, 3)):
        shift, folder = Shift(), f"out{per_slice}"
        job(root, number=1, folder=folder, per_slice=per_slice).run(shift)
        ((_, z),) = shift.calls
        assert len(np.unique(z, axis=0)) == rows
        row = pd.read_csv(root.parent / folder / "generated.csv").iloc[0]
        told = np.float32([[float(value) for value in part.split()] for part in row.z.split(";")])
        np.testing.assert_array_equal(told, z[:rows])
        assert (row.case, row.source) == ("patient001_g0001", "patient001")


@pytest.mark.parametrize("number, empty", [(1, ["patient002"]), (5, ["patient002"]), (8, [])])
def test_a_row_of_the_sheet_is_one_original_and_what_was_generated_from_it(root, monkeypatch, number, empty):
    drawn, overlay = [], pictures.overlay

    def drawing(shown, masks, titles, colours, columns):
        drawn[:] = shown, titles, columns
        return overlay(shown, masks, titles, colours, columns=columns)

    monkeypatch.setattr(pictures, "overlay", drawing)
    job(root, number=number).run(Shift())
    shown, titles, columns = drawn
    rows = [titles[k : k + columns] for k in range(0, len(titles), columns)]
    assert [row[0] for row in rows] == list(CASES)
    assert all(not title or title.startswith(row[0]) for row in rows for title in row)
    assert [row[0] for row in rows if "" in row] == empty
    assert [image is None for image in shown] == [title == "" for title in titles]


def test_it_resumes_and_more_may_be_added(root):
    job(root, number=5).run(Shift())
    whole = contents(root.parent / "out")
    job(root, number=2, folder="again").run(Shift())
    (root.parent / "again/labelsTr/patient002_g0002.nii.gz").unlink()
    shift = Shift()
    job(root, number=5, folder="again").run(shift)
    assert len(shift.calls) == 4
    assert contents(root.parent / "again") == whole
    assert job(root, number=5, folder="again").waiting == []


def test_from_10000_scans_on_names_stay_as_they_are(root):
    few, many = ([name for name, _, _ in job(root, number)._wanted] for number in (9999, 10_001))
    assert many[:9999] == few and few[0] == "patient001_g0001" and len({*many}) == 10_001
    assert many[-2:] == ["patient002_g10000", "patient001_g10001"]


def test_a_source_with_the_name_of_a_generated_scan_is_refused_where_both_would_be_written(root):
    name = "patient001_g0001"
    write_patient(root, name, 2)
    cases, problem = ("patient001", name), f"^{name}: is the name of a source and of a scan .*; rename the source, or"
    with pytest.raises(UserError, match=problem):
        job(root, cases=cases, with_originals=True)
    assert not (root.parent / "out").exists()
    reverse = job(root, number=1, cases=cases[::-1], with_originals=True)
    reverse.run(Shift())
    assert json.loads((root.parent / "out/generate.json").read_text())["cases"].keys() == {*cases, f"{name}_g0001"}
    job(root, cases=cases, folder="without").run(Shift())
    with pytest.raises(UserError, match=problem):  # what is there counts, too
        job(root, cases=cases, folder="without", with_originals=True)


def test_a_folder_whose_names_have_more_digits_is_continued(root):
    """As earlier versions wrote them with -n 10000."""
    job(root, number=2).run(Shift())
    out = root.parent / "out"
    for path in [*out.glob("*Tr/*_g000*")]:
        path.rename(path.with_name(path.name.replace("_g000", "_g0000")))
    record = (out / "generate.json").read_text().replace("_g000", "_g0000")
    (out / "generate.json").write_text(record)
    shift = Shift()
    job(root, number=3).run(shift)
    assert len(shift.calls) == 1
    names = ["patient001_g00001", "patient001_g0003", "patient002_g00002"]
    assert sorted(path.name[: -len(".nii.gz")] for path in (out / "labelsTr").iterdir()) == names


def test_what_another_command_has_recorded_in_the_meantime_stays_recorded(root):
    first, other = job(root, number=2), job(root, number=3)
    first.run(Shift())
    shift = Shift()
    other.run(shift)
    assert len(shift.calls) == 1
    out = root.parent / "out"
    names = ["patient001_g0001", "patient001_g0003", "patient002_g0002"]
    assert sorted(json.loads((out / "generate.json").read_text())["cases"]) == names
    assert json.loads((out / "dataset.json").read_text())["numTraining"] == 3
    few, again = job(root, number=1, folder="b"), job(root, number=3, folder="b")
    again.run(Shift())
    few.run(Shift())
    assert sorted(json.loads((root.parent / "b/generate.json").read_text())["cases"]) == names


def test_a_folder_that_another_command_has_begun_in_the_meantime_is_refused(root):
    other = job(root, seed=1)
    job(root).run(Shift())
    before = contents(root.parent / "out")
    with pytest.raises(UserError, match="generate.json: tells that what is here was made otherwise .*seed"):
        other.run(Shift())
    assert contents(root.parent / "out") == before


def test_a_command_without_generators_is_refused_if_a_scan_is_no_longer_recorded(root):
    job(root).run(Shift())
    done, path = job(root), root.parent / "out/generate.json"
    record = json.loads(path.read_text())
    del record["cases"]["patient001_g0003"]
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="out: has been changed by another `tfaug generate` .*; run the command again"):
        done.run(None)


def test_a_folder_of_something_else_is_refused_and_left_alone(root):
    (root.parent / "out").mkdir()
    (root.parent / "out/mine.txt").write_text("mine")
    with pytest.raises(UserError, match="out: is not empty"):
        job(root)
    job(root, folder="made").run(Shift())
    with pytest.raises(UserError, match="made otherwise .*seed"):
        job(root, folder="made", seed=2)
    (root.parent / "made/generate.json").write_text("{")
    with pytest.raises(UserError, match="generate.json: is damaged"):
        job(root, folder="made")
    (root.parent / "made/generate.json").write_text('{"tfaug_generate": 1, "cases": {"a": {"source": []}}}')
    with pytest.raises(UserError, match="generate.json: is damaged"):
        job(root, folder="made")
    with pytest.raises(UserError, match="holds the scans"):
        job(root, folder="data")
    assert (root.parent / "out/mine.txt").read_text() == "mine"


def test_c19_a_link_that_leads_nowhere_is_refused(root):
    for target in ("gone/out", "out"):
        (root.parent / "out").symlink_to(target)
        with pytest.raises(UserError, match="out: is a link that leads nowhere; choose an --output that can be"):
            job(root)
        (root.parent / "out").unlink()


def test_scans_of_another_data_set_or_changed_ones_are_not_mixed_in(root):
    """As with another --input, where the cases have the same names."""
    job(root).run(Shift())
    before = contents(root.parent / "out")
    path = root / "patient002/patient002_frame12_gt.nii.gz"
    write_nifti(path, np.minimum(anatomy(1)[1], 2))
    with pytest.raises(UserError, match="generate.json: .* made otherwise .sources.patient002: .*; choose") as error:
        job(root, number=6)
    assert "patient001" not in str(error.value) and "\n" not in str(error.value)
    assert contents(root.parent / "out") == before


def test_a_folder_without_digests_of_its_sources_is_taken_as_it_is_and_gets_them(root):
    job(root).run(Shift())
    whole = contents(root.parent / "out")
    record = json.loads(whole["generate.json"])
    assert list(record.pop("sources")) == list(CASES)
    (root.parent / "out/generate.json").write_text(json.dumps(record))
    job(root).run(None)
    assert contents(root.parent / "out") == whole


@pytest.mark.parametrize("per_slice, draws", [(False, 1), (True, 3)])
def test_the_record_does_not_hold_the_noise_and_one_that_does_is_continued(root, per_slice, draws):
    """It is written after each scan, so that its length decides how long many scans take."""
    job(root, per_slice=per_slice, with_originals=True).run(Shift())
    whole, path = contents(root.parent / "out"), root.parent / "out/generate.json"
    record = json.loads(whole["generate.json"])
    assert len(whole["generate.json"]) < 1200
    assert {name: one["draws"] for name, one in record["cases"].items()} == {
        **dict.fromkeys(CASES, 0),
        **dict.fromkeys(("patient001_g0001", "patient001_g0003", "patient002_g0002"), draws),
    }
    for one in record["cases"].values():  # as earlier versions have written it
        noise = np.random.default_rng([0, one["index"]]).standard_normal((one.pop("draws"), 100), np.float32)
        one["z"] = noise.tolist() or None
    for left_out, calls in (("", 0), ("patient002_g0002", 1)):
        record["cases"].pop(left_out, None)
        path.write_text(json.dumps(record))
        shift = Shift()
        job(root, per_slice=per_slice, with_originals=True).run(shift)
        assert len(shift.calls) == calls
        assert contents(root.parent / "out") == whole


@pytest.fixture
def trained(monkeypatch):
    """Generators without runs, which tell how many slices go through the networks at once."""
    made, seen = generators.Generators([]), []

    def recorded(model):
        return lambda inputs, training: (seen.append(len(inputs[0])), model(inputs, training=training))[1]

    made._models = {kind: recorded(fast_networks.generator(kind, SIZE)) for kind in generators.ORDER}
    return made, seen


def test_slices_go_through_the_networks_in_batches_of_a_bounded_size(trained, monkeypatch):
    made, seen = trained
    prepared = prepare_volume(volume((SIZE, SIZE, 5)), Spec(SIZE, 1.5, 0))
    z = np.random.default_rng(0).standard_normal((5, 100), np.float32)
    whole = made(prepared, z)
    assert seen == [5, 5] and [fields.shape for fields in whole.values()] == [(5, SIZE, SIZE, 2), (5, SIZE, SIZE, 1)]
    seen.clear()
    monkeypatch.setattr(generators, "PIXELS", 2 * SIZE**2)
    for kind, fields in made(prepared, z).items():
        np.testing.assert_allclose(fields, whole[kind], atol=1e-5)
    assert seen == [2, 2, 2, 2, 1, 1]
    monkeypatch.setattr(generators, "PIXELS", 1)
    assert len(made(prepared, z)["deform"]) == 5


def test_p5_too_little_memory_is_the_machines_fault_and_the_same_command_resumes(root, trained, monkeypatch):
    made, _ = trained

    def exhausted(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    with monkeypatch.context() as patch, pytest.raises(MachineError, match="^memory: there is not enough of it; free"):
        patch.setitem(made._models, "deform", exhausted)
        job(root).run(made)

    def no_room(*_):
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MachineError, match="^patient001_g0001: there is too little m"):
        patch.setattr(generation, "apply", no_room)
        job(root).run(made)
    again = job(root)
    assert len(again.waiting) == 3
    again.run(made)


def test_d37_a_source_whose_header_contradicts_itself_is_a_warning(root, caplog):
    for name, array in zip(("frame12", "frame12_gt"), anatomy(1)):
        write_nifti(root / f"patient002/patient002_{name}.nii.gz", array, (1, 1, 1), **sform((1.5, 1.25, 8)))
    job(root).run(Shift())
    (record,) = caplog.records
    assert record.message.startswith("patient002: voxels are 1 x 1 x 1 mm by pixdim (used), 1.5 x 1.25 x 8 mm by the")


def test_sources_of_two_formats_are_refused(root):
    path = root / "patient002/patient002_frame12.nii.gz"
    write_nifti(path.with_suffix(""), anatomy(1)[0])
    path.unlink()
    with pytest.raises(UserError, match="more than one format"):
        job(root)
