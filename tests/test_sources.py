import json
import pathlib

import numpy as np
import pytest
from data_.patients import anatomy, sform, write_nifti, write_patient

from tfaug import config as rules
from tfaug.config import Config
from tfaug.configs import acdc, own, phantom
from tfaug.data import images
from tfaug.data.preprocess import Spec
from tfaug.engine.errors import UserError
from tfaug.experiment import sources

NAMES = tuple("abcdefgh")
SPLITS = {"labelled": {"n1": [["a"], ["b"]]}, "validation": ["c"], "test": ["d", "e"], "unlabelled": ["f"]}


def write_case(root, name, seed=0, label=True):
    rng = np.random.default_rng(seed)
    values = np.zeros((40, 36, 3), np.uint16)
    values[12:20, 10:24], values[20:26, 12:20] = 300, 85
    image = (values + rng.integers(0, 50, values.shape)).astype(np.int16)
    for folder, array in (("images", image), ("labels", values))[: 1 + label]:
        (root / folder).mkdir(exist_ok=True)
        write_nifti(root / folder / f"{name}.nii", array, (1.5, 1.5, 6.0))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Eight labelled cases in the layout `pairs`."""
    root = tmp_path_factory.mktemp("pairs")
    for seed, name in enumerate(NAMES):
        write_case(root, name, seed)
    return root


def config_of(root, cache="cache", base=phantom):
    """A config with explicit splits, a grid, and structures that the layout does not know."""
    config = base.get_config()
    config.data.root, config.data.cache_dir = str(root), str(cache)
    config.data.num_workers, config.data.n4_shrink = 1, 0
    config.data.structures = {"liver": 300, "tumour no. 1": 85}
    config.data.image_size, config.data.resolution = 32, 2.0
    for split in ("validation", "test", "unlabelled"):
        config.splits[split] = tuple(SPLITS[split])
    config.splits.labelled = Config({"n1": (("a",), ("b",))})
    config.splits.random = ()
    for stage in ("augment", "segment"):
        config[stage].class_weights = ()
    return config


def test_structures_reader_channels_and_weights_come_from_the_data_and_explicit_splits_stay(root, capsys):
    config = config_of(root)
    before = config.to_json()
    resolved = sources.resolve(config)
    assert config.to_json() == before
    assert capsys.readouterr().out == f"data: {root}, layout pairs, structures 85 tumour no. 1, 300 liver\n"
    assert (resolved.data.reader, resolved.data.channels) == ("pairs", ("image",))
    assert sources.task_of(resolved).structures == {"tumour no. 1": 85, "liver": 300}
    assert resolved.segment.class_weights == resolved.augment.class_weights == pytest.approx((0.1, 0.45, 0.45))
    assert resolved.splits.to_dict() == config.splits.to_dict()
    assert sources.spec_of(resolved) == Spec(32, 2.0, 0)


def test_random_splits_are_drawn_once_and_say_so(root, capsys):
    config = config_of(root)
    config.splits.random = {"labelled": (1, 2), "validation": 1, "test": 2, "sets": 2, "seed": 3}
    resolved = sources.resolve(config)
    said = "splits: 2 labelled sets of 1, 2 labelled sets of 2; cases: 1 validation, 2 test, 1 unlabelled"
    assert said in capsys.readouterr().out.splitlines()
    assert not resolved.splits.random and {*resolved.splits.labelled} == {"n1", "n2"}
    assert [len({*one}) for one in resolved.splits.labelled.n2] == [2, 2]
    of_all = [resolved.splits[split] for split in ("validation", "test", "unlabelled")]
    assert len({case for cases in of_all for case in cases}) == 4
    assert sources.resolve(config).splits.to_dict() == resolved.splits.to_dict()
    config.splits.random["seed"] = 4
    assert sources.resolve(config).splits.to_dict() != resolved.splits.to_dict()


@pytest.mark.parametrize("name", ["splits.json", "splits.csv"])
def test_splits_of_a_file_take_the_place_of_those_of_the_config(root, tmp_path, name, capsys):
    rows = "case,split,set\na,labelled,1\nb,labelled,2\nc,validation,\nd,test,\ne,test,\nf,unlabelled,\n"
    (tmp_path / name).write_text(rows if name.endswith("csv") else json.dumps(SPLITS))
    config = config_of(root)
    config.splits = acdc.get_config().splits
    config.splits.file = str(tmp_path / name)
    resolved = sources.resolve(config)
    said = "splits: 2 labelled sets of 1; cases: 1 validation, 2 test, 1 unlabelled"
    assert said in capsys.readouterr().out.splitlines()
    assert resolved.splits.file == ""
    expected = json.loads(json.dumps(resolved.splits.to_dict()))
    assert {key: expected[key] for key in SPLITS} == SPLITS


def test_splits_of_a_file_that_overlap_are_refused(root, tmp_path):
    (tmp_path / "splits.json").write_text(json.dumps({**SPLITS, "test": ["a"]}))
    config = config_of(root)
    config.splits.file = str(tmp_path / "splits.json")
    with pytest.raises(UserError, match="a is also in"):
        sources.resolve(config)


@pytest.mark.parametrize(
    "given, grid",
    [
        # What is labelled reaches 8 pixels of 1.5 mm from the centre, and 9.4 with a tenth of its length as margin.
        ({"image_size": "auto", "resolution": "auto"}, (32, 1.5)),
        ({"image_size": "auto", "resolution": 0.5}, (64, 0.5)),
        ({"image_size": 64, "resolution": "auto"}, (64, 1.5)),
    ],
)
def test_a_grid_that_is_left_to_the_data_is_chosen_and_shown(root, given, grid, capsys):
    config = config_of(root, base=own)
    config.data.update(given)
    resolved = sources.resolve(config)
    assert (resolved.data.image_size, resolved.data.resolution) == grid
    assert capsys.readouterr().out.splitlines()[-1] == f"grid: {grid[0]} x {grid[0]} pixels of {grid[1]} mm"


def test_a_resolved_config_stays_as_it_is_even_after_it_was_saved(root, capsys):
    config = config_of(root, base=own)
    config.data.image_size = config.data.resolution = "auto"
    config.splits.random = {"labelled": 1, "validation": 1, "test": 2}
    assert not rules.is_resolved(config)
    resolved = sources.resolve(config)
    capsys.readouterr()
    for again in (resolved, Config(json.loads(resolved.to_json()))):
        assert rules.is_resolved(again)
        before = again.to_json()
        assert sources.resolve(again).to_json() == before
        assert sources.task_of(again).structures == {"tumour no. 1": 85, "liver": 300}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("stage", ["augment", "segment"])
@pytest.mark.parametrize("weights", [(0.1, 0.9), (0.1, 0.3, 0.3, 0.3)])
@pytest.mark.parametrize("resolved", [False, True])
def test_class_weights_of_another_number_of_classes_are_refused(root, stage, weights, resolved):
    config = config_of(root)
    if resolved:
        config = sources.resolve(config)
    config[stage].class_weights = weights
    with pytest.raises(UserError, match="one a class, background first") as raised:
        rules.check(config)
    assert raised.value.subject == f"--config.{stage}.class_weights"
    assert f"{len(weights)} numbers for 3 classes" in raised.value.problem


def test_class_weights_of_g_i_alone_are_checked_and_filled_in_as_the_others(root, tmp_path):
    config = config_of(root, tmp_path)
    config.augment.class_weights = (0.5, 0.25, 0.25)
    config.augment.of_intensity = {"class_weights": ()}
    resolved = sources.resolve(config)
    assert rules.is_resolved(resolved) and not rules.is_resolved(config)
    assert rules.of_generator(resolved, "deform").augment.class_weights == (0.5, 0.25, 0.25)
    of_intensity = rules.of_generator(resolved, "intensity").augment.class_weights
    assert of_intensity == resolved.segment.class_weights == pytest.approx((0.1, 0.45, 0.45))
    config.augment.of_intensity = {"class_weights": (0.5, 0.5)}
    problem = "^--config.augment.of_intensity: augment.class_weights: has 2 numbers for 3 classes; give one a class"
    with pytest.raises(UserError, match=problem):
        sources.resolve(config)


def test_class_weights_wait_for_the_structures_of_the_data_set(tmp_path):
    write_patient(tmp_path, "patient001")
    config = acdc.get_config()
    config.data.root = str(tmp_path)
    config.segment.class_weights = (0.5, 0.5)
    rules.check(config)
    with pytest.raises(UserError, match="2 numbers for 4 classes"):
        sources.resolve(config)


def test_default_weights_are_filled_in_when_everything_else_is_there(root):
    config = sources.resolve(config_of(root))
    config.segment.class_weights = ()
    assert sources.resolve(config).segment.class_weights == config.augment.class_weights


def test_a_data_set_without_structures_needs_them_from_the_config(root):
    config = config_of(root)
    config.data.structures = ()
    with pytest.raises(UserError, match="data.structures"):
        sources.resolve(config)


def test_the_built_in_cohort_is_read_without_a_word_about_its_folder(tmp_path, monkeypatch, capsys):
    write_patient(tmp_path, "patient001")
    monkeypatch.setattr(sources.cohort, "ensure_cohort", lambda *_: tmp_path)
    config = sources.resolve(phantom.get_config())
    assert capsys.readouterr().out == ""
    assert (config.data.reader, config.data.structures) == ("acdc", (("RV", 1), ("Myo", 2), ("LV", 3)))
    assert sources.Data(config).tag == "ES"


def test_splits_are_loaded_with_what_each_needs(root, tmp_path):
    config = sources.resolve(config_of(root, tmp_path))
    config.labelled_set = 2
    data = sources.Data(config)
    data.load(sources.SPLITS)
    loaded = {split: [scan.case for scan in data[split]] for split in sources.SPLITS}
    assert loaded == {"labelled": ["b"], "validation": ["c"], "unlabelled": ["f"], "test": ["d", "e"]}
    assert data["unlabelled"][0].label is None and set(np.unique(data["labelled"][0].label)) == {0, 1, 2}
    assert [data[split][0].volume is not None for split in sources.SPLITS] == [False, True, False, False]
    assert (data.tag, data.task.names) == ("", ("tumour no. 1", "liver"))


@pytest.mark.parametrize("cached", [(), ("d",), ("e",)])
def test_volumes_come_in_the_order_of_the_split_whatever_is_cached(root, tmp_path, cached):
    config = sources.resolve(config_of(root, tmp_path))
    config.splits.test = cached
    sources.Data(config).load(["test"])
    config.splits.test = ("e", "d", "g")
    found = list(sources.Data(config).with_volumes("test"))
    assert [scan.case for scan in found] == ["e", "d", "g"]
    assert all(scan.volume.case == scan.case and scan.volume.label.max() == 2 for scan in found)


def test_d37_an_evaluation_warns_of_headers_that_contradict_themselves(tmp_path, caplog):
    write_case(tmp_path, "a")
    for folder in ("images", "labels"):
        path = tmp_path / folder / "a.nii"
        write_nifti(path, images.read(path, None).array, (1, 1, 1), **sform((1.5, 1.5, 6)))
    config = config_of(tmp_path, tmp_path / "cache")
    config.data.channels, config.splits.test = ("image",), ("a",)
    for _ in range(2):  # from the cache, too
        list(sources.Data(config).with_volumes("test"))
        assert [record.message.split(":")[0] for record in caplog.records] == ["a"]
        assert caplog.records[0].message.endswith("1.5 x 1.5 x 6 mm by the sform of a.nii")
        caplog.clear()


def test_a_case_that_is_missing_stops_an_evaluation_and_a_check_lists_all(root, tmp_path):
    config = sources.resolve(config_of(root, tmp_path))
    config.splits.test = ("d", "missing")
    with pytest.raises(UserError, match="missing.*does not exist"):
        list(sources.Data(config).with_volumes("test"))
    config.splits.unlabelled = ("lost",)
    findings = sources.Data(config).check()
    assert {case for case, _ in findings.errors} == {"missing", "lost"}


@pytest.mark.parametrize("name", ["aff", "tests_own_methods:blur"])
def test_a_method_is_found_by_its_name_or_its_short_name(name, tmp_path, monkeypatch):
    (tmp_path / "tests_own_methods.py").write_text("from tfaug.augment.methods import Method\nblur, x = Method(), 5\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = phantom.get_config()
    config.methods = ("none", "tests_own_methods:blur")
    short = name.rpartition(":")[2]
    assert sources.method(config, name) == sources.method(config, short)
    assert sources.method(config, name)[0] == short
    for wrong, problem in (("blurr", "unknown"), ("tests_own_methods:x", "of type int")):
        with pytest.raises(UserError, match=f"--methods: .*{problem}"):
            sources.method(config, wrong, "--methods")


FAULTY = """
from tfaug.augment.methods import AFFINE, Method

