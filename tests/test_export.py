"""`tfaug export`: the same numbers in every format, what lies beside the network, and what is refused."""

import functools
import importlib.util
import json
import pathlib
import re
import shutil
import subprocess
import sys
import types
import zipfile

import nibabel
import numpy as np
import pandas as pd
import programs
import pytest
import tensorflow as tf
from test_extending import blocks, write_msd
from test_faults import failed

import tfaug
from tfaug import api
from tfaug import config as rules
from tfaug.augment.learned import transform_image, transform_label
from tfaug.compat import keras
from tfaug.configs import phantom
from tfaug.engine import run_dir
from tfaug.engine.checkpoint import Checkpoints
from tfaug.engine.errors import MachineError, UserError
from tfaug.engine.event_log import EventLog
from tfaug.experiment import exporting, identity, networks, portable, runs, sources

STRUCTURES = {"anterior": 85, "posterior": 300}
SIZE, CLASSES = 32, 3
ALL = ("keras", "savedmodel", "onnx")
# By name: what was trained, in which precision, and the formats to try.
RUNS = {
    "segmenter": ("segmenter", "float32", ALL),
    "segmenter_bfloat16": ("segmenter", "mixed_bfloat16", ("savedmodel",)),
    "deform": ("deform", "float32", ALL),
    "intensity_bfloat16": ("intensity", "mixed_bfloat16", ("savedmodel", "onnx")),
    "quantiles": ("intensity", "float32", ("savedmodel", "onnx")),
}
CHANGES = {"quantiles": {"model.intensity": "quantiles"}}
RNG = np.random.default_rng(0)
INPUTS = {
    "image": RNG.normal(size=(3, SIZE, SIZE, 1)).astype(np.float32),
    "z": RNG.normal(size=(3, 100)).astype(np.float32),
    "label": np.eye(CLASSES, dtype=np.float32)[RNG.integers(0, CLASSES, (3, SIZE, SIZE))],
}


def make_config(root, precision):
    config = tfaug.load_config("own")
    config.data.root, config.data.n4_shrink, config.precision = str(root), 0, precision
    config.data.image_size, config.data.resolution = SIZE, 2.0
    config.model.filters, config.model.head_scale = 2, 1.0
    config.splits.random = {"labelled": 1, "validation": 1, "test": 1, "sets": 2}
    return sources.resolve(config)


def make_run(folder, config, role, **changes):
    """A finished run whose network has weights that no training has made."""
    with config.ignore_type():
        config.update_from_flattened_dict(changes)
    if role != "segmenter":
        config = rules.of_generator(config, role)
    name = "seg-aff" if role == "segmenter" else f"aug-{role}"
    path = folder / f"own-n1-set1-{name}-seed0"
    unread = ("augment", "methods") if role == "segmenter" else ("segment", "generators", "methods")
    splits = ["labelled", "validation", *(["unlabelled"] if role != "segmenter" else [])]
    with networks.precision(config):
        model = networks.segmenter(config, "seg") if role == "segmenter" else networks.generator(config, role)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if weight.shape.rank == 1 and "fin" not in weight.name:  # biases, and all of the norms'
            weight.assign(weight + rng.uniform(-0.3, 0.3, weight.shape))
    with run_dir.RunDir(path, {key: one for key, one in config.to_dict().items() if key not in unread}) as run:
        keep = {"segmenter" if role == "segmenter" else "generator": model}
        Checkpoints(path, keep, {}, every=1, log=EventLog(path)).save_best(7, 0.5, keep)
        about = {"generator": role, "verdict": "learned"}
        if role == "segmenter":
            about = {"method": "aff", "scans": {"scan00": {"spacing": [1.5, 1.5, 6.0], "intensities": [[0.0, 1.0]]}}}
        digests = sources.Data(config).digests(splits)
        run.finish({"best": 0.5, "best_step": 7, **about, "digests": digests, "generators": {}})
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with data, runs and their exports, `EXPORTS/RUN-FORMAT`."""
    folder = tmp_path_factory.mktemp("world")
    write_msd(folder / "data", STRUCTURES)
    for name, (role, precision, formats) in RUNS.items():
        config = make_config(folder / "data", precision)
        path = make_run(folder / name, config, role, **CHANGES.get(name, {}))
        config = sources.config_of_network(path)[1]  # it lacks the sections of the other stage
        network = portable.Network(path, role, config)
        for to in formats:
            if to != "onnx" or has_onnx():
                exporting.Export(path, role, config, folder / "exports" / f"{name}-{to}", to).run(network)
    return folder


def has_onnx():
    try:
        exporting.check_format("onnx")
    except UserError:
        return False
    return True


def export(run, folder, to):
    role, config = sources.config_of_network(run)
    network = portable.Network(run, role, config)
    exporting.Export(run, role, config, folder, to).run(network)
    return network.model


def run_of(world, name):
    return next(path for path in (world / name).iterdir() if (path / "report.json").exists())


@functools.lru_cache(None)
def expected(world, name):
    """What the run's own network gives, by name; in float32, whatever it was trained in."""
    role = RUNS[name][0]
    run = run_of(world, name)
    config = sources.config_of_network(run)[1]
    config.precision = "float32"
    image = tf.constant(INPUTS["image"])
    with networks.precision(config):
        if role == "segmenter":
            return {"logits": runs.segmenter_of(run)(image, training=False).numpy()}
        field = runs.generator_of(run, role)([image, INPUTS["z"]], training=False)
    found = {"field": field, "generated_image": transform_image(role, image, field)}
    if role == "deform":
        found["generated_label"] = transform_label(role, INPUTS["label"], field)
    return {key: value.numpy() for key, value in found.items()}


