"""What every test shares: one order of arithmetic, on the CPU."""

import fcntl
import json
import os

import pytest

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # tolerances are those of float32 on a CPU

# Programs find fast_networks.py.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.path.dirname(__file__), os.environ.get("PYTHONPATH")]))


def pytest_configure(config):
    """Sets what could not be changed once a test has used TensorFlow, in the processes that run tests."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        from tfaug.engine import determinism

        determinism.fix_order()


# What takes long to make and several files of tests read. Each is made by the test process that needs it first.


@pytest.fixture(scope="session")
def hearts(tmp_path_factory):
    """A folder with six patients of the built-in cohort."""

    def make(folder):
        from tfaug.phantom import cohort

        cohort.write_cohort(folder, numbers=(2, 7, 11, 16, 27, 36))

    return _once(tmp_path_factory, "hearts", make)


@pytest.fixture(scope="session")
def trained_hearts(hearts, tmp_path_factory):
    """(folder, stdout): where one command has run every stage on `hearts`, and what it printed.

    To be read only: what changes a run takes a copy.
    """

    def make(folder):
        from programs import run
        from test_end_to_end import TINY

        done = run("train.py", f"--config.data.root={hearts}", *TINY, cwd=folder)
        assert done.returncode == 0, done.stderr
        (folder / "stdout.json").write_text(json.dumps(done.stdout))

    folder = _once(tmp_path_factory, "trained", make)
    return folder, json.loads((folder / "stdout.json").read_text())


def _once(factory, name, make):
    """A folder that `make` fills, the same one in all processes of this session."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with open(base / f"{name}.lock", "a+") as lock:  # holds a word once the folder is there
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        if not lock.read():
            (base / name).mkdir()
            make(base / name)
            lock.write("made")
    return base / name


# Each file is one process's work, so that those that take minutes must not be begun last.
LONGEST = (
    *("test_end_to_end.py", "test_faults.py", "test_extending.py", "test_readme.py", "test_predict.py"),
    *("test_export.py", "test_report.py"),
)


def pytest_collection_modifyitems(items):
    """Runs the longest files first."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
