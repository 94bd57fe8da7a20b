import json
import math
import os

import pytest

from tfaug.configs import phantom
from tfaug.engine.errors import MachineError, UserError
from tfaug.experiment import identity
from tfaug.table1 import results
from tfaug.table1.results import Result

CASES = ("patient007", "patient008")
RESULT = Result("aff", 1, 2, 0, 350, 0.5, dict.fromkeys(CASES, (0.25, 0.5, 0.75)), 61.24, "a1b2c3", 1, "2.15.1")
STRUCTURES = ("RV", "Myo", "LV")
NAME = "phantom-n1-set2-seg-aff-seed0.json"


@pytest.fixture
def config():
    config = phantom.get_config()
    config.splits.test = CASES
    return config


@pytest.fixture
def folder(tmp_path, config):
    results.save(tmp_path / "results", RESULT, config, STRUCTURES)
    return tmp_path / "results"


def test_a_result_comes_back_as_it_was_but_for_rounding(folder, config):
    undefined = RESULT._replace(method="none", dice={CASES[0]: (1 / 3, math.nan, 1.0), CASES[1]: (0.0, 0.5, 0.5)})
    results.save(folder, undefined, config, STRUCTURES)
    first, second = results.load(folder)
    assert first == RESULT._replace(seconds=61.2)
    assert second.dice[CASES[0]][0] == 0.33333 and math.isnan(second.dice[CASES[0]][1])
    assert list(second.dice) == list(CASES)


def test_a_file_is_small_and_has_a_patient_a_line(folder, config):
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", NAME]
    assert '\n  "patient007": [0.25, 0.5, 0.75],\n' in (folder / NAME).read_text()
    many = RESULT._replace(dice={f"patient{n:03d}": (1 / 3, 2 / 3, 1 / 7) for n in range(20)})
    config.splits.test = tuple(many.dice)
    results.save(folder / "other", many, config, STRUCTURES)
    assert (folder / "other" / NAME).stat().st_size < 4096


def test_a_folder_of_results_has_no_paths_and_takes_other_sets_seeds_and_machines(folder, config):
    config.seed, config.num_labelled, config.labelled_set = 1, 3, 5
    config.data.cache_dir, config.data.num_workers = "/elsewhere/cache", 7
    config.checkpoint_every = 7
    results.save(folder, RESULT._replace(num_labelled=3, labelled_set=5, seed=1), config, STRUCTURES)
    assert len(results.load(folder)) == 2
    config.data.root = "/elsewhere/ACDC/"
    config.generators.deform = "/elsewhere/trained"
    text = json.dumps(results.decisive(config, STRUCTURES))
    assert '"ACDC"' in text and '"trained"' in text and "elsewhere" not in text


def test_a_missing_or_empty_folder_has_no_results(tmp_path):
    assert results.load(tmp_path) == results.load(tmp_path / "missing") == []


def test_another_precision_is_another_config(folder, config):
    """Though a single run may resume with it."""
    config.precision = "mixed_bfloat16"
    with pytest.raises(UserError, match='precision: "float32" -> "mixed_bfloat16"'):
        results.bind(folder, config, STRUCTURES)


def test_results_of_another_config_are_refused_with_the_difference(folder, config):
    steps, config.segment.num_steps = config.segment.num_steps, 7
    before = (folder / NAME).read_bytes()
    for act in (
        lambda: results.bind(folder, config, STRUCTURES),
        lambda: results.save(folder, RESULT, config, STRUCTURES),
    ):
        with pytest.raises(UserError, match=rf"another config \(segment.num_steps: {steps} -> 7\); .*--results"):
            act()
    assert (folder / NAME).read_bytes() == before


def test_results_of_other_structures_or_another_order_are_refused(folder, config):
    for names in (("anterior", "posterior"), ("LV", "Myo", "RV")):
        with pytest.raises(UserError, match="another config .*data.structures"):
            results.bind(folder, config, names)


def test_dice_is_in_the_order_of_the_structures_however_many(tmp_path, config):
    found = RESULT._replace(dice=dict.fromkeys(CASES, (0.25, 0.5)))
    results.save(tmp_path / "two", found, config, ("posterior", "anterior"))
    assert results.load(tmp_path / "two")[0].dice == found.dice
    assert results.task_of(results.read_config(tmp_path / "two")).names == ("posterior", "anterior")


