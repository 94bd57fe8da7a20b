import json
import os
import pathlib
import re
import runpy
import subprocess
import sys

import numpy as np
import pytest

from tfaug import config as rules
from tfaug.commands import cli
from tfaug.configs import acdc, acdc_quick, hippocampus, own, phantom, released_code
from tfaug.engine import run_dir
from tfaug.engine.errors import UserError


def numbers(cases):
    return [int(case[-3:]) for case in cases]


def test_splits_are_those_of_the_released_program():
    config = acdc.get_config()
    assert numbers(rules.cases(config, "test")) == [
        *(7, 8, 9, 10, 27, 28, 29, 30, 47, 48, 49, 50),
        *(67, 68, 69, 70, 87, 88, 89, 90),
    ]
    assert numbers(rules.cases(config, "validation")) == [11, 71]
    assert numbers(rules.cases(config, "unlabelled")) == [
        *(16, 17, 18, 19, 20, 36, 37, 38, 39, 40, 56, 57, 58, 59, 60),
        *(76, 77, 78, 79, 80, 96, 97, 98, 99, 100),
    ]
    assert [numbers(chosen) for chosen in config.splits.labelled.n1] == [[2], [42], [22], [62], [95]]
    assert [numbers(chosen) for chosen in config.splits.labelled.n3] == [
        [2, 22, 42],
        [42, 62, 82],
        [22, 42, 82],
        [2, 42, 82],
        [2, 42, 95],
    ]
    assert [len(set(chosen)) for chosen in config.splits.labelled.n40] == [40]


@pytest.mark.parametrize("module", [acdc, acdc_quick, phantom, released_code, own, hippocampus])
@pytest.mark.parametrize("num_labelled", [1, 3, 40])
def test_our_configs_are_valid_for_every_labelled_set(module, num_labelled):
    config = module.get_config()
    config.num_labelled = num_labelled
    rules.check(config)


def test_released_code_sets_every_switch():
    """Those that FIDELITY's table gives another default, N4 at full resolution, and no other value."""
    changed = run_dir.differences(acdc.get_config().to_dict(), released_code.get_config().to_dict())
    assert set(changed) == {
        "name",
        "data.phase",
        "data.n4_shrink",
        "model.half_pixel_centers",
        "transforms.affine",
        "transforms.random_intensity",
        "augment.task_gradient",
        "augment.discriminator_first",
        "augment.real_pool",
        "augment.partition",
        "augment.eval_every",
        "segment.partition",
        "segment.eval_every",
    }