deform = ("deform",)
typo = Method(AFFINE, (deform, ("elastik",)))
misspelled = Method(("affin",), (deform,))
without = Method(AFFINE, (deform, ("faulty_methods:Blurr",)))
rule = Method(AFFINE, (deform,), rule="adversarial")
six = Method(AFFINE, (deform, ("scale",), ("elastic",), *(("elastic", name) for name in ("deform", "scale", "mixup"))))
"""


@pytest.mark.parametrize(
    "name, problem",
    [
        ("typo", "^transform of faulty_methods:typo: 'elastik' is unknown; did you mean 'elastic'?"),
        ("misspelled", "'affin' is unknown; did you mean 'affine'?"),
        ("without", "faulty_methods has no 'Blurr'"),
        ("rule", "^rule of faulty_methods:rule: 'adversarial' is unknown; did you mean 'adversarial_sl'?"),
        ("six", "^--config.segment.batch_size: 10 slices are too few for the 6 recipes of .*six; give 11 or more"),
    ],
)
def test_a_method_that_cannot_train_is_refused_before_its_generators_are_learned(tmp_path, monkeypatch, name, problem):
    (tmp_path / "faulty_methods.py").write_text(FAULTY)
    monkeypatch.syspath_prepend(tmp_path)
    config = phantom.get_config()
    with pytest.raises(UserError, match=problem):
        sources.method(config, f"faulty_methods:{name}", "--methods")
    config.segment.partition = "composed"
    if name == "six":
        assert sources.method(config, "faulty_methods:six")[0] == "six"


@pytest.fixture
def own_acdc(tmp_path):
    """A config of four patients in ACDC's layout, which leaves grid and splits to them."""
    for number in range(1, 5):
        write_patient(tmp_path / "data", f"patient{number:03d}", number)
    config = own.get_config()
    config.data.root = str(tmp_path / "data")
    config.splits.random = {"labelled": 1, "validation": 1, "test": 1}
    return config


