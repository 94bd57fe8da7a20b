"""Shortage of memory: detected beforehand where possible, otherwise reported in one line."""

from __future__ import annotations

import contextlib
import math
import resource
from collections.abc import Iterator, Sequence
from typing import Any

import psutil
import tensorflow as tf

from tfaug.engine.errors import MachineError
from tfaug.engine.workers import memory_limit

_REMEDY = "use a smaller batch size"


def require(models: Sequence[Any], batch_size: int) -> None:
    """Refuses a batch that cannot fit; the operating system would kill the process without a message.

    The need is estimated as the sum of all layers' outputs, roughly what is kept for the backward pass. On a GPU
    nothing is checked.

    Args:
      models: those that run forwards and backwards on one batch.
      batch_size: number of samples.

    Raises:
      MachineError: they need more memory than this process can get.
    """
    if tf.config.list_physical_devices("GPU"):
        return
    needed, there = batch_size * sum(map(bytes_per_sample, models)), _available()
    if needed > there:
        need = f"a batch of {batch_size} needs about {needed / 2**30:.1f} GiB"
        problem = f"{need}, and {there / 2**30:.1f} GiB are free"
        raise MachineError("memory", problem, _REMEDY)


@contextlib.contextmanager
def running_out(remedy: str = _REMEDY) -> Iterator[None]:
    """Turns a failed allocation in the block into a MachineError.

    Raises:
      MachineError: suggests a smaller batch, or another remedy.
    """
    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise MachineError("memory", "there is not enough of it", remedy) from error


def bytes_per_sample(model: Any) -> int:
    """Bytes of the outputs of all layers of `model` for one sample."""
    outputs = (tensor for layer in model.layers for tensor in tf.nest.flatten(layer.output))
    # The output of a model within has an open size, here taken as 1, unless it was built for one.
    return sum(math.prod(size or 1 for size in tensor.shape[1:]) * tensor.dtype.size for tensor in outputs)


def _available() -> int:
    """Bytes that this process can still get."""
    limits = [psutil.virtual_memory().available + psutil.swap_memory().free, memory_limit()]
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space - psutil.Process().memory_info().vms)
    return max(min(limits), 0)
