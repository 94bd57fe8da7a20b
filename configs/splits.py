"""The split of the ACDC patients, as in the released program (the paper gives only the counts, section 4)."""

from __future__ import annotations

import ml_collections


def _patients(*numbers: int) -> tuple[str, ...]:
    return tuple(f"patient{number:03d}" for number in numbers)


def _in_each_group(*numbers: int) -> tuple[str, ...]:
    """The patients with these numbers in each of the five groups 001-020, 021-040, ..., 081-100."""
    return _patients(*(group + number for group in range(0, 100, 20) for number in numbers))


def get_splits() -> ml_collections.ConfigDict:
    """Patients by split; `labelled.n1`, `n3`, `n40`: the sets of X_L with 1, 3 and 40 volumes."""
    return ml_collections.ConfigDict(
        {
            "test": _in_each_group(7, 8, 9, 10),
            "validation": _patients(11, 71),
            "unlabelled": _in_each_group(16, 17, 18, 19, 20),
            "labelled": {
                "n1": (_patients(2), _patients(42), _patients(22), _patients(62), _patients(95)),
                "n3": (
                    _patients(2, 22, 42),
                    _patients(42, 62, 82),
                    _patients(22, 42, 82),
                    _patients(2, 42, 82),
                    _patients(2, 42, 95),
                ),
                # An upper bound, whose members the paper does not name: the first eight left in each group.
                "n40": (
                    _patients(
                        *(1, 2, 3, 4, 5, 6, 12, 13),
                        *(21, 22, 23, 24, 25, 26, 31, 32),
                        *(41, 42, 43, 44, 45, 46, 51, 52),
                        *(61, 62, 63, 64, 65, 66, 72, 73),
                        *(81, 82, 83, 84, 85, 86, 91, 92),
                    ),
                ),
            },
        }
    )
