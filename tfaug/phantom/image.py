"""Images of the built-in cohort: anatomy painted into a chest, and the scanner that looks at it.

Shapes are painted back to front with soft edges, so a voxel at a border mixes its tissues (partial volume). The
frame and its units are those of `phantom_anatomy`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tfaug.phantom import anatomy


class Grid(NamedTuple):
    """Where the voxels lie.

    Attributes:
      shape: voxels along X, Y, Z.
      spacing: mm per voxel along X, Y, Z.
      x, y: [X, Y, Z] float32 body-frame coordinates, after all movement and deformation.
      z: [Z] heights of the slices.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray


def draw_grid(rng, heart: anatomy.Heart) -> Grid:
    """Field of view, slices, position, rotation, a breath-hold shift per slice, and a smooth deformation."""
    pixel = round(rng.uniform(1.2, 1.9), 4)
    longer = rng.uniform(210, 260)
    extent = rng.permutation([longer, max(200, longer * rng.uniform(0.8, 1.0))])

    above = rng.uniform(2, 14)
    needed = heart.length + above
    num_slices = int(rng.choice(np.arange(6, 13), p=[0.03, 0.06, 0.13, 0.2, 0.22, 0.2, 0.16]))
    thickness = round(float(np.clip(needed / num_slices, 5, 10)), 1)
    # Few slices cannot cover the heart: the rest is missing in part at the base, in part at the apex.
    missing = needed - num_slices * thickness
    z = thickness * (np.arange(num_slices) + 0.5) - above + missing * rng.uniform(0.3, 0.8)

    shape = (*(int(round(e / pixel)) for e in extent), num_slices)
    spacing = (pixel, pixel, thickness)
    position = np.clip(rng.normal(0, 8, 2), -16, 16)
    shifts = position + np.clip(rng.normal(0, 1.5, (num_slices, 2)), -4, 4)
    a = pixel * (np.arange(shape[0]) - (shape[0] - 1) / 2)[:, None, None] - shifts[:, 0]
    b = pixel * (np.arange(shape[1]) - (shape[1] - 1) / 2)[None, :, None] - shifts[:, 1]
    angle = np.deg2rad(rng.normal(0, 18))
    x = np.cos(angle) * a + np.sin(angle) * b + 3 * _smooth_noise(rng, shape, spacing, 40)
    y = np.cos(angle) * b - np.sin(angle) * a + 3 * _smooth_noise(rng, shape, spacing, 40)
    return Grid(shape, spacing, x.astype(np.float32), y.astype(np.float32), z)


def _smooth_noise(rng, shape, spacing, length):
    """[X, Y, Z] float32 noise of unit variance that varies over `length` mm: Gaussian bumps on a coarse grid."""
    bases = []
    for n, mm in zip(shape, spacing):
        position = (np.arange(n) - (n - 1) / 2) * mm
        reach = position[-1] + 2 * length
        bumps = np.exp(-0.5 * ((position[:, None] - np.arange(-reach, reach + length, length)) / (0.7 * length)) ** 2)
        bases.append(bumps / np.linalg.norm(bumps, axis=1, keepdims=True))
    weights = rng.standard_normal([basis.shape[1] for basis in bases])
    return np.einsum("ia,jb,kc,abc->ijk", *bases, weights, optimize=True).astype(np.float32)


