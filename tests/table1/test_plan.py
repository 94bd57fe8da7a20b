import pytest

from tfaug.augment.methods import AFFINE, PAPER, Method
from tfaug.config import cases, check
from tfaug.configs import phantom
from tfaug.engine import run_dir
from tfaug.engine.errors import UserError
from tfaug.experiment import identity
from tfaug.table1 import grid, plan
from tfaug.table1.plan import Grid
from tfaug.table1.results import Result


@pytest.fixture
def config():
    return phantom.get_config()


def missing(config, tmp_path, methods, *grid):
    rows = {method: PAPER[method] for method in methods}
    return plan.missing(config, Grid(rows, *grid), tmp_path / "runs", tmp_path / "results")


def finish(tmp_path, *names):
    (tmp_path / "results").mkdir(exist_ok=True)
    for name in names:
        (tmp_path / "results" / f"{name}.json").write_text("{}")


@pytest.mark.parametrize(
    "text, expected",
    [("1,3", (1, 3)), ("1-5", (1, 2, 3, 4, 5)), ("4,1-2", (1, 2, 4)), ("2,1-3", (1, 2, 3)), ("7", (7,))],
)
def test_numbers(text, expected):
    assert plan.numbers("--sets", text) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "1,", "5-1", "1-", "a", "1.5", "1-99999999", "1-2-3", "\N{SUPERSCRIPT TWO}"]
)
def test_numbers_that_are_none(text):
    with pytest.raises(UserError, match="--sets"):
        plan.numbers("--sets", text)


def test_a_job_comes_after_those_that_it_needs_and_only_once(config, tmp_path):
    jobs = missing(config, tmp_path, list(PAPER), (1, 3), (1, 2, 3, 4, 5), 3)
    seen = set()
    for job in jobs:
        assert set(job.needs) <= seen and job.name not in seen
        seen.add(job.name)
    assert len(jobs) == 1 + 2 * 5 * 3 * (4 + 13)
    assert jobs[0].name == "data" and all("data" in job.needs for job in jobs[1:])


def test_r1_results_of_data_that_changed_are_made_again(config, tmp_path):
    asked = Grid({name: PAPER[name] for name in ("aff", "aff_gd")}, (1,), (1, 2), 1)
    digests = {case: case for case in (*cases(plan.union(config, (1,), (1, 2)), "labelled"),)}
    digests.update({case: case for split in ("validation", "unlabelled", "test") for case in cases(config, split)})
    found = []
    for variant in plan.variants(config, asked):
        for name, method in asked.methods.items():
            data = identity.of_result(variant, method, digests)
            found.append(Result(name, 1, variant.labelled_set, 0, 1, 0.5, {}, 1.0, None, 1, "2.15.1", data))
    assert plan.stale(config, asked, found, digests) == []

    def stale(*mended):
        now = {**digests, **{case: "mended" for case in mended}}
        return plan.stale(config, asked, [one._replace(data=None) for one in found[:1]] + found[1:], now)

    name = "phantom-n1-set{}-seg-{}-seed0.json".format
    unlabelled, in_set_2 = config.splits.unlabelled[0], config.splits.labelled.n1[1][0]
    assert stale(config.splits.test[0]) == [name(1, "aff_gd"), name(2, "aff"), name(2, "aff_gd")]  # one is unknown
    assert stale(unlabelled) == [name(1, "aff_gd"), name(2, "aff_gd")]
    assert stale(in_set_2) == [name(2, "aff"), name(2, "aff_gd")]

    finish(tmp_path, *(name(n, row).removesuffix(".json") for n in (1, 2) for row in asked.methods))
    folders = (tmp_path / "runs", tmp_path / "results")
    assert plan.missing(config, asked, *folders) == []
    jobs = plan.missing(config, asked, *folders, stale(in_set_2))
    assert [f"{job.name}.json" for job in jobs if "-seg-" in job.name] == stale(in_set_2)
    program = grid.Program(("-c", "print(1 + 1)"), tmp_path, 1, tmp_path)
    for job in jobs:  # results that are there already do not stop it
        assert grid.do(job, program, lambda: True).status == 0
        assert program.log(job).read_text().endswith("\n2\n")


