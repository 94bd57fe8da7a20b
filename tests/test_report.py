"""`tfaug report`: of a tiny run that is trained here, and of results; those of generators are in test_end_to_end.py."""

import base64
import html.parser
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from programs import ROOT, run
from test_extending import TINY, tfaug, write, write_msd
from test_faults import failed, no_tensorflow

from tfaug.configs import phantom
from tfaug.data.task import Task
from tfaug.engine import event_files, run_dir
from tfaug.experiment import instruments
from tfaug.report import cases, charts, generators, page, runs

HIPPOCAMPUS = ROOT / "docs/results/hippocampus"
EVIL = "<img src=x onerror=document.title=666>"  # a case; no slash, as it is a file's name
STRUCTURE = "</style><script>document.title=666</script>"
SEGMENTER = "own-n1-set1-seg-none-seed0"
SHORT = (
    *("--config.segment.num_steps=2", "--config.report_every=1", "--config.picture_every=2"),
    "--config.checkpoint_every=2",
)
VOID = {"img", "input", "meta", "br"}


class Reader(html.parser.HTMLParser):
    """The elements of a page, and whether they are closed as they should be."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.texts = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for found, attributes in self.found if found == tag]


@pytest.mark.parametrize("form, limited", [("free", True), ("quantiles", False)])
def test_the_share_of_pixels_at_a_limit_is_told_where_there_is_one(form, limited, tmp_path):
    config = phantom.get_config()
    config.data.root, config.model.intensity = str(tmp_path / "gone"), form
    row = {f"generator/{key}": 0.25 for key in ("intensity_max", "saturated", "histogram_distance")}
    about = {"generator": "intensity", "verdict": "sane", "best_step": 10, "warnings": []}
    text = str(generators.described(tmp_path, config, about, [{"step": 10, **row}]))
    assert "|dI|, maximum" in text and ("pixels at the limit" in text) == limited


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with data, the run of a segmenter, and the reports of it and of results."""
    folder = tmp_path_factory.mktemp("world")
    write_msd(folder / "data", {"anterior": 85, STRUCTURE: 300})
    for path in [*folder.rglob("*.nii.gz")]:
        path.rename(path.with_name(path.name.replace("scan", EVIL)))
    tfaug("train", *TINY, *SHORT, "--config.data.root=data", "--aug=none", cwd=folder)
    tfaug("report", f"runs/{SEGMENTER}", "-o", "segmenter.html", cwd=folder)
    tfaug("report", "-o", "grid.html", f"--of={HIPPOCAMPUS}", cwd=folder)
    return folder


def read(path):
    return Reader(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["segmenter", "grid"])
def test_a_page_is_whole_by_itself_small_and_accessible(world, name):
    file = world / f"{name}.html"
    assert file.stat().st_size < 10e6
    page = read(file)
    assert page.all("html")[0]["lang"] == "en" and page.all("title") and page.all("h1") and page.all("main")
    assert "width=device-width" in [found.get("content", "")[:18] for found in page.all("meta")]
    assert not page.all("link") and all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
    assert all(image["alt"] for image in page.all("img")) and all(a["href"][0] in "#d" for a in page.all("a"))
    anchors, ids = (
        {a["href"][1:] for a in page.all("a") if a["href"][0] == "#"},
        [found["id"] for _, found in page.found if "id" in found],
    )
    assert anchors <= {*ids} and len({*ids}) == len(ids)
    labels = {label["for"] for label in page.all("label") if "for" in label}
    assert {box["id"] for box in page.all("input") if box["type"] == "range"} <= labels
    assert all(
        "tabindex" in box and box["aria-label"] for box in page.all("div") if "scroll" in box.get("class", "").split()
    )
    assert all(svg.get("aria-label") or svg.get("aria-hidden") for svg in page.all("svg"))
    css = file.read_text()
    assert "prefers-color-scheme:dark" in css and "@media print" in css and "http" not in css.replace("http-equiv", "")


def test_what_a_user_has_named_stays_text(world):
    text = (world / "segmenter.html").read_text()
    assert text.count("<script") == 1 and "onerror=document.title=666>" not in text.replace("&gt;", "")
    page = read(world / "segmenter.html")
    assert any(EVIL in found for found in page.texts) and any(STRUCTURE in found for found in page.texts)
    assert "script-src 'sha256-" in page.all("meta")[1]["content"]