@pytest.mark.parametrize(
    "key, value, hint",
    [
        ("name", "../../elsewhere", "letters"),
        ("name", "", "letters"),
        ("data.image_size", 80, "multiple of 32"),
        ("data.image_size", 32.0, "multiple of 32"),
        ("data.image_size", 10**9, "up to 4096"),
        ("data.resolution", 0.0, "from 0.1 to 100"),
        ("data.resolution", 1e-5, "from 0.1 to 100"),
        ("data.image_size", "automatic", "or auto"),
        ("data.resolution", "automatic", "or auto"),
        ("data.slice_axis", 3, "'auto' or 0 or 1 or 2"),
        ("data.structures", {"liver"}, "{'anterior': 1"),
        ("data.structures", "liver", "{'anterior': 1"),
        ("data.structures", (("liver", 1, 2),), "{'anterior': 1"),
        ("data.channels", "T1", "('T1', 'T2')"),
        ("data.images", "", "a pattern"),
        ("methods", (), "each name once"),
        ("methods", ("aff", "none", "aff"), "each name once"),
        ("methods", ("aff", "my_module:aff"), "each name once"),
        ("methods", "aff", "each name once"),
        ("model.segmenter", None, "'my_module:name'"),
        ("splits.random", 5, "{'labelled': 1"),
        ("splits.random", ("labelled",), "{'labelled': 1"),
        ("data.root", None, "a path"),
        ("data.cache_dir", 5, "a path"),
        ("data.cohort_seed", "x", "whole number"),
        ("data", None, "configs/"),
        ("augment.class_weights", (0.1, 0.3, 0.3, "a"), "one number a class"),
        ("augment.class_weights", (0.1, -0.3), "one number a class"),
        ("augment.class_weights", (0.0, 0.0), "one number a class"),
        ("augment.class_weights", (1.0,), "one number a class"),
        ("augment.lambda_seg", 0.0, "task_gradient=False"),
        ("augment.lambda_adv", -1.0, "at least 0"),
        ("augment.adversarial_loss", "wgan", "non_saturating"),
        ("augment.warmup_steps", 10_000, "fewer"),
        ("augment.diversity", "volumes", "'difference' or 'volume'"),
        ("augment.of_intensity", {"warmup_steps": 10_000}, "fewer"),
        ("augment.of_intensity", {"pakc": 5}, "did you mean 'pack'"),
        ("augment.of_intensity", {"of_intensity": {}}, "did you mean 'intensity'"),
        ("augment.of_intensity", {"r1": "much"}, "give a value of the type"),
        ("augment.of_intensity", ("pack", 5), "as {'pack': 5}"),
        ("augment.of_intensity", {"class_weights": (0.1, -0.3)}, "one number a class"),
        ("augment.of_intensity", {"num_steps": 0}, "a whole number of at least 1"),
        ("augment.of_intensity", {"filters": 0}, "a whole number of at least 1"),
        ("segment.batch_size", 0, "at least 1"),
        ("segment.batch_size", 10.0, "whole number"),
        ("segment.num_steps", 9.5, "whole number"),
        ("segment.num_steps", np.int64(9), "whole number"),
        ("segment.num_steps", 10**30, "whole number"),
        ("segment.learning_rate", float("inf"), "above 0"),
        ("segment.class_weights", (10**400, 1, 1, 1), "one number a class"),
        ("model.filters", 2.5, "whole number"),
        ("model.half_pixel_centers", "no", "True or False"),
        ("model.head_scale", 0.0, "above 0"),
        ("augment.task_gradient", "no", "True or False"),
        ("generators", None, "configs/"),
        ("generators.deform", None, "a path"),
        ("picture_every", 2.5, "whole number"),
        ("seed", 1.5, "whole number"),
        ("seed", True, "whole number"),
        ("labelled_set", 1.0, "whole number"),
        ("labelled_set", 6, "1 to 5"),
        ("splits.test", ("patient011",), "apart"),
        ("splits.validation", (), "at least one"),
        ("splits", None, "configs/"),
        ("splits.test", "patient011", "names"),
        ("splits.unlabelled", (16, 17), "names"),
        ("splits.unlabelled", None, "names"),
        ("splits.labelled", None, "sets of cases"),
        ("splits.labelled.n1", ("patient002",), "tuple of sets"),
        ("splits.labelled.n1", (5,), "tuple of sets"),
        ("splits.labelled.n1", (None,), "tuple of sets"),
        ("splits.labelled.n1", 5, "tuple of sets"),
        ("splits.labelled.n3", (), "tuple of sets"),
    ],
)
def test_impossible_values_are_refused_by_their_key(key, value, hint):
    config = acdc.get_config()
    *parents, last = key.split(".")
    section = config
    for parent in parents:
        section = section[parent]
    with section.ignore_type():
        section[last] = value
    with pytest.raises(UserError) as raised:
        rules.check(config)
    assert key.split(".")[0] in raised.value.subject and hint in raised.value.remedy


@pytest.mark.parametrize(
    "changes",
    [
        {"data.image_size": "auto", "data.resolution": "auto"},
        {"data.structures": {"liver": 1, "spleen": 2, "tumour": 3}},
        {"data.structures": (("liver", 1), ("spleen", 2), ("tumour", 3))},
        {"data.structures": [["liver", 1], ["spleen", 2], ["tumour", 3]]},  # as JSON has it
        {"data.slice_axis": 0},
        {"methods": ("aff", "my_module:aff_blur")},
        {"segment.class_weights": ()},
        {"segment.class_weights": (0.1, 0.45, 0.45)},
    ],
)
def test_what_an_unresolved_config_may_say(changes):
    config = acdc.get_config()
    for key, value in changes.items():
        *parents, last = key.split(".")
        section = config[parents[0]] if parents else config
        section[last] = value
    rules.check(config)


@pytest.mark.parametrize("structures", [{"liver": 1}, (("liver", 1),), [["liver", 1]]])
@pytest.mark.parametrize("stage", ["augment", "segment"])
def test_there_is_a_weight_for_each_class_of_the_structures(structures, stage):
    config = acdc.get_config()
    config.augment.class_weights = config.segment.class_weights = (0.1, 0.9)
    config.data.structures = structures
    rules.check(config)
    config[stage].class_weights = (0.1, 0.3, 0.3, 0.3)
    with pytest.raises(UserError, match=f"{stage}.class_weights: has 4 numbers for 2 classes"):
        rules.check(config)


def test_splits_that_are_yet_to_be_drawn_or_read_are_not_checked():
    for key, value in (("random", {"labelled": 1, "validation": 2, "test": 3}), ("file", "splits.csv")):
        config = acdc.get_config()
        config.splits.validation = ()
        with pytest.raises(UserError, match="validation"):
            rules.check(config)
        config.splits[key] = value
        rules.check(config)


