"""Oddities of usable scans: reported once, before a training, and kept in its report."""

from __future__ import annotations

import collections
import hashlib
import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tfaug.data.preprocess import Prepared
from tfaug.data.task import Task
from tfaug.engine.errors import printable

logger = logging.getLogger(__name__)

# Shares of a structure's border; every heart of ACDC has at least 0.99 at its resolution.
ENCLOSED, NOT_ENCLOSED = 0.8, 0.5
DIRECTIONS = {"R": "right", "L": "left", "A": "front", "P": "back", "S": "head", "I": "foot"}
SAME_SLICES = str.maketrans("LPI", "RAS")  # for the sliced axis, whose direction does not matter


# Kinds.
VOXEL_SIZE = "the header contradicts itself about the voxel size"
ABSENT = "a structure is not in the prepared label"
CUT = "the crop cuts off a part of a structure"
MIXED_UP = "the values of structures may be mixed up"
OTHER_AXIS = "sliced across another axis than most cases"
TURNED = "turned otherwise than most cases"
SAME = "the same image as another case"


class Oddity(NamedTuple):
    """Something odd.

    Attributes:
      kind: what it is, in words that all of its kind share.
      cases: the cases concerned.
      line: the whole message.
    """

    kind: str
    cases: tuple[str, ...]
    line: str

    def __str__(self):
        return printable(self.line)


class Traits(NamedTuple):
    """What is compared between scans.

    Attributes:
      case: the scan's name.
      axis: the file's axis that is sliced.
      order: see `types.Volume`.
      digest: digest of the prepared image.
    """

    case: str
    axis: int
    order: str
    digest: str


def of_scans(task: Task, scans: Sequence[Prepared]) -> list[Oddity]:
    """The oddities of each scan, then those found by comparing the scans."""
    return [*(oddity for scan in scans for oddity in of_scan(task, scan)), *of_cohort(map(traits, scans))]


def of_scan(task: Task, scan: Prepared) -> list[Oddity]:
    """The oddities of one scan; without a label, only those of its header."""
    if scan.label is None:
        return of_header(scan)
    found = {}
    absent = task.absent(scan.label)
    if absent:
        found[ABSENT] = f"no pixel of its prepared label is {' or '.join(absent)}"
    lost = [f"{_percent(share)} of {name}" for name, share in zip(task.names, scan.cut) if share > 0]
    if lost:
        remedy = "a larger data.image_size or data.resolution keeps more"
        found[CUT] = f"the crop cuts off {' and '.join(lost)}; {remedy}"
    mixed_up = _heart(task, scan)
    if mixed_up:
        found[MIXED_UP] = mixed_up
    return [*of_header(scan), *(Oddity(kind, (scan.case,), f"{scan.case}: {text}") for kind, text in found.items())]


def of_header(scan: Prepared) -> list[Oddity]:
    """The oddities in the header of one scan."""
    return [Oddity(VOXEL_SIZE, (scan.case,), f"{scan.case}: {scan.contradiction}")] if scan.contradiction else []


def warn(found: Iterable[Oddity]) -> None:
    """Logs a warning for each."""
    for oddity in found:
        logger.warning(str(oddity))


def traits(scan: Prepared) -> Traits:
    """What `of_cohort` needs to know about a scan."""
    return Traits(scan.case, scan.grid.axis, scan.order, hashlib.sha256(np.ascontiguousarray(scan.image)).hexdigest())


def of_cohort(cohort: Iterable[Traits]) -> list[Oddity]:
    """Scans that are sliced or oriented differently from most others, and scans that are the same image."""
    cohort = list(cohort)
    found = []
    axes = collections.Counter(scan.axis for scan in cohort).most_common()
    for scan in cohort:
        if scan.axis != axes[0][0]:
            problem = f"is sliced across axis {scan.axis} of its file, most other cases across axis {axes[0][0]}"
            line = f"{scan.case}: {problem}; data.slice_axis sets one for all"
            found.append(Oddity(OTHER_AXIS, (scan.case,), line))
    turns = [scan.order[:2] + scan.order[2:].translate(SAME_SLICES) for scan in cohort]
    turned = collections.Counter(filter(None, turns)).most_common()
    for scan, turn in zip(cohort, turns):
        if turn and turn != turned[0][0]:
            usual = next(other.order for other, its in zip(cohort, turns) if its == turned[0][0])
            runs, usual = (", ".join(DIRECTIONS[letter] for letter in order) for order in (scan.order, usual))
            line = f"{scan.case}: its axes run to {runs} by its header, those of most other cases to {usual}"
            found.append(Oddity(TURNED, (scan.case,), line))
    names = {}
    for scan in cohort:
        names.setdefault(scan.digest, {})[scan.case] = None
    for same in names.values():
        if len(same) > 1:
            line = f"{' and '.join(same)} are the same image; scores mean nothing if it is in two splits"
            found.append(Oddity(SAME, tuple(same), line))
    return found


def _heart(task: Task, scan: Prepared) -> str:
    """For a heart whose myocardium does not enclose the left ventricle, what encloses what instead; otherwise ""."""
    classes = {name.lower(): index for name, index in task.classes.items()}
    if not {"lv", "myo"} <= classes.keys():
        return ""
    enclosed = _enclosed(scan.label, task.num_classes)
    myo, lv = classes["myo"], classes["lv"]
    outer, inner = np.unravel_index(np.nanargmax(enclosed), enclosed.shape) if np.any(enclosed > 0) else (myo, lv)
    if not (enclosed[myo, lv] < NOT_ENCLOSED and enclosed[outer, inner] > ENCLOSED):
        return ""
    names = dict(zip(task.classes.values(), task.names))
    found = f"{names[outer]} encloses {_percent(enclosed[outer, inner])} of {names[inner]}"
    expected = f"{names[myo]} only {_percent(enclosed[myo, lv])} of {names[lv]}"
    return f"{found}, {expected}; are the values of data.structures right (docs/data.md)?"


def _enclosed(label: np.ndarray, num_classes: int) -> np.ndarray:
    """[outer, inner]: the share of the inner class's in-plane border that touches the outer; NaN without a border."""
    contacts = np.zeros((num_classes, num_classes))
    for one, other in ((label[:, 1:], label[:, :-1]), (label[:, :, 1:], label[:, :, :-1])):
        differ = one != other
        pairs = num_classes * one[differ].astype(np.intp) + other[differ]
        contacts += np.bincount(pairs, minlength=num_classes**2).reshape(contacts.shape)
    contacts += contacts.T
    with np.errstate(invalid="ignore"):
        shares = contacts / contacts.sum(axis=0)
    shares[0] = shares[:, 0] = np.nan  # background is no structure
    return shares


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"
