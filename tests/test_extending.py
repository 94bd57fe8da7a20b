"""What a user adds from outside the package, and the front door: every file that the documents show is run."""

import json
import os
import pathlib
import re
import shlex

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from data_.patients import write_nifti
from fast_networks import FAST
from programs import run

from tfaug.table1 import results

ROOT = pathlib.Path(__file__).parent.parent
TINY = (
    *("--config=own", "--config.data.n4_shrink=0", "--config.data.image_size=32", "--config.data.resolution=2.0"),
    *("--config.model.filters=2", "--config.augment.num_steps=4", "--config.augment.warmup_steps=1"),
    *("--config.augment.eval_every=2", "--config.segment.num_steps=4", "--config.segment.eval_every=2"),
    *("--config.report_every=2", "--config.picture_every=4", "--config.checkpoint_every=4"),
    "--config.splits.random={'labelled': 1, 'validation': 1, 'test': 1, 'sets': 2}",
    *FAST,
)


def blocks(page):
    """The Python blocks of a page of docs, by the name of the file that each begins with, or by number."""
    found = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    names = [re.match(r"# (\w+\.py)\n", block) for block in found]
    return {name[1] if name else k: block for k, (name, block) in enumerate(zip(names, found))}


def scan(seed, values=(1, 2), shape=(30, 28, 4)):
    """An image [X, Y, Z] int16 and a label that holds every value."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint16)
    for k, value in enumerate(values):
        label[5 + 5 * k : 12 + 5 * k, 6:20] = value
    return (60 * (label > 0) + 40 * (label == values[-1]) + rng.integers(20, 90, shape)).astype(np.int16), label


def write_msd(root, structures, num_cases=5, unlabelled=1, channels=1, ending=".nii.gz"):
    """A folder in nnU-Net's layout."""
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (root / folder).mkdir(parents=True)
    for number in range(num_cases + unlabelled):
        image, label = scan(number, tuple(structures.values()))
        folder = root / ("imagesTr" if number < num_cases else "imagesTs")
        for channel in range(channels):
            write(folder / f"scan{number:02d}_{channel:04d}{ending}", image + 5 * channel)
        if number < num_cases:
            write(root / "labelsTr" / f"scan{number:02d}{ending}", label)
    names = {str(k): f"contrast{k}" for k in range(channels)}
    content = {"channel_names": names, "labels": {"background": 0, **structures}, "numTraining": num_cases}
    (root / "dataset.json").write_text(json.dumps({**content, "file_ending": ending}))
    return root


def write(path, array):
    if path.name.endswith((".nii", ".nii.gz")):
        write_nifti(path, array, spacing=(1.5, 1.5, 6.0))
    else:
        image = sitk.GetImageFromArray(array.T)
        image.SetSpacing((1.5, 1.5, 6.0))
        sitk.WriteImage(image, str(path), useCompression=True)


def tfaug(command, *flags, cwd, status=0):
    done = run("tfaug", command, *flags, cwd=cwd)
    assert done.returncode == status, done.stderr + done.stdout
    return done


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with data in nnU-Net's layout and the files that docs/extending.md shows."""
    folder = tmp_path_factory.mktemp("world")
    write_msd(folder / "data", {"anterior": 85, "posterior": 300})
    for name, block in blocks("docs/extending.md").items():
        (folder / name).write_text(block)
    return folder


def test_no_example_is_longer_than_thirty_lines():
    assert all(block.count("\n") <= 30 for block in blocks("docs/extending.md").values())


