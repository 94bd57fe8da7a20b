"""Random damage to all that a user brings and a run leaves behind (fuzz.py)."""

import pathlib
import subprocess
import sys

import pytest

FUZZ = pathlib.Path(__file__).with_name("fuzz.py")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(4000)]


def fuzz(*flags):
    return subprocess.run([sys.executable, str(FUZZ), *flags], capture_output=True, text=True)


def test_no_damage_ends_in_a_traceback_a_wrong_number_or_a_changed_file():
    done = fuzz("--trials=1000", "--minutes=45")
    assert done.returncode == 0 and "1000 trials" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    "plant, kind", [("traceback", "voxels"), ("silence", "finished_run"), ("written", "config_value")]
)
def test_a_fault_that_is_put_in_is_found(plant, kind):
    done = fuzz(f"--plant={plant}", f"--kind={kind}", "--trials=600", "--minutes=15")
    assert done.returncode == 1 and f"FAULT {kind}" in done.stdout, done.stdout + done.stderr
