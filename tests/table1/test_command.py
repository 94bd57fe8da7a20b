"""The flags of --stage=table1, up to where jobs would start."""

import json
import os
import re
import subprocess
import sys

import pytest
from dask.utils import parse_timedelta
from test_end_to_end import ROOT, error_line, run

from tfaug.augment.methods import METHODS
from tfaug.configs import phantom
from tfaug.engine import run_dir
from tfaug.experiment import identity, sources
from tfaug.table1 import results


@pytest.mark.parametrize(
    "flags, subject, hint",
    [
        (["--methods=none,aff_gdgi"], "--methods", "'aff_gd_gi'"),
        (["--num_labelled=2"], "--config.num_labelled", "1, 3, 40"),
        (["--num_labelled=1,x"], "--num_labelled", "'1,x'"),
        (["--sets=1-6"], "--config.labelled_set", "give 1 to 5, for --stage=table1 by --sets"),
        (["--config.splits.test=()"], "--config.splits.test", "name at least one"),
        (["--sets=0"], "--sets", "from 1 on"),
        (["--repeats=0"], "--repeats", "positive"),
        (["--scheduler=localhost"], "--scheduler", "tcp://HOST:PORT"),
        (
            ["--config.splits.labelled.n1=(('patient001',), ('patient007',))", "--num_labelled=1", "--sets=1-2"],
            "patient007",
            "apart",
        ),
        (["--results=thesis"], "thesis", "--results"),
    ],
)
def test_bad_flags_get_one_line_and_start_nothing(flags, subject, hint, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    line = error_line(run("train.py", "--stage=table1", *flags, cwd=tmp_path))
    assert subject in line and hint in line
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_a_damaged_result_is_named_and_nothing_started(tmp_path):
    config = sources.resolve(phantom.get_config())
    results.bind(tmp_path / "results", config, sources.task_of(config).names)
    (tmp_path / "results" / "phantom-n1-set1-seg-aff-seed0.json").write_text("{")
    line = error_line(run("train.py", "--stage=table1", "--results=results", cwd=tmp_path))
    assert "phantom-n1-set1-seg-aff-seed0.json" in line
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_r1_another_generator_of_the_same_name_is_refused_but_for_methods_without_any(tmp_path):
    """Runs of one config, set and seed have one name, in whatever --workdir they are."""
    config = sources.resolve(phantom.get_config())
    names, generators = sources.task_of(config).names, {}
    for number, folder in enumerate(("A", "B")):
        run_dir.RunDir(tmp_path / folder / "run", {}).finish({"best": 0.5, "best_step": number})
        generators[folder] = f"--config.generators.deform={folder}/run"
    config.generators.deform = str(tmp_path / "A" / "run")
    for method, used in (("aff_gd", ["deform"]), ("aff", [])):
        made_with = identity.of_generators(config, used)
        dice = dict.fromkeys(config.splits.test, (0.5,) * len(names))
        known = {"row": identity.row_of(METHODS[method]), "generators": made_with}
        one = results.Result(method, 1, 1, 0, 1, 0.5, dice, 1.0, None, 1, "2.15.1", **known)
        results.save(tmp_path / "results", one, config, names)

    def table(*flags):
        asked = ("--num_labelled=1", "--sets=1", "--repeats=1", "--results=results")
        return run("train.py", "--stage=table1", *asked, *flags, cwd=tmp_path)

    for flags in (["--methods=aff_gd", generators["A"]], ["--methods=aff"]):
        assert "2 results, complete; nothing to do" in table(*flags).stdout
    for flags in ([], [generators["B"]]):
        line = error_line(table("--methods=aff_gd", *flags))
        assert "phantom-n1-set1-seg-aff_gd-seed0.json: was made with another generator 'deform'" in line
        line = error_line(run("train.py", "--stage=seg", "--aug=aff_gd", "--results=results", *flags, cwd=tmp_path))
        assert "was made with another generator 'deform'" in line
    assert not (tmp_path / "runs").exists()


def test_a_job_gets_the_config_of_the_command_wherever_it_runs(tmp_path):
    """Through a file, as the grid's workers may be other machines."""
    folder, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    folder.mkdir(), elsewhere.mkdir()
    (folder / "mine.py").write_text(
        "from tfaug.configs import phantom\n"
        "def get_config():\n"
        "    config = phantom.get_config()\n"
        "    config.name = 'mine'\n"
        "    config.generators.intensity_noreg = 'runs/older'\n"
        "    return config\n"
    )
    (folder / "show.py").write_text(
        "import json, pathlib\n"
        "from tfaug import config as rules\n"
        "from tfaug.commands import cli\n"
        "def show():\n"
        "    config = cli.config()\n"
        "    print(json.dumps([config.to_dict(), str(rules.write(config, pathlib.Path()))]))\n"
        "cli.run(show)\n"
    )

    def show(*flags, cwd):
        command = [sys.executable, folder / "show.py", *flags]
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    asked = [
        *("--config", "mine.py", "--config.data.root", "my data", "--noconfig.augment.task_gradient"),
        *("--config.segment.learning_rate=1e-5", "--config.splits.test=('a','b')", "--config.data.image_size=auto"),
        *("--config.segment.class_weights=(0,0.3,0.3,0.3)", "--config.name=other"),
        *("--config.generators.deform=runs/trained", "--config.data.structures={'b': 2, 'a': 1, 'c': 3}"),
    ]
    config, file = show(*asked, cwd=folder)
    assert config["data"]["root"] == str(folder / "my data") and config["augment"]["task_gradient"] is False
    assert config["generators"]["deform"] == str(folder / "runs" / "trained") and not config["generators"]["intensity"]
    assert config["generators"]["intensity_noreg"] == str(folder / "runs" / "older")
    assert show(f"--config={folder / file}", cwd=elsewhere)[0] == config
    config, file = show(cwd=folder)
    assert show(f"--config={folder / file}", cwd=elsewhere)[0] == config


def test_dask_understands_the_documented_lifetimes_of_workers():
    text = (ROOT / "docs" / "cluster.md").read_text()
    times = re.findall(r'"--lifetime[a-z-]*", "(\w+)"', text)
    assert len(times) == 2 and 7 * 3600 < sum(map(parse_timedelta, times)) < 8 * 3600
