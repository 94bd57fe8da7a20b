"""The tables that tfaug writes as CSV."""

from __future__ import annotations

import os

import pandas as pd

_TEXT = ("case", "split", "structure", "shape", "spacing_mm", "orientation", "digest", "problems")


def read(path: str | os.PathLike) -> pd.DataFrame:
    """Reads a table: names are text, even those of cases called 001 or NA; empty fields are "" there, NaN elsewhere.

    Raises:
      OSError: there is none, or it cannot be read.
      ValueError: it is not a table.
    """
    others = [name for name in pd.read_csv(path, nrows=0) if name not in _TEXT]
    missing = {name: [""] for name in others}
    return pd.read_csv(path, dtype=dict.fromkeys(_TEXT, str), keep_default_na=False, na_values=missing)