def test_results_of_a_method_that_was_another_one_are_made_again(config):
    asked = Grid({"mine": Method(("affine",), (("elastic",), ("my_module:Blur",)))}, (1,), (1,), 2)
    row = identity.row_of(asked.methods["mine"])
    same = Result("mine", 1, 1, 0, 1, 0.5, {}, 1.0, None, 1, "2.15.1", None, row)
    other = same._replace(seed=1, row={**row, "first": ["scale"]})
    assert plan.stale(config, asked, [same, other], None) == ["phantom-n1-set1-seg-mine-seed1.json"]
    assert plan.stale(config, asked, [other._replace(row=None)], None) == []  # of before this was written down


def test_r1_a_finished_run_of_what_a_method_was_is_refused_before_any_job(config, tmp_path):
    asked = Grid({"mine": Method(("affine",))}, (1,), (1,), 1)
    folders = (tmp_path / "runs", tmp_path / "results")
    run = tmp_path / "runs" / "phantom-n1-set1-seg-mine-seed0"
    for row in (None, identity.row_of(asked.methods["mine"]), identity.row_of(Method())):
        with run_dir.RunDir(run, config.to_dict()) as opened:
            opened.finish({"best": 0.5, "best_step": 1, **({"row": row} if row else {})})
        if row == identity.row_of(Method()):
            break
        assert [job.name for job in plan.missing(config, asked, *folders)] == ["data", run.name]
    with pytest.raises(UserError, match=f"{run.name}: was trained with another method 'mine'; .* --workdir"):
        plan.missing(config, asked, *folders)
    finish(tmp_path, run.name)  # a result that is not missing needs no run
    assert plan.missing(config, asked, *folders) == []


def test_r1_finished_runs_of_other_scans_or_cases_are_refused_before_any_job(config, tmp_path):
    """A generator's too, by whose unlabelled scans its segmenter's result changes."""
    learned, trained = (tmp_path / "runs" / f"phantom-n1-set1-{name}-seed0" for name in ("aug-deform", "seg-aff"))
    scans = {case: case for split in ("labelled", "validation", "unlabelled", "test") for case in cases(config, split)}
    for run, splits in ((learned, identity.SPLITS_OF_GENERATOR), (trained, ("labelled", "validation"))):
        with run_dir.RunDir(run, config.to_dict()) as opened:
            digests = {case: case for split in splits for case in cases(config, split)}
            opened.finish({"best": 0.5, "best_step": 1, "digests": digests})

    def jobs(method, *others, **mended):
        grid = Grid({name: PAPER[name] for name in (method, *others)}, (1,), (1,), 1)
        return plan.missing(config, grid, tmp_path / "runs", tmp_path / "results", digests={**scans, **mended})

    tested, unlabelled, validated = (config.splits[split][0] for split in ("test", "unlabelled", "validation"))
    assert len(jobs("aff", "aff_gd", **{tested: "mended"})) == 4  # what was trained stays valid
    assert len(jobs("aff", **{unlabelled: "mended"})) == 2
    for mended, method, run in ((unlabelled, "aff_gd", learned), (validated, "aff", trained)):
        with pytest.raises(UserError, match=f"{run.name}: was trained on other data .scan of {mended}: changed"):
            jobs(method, **{mended: "mended"})
    config.splits.unlabelled = config.splits.unlabelled[1:]
    assert len(jobs("aff")) == 2
    with pytest.raises(UserError, match=f'{learned.name}: was made with another split .*{unlabelled}: "unlabelled"'):
        jobs("aff_gd")
    finish(tmp_path, "phantom-n1-set1-seg-aff_gd-seed0")  # a result that is not missing needs no run
    assert jobs("aff_gd") == []


def test_a_generator_serves_every_method_of_its_set_and_seed(config, tmp_path):
    jobs = missing(config, tmp_path, ["aff_gd", "aff_gd_gi", "aff_gd_gi_mixup", "aff_gd_noreg"], (1,), (2,), 1)
    needs = {job.flags[1]: [name for name in job.needs if name != "data"] for job in jobs[1:]}
    run = "phantom-n1-set2-aug-{}-seed0"
    deform, intensity, noreg = (run.format(name) for name in ("deform", "intensity", "deform_noreg"))
    assert needs == {
        "--gen=deform": [],
        "--gen=intensity": [],
        "--gen=deform_noreg": [],
        "--aug=aff_gd": [deform],
        "--aug=aff_gd_gi": [deform, intensity],
        "--aug=aff_gd_gi_mixup": [deform, intensity],
        "--aug=aff_gd_noreg": [noreg],
    }