def test_all_bad_cases_are_listed_where_a_grid_is_chosen(own_acdc, capsys):
    root = pathlib.Path(own_acdc.data.root)
    (root / "patient001/patient001_frame12.nii.gz").write_bytes(b"no scan")
    write_nifti(root / "patient003/patient003_frame12.nii.gz", np.full_like(anatomy()[0], 7))
    with pytest.raises(UserError, match="and there is 1 more problem"):
        sources.resolve(own_acdc)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert sorted(row.split()[0] for row in rows) == ["patient001", "patient003"]


def test_c18_splits_of_another_data_set_are_told_from_a_missing_case(own_acdc):
    own_acdc.splits = phantom.get_config().splits
    own_acdc.splits.labelled.n1 = (("patient001",),)
    for split in ("validation", "unlabelled", "test"):
        own_acdc.splits[split] = (f"{split} 1",)
    (pathlib.Path(own_acdc.data.root) / "patient001").rename(pathlib.Path(own_acdc.data.root) / "patient001x")
    for path in (pathlib.Path(own_acdc.data.root) / "patient001x").glob("*_frame*"):
        path.rename(path.with_name(path.name.replace("patient001", "patient001x")))
    with pytest.raises(
        UserError, match=r"--config.splits: names none of the 4 cases of .*patient001x, .*splits.random"
    ):
        sources.resolve(own_acdc)
    own_acdc.splits.test = ("patient004",)
    with pytest.raises(UserError, match="patient001: does not exist"):  # one is there
        sources.resolve(own_acdc)