def test_what_is_otherwise_for_g_i_reaches_its_training_alone():
    config = acdc.get_config()
    config.augment.of_intensity = {"pack": 5, "discriminator": "histogram", "lambda_big": 0}
    rules.check(config)
    deform, intensity = (rules.of_generator(config, name) for name in ("deform", "intensity_noreg"))
    assert (deform.augment.pack, deform.model.discriminator) == (1, "dcgan")
    assert run_dir.differences(deform.to_dict(), acdc.get_config().to_dict()) == {}
    changed = run_dir.differences(intensity.to_dict(), deform.to_dict())
    assert set(changed) == {"augment.pack", "augment.lambda_big", "model.discriminator"}
    assert rules.of_generator(intensity, "intensity") == intensity
    assert config.augment.of_intensity["pack"] == 5
    config.augment.of_intensity = {"pack": 3}
    with pytest.raises(UserError, match="--config.augment.of_intensity: augment.pack: packs of 3 do not fill"):
        rules.check(config)


def test_a_reward_of_volume_needs_a_limit_of_the_generator_that_learns_by_it():
    config = acdc.get_config()
    config.augment.of_intensity = {"lambda_diversity": 0.1, "diversity": "volume", "big_limit_mm": 9.0}
    rules.check(config)  # of G_V's training too, whose config is checked without G_I's
    with pytest.raises(UserError, match="--config.augment.big_limit_intensity: is 0.*give one"):
        rules.check_generator(config, "intensity")
    for name in ("deform", "deform_noreg", "intensity_noreg"):  # without regularisation there is no reward
        rules.check_generator(config, name)
    config.augment.of_intensity = {"lambda_diversity": 0.1, "diversity": "volume", "big_limit_intensity": 0.1}
    rules.check_generator(config, "intensity")
    config.augment.lambda_diversity, config.augment.diversity = 1.0, "volume"
    with pytest.raises(UserError, match="--config.augment.big_limit_mm: is 0"):
        rules.check_generator(config, "deform")
    rules.check_generator(config, "deform_noreg")
    config.augment.big_of = "strain"  # which has no unit
    rules.check_generator(config, "deform")


