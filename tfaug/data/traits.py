"""What a scan should have in common with the scans that a segmenter was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tfaug.data.preprocess import Prepared

FACTOR = 2.0  # a larger ratio is worth a warning

Traits = Mapping[str, Any]


def of(prepared: Prepared) -> Traits:
    """The traits of a prepared scan, JSON-able: mm per voxel along X, Y, Z, and [min, max] of each prepared channel."""
    image = prepared.image
    low, high = image.min(axis=(0, 1, 2)), image.max(axis=(0, 1, 2))
    return {
        "spacing": [float(mm) for mm in prepared.grid.spacing],
        "intensities": [[float(a), float(b)] for a, b in zip(low, high)],
    }


def unlike(found: Traits, known: Sequence[Traits]) -> dict[str, str]:
    """How a scan differs from all known ones: a line for each such trait, by its name; empty if none are known."""
    lines = {}
    for name, text, unit in (
        ("pixels", "pixels are", " mm"),
        ("slices", "slices are", " mm apart"),
        ("intensities", "intensities span", " times their 2nd to 98th percentile"),
    ):
        value, values = _measures(found)[name], [_measures(one)[name] for one in known]
        pairs = list(zip(value, *values))  # of each channel
        for channel, (ours, *theirs) in enumerate(pairs, start=1):
            if theirs and not min(theirs) / FACTOR <= ours <= max(theirs) * FACTOR:
                prefix = f"channel {channel}: " if len(pairs) > 1 else ""
                least, most = (f"{number:.3g}" for number in (min(theirs), max(theirs)))
                usual = least if least == most else f"{least} to {most}"
                lines.setdefault(name, f"{prefix}{text} {ours:.3g}{unit}, in the training data {usual}")
    return lines


def _measures(traits: Traits) -> dict[str, list[float]]:
    x, y, z = traits["spacing"]
    return {"pixels": [math.sqrt(x * y)], "slices": [z], "intensities": [b - a for a, b in traits["intensities"]]}