@pytest.mark.parametrize(
    "ending, structures, channels",
    [
        (".nrrd", {"a": 85, "b": 300}, 2),
        pytest.param(".mha", {f"part{k}": k for k in range(1, 18)}, 1, marks=pytest.mark.slow),
    ],
)
def test_structures_come_from_the_data_set_and_masks_hold_its_values(tmp_path, ending, structures, channels):
    write_msd(tmp_path / "data", structures, channels=channels, ending=ending)
    tfaug("train", *TINY, "--config.data.root=data", "--aug=aff_rd", cwd=tmp_path)
    run = tmp_path / "runs/own-n1-set1-seg-aff_rd-seed0"
    saved = json.loads((run / "config.json").read_text())["config"]
    assert len(saved["data"]["channels"]) == channels
    assert sum(saved["segment"]["class_weights"]) == pytest.approx(1)
    table = pd.read_csv(run / "evaluation/test/dice.csv")
    assert list(table.structure) == list(structures)
    (mask,) = (run / "evaluation/test/masks").iterdir()
    image, original = (
        sitk.ReadImage(str(path)) for path in (mask, tmp_path / "data/labelsTr" / f"{table.case[0]}{ending}")
    )
    assert mask.name == f"{table.case[0]}_prediction{ending}" and image.GetSize() == original.GetSize()
    assert image.GetSpacing() == pytest.approx(original.GetSpacing())
    assert set(np.unique(sitk.GetArrayFromImage(image))) <= {0, *structures.values()}


def test_a_case_whose_name_is_not_utf_8_is_refused_before_it_is_in_a_table(tmp_path):
    write_msd(tmp_path / "data", {"a": 1})
    for name in ("imagesTr/{}_0000.nii.gz", "labelsTr/{}.nii.gz"):
        (tmp_path / "data" / name.format("scan00")).rename(
            tmp_path / "data" / name.format(os.fsdecode("Müller".encode("latin-1")))
        )
    for grid in ((), TINY):  # where a grid is chosen, all cases are read before
        done = tfaug("check", *(grid or ("--config=own",)), "--config.data.root=data", cwd=tmp_path, status=2)
        assert done.stderr.splitlines()[-1].endswith("has a name that is not UTF-8; rename its files")
    table = pd.read_csv(tmp_path / "runs/own-check/check.csv")
    assert [case for case, problem in zip(table.case, table.problems.isna()) if not problem] == ["M\\udcfcller"]


def test_an_augmentation_of_the_users_is_in_aug_grid_table_and_figures(world):
    flags = (*TINY, "--config.data.root=data", "--workdir=grid")
    few = ("--num_labelled=1", "--sets=1", "--repeats=1", "--workers=1")
    done = tfaug("table1", *flags, "--config.methods=('aff',)", "--methods=my_blur:aff_blur", *few, cwd=world)
    assert "`aff_blur`" in done.stdout and "not in the paper" in done.stdout and "`aff_rd`" not in done.stdout
    (command,) = re.findall("The table: tfaug (evaluate .*)", done.stdout)
    assert "`aff_blur`" in tfaug(*shlex.split(command), cwd=world).stdout
    tfaug("evaluate", *flags, "--config.methods=('aff','my_blur:aff_blur')", "--figures", cwd=world)
    assert {"boxplots.png", "figure2-n1.png"} <= {path.name for path in (world / "grid/table1").iterdir()}
    assert (world / "grid/own-n1-set1-seg-aff_blur-seed0/report.json").exists()
    (result,) = results.load(world / "grid/table1")
    assert result.row["first"] == ["affine"] and result.row["generated"] == [
        ["my_blur:Blur"],
        ["elastic", "my_blur:Blur"],
    ]


def test_r1_results_of_a_method_that_changed_are_not_shown_and_are_made_again_elsewhere(world):
    flags = (*TINY, "--config.data.root=data", "--config.methods=('changing:mine',)")
    few = ("--num_labelled=1", "--sets=1", "--repeats=1", "--workers=1")
    here, elsewhere = "--workdir=changing", ("--workdir=changed", "--results=changing/table1")
    name, program = (
        "own-n1-set1-seg-mine-seed0",
        "from tfaug.augment.methods import AFFINE, Method\nmine = Method({})\n",
    )
    (world / "changing.py").write_text(program.format("AFFINE"))
    tfaug("table1", *flags, here, *few, cwd=world)
    before = (world / f"changing/table1/{name}.json").read_bytes()
    (world / "changing.py").write_text(program.format("AFFINE, (('elastic',),)"))

    for command, more in (("evaluate", ["--table1"]), ("evaluate", ["--figures"]), ("table1", few)):
        done = tfaug(command, *flags, here, *more, cwd=world, status=2)
        assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
        if command == "evaluate":
            assert (
                f"{name}.json: is of what the method 'mine' was before; run `tfaug train --stage=table1`" in done.stderr
            )
        else:
            assert f"{name}: was trained with another method 'mine'; choose another --workdir" in done.stderr
            assert "jobs to do" not in done.stdout
    assert (world / f"changing/table1/{name}.json").read_bytes() == before

    done = tfaug("table1", *flags, *elsewhere, *few, cwd=world)
    assert (
        "the data or the method of 1 result changed since; to be made again: " in done.stdout
        and "`mine`" in done.stdout
    )
    (result,) = results.load(world / "changing/table1")
    assert result.row["generated"] == [["elastic"]]
    tfaug("evaluate", *flags, *elsewhere, "--table1", cwd=world)


