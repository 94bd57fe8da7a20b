"""The notebook of the docs, and the programs in a notebook: executed by a kernel, at a tiny size."""

import os
import pathlib
import subprocess
import sys

import nbclient
import nbformat
import pytest
from test_end_to_end import TINY

ROOT = pathlib.Path(__file__).parent.parent


def executed(notebook, folder):
    """Text and errors that the cells of a notebook print, by cell; fails if one fails."""
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    return ["".join(map(_text, cell.outputs)) for cell in notebook.cells if cell.cell_type == "code"]


def _text(output):
    return output.text if output.output_type == "stream" else output.get("data", {}).get("text/plain", "")


def settings():
    """Lines of Python that make a config tiny."""
    keys = dict(flag.removeprefix("--config.").split("=", 1) for flag in TINY)
    values = {key: repr(value) if ":" in value and value[0] != "{" else value for key, value in keys.items()}
    return "\n".join(f"config.{key} = {value}" for key, value in values.items())


@pytest.fixture
def folder(hearts, tmp_path, monkeypatch):
    """With the scans, and where `python` is the one of the tests."""
    monkeypatch.setenv("PATH", f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "hearts").symlink_to(hearts)
    return tmp_path


@pytest.mark.slow
def test_the_notebook_goes_from_scans_to_the_table_and_pictures(folder):
    notebook = nbformat.read(ROOT / "docs/first-steps.ipynb", as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source += f"\n{settings()}\nconfig.data.root = 'hearts'\nconfig.data.num_workers = 1"
    outputs = executed(notebook, folder)
    assert all(name in "".join(outputs) for name in ("RV", "Myo", "LV", "dice", "hd95_mm"))
    assert "(4, 32, 32, 1)" in "".join(outputs) or "TensorShape([4, 32, 32, 1])" in "".join(outputs)
    shown = [
        output for cell in notebook.cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", ())
    ]
    assert len(shown) == 4


@pytest.mark.slow
def test_v3_the_programs_run_in_a_notebook_twice_and_after_tensorflow_was_used(folder):
    flags = " ".join(f'"{flag}"' for flag in (*TINY, "--config.data.root=hearts", "--stage=seg", "--aug=none"))
    cells = [
        "import tensorflow as tf\ntf.zeros(1) + 1",
        *[f"%run {ROOT / 'train.py'} {flags}"] * 2,
        f"!python {ROOT / 'train.py'} {flags} ; echo status $?",
        f"%run {ROOT / 'evaluate.py'} {flags.replace('--stage=seg', '--split=test')}",
        "import tfaug\nfrom tfaug.engine.errors import UserError\n"
        "try:\n    tfaug.train(aug='aff_gdd')\nexcept UserError as error:\n    print(error)",
    ]
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
    _, first, second, shell, table, refused = executed(notebook, folder)
    assert "seg-none: 6/6" in first and "nothing to do" in second and "nothing to do" in shell and "status 0" in shell
    assert "Dice" in table and "Myo" in table
    assert "did you mean 'aff_gd'?" in refused


def test_a_script_needs_no_main_guard(folder):
    """Neither for the functions nor for what starts processes itself."""
    (folder / "script.py").write_text(
        "import tfaug\nfrom tfaug.phantom import cohort\n"
        "cohort.write_cohort('more', numbers=(42, 43))\n"
        "config = tfaug.load_config('phantom')\n"
        f"{settings()}\nconfig.data.root = 'hearts'\n"
        "table = tfaug.check(config)\nprint(len(table), 'cases')\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("6 cases\n") and done.stdout.count("picture of every case") == 1
    assert len(list((folder / "more").iterdir())) == 2
