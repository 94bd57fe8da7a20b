"""Splits of the cases: from the user's file, or drawn at random by patient.

Both give the content of the config's section `splits`:

    {"labelled": {"n1": (("a",), ("b",))}, "validation": ("c",), "test": ("d", "e"), "unlabelled": ("f",)}

`labelled` holds the sets of X_L by their size: n1 those of one volume, and so on.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tfaug import streams
from tfaug.data.readers.base import Listing
from tfaug.engine.errors import UserError, nearest

SPLITS = ("labelled", "validation", "test", "unlabelled")
RANDOM = "splits.random"  # its name in errors
EXAMPLE = "{'labelled': 1, 'validation': 2, 'test': 20}"

Splits = dict[str, Any]


def from_file(path) -> Splits:
    """Reads splits from a file; splits that it leaves out are empty.

    JSON: an object of the form above, with lists; `labelled` may also be a plain list of cases, as the only set.
    CSV: the columns `case`, `split` ("labelled", "validation", "test" or "unlabelled") and, if there are several
    labelled sets, `set`: labelled rows with equal entries there make up one set.

    Raises:
      UserError: the file cannot be read, or its content is not of that form.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(path, f"cannot be read ({error.strerror or error})", "check splits.file") from error
    except UnicodeDecodeError as error:
        raise UserError(path, "is not text in UTF-8", "save it as UTF-8") from error
    suffix = path.suffix.lower()
    if suffix not in (".json", ".csv"):
        raise UserError(path, "is neither a .json nor a .csv file", "write the splits as one of them")
    found = _from_json(path, text) if suffix == ".json" else _from_csv(path, text)
    if not found["labelled"]:
        raise UserError(path, "names no labelled case", "add at least one")
    return found


def _from_json(path: pathlib.Path, text: str) -> Splits:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(path, f"is not JSON ({error})", "mend it") from error
    if not isinstance(content, dict):
        raise UserError(path, "holds no object", f"write one with the keys {', '.join(SPLITS)}")
    for key in content:
        if key not in SPLITS:
            raise UserError(path, f"has the unknown key {key!r}", nearest(key, SPLITS))
    labelled = content.get("labelled", {})
    if isinstance(labelled, list) and labelled:
        labelled = {f"n{len(labelled)}": [labelled]}
    if not isinstance(labelled, (dict, list)):
        raise UserError(path, "holds no sets of labelled cases", 'write them as {"n1": [["CASE1"], ["CASE2"]]}')
    sets = {}
    for size, members in dict(labelled).items():
        if not isinstance(members, list) or not members:
            raise UserError(path, f"gives no list of sets as labelled.{size}", 'write it as [["CASE1"], ["CASE2"]]')
        sets[size] = tuple(_names(path, f"labelled.{size}", cases) for cases in members)
        for cases in sets[size]:
            if size != f"n{len(cases)}":
                problem = f"has a set of {len(cases)} in labelled.{size}"
                raise UserError(path, problem, f"move it to labelled.n{len(cases)}, or correct the set")
    return {"labelled": sets, **{split: _names(path, split, content.get(split, [])) for split in SPLITS[1:]}}


def _names(path: pathlib.Path, key: str, cases: Any) -> tuple[str, ...]:
    if not isinstance(cases, list) or not all(isinstance(case, str) and case for case in cases):
        raise UserError(path, f"gives no list of cases' names as {key}", 'write it as ["CASE1", "CASE2"]')
    return _once(path, key, cases)


def _from_csv(path: pathlib.Path, text: str) -> Splits:
    reader = csv.DictReader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        columns = reader.fieldnames or []
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UserError(path, f"is not CSV ({error})", "mend it") from error
    for column in ("case", "split"):
        if column not in columns:
            remedy = "write `case,split` or `case,split,set` as its first line"
            raise UserError(path, f"has no column {column!r}", remedy)
    labelled, others = {}, {split: [] for split in SPLITS[1:]}
    for number, row in rows:
        case, split = ((row[column] or "").strip() for column in ("case", "split"))
        line = f"{path}, line {number}"
        if not case:
            raise UserError(line, "names no case", "add its name, or remove the line")
        if split == "labelled":
            labelled.setdefault((row.get("set") or "").strip(), []).append(case)
        elif split in others:
            others[split].append(case)
        else:
            raise UserError(line, f"has the unknown split {split!r}", nearest(split, SPLITS))
    sets = {}
    for name, cases in labelled.items():
        sets.setdefault(f"n{len(cases)}", []).append(_once(path, f"labelled set {name}".rstrip(), cases))
    return {
        "labelled": {size: tuple(members) for size, members in sets.items()},
        **{split: _once(path, split, cases) for split, cases in others.items()},
    }


def _once(path: pathlib.Path, key: str, cases: Iterable[str]) -> tuple[str, ...]:
    seen = set()
    for case in cases:
        if case in seen:
            raise UserError(path, f"names {case} twice in {key}", "remove one")
        seen.add(case)
    return tuple(cases)