def test_a_segmenters_report_has_its_scores_slices_and_curves(world):
    page, text = read(world / "segmenter.html"), " ".join(read(world / "segmenter.html").texts)
    table = pd.read_csv(world / "runs" / SEGMENTER / "evaluation/test/dice.csv")
    assert f"{table.dice.mean():.3f}" in text and f"Best and median and worst: {table.case[0]}" in text
    for title in ("Scores", "Cases", "Volumes and clinical indices", "Learning curves", "What was done"):
        assert title in page.texts
    versions = re.escape(f"TensorFlow {tf.__version__}, NumPy {np.__version__}, convolutions of oneDNN")
    assert re.search(rf"CPU, threads: \d+, {versions}", text)
    slices = [found for found in page.all("div") if found.get("class") == "slice"]
    assert len(slices) == 4 and sum("hidden" not in found for found in slices) == 1


def test_a_grids_report_has_every_method_test_and_order(world):
    text = " ".join(read(world / "grid.html").texts)
    methods = {re.search("seg-(.+)-seed", path.name)[1] for path in HIPPOCAMPUS.glob("*seg-*.json")}
    assert len(methods) == 13 and all(method in text for method in methods)
    assert "0.704 ± 0.032" in text and "aff_gd > aff_rd" in text and "Spearman's rho 0.23" in text
    assert len(read(world / "grid.html").all("img")) == len(list(HIPPOCAMPUS.glob("figure*.png")))


def test_the_commands_of_a_report_find_the_very_same_run(world, tmp_path):
    """The config that the page holds is that of the run: it is finished."""
    uri = next(a["href"] for a in read(world / "segmenter.html").all("a") if "download" in a)
    (tmp_path / "own.py").write_bytes(base64.b64decode(uri.partition(",")[2]))
    flags = (f"--config={tmp_path / 'own.py'}", f"--workdir={world / 'runs'}")
    assert "finished before" in tfaug("train", *flags, "--stage=seg", "--aug=none", cwd=world).stdout
    assert "evaluated before" in tfaug("evaluate", *flags, "--aug=none", cwd=world).stdout


@pytest.fixture
def copied(world, tmp_path):
    """A copy of the run, whose scans are elsewhere now."""
    path = shutil.copytree(world / "runs" / SEGMENTER, tmp_path / SEGMENTER)
    return moved(path, tmp_path / "gone")


def moved(path, data):
    """The run in `path` with its evaluation, as if it had been trained on `data`."""
    content = json.loads((path / "config.json").read_text())
    content["config"]["data"]["root"] = str(data)
    del content["sha256"]
    (path / "config.json").write_text(json.dumps(content))
    change(path / "evaluation/test/evaluated.json", model=run_dir.identity(path))
    return path


