"""Which device is used, why the machine's GPUs are not, and whether the device suits a precision."""

from __future__ import annotations

import functools
import glob
import os
import pathlib
import time

import tensorflow as tf

from tfaug.engine import determinism

_INSTRUCTIONS = {"bfloat16": {"avx512_bf16", "amx_bf16"}, "float16": {"avx512_fp16", "amx_fp16"}}  # as Linux names them
_CPU = pathlib.Path("/proc/cpuinfo")
_SLOWER = 2.0  # times; smaller ratios may be noise


def used() -> str:
    """What TensorFlow computes on: "CPU", or "GPU" and its name."""
    gpus = tf.config.get_visible_devices("GPU")
    if not gpus:
        return "CPU"
    return " ".join(["GPU", *filter(None, [tf.config.experimental.get_device_details(gpus[0]).get("device_name")])])


def idle_gpus() -> list[str]:
    """A line about GPUs of this machine that are not used, with the reason, or none."""
    found, seen = installed_gpus(), len(tf.config.get_visible_devices("GPU"))
    if seen > 1:
        return [f"1 of {seen} GPUs is used: a training takes the first; CUDA_VISIBLE_DEVICES leaves others out"]
    if seen or not found:
        return []
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        reason = f"CUDA_VISIBLE_DEVICES is {hidden!r}"
    elif not tf.test.is_built_with_cuda():
        reason = "this TensorFlow is built without CUDA"
    else:
        reason = f"TensorFlow lacks CUDA libraries; pip install 'tensorflow[and-cuda]=={tf.__version__}' brings them"
    return [f"the CPU is used, and not the {'GPU' if found == 1 else f'{found} GPUs'} of this machine: {reason}"]


def installed_gpus() -> int:
    """The number of NVIDIA GPUs in the system, whether or not TensorFlow can use them."""
    return len(glob.glob("/dev/nvidia[0-9]*"))


@functools.lru_cache(None)
def adds_in_float32(dtype: str) -> bool:
    """Whether convolutions and their gradients are summed in float32 here.

    For 16-bit types this holds on GPUs, and with oneDNN on processors with instructions for them. Elsewhere TensorFlow
    takes many times as long as in float32, and sums bfloat16 gradients in bfloat16, with errors of some per cent.

    Args:
      dtype: the type of what is convolved.
    """
    if dtype not in _INSTRUCTIONS or tf.config.get_visible_devices("GPU"):
        return True
    known = _CPU.read_text(encoding="utf-8", errors="replace").split() if _CPU.is_file() else []
    return determinism.uses_onednn() and not _INSTRUCTIONS[dtype].isdisjoint(known)


@functools.lru_cache(None)
def slow_precision(policy: str) -> list[str]:
    """A line about a precision in which Keras's convolutions are measured to be slower here than in float32, or none.

    `models.blocks.conv` is not slow where Keras's own are, see `adds_in_float32`.

    Args:
      policy: name of a Keras precision policy: "float32", "mixed_bfloat16" or "mixed_float16".
    """
    dtype = policy.removeprefix("mixed_")
    if dtype == "float32":
        return []
    ratio = _seconds(dtype) / _seconds("float32")
    if ratio < _SLOWER:
        return []
    return [f"precision: {policy} trains about {ratio:.0f} times slower than float32 on this machine; use float32"]


def _seconds(dtype: str) -> float:
    """Seconds of one convolution, forwards and backwards: the best of three."""
    image, kernel = tf.ones((2, 64, 64, 32), dtype), tf.ones((3, 3, 32, 32), dtype)

    @tf.function
    def gradient(image, kernel):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            convolved = tf.nn.conv2d(image, kernel, 1, "SAME")
        return tape.gradient(convolved, kernel)

    times = []
    for _ in range(4):
        start = time.perf_counter()
        gradient(image, kernel).numpy()
        times.append(time.perf_counter() - start)
    return min(times[1:])  # the first one builds the graph
