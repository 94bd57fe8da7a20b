"""Anatomy of the built-in cohort: what each disease changes, and the heart's outlines slice by slice.

Body frame, mm: origin between the ventricles, x towards the patient's left (right in a displayed slice), y
downwards; angles in radians from x towards y. Heights z are mm below the end-diastolic mitral plane.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from scipy import ndimage

NUM_ANGLES = 1440  # a quarter of a degree: 0.5 mm at the chest wall, 0.2 mm at the heart
ANGLES = np.arange(NUM_ANGLES) * (2 * np.pi / NUM_ANGLES)
MINIMUM_WALL = 4.5  # mm; thinner walls would leave gaps between the voxels of the myocardium
MINIMUM_RV_DEPTH = 4  # mm; a thinner sliver of RV is neither seen nor annotated


class Group(NamedTuple):
    """Mean and standard deviation of what a disease changes, for a heart of average size.

    Attributes:
      endo_radius: LV cavity radius at end-diastole, mm.
      wall: LV wall thickness at end-diastole, mm.
      septal_excess: the septum's wall thickness over the lateral wall's, minus 1.
      ejection: LV ejection fraction where the wall contracts.
      length: mitral plane to apex at end-diastole, mm.
      rv_depth: from the septum to the RV free wall at the base, mm.
      rv_ejection: fraction of the RV depth lost at end-systole.
      flattening: inward shift of the septum as a fraction of the LV radius.
    """

    endo_radius: tuple[float, float]
    wall: tuple[float, float]
    septal_excess: tuple[float, float]
    ejection: tuple[float, float]
    length: tuple[float, float]
    rv_depth: tuple[float, float]
    rv_ejection: tuple[float, float]
    flattening: tuple[float, float]


# In the order of ACDC's ids. The directions are ACDC's definitions of its groups (Bernard et al., IEEE TMI 2018).
GROUPS = {
    "DCM": Group((34, 3), (7.2, 0.8), (0, 0.1), (0.24, 0.07), (95, 6), (33, 5), (0.35, 0.08), (0.02, 0.04)),
    "HCM": Group((24.5, 2.2), (13.5, 2.2), (0.35, 0.2), (0.68, 0.06), (87, 6), (30, 4), (0.52, 0.07), (0, 0.04)),
    "MINF": Group((29.5, 2.6), (8.2, 1), (0, 0.1), (0.44, 0.07), (90, 6), (32, 4), (0.45, 0.07), (0, 0.04)),
    "NOR": Group((26, 2), (8.2, 0.9), (0.05, 0.1), (0.61, 0.05), (87, 6), (34, 4), (0.5, 0.06), (0, 0.04)),
    "RV": Group((24.5, 2.2), (8, 1), (0.05, 0.1), (0.57, 0.06), (85, 6), (48, 5), (0.25, 0.07), (0.14, 0.06)),
}


@dataclasses.dataclass(frozen=True)
class Heart:
    """One patient's heart; mm and radians. Attributes that `Group` has too are explained there.

    Attributes:
      size: the patient's size over the average.
      shortening: fraction of the length by which the mitral plane descends in systole.
      rv_breadth: half the RV's extent along the septum at the base.
      rv_wall: thickness of the RV free wall, which no label covers.
      rv_length: fraction of the LV's length at which the RV ends.
      rv_rise: how far the RV reaches above the mitral plane.
      septum: direction from the LV's centre to the septum.
      rv_skew: tilt of the RV against that direction.
      drift: [2], movement of the LV's centre from base to apex.
      scar: 0 where every segment contracts, towards 1 for a thin akinetic sector.
      scar_angle, scar_width: the sector's middle and half width.
      scar_start: fraction of the length from which on, towards the apex, the sector is akinetic.
      lv_harmonics, rv_harmonics: [K, 2] deviations of the outlines from circle and ellipse, see `harmonics`.
    """

    size: float
    endo_radius: float
    wall: float
    septal_excess: float
    ejection: float
    shortening: float
    length: float
    rv_depth: float
    rv_breadth: float
    rv_ejection: float
    rv_wall: float
    rv_length: float
    rv_rise: float
    flattening: float
    septum: float
    rv_skew: float
    drift: np.ndarray
    scar: float
    scar_angle: float
    scar_width: float
    scar_start: float
    lv_harmonics: np.ndarray
    rv_harmonics: np.ndarray

    @property
    def outer_radius(self) -> float:
        """Epicardial radius at the widest level, end-diastole."""
        return self.endo_radius + self.wall


def draw_heart(rng, group: str) -> Heart:
    """Draws a patient around the means of its group; the groups overlap."""
    row = GROUPS[group]

    def draw(mean_and_sd, low, high):
        return float(np.clip(rng.normal(*mean_and_sd), low, high))

    size = draw((1, 0.08), 0.84, 1.16)
    ejection = draw(row.ejection, 0.08, 0.8)
    return Heart(
        size=size,
        endo_radius=size * draw(row.endo_radius, 17, 40),
        wall=size * draw(row.wall, 5.5, 19),
        septal_excess=draw(row.septal_excess, -0.15, 0.8),
        ejection=ejection,
        shortening=0.03 + 0.18 * ejection * rng.uniform(0.8, 1.2),
        length=size * draw(row.length, 70, 108),
        rv_depth=size * draw(row.rv_depth, 20, 56),
        rv_breadth=size * draw((40 + 0.25 * (row.rv_depth[0] - 33), 3), 32, 48),
        rv_ejection=draw(row.rv_ejection, 0.05, 0.6),
        rv_wall=rng.uniform(1.8, 3.2),
        rv_length=rng.uniform(0.78, 0.95),
        rv_rise=rng.uniform(-3, 9),
        flattening=draw(row.flattening, -0.03, 0.28),
        septum=np.deg2rad(rng.normal(180, 14)),
        rv_skew=np.deg2rad(rng.normal(0, 12)),
        drift=rng.normal((6, 2), 6),
        scar=rng.uniform(0.8, 1.0) if group == "MINF" else 0.0,
        scar_angle=rng.uniform(0, 2 * np.pi),
        scar_width=np.deg2rad(rng.uniform(40, 65)),
        scar_start=rng.uniform(0.0, 0.45),
        lv_harmonics=draw_harmonics(rng, (0.035, 0.02, 0.01, 0.008)),
        rv_harmonics=draw_harmonics(rng, (0.06, 0.04, 0.015)),
    )


class Outline(NamedTuple):
    """A star-shaped outline in every slice: centre [Z, 2] in mm, radius [Z, NUM_ANGLES] in mm."""

    centre: np.ndarray
    radius: np.ndarray


def draw_harmonics(rng, amplitudes) -> np.ndarray:
    """[K, 2] cosine and sine coefficients for `harmonics`, of the given standard deviations."""
    return rng.standard_normal((len(amplitudes), 2)) * np.asarray(amplitudes)[:, None]


def harmonics(coefficients) -> np.ndarray:
    """[NUM_ANGLES] sum of 2, 3, ... waves around the circle; one wave would only move an outline."""
    waves = 2 + np.arange(len(coefficients))[:, None]
    cosine, sine = coefficients[:, :1], coefficients[:, 1:]
    return (cosine * np.cos(waves * ANGLES) + sine * np.sin(waves * ANGLES)).sum(axis=0)


def ellipse(centre, semi_axes, angle, deviation) -> Outline:
    """Ellipses with an uneven edge.

    Args:
      centre: [Z, 2] mm.
      semi_axes: along `angle` and across it, mm, each a number or [Z].
      angle: direction of the first semi-axis.
      deviation: coefficients for `harmonics`, fractions of the radius.
    """
    first, second = (np.broadcast_to(axis, len(centre))[:, None] for axis in semi_axes)
    delta = ANGLES - angle
    radius = first * second / np.hypot(second * np.cos(delta), first * np.sin(delta))
    return Outline(centre, radius * (1 + harmonics(deviation)))


def direction(angle) -> np.ndarray:
    """[2] unit vector."""
    return np.array([np.cos(angle), np.sin(angle)])


def radius_at(radius, angle) -> np.ndarray:
    """[Z] radii of a [Z, NUM_ANGLES] outline in one direction."""
    return radius[:, int(round(angle / ANGLES[1])) % NUM_ANGLES]


class Ventricles(NamedTuple):
    """The ventricles of one phase.

    Attributes:
      depth: [Z] fractions of the present length, 0 at the mitral plane and 1 at the apex.
      centre: [Z, 2] centre of the LV.
      endo, epi: [Z, NUM_ANGLES] radii of the LV's inner and outer border.
      rv: the RV cavity's outline; where the LV overlaps it, the septum is the LV's.
      lv_share, rv_share: [Z] share of the slice's thickness that holds each ventricle.
    """

    depth: np.ndarray
    centre: np.ndarray
    endo: np.ndarray
    epi: np.ndarray
    rv: Outline
    lv_share: np.ndarray
    rv_share: np.ndarray


def ventricles(heart: Heart, z, thickness: float, systole: bool) -> Ventricles:
    """The ventricles in slices at heights `z`, at end-diastole or at end-systole.

    In systole the mitral plane descends, the endocardium moves inwards except in a scar, and the epicardium follows
    so that the muscle keeps its volume.
    """
    base = heart.shortening * heart.length if systole else 0.0
    depth = (z - base) / (heart.length - base)
    s = np.clip(depth, 0, 1)[:, None]
    scar = _scar(heart, s)

    septal = np.clip(np.cos(ANGLES - heart.septum), 0, 1) ** 2
    profile = np.sqrt(1 - s**2.4) * (1 - 0.1 * np.clip(1 - s / 0.35, 0, 1) ** 2)
    shape = 1 + harmonics(heart.lv_harmonics) - heart.flattening * septal * (1 - s)
    epi = heart.outer_radius * profile * shape
    wall = heart.wall * (1 + heart.septal_excess * (septal - 0.3)) * (1 - 0.25 * s**2) * (1 - 0.4 * scar)
    endo = np.maximum(epi - np.maximum(wall, MINIMUM_WALL), 0)
    rv_depth, rv_breadth = heart.rv_depth, heart.rv_breadth
    if systole:
        muscle = (epi**2 - endo**2) / (1 - heart.shortening)
        squeeze = 1 - np.sqrt((1 - heart.ejection) / (1 - heart.shortening))
        endo = endo * (1 - squeeze * (1 - scar))
        epi = np.sqrt(endo**2 + muscle)
        rv_depth = rv_depth * (1 - heart.rv_ejection)
        rv_breadth = rv_breadth * (1 - 0.25 * heart.rv_ejection)

    toward_septum = direction(heart.septum)
    centre = -0.5 * heart.rv_depth * toward_septum + (depth[:, None] - 0.4) * heart.drift
    rv_profile = np.clip(1 - (s[:, 0] / heart.rv_length) ** 1.8, 1e-3, 1) ** 0.7
    septal_radius = radius_at(epi, heart.septum)
    # The ellipse reaches behind the septum far enough that the LV cuts a crescent out of it.
    across = 0.5 * (rv_depth * rv_profile + 0.6 * septal_radius)
    rv_centre = centre + (septal_radius + rv_depth * rv_profile - across)[:, None] * toward_septum
    along = rv_breadth * np.sqrt(rv_profile)
    rv = ellipse(rv_centre, (across, along), heart.septum + heart.rv_skew, heart.rv_harmonics)
    lv_share = np.clip((z - base) / thickness + 0.5, 0, 1)
    rv_share = np.clip((z - base + heart.rv_rise) / thickness + 0.5, 0, 1)
    return Ventricles(depth, centre, endo, epi, rv, lv_share, rv_share * (rv_depth * rv_profile > MINIMUM_RV_DEPTH))


def _scar(heart, s):
    """[Z, NUM_ANGLES] how far each point of the wall is from contracting, 0..1."""
    from_middle = np.angle(np.exp(1j * (ANGLES - heart.scar_angle)))
    sector = np.exp(-((from_middle / heart.scar_width) ** 4))
    return heart.scar * sector / (1 + np.exp(-(s - heart.scar_start) / 0.06))


def draw_trabeculae(rng, amplitude: float, depth) -> np.ndarray:
    """[Z, NUM_ANGLES] mm by which ridges of muscle reach into the LV cavity, more towards the apex."""
    ridges = ndimage.gaussian_filter(rng.standard_normal((len(depth), NUM_ANGLES)), (0.4, 28), mode=("nearest", "wrap"))
    ridges /= ridges.std()
    return amplitude * np.clip(0.5 + depth, 0.3, 1.5)[:, None] * np.minimum(ridges**2, 4)


class Chamber(NamedTuple):
    """An atrium or a great vessel above the mitral plane.

    Attributes:
      offset: [2] mm from the LV's centre.
      semi_axes, angle, deviation: as for `ellipse`.
      brightness: signal over that of the LV's blood.
      on_rv: lies where the RV is in slices that still hold it.
    """

    offset: np.ndarray
    semi_axes: tuple[float, float]
    angle: float
    deviation: np.ndarray
    brightness: float
    on_rv: bool


def draw_chambers(rng, heart: Heart) -> list[Chamber]:
    """What a slice above the mitral plane shows instead of the ventricles."""
    scale = heart.endo_radius / 26
    turn = heart.septum - np.pi
    rotation = np.stack([direction(turn), direction(turn + np.pi / 2)])
    chambers = []
    for x, y, first, second, on_rv in (
        (-48, 26, 27, 20, True),  # right atrium
        (6, 12, 25, 21, False),  # left atrium
        (-36, -30, 15, 13, True),  # pulmonary trunk
        (20, -18, 13, 9, False),  # left atrial appendage
        (-16, -8, 14, 13, False),  # aortic root
    ):
        offset = scale * np.array([x, y]) + rng.normal(0, 3, 2)
        semi_axes = scale * np.array([first, second]) * rng.uniform(0.85, 1.15, 2)
        deviation = draw_harmonics(rng, (0.04, 0.04, 0.04))
        angle = turn + rng.uniform(-0.4, 0.4)
        chambers.append(Chamber(offset @ rotation, tuple(semi_axes), angle, deviation, rng.uniform(0.8, 1.08), on_rv))
    return chambers
