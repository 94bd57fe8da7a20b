"""One rule of identity (docs/identity.md), key by key and as a user meets it."""

import json
import pathlib

import pytest

from tfaug import evaluation, metrics
from tfaug.augment.methods import METHODS
from tfaug.config import Config, cases
from tfaug.configs import acdc, phantom
from tfaug.engine import run_dir
from tfaug.engine.errors import UserError
from tfaug.experiment import identity

NEITHER = "neither"
# By key or section, the longest that fits: which trained models another value makes another.
EXPECTED = {
    "name": NEITHER,
    "seed": "both",
    "num_labelled": NEITHER,  # what counts is the contents of the scans that it chooses
    "labelled_set": NEITHER,
    "precision": NEITHER,  # a warning on resuming
    "methods": NEITHER,
    "generators": NEITHER,  # what counts is their weights
    "splits": NEITHER,
    "data.root": NEITHER,
    "data.reader": NEITHER,
    "data.images": NEITHER,
    "data.labels": NEITHER,
    "data.phase": NEITHER,
    "data.cohort_seed": NEITHER,
    "data.cache_dir": NEITHER,
    "data.num_workers": NEITHER,
    "data": "both",
    "model": "both",
    "model.generator": "generator",
    "model.head_scale": "generator",
    "model.deformation": "generator",
    "model.control_mm": "generator",
    "model.limit_mm": "generator",
    "model.fixed_border": "generator",
    "model.intensity": "generator",
    "model.curve_knots": "generator",
    "transforms.affine": "both",
    "transforms": "segmenter",
    "augment": "generator",
    "segment": "segmenter",
    "report_every": NEITHER,
    "picture_every": NEITHER,
    "checkpoint_every": NEITHER,
}