NETWORKS = ("--config.model.segmenter=my_networks:small_segmenter", "--config.model.generator=my_networks:shifts")


def test_networks_of_the_users_train(world):
    flags = (*TINY, "--config.data.root=data", *NETWORKS, "--stage=aug", "--gen=deform")
    runs = [world / workdir / "own-n1-set1-aug-deform-seed0" for workdir in ("networks", "again")]
    for run_of in runs:
        tfaug("train", *flags, f"--workdir={run_of.parent.name}", cwd=world)
    first, again = [(run_of / "diagnostics.csv").read_text() for run_of in runs]
    assert first == again  # although their initial weights have no seed of their own


RANDOM = """
from tfaug.compat import keras


def dropping(image_size, num_classes, channels=1, **_):
    image = keras.Input((image_size, image_size, channels))
    return keras.Model(image, keras.layers.Conv2D(num_classes, 1)(keras.layers.Dropout(0.5, seed=1)(image)))
"""


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_of_a_segmenter_that_draws_at_random_the_training_warns_once_and_its_report_too(world, average):
    (world / "my_dropping.py").write_text(RANDOM)
    flags = (*TINY, "--config.data.root=data", f"--workdir=random{average}", f"--config.segment.average={average}")
    own = "--config.model.segmenter=my_dropping:dropping"
    done = tfaug("train", *flags, own, "--stage=seg", "--aug=aff", cwd=world)
    warning = "a network draws at random (Dropout): a training that is resumed differs from an undisturbed one"
    assert done.stderr.count(f"warning: {warning}\n") == done.stderr.count("at random") == 1
    report = json.loads((world / f"random{average}/own-n1-set1-seg-aff-seed0/report.json").read_text())
    assert report["warnings"].count(warning) == 1


FAILING = """
import tensorflow as tf
from tfaug.augment.methods import AFFINE, Method
from tfaug.steps import Rule


class Nothing(tf.Module):
    def __init__(self, setup):
        super().__init__()
        self.segmenter = setup.segmenter

    def __call__(self, batch, index):
        self.segmenter(batch.image, training=True)


class Vector(Nothing):
    def __call__(self, batch, index):
        return {"loss/x": tf.zeros([3])}


class OtherField(Nothing):
    def __call__(self, batch, index):
        return {"loss/x": batch.unlabelled}


class Asserts:
    def sample(self, batch, seed):
        return tf.random.stateless_uniform([], seed)

    def apply(self, batch, share):
        with tf.control_dependencies([tf.debugging.assert_less(share, 0.0, message="my own check")]):
            return batch._replace(image=tf.identity(batch.image))


nothing, vector, other_field = map(Rule, (Nothing, Vector, OtherField))
rule_nothing, rule_vector, rule_other = (
    Method(AFFINE, rule=f"my_failing:{name}") for name in ("nothing", "vector", "other_field")
)
asserts = Method(AFFINE, (("my_failing:Asserts",),))
"""


