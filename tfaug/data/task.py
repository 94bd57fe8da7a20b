"""The task of a data set: its structures, the values that mark them, and the channels of its scans."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from tfaug.engine.errors import UserError

MAX_STRUCTURES = 20
MAX_CHANNELS = 4
BACKGROUND_WEIGHT = 0.1  # of L_S (paper, section 3.4)

# The first seven are Okabe and Ito's, which everybody can tell apart, in an order that suits hearts; the others come
# from Tol's "muted" scheme and two related ones. None is a grey.
PALETTE = (
    *("#56B4E9", "#F0E442", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#0072B2"),
    *("#CC6677", "#DDCC77", "#117733", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499", "#332288"),
    *("#EE7733", "#33BBEE", "#EE3377", "#BBCC33"),
)


@dataclasses.dataclass(frozen=True)
class Task:
    """The structures and channels of a data set, made once from the data set or the config, and passed down.

    Inside tfaug a label holds classes: 0 for background, then 1, 2, ... in the order of the values in the files.

    Attributes:
      structures: value in the label files by name; kept in the order of the values.
      channels: names of the channels of a scan, one to four.
    """

    structures: Mapping[str, int]
    channels: tuple[str, ...] = ("image",)

    def __post_init__(self):
        """Checks the user's input.

        Raises:
          UserError: there are too few or too many structures or channels, structures that overlap, or names that cannot
            be used: a line end or a control code would break tables and reach the terminal.
        """
        key = "data.structures"
        if not 1 <= len(self.structures) <= MAX_STRUCTURES:
            raise UserError(key, f"names {len(self.structures)} structures", f"name 1 to {MAX_STRUCTURES}")
        if not 1 <= len(self.channels) <= MAX_CHANNELS:
            raise UserError("channels", f"there are {len(self.channels)}", f"give scans of 1 to {MAX_CHANNELS}")
        for name in self.channels:
            if not name.isprintable():
                raise UserError("channels", f"one has the name {name!r}", "choose another name")
        owners: dict[int, str] = {}
        for name, value in self.structures.items():
            if not isinstance(name, str) or not name or not name.isprintable() or name in ("mean", "background"):
                raise UserError(key, f"cannot name a structure {name!r}", "choose another name")
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
                remedy = "give one whole number from 1 to 65535; structures that overlap (regions) are not supported"
                raise UserError(key, f"gives {name} the value {value!r}", remedy)
            if value in owners:
                remedy = "give each a value of its own; structures that overlap are not supported"
                raise UserError(key, f"gives {owners[value]} and {name} the same value {value}", remedy)
            owners[value] = name
        object.__setattr__(self, "structures", {owners[value]: value for value in sorted(owners)})

    @property
    def names(self) -> tuple[str, ...]:
        """The structures in the order of their classes, which begin at 1."""
        return tuple(self.structures)

    @property
    def num_classes(self) -> int:
        """The number of classes in the segmenter's output: the structures and the background."""
        return len(self.structures) + 1

    @property
    def classes(self) -> dict[str, int]:
        """The class of each structure, by name."""
        return {name: index for index, name in enumerate(self.structures, start=1)}

    @property
    def colours(self) -> dict[str, str]:
        """The colour of each structure in every picture, by name, in the order of the classes."""
        return dict(zip(self.structures, PALETTE))

    @property
    def class_weights(self) -> tuple[float, ...]:
        """The default weights of L_S: 0.1 for background, the rest shared evenly, as in the paper for three."""
        share = (1 - BACKGROUND_WEIGHT) / len(self.structures)
        return (BACKGROUND_WEIGHT, *(share for _ in self.structures))

    def to_classes(self, values: np.ndarray, subject) -> np.ndarray:
        """Turns the values of a label file into classes.

        Args:
          values: any shape, integer or float.
          subject: the file, named in errors.

        Returns:
          uint8 of the same shape.

        Raises:
          UserError: a value belongs to no structure; names the first and how many voxels have it.
        """
        known = {0: 0, **{value: index for index, value in enumerate(self.structures.values(), start=1)}}
        classes = np.zeros_like(values, np.uint8)
        for value in np.unique(values.ravel("K")).tolist():
            if value not in known:
                listed = ", ".join(f"{number} {name}" for name, number in self.structures.items())
                count = np.count_nonzero(values == value)
                raise UserError(
                    subject,
                    f"holds the label {value:.16g} in {'1 voxel' if count == 1 else f'{count} voxels'}",
                    f"use 0 background, {listed} and no other value",
                )
            np.copyto(classes, known[value], where=values == value)
        return classes

    def to_values(self, classes: np.ndarray) -> np.ndarray:
        """Turns classes into the user's values, uint8 if they fit and else uint16; the inverse of `to_classes`."""
        values = np.array([0, *self.structures.values()])
        return values.astype(np.uint8 if values.max() <= 255 else np.uint16)[classes]

    def absent(self, label: np.ndarray) -> list[str]:
        """The names of the structures without a voxel in a label of classes."""
        present = np.bincount(label.ravel(), minlength=self.num_classes)
        return [name for name, index in self.classes.items() if not present[index]]
