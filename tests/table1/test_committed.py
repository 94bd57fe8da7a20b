"""The committed grids: a document shows what results give, and today's config can continue it."""

import json
import pathlib
import runpy

import pytest
import tensorflow as tf
from data_.patients import write_patient

from tfaug.augment.methods import PAPER
from tfaug.configs import acdc_quick
from tfaug.experiment import sources
from tfaug.table1 import render, results
from tfaug.table1.table import compute, load

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "results"
FOLDER = DOCS / "phantom"


GRIDS = {"phantom": FOLDER, "hippocampus": DOCS / "hippocampus", "acdc": DOCS / "acdc/grid"}


@pytest.mark.parametrize("name", GRIDS)
def test_the_document_shows_what_the_results_give(name):
    text = (DOCS / f"table1-{name}.md").read_text(encoding="utf-8")
    shared, methods = results.read_config(GRIDS[name]), acdc_quick.get_config().methods if name == "acdc" else PAPER
    for section in render.markdown(compute(load(GRIDS[name]), shared, methods)).split("\n\n")[1:]:
        assert section in text


def test_the_frozen_config_continues_the_results_on_acdc(tmp_path):
    write_patient(tmp_path / "acdc", "patient002")
    config = acdc_quick.get_config()
    config.data.root, config.precision = str(tmp_path / "acdc"), "mixed_bfloat16"
    values = sources.resolve(config)
    assert results.decisive(values, sources.task_of(values).names) == results.read_config(GRIDS["acdc"])


DEVELOPMENT = {
    page: sorted(str(path) for path in (DOCS / folder).iterdir() if path.is_dir())
    for page, folder in (
        ("acdc/development.md", "acdc/development"),
        ("acdc/switches.md", "acdc/switches"),
        ("../schedule.md", "phantom/development"),
        ("table1-hippocampus.md", "hippocampus/development"),
    )
}


@pytest.fixture(scope="module")
def develop():
    return runpy.run_path(str(DOCS / "develop.py"))


@pytest.mark.parametrize("page", DEVELOPMENT)
def test_a_page_on_development_shows_what_its_results_give(develop, page):
    text, folders = (DOCS / page).read_text(encoding="utf-8"), DEVELOPMENT[page]
    tables = [develop["table"](folders).to_string(float_format="{:.3f}".format)]
    found = [develop["generators"](folders, kind) for kind in develop["TELLING"]]
    tables += [readings.to_string(float_format="{:.3g}".format) for readings in found if len(readings)]
    assert all(f"    {line}\n" in text for shown in tables for line in shown.splitlines())


@pytest.mark.parametrize("page", ["acdc/development.md", "acdc/switches.md"])
def test_a_page_on_acdc_tells_the_settings(develop, page):
    text, folders = (DOCS / page).read_text(encoding="utf-8"), DEVELOPMENT[page]
    settings = [line.partition(": ") for line in develop["settings"](folders).splitlines()]
    assert all(f"\n- `{name}`: {values}\n" in text for name, _, values in settings)


def test_readings_of_generators_are_their_last_ones(develop, tmp_path):
    for number, last in ((1, 0.2), (2, 0.4)):
        run = tmp_path / f"runs/acdc_dev-n1-set{number}-aug-intensity-seed0"
        run.mkdir(parents=True)
        names = [
            f"{source}/{key}" for source in develop["SOURCES"]["intensity"] for key in develop["TELLING"]["intensity"]
        ]
        names += develop["JUDGED"]
        rows = [",".join(names), *(",".join([str(value)] * len(names)) for value in (9, last))]
        (run / "diagnostics.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "setting").mkdir()
    develop["collect"](str(tmp_path / "runs"), str(tmp_path / "setting"))
    found = develop["generators"]([str(tmp_path / "setting")], "intensity")
    assert found.loc["setting", "generator"].tolist() == pytest.approx([0.3] * 6)
    assert found.loc["setting", "histogram"].tolist()[:4] == pytest.approx([0.3] * 4)
    assert develop["generators"]([str(tmp_path)], "deform").empty
    assert develop["generators"]([str(tmp_path / "setting")], "deform").empty  # it has the other kind alone


FOLDERS = [*GRIDS.values(), DOCS / "acdc/upper_bound"]
FOLDERS += [path for paths in DEVELOPMENT.values() for path in paths]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: "-".join(pathlib.Path(folder).parts[-3:]))
def test_results_come_from_commits(folder):
    commits = {result.commit for result in results.load(folder)}
    assert commits and not any(commit is None or commit.endswith("-dirty") for commit in commits)


@pytest.fixture(scope="module")
def explain():
    return runpy.run_path(str(DOCS / "explain.py"))


def test_the_document_says_what_the_script_prints(explain):
    text = " ".join((DOCS / "table1-phantom.md").read_text(encoding="utf-8").split())
    deviations = explain["by_set"](FOLDER, 1).std()
    sentence = "is {aff_ri:.2f}; that of `aff_gd_gi` is {aff_gd_gi:.2f}, of `aff` and `aff_mixup` {aff:.2f}, and of"
    assert sentence.format(**deviations) + f" `aff_rd` {deviations.aff_rd:.2f}" in text
    assert round(deviations.aff, 2) == round(deviations.aff_mixup, 2)
    means = explain["by_method"](FOLDER, 1)
    assert f"{(means.validation_dice - means.test).aff_ri:.2f}, all others" in text


def test_the_script_reads_runs_at_their_best_step(explain, tmp_path):
    for name, best in (("deform", 100), ("deform_noreg", 350)):
        run = tmp_path / f"phantom-n1-set1-aug-{name}-seed0"
        run.mkdir()
        (run / "report.json").write_text(json.dumps({"best": 0.5, "best_step": best, "verdict": name}))
        (run / "diagnostics.csv").write_text("step,generator/a,dice/mean\n100,1,0.5\n350,2,0.5\n")
        with tf.summary.create_file_writer(str(run)).as_default():
            for step, value in ((100, 0.0), (300, 0.5), (350, 1.0)):
                for kind in ("fake", "real"):
                    tf.summary.scalar(f"discriminator/accuracy_{kind}", value, step)
    found = explain["generators"](tmp_path, 1)
    assert found["generator/a"].tolist() == [1, 2] and list(found) == ["generator/a", "verdict"]
    assert found.verdict.tolist() == ["deform", "deform_noreg"]
    right = explain["discriminators"](tmp_path, 1)
    assert right.to_numpy().tolist() == [[0.75, 0.75]] and "noreg" not in right.index[0]