@pytest.mark.parametrize(
    "name, part, fails, problem",
    [
        ("rule_nothing", "nothing", None, "returned an object of type NoneType, not scalars by name"),
        ("rule_vector", "vector", None, "returned 'loss/x' of shape (3,), not a scalar"),
        (
            "rule_other",
            "other_field",
            "batch.unlabelled",
            "AttributeError: 'Batch' object has no attribute 'unlabelled'",
        ),
        ("asserts", "Asserts", None, "my own check"),
    ],
)
def test_a_part_that_fails_at_the_first_step_is_named_in_one_line(world, name, part, fails, problem):
    (world / "my_failing.py").write_text(FAILING)
    flags = (*TINY, "--config.data.root=data", f"--workdir=failing-{name}")
    flags += ("--config.model.segmenter=unet", "--config.model.discriminator=dcgan")
    done = tfaug("train", *flags, "--stage=seg", f"--aug=my_failing:{name}", cwd=world, status=2)
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"error: my_failing:{part}: cannot be trained with (") and problem in line
    where = FAILING[: FAILING.index(fails)].count("\n") + 1 if fails else None
    assert re.findall(r"my_failing.py, line (\d+): ", line) == [str(where)] * (where is not None)
    assert "Traceback" not in done.stderr


def test_a_layout_an_update_rule_and_a_segmenter_of_the_users_work_together(world):
    (world / "flat").mkdir()
    for number in range(4):
        image, label = scan(number, (1,))
        write(world / f"flat/liver{number}.nii.gz", image)
        write(world / f"flat/liver{number}-mask.nii.gz", label)
    flags = (*TINY, "--config.data.root=flat", "--config.data.reader=my_layout:Flat", "--workdir=layout", *NETWORKS)
    done = tfaug("train", *flags, "--stage=seg", "--aug=my_rule:aff_dice", cwd=world)
    assert "loss/dice=" in done.stdout
    run = world / "layout/own-n1-set1-seg-aff_dice-seed0"
    assert json.loads((run / "config.json").read_text())["config"]["data"]["structures"] == [["liver", 1]]


