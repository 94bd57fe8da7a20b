"""A fixed order of arithmetic: without it, two runs of the same command differ in their last bits."""

from __future__ import annotations

import os

import tensorflow as tf


def fix_order() -> None:
    """Sets global options of TensorFlow; to be called before anything else uses it."""
    # With more threads, some gradients are summed in an order that differs from run to run.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    # Grappler may rewrite the same graph in different ways in different processes, and then two equal runs differ from
    # the first step on. Without it they did not, and small steps were no slower.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def num_threads() -> str:
    """The number of threads that share one operation, which determines the order in which numbers are summed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return os.environ.get("TF_NUM_INTRAOP_THREADS") or str(cores)


def uses_onednn() -> bool:
    """Whether convolutions are oneDNN's; others sum in another order."""
    return os.environ.get("TF_ENABLE_ONEDNN_OPTS", "0").lower() in ("1", "true")
