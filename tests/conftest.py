"""What every test shares: one order of arithmetic, on the CPU."""

import os

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"  # tolerances are those of float32 on a CPU

import tensorflow as tf  # noqa: E402

# As in `experiment.set_up_tensorflow`, which could not change it once a test has used TensorFlow.
tf.config.threading.set_inter_op_parallelism_threads(1)
