"""What a folder layout has to tell: which cases there are, where their files lie, and what they are about."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from tfaug.data.task import Task


class Files(NamedTuple):
    """Where one case lies.

    Attributes:
      images: one 3D file a channel, in the order of the task's channels.
      label: None for unlabelled use.
    """

    images: tuple[pathlib.Path, ...]
    label: pathlib.Path | None


class Listing(NamedTuple):
    """The cases of a data set, sorted by name.

    Attributes:
      labelled: cases with a label.
      unlabelled: cases without one, or that the layout sets aside as such.
    """

    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]


class Reader:
    """A folder layout; one subclass a file, and its name in `readers.READERS`.

    Args:
      root: the data set's folder.
      options: the config's section `data`, as a dict; a layout may read keys of its own from it.
    """

    def __init__(self, root: pathlib.Path, options: Mapping[str, Any]):
        self.root = pathlib.Path(root)

    @staticmethod
    def recognises(root: pathlib.Path) -> bool:
        """Whether a folder has this layout; looks at names only."""
        raise NotImplementedError

    def task(self) -> Task | None:
        """What the folder says of structures and channels; None if only the config can tell."""
        raise NotImplementedError

    def cases(self) -> Listing:
        """Every case of the folder.

        Raises:
          UserError: the folder contradicts itself.
        """
        raise NotImplementedError

    def locate(self, case: str, label: bool = True) -> Files:
        """Finds a case's files without opening them.

        Args:
          case: its name.
          label: False for unlabelled use: the label is not looked for, and None.

        Raises:
          UserError: a file is missing or not unique.
        """
        raise NotImplementedError

    def patient(self, case: str) -> str:
        """Whose scan a case is: cases of one patient never fall into different splits."""
        return case