def change(file, **values):
    """Sets keys of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_without_scans_the_evaluations_pictures_take_their_place(copied, tmp_path):
    """And no TensorFlow is loaded."""
    path = f"{no_tensorflow(tmp_path)}:{ROOT}"
    command = [sys.executable, "-m", "tfaug", "report", copied, "-o", tmp_path / "r.html"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page, text = read(tmp_path / "r.html"), " ".join(read(tmp_path / "r.html").texts)
    assert "gone is not there any more" in text and "The picture is the evaluation's." in text
    assert not page.all("output")
    assert any("three slices" in image["alt"] for image in page.all("img"))


def test_what_is_not_there_is_left_out(copied, tmp_path):
    for name in ("evaluation", "diagnostics.csv", "batch.png"):
        shutil.rmtree(copied / name) if (copied / name).is_dir() else (copied / name).unlink()
    for file in event_files.files(copied):
        file.write_bytes(file.read_bytes()[:200])
    tfaug("report", copied, "-o", "r.html", cwd=tmp_path)
    text = " ".join(read(tmp_path / "r.html").texts)
    assert (
        "has not been evaluated" in text and "hold no curves" in text and "Cases" not in read(tmp_path / "r.html").texts
    )


def test_scans_that_have_changed_are_not_shown(world, tmp_path):
    for name in ("runs", "data"):
        shutil.copytree(world / name, tmp_path / name)
    path = moved(tmp_path / "runs" / SEGMENTER, tmp_path / "data")
    case = pd.read_csv(path / "evaluation/test/dice.csv").case[0]
    write(tmp_path / "data/labelsTr" / f"{case}.nii.gz", np.zeros((30, 28, 4), np.uint16))
    tfaug("report", path, "-o", "r.html", cwd=tmp_path)
    assert "has changed since it was evaluated" in " ".join(read(tmp_path / "r.html").texts)


def test_scores_of_other_cases_than_the_configs_are_called_so(world, copied, tmp_path):
    assert "Scored as" not in (world / "segmenter.html").read_text()
    shutil.copytree(world / "data", tmp_path / "others")
    for path in [*(tmp_path / "others").rglob("*.nii.gz")]:
        path.rename(path.with_name(path.name.replace(EVIL, "other")))
    flags = (f"--run={copied}", "--config.data.root=others", "--config.splits.test=('other01',)")
    tfaug("evaluate", *flags, cwd=tmp_path)
    tfaug("report", copied, "-o", "r.html", cwd=tmp_path)
    (mask,) = (copied / "evaluation/test/masks").iterdir()  # that of the evaluation before is gone
    assert mask.name == "other01_prediction.nii.gz"
    assert {path.name for path in (copied / "evaluation/test/pictures").iterdir()} == {"other01.png", "overview.png"}
    texts = read(tmp_path / "r.html").texts
    (sentence,) = [text for text in texts if "its mean Dice is" in text]
    assert "These are not the test cases of its config, and may be of another data set: other01." in sentence
    assert texts[texts.index("Scored as test cases") + 1].startswith("1: other01; not those of the config")
    assert texts[texts.index("Test cases") + 1] == f"1: {EVIL}01"


def test_an_evaluation_that_is_not_as_it_was_written_is_not_told(world, copied, tmp_path):
    folder = copied / "evaluation/test"

    def refused():
        return failed(run("tfaug", "report", copied, "-o", "r.html", cwd=tmp_path), 2)

    for name in ("dice.csv", "indices.csv", "summary.txt"):
        intact = (folder / name).read_text()
        (folder / name).write_text("".join(intact.splitlines(keepends=True)[:-1]))
        assert "evaluation/test: is not as it was written" in refused()
        (folder / name).write_text(intact)
    (folder / "evaluated.json").rename(folder / "kept")
    assert "evaluation/test: is not as it was written" in refused()
    (folder / "kept").rename(folder / "evaluated.json")
    tfaug("report", copied, "-o", "good.html", cwd=tmp_path)
    evaluated = json.loads((folder / "evaluated.json").read_text())
    del evaluated["files"]  # as versions left it that wrote no digests
    (folder / "evaluated.json").write_text(json.dumps(evaluated))
    for name, old, new in (("indices.csv", "3.78", "much"), ("dice.csv", "dice", "die")):
        intact = (folder / name).read_text()
        (folder / name).write_text(intact.replace(old, new))
        assert f"{name}: is damaged" in refused()
        (folder / name).write_text(intact)
    change(folder / "evaluated.json", model="of another training")
    assert "evaluation/test: is not as it was written" in refused()


def test_without_sound_diagnostics_a_generator_has_no_numbers(copied):
    file = copied / "diagnostics.csv"
    report = {"generator": "deform", "warnings": [], "best_step": 2, "verdict": "sane"}
    for damage in ("stp,generator/folded\n2,0.1\n", "step,generator/folded\n2,few\n", ""):
        file.write_text(damage)
        config = runs.read(copied).config
        text = generators.described(copied, config, report, runs.read(copied).rows)
        assert "diagnostics.csv is gone or damaged" in text


def test_what_cannot_be_told_is_one_line_and_leaves_no_file(world, copied, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.html").write_text("mine")
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "none").mkdir()
    shutil.copy(HIPPOCAMPUS / "config.json", tmp_path / "none")
    (copied / "report.json").rename(copied / "kept")
    good = world / "runs" / SEGMENTER
    for arguments, problem in (
        ((), "the folder of a run or of results: is missing"),
        ((good,), "--output: is missing"),
        ((good, good, "-o", "r.html"), "is one folder too many"),
        ((f"--of={good}", good, "-o", "r.html"), "unknown flag"),
        (("gone", "-o", "r.html"), "gone: does not exist"),
        (("there.html", "-o", "r.html"), "there.html: is not a folder"),
        (("empty", "-o", "r.html"), "empty: is neither a run of tfaug nor a folder of its results"),
        (("none", "-o", "r.html"), "none: holds no results"),
        ((copied, "-o", "r.html"), "is not finished"),
        ((good, "-o", "r.txt"), "r.txt: does not end in .html"),
        ((good, "-o", "gone/r.html"), "gone: is no folder"),
        ((good, "-o", "folder.html"), "folder.html: is a folder"),
        ((good, "-o", "there.html"), "there.html: is there already; choose another --output, or add --overwrite"),
        ((good, "-o", "r.html", "--aug=aff"), "--aug: unknown flag"),
    ):
        assert problem in failed(run("tfaug", "report", *map(str, arguments), cwd=tmp_path), 2)
    (copied / "kept").rename(copied / "report.json")
    assert (tmp_path / "there.html").read_text() == "mine"
    assert not [
        path for path in tmp_path.glob("*") if "r.html" in path.name and path.name not in ("there.html", "folder.html")
    ]
    tfaug("report", HIPPOCAMPUS, "-o", "there.html", "--overwrite", cwd=tmp_path)
    assert (tmp_path / "there.html").read_text().startswith("<!doctype html>")


def test_of_few_cases_each_is_shown_once():
    table = pd.DataFrame({"case": list("abcd"), "dice": [0.2, 0.9, 0.5, 0.7]})
    assert [(one.rank, one.case) for one in cases.choose(table)] == [("best", "b"), ("median", "c"), ("worst", "a")]
    assert [one.rank for one in cases.choose(table[:1])] == ["best and median and worst"]
    assert [one.rank for one in cases.choose(table[:2])] == ["best", "median and worst"]


def test_slices_with_something_marked_and_their_neighbours_are_shown_but_not_too_many():
    label = np.zeros((4, 4, 200), np.uint8)
    assert cases.slices(label, label) == sorted(cases.slices(label, label)) and len(cases.slices(label)) == 24
    label[1, 1, 7:9] = 1
    assert cases.slices(label, 0 * label) == [6, 7, 8, 9]


def test_contours_lie_on_the_pixels_edges():
    mask = np.zeros((6, 5), np.uint8)
    mask[2:4, 1] = 1  # x from 2 to 4, y from 1 to 2
    (path,) = cases._contours(mask, Task({"a": 1}))
    numbers = np.array(re.findall(r"-?[\d.]+", re.search(' d="M(.+?)z"', path)[1]), float).reshape(-1, 2)
    points = np.cumsum(numbers, axis=0)
    assert (points.min(axis=0).tolist(), points.max(axis=0).tolist()) == ([2, 1], [4, 2])


def test_elements_escape_what_is_no_html():
    assert (
        page.el("p", "<b>", page.el("b", "&"), None, ["x"], class_='a"b')
        == '<p class="a&quot;b">&lt;b&gt;<b>&amp;</b>x</p>'
    )
    assert page.el("input", disabled=True, hidden=False) == "<input disabled>"


@pytest.mark.parametrize("low, high, expected", [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-0.7, 1.4, [-0.5, 0, 0.5, 1])])
def test_ticks_are_round(low, high, expected):
    assert charts.ticks(low, high) == pytest.approx(expected)


def test_curves_leave_out_what_is_not_finite_and_can_be_seen_by_day():
    drawn = charts.curves("t", {"a": charts.Curve([1, 2, 3], [0.5, float("nan"), 1.0], "#F0E442")})
    assert "nan" not in drawn and drawn.count("<circle") == 2
    assert charts._contrast(charts._rgb(re.search("--day:(#......)", drawn)[1]), (1, 1, 1)) >= 3
    charts.curves("t", {"a": charts.Curve([5], [0.0])})  # one point, without extent


# In the browser: what the script must do, told by the page's title.
CHECK = """
const wrong = [];
addEventListener("error", event => wrong.push(event.message));
addEventListener("load", () => {
  for (const image of document.images) if (!image.naturalWidth) wrong.push("a picture does not decode");
  const range = document.querySelector("input[type=range]");
  const shown = () => [...document.querySelectorAll(".viewer .slice")].filter(one => !one.hidden);
  const before = shown()[0];
  range.value = range.value === "1" ? 2 : 1;
  range.dispatchEvent(new Event("input"));
  if (shown().length !== 1 || shown()[0] === before) wrong.push("the slider moves nothing");
  if (document.querySelector("output").textContent !== shown()[0].dataset.name) wrong.push("the output is old");
  const box = document.querySelector("input[value=reference]");
  const reference = () => getComputedStyle(shown()[0].querySelector(".reference")).display;
  box.click();
  if (reference() !== "none") wrong.push("the reference's contours stay");
  box.click();
  if (reference() === "none") wrong.push("they do not come back");
  if (document.documentElement.scrollWidth > innerWidth) wrong.push("the page scrolls sideways");
  if (document.title.includes("666")) wrong.push("a name has run");
  document.body.setAttribute("data-checked", wrong.join("; ") || "good");
});
"""


@pytest.mark.slow
def test_in_a_browser_every_picture_decodes_and_the_slider_moves(world, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("there is no browser")
    text = (world / "segmenter.html").read_text()
    text = re.sub("script-src 'sha256-[^']+'", "script-src 'unsafe-inline'", text)  # for the check beside the script
    (tmp_path / "checked.html").write_text(text.replace("<style>", f"<script>{CHECK}</script><style>", 1))
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900", "--virtual-time-budget=5000")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [browser, *flags, profile, "--dump-dom", (tmp_path / "checked.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert 'data-checked="good"' in done.stdout, re.findall('data-checked="[^"]*"', done.stdout) or done.stderr[-2000:]


def test_the_page_calls_sane_what_the_verdict_calls_sane():
    shown = {key: sane for rows in generators._ROWS.values() for key, *_, sane in rows}
    limits = {key: f"up to {100 * limit:g} %, or as much as random" for key, limit in instruments.LIMITS.items()}
    times = dict.fromkeys(("displacement_p95_mm", "intensity_p95"), f"up to {instruments.TIMES} times random")
    assert {key: shown[key] for key in (*limits, *times)} == {**limits, **times}
