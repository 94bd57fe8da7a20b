import re

import pytest
import tensorflow as tf

from tfaug.engine import devices

GPU = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")


@pytest.fixture
def machine(monkeypatch):
    """Sets which GPUs the system has, which ones TensorFlow sees, and what hides them."""

    def make(installed=0, seen=0, hidden=None, with_cuda=True, name="A100"):
        monkeypatch.setattr(devices, "installed_gpus", lambda: installed)
        monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [GPU] * seen)
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"device_name": name})
        monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: with_cuda)
        if hidden is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)

    return make


@pytest.mark.parametrize(
    "state, used, reason",
    [
        ({}, "CPU", None),
        ({"hidden": "-1"}, "CPU", None),
        ({"installed": 1, "seen": 1}, "GPU A100", None),
        ({"installed": 4, "seen": 1, "hidden": "2"}, "GPU A100", None),
        ({"seen": 1, "name": None}, "GPU", None),
        ({"installed": 1, "hidden": "-1"}, "CPU", "not the GPU of this machine: CUDA_VISIBLE_DEVICES is '-1'"),
        ({"installed": 1, "hidden": ""}, "CPU", "CUDA_VISIBLE_DEVICES is ''"),
        ({"installed": 2, "with_cuda": False}, "CPU", "not the 2 GPUs of this machine: .*built without CUDA"),
        ({"installed": 1}, "CPU", r"lacks CUDA libraries; pip install 'tensorflow\[and-cuda\]=="),
        ({"installed": 4, "seen": 4}, "GPU A100", "1 of 4 GPUs is used"),
    ],
    ids=str,
)
def test_v6_a_gpu_that_does_not_compute_is_a_warning_with_the_reason(machine, state, used, reason):
    machine(**state)
    assert devices.used() == used
    found = devices.idle_gpus()
    assert len(found) == (reason is not None)
    if reason:
        assert re.search(reason, found[0])


@pytest.mark.parametrize(
    "dtype, flags, onednn, seen, native",
    [
        ("float32", "sse", "0", 0, True),
        ("bfloat16", "fpu avx512_bf16 sse", "1", 0, True),
        ("bfloat16", "fpu amx_bf16", "1", 0, True),
        ("bfloat16", "fpu amx_bf16", "0", 0, False),
        ("bfloat16", "avx2 avx512f avx512_fp16", "1", 0, False),
        ("bfloat16", "avx2", "1", 1, True),
        ("float16", "avx512_bf16", "1", 0, False),
        ("float16", "avx512_bf16 avx512_fp16", "1", 0, True),
        ("bfloat16", None, "1", 0, False),
    ],
)
def test_sixteen_bits_need_instructions_or_a_gpu(machine, monkeypatch, tmp_path, dtype, flags, onednn, seen, native):
    machine(installed=seen, seen=seen)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", onednn)
    monkeypatch.setattr(devices, "_CPU", tmp_path / "cpuinfo")
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"model name : A CPU\nflags : {flags}\n")
    devices.adds_in_float32.cache_clear()
    found = devices.adds_in_float32(dtype)
    devices.adds_in_float32.cache_clear()
    assert found == native
