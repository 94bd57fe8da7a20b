import itertools
import json

import pytest

from tfaug.data import splits
from tfaug.data.readers.base import Listing
from tfaug.engine.errors import UserError

WANTED = {
    "labelled": {"n1": (("a",), ("b",)), "n2": (("a", "b"),)},
    "validation": ("c",),
    "test": ("d", "e"),
    "unlabelled": ("f",),
}
LISTING = Listing(tuple(f"p{k:02d}" for k in range(40)), tuple(f"u{k}" for k in range(5)))
SPEC = {"labelled": 3, "validation": 2, "test": 10}


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_json(tmp_path):
    assert splits.from_file(write(tmp_path / "s.json", json.dumps(WANTED))) == WANTED


def test_a_plain_list_is_one_set_and_splits_may_be_left_out(tmp_path):
    found = splits.from_file(write(tmp_path / "s.json", '{"labelled": ["a", "b"], "validation": ["c"]}'))
    assert found == {"labelled": {"n2": (("a", "b"),)}, "validation": ("c",), "test": (), "unlabelled": ()}


def test_csv(tmp_path):
    rows = "a,labelled,1 b,labelled,2 a,labelled,3 b,labelled,3 c,validation, d,test, e,test, f,unlabelled,".split()
    assert splits.from_file(write(tmp_path / "s.csv", "\n".join(["case,split,set", *rows]))) == WANTED


def test_csv_without_sets_as_a_spreadsheet_writes_it(tmp_path):
    text = "\ufeffsplit,case\r\nlabelled,a\r\nlabelled,b\r\nvalidation,John's scan 7\r\n"
    found = splits.from_file(write(tmp_path / "s.CSV", text))
    assert (found["labelled"], found["validation"]) == ({"n2": (("a", "b"),)}, ("John's scan 7",))


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("s.json", "{", "s.json: is not JSON"),
        ("s.json", "[]", "s.json: holds no object"),
        ("s.json", '{"labelled": ["a"], "vaildation": ["b"]}', "unknown key 'vaildation'; did you mean 'validation'"),
        ("s.json", '{"validation": ["b"]}', "names no labelled case"),
        ("s.json", '{"labelled": []}', "names no labelled case"),
        ("s.json", '{"labelled": "a"}', "holds no sets"),
        ("s.json", '{"labelled": {"n1": "a"}}', "no list of sets as labelled.n1"),
        ("s.json", '{"labelled": {"n1": []}}', "no list of sets as labelled.n1"),
        ("s.json", '{"labelled": {"n1": ["a"]}}', "no list of cases' names as labelled.n1"),
        ("s.json", '{"labelled": {"n1": [["a", "b"]]}}', "has a set of 2 in labelled.n1; move it to labelled.n2"),
        ("s.json", '{"labelled": ["a"], "test": "b"}', "no list of cases' names as test"),
        ("s.json", '{"labelled": ["a"], "test": ["b", 1]}', "no list of cases' names as test"),
        ("s.json", '{"labelled": ["a"], "test": ["b", "b"]}', "names b twice in test"),
        ("s.csv", "", "has no column 'case'"),
        ("s.csv", "case,set\na,1\n", "has no column 'split'"),
        ("s.csv", "case,split\na,labeled\n", "line 2: has the unknown split 'labeled'; did you mean 'labelled'"),
        ("s.csv", "case,split\na,labelled\nb\n", "line 3: has the unknown split ''"),
        ("s.csv", "case,split\n,labelled\n", "line 2: names no case"),
        ("s.csv", "case,split\n" + 200_000 * "a" + ",test\n", "is not CSV"),
        ("s.json", 100_000 * "[", "is not JSON"),
        ("s.csv", "case,split\na,test\n", "names no labelled case"),
        ("s.csv", "case,split,set\na,labelled,x\na,labelled,x\n", "names a twice in labelled set x"),
        ("s.txt", "", "neither a .json nor a .csv"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, name, text, problem):
    with pytest.raises(UserError) as caught:
        splits.from_file(write(tmp_path / name, text))
    assert problem in str(caught.value) and str(caught.value).startswith(str(tmp_path / name))


def test_a_missing_file_and_one_that_is_no_text(tmp_path):
    with pytest.raises(UserError, match="nowhere.json: cannot be read"):
        splits.from_file(tmp_path / "nowhere.json")
    (tmp_path / "s.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not text in UTF-8"):
        splits.from_file(tmp_path / "s.json")


def patient(case):
    return case


def members(found):
    return [*found["labelled"]["n3"], found["validation"], found["test"], found["unlabelled"]]


