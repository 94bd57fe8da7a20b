"""Volumes of structures, clinical indices of hearts, and the agreement of predicted values with the reference.

A volume is the sum over slices of a structure's area times the distance between slices (Simpson's rule for a stack of
slices), that is, its voxels times a voxel's volume. The spacing along Z is that between the centres of slices, and so
includes gaps.

For a heart whose end-diastole (ED) and end-systole (ES) are both segmented, the indices are those of the ACDC challenge
(Bernard et al., IEEE Transactions on Medical Imaging 37, 2018), with the formulas of the Society for Cardiovascular
Magnetic Resonance (Schulz-Menger et al., Journal of Cardiovascular Magnetic Resonance 15:35, 2013):

| index | unit | |
| --- | --- | --- |
| EDV, ESV | ml | volume of a ventricle's cavity at ED, at ES |
| SV | ml | stroke volume, EDV - ESV |
| EF | percent | ejection fraction, 100 (EDV - ESV) / EDV |
| mass_ED | g | volume of the myocardium at ED in ml times its density, 1.05 g/ml |

An empty mask has a volume of 0 ml, which counts like any other. Values that cannot be computed are NaN, and left out of
means: indices of a patient with a missing phase, and the ejection fraction for an EDV of 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from tfaug.types import Hearts

MYOCARDIAL_DENSITY = 1.05  # g/ml (Schulz-Menger et al., 2013)
WITHIN_95 = 1.96  # standard deviations; 95 % of a normal distribution lie within
SOURCES = ("predicted", "reference")


class Agreement(NamedTuple):
    """How predicted values agree with the reference's (Bland and Altman, Lancet 327, 1986).

    Attributes:
      number: number of pairs in which both are defined.
      bias: mean of prediction - reference; NaN without pairs.
      limits: half the distance between the 95 % limits of agreement, which are bias - limits and bias + limits: 1.96
        sample standard deviations of the differences; NaN for fewer than two pairs.
      correlation: Pearson's r; NaN for fewer than three pairs, or if one side does not vary.
    """

    number: int
    bias: float
    limits: float
    correlation: float


def volume_ml(mask: np.ndarray, structure: int, spacing: Sequence[float]) -> float:
    """The volume of one structure in ml.

    Args:
      mask: [X, Y, Z] integer mask.
      structure: the structure's class.
      spacing: mm per voxel along X, Y, Z.
    """
    return np.count_nonzero(mask == structure) * math.prod(map(float, spacing)) / 1000


def volumes(
    case: str, prediction: np.ndarray, reference: np.ndarray, classes: Mapping[str, int], spacing: Sequence[float]
) -> list[dict]:
    """The volume of each structure in two masks of a case.

    Args:
      case: its name.
      prediction: [X, Y, Z] integer mask.
      reference: the same.
      classes: the class of each structure, by name.
      spacing: mm per voxel along X, Y, Z.

    Returns:
      a row per structure: case, structure, and predicted and reference in ml.
    """
    masks = dict(zip(SOURCES, (prediction, reference)))
    return [
        {
            "case": case,
            "structure": structure,
            **{source: volume_ml(mask, index, spacing) for source, mask in masks.items()},
        }
        for structure, index in classes.items()
    ]


def compute(found: Sequence[dict], hearts: Hearts | None = None) -> pd.DataFrame:
    """The indices of all cases: those of hearts if there are any, else the volume of each structure.

    Args:
      found: rows of `volumes`.
      hearts: which structures and cases make up hearts, None if none do. A structure that the task lacks has no index.

    Returns:
      a row for each patient (else case) and index: patient (else case), name, such as "LV_EDV", structure, unit,
        predicted, reference.
    """
    table = pd.DataFrame(found)
    parts = [] if hearts is None else [hearts.lv, hearts.rv, hearts.myocardium]
    if not set(parts) & set(table.structure):
        named = table.assign(name=table.structure + "_volume", unit="ml")
        return named[["case", "name", "structure", "unit", *SOURCES]]
    volume = {(row.case, row.structure): (row.predicted, row.reference) for row in table.itertuples()}
    undefined = (math.nan, math.nan)
    rows = []
    for patient, phases in hearts.patients.items():
        for structure in (part for part in parts if part in set(table.structure)):
            ed, es = (np.array(volume.get((case, structure), undefined)) for case in phases)
            of_part = _of_myocardium(ed) if structure == hearts.myocardium else _of_ventricle(ed, es)
            for (name, unit), values in of_part.items():
                rows.append([patient, f"{structure}_{name}", structure, unit, *map(float, values)])
    return pd.DataFrame(rows, columns=["patient", "name", "structure", "unit", *SOURCES])


def _of_ventricle(ed: np.ndarray, es: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """Indices by name and unit from volumes in ml at ED and ES."""
    stroke = ed - es
    ejected = 100 * np.divide(stroke, ed, out=np.full_like(ed, np.nan), where=ed > 0)
    return {("EDV", "ml"): ed, ("ESV", "ml"): es, ("SV", "ml"): stroke, ("EF", "percent"): ejected}


def _of_myocardium(ed: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """The mass in g from volumes in ml at ED."""
    return {("mass_ED", "g"): MYOCARDIAL_DENSITY * ed}


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """The result of `compute`, one row per patient or case, with columns such as LV_EDV_predicted_ml."""
    subject = table.columns[0]
    columns: dict[str, dict] = {}
    for row in table.itertuples(index=False):
        for source in SOURCES:
            columns.setdefault(f"{row.name}_{source}_{row.unit}", {})[row[0]] = getattr(row, source)
    return pd.DataFrame(columns, index=table[subject].unique()).rename_axis(subject).reset_index()


def agreement(predicted: np.ndarray, reference: np.ndarray) -> Agreement:
    """Compares paired values, each [N] in one unit; pairs with a NaN are left out."""
    pairs = np.array([predicted, reference], float)
    predicted, reference = pairs[:, np.isfinite(pairs).all(axis=0)]
    differences, number = predicted - reference, predicted.size
    varies = number > 2 and np.ptp(predicted) > 0 and np.ptp(reference) > 0
    return Agreement(
        number,
        float(differences.mean()) if number else math.nan,
        float(WITHIN_95 * differences.std(ddof=1)) if number > 1 else math.nan,
        float(np.corrcoef(predicted, reference)[0, 1]) if varies else math.nan,
    )
