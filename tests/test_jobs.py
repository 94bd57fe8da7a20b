"""The commands as functions; that they run their commands is in test_notebook.py."""

import pandas as pd
import pytest

from tfaug import jobs


@pytest.mark.parametrize("name", ["check", "train", "evaluate"])
def test_r1_a_tilde_is_the_users_folder(name, tmp_path, monkeypatch):
    home, called = tmp_path / "home", []
    for folder in ("runs/phantom-check", "runs/a/evaluation/test"):
        (home / folder).mkdir(parents=True)
    for table in ("phantom-check/check.csv", "a/evaluation/test/dice.csv"):
        (home / "runs" / table).write_text("case,problems\nA,\n")
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(jobs, "_run", lambda *arguments: called.extend(arguments))
    found = jobs.evaluate("~/runs/a") if name == "evaluate" else getattr(jobs, name)("phantom", workdir="~/runs")
    assert called[0] == name and not any("~" in argument for argument in called)
    assert any(argument.endswith(f"={home / 'runs'}{'/a' * (name == 'evaluate')}") for argument in called)
    if name == "train":
        assert found == home / "runs/phantom-n1-set1-seg-aff_gd_gi-seed0"
    else:
        assert isinstance(found, pd.DataFrame) and list(found.case) == ["A"]
    assert not list((tmp_path / "here").iterdir())
