"""Which device is used, why the machine's GPUs are not, and whether it has instructions for a precision."""

from __future__ import annotations

import functools
import glob
import os
import pathlib

import tensorflow as tf

from tfaug.engine import determinism

_INSTRUCTIONS = {"bfloat16": {"avx512_bf16", "amx_bf16"}, "float16": {"avx512_fp16", "amx_fp16"}}  # as Linux names them
_CPU = pathlib.Path("/proc/cpuinfo")


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
