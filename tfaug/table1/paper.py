"""Table 1 of Chaitanya et al., IPMI 2019, as printed, and which of its methods are tested against which.

Its caption: "Average Dice score (DSC) results over 15 runs of 20 test subjects for the proposed method and relevant
works. *, dagger, star denotes statistical significance over Aug_{A,RD}, Aug_{A,RI} and Aug_{A,Mixup} respectively.
(Wilcoxon signed rank test with threshold p value of 0.05)." It says neither what was paired nor whether the test was
one-sided; and one of the marks, on Myo of `aff_gi_noreg` with three volumes, is on a score below that of `aff_ri`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

STRUCTURES = ("RV", "Myo", "LV")  # the columns
ALPHA = 0.05
COUNTS = (1, 3)  # N_L
NUM_RUNS = 15  # behind every number

# The methods that others are tested against, with their marks.
MARKS: Mapping[str, str] = {"aff_rd": "∗", "aff_ri": "†", "aff_mixup": "⋆"}

# method | printed name, subscripts in braces | RV, Myo, LV for N_L = 1 | RV, Myo, LV for N_L = 3
_PRINTED = """
none            | Aug_{none}                                       | 0.259  0.291  0.446  | 0.589  0.631  0.805
aff             | Aug_{A}                                          | 0.373  0.484  0.644  | 0.733  0.744  0.885
aff_rd          | Aug_{A,RD}                                       | 0.397  0.503  0.663  | 0.756  0.763  0.897
aff_gd          | Aug_{A,GD} (λ_{adv} = 1, λ_{big} = 10^{-3})      | 0.487∗ 0.560∗ 0.717∗ | 0.782∗ 0.791∗ 0.908∗
aff_gd_noreg    | Aug_{A,GD} (λ_{adv} = 0, λ_{big} = 0)            | 0.394  0.531∗ 0.694∗ | 0.756  0.776∗ 0.908∗
aff_ri          | Aug_{A,RI}                                       | 0.429  0.554  0.742  | 0.744  0.759  0.896
aff_gi          | Aug_{A,GI} (λ_{adv} = 1, λ_{big} = 10^{-3})      | 0.517† 0.579† 0.773† | 0.803† 0.791† 0.912
aff_gi_noreg    | Aug_{A,GI} (λ_{adv} = 0, λ_{big} = 0)            | 0.500† 0.583† 0.765† | 0.766† 0.748† 0.893
aff_gd_gi       | Aug_{A,GD,GI} (λ_{adv} = 1, λ_{big} = 10^{-3})   | 0.651⋆ 0.710⋆ 0.834⋆ | 0.832⋆ 0.823⋆ 0.922⋆
aff_mixup       | Aug_{A,Mixup}                                    | 0.581  0.599  0.774  | 0.818  0.791  0.915
aff_gd_gi_mixup | Aug_{A,GD,GI,Mixup}                              | 0.679  0.713  0.849  | 0.844  0.825  0.924
adv_sl          | Adv Tr SL                                        | 0.417  0.507  0.698  | 0.731  0.753  0.891
adv_ssl         | Adv Tr SSL                                       | 0.409  0.506  0.692  | 0.692  0.719  0.874
"""


class Row(NamedTuple):
    """One row of the printed table.

    Attributes:
      name: the method's printed name, subscripts in braces.
      dice: by N_L, the mean Dice by structure.
      marks: by N_L, the mark of significance by structure, "" for none.
    """

    name: str
    dice: Mapping[int, Mapping[str, float]]
    marks: Mapping[int, Mapping[str, str]]

    def mean(self, num_labelled: int) -> float:
        """The mean over structures, which the paper does not print."""
        return sum(self.dice[num_labelled].values()) / len(STRUCTURES)


def _row(line: str) -> tuple[str, Row]:
    method, name, *halves = (part.strip() for part in line.split("|"))
    cells = {n: dict(zip(STRUCTURES, half.split())) for n, half in zip(COUNTS, halves)}
    marks = "".join(MARKS.values())
    return method, Row(
        name,
        {n: {structure: float(text.rstrip(marks)) for structure, text in row.items()} for n, row in cells.items()},
        {n: {structure: text.lstrip("0123456789.") for structure, text in row.items()} for n, row in cells.items()},
    )


# By method, in the paper's order.
ROWS: Mapping[str, Row] = dict(map(_row, _PRINTED.strip().splitlines()))

# (method, reference): the paper prints the mark of `reference` on `method`.
COMPARISONS = (
    ("aff_gd", "aff_rd"),
    ("aff_gd_noreg", "aff_rd"),
    ("aff_gi", "aff_ri"),
    ("aff_gi_noreg", "aff_ri"),
    ("aff_gd_gi", "aff_mixup"),
)

# The test patients of the experiment on ACDC.
TEST_PATIENTS = frozenset(f"patient{group + n:03d}" for group in range(0, 100, 20) for n in (7, 8, 9, 10))
