"""The built-in cohort: 100 simulated patients in ACDC's folder layout, so that tfaug runs without any data.

Every patient is a short-axis cine stack at end-diastole and end-systole with expert-like masks. Anatomy is
drawn per patient around its group's mean (`GROUPS`), painted in a body frame that is deformed, rotated and
shifted, and turned into a magnetic-resonance image of its own contrast; `docs/phantom.md` says what is
modelled and what is not.

The body frame has its origin between the ventricles, x towards the patient's left (right in a displayed
slice) and y downwards, in mm. Heights along the long axis, z, are mm below the end-diastolic mitral plane.
"""
from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import multiprocessing
import pathlib
import sys
import tempfile
from collections.abc import Iterable
from typing import NamedTuple

import nibabel as nib
import numpy as np
import tqdm
from scipy import ndimage

from tfaug import errors, streams

NUM_ANGLES = 1440  # a quarter of a degree: 0.7 mm at the chest wall, 0.2 mm at the heart
ANGLES = np.arange(NUM_ANGLES) * (2 * np.pi / NUM_ANGLES)


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


# The directions are the definitions of ACDC's groups (Bernard et al., IEEE TMI 2018, section II-B).
GROUPS = {
    "DCM": Group((33, 3), (7.2, 0.8), (0, 0.1), (0.24, 0.07), (95, 6), (28, 5), (0.25, 0.08), (0.02, 0.04)),
    "HCM": Group((22, 2.2), (13.5, 2.2), (0.35, 0.2), (0.68, 0.06), (86, 6), (24, 4), (0.4, 0.07), (0, 0.04)),
    "MINF": Group((28, 2.6), (8.2, 1), (0, 0.1), (0.44, 0.07), (89, 6), (26, 4), (0.35, 0.07), (0, 0.04)),
    "NOR": Group((24, 2), (8.2, 0.9), (0.05, 0.1), (0.61, 0.05), (85, 6), (28, 4), (0.38, 0.06), (0, 0.04)),
    "RV": Group((22.5, 2.2), (8, 1), (0.05, 0.1), (0.57, 0.06), (84, 6), (42, 5), (0.2, 0.07), (0.14, 0.06)),
}


class Phase(NamedTuple):
    """One cardiac phase: image [X, Y, Z] int16 and mask [X, Y, Z] uint8 (0 background, 1 RV, 2 Myo, 3 LV)."""

    image: np.ndarray
    mask: np.ndarray


class Patient(NamedTuple):
    """End-diastole and end-systole, mm per voxel along X, Y, Z, and the lines of Info.cfg."""

    ed: Phase
    es: Phase
    spacing: tuple[float, float, float]
    info: dict


@dataclasses.dataclass(frozen=True)
class Heart:
    """One patient's heart; mm, angles in radians in the body frame."""

    endo_radius: float
    wall: float
    septal_excess: float
    ejection: float
    shortening: float  # fraction of the length by which the mitral plane descends in systole
    length: float
    rv_depth: float
    rv_breadth: float
    rv_ejection: float
    rv_wall: float
    rv_length: float  # fraction of the LV's length at which the RV ends
    rv_rise: float  # how far the RV reaches above the mitral plane
    flattening: float
    septum: float  # direction from the LV centre to the septum
    skew: float  # tilt of the RV against the septum's direction
    tilt: np.ndarray  # [2], drift of the LV centre from base to apex
    scar: float  # 0 where every segment contracts, 1 for an akinetic sector
    scar_angle: float
    scar_width: float
    scar_start: float  # in fractions of the length
    harmonics: np.ndarray  # [4, 2] cosine and sine coefficients of the outline for 2..5 waves, fractions