def random(listing: Listing, patient_of: Callable[[str], str], spec: Mapping[str, int]) -> Splits:
    """Draws splits; a patient's cases all go to one split, and the same spec draws the same splits again.

    Patients with labels are shuffled: the first are for testing, the next for validation. If a number of unlabelled
    patients is given, they come next, preferably from those without labels; otherwise all patients left at the end are
    unlabelled. The labelled sets are taken from the rest, and are disjoint as long as there are enough patients; these
    are then shuffled anew, so that later sets overlap with earlier ones, but no two sets are equal.

    Args:
      listing: the data set's cases.
      patient_of: the patient of a case.
      spec: numbers of patients: `labelled` (in each set, at least 1; several numbers give sets of each size),
        `validation` (at least 1), `test` (below 1: a share of those with labels) and optionally `unlabelled`; the
        number of `sets` (default: 5, or as many as possible) and the `seed` (default: 0).

    Returns:
      Splits; the sets are named after their number of patients. For labelled, validation and test patients, only the
      cases with labels are used.

    Raises:
      UserError: `spec` is wrong, or there are too few patients.
    """
    spec = _checked(spec)
    with_labels, without = {}, {}
    for case in listing.labelled:
        with_labels.setdefault(patient_of(case), []).append(case)
    for case in listing.unlabelled:
        without.setdefault(patient_of(case), []).append(case)

    sizes, wanted = spec["labelled"], spec.get("unlabelled")
    if 0 < spec["test"] < 1:
        spec["test"] = max(1, round(spec["test"] * len(with_labels)))
    order = _shuffled(with_labels, spec["seed"], "splits")
    only_images = _shuffled(set(without) - set(with_labels), spec["seed"], "splits/unlabelled")
    of_labelled = 0 if wanted is None else max(0, wanted - len(only_images))
    needed = max(sizes) + spec["validation"] + spec["test"] + of_labelled
    if needed > len(order):
        parts = [f"{spec['test']} for test", f"{spec['validation']} for validation", f"{max(sizes)} labelled"]
        parts += [f"{of_labelled} unlabelled"] * bool(of_labelled)
        problem = f"needs {needed} patients with labels ({', '.join(parts)}), and there are {len(order)}"
        raise UserError(RANDOM, problem, "ask for fewer")
    test, validation, reserved, pool = _parts(order, spec["test"], spec["validation"], of_labelled)
    sets = {}
    for size in sizes:
        most = math.comb(len(pool), size)
        if most < spec.get("sets", 1):
            left = f"{len(pool)} patients with labels are left for them"
            problem = f"asks for {spec['sets']} labelled sets of {size}, and {left}"
            raise UserError(RANDOM, problem, f"give 'sets' of at most {most}, or ask for fewer elsewhere")
        sets[size] = _sets(pool, size, spec.get("sets", min(most, 5)), spec["seed"])

    used = {*test, *validation, *(patient for of_size in sets.values() for one in of_size for patient in one)}
    if wanted is None:
        unlabelled = (set(with_labels) | set(without)) - used
    else:
        unlabelled = {*only_images[:wanted], *reserved}

    def cases(patients: Iterable[str]) -> tuple[str, ...]:
        return tuple(case for patient in patients for case in with_labels[patient])

    return {
        "labelled": {f"n{size}": tuple(map(cases, of_size)) for size, of_size in sets.items()},
        "validation": cases(validation),
        "test": cases(test),
        "unlabelled": tuple(
            sorted(
                case for known in (with_labels, without) for patient in unlabelled for case in known.get(patient, ())
            )
        ),
    }


def _checked(spec: Mapping[str, int]) -> dict[str, int]:
    """Checks a spec and adds its defaults."""
    least = {"labelled": 1, "validation": 1, "test": 0, "unlabelled": 0, "sets": 1, "seed": 0}
    for key, value in spec.items():
        if key not in least:
            raise UserError(RANDOM, f"has the unknown key {key!r}", nearest(str(key), least))
        if key == "test" and isinstance(value, float) and 0 < value < 1:
            continue
        numbers = value if key == "labelled" and isinstance(value, (tuple, list)) and value else [value]
        if any(type(number) is not int or number < least[key] for number in numbers):
            raise UserError(RANDOM, f"cannot have {value!r} as {key}", f"give a whole number of at least {least[key]}")
    for key in ("labelled", "validation", "test"):
        if key not in spec:
            raise UserError(RANDOM, f"lacks {key!r}", f"write it as {EXAMPLE}")
    sizes = spec["labelled"] if isinstance(spec["labelled"], (tuple, list)) else [spec["labelled"]]
    return {"seed": 0, **spec, "labelled": sorted(set(sizes))}


def _shuffled(patients: Iterable[str], seed: int, *purpose) -> list[str]:
    """The patients in an order that depends only on their names, the seed and the purpose."""
    patients = sorted(patients)
    return [patients[k] for k in streams.generator(seed, *purpose).permutation(len(patients))]


def _parts(patients: list[str], *sizes: int) -> list[list[str]]:
    """Consecutive parts of these sizes, and the rest, each sorted."""
    ends = [0, *itertools.accumulate(sizes), len(patients)]
    return [sorted(patients[start:end]) for start, end in zip(ends, ends[1:])]


def _sets(pool: list[str], size: int, number: int, seed: int) -> list[tuple[str, ...]]:
    """`number` different sets of `size` patients: parts of the shuffled pool, shuffled anew when it is used up."""
    sets = {}
    for lap in itertools.count():
        order = _shuffled(pool, seed, "splits/labelled", lap)
        for start in range(0, len(order) - size + 1, size):
            sets[tuple(sorted(order[start : start + size]))] = None
            if len(sets) == number:
                return list(sets)
