"""What every test shares: one order of arithmetic, on the CPU."""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # tolerances are those of float32 on a CPU

from tfaug.engine import determinism  # noqa: E402

determinism.fix_order()  # could not be changed once a test has used TensorFlow

# Each file is one process's work, so that those that take minutes must not be begun last.
LONGEST = ("test_end_to_end.py", "test_faults.py", "test_extending.py", "test_readme.py", "test_predict.py")


def pytest_collection_modifyitems(items):
    """Runs the longest files first."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