def _fine_noise(rng, shape, sigma):
    """[X, Y, Z] float32 noise of unit variance, blurred by `sigma` voxels."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma, truncate=3)
    return noise / noise.std()


def _distances(grid, centre, *radii):
    """Signed distances in mm, negative inside, to outlines around one centre; exact to first order at the edge.

    Args:
      grid: where the voxels lie.
      centre: [Z, 2] mm.
      *radii: [Z, NUM_ANGLES] mm each.

    Returns:
      One [X, Y, Z] float32 array per outline.
    """
    dx = grid.x - centre[:, 0].astype(np.float32)
    dy = grid.y - centre[:, 1].astype(np.float32)
    away = np.hypot(dx, dy)
    index = np.rint(np.arctan2(dy, dx) / np.float32(anatomy.ANGLES[1])).astype(np.int32) % anatomy.NUM_ANGLES
    index += anatomy.NUM_ANGLES * np.arange(grid.shape[2], dtype=np.int32)
    distances = []
    for radius in radii:
        slope = np.gradient(radius, anatomy.ANGLES[1], axis=1) / np.maximum(radius, 1)
        cosine = 1 / np.hypot(1, slope)
        distances.append((away - radius.astype(np.float32).ravel()[index]) * cosine.astype(np.float32).ravel()[index])
    return distances


def _cover(distance, width):
    """Share of each voxel inside an edge that is blurred over `width` mm, a number or [Z]."""
    return np.clip(0.5 - distance / np.asarray(width, np.float32), 0, 1)


def _paint(image, share, level):
    """Lets `level` take its share of every voxel of `image`, in place."""
    image += share * (level - image)


def _draw_levels(rng):
    """Signal of each tissue.

    Fat is negative: in balanced SSFP it precesses against water, so voxels that hold both are dark, and organs in
    fat have their typical black outline once the magnitude is taken.
    """

    def ratio(median, spread):
        return float(median * np.exp(spread * np.clip(rng.standard_normal(), -2, 2)))

    blood = ratio(0.8, 0.12)
    ratios = {
        "blood": 1.0,
        "rv_blood": ratio(0.92, 0.08),
        "myocardium": ratio(0.36, 0.18),
        "muscle": ratio(0.28, 0.2),
        "fat": -ratio(0.95, 0.12),
        "rib": ratio(0.5, 0.4),
        "lung": ratio(0.1, 0.35),
        "liver": ratio(0.4, 0.3),
        "spleen": ratio(0.5, 0.3),
        "stomach": ratio(0.6, 0.45),
    }
    return {tissue: blood * value for tissue, value in ratios.items()}


def _draw_bias(rng, grid):
    """[X, Y, Z] coil sensitivity of mean 1: falls off from a surface coil in front of the chest."""
    coil = rng.normal((-110, -40), 25)
    reach = rng.uniform(150, 300)
    falloff = 1 / (1 + ((grid.x - coil[0]) ** 2 + (grid.y - coil[1]) ** 2) / reach**2)
    bias = falloff * np.exp(0.12 * _smooth_noise(rng, grid.shape, grid.spacing, 110))
    return (bias / bias.mean()).astype(np.float32)


class Scene:
    """A patient in the scanner: what the two phases share is drawn once, the heart is painted per phase.

    `mottle` and `swell` are smooth fields of unit variance, a centimetre and several centimetres wide, that make
    borders and tissues uneven.
    """

    def __init__(self, rng, heart: anatomy.Heart, grid: Grid):
        self.heart, self.grid = heart, grid
        self.levels = _draw_levels(rng)
        self.texture = _fine_noise(rng, grid.shape, (1.2, 1.2, 0.3))
        self.mottle = _smooth_noise(rng, grid.shape, grid.spacing, 11)
        self.swell = _smooth_noise(rng, grid.shape, grid.spacing, 32)
        self.bias = _draw_bias(rng, grid)
        self.chest, self.cavity = self._paint_chest(rng)
        self.fat_depth = self._draw_fat_depth(rng)
        self.chambers = anatomy.draw_chambers(rng, heart)
        self.papillary_angles = heart.septum + np.pi + np.deg2rad(rng.normal((-50, 50), 10))
        self.papillary_radii = rng.uniform(3.0, 5.5, 2)
        self.trabecular_height = rng.uniform(0.5, 2.2)
        self.blur = rng.uniform(0.3, 0.65)  # pixels
        self.gamma = rng.uniform(0.85, 1.15)
        self.noise = rng.uniform(0.008, 0.024)
        self.scale = rng.uniform(250, 1200)

    def phase(self, rng, systole: bool) -> tuple[np.ndarray, np.ndarray]:
        """Image [X, Y, Z] int16 and mask [X, Y, Z] uint8 of one phase."""
        grid = self.grid
        shape = anatomy.ventricles(self.heart, grid.z, grid.spacing[2], systole)
        trabeculae = anatomy.draw_trabeculae(rng, self.trabecular_height, shape.depth)
        blood_radius = np.maximum(shape.endo - trabeculae, 0.75 * shape.endo)
        to_epi, to_endo, to_blood = _distances(grid, shape.centre, shape.epi, shape.endo, blood_radius)
        (to_rv,) = _distances(grid, shape.rv.centre, shape.rv.radius)

        image = self.chest.copy()
        self._paint_surroundings(image, shape, to_epi, to_rv)
        self._paint_rv(image, shape, to_rv)
        self._paint_lv(image, shape, to_epi, to_blood)

        mask = np.zeros(grid.shape, np.uint8)
        mask[(to_rv < 0) & (shape.rv_share > 0.5)] = 1
        mask[(to_epi < 0) & (shape.lv_share > 0.5)] = 2
        mask[(to_endo < 0) & (shape.lv_share > 0.5)] = 3  # trabeculae and papillary muscles too, as in ACDC
        return self._scan(rng, image), mask

    def _paint_chest(self, rng):
        """The chest without the heart, and each voxel's share of the cavity inside the ribs."""
        grid, levels, heart = self.grid, self.levels, self.heart
        pixel = grid.spacing[0]
        depth = np.clip(grid.z / heart.length, -0.2, 1.1)

        # The apex lies against the chest wall, so the wall comes closer from base to apex.
        gap = rng.uniform(8, 16) + rng.uniform(5, 25) * np.clip(1 - depth, 0, 1.2)
        half_width = rng.uniform(95, 118)
        left = -(0.5 * heart.rv_depth + heart.outer_radius) * (1 - rng.uniform(0.2, 0.5) * depth) - gap
        centre = np.stack([left + half_width, np.full(grid.shape[2], rng.uniform(-5, 30))], axis=1)
        semi_axes = (half_width, rng.uniform(100, 130))
        inner = anatomy.ellipse(
            centre, semi_axes, np.deg2rad(rng.uniform(-25, 25)), anatomy.draw_harmonics(rng, (0.015, 0.02, 0.015))
        )
        (to_cavity,) = _distances(grid, inner.centre, inner.radius)
        muscle = rng.uniform(8, 14) + 1.5 * self.swell
        fat = rng.uniform(5, 24) + 3 * self.swell
        image = np.zeros(grid.shape, np.float32)
        skin = 2
        _paint(image, _cover(to_cavity - muscle - fat - skin, pixel), levels["muscle"])
        _paint(image, _cover(to_cavity - muscle - fat, pixel), levels["fat"])
        _paint(image, _cover(to_cavity - muscle, pixel), levels["muscle"])

        around = np.arctan2(grid.y - centre[:, 1], grid.x - centre[:, 0]) / (2 * np.pi)
        num_ribs = int(half_width / rng.uniform(3.5, 5))
        along = ((around * num_ribs + grid.z / 15) % 1 - 0.5) * (2 * np.pi * half_width / num_ribs)
        to_rib = np.hypot(to_cavity - muscle / 2, along / 1.7) - 3.2
        _paint(image, _cover(to_rib - 1, 1.5 * pixel), 0.3 * levels["muscle"])
        _paint(image, _cover(to_rib + 0.6, 1.5 * pixel), levels["rib"])

        cavity = _cover(to_cavity, pixel)
        _paint(image, cavity, levels["lung"] * np.exp(0.4 * self.swell))
        below_lung = self._paint_abdomen(rng, image, cavity, depth)
        self._paint_vessels(rng, image, cavity, depth, below_lung)
        self._paint_aorta(rng, image, depth)
        return image, cavity

    def _paint_abdomen(self, rng, image, cavity, depth):
        """Fat, bowel and organs below the diaphragm; returns each voxel's share below it."""
        grid, levels, heart = self.grid, self.levels, self.heart
        pixel = grid.spacing[0]
        top = heart.outer_radius * (1 - rng.uniform(0.3, 0.8) * depth) + rng.uniform(2, 12)
        slope = rng.uniform(-0.15, 0.25)
        dome = rng.uniform(0, 22) * np.exp(-(((grid.x - rng.uniform(-60, 60)) / 50) ** 2))
        below = _cover(top + slope * grid.x - dome + 2 * self.swell - grid.y, 1.5 * pixel)
        abdomen = cavity * below
        _paint(image, abdomen, levels["fat"] * rng.uniform(0.7, 1.0))
        bowel = np.clip(1.2 * self.mottle + 0.8 * self.swell + 0.1 * self.texture, 0, 1)
        _paint(image, abdomen * bowel * np.clip(0.3 + depth, 0, 1), levels["muscle"] * rng.uniform(0.8, 1.5))
        for organ, middle, semi_axes, present in (
            ("spleen", (80, 82), (rng.uniform(24, 36), rng.uniform(16, 24)), np.clip(4 * (0.8 - depth), 0, 1)),
            ("stomach", (45, 72), (rng.uniform(18, 34), rng.uniform(14, 24)), np.clip(4 * (depth - 0.1), 0, 1)),
            ("liver", (-38, 88), (rng.uniform(60, 85), rng.uniform(38, 56)), 1.0),
        ):
            centre = rng.normal(middle, 12) + np.outer(depth, [-4, -15])
            deviation = anatomy.draw_harmonics(rng, (0.04, 0.04, 0.04, 0.04))
            outline = anatomy.ellipse(centre, semi_axes, rng.uniform(-0.5, 0.5), deviation)
            (distance,) = _distances(grid, outline.centre, outline.radius)
            _paint(image, abdomen * present * _cover(distance, pixel), levels[organ])
        return below

    def _paint_vessels(self, rng, image, cavity, depth, below_lung):
        """Vessels of the lung, denser at its root, and of the liver."""
        grid, pixel = self.grid, self.grid.spacing[0]
        pattern = _fine_noise(rng, grid.shape, (2.6 / pixel, 2.6 / pixel, 0.7))
        root = np.exp(-((grid.x - 35) ** 2 + (grid.y + 45) ** 2) / 50**2) * np.clip(1 - depth, 0, 1)
        vessels = cavity * np.clip(1.6 * (pattern - rng.uniform(1.8, 2.3) + 0.9 * root), 0, 1)
        _paint(image, vessels * (1 - below_lung), rng.uniform(0.6, 1.0) * self.levels["blood"])
        _paint(image, vessels * below_lung * 0.5, self.levels["blood"])

    def _paint_aorta(self, rng, image, depth):
        """The descending aorta, cut obliquely, behind the basal part of the heart."""
        grid, pixel = self.grid, self.grid.spacing[0]
        centre = np.array([rng.uniform(38, 52), rng.uniform(36, 52)]) + np.outer(depth, [4, 14])
        semi_axes = (rng.uniform(9, 13), rng.uniform(12, 26))
        outline = anatomy.ellipse(
            centre, semi_axes, np.deg2rad(rng.uniform(0, 50)), anatomy.draw_harmonics(rng, (0.02, 0.02))
        )
        (distance,) = _distances(grid, outline.centre, outline.radius)
        present = np.clip((rng.uniform(0.3, 0.8) - depth) * self.heart.length / grid.spacing[2], 0, 1)
        _paint(image, present * _cover(distance - 1.2, pixel), self.levels["muscle"])
        _paint(image, present * _cover(distance, pixel), self.levels["blood"] * rng.uniform(0.8, 1.1))

    def _draw_fat_depth(self, rng):
        """[X, Y, Z] mm of fat around the heart: patchy, more in front and towards the base."""
        front = np.clip(-(self.grid.x + 15) / 35, 0, 1) * np.clip(1.1 - self.grid.z / self.heart.length, 0.2, 1)
        depth = rng.uniform(-1, 2.5) + rng.uniform(3, 14) * front + 2 * self.mottle + 2 * self.swell
        return np.maximum(depth, 0).astype(np.float32)

    def _paint_surroundings(self, image, shape, to_epi, to_rv):
        """Fat around the heart, and atria and great vessels in what a slice holds above the ventricles."""
        grid, levels, pixel = self.grid, self.levels, self.grid.spacing[0]
        to_heart = np.where(shape.rv_share > 0, np.minimum(to_epi, to_rv - self.heart.rv_wall), to_epi)
        _paint(image, self.cavity * _cover(to_heart - self.fat_depth, 1.5 * pixel), levels["fat"])
        for chamber in self.chambers:
            share = (1 - shape.lv_share) * (1 - shape.rv_share * chamber.on_rv)
            if not share.any():
                continue
            outline = anatomy.ellipse(
                shape.centre + chamber.offset, chamber.semi_axes, chamber.angle, chamber.deviation
            )
            (distance,) = _distances(grid, outline.centre, outline.radius)
            _paint(image, share * self.cavity * _cover(distance - self.fat_depth, 1.5 * pixel), levels["fat"])
            _paint(image, share * _cover(distance - 1, pixel), levels["muscle"])
            _paint(image, share * _cover(distance, pixel), levels["blood"] * chamber.brightness)

    def _paint_rv(self, image, shape, to_rv):
        """The RV, as if the LV did not lie before it: free wall, blood and coarse trabeculae."""
        levels, edge = self.levels, self._edge_width(shape.epi)
        _paint(image, shape.rv_share * _cover(to_rv - self.heart.rv_wall, edge), levels["myocardium"])
        blood = shape.rv_share * _cover(to_rv, edge)
        _paint(image, blood, levels["rv_blood"])
        coarse = np.clip(self.mottle + 0.4 * self.texture - 0.9, 0, 1) * np.clip(shape.depth + 0.2, 0, 1)
        _paint(image, 0.6 * blood * coarse, levels["myocardium"])

    def _paint_lv(self, image, shape, to_epi, to_blood):
        """Myocardium, blood between the trabeculae, and the two papillary muscles."""
        grid, myocardium = self.grid, self.levels["myocardium"]
        _paint(image, shape.lv_share * _cover(to_epi, self._edge_width(shape.epi)), myocardium)
        blood = shape.lv_share * _cover(to_blood, self._edge_width(shape.endo))
        _paint(image, blood, self.levels["blood"])
        present = np.clip(8 * np.minimum(shape.depth - 0.22, 0.82 - shape.depth), 0, 1)
        for angle, radius in zip(self.papillary_angles, self.papillary_radii):
            cavity = anatomy.radius_at(shape.endo, angle)
            away = np.maximum(cavity - 1.1 * radius, 0.45 * cavity)
            centre = shape.centre + away[:, None] * anatomy.direction(angle)
            distance = np.hypot(grid.x - centre[:, 0], grid.y - centre[:, 1]) - radius * (0.8 + 0.25 * self.mottle)
            _paint(image, 0.85 * blood * present * _cover(distance, 2 * grid.spacing[0]), myocardium)

    def _edge_width(self, radius):
        """[Z] mm over which an edge blurs: a pixel, and the outline's way through the slice's thickness."""
        way = np.abs(np.gradient(radius.mean(axis=1)))
        return np.hypot(self.grid.spacing[0], np.minimum(way, 7))

    def _scan(self, rng, image):
        """Texture, blur, magnitude, contrast, coil sensitivity, Rician noise and arbitrary units, as int16."""
        image = image * (1 + 0.05 * self.texture + 0.04 * self.mottle)
        image = np.abs(ndimage.gaussian_filter(image, (self.blur, self.blur, 0), truncate=3))
        image = image**self.gamma * self.bias
        real, imaginary = self.noise * rng.standard_normal((2, *image.shape), dtype=np.float32)
        return np.rint(self.scale * np.hypot(image + real, imaginary)).astype(np.int16)
