"""`tfaug predict`: through the program with a run that is trained here, and with a segmenter that knows the answer."""

import errno
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import weakref

import nibabel
import numpy as np
import pandas as pd
import programs
import pytest
import SimpleITK as sitk
from data_.patients import sform, write_nifti
from test_extending import TINY, scan, tfaug, write, write_msd
from test_faults import failed, no_tensorflow

from tfaug import prediction
from tfaug.data import images, preprocess, readers, traits
from tfaug.data.dataset import DataSet
from tfaug.data.preprocess import Segmentation
from tfaug.data.task import Task
from tfaug.engine import run_dir
from tfaug.engine.errors import MachineError, UserError
from tfaug.engine.signals import Interrupted
from tfaug.experiment import sources
from tfaug.prediction import Job, Options

ROOT = pathlib.Path(__file__).parent.parent
RUN = "runs/own-n1-set1-seg-none-seed0"
TRAINING = (
    *("--aug=none", "--config.segment.num_steps=80", "--config.segment.eval_every=80"),
    *("--config.segment.learning_rate=0.02", "--config.report_every=80", "--config.picture_every=80"),
    *("--config.checkpoint_every=80", "--config.model.filters=8"),  # it must learn something
)
TASK = Task({"anterior": 85, "posterior": 300})
SPACING = (1.5, 1.5, 6.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with data, a run, its evaluation, and the predictions of all its scans."""
    folder = tmp_path_factory.mktemp("world")
    write_msd(folder / "data", TASK.structures)
    tfaug("train", *TINY, *TRAINING, "--config.data.root=data", cwd=folder)
    flags = ("--probabilities", "--overlay", "--score")
    done = tfaug("predict", "-i", "data", "-o", "out", "--run", RUN, *flags, cwd=folder)
    (folder / "printed").write_text(done.stdout + done.stderr)
    return folder


@pytest.fixture(scope="module")
def tested(world):
    """The name of the test case."""
    return pd.read_csv(world / RUN / "evaluation/test/dice.csv").case[0]


def edited_run(world, folder, **changes):
    """A copy of the run with other values in its config; its network fits any image size."""
    shutil.copytree(world / RUN, folder)
    path = folder / "config.json"
    content = json.loads(path.read_text())
    for key, value in changes.items():
        section, _, name = key.partition("__")
        content["config"][section][name] = value
    del content["sha256"]  # with it, the file would be refused
    path.write_text(json.dumps(content))
    return folder


def test_a_prediction_is_what_evaluate_writes_to_the_last_byte(world, tested):
    (mask,) = (world / RUN / "evaluation/test/masks").iterdir()
    assert (world / "out" / f"{tested}.nii.gz").read_bytes() == mask.read_bytes()
    assert set(np.unique(images.read(mask, None).array)) == {0, 85, 300}


def test_every_scan_of_the_data_set_has_its_files_and_the_labelled_ones_scores(world, tested):
    cases = [f"scan{number:02d}" for number in range(6)]
    names = {path.relative_to(world / "out").as_posix() for path in (world / "out").rglob("*") if path.is_file()}
    of_cases = {name for case in cases for name in (f"{case}.nii.gz", f"{case}.npz", f"pictures/{case}.png")}
    scores = {"dice.csv", "indices.csv", "agreement.png", "summary.txt"}
    assert names == of_cases | scores | {"predict.json", "lock"}
    table = pd.read_csv(world / "out/dice.csv")
    assert sorted(set(table.case)) == cases[:5]
    ours = table[table.case == tested].reset_index(drop=True)
    pd.testing.assert_frame_equal(ours, pd.read_csv(world / RUN / "evaluation/test/dice.csv"))
    printed = (world / "printed").read_text()
    assert "6/6" in printed and "left" in printed and "6 masks made" in printed and "warning" not in printed
    assert (world / "out/summary.txt").read_text() in printed


def test_probabilities_are_laid_out_as_nnu_net_has_them(world, tested):
    with np.load(world / f"out/{tested}.npz") as file:
        probabilities = file["probabilities"]
    mask = sitk.GetArrayFromImage(sitk.ReadImage(str(world / f"out/{tested}.nii.gz")))
    assert (probabilities.dtype, probabilities.shape) == (np.float16, (3, *mask.shape))
    np.testing.assert_allclose(probabilities.astype(np.float32).sum(0), 1, atol=2e-3)
    sure = probabilities.max(0) > 0.6
    assert sure.mean() > 0.5
    np.testing.assert_array_equal(np.array([0, 85, 300])[probabilities.argmax(0)][sure], mask[sure])


def test_the_front_door_gives_the_same_mask(world, tested, caplog):
    from tfaug.api import load_segmenter

    segmenter = load_segmenter(world / RUN)
    path = next((world / "data").glob(f"images*/{tested}_0000.nii.gz"))
    np.testing.assert_array_equal(segmenter(path), images.read(world / f"out/{tested}.nii.gz", None).array)
    array = images.read(path).array
    cine = write_nifti(world / "cine.nii.gz", np.stack([array, array[::-1]], axis=-1).astype(np.int16), SPACING)
    assert segmenter(cine).shape == (*array.shape, 2)
    np.testing.assert_array_equal(segmenter(cine)[..., 0], segmenter(path))
    assert not caplog.records
    odd = write_nifti(world / "odd.nii.gz", array.astype(np.int16), (1, 1, 1), **sform(SPACING))
    segmenter(odd)
    (record,) = caplog.records  # D37
    assert record.message.startswith(f"{odd}: voxels are 1 x 1 x 1 mm by pixdim (used), 1.5 x 1.5 x 6 mm by the sform")


def test_probabilities_of_several_runs_are_averaged_on_the_scans_grid(world, tmp_path, tested):
    from tfaug.experiment.segmenters import Segmenter

    other = edited_run(world, tmp_path / "other", data__resolution=1.5, data__image_size=64)
    volume = sources.scans_to_segment(world / "data", sources.config_of_segmenter(other)).series(tested).frames[0]

    def probabilities(*runs):
        segmenter = Segmenter(runs)
        found = segmenter(segmenter.prepare(volume), keep_probabilities=True)
        return found.classes, found.probabilities.astype(np.float32)

    one, two = probabilities(world / RUN)[1], probabilities(other)[1]
    classes, both = probabilities(world / RUN, other)
    assert np.abs(one - two).max() > 0.1
    inside = (slice(2, -2), slice(2, -2))  # at the image's edge a resized slice fades out
    np.testing.assert_allclose(both[inside], ((one + two) / 2)[inside], atol=2e-3)
    sure = both.max(-1) > 0.6
    np.testing.assert_array_equal(classes[sure], both.argmax(-1)[sure])


@pytest.mark.parametrize(
    "changes, problem",
    [
        (
            {"data__structures": [["front", 85], ["posterior", 300]]},
            r"other structures .* \(85 front, .* instead of 85 anterior, .*",
        ),
        ({"data__channels": ["T1", "T2"]}, r"other channels .* \(T1, T2 instead of contrast0\)"),
        ({"data__slice_axis": 0}, r"other slice_axis .* \(0 instead of auto\)"),
    ],
)
def test_runs_that_do_not_agree_are_refused(world, tmp_path, changes, problem):
    other = edited_run(world, tmp_path / "other", **changes)
    with pytest.raises(UserError, match=f"other: has {problem}; name runs that agree"):
        sources.configs_of_segmenters([world / RUN, other])


def test_a_scan_unlike_the_training_data_is_a_warning_and_one_that_cannot_be_used_is_reported_last(world, tmp_path):
    image, _ = scan(9)
    write_nifti(tmp_path / "coarse.nii", image, (1.5, 1.5, 20.0))
    write_nifti(tmp_path / "like.nii", image, SPACING)
    write_nifti(tmp_path / "a_damaged.nii", image, SPACING, datatype=32)
    flags = ("--run", str(world / RUN), "--keep-largest=all")
    done = tfaug("predict", "-i", ".", "-o", "masks", *flags, cwd=tmp_path, status=2)
    warning, error = done.stderr.splitlines()
    assert warning == "warning: coarse: slices are 20 mm apart, in the training data 6"
    assert error.startswith("error: a_damaged.nii: ")
    assert {path.name for path in (tmp_path / "masks").iterdir()} == {"coarse.nii", "like.nii", "predict.json", "lock"}
    record = json.loads((tmp_path / "masks/predict.json").read_text())
    assert record["cases"]["coarse"]["warnings"] == ["coarse: slices are 20 mm apart, in the training data 6"]


def test_c17_a_tilde_is_the_users_folder(world, tmp_path):
    """In --flag=~/folder the shell leaves it alone; all masks are there, so that no network is loaded."""
    command = [sys.executable, "-m", "tfaug", "predict", "--input=~/data", "--output=~/out", f"--run=~/{RUN}"]
    environment = {**os.environ, "HOME": str(world)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"{world / 'out'}: 0 masks made, 6 there before\n")
    assert not list(tmp_path.iterdir())


def unfinished(world, folder):
    (edited_run(world, folder / "run") / "report.json").unlink()
    return {"run": "run"}


def a_generators(world, folder):
    run = edited_run(world, folder / "run")
    content = json.loads((run / "config.json").read_text())
    del content["config"]["segment"]
    (run / "config.json").write_text(json.dumps(content))
    return {"run": "run"}


def foreign(world, folder):
    (folder / "run").mkdir()
    (folder / "run/thesis.tex").write_text("mine")
    return {"run": "run"}


def unknown_user(world, folder):
    return {"run": "~no_such_user/run"}


def no_folder(world, folder):
    (folder / "masks").write_text("mine")
    return {}


def read_only(world, folder):
    return {"output": "/proc/masks"}


def a_dangling_link(world, folder):
    (folder / "masks").symlink_to("gone/masks")
    return {}


def a_link_in_a_circle(world, folder):
    (folder / "masks").symlink_to("masks")
    return {}


def an_input_in_a_circle(world, folder):
    (folder / "scans").symlink_to("scans")
    return {"input": "scans"}


def an_empty_folder(world, folder):
    (folder / "empty").mkdir()
    return {"input": "empty"}


def another_format(world, folder):
    (folder / "scan.dcm").write_bytes(b"DICM")
    return {"input": "scan.dcm"}


def other_channels(world, folder):
    write_msd(folder / "two", TASK.structures, num_cases=1, channels=2)
    return {"input": "two"}


def masks_of_somebody_else(world, folder):
    (folder / "masks").mkdir()
    (folder / "masks/scan05.nii.gz").write_bytes(b"mine")
    return {}


def among_the_scans(world, folder):
    return {"output": world / "data/imagesTs"}


def no_input(world, folder):
    return {"input": "nothing"}


def no_label(world, folder):
    return {"score": "True"}


def another_structure(world, folder):
    return {"keep-largest": "anteriorr"}


def a_flag_of_another_command(world, folder):
    return {"aug": "aff"}


def a_missing_flag(world, folder):
    return {"output": ""}


REFUSED = [
    (unfinished, 2, "run: there is no trained segmenter"),
    (a_generators, 2, "run: learns a generator"),
    (foreign, 2, "run: there is no trained segmenter"),
    (unknown_user, 2, "~no_such_user/run: there is no trained segmenter"),
    (no_folder, 2, "masks: is not a folder; choose another --output"),
    (read_only, 3, "/proc/masks: .*; choose an --output that can be written"),
    (a_dangling_link, 2, "masks: is a link that leads nowhere; choose an --output that can be written"),
    (a_link_in_a_circle, 2, "masks: is a link that leads nowhere; choose an --output that can be written"),
    (an_input_in_a_circle, 2, "scans: does not exist"),
    (an_empty_folder, 2, "empty: holds no scans; give scans in files that end in .nii.gz"),
    (another_format, 2, "scan.dcm: is in no format that tfaug reads; give scans in files that end in .nii.gz"),
    (other_channels, 2, "two: has 2 channels .contrast0, contrast1., the run takes 1; give scans with contrast0"),
    (masks_of_somebody_else, 2, "masks/scan05.nii.gz: is there already, .* add --overwrite"),
    (among_the_scans, 2, "imagesTs: holds files that are to be read"),
    (no_input, 2, "nothing: does not exist"),
    (no_label, 2, "--score: no scan of .*imagesTs has a label"),
    (another_structure, 2, "--keep-largest: .* did you mean 'anterior'?"),
    (a_flag_of_another_command, 2, "--aug: unknown flag"),
    (a_missing_flag, 2, "--output: is missing"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Runs the command where TensorFlow cannot be imported."""
    path = f"{no_tensorflow(tmp_path_factory.mktemp('none'))}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    server = programs.Server(programs.LIGHT_ROOMS, {"PYTHONPATH": path})
    yield server
    server.close()


@pytest.mark.parametrize("inject, status, expect", REFUSED, ids=[row[0].__name__ for row in REFUSED])
def test_what_cannot_be_used_is_one_line_before_tensorflow_loads(world, server, tmp_path, inject, status, expect):
    values = {"input": world / "data/imagesTs", "output": "masks", "run": world / RUN, **inject(world, tmp_path)}
    before = sorted(tmp_path.rglob("*"))
    done = server.run("tfaug", "predict", *(f"--{name}={value}" for name, value in values.items()), cwd=tmp_path)
    assert re.search(expect, failed(done, status)), done.stderr
    assert {*tmp_path.rglob("*")} == {*before}


@pytest.fixture(scope="module")
def coded(world, tmp_path_factory):
    """Copies of the data whose dataset.json gives the structures other values."""

    def make(**labels):
        folder = tmp_path_factory.mktemp("coded") / "data"
        shutil.copytree(world / "data", folder)
        content = json.loads((folder / "dataset.json").read_text())
        content["labels"] = {"background": 0, **labels}
        (folder / "dataset.json").write_text(json.dumps(content))
        return folder

    return make


OTHER_CODING = "data: marks structures by other values than the run, 85 posterior, 300 anterior instead of 300"


def test_scores_of_labels_with_other_values_are_refused(world, coded, server):
    swapped = coded(anterior=300, posterior=85)
    flags = [f"--input={swapped}", f"--output={swapped.parent / 'out'}", f"--run={world / RUN}"]
    assert OTHER_CODING in failed(server.run("tfaug", "predict", *flags, "--score", cwd=world), 2)
    config = sources.config_of_segmenter(world / RUN)
    assert len(sources.scans_to_segment(swapped, config).reader.scans()) == 6  # without scores, labels do not count
    done = tfaug("evaluate", "--run", RUN, f"--config.data.root={swapped}", cwd=world, status=2)
    assert OTHER_CODING in done.stderr


def refusal(act):
    with pytest.raises(UserError) as caught:
        act()
    return str(caught.value)


def test_structures_of_other_names_are_a_warning_and_of_no_name_nothing(world, coded, caplog):
    config = sources.config_of_segmenter(world / RUN)
    sources.scans_to_segment(coded(anterior=85, posterior=300), config, labels=True)
    sources.scans_to_segment(coded(anterior=85), config, labels=True)
    assert not caplog.records
    sources.scans_to_segment(coded(front=85, posterior=300), config, labels=True)
    (record,) = caplog.records
    assert record.message.endswith("the value 85 is 'front' here, and 'anterior' in the run")


def test_channels_in_another_order_are_refused(tmp_path):
    data = write_msd(tmp_path / "data", TASK.structures, num_cases=1, unlabelled=0, channels=2)
    reader = readers.find(data, {"reader": ""})
    sources.refuse_other_coding(reader, Task(TASK.structures, ("contrast0", "contrast1")))
    sources.refuse_other_coding(reader, Task(TASK.structures, ("MR", "CT")))
    problem = "data: has the channels contrast0, contrast1, in another order than the run, contrast1, contrast0"
    swapped = Task(TASK.structures, ("contrast1", "contrast0"))
    assert problem in refusal(lambda: sources.refuse_other_coding(reader, swapped))


def test_a_layout_with_a_usual_coding_knows_nothing_of_a_folders_own(tmp_path):
    """As the scans of M&Ms, which some keep in ACDC's layout, with other values."""
    (tmp_path / "patient001").mkdir()
    reader = readers.acdc.Reader(tmp_path, {})
    sources.refuse_other_coding(reader, Task({"LV": 1, "Myo": 2, "RV": 3}, reader.channels()))


# With a segmenter that knows the answer.


class Oracle:
    """Finds the structures by their intensities; no two scans may be in memory."""

    def __init__(self):
        self.seen, self.images = [], {}

    def prepare(self, volume):
        self.seen.append(volume.case)
        self.images.setdefault(volume.case, weakref.ref(volume.image.base))
        assert [case for case, image in self.images.items() if image() is not None] == [volume.case]
        preprocess.check(volume)
        return volume.image[..., 0]

    def __call__(self, prepared, keep_probabilities=False):
        classes = np.digitize(prepared, (100, 200)).astype(np.uint8)
        return Segmentation(classes, np.eye(3, dtype=np.float16)[classes] if keep_probabilities else None)

    def unlike(self, prepared):
        return {}


def answer(seed=0, shape=(30, 28, 4)):
    """A scan whose structures have the intensities 150 and 250, and its mask."""
    _, label = scan(seed, (85, 300), shape)
    noise = np.random.default_rng(seed).integers(0, 50, shape)
    return (np.select([label == 85, label == 300], [100, 200]) + 25 + noise // 2).astype(np.int16), label


def plain(folder, *names):
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        write(folder / name, answer(seed)[0])
    return folder


MASKS = Options()


def job(folder, out, options=MASKS, runs=("a",), task=TASK):
    reader = readers.find(folder, {"channels": task.channels, "reader": "acdc"})
    return Job(DataSet(reader, task), out, runs, options)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_a_mask_has_the_scans_name_format_and_geometry(tmp_path, ending):
    plain(tmp_path / "in", f"heart{ending}")
    job(tmp_path / "in", tmp_path / "out").run(Oracle())
    ours, theirs = (sitk.ReadImage(str(tmp_path / side / f"heart{ending}")) for side in ("out", "in"))
    assert ours.IsSameImageGeometryAs(theirs, 1e-6, 1e-6)
    array = sitk.GetArrayFromImage(ours).T
    assert array.dtype == np.uint16
    np.testing.assert_array_equal(array, answer()[1])


def test_d37_a_header_that_contradicts_itself_is_a_warning_that_is_recorded(tmp_path, caplog):
    plain(tmp_path / "in", "sound.nii")
    write_nifti(tmp_path / "in/odd.nii", answer()[0], (1, 1, 1), **sform(SPACING))
    job(tmp_path / "in", tmp_path / "out").run(Oracle())
    expected = "odd: voxels are 1 x 1 x 1 mm by pixdim (used), 1.5 x 1.5 x 6 mm by the sform of odd.nii"
    assert [record.message for record in caplog.records] == [expected]
    record = json.loads((tmp_path / "out/predict.json").read_text())
    assert {case: one["warnings"] for case, one in record["cases"].items()} == {"odd": [expected], "sound": []}


@pytest.mark.parametrize("axis", [0, 2])
def test_each_frame_of_a_4d_scan_is_segmented(tmp_path, axis):
    """The mask is 4D, with the scan's slices, spacing, frames and time step."""
    pairs = [answer(seed, (30, 28, 4)) for seed in range(3)]
    pairs[1] = tuple(array[::-1] for array in pairs[1])
    image, label = (np.stack([np.moveaxis(array, 2, axis) for array in arrays], -1) for arrays in zip(*pairs))
    spacing = tuple(np.insert([1.5, 1.5], axis, 6.0))
    (tmp_path / "in").mkdir()
    write_nifti(tmp_path / "in/cine.nii.gz", image, spacing, pixdim=[1, *spacing, 0.04, 0, 0, 0], xyzt_units=10)
    oracle, options = Oracle(), Options(probabilities=True, overlay=True)
    job(tmp_path / "in/cine.nii.gz", tmp_path / "out", options).run(oracle)
    assert oracle.seen == ["cine"] * 3
    mask = nibabel.load(tmp_path / "out/cine.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj), label)
    np.testing.assert_allclose(mask.header.get_zooms(), (*spacing, 0.04), rtol=1e-6)
    with np.load(tmp_path / "out/cine.npz") as file:
        assert file["probabilities"].shape == (3, *label.T.shape)
        np.testing.assert_array_equal(np.array([0, 85, 300])[file["probabilities"].argmax(0)], label.T)
    assert (tmp_path / "out/pictures/cine.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "names, channels, cases",
    [
        (["b.nii", "a.nii.gz", "a.b.mha"], 1, {"a": 1, "a.b": 1, "b": 1}),
        (["a_0000.nii", "b_0000.nii"], 1, {"a": 1, "b": 1}),
        (["a_0001.nii", "a_0002.nii"], 1, {"a_0001": 1, "a_0002": 1}),  # numbers of scans
        (["a_0000.nii", "a_0001.nii"], 1, {"a_0000": 1, "a_0001": 1}),
        (["a_0000.nii", "a_0001.nii", "b_0000.nii", "b_0001.nii"], 2, {"a": 2, "b": 2}),
        (["a.nii", "b_0000.nii"], 2, {"a": 1, "b_0000": 1}),
    ],
)
def test_files_of_a_folder_are_scans_and_nnu_nets_numbers_channels(tmp_path, names, channels, cases):
    for name in (*names, "notes.txt", ".part-c.nii", "._a.nii"):
        (tmp_path / name).write_bytes(b"")
    reader = readers.find(tmp_path, {"channels": tuple("xyz"[:channels]), "reader": "msd"})
    assert {case: len(reader.locate(case, label=False).images) for case in reader.scans()} == cases


def test_the_first_channels_file_stands_for_its_scan(tmp_path):
    for name in ("a_0000.nii", "a_0001.nii", "b_0000.nii"):
        (tmp_path / name).write_bytes(b"")
    options = {"channels": ("x", "y")}
    reader = readers.find(tmp_path / "a_0000.nii", options)
    assert [path.name for path in reader.locate("a", label=False).images] == ["a_0000.nii", "a_0001.nii"]
    with pytest.raises(UserError, match=r"b_0001.nii: is missing \(the channel y\)"):
        readers.find(tmp_path / "b_0000.nii", options).locate("b", label=False)


def test_a_scan_with_other_channels_does_not_keep_the_others_from_their_masks(tmp_path):
    folder = plain(tmp_path / "in", "a_0000.nii", "b_0000.nii", "c_0000.nii", "c_0001.nii", "c_0002.nii")
    write(folder / "a_0001.nii", answer()[0])
    with pytest.raises(UserError, match=r"b_0001.nii: is missing \(the channel T2\), and there is 1 more problem"):
        job(folder, tmp_path / "out", task=Task(TASK.structures, ("T1", "T2"))).run(Oracle())
    np.testing.assert_array_equal(images.read(tmp_path / "out/a.nii", None).array, answer()[1])
    assert not list((tmp_path / "out").glob("[bc]*"))


def test_a_record_that_is_damaged_vouches_for_nothing(tmp_path):
    folder, out = plain(tmp_path / "in", "a.nii"), tmp_path / "out"
    job(folder, out).run(Oracle())
    for content in ("", "[]", '{"tfaug_predict": 1, "cases": {"a": 3}}'):
        (out / "predict.json").write_text(content)
        with pytest.raises(UserError, match="out/a.nii: is there already"):
            job(folder, out)
    job(folder, out, Options(overwrite=True)).run(Oracle())
    assert job(folder, out).waiting == []


def test_a_data_set_needs_no_labels(tmp_path):
    write_msd(tmp_path, {"a": 1}, num_cases=2)
    shutil.rmtree(tmp_path / "labelsTr")
    for reader in ("msd", "acdc", ""):
        assert readers.find(tmp_path, {"reader": reader}).scans() == ("scan00", "scan01", "scan02")


def test_one_bad_scan_of_several_is_reported_at_the_end_and_the_others_are_written(tmp_path, capsys):
    folder = plain(tmp_path / "in", *(f"scan{number}.nii" for number in range(5)))
    (folder / "scan1.nii").write_bytes(b"no NIfTI")
    write(folder / "scan3.nii", np.full((30, 28, 4), 7, np.int16))
    oracle = Oracle()
    with pytest.raises(
        UserError, match=r"scan1.nii: is not a NIfTI file, and there is 1 more problem; .* listed above"
    ):
        job(folder, tmp_path / "out").run(oracle)
    printed = capsys.readouterr().out
    assert "3 masks made" in printed and "scan3.nii  has no contrast" in printed
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii")) == ["scan0.nii", "scan2.nii", "scan4.nii"]

    plain(folder, "scan1.nii", "scan3.nii")
    again = job(folder, tmp_path / "out")
    assert again.waiting == ["scan1", "scan3"]
    assert again.run(Oracle()) == f"{tmp_path / 'out'}: 2 masks made, 3 there before"
    assert job(folder, tmp_path / "out").run(None) == f"{tmp_path / 'out'}: 0 masks made, 5 there before"


def test_finished_masks_stay_unless_they_are_to_be_overwritten_or_more_is_wanted(tmp_path):
    folder, out = plain(tmp_path / "in", "a.nii", "b.nii"), tmp_path / "out"
    job(folder, out).run(Oracle())
    assert job(folder, out).waiting == []
    assert job(folder, out, Options(overwrite=True)).waiting == ["a", "b"]
    assert job(folder, out, Options(overlay=True)).waiting == ["a", "b"]
    (out / "a.nii").unlink()
    assert job(folder, out).waiting == ["a"]
    for changed in ({"runs": ("b",)}, {"options": Options(keep_largest=("anterior",))}):
        with pytest.raises(UserError, match="predict.json: tells that the masks here were made otherwise"):
            job(folder, out, **changed)
    assert job(folder, out, Options(overwrite=True), ("b",)).waiting == ["a", "b"]


def corrected(out, name, number=7):
    """Makes a mask another one, as by hand; returns its bytes."""
    images.write(out / name, np.roll(images.read(out / name, None).array, number, axis=0), out / name)
    return (out / name).read_bytes()


def test_a_corrected_mask_stays_when_more_is_wanted_and_its_picture_shows_it(tmp_path):
    folder, out = plain(tmp_path / "in", "a.nii"), tmp_path / "out"
    more = Options(probabilities=True, overlay=True)
    job(folder, out).run(Oracle())
    job(folder, tmp_path / "other", more).run(Oracle())
    before = corrected(out, "a.nii")
    assert job(folder, out, more).run(Oracle()) == f"{out}: 0 masks made, 1 there before"
    assert (out / "a.nii").read_bytes() == before
    assert (out / "a.npz").read_bytes() == (tmp_path / "other/a.npz").read_bytes()
    assert (out / "pictures/a.png").read_bytes() != (tmp_path / "other/pictures/a.png").read_bytes()
    assert job(folder, out, more).waiting == []


def test_the_picture_of_a_mask_that_is_there_is_that_of_a_new_one(tmp_path):
    """Also of a series of frames."""
    label = np.stack([answer(seed)[0] for seed in range(2)], -1)
    (tmp_path / "in").mkdir()
    write_nifti(tmp_path / "in/cine.nii", np.moveaxis(label, 2, 0), (6.0, 1.5, 1.5))
    plain(tmp_path / "in", "a.nii")
    job(tmp_path / "in", tmp_path / "later").run(Oracle())
    for out in ("later", "at_once"):
        job(tmp_path / "in", tmp_path / out, Options(overlay=True)).run(Oracle())
    for name in ("a", "cine"):
        pictures = [(tmp_path / out / f"pictures/{name}.png").read_bytes() for out in ("later", "at_once")]
        assert pictures[0] == pictures[1]


def test_a_corrected_mask_that_cannot_be_drawn_is_one_line(tmp_path):
    folder, out = plain(tmp_path / "in", "a.nii"), tmp_path / "out"
    job(folder, out).run(Oracle())
    write(out / "a.nii", np.full((30, 28, 4), 9, np.uint8))
    before = (out / "a.nii").read_bytes()
    with pytest.raises(UserError, match="out/a.nii: holds the label 9 in 3360 voxels; use 0 background, 85 anterior"):
        job(folder, out, Options(overlay=True)).run(Oracle())
    assert (out / "a.nii").read_bytes() == before


def cropped(image):
    return image.slicer[:, :, :3]


def stored_otherwise(image):
    """The same anatomy with another order and other directions of the axes, as some viewers save it."""
    return image.as_reoriented([[1, 1], [0, -1], [2, 1]])


def mirrored(image):
    """Of the shape that the scan has."""
    return image.as_reoriented([[0, -1], [1, 1], [2, 1]])


def resampled(image):
    return nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine @ np.diag([1.1, 1, 1, 1]))


def moved(image):
    return nibabel.Nifti1Image(
        np.asarray(image.dataobj), nibabel.affines.from_matvec(np.eye(3), [3, 0, 0]) @ image.affine
    )


def several(image):
    return nibabel.Nifti1Image(np.stack([np.asarray(image.dataobj)] * 2, -1), image.affine)


@pytest.mark.parametrize(
    "change, expect",
    [
        (cropped, r"has the shape \(30, 28, 3\), its scan \(30, 28, 4\)"),
        (stored_otherwise, r"has the shape \(28, 30, 4\), its scan \(30, 28, 4\)"),
        (mirrored, "is mirrored or rotated against its scan"),
        (resampled, "has the voxel size"),
        (moved, "lies 3 mm away from its scan"),
        (several, "has 2 frames, its scan 1"),
    ],
)
@pytest.mark.parametrize("options", [Options(overlay=True), Options(score=True)], ids=["overlay", "score"])
def test_a_corrected_mask_that_is_not_on_its_scans_grid_is_neither_drawn_nor_scored(tmp_path, change, expect, options):
    data, out, task = labelled_data(tmp_path / "data"), tmp_path / "out", Task(TASK.structures, ("contrast0",))
    affine = nibabel.affines.from_matvec(np.diag(SPACING), [40, -30, 20])
    for folder in ("imagesTr", "labelsTr"):
        for path in (data / folder).iterdir():
            nibabel.save(nibabel.Nifti1Image(np.asarray(nibabel.load(path).dataobj), affine), path)
    job(data, out, task=task).run(Oracle())
    mask = nibabel.load(out / "scan00.nii.gz")
    mask = nibabel.Nifti1Image(np.asarray(mask.dataobj), mask.affine)
    nibabel.save(change(mask), out / "scan00.nii.gz")
    before = (out / "scan00.nii.gz").read_bytes()
    problem = rf"out/scan00.nii.gz: {expect}.*; save it on the scan's grid, or remove it"
    with pytest.raises(UserError, match=problem) as caught:
        job(data, out, options, task=task).run(Oracle())
    assert "\n" not in str(caught.value) and (out / "scan00.nii.gz").read_bytes() == before
    assert not (out / "pictures/scan00.png").exists()
    if options.score:
        assert {*pd.read_csv(out / "dice.csv").case} == {"scan01"}
    nibabel.save(mask, out / "scan00.nii.gz")
    job(data, out, options, task=task).run(Oracle())
    (out / "scan00.nii.gz").unlink()
    assert job(data, out, options, task=task).run(Oracle()).startswith(f"{out}: 1 mask made, 1 there before")


def test_a_corrected_mask_of_a_series_has_its_frames(tmp_path):
    (tmp_path / "in").mkdir()
    series = np.stack([answer(seed)[0] for seed in range(3)], -1)
    write_nifti(tmp_path / "in/cine.nii", series, SPACING)
    job(tmp_path / "in", tmp_path / "out").run(Oracle())
    mask = images.read(tmp_path / "out/cine.nii", None, channels=None).array
    for frames, problem in ((mask[..., :2], "has 2 frames, its scan 3"), (mask[..., 0], "has 1 frame, its scan 3")):
        write_nifti(tmp_path / "out/cine.nii", frames, SPACING)
        with pytest.raises(UserError, match=f"out/cine.nii: {problem}; save it on the scan's grid"):
            job(tmp_path / "in", tmp_path / "out", Options(overlay=True)).run(Oracle())


@pytest.mark.parametrize("name, options", [("b.nii", MASKS), ("a.npz", Options(probabilities=True))])
def test_a_file_that_is_not_in_the_record_is_not_replaced(tmp_path, name, options):
    folder, out = plain(tmp_path / "in", "a.nii"), tmp_path / "out"
    job(folder, out).run(Oracle())
    plain(folder, "a.nii", "b.nii")
    (out / name).write_bytes(b"mine")
    with pytest.raises(UserError, match=rf"out/{name}: is there already, and no .* recorded it; move it away, .*"):
        job(folder, out, options)
    job(folder, out, options._replace(overwrite=True)).run(Oracle())
    assert (out / name).read_bytes() != b"mine"


@pytest.mark.parametrize("options", [MASKS, Options(overlay=True)])
def test_a_mask_of_another_scan_of_that_name_is_not_taken_for_this_ones(tmp_path, options):
    folder, out = plain(tmp_path / "in", "a.nii"), tmp_path / "out"
    job(folder, out).run(Oracle())
    before = (out / "a.nii").read_bytes()
    for other in (tmp_path / "elsewhere", folder):  # in another folder, and changed where it is
        other.mkdir(exist_ok=True)
        write(other / "a.nii", answer(5)[0])
        problem = "a.nii: was made of another scan than .*/a.nii, or before that was changed"
        with pytest.raises(UserError, match=rf"{out}/{problem}; move it away, choose another --output, or add --over"):
            job(other, out, options)
    assert (out / "a.nii").read_bytes() == before
    job(folder, out, options._replace(overwrite=True)).run(Oracle())
    np.testing.assert_array_equal(images.read(out / "a.nii", None).array, answer(5)[1])
    assert job(folder, out, options).waiting == []


def test_probabilities_of_another_scan_are_not_lost_when_a_mask_has_been_moved_away(tmp_path):
    folder, out = plain(tmp_path / "in", "a.nii"), tmp_path / "out"
    job(folder, out, Options(probabilities=True)).run(Oracle())
    write(folder / "a.nii", answer(5)[0])
    (out / "a.nii").unlink()
    with pytest.raises(UserError, match="out/a.npz: was made of another scan"):
        job(folder, out)
    (out / "a.npz").unlink()
    assert job(folder, out).run(Oracle()) == f"{out}: 1 mask made"


def test_a_renamed_folder_of_scans_and_a_record_without_scans_keep_their_masks(tmp_path):
    folder, out = plain(tmp_path / "in", "a.nii"), tmp_path / "out"
    job(folder, out).run(Oracle())
    assert job(folder.rename(tmp_path / "renamed"), out).waiting == []
    record = json.loads((out / "predict.json").read_text())
    del record["cases"]["a"]["scan"]  # as an earlier version has written it
    (out / "predict.json").write_text(json.dumps(record))
    write(tmp_path / "renamed/a.nii", answer(5)[0])
    assert job(tmp_path / "renamed", out).waiting == []


def test_a_scan_that_cannot_be_compared_is_reported_and_its_mask_stays(tmp_path):
    folder, out = plain(tmp_path / "in", "a.nii", "b.nii"), tmp_path / "out"
    job(folder, out).run(Oracle())
    before = (out / "a.nii").read_bytes()
    (folder / "a.nii").unlink()
    (folder / "a.nii").mkdir()
    with pytest.raises(UserError, match="in/a.nii: is not a regular file"):
        job(folder, out).run(None)
    assert (out / "a.nii").read_bytes() == before


def labelled_data(folder):
    """A data set of two scans with labels, in nnU-Net's layout."""
    write_msd(folder, TASK.structures, num_cases=2, unlabelled=0)
    for number in range(2):
        image, label = answer(number)
        write(folder / f"imagesTr/scan{number:02d}_0000.nii.gz", image)
        write(folder / f"labelsTr/scan{number:02d}.nii.gz", label)
    return folder


ALL = Options(probabilities=True, overlay=True, score=True)
BESIDE = {"scan00.npz", "scan01.npz", "pictures/scan00.png", "pictures/scan01.png"}
SCORES = {"dice.csv", "indices.csv", "agreement.png", "summary.txt"}


def names(out):
    """All that lies in a folder of two masks, but for these and what is always there."""
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    always = {"scan00.nii.gz", "scan01.nii.gz", "predict.json", "lock"}
    assert found >= always
    return found - always


@pytest.mark.parametrize("runs", [("a",), ("b",)])
@pytest.mark.parametrize("options", [MASKS, Options(overlay=True, score=True)])
def test_nothing_stays_beside_masks_that_was_made_with_those_before(tmp_path, runs, options):
    data, out, task = labelled_data(tmp_path / "data"), tmp_path / "out", Task(TASK.structures, ("contrast0",))
    job(data, out, ALL, task=task).run(Oracle())
    (out / "notes.txt").write_text("mine")
    assert names(out) == BESIDE | SCORES | {"notes.txt"}
    with open(out / "dice.csv") as before:
        job(data, out, options._replace(overwrite=True), runs, task).run(Oracle())
        assert os.fstat(before.fileno()).st_nlink == 0
    made = {"pictures/scan00.png", "pictures/scan01.png"} | SCORES if options.score else set()
    assert names(out) == made | {"notes.txt"}
    assert job(data, out, options, runs, task).waiting == []


def test_what_lies_beside_masks_and_is_not_in_the_record_stays(tmp_path):
    data, out, task = labelled_data(tmp_path / "data"), tmp_path / "out", Task(TASK.structures, ("contrast0",))
    job(data, out, task=task).run(Oracle())
    mine = {"scan00.npz", *SCORES}
    for name in mine:
        (out / name).write_text("mine")
    for runs in ("a", "b"):
        job(data, out, Options(overwrite=True), runs, task).run(Oracle())
    assert names(out) == mine and {(out / name).read_text() for name in mine} == {"mine"}


def test_masks_do_not_mingle_with_labels_nor_with_scans_behind_links(tmp_path):
    data, task = labelled_data(tmp_path / "data"), Task(TASK.structures, ("contrast0",))
    (tmp_path / "links").mkdir()
    (tmp_path / "links/a.nii.gz").symlink_to(data / "imagesTr/scan00_0000.nii.gz")
    for scans, out in ((data, data / "labelsTr"), (tmp_path / "links", data / "imagesTr")):
        with pytest.raises(UserError, match=f"{out}: holds files that are to be read"):
            job(scans, out, Options(overwrite=True), task=task)


def test_d26_a_link_in_a_circle_does_not_keep_other_scans_from_their_masks(tmp_path):
    folder = plain(tmp_path / "in", "a.nii", "c.nii")
    (folder / "b.nii").symlink_to("b.nii")
    with pytest.raises(UserError, match="in/b.nii: cannot be read .*; check that it exists"):
        job(folder, tmp_path / "out").run(Oracle())
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii")) == ["a.nii", "c.nii"]


def test_d42_scans_in_formats_that_are_not_read_are_reported(tmp_path, capsys):
    folder = plain(tmp_path / "in", "a.nii", "e.nii")
    for name in ("b.mhd", "b.raw", "c.hdr", "c.img", "d.nhdr", "e.mhd", ".f.mhd", "readme.txt"):
        (folder / name).write_bytes(b"")
    with pytest.raises(UserError, match="in/b.mhd: is in a format that tfaug does not read, and there are 2 more prob"):
        job(folder, tmp_path / "out").run(Oracle())
    assert sorted(path.name for path in (tmp_path / "out").glob("*.*")) == ["a.nii", "e.nii", "predict.json"]
    printed = capsys.readouterr().out
    assert "2 masks made" in printed and "save it as one file that ends in .nii.gz, .nii, .nrrd, .mha" in printed


def test_labels_need_not_fit_where_they_are_not_used(tmp_path):
    data, task = labelled_data(tmp_path / "data"), Task(TASK.structures, ("contrast0",))
    (data / "imagesTr/scan00_0000.nii.gz").unlink()
    job(data, tmp_path / "out", task=task).run(Oracle())
    assert names_of_masks(tmp_path / "out") == {"scan01.nii.gz"}
    with pytest.raises(UserError, match="labelsTr/scan00.nii.gz: has no image in imagesTr"):
        job(data, tmp_path / "scored", Options(score=True), task=task)
    (data / "imagesTr").rename(data / "imagesTs")
    job(data, tmp_path / "of_test", task=task).run(Oracle())
    assert names_of_masks(tmp_path / "of_test") == {"scan01.nii.gz"}


def names_of_masks(out):
    return {path.name for path in out.glob("*.nii.gz")}


@pytest.mark.parametrize("name", sorted(SCORES))
def test_scores_of_somebody_else_are_not_replaced(tmp_path, name):
    data, out, task = labelled_data(tmp_path / "data"), tmp_path / "out", Task(TASK.structures, ("contrast0",))
    job(data, out, task=task).run(Oracle())
    (out / name).write_text("mine")
    with pytest.raises(UserError, match=rf"out/{name}: is there already, and no .* recorded it; move it away, .*"):
        job(data, out, Options(score=True), task=task)
    job(data, out, Options(score=True, overwrite=True), task=task).run(Oracle())
    assert (out / name).read_bytes() != b"mine"
    job(data, out, Options(score=True), task=task).run(Oracle())


def test_scores_go_when_a_mask_that_was_moved_away_is_made_again_and_stay_when_one_is_added(tmp_path):
    data, out, task = labelled_data(tmp_path / "data"), tmp_path / "out", Task(TASK.structures, ("contrast0",))
    job(data, out, Options(score=True), task=task).run(Oracle())
    write(data / "imagesTr/scan02_0000.nii.gz", answer(2)[0])
    job(data, out, task=task).run(Oracle())
    assert names(out) == SCORES | {"scan02.nii.gz"}
    (out / "scan00.nii.gz").unlink()
    job(data, out, task=task).run(Oracle())
    assert names(out) == {"scan02.nii.gz"}


def test_when_overwriting_stops_what_is_still_of_other_runs_is_made_again_and_its_files_go(tmp_path):
    data, out, task = labelled_data(tmp_path / "data"), tmp_path / "out", Task(TASK.structures, ("contrast0",))
    job(data, out, ALL, task=task).run(Oracle())
    before = (data / "imagesTr/scan00_0000.nii.gz").read_bytes()
    write(data / "imagesTr/scan00_0000.nii.gz", np.full((30, 28, 4), 7, np.int16))
    overwriting = job(data, out, Options(overwrite=True, score=True), ("b",), task)
    with pytest.raises(UserError, match="scan00_0000.nii.gz: has no contrast"):
        overwriting.run(Oracle())
    assert {*pd.read_csv(out / "dice.csv").case} == {"scan01"}  # the other mask is not of these runs
    assert names(out) == {"scan00.npz", "pictures/scan00.png"} | SCORES
    (data / "imagesTr/scan00_0000.nii.gz").write_bytes(before)
    again = job(data, out, runs=("b",), task=task)
    assert again.waiting == ["scan00"]
    again.run(Oracle())
    assert names(out) == set()


def test_overwriting_leaves_no_mask_that_was_made_otherwise_and_that_no_record_knows(tmp_path):
    folder, out = plain(tmp_path / "in", "a.nii", "b.nii", "c.nii"), tmp_path / "out"
    job(folder, out, Options(probabilities=True, overlay=True)).run(Oracle())
    (folder / "b.nii").unlink()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    problem = f"{out}/b.nii: was made otherwise, like 2 other files, and would not be made again; move it away, or"
    for options, runs in ((Options(keep_largest=("anterior",), overwrite=True), "a"), (Options(overwrite=True), "b")):
        with pytest.raises(UserError, match=problem):
            job(folder, out, options, runs)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    job(folder, out, Options(overwrite=True)).run(Oracle())  # nothing was made otherwise
    assert {*json.loads((out / "predict.json").read_text())["cases"]} == {"a", "b", "c"}
    for name in ("b.nii", "b.npz", "pictures/b.png"):
        (out / name).unlink()
    job(folder, out, Options(overwrite=True), ("b",)).run(Oracle())
    assert {*json.loads((out / "predict.json").read_text())["cases"]} == {"a", "c"}


def test_nor_one_whose_name_would_be_another(tmp_path):
    """As that of the other phase of a heart."""
    folder, out = plain(tmp_path / "in", "a.nii", "b.nii"), tmp_path / "out"
    reader = readers.find(folder, {"channels": TASK.channels})
    Job(DataSet(reader, TASK), out, ["a"], MASKS, "ES").run(Oracle())
    with pytest.raises(UserError, match=f"{out}/a_ES.nii: was made otherwise, like 1 other file, and would not be"):
        Job(DataSet(reader, TASK), out, ["b"], Options(overwrite=True), "ED")
    Job(DataSet(reader, TASK), out, ["b"], Options(overwrite=True), "ES").run(Oracle())


@pytest.mark.parametrize("call", ["write", "savez", "save"])
def test_a_full_disk_is_the_machines_fault_and_the_same_command_resumes(tmp_path, monkeypatch, call):
    folder, out = plain(tmp_path / "in", "a.nii", "b.nii"), tmp_path / "out"
    options = Options(probabilities=True, overlay=True)
    owner, name = {
        "write": (prediction.images, "write"),
        "savez": (np, "savez_compressed"),
        "save": (prediction.pictures, "save"),
    }[call]
    write_file = getattr(owner, name)

    def full(path, *arguments, **keywords):
        first, *_ = [argument for argument in (path, *arguments) if isinstance(argument, pathlib.Path)]
        if first.name.startswith(".part-b"):
            first.write_bytes(b"half a file")
            raise OSError(errno.ENOSPC, "No space left on device")
        write_file(path, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, full)
        with pytest.raises(MachineError, match=r"out/.*b\..*No space left on device.*choose another --output"):
            job(folder, out, options).run(Oracle())
    assert (out / "a.nii").exists() and not (out / "b.nii").exists() and not list(out.rglob(".part*"))
    again = job(folder, out, options)
    assert again.waiting == ["b"]
    again.run(Oracle())
    job(folder, tmp_path / "undisturbed", options).run(Oracle())
    contents = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*.*") if path.suffix in (".nii", ".png")}
        for root in (out, tmp_path / "undisturbed")
    ]
    assert len(contents[0]) == 4 and contents[0] == contents[1]


def test_a_signal_stops_between_scans_and_the_same_command_resumes(tmp_path, monkeypatch):
    folder, out = plain(tmp_path / "in", "a.nii", "b.nii"), tmp_path / "out"
    oracle = Oracle()

    def check():
        if oracle.seen == ["a"]:
            raise Interrupted(15)

    monkeypatch.setattr(prediction, "check_signals", check)
    with pytest.raises(Interrupted):
        job(folder, out).run(oracle)
    assert job(folder, out).waiting == ["b"]


def test_two_commands_do_not_write_into_one_folder(tmp_path):
    folder, out = plain(tmp_path / "in", "a.nii"), tmp_path / "out"
    out.mkdir()
    with run_dir.locked(out), pytest.raises(UserError, match="out: is in use by process .* choose another --output"):
        job(folder, out).run(Oracle())


@pytest.mark.parametrize("second", ["b.nii", "a.nii"])
def test_what_another_command_has_recorded_in_the_meantime_stays_recorded(tmp_path, second):
    """Both begin before either has masks, as loading TensorFlow takes seconds."""
    out = tmp_path / "out"
    first, other = (job(plain(tmp_path / f"in_{name}", name), out) for name in ("a.nii", second))
    first.run(Oracle())
    oracle = Oracle()
    other.run(oracle)
    assert len(oracle.seen) == (second == "b.nii")
    assert {*json.loads((out / "predict.json").read_text())["cases"]} == {"a", second[0]}
    for name in ("a.nii", second):
        assert job(tmp_path / f"in_{name}", out).waiting == []


def test_a_command_that_finds_masks_of_other_runs_when_it_begins_is_refused(tmp_path):
    folder, out = plain(tmp_path / "in", "a.nii"), tmp_path / "out"
    other = job(folder, out, runs=("b",))
    job(folder, out).run(Oracle())
    before = {path: path.read_bytes() for path in out.iterdir() if path.name != "lock"}
    with pytest.raises(UserError, match="predict.json: tells that the masks here were made otherwise"):
        other.run(Oracle())
    assert {path: path.read_bytes() for path in out.iterdir() if path.name != "lock"} == before


def test_a_command_without_a_network_is_refused_if_a_mask_is_no_longer_finished(tmp_path):
    folder, out = plain(tmp_path / "in", "a.nii"), tmp_path / "out"
    job(folder, out).run(Oracle())
    done = job(folder, out)
    record = json.loads((out / "predict.json").read_text())
    record["cases"]["a"]["unfinished"] = True
    (out / "predict.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="out: has been changed by another `tfaug predict` .*; run the command again"):
        done.run(None)


def test_a_label_that_cannot_be_used_costs_the_score_but_not_the_mask(tmp_path, capsys):
    write_msd(tmp_path / "data", TASK.structures, num_cases=2, unlabelled=0)
    for number in range(2):
        image, label = answer(number)
        write(tmp_path / f"data/imagesTr/scan{number:02d}_0000.nii.gz", image)
        write(tmp_path / f"data/labelsTr/scan{number:02d}.nii.gz", label + number)  # 86 is no structure
    with pytest.raises(UserError, match="labelsTr/scan01.nii.gz: holds the label 1 "):
        job(tmp_path / "data", tmp_path / "out", Options(score=True), task=Task(TASK.structures, ("contrast0",))).run(
            Oracle()
        )
    assert (tmp_path / "out/scan01.nii.gz").exists()
    table = pd.read_csv(tmp_path / "out/dice.csv")
    assert list(table.case) == ["scan00"] * 2 and list(table.dice) == [1, 1]
    assert "1.000 +- 0.000" in capsys.readouterr().out
    assert list(pd.read_csv(tmp_path / "out/indices.csv").case) == ["scan00"]


def test_scores_have_the_definition_that_is_asked_for(tmp_path):
    write_msd(tmp_path / "data", TASK.structures, num_cases=1, unlabelled=0)
    image, label = answer()
    write(tmp_path / "data/imagesTr/scan00_0000.nii.gz", image)
    write(tmp_path / "data/labelsTr/scan00.nii.gz", label)
    options, task = Options(score=True, distances="medpy"), Task(TASK.structures, ("contrast0",))
    printed = job(tmp_path / "data", tmp_path / "out", options, task=task).run(Oracle())
    assert {"hd95_medpy_mm", "assd_medpy_mm"} < {*pd.read_csv(tmp_path / "out/dice.csv")}
    assert "(MedPy 0.4.0)" in printed and (tmp_path / "out/summary.txt").read_text() in printed + "\n"


def test_only_the_largest_component_of_the_structures_that_are_named_is_kept(tmp_path):
    image, label = answer()
    image[0, 0, 0] = image[29, 0, 0] = 125
    image[29, 27, 0] = 225
    (tmp_path / "in").mkdir()
    write(tmp_path / "in/a.nii", image)
    job(tmp_path / "in", tmp_path / "out", Options(keep_largest=("anterior",))).run(Oracle())
    label[29, 27, 0] = 300
    np.testing.assert_array_equal(images.read(tmp_path / "out/a.nii", None).array, label)


def test_components_hang_together_at_corners():
    classes = np.zeros((6, 6, 2), np.uint8)
    classes[0, 0, 0] = classes[1, 1, 1] = classes[2, 2, 0] = 1
    classes[4:6, 5, 0] = 1
    classes[3, 3, 1] = 2
    prediction.keep_largest(classes, 1)
    assert classes[4:6, 5, 0].sum() == 0 and classes[0, 0, 0] == classes[1, 1, 1] == classes[2, 2, 0] == 1
    assert classes[3, 3, 1] == 2


def test_traits_more_than_twice_apart_are_named():
    def of(x, z, *ranges):
        return {"spacing": [x, x, z], "intensities": [list(pair) for pair in ranges]}

    known = [of(1.5, 8, (0, 1.5), (0, 2)), of(1.2, 10, (-0.5, 2), (0, 2))]
    assert traits.unlike(of(2.9, 4.1, (0, 4.9), (-1, 1)), known) == {}
    assert traits.unlike(of(3.1, 3, (0, 6), (0, 0.5)), known) == {
        "pixels": "pixels are 3.1 mm, in the training data 1.2 to 1.5",
        "slices": "slices are 3 mm apart, in the training data 8 to 10",
        "intensities": "channel 1: intensities span 6 times their 2nd to 98th percentile, "
        "in the training data 1.5 to 2.5",
    }
    assert traits.unlike(of(3.1, 3, (0, 6)), []) == {}  # an older run has not recorded them