def test_methods_may_be_added_and_dropped_and_may_be_the_users(folder, config):
    with config.unlocked():
        config.methods = ("aff", "my_module:blur")
    results.save(folder, RESULT._replace(method="blur"), config, STRUCTURES)
    assert [result.method for result in results.load(folder)] == ["aff", "blur"]


def test_the_same_splits_are_the_same_config_wherever_they_come_from(folder, config):
    with config.unlocked():
        config.splits.file, config.splits.random = "/elsewhere/splits.json", {}
    results.bind(folder, config, STRUCTURES)
    config.splits.validation = ("patient001",)
    with pytest.raises(UserError, match="splits.validation"):
        results.bind(folder, config, STRUCTURES)


def change(**values):
    def damage(path):
        content = {**json.loads(path.read_text()), **values}
        del content["sha256"]  # with it, any change is noticed
        path.write_text(json.dumps(content))

    return damage


def rename(path):
    path.rename(path.with_name("phantom-n1-set3-seg-aff-seed0.json"))


DAMAGES = {
    "cut": lambda path: os.truncate(path, 100),
    "empty": lambda path: os.truncate(path, 0),
    "binary": lambda path: path.write_bytes(bytes(range(256))),
    "nested": lambda path: path.write_text("[" * 100_000),
    "list": lambda path: path.write_text("[1]"),
    "foreign": lambda path: path.write_text('{"a": 1}'),
    "format": change(tfaug_result=2),
    "extra": change(more=1),
    "method": change(method="best"),
    "method of a module": change(method="my_module:aff"),
    "method type": change(method=["aff"]),
    "dice above 1": change(dice=dict.fromkeys(CASES, (0.5, 0.5, 1.5))),
    "dice NaN": change(dice=dict.fromkeys(CASES, (0.5, 0.5, math.nan))),
    "dice text": change(dice=dict.fromkeys(CASES, ("0.5", 0.5, 0.5))),
    "two structures": change(dice=dict.fromkeys(CASES, (0.5, 0.5))),
    "dice list": change(dice=[0.5]),
    "other patients": change(dice={CASES[0]: (0.5, 0.5, 0.5)}),
    "seed": change(seed="../0"),
    "seed text": change(seed="0"),
    "seed fraction": change(seed=0.0),
    "num_labelled text": change(num_labelled="1"),
    "labelled_set true": change(labelled_set=True),
    "best_step null": change(best_step=None),
    "threads list": change(threads=[1]),
    "seconds text": change(seconds="61.2"),
    "seconds null": change(seconds=None),
    "seconds infinite": change(seconds=math.inf),
    "commit number": change(commit=5),
    "generators list": change(generators=["deform"]),
    "generators number": change(generators={"deform": 1}),
    "row text": change(row="affine"),
    "tensorflow null": change(tensorflow=None),
    "validation_dice null": change(validation_dice=None),
    "renamed": rename,
    "edited": lambda path: path.write_text(path.read_text().replace('"best_step": ', '"best_step": 1')),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_or_foreign_file_is_named(folder, damage):
    damage(folder / NAME)
    (found,) = {path.name for path in folder.iterdir()} - {"config.json"}
    with pytest.raises(UserError, match=found):
        results.load(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"tfaug_results_of": 1}', '{"tfaug_results_of": 1, "config": {"name": "a"}}', "\0"]
)
def test_a_damaged_config_is_named(folder, config, text):
    (folder / "config.json").write_text(text)
    for act in (results.load, results.read_config, lambda folder: results.bind(folder, config, STRUCTURES)):
        with pytest.raises(UserError, match="config.json"):
            act(folder)


def test_results_of_an_older_tfaug_are_refused(folder, config):
    content = json.loads((folder / "config.json").read_text())
    content["tfaug_results_of"] = 1
    (folder / "config.json").write_text(json.dumps(content))
    for act in (results.load, lambda folder: results.bind(folder, config, STRUCTURES)):
        with pytest.raises(UserError, match="config.json: is of results of tfaug 0.1.0; choose another --results"):
            act(folder)


@pytest.mark.parametrize("names", [None, {"RV": 1}, "RV", [], ["RV", "RV", "LV"], ["RV", 2, "LV"], ["RV", [], "mean"]])
def test_structures_that_no_data_set_has_are_named(folder, names):
    content = json.loads((folder / "config.json").read_text())
    content["config"]["data"]["structures"] = names
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="config.json"):
        results.load(folder)