def test_flags_give_values_of_other_types():
    """In a process of its own: flags are defined once in each."""
    program = "from tfaug.commands import cli; cli.run(lambda: print(cli.config().to_json()))"
    flags = [
        *(
            "--config=phantom",
            "--config.data.image_size=auto",
            "--config.data.resolution=1",
            "--config.data.slice_axis=0",
        ),
        *("--config.data.structures={'liver': 7, 'tumour': 3}", "--config.data.channels=('T1', 'T2')"),
        *(
            "--config.splits.random={'labelled': (1, 3), 'validation': 2, 'test': 0.2}",
            "--config.methods=('none', 'aff')",
        ),
        "--config.augment.of_intensity={'pack': 5}",
        *("--config.augment.class_weights=()", "--config.segment.class_weights=(0.1, 0.4, 0.5)"),
    ]
    done = subprocess.run([sys.executable, "-c", program, *flags], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    config = json.loads(done.stdout)
    given = [config["data"][key] for key in ("image_size", "resolution", "slice_axis", "structures", "channels")]
    assert given == ["auto", 1, 0, {"liver": 7, "tumour": 3}, ["T1", "T2"]]
    assert config["splits"]["random"] == {"labelled": [1, 3], "validation": 2, "test": 0.2}
    assert config["augment"]["of_intensity"] == {"pack": 5}
    assert (config["methods"], config["segment"]["class_weights"]) == (["none", "aff"], [0.1, 0.4, 0.5])


def test_every_key_of_several_types_takes_a_flag_with_the_old_library_too():
    """The keys that configs/acdc.py sets with `either` are those that ml_collections 0.1.1 has no flag for."""
    config = pathlib.Path(acdc.__file__).read_text(encoding="utf-8")
    keys = re.findall(r"^    (config\.[\w.]+) = either\(", config, re.MULTILINE)
    assert len(keys) > 5
    assert [key for key in keys if not cli._LITERAL.match(f"--{key}=1")] == []


def config_of(*flags, **environment):
    """What a program gets, in a process of its own: flags are defined once in each."""
    program = (
        "import json; from tfaug.commands import cli\n"
        "cli.run(lambda: print(json.dumps([cli.config().to_dict(), str(cli.path(cli.WORKDIR)), str(cli.results())])))"
    )
    command = [sys.executable, "-c", program, *flags]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_c13_sets_of_a_new_size_by_flag_and_of_an_old_one():
    for flags in (
        ["--config.splits.labelled.n2=(('a', 'b'), ('a', 'c'))", "--config.splits.labelled.n1=(('d',),)"],
        ["--config.splits.labelled.n1=(('e',),)", "--config.splits.labelled.n1", "(('d',),)"]
        + ["--config.splits.labelled.n2", "(('a', 'b'), ('a', 'c'))"],
    ):
        config, _, _ = config_of("--config=phantom", *flags, "--config.num_labelled=2", "--config.labelled_set=2")
        assert config["splits"]["labelled"]["n2"] == [["a", "b"], ["a", "c"]]
        assert config["splits"]["labelled"]["n1"] == [["d"]]
        assert len(config["splits"]["labelled"]["n3"]) == 5


def test_c17_a_tilde_is_the_users_folder_in_every_path(tmp_path):
    (tmp_path / "mine.py").write_text("from tfaug.configs import phantom\nget_config = phantom.get_config\n")
    paths = (
        "data.root",
        "data.cache_dir",
        "splits.file",
        *(f"generators.{name}" for name in acdc.get_config().generators),
    )
    flags = [f"--config.{path}=~/{path}" for path in paths]
    config, workdir, results = config_of(
        "--config=~/mine.py", *flags, "--workdir=~/w", "--results=~/r", HOME=str(tmp_path)
    )
    for path in paths:
        section, key = path.split(".")
        assert config[section][key] == str(tmp_path / path)
    assert (workdir, results) == (str(tmp_path / "w"), str(tmp_path / "r"))
    assert config_of("--workdir=~/w", HOME=str(tmp_path))[2] == str(tmp_path / "w/table1")


def test_a_config_file_that_ends_the_program_is_named(tmp_path):
    """In a process of its own: flags are defined once in each."""
    (tmp_path / "mine.py").write_text("import sys\n\ndef get_config():\n    sys.exit(0)\n")
    program = "import sys; from tfaug.commands import cli; cli.run(lambda: None)"
    command = [sys.executable, "-c", program, f"--config={tmp_path / 'mine.py'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: --config=.*mine\.py: cannot be loaded \(it calls sys.exit\(0\)\); .*\n", done.stderr)


def test_a_config_without_a_needed_key_is_refused():
    config = acdc.get_config()
    del config.augment.lambda_big
    with pytest.raises(UserError, match="augment.lambda_big"):
        rules.check(config)


def test_a_run_is_named_after_config_set_stage_method_and_seed(tmp_path):
    config = acdc.get_config()
    config.num_labelled, config.labelled_set, config.seed = 3, 4, 7
    assert rules.segmenter_path(config, tmp_path, "aff_rd") == tmp_path / "acdc-n3-set4-seg-aff_rd-seed7"
    assert rules.generator_path(config, tmp_path, "deform") == tmp_path / "acdc-n3-set4-aug-deform-seed7"


def test_configs_of_one_name_are_written_to_files_of_their_own(tmp_path):
    """Jobs of one grid must not go on with the config of another one in the same --workdir."""
    one, other = phantom.get_config(), phantom.get_config()
    other.segment.num_steps = 7
    first = rules.write(one, tmp_path)
    assert rules.write(other, tmp_path) != first and rules.write(one, tmp_path) == first
    assert len(list(tmp_path.iterdir())) == 2
    assert runpy.run_path(str(first))["get_config"]().segment.num_steps == one.segment.num_steps != 7


class Number(float):
    """As NumPy 2 shows its numbers."""

    def __repr__(self):
        return f"np.float64({float(self)!r})"


@pytest.mark.parametrize("number", [Number, np.float64])
def test_v9_a_notebooks_numpy_numbers_reach_the_process_that_trains(number, tmp_path):
    config = phantom.get_config()
    config.augment.lambda_fold = number(0.5)
    config.segment.class_weights = tuple(map(number, (0.25, 0.25, 0.25, 0.25)))
    config.splits.test = tuple(np.array(["patient007", "patient008"]))
    config.augment.of_intensity = {"lambda_big": number(0.5)}
    config.data.structures = (("RV", 1), ("Myo", 2), ("LV", np.int64(3)))
    rules.check(config)
    again = runpy.run_path(str(rules.write(config, tmp_path)))["get_config"]()
    assert again.to_dict() == config.to_dict()
    values = (again.augment.lambda_fold, *again.segment.class_weights, again.augment.of_intensity["lambda_big"])
    assert {*map(type, values)} == {float} and {*map(type, again.splits.test)} == {str}
    assert type(again.data.structures[2][1]) is int
