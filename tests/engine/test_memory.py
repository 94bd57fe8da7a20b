import re
import subprocess
import sys

import numpy as np
import psutil
import pytest
import tensorflow as tf

from tfaug.compat import keras
from tfaug.engine import memory
from tfaug.engine.errors import MachineError


def small():
    image = keras.Input((4, 6, 1))
    x = keras.layers.Conv2D(3, 3, padding="same", dtype="mixed_bfloat16")(image)
    return keras.Model(image, keras.layers.MaxPool2D(2, dtype="float32")(x))


def test_bytes_per_sample_by_hand():
    assert memory.bytes_per_sample(small()) == 4 * 6 * 4 + 4 * 6 * 3 * 2 + 2 * 3 * 3 * 4


def test_a_model_within_may_have_an_open_size():
    inner = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(3, 1)])
    image = keras.Input((4, 6, 1))
    assert memory.bytes_per_sample(keras.Model(image, inner(image))) >= 4 * 6 * 4


def test_p5_only_a_batch_that_cannot_fit_is_refused():
    free = psutil.virtual_memory().available + psutil.swap_memory().free
    model = small()
    fits, too_much = free // 4 // memory.bytes_per_sample(model), 2 * free // memory.bytes_per_sample(model)
    memory.require([model, model], fits)
    with pytest.raises(MachineError, match=f"a batch of {too_much} needs about .* use a smaller batch size"):
        memory.require([model], too_much)


def test_p5_the_limit_of_the_process_counts():
    """In a process of its own, as a limit cannot be raised again."""
    script = """
import resource
import psutil
from test_memory import memory, small
model = small()
here = psutil.Process().memory_info().vms
resource.setrlimit(resource.RLIMIT_AS, (here + (2 << 30), resource.RLIM_INFINITY))
memory.require([model], (1 << 30) // memory.bytes_per_sample(model))
memory.require([model], (3 << 30) // memory.bytes_per_sample(model))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=__file__.rpartition("/")[0], capture_output=True, text=True
    )
    error = result.stderr.splitlines()[-1]
    assert re.search(r"memory: a batch of \d+ needs about 3\.0 GiB, and [12]\.\d GiB are free", error), result.stderr


def exhausted():
    """What TensorFlow says at last."""
    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor with shape[70368744177664]")


@pytest.mark.parametrize(
    "allocate",
    [
        lambda: np.empty(1 << 60, np.uint8),  # more than a process can address
        exhausted,
        pytest.param(lambda: tf.zeros([1 << 46]), marks=pytest.mark.slow),  # TensorFlow tries for ten seconds
    ],
    ids=["numpy", "exhausted", "tensorflow"],
)
def test_p5_a_failed_allocation_is_the_machines_error(allocate):
    with pytest.raises(MachineError, match="there is not enough of it; use a smaller batch size"), memory.running_out():
        allocate()