def group_of(number: int) -> str:
    """ACDC's group of patient `number` (1..100): DCM, HCM, MINF, NOR or RV, twenty each."""
    return list(GROUPS)[(number - 1) // 20]


def patient(seed: int, number: int) -> Patient:
    """Makes patient `number` (1..100) of the cohort `seed`, whoever else is made."""
    rng = streams.generator(seed, "phantom", number)
    group = group_of(number)
    heart, size = _draw_heart(rng, group)
    grid = _draw_grid(rng, heart)
    scene = _Scene(rng, heart, grid)
    ed, es = scene.phase(rng, systole=False), scene.phase(rng, systole=True)
    frames = int(rng.integers(24, 36))
    height = 171 + 60 * (size - 1) + 6 * rng.standard_normal()
    weight = np.clip(25 + 4 * rng.standard_normal(), 18, 38) * (height / 100) ** 2
    info = {
        "ED": 1,
        "ES": int(round(frames * rng.uniform(0.3, 0.42))),
        "Group": group,
        "Height": round(height, 1),
        "NbFrame": frames,
        "Weight": round(weight, 1),
    }
    return Patient(ed, es, grid.spacing, info)


def _draw_heart(rng, group):
    row = GROUPS[group]
    size = np.clip(1 + 0.08 * rng.standard_normal(), 0.84, 1.16)

    def draw(mean_sd, low, high):
        return float(np.clip(mean_sd[0] + mean_sd[1] * rng.standard_normal(), low, high))

    ejection = draw(row.ejection, 0.08, 0.8)
    heart = Heart(
        endo_radius=size * draw(row.endo_radius, 17, 39),
        wall=size * draw(row.wall, 5.5, 19),
        septal_excess=draw(row.septal_excess, -0.15, 0.8),
        ejection=ejection,
        shortening=0.03 + 0.18 * ejection * rng.uniform(0.8, 1.2),
        length=size * draw(row.length, 70, 108),
        rv_depth=size * draw(row.rv_depth, 16, 50),
        rv_breadth=size * draw((38 + 0.2 * (row.rv_depth[0] - 28), 3), 30, 46),
        rv_ejection=draw(row.rv_ejection, 0.05, 0.6),
        rv_wall=rng.uniform(2.2, 4.0),
        rv_length=rng.uniform(0.78, 0.95),
        rv_rise=rng.uniform(-3, 9),
        flattening=draw(row.flattening, -0.03, 0.28),
        septum=np.deg2rad(180 + 14 * rng.standard_normal()),
        skew=np.deg2rad(12 * rng.standard_normal()),
        tilt=np.array([6.0, 2.0]) + 6 * rng.standard_normal(2),
        scar=rng.uniform(0.8, 1.0) if group == "MINF" else 0.0,
        scar_angle=rng.uniform(0, 2 * np.pi),
        scar_width=np.deg2rad(rng.uniform(40, 65)),
        scar_start=rng.uniform(0.0, 0.45),
        harmonics=rng.standard_normal((4, 2)) * np.array([0.035, 0.02, 0.01, 0.008])[:, None],
    )
    return heart, size


class Grid(NamedTuple):
    """Where the voxels lie: shape, mm per voxel, body-frame coordinates [X, Y, Z] and slice heights [Z]."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray


def _draw_grid(rng, heart):
    """Field of view, slices, scan rotation, position, breath-hold shifts and the smooth deformation."""
    in_plane = round(rng.uniform(1.2, 1.9), 4)
    fov = rng.uniform(210, 260)
    extent = np.array([fov, max(200, fov * rng.uniform(0.8, 1.0))])[rng.permutation(2)]
    needed = heart.length + rng.uniform(2, 14)
    num_slices = int(rng.choice(np.arange(6, 13), p=[0.04, 0.08, 0.16, 0.22, 0.22, 0.16, 0.12]))
    thickness = round(float(np.clip(needed / num_slices, 5, 10)), 1)
    shape = (*np.rint(extent / in_plane).astype(int).tolist(), num_slices)
    # What the slices cannot cover is missing at the base or the apex, in part at each.
    missing = needed - num_slices * thickness
    z = thickness * (np.arange(num_slices) + 0.5) - (needed - heart.length) + missing * rng.uniform(0.3, 0.8)

    position = np.clip(9 * rng.standard_normal(2), -18, 18)
    shift = np.clip(1.5 * rng.standard_normal((num_slices, 2)), -4, 4)
    a = np.arange(shape[0], dtype=np.float32)[:, None, None] - (shape[0] - 1) / 2
    b = np.arange(shape[1], dtype=np.float32)[None, :, None] - (shape[1] - 1) / 2
    a = a * in_plane - position[0] - shift[:, 0]
    b = b * in_plane - position[1] - shift[:, 1]
    angle = np.deg2rad(22 * rng.standard_normal())
    x = np.cos(angle) * a + np.sin(angle) * b
    y = np.cos(angle) * b - np.sin(angle) * a
    spacing = (in_plane, in_plane, thickness)
    x = x + 3.0 * _smooth_noise(rng, shape, spacing, 40)
    y = y + 3.0 * _smooth_noise(rng, shape, spacing, 40)
    return Grid(shape, spacing, x.astype(np.float32), y.astype(np.float32), z)


def _smooth_noise(rng, shape, spacing, length):
    """[X, Y, Z] float32 noise of standard deviation 1 that varies over `length` mm: blurred nodes, separably."""
    bases = []
    for n, mm in zip(shape, spacing):
        position = (np.arange(n) - (n - 1) / 2) * mm
        reach = position[-1] + 2 * length
        nodes = np.arange(-reach, reach + length, length)
        basis = np.exp(-0.5 * ((position[:, None] - nodes) / (0.7 * length)) ** 2)
        bases.append(basis / np.sqrt((basis**2).sum(axis=1, keepdims=True)))
    nodes = rng.standard_normal([b.shape[1] for b in bases])
    return np.einsum("ia,jb,kc,abc->ijk", *bases, nodes, optimize="optimal").astype(np.float32)


def _fine_noise(rng, shape, sigma):
    """[X, Y, Z] float32 noise of standard deviation 1, blurred by `sigma` voxels."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, truncate=3)
    return noise / noise.std()


class Outline(NamedTuple):
    """A star-shaped outline in every slice: centre [Z, 2] in mm, radius [Z, NUM_ANGLES] in mm."""

    centre: np.ndarray
    radius: np.ndarray


def _ellipse(centre, semi_axes, angle, num_slices, bumps=None):
    """An `Outline` of one ellipse or one per slice: semi-axes (along `angle`, across it), mm."""
    first, second = (np.broadcast_to(np.maximum(s, 1e-3), num_slices)[:, None] for s in semi_axes)
    delta = ANGLES[None, :] - angle
    radius = first * second / np.sqrt((second * np.cos(delta)) ** 2 + (first * np.sin(delta)) ** 2)
    if bumps is not None:
        radius = radius * (1 + bumps)
    return Outline(np.broadcast_to(np.asarray(centre, float), (num_slices, 2)), radius)


def _harmonics(coefficients, first=2):
    """[NUM_ANGLES] sum of cosines and sines of `first`, `first` + 1, ... waves around the circle."""
    waves = first + np.arange(len(coefficients))[:, None]
    c, s = coefficients[:, :1], coefficients[:, 1:]
    return (c * np.cos(waves * ANGLES) + s * np.sin(waves * ANGLES)).sum(axis=0)


def _distances(grid, centre, *radii):
    """Signed distance in mm to outlines around one centre: negative inside. To first order in the slope."""
    dx = grid.x - centre[:, 0].astype(np.float32)
    dy = grid.y - centre[:, 1].astype(np.float32)
    distance = np.sqrt(dx**2 + dy**2)
    index = np.rint(np.arctan2(dy, dx) * np.float32(NUM_ANGLES / (2 * np.pi))).astype(np.int32) % NUM_ANGLES
    index += NUM_ANGLES * np.arange(grid.shape[2], dtype=np.int32)
    results = []
    for radius in radii:
        slope = np.gradient(radius, ANGLES[1], axis=1) / np.maximum(radius, 1)
        cosine = (1 / np.sqrt(1 + slope**2)).astype(np.float32)
        results.append((distance - radius.astype(np.float32).ravel()[index]) * cosine.ravel()[index])
    return results if len(results) > 1 else results[0]


def _cover(distance, width):
    """Share of each voxel that lies inside, for an edge blurred over `width` mm (a number or one per slice)."""
    return np.clip(0.5 - distance / np.asarray(width, np.float32), 0, 1)


def _paint(image, share, level):
    image += share * (level - image)


class Ventricles(NamedTuple):
    """The ventricles of one phase, slice by slice."""

    depth: np.ndarray  # [Z], 0 at the mitral plane, 1 at the apex
    centre: np.ndarray
    endo: np.ndarray
    epi: np.ndarray
    rv: Outline
    lv_share: np.ndarray  # [Z], how much of the slice lies below the mitral plane
    rv_share: np.ndarray


def _ventricles(heart, grid, systole):
    """Outlines at end-diastole, or at end-systole: endocardium inward, wall volume kept, base descended."""
    z, thickness = grid.z, grid.spacing[2]
    base = heart.shortening * heart.length if systole else 0.0
    depth = (z - base) / (heart.length - base)
    s = np.clip(depth, 0, 1)[:, None]
    toward_septum = np.cos(ANGLES - heart.septum)[None, :]

    scar_distance = np.abs(np.angle(np.exp(1j * (ANGLES - heart.scar_angle))))[None, :]
    scar = heart.scar * np.exp(-((scar_distance / heart.scar_width) ** 4))
    scar = scar / (1 + np.exp(-(s - heart.scar_start) / 0.06))

    outer = heart.endo_radius + heart.wall
    profile = np.sqrt(1 - s**2.4) * (1 - 0.1 * np.clip(1 - s / 0.35, 0, 1) ** 2)
    septal = np.clip(toward_septum, 0, 1) ** 2
    epi = outer * profile * (1 + _harmonics(heart.harmonics) - heart.flattening * septal * (1 - s))
    wall = heart.wall * (1 + heart.septal_excess * (septal - 0.3)) * (1 - 0.25 * s**2) * (1 - 0.4 * scar)
    wall = np.maximum(wall, 4.5)
    endo = np.maximum(epi - wall, 0)
    rv_depth, rv_breadth = heart.rv_depth, heart.rv_breadth
    if systole:
        squeeze = np.sqrt((1 - heart.ejection) / (1 - heart.shortening))
        wall_area = (epi**2 - endo**2) / (1 - heart.shortening)
        endo = endo * (1 - (1 - squeeze) * (1 - scar))
        epi = np.sqrt(endo**2 + wall_area)
        rv_depth = rv_depth * (1 - heart.rv_ejection)
        rv_breadth = rv_breadth * (1 - 0.25 * heart.rv_ejection)

    centre = -0.5 * heart.rv_depth * _direction(heart.septum) + (depth[:, None] - 0.4) * heart.tilt
    rv_profile = np.clip(1 - (s[:, 0] / heart.rv_length) ** 1.8, 0, 1) ** 0.7
    septal_epi = epi[:, int(round(heart.septum / ANGLES[1])) % NUM_ANGLES]
    free_wall = septal_epi + rv_depth * rv_profile
    radial = 0.5 * (rv_depth * rv_profile + 0.6 * septal_epi)
    rv = _ellipse(
        centre + _direction(heart.septum) * (free_wall - radial)[:, None],
        (radial, rv_breadth * np.maximum(rv_profile, 1e-3) ** 0.5),
        heart.septum + heart.skew,
        len(z),
        _harmonics(heart.harmonics[::-1] * 1.5),
    )
    lv_share = np.clip((z - base) / thickness + 0.5, 0, 1)
    rv_share = np.clip((z - base + heart.rv_rise) / thickness + 0.5, 0, 1) * (rv_profile > 0)
    return Ventricles(depth, centre, endo, epi, rv, lv_share, rv_share)


def _direction(angle):
    return np.array([np.cos(angle), np.sin(angle)])


class _Scene:
    """What the two phases of one patient share: the chest, tissue levels, textures and the scanner."""

    def __init__(self, rng, heart, grid):
        self.heart, self.grid = heart, grid
        self.levels = _draw_levels(rng)
        self.texture = _fine_noise(rng, grid.shape, (1.2, 1.2, 0.3))
        self.mottle = _smooth_noise(rng, grid.shape, grid.spacing, 11)
        self.bias = _draw_bias(rng, grid)
        self.chest = self._paint_chest(rng)
        self.fat_depth = 2.5 * rng.uniform(0.3, 1.6) + 2.5 * self.mottle
        self.papillary = heart.septum + np.pi + np.deg2rad([-50, 50] + 10 * rng.standard_normal(2))
        self.papillary_radius = rng.uniform(3.0, 5.5, 2)
        self.trabeculae = rng.uniform(0.5, 2.2)
        self.atria = _draw_atria(rng, heart)
        self.blur = rng.uniform(0.25, 0.65)
        self.gamma = rng.uniform(0.8, 1.25)
        self.noise = rng.uniform(0.012, 0.035)
        self.scale = rng.uniform(250, 1200)

    def _paint_chest(self, rng):
        grid, levels, heart = self.grid, self.levels, self.heart
        n, pixel = grid.shape[2], grid.spacing[0]
        depth = np.clip(grid.z / heart.length, -0.2, 1.1)
        outer = heart.endo_radius + heart.wall

        # The apex lies against the chest wall, so the wall comes closer from base to apex.
        reach = rng.uniform(20, 45)
        left_edge = -(0.5 * heart.rv_depth + outer) - 12 - reach * (1 - depth) * 0.7
        half_width = rng.uniform(115, 140)
        body = _ellipse(
            np.stack([left_edge + half_width + 14, np.full(n, rng.uniform(-15, 25))], axis=1),
            (half_width, rng.uniform(125, 160)),
            np.deg2rad(rng.uniform(-25, 25)),
            n,
            _harmonics(rng.standard_normal((3, 2)) * 0.02, first=3),
        )
        inside = _distances(grid, body.centre, body.radius)
        fat = rng.uniform(6, 26) + 3 * self.mottle
        muscle = rng.uniform(8, 14)
        image = np.full(grid.shape, 0.01, np.float32)
        _paint(image, _cover(inside - fat - 2, pixel), levels["fat"])
        _paint(image, _cover(inside, pixel), levels["muscle"])
        ribs = np.sin(rng.uniform(9, 14) * np.arctan2(grid.y, grid.x + 40) + grid.z / 12 + rng.uniform(0, 6))
        _paint(image, _cover(np.abs(inside + muscle / 2) - 3, 2) * _cover(-ribs + 0.3, 0.4), levels["rib"])
        cavity = _cover(inside + muscle, pixel)
        _paint(image, cavity, levels["lung"])
        vessels = _fine_noise(rng, grid.shape, (3.2 / pixel, 3.2 / pixel, 0.6))
        threshold = rng.uniform(1.7, 2.3)
        _paint(image, cavity * np.clip(2 * (vessels - threshold), 0, 1), 0.9 * levels["blood"])
        self._paint_abdomen(rng, image, cavity, depth, outer)

        aorta = _ellipse(
            np.array([rng.uniform(38, 52), rng.uniform(38, 55)]) + np.outer(depth, [4, 14]),
            (rng.uniform(10, 14), rng.uniform(13, 26)),
            np.deg2rad(rng.uniform(0, 50)),
            n,
        )
        distance = _distances(grid, aorta.centre, aorta.radius)
        present = np.clip((rng.uniform(0.3, 0.8) - depth) * heart.length / grid.spacing[2], 0, 1)
        _paint(image, present * _cover(distance - 2, pixel), levels["muscle"])
        _paint(image, present * _cover(distance, pixel), levels["blood"] * rng.uniform(0.8, 1.1))
        return image

    def _paint_abdomen(self, rng, image, cavity, depth, outer):
        grid, levels = self.grid, self.levels
        n, pixel = grid.shape[2], grid.spacing[0]
        top = outer + rng.uniform(4, 16) - rng.uniform(0.2, 0.7) * outer * depth
        slope = rng.uniform(-0.25, 0.25)
        dome = rng.uniform(0, 25) * np.exp(-(((grid.x - rng.uniform(-60, 60)) / 50) ** 2))
        below = top + slope * grid.x - dome - grid.y + 4 * self.mottle
        abdomen = cavity * _cover(below, 1.5 * pixel)
        _paint(image, abdomen, levels["fat"] * rng.uniform(0.7, 1.0))
        bowel = np.clip(1.5 * (self.mottle + 0.2 + 0.5 * self.texture * 0.3), 0, 1)
        _paint(image, abdomen * bowel * np.clip(depth, 0, 1), levels["muscle"])
        organs = [
            ("liver", (-45 + 15 * rng.standard_normal(), 95), (rng.uniform(60, 85), rng.uniform(42, 60)), depth < 9),
            ("stomach", (55 + 12 * rng.standard_normal(), 75), (rng.uniform(18, 32), rng.uniform(14, 24)), depth > 0.2),
            ("spleen", (85 + 10 * rng.standard_normal(), 85), (rng.uniform(22, 34), rng.uniform(15, 22)), depth < 0.8),
        ]
        for name, centre, semi_axes, present in organs:
            bumps = _harmonics(rng.standard_normal((4, 2)) * 0.05)
            centre = np.asarray(centre) + np.outer(depth, [-4, -18])
            organ = _ellipse(centre, semi_axes, rng.uniform(0, np.pi), n, bumps)
            share = _cover(_distances(grid, organ.centre, organ.radius), 1.5 * pixel)
            _paint(image, abdomen * share * present, levels[name])
        # The diaphragm itself: a dark line between lung and abdomen.
        _paint(image, cavity * 0.8 * _cover(np.abs(below) - 1, 1.5 * pixel), levels["muscle"])

    def phase(self, rng, systole):
        """Paints the heart into the chest, labels it, and images both."""
        heart, grid, levels = self.heart, self.grid, self.levels
        pixel, thickness = grid.spacing[0], grid.spacing[2]
        shape = _ventricles(heart, grid, systole)
        trabeculae = _trabeculae(rng, grid, self.trabeculae, shape.depth)
        seen = np.maximum(shape.endo - trabeculae, 0.6 * shape.endo)
        to_epi, to_endo, to_seen = _distances(grid, shape.centre, shape.epi, shape.endo, seen)
        to_rv = _distances(grid, shape.rv.centre, shape.rv.radius)
        image = self.chest.copy()

        lv, rv = shape.lv_share.astype(np.float32), shape.rv_share.astype(np.float32)
        edge = self._edge_width(shape.epi)
        far = np.float32(1e3)
        to_heart = np.minimum(to_epi, np.where(rv > 0, to_rv - heart.rv_wall, far))
        _paint(image, _cover(to_heart - np.clip(self.fat_depth, 0, 9) - 1.2, 1.5 * pixel), levels["muscle"])
        _paint(image, _cover(to_heart - np.clip(self.fat_depth, 0, 9), 1.5 * pixel), levels["fat"])

        for atrium in self.atria:
            self._paint_atrium(image, atrium, shape.centre, (1 - lv) * (1 - rv * atrium.on_rv))
        _paint(image, rv * _cover(to_rv - heart.rv_wall, edge), levels["myocardium"])
        _paint(image, rv * _cover(to_rv, edge), levels["rv_blood"])
        coarse = np.clip(self.mottle + 0.4 * self.texture - 0.9, 0, 1) * np.clip(shape.depth + 0.2, 0, 1)
        _paint(image, rv * _cover(to_rv, edge) * 0.6 * coarse, levels["myocardium"])
        _paint(image, lv * _cover(to_epi, edge), levels["myocardium"])
        blood = lv * _cover(to_seen, self._edge_width(shape.endo))
        _paint(image, blood, levels["blood"])
        self._paint_papillary(image, blood, shape, thickness)

        mask = np.zeros(grid.shape, np.uint8)
        mask[(to_rv < 0) & (rv > 0.5)] = 1
        mask[(to_epi < 0) & (lv > 0.5)] = 2
        mask[(to_endo < 0) & (lv > 0.5)] = 3
        return Phase(self._scan(rng, image), mask)

    def _edge_width(self, radius):
        """[Z] mm over which an edge blurs: a pixel, and what the outline moves through the slice's thickness."""
        pixel = self.grid.spacing[0]
        through = np.abs(np.gradient(radius.mean(axis=1)))
        return np.sqrt(pixel**2 + np.minimum(through, 7) ** 2)

    def _paint_atrium(self, image, atrium, centre, share):
        if not share.any():
            return
        outline = _ellipse(centre + atrium.offset, atrium.semi_axes, atrium.angle, len(share), atrium.bumps)
        distance = _distances(self.grid, outline.centre, outline.radius)
        pixel = self.grid.spacing[0]
        _paint(image, share * _cover(distance - 4, 2 * pixel), 0.5 * (self.levels["fat"] + self.levels["muscle"]))
        _paint(image, share * _cover(distance - 1.5, pixel), self.levels["muscle"])
        _paint(image, share * _cover(distance, pixel), self.levels["blood"] * atrium.brightness)

    def _paint_papillary(self, image, blood, shape, thickness):
        present = np.clip(8 * np.minimum(shape.depth - 0.22, 0.82 - shape.depth), 0, 1)
        for angle, radius in zip(self.papillary, self.papillary_radius):
            cavity = shape.endo[:, int(round(angle / ANGLES[1])) % NUM_ANGLES]
            away = np.maximum(cavity - 1.1 * radius, 0.45 * cavity)
            centre = shape.centre + away[:, None] * _direction(angle)
            dx, dy = self.grid.x - centre[:, 0], self.grid.y - centre[:, 1]
            distance = np.sqrt(dx**2 + dy**2) - radius * (0.8 + 0.25 * self.mottle)
            share = blood * present * 0.85 * _cover(distance, 2 * self.grid.spacing[0])
            _paint(image, share.astype(np.float32), self.levels["myocardium"])

    def _scan(self, rng, image):
        """Texture, blur, gamma, bias field, Rician noise and the scanner's arbitrary units, as int16."""
        image = image * (1 + 0.05 * self.texture + 0.04 * self.mottle)
        image = ndimage.gaussian_filter(np.maximum(image, 0), (self.blur, self.blur, 0), truncate=3)
        image = image**self.gamma * self.bias
        real, imaginary = self.noise * rng.standard_normal((2, *image.shape), dtype=np.float32)
        return np.clip(self.scale * np.hypot(image + real, imaginary), 0, 32767).astype(np.int16)


def _trabeculae(rng, grid, amplitude, depth):
    """[Z, NUM_ANGLES] mm by which ridges of muscle reach into the LV cavity, more towards the apex."""
    ridges = ndimage.gaussian_filter(rng.standard_normal((len(depth), NUM_ANGLES)), (0.4, 22), mode="wrap")
    ridges /= ridges.std()
    return amplitude * np.clip(0.5 + depth, 0.3, 1.5)[:, None] * np.abs(ridges)


def _draw_levels(rng):
    """Signal of each tissue before gamma and bias; blood is the reference."""

    def level(mean, spread):
        return float(mean * np.exp(spread * np.clip(rng.standard_normal(), -2, 2)))

    blood = level(0.8, 0.12)
    return {
        "blood": blood,
        "rv_blood": blood * level(0.92, 0.08),
        "myocardium": blood * level(0.36, 0.18),
        "muscle": blood * level(0.28, 0.2),
        "fat": blood * level(1.0, 0.22),
        "rib": blood * level(0.5, 0.4),
        "lung": blood * level(0.06, 0.4),
        "liver": blood * level(0.4, 0.3),
        "spleen": blood * level(0.5, 0.3),
        "stomach": blood * level(0.6, 0.45),
    }


def _draw_bias(rng, grid):
    """Coil sensitivity [X, Y, Z]: falls off from a surface coil on the chest, with smooth variation."""
    coil = np.array([-110, -40]) + 25 * rng.standard_normal(2)
    reach = rng.uniform(130, 260)
    falloff = 1 / (1 + ((grid.x - coil[0]) ** 2 + (grid.y - coil[1]) ** 2) / reach**2)
    ripple = 0.15 * _smooth_noise(rng, grid.shape, grid.spacing, 90)
    bias = falloff * np.exp(ripple)
    return (bias / bias.mean()).astype(np.float32)


class Atrium(NamedTuple):
    """A vessel or atrium above the mitral plane; mm from the LV's centre."""

    offset: np.ndarray
    semi_axes: tuple[float, float]
    angle: float
    bumps: np.ndarray
    brightness: float
    on_rv: bool  # lies where the RV is in slices that reach it


def _draw_atria(rng, heart):
    size = heart.endo_radius / 26
    turn = heart.septum - np.pi
    rotate = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    atria = []
    for x, y, first, second, on_rv in [
        (-48, 26, 27, 20, True),  # right atrium
        (6, 12, 25, 21, False),  # left atrium
        (-36, -30, 15, 13, True),  # pulmonary trunk
        (20, -18, 13, 9, False),  # left atrial appendage
        (-16, -8, 14, 13, False),  # aortic root
    ]:
        offset = np.array([x, y]) * size + 3 * rng.standard_normal(2)
        axes = (first * size * rng.uniform(0.85, 1.15), second * size * rng.uniform(0.85, 1.15))
        bumps = _harmonics(0.04 * rng.standard_normal((3, 2)))
        atria.append(Atrium(offset @ rotate, axes, turn + rng.uniform(-0.4, 0.4), bumps, rng.uniform(0.8, 1.08), on_rv))
    return atria


def write_patient(root, seed: int, number: int) -> pathlib.Path:
    """Writes one patient's folder, patient001 .. patient100, below `root` and returns it."""
    case = f"patient{number:03d}"
    folder = pathlib.Path(root) / case
    folder.mkdir(parents=True, exist_ok=True)
    made = patient(seed, number)
    for frame, phase in ((made.info["ED"], made.ed), (made.info["ES"], made.es)):
        _save(phase.image, made.spacing, folder / f"{case}_frame{frame:02d}.nii.gz")
        _save(phase.mask, made.spacing, folder / f"{case}_frame{frame:02d}_gt.nii.gz")
    (folder / "Info.cfg").write_text("".join(f"{key}: {value}\n" for key, value in made.info.items()))
    return folder


def _save(array, spacing, path):
    """Writes a NIfTI file with ACDC's geometry: spacing in the qform and pixdim, but a unit sform.

    The bytes depend on the content alone: nibabel writes neither time nor file name into the gzip header.
    """
    image = nib.Nifti1Image(array, np.eye(4))
    image.header.set_qform(np.diag([-spacing[0], -spacing[1], spacing[2], 1.0]), code=1)
    image.header.set_sform(np.eye(4), code=1)
    image.header.set_xyzt_units("mm", "sec")
    nib.save(image, path)


def write_cohort(root, seed: int = 0, numbers: Iterable[int] = range(1, 101), num_workers: int = 2) -> None:
    """Writes the patients `numbers` below `root`, with a bar on a terminal and plain lines elsewhere."""
    numbers = list(numbers)
    bar = tqdm.tqdm(desc="built-in cohort", total=len(numbers), unit="patient", disable=not sys.stderr.isatty())
    # spawn: the caller may hold TensorFlow's threads, which do not survive a fork.
    with concurrent.futures.ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn")) as pool, bar:
        made = pool.map(functools.partial(write_patient, root, seed), numbers)
        for count, _ in enumerate(made, start=1):
            bar.update()
            if bar.disable and (count % 25 == 0 or count == len(numbers)):
                print(f"built-in cohort: {count} of {len(numbers)} patients", file=sys.stderr, flush=True)


def ensure_cohort(cache_dir, seed: int = 0, num_workers: int = 2) -> pathlib.Path:
    """The built-in cohort's folder below `cache_dir`, made on first use.

    The folder's name holds a hash of this file, so a changed generator never meets an old cohort. It appears
    whole or not at all, and any number of processes may ask at once.

    Raises:
      MachineError: the folder cannot be written.
    """
    version = hashlib.sha256(pathlib.Path(__file__).read_bytes()).hexdigest()[:8]
    cohort = pathlib.Path(cache_dir) / f"phantom-seed{seed}-{version}"
    if cohort.is_dir():
        return cohort
    try:
        cohort.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{cohort.name}.tmp-", dir=cohort.parent) as temporary:
            made = pathlib.Path(temporary) / cohort.name
            made.mkdir()
            write_cohort(made, seed, num_workers=num_workers)
            made.rename(cohort)
    except OSError as error:
        if not cohort.is_dir():  # else another process was first, and its cohort is the same
            raise errors.MachineError(
                cache_dir,
                f"the built-in cohort cannot be written ({error.strerror})",
                "free space or name another folder",
            ) from error
    return cohort
