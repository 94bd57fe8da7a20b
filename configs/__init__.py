"""Experiments as configs; each file's docstring gives its command."""

import pathlib

FOLDER = pathlib.Path(__file__).parent


def names() -> list[str]:
    """The names that --config accepts, besides files of the user's own."""
    return sorted(path.stem for path in FOLDER.glob("[!_]*.py") if path.stem != "splits")