def test_random_splits_are_apart_and_use_everyone():
    found = splits.random(LISTING, patient, SPEC)
    parts = members(found)
    assert [len(part) for part in parts] == [3] * 5 + [2, 10, 40 - 27 + 5]
    everyone = sorted(itertools.chain(*parts))
    assert everyone == sorted((*LISTING.labelled, *LISTING.unlabelled))
    assert set(LISTING.unlabelled) < set(found["unlabelled"])


def test_random_splits_depend_on_the_seed_alone():
    again = Listing(LISTING.labelled[::-1], LISTING.unlabelled[::-1])
    assert splits.random(LISTING, patient, SPEC) == splits.random(again, patient, {**SPEC, "seed": 0})
    assert splits.random(LISTING, patient, SPEC) != splits.random(LISTING, patient, {**SPEC, "seed": 1})


def test_more_sets_leave_the_other_splits_and_the_first_sets_as_they_are():
    few, many = (splits.random(LISTING, patient, {**SPEC, "sets": sets}) for sets in (2, 9))
    assert (few["test"], few["validation"]) == (many["test"], many["validation"])
    assert few["labelled"]["n3"] == many["labelled"]["n3"][:2]


def test_sets_overlap_only_when_patients_run_out_and_are_never_equal():
    listing = Listing(LISTING.labelled[:11], ())
    found = splits.random(listing, patient, {"labelled": 2, "validation": 1, "test": 4, "sets": 15})  # of 6 patients
    sets = [frozenset(cases) for cases in found["labelled"]["n2"]]
    assert len(set(sets)) == 15 and {len(cases) for cases in sets} == {2}
    assert len(frozenset.union(*sets[:3])) == 6
    assert not frozenset.union(*sets) & {*found["test"], *found["validation"]}


def test_a_patients_cases_stay_together():
    visits = Listing(
        tuple(f"p{k}_{visit}" for k in range(12) for visit in ("first", "second")), ("p3_third", "q_first", "q_second")
    )
    found = splits.random(
        visits, lambda case: case.split("_")[0], {"labelled": 2, "validation": 1, "test": 3, "sets": 2}
    )
    owners = [{case.split("_")[0] for case in part} for part in [*found["labelled"]["n2"], *list(found.values())[1:]]]
    assert [len(owner) for owner in owners] == [2, 2, 1, 3, 5]
    assert sum(map(len, owners)) == len(set().union(*owners))
    assert all(len(part) == 4 for part in found["labelled"]["n2"])
    labelled_use = [*itertools.chain(*found["labelled"]["n2"]), *found["validation"], *found["test"]]
    assert "p3_third" not in labelled_use  # it has no label
    assert ("p3_third" in found["unlabelled"]) == ("p3_first" in found["unlabelled"])


def test_a_number_of_unlabelled_patients_is_kept_from_the_labelled_sets():
    found = splits.random(LISTING, patient, {**SPEC, "unlabelled": 3})
    assert set(found["unlabelled"]) < set(LISTING.unlabelled) and len(found["unlabelled"]) == 3
    found = splits.random(LISTING, patient, {**SPEC, "unlabelled": 12, "sets": 30})
    assert len(found["unlabelled"]) == 12 and set(LISTING.unlabelled) < set(found["unlabelled"])
    assert not set(found["unlabelled"]) & {*itertools.chain(*found["labelled"]["n3"]), *found["test"]}
    assert splits.random(LISTING, patient, {**SPEC, "unlabelled": 0})["unlabelled"] == ()


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (
            {**SPEC, "test": 36},
            "needs 41 patients with labels (36 for test, 2 for validation, 3 labelled), and there are 40",
        ),
        ({**SPEC, "unlabelled": 31}, "3 labelled, 26 unlabelled), and there are 40"),
        (
            {**SPEC, "test": 35, "sets": 5},
            "asks for 5 labelled sets of 3, and 3 patients with labels are left for them; give 'sets' of at most 1",
        ),
        ({"labelled": 1, "test": 2}, "lacks 'validation'; write it as"),
        ({**SPEC, "tset": 2}, "unknown key 'tset'; did you mean 'test'"),
        ({**SPEC, "labelled": 0}, "cannot have 0 as labelled; give a whole number of at least 1"),
        ({**SPEC, "test": 2.5}, "cannot have 2.5 as test"),
        ({**SPEC, "sets": True}, "cannot have True as sets"),
    ],
)
def test_a_wrong_spec_is_one_line(spec, problem):
    with pytest.raises(UserError) as caught:
        splits.random(LISTING, patient, spec)
    assert problem in str(caught.value) and str(caught.value).startswith("splits.random: ")