def test_a_users_method_is_a_job_after_its_generators(config, tmp_path):
    grid = Grid({"blur": Method(AFFINE, (("intensity", "my_module:Blur"),))}, (3,), (1,), 1)
    _, learned, job = plan.missing(config, grid, tmp_path / "runs", tmp_path / "results")
    assert job.name == "phantom-n3-set1-seg-blur-seed0" and job.flags[:2] == ("--stage=seg", "--aug=blur")
    assert job.needs == ("data", learned.name) and learned.name == "phantom-n3-set1-aug-intensity-seed0"


def test_all_methods_of_one_set_and_seed_come_before_the_next(config, tmp_path):
    config.seed = 7
    jobs = missing(config, tmp_path, ["none", "aff_gd"], (1, 3), (1, 2), 2)
    order = list(dict.fromkeys((job.flags[-3:]) for job in jobs[1:]))
    assert [tuple(int(flag.split("=")[1]) for flag in flags) for flags in order] == [
        *((7, 1, 1), (7, 1, 2), (7, 3, 1), (7, 3, 2)),
        *((8, 1, 1), (8, 1, 2), (8, 3, 1), (8, 3, 2)),
    ]
    assert [job.flags[:2] for job in jobs[1:4]] == [
        ("--stage=aug", "--gen=deform"),
        ("--stage=seg", "--aug=none"),
        ("--stage=seg", "--aug=aff_gd"),
    ]


def test_what_has_its_result_is_done_and_its_generators_are_not_needed(config, tmp_path):
    finish(tmp_path, "phantom-n1-set1-seg-aff_gd-seed0", "phantom-n1-set1-seg-aff_gd_gi-seed1")
    grid = (["aff_gd", "aff_gd_gi"], (1,), (1,), 2)
    assert [job.name for job in missing(config, tmp_path, *grid)] == [
        "data",
        "phantom-n1-set1-aug-deform-seed0",
        "phantom-n1-set1-aug-intensity-seed0",
        "phantom-n1-set1-seg-aff_gd_gi-seed0",
        "phantom-n1-set1-aug-deform-seed1",
        "phantom-n1-set1-seg-aff_gd-seed1",
    ]
    finish(tmp_path, "phantom-n1-set1-seg-aff_gd-seed1", "phantom-n1-set1-seg-aff_gd_gi-seed0")
    assert missing(config, tmp_path, *grid) == []


def test_a_generator_that_the_config_names_is_not_learned(config, tmp_path):
    config.generators.deform = "trained"
    jobs = missing(config, tmp_path, ["aff_gd_gi"], (1,), (1,), 1)
    assert [job.name for job in jobs[1:]] == [
        "phantom-n1-set1-aug-intensity-seed0",
        "phantom-n1-set1-seg-aff_gd_gi-seed0",
    ]
    assert jobs[2].needs == ("data", "phantom-n1-set1-aug-intensity-seed0")


def test_the_data_are_those_of_all_missing_sets(config, tmp_path):
    finish(tmp_path, "phantom-n1-set2-seg-aff-seed0")
    (data, *_) = missing(config, tmp_path, ["aff"], (1, 3), (1, 2, 4), 1)
    assert data.flags == ("--stage=data", "--num_labelled=1,3", "--sets=1,2,4")
    finish(tmp_path, *(f"phantom-n1-set{k}-seg-aff-seed0" for k in (1, 4)))
    (data, *_) = missing(config, tmp_path, ["aff"], (1, 3), (1, 4), 1)
    assert data.flags == ("--stage=data", "--num_labelled=3", "--sets=1,4")


def test_the_union_of_sets_holds_every_case_once_and_keeps_the_other_splits(config):
    one = plan.union(config, (1, 3), (1, 2))
    assert one.splits.labelled.n1 == (("patient002", "patient042", "patient022", "patient062", "patient082"),)
    assert cases(one, "labelled") == one.splits.labelled.n1[0] and cases(one, "test") == cases(config, "test")
    check(one)
    assert config.num_labelled == 1 and len(config.splits.labelled.n1) == 5
    with pytest.raises(UserError, match="no set has 2 volumes"):
        plan.union(config, (1, 2), (1,))


@pytest.mark.parametrize(
    "num_labelled, sets, message",
    [((1, 2), (1,), "no set has 2 volumes; known are 1, 3, 40"), ((3,), (6,), "n3 has no set 6; give 1 to 5")],
)
def test_sets_that_the_config_does_not_have(config, tmp_path, num_labelled, sets, message):
    with pytest.raises(UserError, match=message):
        missing(config, tmp_path, ["aff"], num_labelled, sets, 1)
