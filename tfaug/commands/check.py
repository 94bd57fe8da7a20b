"""Reads and prepares every case of every split, as a training would, and lists all that is wrong: tfaug check."""

from __future__ import annotations

from tfaug.commands import cli
from tfaug.experiment import sources


def main() -> None:
    """Prints what is wrong with the data, and ends with status 2 if a case cannot be used."""
    data = sources.Data(sources.resolve(cli.config()))
    print(data.check())