@pytest.mark.parametrize(
    "section, value",
    [
        ("data", None),
        ("data", {"root": 5}),
        ("data", {"root": ""}),
        ("splits", {"test": 5}),
        ("splits", {"test": [5]}),
        ("name", 5),
    ],
)
def test_a_config_with_values_of_a_wrong_type_is_named(folder, section, value):
    content = json.loads((folder / "config.json").read_text())
    content["config"][section] = value
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="config.json"):
        results.load(folder)


def test_another_programs_folder_is_left_alone(tmp_path, config):
    (tmp_path / "thesis.tex").write_text("mine")
    for act in (results.load, lambda folder: results.save(folder, RESULT, config, STRUCTURES)):
        with pytest.raises(UserError, match=str(tmp_path)):
            act(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        results.load(tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_notes_beside_the_results_and_leftovers_of_a_killed_write_are_overlooked(folder):
    (folder / "README.md").write_text("notes")
    (folder / f".part-1-{NAME}").write_text('{"tfa')
    assert len(results.load(folder)) == 1


def test_a_full_disk_leaves_no_half_result(folder, config, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    before = (folder / NAME).read_bytes()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(MachineError, match="No space left"):
        results.save(folder, RESULT._replace(best_step=1), config, STRUCTURES)
    assert (folder / NAME).read_bytes() == before and len(list(folder.iterdir())) == 2


def test_the_result_of_a_run_is_what_its_evaluation_says(tmp_path, config):
    (tmp_path / "evaluation/test").mkdir(parents=True)
    (tmp_path / "report.json").write_text('{"best": 0.5, "best_step": 350, "warnings": []}')
    rows = [
        f"{case},{name},{dice},1.0,1.0" for case in CASES for name, dice in zip(("RV", "Myo", "LV"), (".25", ".5", ""))
    ]
    (tmp_path / "evaluation/test/dice.csv").write_text("\n".join(["case,structure,dice,hd95_mm,assd_mm", *rows]))
    config.labelled_set = 2
    result = results.of_run(tmp_path, config, "aff", seconds=61.24, commit="a1b2c3", threads=1, tensorflow="2.15.1")
    assert all(math.isnan(lv) and (rv, myo) == (0.25, 0.5) for rv, myo, lv in result.dice.values())
    assert result._replace(dice=RESULT.dice) == RESULT


def test_what_a_result_is_of_is_kept(config, tmp_path):
    row = {"first": ["affine"], "generated": [["elastic"]], "mixup": False}
    known = {"data": "abc", "row": row, "generators": {"deform": "d1"}}
    results.save(tmp_path, RESULT._replace(**known), config, STRUCTURES)
    (result,) = results.load(tmp_path)
    assert {key: getattr(result, key) for key in known} == known


def trained(folder, best):
    """A finished run of a generator, as far as its identity goes; all have one name, as those of one config have."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "report.json").write_text(json.dumps({"best": best, "best_step": 1}))
    return str(folder)


def test_results_of_other_generators_are_refused_and_methods_without_any_are_not(folder, config, tmp_path):
    learned = identity.of_generators(config, ["deform"])
    assert learned == {"deform": ""}
    config.generators.deform = trained(tmp_path / "a" / "run", 0.5)
    now = identity.of_generators(config, ["deform"])
    results.save(folder, RESULT._replace(method="aff_gd", generators=now), config, STRUCTURES)
    results.save(folder, RESULT._replace(method="none", generators={}), config, STRUCTURES)

    def add(generators):
        return len(results.of_config(folder, config, STRUCTURES, generators))

    assert add(["deform", "intensity"]) == 3
    (tmp_path / "a").rename(tmp_path / "moved")
    config.generators.deform = str(tmp_path / "moved" / "run")
    assert add(["deform"]) == 3
    error = r"phantom-n1-set2-seg-aff_gd-seed0.json: was made with another generator 'deform'; .* --results"
    for other in ("", trained(tmp_path / "b" / "run", 0.6)):
        config.generators.deform = other
        assert add([]) == add(["intensity"]) == 3
        with pytest.raises(UserError, match=error):
            add(["deform"])
    config.generators.deform = str(tmp_path / "nowhere")
    assert add([]) == 3
    with pytest.raises(UserError, match="nowhere: there is no trained generator 'deform'"):
        add(["deform"])


def test_a_look_at_a_folder_of_results_makes_none(config, tmp_path):
    assert results.of_config(tmp_path / "new", config, STRUCTURES, ()) == []
    assert not (tmp_path / "new").exists()
