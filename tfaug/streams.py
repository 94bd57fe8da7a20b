"""Random streams: every draw is a pure function of (seed, purpose, step, sample).

Nothing in tfaug keeps the state of a random generator, so a resumed run needs only its step number.
"""

from __future__ import annotations

import hashlib

import numpy as np


def key(seed: int, *purpose) -> np.ndarray:
    """The key of one stream.

    Args:
      seed: the run's seed.
      *purpose: what the draws are for, for example ("affine",) or ("phantom", 17); each has its own stream.

    Returns:
      [2] int64, for `tf.random.stateless_*`, `stateless_fold_in` and `generator`.
    """
    digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
    return np.frombuffer(digest[:16], dtype="<i8").copy()


def generator(seed: int, *purpose) -> np.random.Generator:
    """A NumPy generator at the start of the stream `key(seed, *purpose)`, for draws outside a graph."""
    return np.random.Generator(np.random.Philox(key=key(seed, *purpose).view(np.uint64)))


def scalar_seed(seed: int, *purpose) -> int:
    """A non-negative 31-bit integer seed from the same stream, for APIs that take one number."""
    return int(key(seed, *purpose)[0] & 0x7FFFFFFF)
