"""A job for `timing.Worker`."""

import itertools
import os

from benchmarks.timing import Job


def where(answer):
    runs = itertools.count(1)
    return Job(lambda: {"pid": os.getpid(), "runs": next(runs)}, {"answer": answer})