def inputs_of(name):
    names = {"segmenter": ["image"], "intensity": ["image", "z"], "deform": ["image", "z", "label"]}[RUNS[name][0]]
    return {key: INPUTS[key] for key in names}


# TensorFlow alone: no tfaug, nor what it uses of others.
WITHOUT_TFAUG = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.modules.update(dict.fromkeys(("tfaug", "tensorflow_addons")))
"""
LOAD = """
import importlib.util, json, pathlib
import numpy as np
import tensorflow as tf
try:
    import tf_keras as keras
except ImportError:
    keras = tf.keras

def by_keras(folder):
    if (folder / "layers.py").exists():
        spec = importlib.util.spec_from_file_location("layers", folder / "layers.py")
        layers = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(layers)
        model = layers.load(folder / "model.keras")
    else:
        model = keras.models.load_model(folder / "model.keras", compile=False)
    found = lambda **inputs: model([*inputs.values()] if len(inputs) > 1 else inputs["image"], training=False)
    return lambda **inputs: one if isinstance(one := found(**inputs), dict) else {"logits": one}

def by_tensorflow(folder):
    return tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"]

for kind, load in (("keras", by_keras), ("savedmodel", by_tensorflow)):
    for folder in pathlib.Path("exports").glob(f"*-{kind}"):
        about = json.loads((folder / "preprocessing.json").read_text())
        inputs = np.load("inputs.npz")
        outputs = load(folder)(**{name: tf.constant(inputs[name]) for name in about["inputs"]})
        assert set(outputs) == set(about["outputs"])
        np.savez(f"{folder}.npz", **{name: value.numpy() for name, value in outputs.items()})
