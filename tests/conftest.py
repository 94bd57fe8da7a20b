"""What every test shares: one order of arithmetic, on the CPU."""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # tolerances are those of float32 on a CPU

from tfaug.engine import determinism  # noqa: E402

determinism.fix_order()  # could not be changed once a test has used TensorFlow
