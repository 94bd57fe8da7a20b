"""Reads and prepares every case of every split, as a training would, and lists all that is wrong: tfaug check."""

from __future__ import annotations

from tfaug.commands import cli
from tfaug.experiment import sources


def main() -> None:
    """Prints what is wrong with the data, and ends with status 2 if a case cannot be used."""
    cli.refuse_all_but(("config",), "tfaug check")
    examine(sources.Data(sources.resolve(cli.config())))


def examine(data: sources.Data) -> None:
    """As `main`, for `python train.py --check` too."""
    print(data.check())
    print(f"\nNext: {cli.command('train', without=('check',))}")