"""


@pytest.fixture(scope="module")
def alone(world):
    """The world, after a process without tfaug has run every network and the example of the page."""
    np.savez(world / "inputs.npz", **INPUTS)
    (world / "exported").symlink_to("exports/segmenter-savedmodel")
    (world / "scan.nii.gz").symlink_to("data/imagesTs/scan05_0000.nii.gz")
    code = WITHOUT_TFAUG + blocks("docs/export.md")[0] + LOAD
    done = subprocess.run([sys.executable, "-c", code], cwd=world, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return world


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert value.std() > 1e-2, name  # no constant
        print(name, np.abs(found[name] - value).max(), "of", np.abs(value).max())
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def tried(*formats):
    return [(name, to) for name, (_, _, of_run) in RUNS.items() for to in of_run if to in formats]


@pytest.mark.parametrize("name, to", tried("keras", "savedmodel"))
def test_a_program_without_tfaug_gets_the_same_numbers(alone, name, to):
    with np.load(alone / "exports" / f"{name}-{to}.npz") as found:
        assert_same(dict(found), expected(alone, name))


@pytest.mark.parametrize("name, to", tried("onnx"))
def test_onnxruntime_gets_the_same_numbers(world, name, to):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    session = onnxruntime.InferenceSession(str(world / "exports" / f"{name}-{to}/model.onnx"))
    names = [output.name for output in session.get_outputs()]
    assert_same(dict(zip(names, session.run(names, inputs_of(name)))), expected(world, name))
    about = json.loads((world / "exports" / f"{name}-{to}/preprocessing.json").read_text())
    for side, values in (("inputs", session.get_inputs()), ("outputs", session.get_outputs())):
        assert {value.name: value.shape for value in values} == {k: v["shape"] for k, v in about[side].items()}


def test_the_front_door_has_these_networks(world):
    image, z = INPUTS["image"], INPUTS["z"]
    logits = api.load_segmenter(run_of(world, "segmenter")).model(image, training=False)
    np.testing.assert_array_equal(logits, expected(world, "segmenter")["logits"])
    field = api.load_generator(run_of(world, "deform")).model([image, z], training=False)
    np.testing.assert_array_equal(field, expected(world, "deform")["field"])
    trained = api.load_segmenter(run_of(world, "segmenter_bfloat16")).model(image, training=False).numpy()
    ours = expected(world, "segmenter_bfloat16")["logits"]
    assert 0 < np.abs(trained - ours).max() < 0.1 * np.abs(ours).max()


LOAD_GENERATOR = """
import numpy as np
from tfaug.api import Generator
from tfaug.compat import keras
model = keras.models.load_model("m.keras", custom_objects={"Generator": Generator})
assert [one.shape for one in model.trainable_weights] == [(3, 3, 1, 2), (2,)]
np.save("found.npy", model(np.load("image.npy")))
"""


@pytest.mark.parametrize("kind", ["deform", "quantiles"])
def test_a_model_with_a_generator_in_it_is_saved_loaded_and_cloned(world, tmp_path, kind):
    image = keras.Input((SIZE, SIZE, 1))
    generated = api.load_generator(run_of(world, kind), seed=3)(image, training=True, seed=(1, 2))
    model = keras.Model(image, keras.layers.Conv2D(2, 3)(generated))
    wanted = model(INPUTS["image"]).numpy()
    assert wanted.std() > 1e-2
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "image.npy", INPUTS["image"])
    done = programs.run("-c", LOAD_GENERATOR, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), wanted, atol=1e-5)
    cloned = keras.models.clone_model(model)
    cloned.set_weights(model.get_weights())
    np.testing.assert_array_equal(cloned(INPUTS["image"]), wanted)
    assert api.Generator(run_of(world, kind), trainable=True).trainable_weights == []


def test_the_example_without_tfaug_gives_its_mask(alone):
    mask = np.asarray(nibabel.load(alone / "mask.nii.gz").dataobj)
    ours = api.load_segmenter(run_of(alone, "segmenter"))(alone / "scan.nii.gz")
    assert mask.shape == ours.shape and len(np.unique(ours)) > 1
    assert (mask == ours).mean() > 0.999  # but for ties


def test_the_example_for_pytorch(world, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("tf2onnx")
    try:
        import torch
    except ImportError:
        torch = types.ModuleType("torch")
        data = types.SimpleNamespace(Dataset=object, DataLoader=lambda dataset, **_: dataset)
        torch.utils, torch.initial_seed = types.SimpleNamespace(data=data), lambda: 5
        monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.chdir(world)
    (world / "generator").symlink_to("exports/deform-onnx")
    code = compile(blocks("docs/export.md")[1], "docs/export.md", "exec")
    names = {"images": INPUTS["image"], "labels": INPUTS["label"]}
    types.FunctionType(code, names)()
    dataset = names["Deformed"](INPUTS["image"], INPUTS["label"])
    image, label = dataset[1]
    assert image.shape == (1, SIZE, SIZE) and label.shape == (CLASSES, SIZE, SIZE)
    np.testing.assert_allclose(label.sum(0), 1, atol=1e-5)
    assert (dataset[1][0] != image).any() and len(dataset) == 3


def test_no_example_is_long():
    assert all(block.count("\n") <= 32 for block in blocks("docs/export.md").values())


def test_a_network_of_keras_own_layers_needs_no_other_file(world):
    names = {path.name for path in (world / "exports/segmenter-keras").iterdir()}
    assert names == {"model.keras", "preprocessing.json", "MODEL_CARD.md", "own.py"}
    assert (world / "exports/deform-keras/layers.py").exists()
    with zipfile.ZipFile(world / "exports/segmenter-keras/model.keras") as file:
        assert b"tf_keras" not in file.read("config.json")  # which TensorFlow 2.15 has not
    assert not any(path.name.startswith(".part") for path in (world / "exports").iterdir())


@pytest.mark.parametrize(
    "kind, changes",
    [
        ("deform", {"model.deformation": "velocity", "model.limit_mm": 8.0, "model.half_pixel_centers": False}),
        ("intensity", {"model.intensity": "increasing", "model.curve_knots": 8}),
        ("intensity", {"model.intensity": "quantiles", "model.curve_knots": 16}),
    ],
)
def test_layers_that_keras_lacks_are_in_a_file(world, tmp_path, kind, changes):
    run = make_run(tmp_path, make_config(world / "data", "float32"), kind, **changes)
    original = export(run, tmp_path / "out", "keras")
    spec = importlib.util.spec_from_file_location("layers", tmp_path / "out/layers.py")
    layers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(layers)
    model = layers.load(tmp_path / "out/model.keras")
    inputs = [*INPUTS.values()][: len(original.inputs)]  # image, z, and the label of what moves it
    found, wanted = (one(inputs, training=False) for one in (model, original))
    assert_same(*({name: value.numpy() for name, value in one.items()} for one in (found, wanted)))


@pytest.mark.parametrize("axis", ["auto", 1])
def test_the_steps_say_which_axis_is_sliced_where_the_run_finds_it(axis):
    config = phantom.get_config()
    config.data.slice_axis = axis
    first, *_ = exporting._steps(config)
    rule = "the axis with a single slice, else the one with the largest spacing; of several, the last"
    found = f"find the sliced axis: {rule} (spacings are equal if they differ by at most 0.1%)"
    assert first == found if axis == "auto" else first.startswith("move the sliced axis to the end")


def test_what_a_program_must_know_is_beside_the_network(world):
    about = json.loads((world / "exports/deform-savedmodel/preprocessing.json").read_text())
    assert about["tfaug"] == tfaug.__version__ and about["n4"] is None and about["phase"] is None
    assert (about["resolution_mm"], about["image_size"], about["percentiles"]) == (2.0, SIZE, [2, 98])
    assert about["channels"] == ["contrast0"] and about["slice_axis"] == "auto"
    values = {one["name"]: (one["index"], one["label"]) for one in about["classes"]}
    assert values == {"background": (0, 0), "anterior": (1, 85), "posterior": (2, 300)}
    assert list(about["inputs"]) == ["image", "z", "label"]
    assert about["outputs"]["field"]["shape"] == ["batch", SIZE, SIZE, 2]
    assert "pixels" in about["outputs"]["field"]["about"]


@pytest.mark.parametrize(
    "changes, limited",
    [({"intensity": form}, form in ("free", "curve")) for form in ("free", "curve", "increasing", "quantiles")]
    + [({"intensity": "free", "generator": "my_networks:shifts"}, False)],
)
def test_limits_of_an_intensity_field_are_told_where_there_are_some(world, tmp_path, changes, limited):
    run = run_of(world, "quantiles")
    role, config = sources.config_of_network(run)
    config.model.update(changes)
    about = exporting.Export(run, role, config, tmp_path / "out", "keras").preprocessing()["outputs"]["field"]["about"]
    assert about == f"{'in (-1, 1), ' if limited else ''}in units of the prepared image"


def test_the_card_tells_data_scores_and_use(world, tmp_path):
    card = (world / "exports/segmenter-keras/MODEL_CARD.md").read_text()
    for text in ("N_L = 1, set 1", "85 anterior, 300 posterior", "was not evaluated", "6 mm apart", "Apache-2.0"):
        assert text in card
    assert "Not a medical device" in card and "@inproceedings" in card and str(world) not in card
    run = shutil.copytree(run_of(world, "segmenter"), tmp_path / "run")
    folder = run / "evaluation/test"
    folder.mkdir(parents=True)
    rows = [(case, name, dice) for case, dice in (("a", 0.5), ("b", 0.7)) for name in STRUCTURES]
    pd.DataFrame(rows, columns=["case", "structure", "dice"]).to_csv(folder / "dice.csv", index=False)
    for name in ("summary.txt", "indices.csv", "agreement.png"):
        (folder / name).touch()
    identity.mark_evaluated(folder, identity.of_evaluation(run_dir.identity(run), {}, "reloaded"))
    role, config = sources.config_of_network(run)
    card = exporting.Export(run, role, config, tmp_path / "out", "keras").card()
    assert "| anterior | 0.600 | 0.100 | 0.500 | 0.700 |" in card and "2 cases (a, b)" in card
    assert "verdict" not in card and "was not evaluated" not in card
    (run / "report.json").write_text((run / "report.json").read_text() + "\n")  # of another training
    assert "was not evaluated" in exporting.Export(run, role, config, tmp_path / "out", "keras").card()


def write_with_its_generators(run, folder):
    role, config = sources.config_of_network(run)
    learned = runs.generators_of(run, config, run_dir.read_report(run))
    exporting.Export(run, role, config, folder, "keras").run(Network(), learned)


def digest_of(path, kind):
    return runs.digest_of(runs.generator_of(path, kind))


@pytest.mark.parametrize("gone", [True, False])
def test_another_generator_in_the_place_of_the_segmenters_is_not_taken_for_it(world, tmp_path, gone):
    config = make_config(world / "data", "float32")
    deform = make_run(tmp_path, config.copy_and_resolve_references(), "deform", **{"augment.lambda_fold": 77.0})
    intensity = make_run(tmp_path, config.copy_and_resolve_references(), "intensity", **{"augment.num_steps": 55})
    run = make_run(tmp_path, config, "segmenter")
    report = json.loads((run / "report.json").read_text())
    del report["sha256"]
    digests = {"deform": "of another one", "intensity": digest_of(intensity, "intensity")}
    (run / "report.json").write_text(json.dumps({**report, "method": "aff_gd_gi", "generators": digests}))
    if gone:
        shutil.rmtree(deform)
    write_with_its_generators(run, tmp_path / "out")
    program, card = ((tmp_path / "out" / name).read_text() for name in ("own.py", "MODEL_CARD.md"))
    told = "Generators that the segmenter learned with, and whose runs are gone or have learned other ones since"
    assert "77.0" not in program and f"\n# {told}" in program and f"{told}: 'deform'. The" in card
    again = tfaug.load_config(tmp_path / "out/own.py")
    assert rules.of_generator(again, "intensity").augment.num_steps == 55


@pytest.mark.parametrize("name, section", [("segmenter", "segment"), ("deform", "augment")])
def test_the_card_calls_a_step_the_best_only_if_validation_has_chosen_it(world, tmp_path, name, section):
    role, config = sources.config_of_network(run_of(world, name))
    for keep, told in (("best", "validation cases choose the best step"), ("last", "choose nothing: the last step is")):
        config[section].keep = keep
        card = exporting.Export(run_of(world, name), role, config, tmp_path / "out", "keras").card()
        assert told in card and ("by which the best step" in card) == (keep == "best" and name == "segmenter")


@pytest.mark.parametrize("name", ["segmenter", "deform"])
def test_the_command_of_the_card_trains_the_same_network(world, name):
    """It finds the run finished: keys of the config and scans are the same."""
    folder = world / f"exports/{name}-keras"
    (command,) = re.findall("^    tfaug (train .*)$", (folder / "MODEL_CARD.md").read_text(), re.MULTILINE)
    flags = command.replace("=DIR", f"={world / 'data'}").split()
    assert not any("=RUNS" in flag for flag in flags)
    stage = [] if name == "deform" else ["--stage=seg"]
    done = programs.run("tfaug", *flags, *stage, f"--workdir={world / name}", cwd=folder)
    assert done.returncode == 0 and "finished before, kept step 7" in done.stdout, done.stderr
    assert str(world) not in (folder / "own.py").read_text()


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("method", ["aff_gd_gi", "mine"])
def test_the_config_beside_the_network_trains_its_generators_again(world, tmp_path, method, named):
    config = make_config(world / "data", "float32")
    learned = {
        "deform": make_run(tmp_path, config.copy_and_resolve_references(), "deform", **{"augment.lambda_big": 0.25}),
        "intensity": make_run(tmp_path, config.copy_and_resolve_references(), "intensity", **{"augment.num_steps": 77}),
    }
    if named:
        (tmp_path / "elsewhere").mkdir()
        learned = {name: path.rename(tmp_path / "elsewhere" / name) for name, path in learned.items()}
    run = make_run(tmp_path, config, "segmenter", **{f"generators.{k}": str(p) for k, p in learned.items() if named})
    report = json.loads((run / "report.json").read_text())
    del report["sha256"]  # with it, the file would be refused
    digests = {name: digest_of(path, name) for name, path in learned.items()}
    (run / "report.json").write_text(json.dumps({**report, "method": method, "generators": digests}))
    write_with_its_generators(run, tmp_path / "out")
    again = tfaug.load_config(tmp_path / "out/own.py")
    of_deform, of_intensity = (rules.of_generator(again, name) for name in learned)
    assert (of_deform.augment.lambda_big, of_intensity.augment.num_steps) == (0.25, 77)
    assert of_intensity.augment.lambda_big == config.augment.lambda_big != 0.25
    assert len(of_deform.augment.class_weights) == CLASSES
    card = (tmp_path / "out/MODEL_CARD.md").read_text()
    assert f"--aug={method}" in card and str(tmp_path) not in card + (tmp_path / "out/own.py").read_text()
    for name, path in learned.items():
        assert (f"--config.generators.{name}=RUNS/{path.name}" in card) == named


@pytest.mark.parametrize("name", ["segmenter", "deform"])
def test_the_config_beside_a_network_holds_for_as_many_structures(world, name):
    again = tfaug.load_config(world / f"exports/{name}-keras/own.py")
    rules.check(again)
    assert len(again.data.structures) == CLASSES - 1
    assert {len(again[stage].class_weights) for stage in ("augment", "segment")} <= {0, CLASSES}


def run_command(world, tmp_path, **changes):
    flags = {"run": run_of(world, "segmenter"), "to": "keras", "output": "out", **changes}
    return programs.run("tfaug", "export", *(f"--{name}={value}" for name, value in flags.items()), cwd=tmp_path)


def test_the_command(world, tmp_path):
    (tmp_path / "out").mkdir()  # an empty one will do
    done = run_command(world, tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and "out: a segmenter, model.keras" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert "is not empty; choose another --output" in failed(run_command(world, tmp_path), 2)


def test_what_cannot_be_used_is_one_line(world, tmp_path):
    run = shutil.copytree(run_of(world, "segmenter"), tmp_path / "run")
    (run / "report.json").unlink()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "foreign").mkdir()
    before = {*tmp_path.rglob("*")}
    for changes, problem in (
        ({"run": "run"}, "run: there is no trained network"),
        ({"run": "foreign"}, "foreign: there is no trained network"),
        ({"to": "onxx"}, "did you mean 'onnx'?"),
        ({"to": ""}, "--to: is missing"),
        ({"output": "file"}, "file: is not a folder"),
        ({"output": "foreign/../run"}, "run: is not empty"),
    ):
        assert problem in failed(run_command(world, tmp_path, **changes), 2)
    shutil.copyfile(run_of(world, "segmenter") / "report.json", run / "report.json")
    shutil.rmtree(run / "best")
    assert "step-00000007: is missing" in failed(run_command(world, tmp_path, run="run"), 2)
    assert {path for path in tmp_path.rglob("*") if "run" not in path.parts} <= before


def test_onnx_without_its_packages_is_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None)
    remedy = r"pip install 'tfaug\[onnx\]'" if sys.version_info >= (3, 10) else "Python 3.10"
    with pytest.raises(UserError, match=remedy):
        exporting.check_format("onnx")


class Network:
    """Writes a file, and fails on the first disk."""

    def __init__(self, error=None):
        self.error = error

    def save(self, folder, to):
        (folder / "model.keras").write_text("model")
        if self.error:
            raise self.error


def test_a_failing_export_leaves_nothing_and_a_killed_one_is_replaced(world, tmp_path):
    run = run_of(world, "segmenter")
    job = exporting.Export(run, *sources.config_of_network(run), tmp_path / "out", "keras")
    with pytest.raises(MachineError, match="No space left"):
        job.run(Network(OSError(28, "No space left on device")))
    assert not list(tmp_path.iterdir())
    (tmp_path / ".part-out").mkdir()
    (tmp_path / ".part-out/half").write_text("of a killed process")
    with run_dir.locked(tmp_path / ".part-out"), pytest.raises(UserError, match="is in use by process"):
        job.run(Network())
    job.run(Network())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("model.keras", "preprocessing.json", "own.py", "MODEL_CARD.md")
    }


def test_pages_name_every_format():
    text = (pathlib.Path(__file__).parent.parent / "docs/export.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == {*exporting.FILES}
