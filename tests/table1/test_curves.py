"""The learning curves on ACDC's development patients: what is committed, and the script that reads it."""

import pathlib
import runpy

import pandas as pd
import pytest

from tfaug.engine.event_log import EventLog

ACDC = pathlib.Path(__file__).parent.parent.parent / "docs/results/acdc"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ACDC / "curves.py"))


@pytest.mark.parametrize("folder", ["curves", "curves-float32"])
def test_the_page_shows_the_committed_curves(script, folder):
    table = script["table"](script["curves"](str(ACDC / folder)), script["STEPS"])
    page = (ACDC / "development.md").read_text(encoding="utf-8")
    assert all(f"    {line}\n" in page for line in table.splitlines())


def test_validations_of_runs_become_a_table_against_minutes(script, tmp_path):
    for seed, values in enumerate([(0.2, 0.4), (0.4, 0.6)]):
        run = tmp_path / f"runs/acdc_dev-n1-set2-seg-aff_rd_ri-seed{seed}"
        run.mkdir(parents=True)
        log = EventLog(run)
        for step, value in zip((100, 200), values):
            log.scalars({"dice/mean": value, "loss/segmentation": 0.1}, step)
    script["collect"](str(tmp_path / "runs"), tmp_path / "96-10-float32.csv")
    pd.DataFrame({"setting": ["96-10-float32"], "seconds": [0.3]}).to_csv(tmp_path / "seconds.csv", index=False)
    found = script["curves"](str(tmp_path))
    assert found.to_dict("list") == {
        "setting": ["96-10-float32"] * 2,
        "method": ["aff_rd_ri"] * 2,
        "set": [2] * 2,
        "step": [100, 200],
        "mean": pytest.approx([0.3, 0.5]),
        "size": [2, 2],
        "minutes": pytest.approx([0.5, 1.0]),
    }
    assert "0.500" in script["table"](found, [200]) and "0.300" not in script["table"](found, [200])
    script["draw"](found, str(tmp_path / "curves.png"))
    assert (tmp_path / "curves.png").stat().st_size > 1000