def keys(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def changed(values, key):
    copy = json.loads(json.dumps(values))
    *parents, last = key.split(".")
    section = copy
    for parent in parents:
        section = section[parent]
    section[last] = "something else"
    return copy


def test_every_section_and_key_is_decided():
    values = acdc.get_config().to_dict()
    assert set(EXPECTED) <= {*keys(values), *values, "transforms.strong"}
    assert {key.split(".")[0] for key in EXPECTED} == set(values)


@pytest.mark.parametrize("key", keys(acdc.get_config().to_dict()))
def test_a_key_makes_another_model_only_if_it_reaches_the_training(key):
    values = json.loads(json.dumps(acdc.get_config().to_dict()))
    known = [prefix for prefix in EXPECTED if key == prefix or key.startswith(f"{prefix}.")]
    expected = EXPECTED[max(known, key=len)]
    for stage, of_stage in (("generator", identity.GENERATOR), ("segmenter", identity.SEGMENTER)):
        other = changed(values, key)
        same = identity.select(values, of_stage) == identity.select(other, of_stage)
        assert same == (expected not in (stage, "both")), stage
        if same:
            run_dir.refuse_difference("run", values, other, of_stage)
        else:
            with pytest.raises(UserError, match=key):
                run_dir.refuse_difference("run", values, other, of_stage)


def test_what_a_network_does_not_read_does_not_reach_it():
    """The keys that another segmenter's identity leaves out must not be options of a segmenter."""
    left_out = {key for key in acdc.get_config().model if f"model.{key}" not in identity.SEGMENTER}
    of_generators = {"deformation", "control_mm", "limit_mm", "fixed_border", "intensity", "curve_knots"}
    assert left_out == {"generator", "head_scale", *of_generators}


def test_changed_scans_are_refused_by_the_name_of_their_case():
    report = {"digests": {"a": "1", "b": "2"}}
    identity.refuse_other_scans(pathlib.Path("run"), report, {"a": "1", "b": "2"})
    with pytest.raises(UserError, match="run: was trained on other data .scan of b: changed.;"):
        identity.refuse_other_scans(pathlib.Path("run"), report, {"a": "1", "b": "3"})
    with pytest.raises(UserError, match="scan of c: added or removed"):
        identity.refuse_other_scans(pathlib.Path("run"), report, {"a": "1", "b": "2", "c": "3"})


ALL = ("labelled", "validation", "unlabelled")


def with_splits(labelled=(("a", "b"),), validation=("v", "w"), unlabelled=("u",), test=("t",)):
    config = phantom.get_config()
    config.num_labelled = 2
    with config.ignore_type():
        config.splits.labelled = Config({"n2": labelled})
    config.splits.validation, config.splits.unlabelled, config.splits.test = validation, unlabelled, test
    return config


def saved(config):
    """As config.json gives it back."""
    return json.loads(json.dumps(config.to_dict()))


@pytest.mark.parametrize(
    "changes, splits, told",
    [
        (
            dict(labelled=(("v", "b"),), validation=("a", "w")),
            ALL,
            r'split of the cases \(a: "labelled" -> "validation"',
        ),
        (dict(labelled=(("u", "b"),), unlabelled=("a",)), ALL, 'u: "unlabelled" -> "labelled"'),
        (dict(labelled=(("u", "b"),), unlabelled=("a",)), ALL[:2], 'a: "labelled" -> absent, u: absent -> "labelled"'),
        (dict(unlabelled=("u", "x")), ALL, 'x: absent -> "unlabelled"'),
        (dict(labelled=(("b", "a"),)), ALL, r'order of the cases \(a: "labelled 1" -> "labelled 2", b: '),
        (dict(unlabelled=("x",)), ALL[:2], None),  # another method's
        (dict(test=("t", "s")), ALL, None),
        (dict(labelled=(("a", "b"), ("c", "d"))), ALL, None),
    ],
)
def test_what_a_case_was_used_for_and_the_order_count(changes, splits, told):
    then, asked = saved(with_splits()), with_splits(**changes)
    asked.data.root, asked.data.cache_dir = "renamed", "elsewhere"
    if told is None:
        identity.refuse_other_splits(pathlib.Path("run"), then, asked, splits)
    else:
        with pytest.raises(UserError, match=f"run: was made with another .*{told}"):
            identity.refuse_other_splits(pathlib.Path("run"), then, asked, splits)


@pytest.mark.parametrize(
    "learned_from, generators, named, refused",
    [
        ("abvw", {}, "", "abvw"),
        ("abvwu", {}, "", "abvwu"),  # adversarial training
        ("abvw", {"deform": "digest"}, "", "abvwu"),  # a generator of the same config has learned from u
        ("abvw", {"deform": "digest"}, "elsewhere", "abvw"),
        ("", {}, "", "abvw"),  # reports without digests
    ],
)
def test_no_run_is_scored_on_what_it_was_made_from(learned_from, generators, named, refused):
    """As its report tells, whose digests are by case."""
    then = with_splits()
    then.generators.deform = named
    report = {"digests": dict.fromkeys(learned_from, "1"), "generators": generators}
    for case in "abvwut":
        asked = with_splits((("c", "d"),), ("e",), (), (case,))
        if case in refused:
            with pytest.raises(UserError, match=f"run: has used cases of the test split itself .{case}: "):
                identity.refuse_used_cases(pathlib.Path("run"), then, report, asked, "test")
        else:
            identity.refuse_used_cases(pathlib.Path("run"), then, report, asked, "test")
    identity.refuse_used_cases(pathlib.Path("run"), then, report, then, "validation")
    with pytest.raises(UserError, match="of the validation split itself .a: labelled.; leave them out of --config.spl"):
        asked = with_splits((("c", "d"),), ("w", "a", "v"))
        identity.refuse_used_cases(pathlib.Path("run"), then, report, asked, "validation")


def test_a_result_is_of_the_contents_of_all_scans_that_reach_it_whatever_their_names():
    config = acdc.get_config()
    config.splits.labelled = {"n1": (("a",),)}
    config.splits.validation, config.splits.unlabelled, config.splits.test = ("v",), ("u",), ("t", "s")
    digests = dict(a="1", v="2", u="3", t="4", s="5")
    plain, learned = (identity.of_result(config, METHODS[name], digests) for name in ("aff", "aff_gd"))
    assert plain != learned
    for case in digests:
        mended = {**digests, case: "mended"}
        assert (identity.of_result(config, METHODS["aff"], mended) == plain) == (case == "u")
        assert identity.of_result(config, METHODS["aff_gd"], mended) != learned
    config.splits.test = ("second", "first")
    renamed = {**digests, "first": "4", "second": "5"}
    assert identity.of_result(config, METHODS["aff"], renamed) == plain


def test_an_evaluation_is_made_again_unless_it_was_made_from_the_same(tmp_path):
    made_from = identity.of_evaluation("1", {"a": "2"}, "reloaded")
    assert made_from == {"model": "1", "scans": {"a": "2"}}  # as evaluations have it from before there were others
    for name in ("dice.csv", "summary.txt", "indices.csv", "agreement.png"):
        (tmp_path / name).write_text(name)
    assert not identity.is_evaluated(tmp_path, made_from)
    identity.mark_evaluated(tmp_path, made_from)
    assert identity.is_evaluated(tmp_path, made_from)
    (tmp_path / "dice.csv").write_text("edited")
    assert not identity.is_evaluated(tmp_path, made_from)
    (tmp_path / "dice.csv").write_text("dice.csv")
    (tmp_path / "evaluated.json").write_text(json.dumps(made_from))  # as older versions wrote it
    assert identity.is_evaluated(tmp_path, made_from)
    assert not identity.is_evaluated(tmp_path, {**made_from, "scans": {"a": "3"}})
    assert not identity.is_evaluated(tmp_path, {**made_from, "model": "0"})
    assert not identity.is_evaluated(tmp_path, identity.of_evaluation("1", {"a": "2"}, "medpy"))
    for case in ("b", "a", "c"):
        identity.note_case(tmp_path, case, "make room")
        assert not identity.is_evaluated(tmp_path, made_from) and not identity.scans_of(tmp_path)
    assert identity.noted_cases(tmp_path) == ["a", "b", "c"]  # those of the evaluation before too
    for damaged in ("{", "[]", '{"scans": 5}', '{"begun": null}'):
        (tmp_path / "evaluated.json").write_text(damaged)
        assert identity.noted_cases(tmp_path) == [] and identity.scans_of(tmp_path) == {}
    assert not identity.is_evaluated(tmp_path, made_from)


def test_a_scan_that_is_gone_is_named(tmp_path):
    with pytest.raises(UserError, match="scan of b: added or removed"):
        identity.refuse_other_scans(tmp_path, {"digests": {"a": "1", "b": "2"}}, {"a": "1"})


@pytest.mark.parametrize("name", ["aff_gd", "adv_ssl", "aff_hm_rd"])
def test_a_result_that_unlabelled_scans_reach_is_of_them(name):
    config = phantom.get_config()
    needed = {case for split in ("validation", "unlabelled", "test") for case in cases(config, split)}
    digests = dict.fromkeys({*needed, *cases(config, "labelled")}, "1")
    mended = {**digests, cases(config, "unlabelled")[0]: "2"}
    first, second = (identity.of_result(config, METHODS[name], one) for one in (digests, mended))
    assert first != second


@pytest.mark.parametrize("file", ["dice.csv", "summary.txt", "indices.csv", "agreement.png"])
@pytest.mark.parametrize("change", [lambda path: path.write_text("other"), lambda path: path.unlink()])
def test_an_evaluation_is_one_only_as_long_as_its_tables_and_picture_are_as_they_were_written(tmp_path, file, change):
    for name in evaluation.SCORES:
        (tmp_path / name).write_text(name)
    made_from = identity.of_evaluation("model", {"a": "digest"}, metrics.DEFAULT_DISTANCES)
    identity.mark_evaluated(tmp_path, made_from)
    assert identity.is_evaluated(tmp_path, made_from) and identity.is_of(tmp_path, "model")
    assert identity.scans_of(tmp_path) == {"a": "digest"}
    change(tmp_path / file)
    assert not identity.is_evaluated(tmp_path, made_from) and not identity.is_of(tmp_path, "model")
    assert identity.scans_of(tmp_path) == {}