@pytest.mark.parametrize(
    "flag, problem",
    [
        ("--config.model.segmenter=my_network:nothing", "my_network cannot be imported"),
        ("--config.model.segmenter=my_networks:small", "did you mean 'small_segmenter'?"),
        ("--config.model.segmenter=my_blur:Blur", "my_blur:Blur"),
        ("--config.model.generator=condition", "did you mean 'conditional'?"),
        ("--config.data.reader=acd", "did you mean 'acdc'?"),
        ("--config.data.reader=my_blur:Blur", "my_blur:Blur"),
        ("--config.methods=('aff','my_rule:dice')", "my_rule:dice"),
        ("--aug=my_rule:dice", "my_rule:dice"),
        ("--aug=aff_blurr", "aff_blurr"),
    ],
)
def test_a_part_that_does_not_fit_is_refused_in_one_line(world, flag, problem):
    before = {path for path in world.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"}
    done = tfaug("train", *TINY, "--config.data.root=data", "--workdir=bad", "--aug=aff_gd", flag, cwd=world, status=2)
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: ") and problem in done.stderr
    after = {path for path in world.rglob("*") if path.suffix != ".pyc" and path.name != "__pycache__"}
    assert {path for path in after - before if "cache" not in path.parts} == set()


FRONT_DOOR = """
import numpy as np
import tensorflow as tf
from tfaug.compat import keras

DEFORM_RUN, INTENSITY_RUN, SEGMENTER_RUN = "runs/phantom-n1-set1-aug-deform-seed0", \\
    "runs/phantom-n1-set1-aug-intensity-seed0", "runs/phantom-n1-set1-seg-aff_gd_gi-seed0"
SCAN = "scan.nii.gz"
rng = np.random.default_rng(0)
images = rng.normal(size=(8, 32, 32, 1)).astype(np.float32)
labels = np.eye(4, dtype=np.float32)[rng.integers(0, 4, size=(8, 32, 32))]
array = rng.normal(size=(30, 28, 4))
inputs = keras.Input((32, 32, 1))
model = keras.Model(inputs, keras.layers.Conv2D(4, 3, padding="same", activation="softmax")(inputs))
model.compile("sgd", "categorical_crossentropy")
"""


@pytest.fixture
def front(trained_hearts, tmp_path):
    """A folder with a run of each stage, and a scan of another size."""
    (tmp_path / "runs").symlink_to(trained_hearts[0] / "runs")
    write(tmp_path / "scan.nii.gz", scan(5)[0])
    return tmp_path


def python(code, cwd):
    done = run("-c", code, cwd=cwd)
    assert done.returncode == 0, done.stderr


def test_the_page_on_python_runs_as_it_stands(front):
    python(FRONT_DOOR + "\n".join(blocks("docs/python.md").values()), front)
    mask = sitk.ReadImage(str(front / "mask.nii.gz"))
    assert mask.GetSize() == (30, 28, 4)
    assert set(np.unique(sitk.GetArrayFromImage(mask))) <= {0, 1, 2, 3}


# A generator as a layer of a model: only training activates it, and training leaves it alone.
LAYER = """
import tfaug
augmented = tfaug.load_generator(INTENSITY_RUN, seed=1)(inputs)
whole = keras.Model(inputs, keras.layers.Conv2D(4, 1, activation="softmax")(augmented))
whole.compile("sgd", "categorical_crossentropy")
before = [weight.numpy() for weight in whole.layers[1].weights]
whole.fit(images, labels, epochs=1, verbose=0)
assert all((new.numpy() == old).all() for new, old in zip(whole.layers[1].weights, before))
assert len(whole.trainable_variables) == 2
assert (whole.predict(images, verbose=0) == whole.predict(images, verbose=0)).all()
assert (whole(images, training=True).numpy() != whole(images, training=True).numpy()).any()
"""

# A seed gives the same augmentation again, also from another layer.
SEEDED = """
import tfaug, zlib
deform = tfaug.load_generator(DEFORM_RUN, seed=5)
image, label = deform((images, labels))
np.testing.assert_allclose(label.numpy().sum(-1), 1, atol=1e-5)
again = tfaug.load_generator(DEFORM_RUN, seed=5)((images, labels))
assert (again[0] == image).numpy().all() and (again[1] == label).numpy().all()
assert (deform((images, labels))[0] != image).numpy().any()
"""

# What the front door refuses, it refuses in one line.
REFUSED = """
import tfaug
from tfaug.engine.errors import UserError

def refused(call, problem):
    try:
        call()
    except UserError as error:
        assert problem in str(error) and "\\n" not in str(error), str(error)
    else:
        raise SystemExit(f"not refused: {problem}")

refused(lambda: tfaug.load_generator(SEGMENTER_RUN), "no trained generator")
refused(lambda: tfaug.load_segmenter(DEFORM_RUN), "has no segmenter")
refused(lambda: tfaug.load_segmenter("nothing"), "no trained segmenter")
segmenter = tfaug.load_segmenter(SEGMENTER_RUN)
refused(lambda: segmenter(array), "spacing")
refused(lambda: segmenter(np.zeros((9, 9, 3, 2)), (1, 1, 1)), "2 channels")
refused(lambda: segmenter("nothing.nii.gz"), "nothing.nii.gz")
"""


def test_the_front_door_keeps_its_word(front):
    """In one process, which loads TensorFlow once."""
    python(FRONT_DOOR + LAYER + SEEDED + REFUSED, front)


def test_the_code_in_the_readme_runs(front):
    code = "\n".join(blocks("README.md").values())
    before = "batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(2)\n"
    python(f"{FRONT_DOOR}{before}{code}\nassert mask.shape == (30, 28, 4)\n", front)


def test_without_an_unlabelled_case_nothing_begins(tmp_path):
    write_msd(tmp_path / "data", {"liver": 1}, num_cases=4, unlabelled=0)
    splits = "--config.splits.random={'labelled': 1, 'validation': 1, 'test': 2}"
    done = run("tfaug", "train", *TINY, splits, "--config.data.root=data", cwd=tmp_path)
    assert (
        "error: --config.splits.unlabelled: is empty; name at least one patient, or leave some cases out of the"
        in done.stderr
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