def test_a_reader_is_for_data_of_ones_own(tmp_path):
    """Refused at once, not when the built-in cohort has been made."""
    config = phantom.get_config()
    config.data.cache_dir, config.data.reader = str(tmp_path), "acdcc"
    with pytest.raises(UserError, match="--config.data.reader: names 'acdcc', but data.root is empty"):
        sources.resolve(config)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("way", ["config", "file", "random"])
def test_with_both_phases_a_split_by_patient_holds_both_cases_of_each(tmp_path, way):
    names = [f"p{k}" for k in range(4)]
    for seed, name in enumerate(names):
        write_patient(tmp_path / "data", name, seed)
    config = config_of(tmp_path / "data")
    config.data.structures, config.data.phase = (), "both"
    config.splits.labelled = Config({"n1": (("p0",),)})
    config.splits.validation, config.splits.unlabelled, config.splits.test = ("p1",), (), ("p2", "p3")
    if way == "file":
        splits = {"labelled": {"n1": [["p0"]]}, "validation": ["p1"], "test": ["p2", "p3"]}
        (tmp_path / "splits.json").write_text(json.dumps(splits))
        config.splits.file = str(tmp_path / "splits.json")
    if way == "random":
        config.splits.random = {"labelled": 1, "validation": 1, "test": 2}
    resolved = sources.resolve(config)
    drawn = [rules.cases(resolved, split) for split in ("labelled", "validation", "test")]
    assert [len({*cases}) for cases in drawn] == [2, 2, 4]
    of = [{case.rpartition("_")[0] for case in cases} for cases in drawn]
    assert [len(patients) for patients in of] == [1, 1, 2] and set.union(*of) == {*names}
    assert {case.rpartition("_")[2] for cases in drawn for case in cases} == {"ED", "ES"}
    if way == "config":
        assert of[0] == {"p0"} and of[2] == {"p2", "p3"}
    data = sources.Data(resolved)
    assert data.tag == "" and set(data.dataset.reader.hearts(drawn[2]).patients) == of[2]
    assert sources.resolve(resolved).splits.to_dict() == resolved.splits.to_dict()
