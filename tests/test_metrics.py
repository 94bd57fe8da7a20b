import math
import pathlib

import numpy as np
import pytest
from scipy import ndimage, stats

from tfaug import metrics

SPACING = (1.5, 2.0, 10.0)


def mask(*boxes, shape=(20, 16, 6), label=1):
    """A mask with `label` inside each box, given as slices."""
    result = np.zeros(shape, np.uint8)
    for box in boxes:
        result[box] = label
    return result


def test_dice_equals_a_count_by_hand():
    prediction = np.zeros((4, 4, 1), np.uint8)
    reference = np.zeros((4, 4, 1), np.uint8)
    prediction[0, :3] = 2  # 3 voxels
    reference[0, 1:] = 2  # 3 voxels, 2 of them shared
    reference[3, :2] = 2  # 2 more: 5 voxels
    prediction[3, 3] = 1
    assert metrics.dice(prediction, reference, 2) == pytest.approx(2 * 2 / (3 + 5))
    assert metrics.dice(prediction, reference, 1) == 0.0


def test_dice_tells_structures_apart():
    reference = mask(np.s_[2:8, 2:8, :], label=1)
    assert metrics.dice(np.where(reference == 1, 3, 0), reference, 1) == 0.0


def test_dice_does_not_overflow_small_integers():
    full = np.ones((40, 40, 4), np.uint8)
    assert metrics.dice(full, full, 1) == 1.0


def test_a_shift_by_one_voxel_has_that_voxels_length():
    reference = mask(np.s_[4:10, 4:9, 2:3])
    for axis, length in enumerate(SPACING):
        hd95, assd = metrics.surface_distance(np.roll(reference, 1, axis), reference, 1, SPACING)
        if axis == 2:  # the whole slice is surface, and all of it moved
            assert (hd95, assd) == pytest.approx((length, length))
        else:  # some voxels lie on both masks
            assert hd95 == pytest.approx(length)
            assert 0 < assd < length


def test_distances_of_two_points():
    reference, prediction = mask(np.s_[3, 4, 1]), mask(np.s_[5, 7, 2])
    expected = math.hypot(2 * 1.5, 3 * 2.0, 1 * 10.0)
    assert metrics.surface_distance(prediction, reference, 1, SPACING) == pytest.approx((expected, expected))


def test_only_surfaces_count():
    """A 3-cube has 26 surface voxels; its centre, filled or hollow, changes nothing."""
    solid = mask(np.s_[5:8, 5:8, 1:4])
    hollow = solid.copy()
    hollow[6, 6, 2] = 0
    assert metrics.surface_distance(hollow, solid, 1, SPACING) == (0.0, 0.0)


def test_pooled_mean_and_larger_directed_percentile():
    """1 voxel against itself plus 9 more in a row: directed distances {0} and {0, 1, ..., 9} voxels."""
    reference, prediction = mask(np.s_[2:12, 3, 1]), mask(np.s_[2, 3, 1])
    row = 1.5 * np.arange(10)
    for one, other in ((prediction, reference), (reference, prediction)):
        hd95, assd = metrics.surface_distance(one, other, 1, SPACING)
        assert hd95 == pytest.approx(np.percentile(row, 95))  # pooled, as MedPy does, it would be less
        assert assd == pytest.approx(row.sum() / 11)  # the mean of the two directed means would be row.mean() / 2


def test_concentric_balls_are_their_radii_apart():
    x, y, z = np.meshgrid(*(np.arange(-20, 21),) * 3, indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    hd95, assd = metrics.surface_distance((radius <= 10).astype(int), (radius <= 16).astype(int), 1, (0.5, 0.5, 0.5))
    assert assd == pytest.approx(3.0, abs=0.25)
    assert hd95 == pytest.approx(3.0, abs=0.5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("definition", metrics.DISTANCES)
def test_d38_distances_of_a_single_slice_are_those_of_its_contours(axis, definition):
    """Whichever axis it lies across, and however thick it is."""
    x, y = np.meshgrid(np.arange(100) - 50, np.arange(90) - 45, indexing="ij")
    discs = [(np.hypot(x, y) <= radius).astype(np.uint8) for radius in (20, 26)]
    contours = [np.argwhere(disc - ndimage.binary_erosion(disc)) * (0.5, 0.75) for disc in discs]
    between = np.linalg.norm(contours[0][:, None] - contours[1][None], axis=-1)
    directed = between.min(axis=1), between.min(axis=0)
    expected = {
        "reloaded": (max(np.percentile(d, 95) for d in directed), np.concatenate(directed).mean()),
        "medpy": (np.percentile(np.concatenate(directed), 95), np.mean([d.mean() for d in directed])),
    }[definition]
    spacing, slices = np.insert([0.5, 0.75], axis, 8.0), [np.expand_dims(disc, axis) for disc in discs]
    assert metrics.surface_distance(*slices, 1, spacing, definition) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 1)])
def test_d38_a_row_of_voxels_and_a_single_one_have_distances(shape):
    voxel = mask(np.s_[0, 0, 0], shape=shape)
    assert metrics.surface_distance(voxel, voxel, 1, SPACING) == (0, 0)
    ends = mask(np.s_[0, 0, 0], np.s_[-1, -1, -1], shape=shape)
    assert metrics.surface_distance(ends, voxel, 1, SPACING)[1] == pytest.approx(2.0 * (shape[1] - 1) / 3)


def test_d38_a_structure_in_one_slice_of_several_is_surface_throughout():
    reference, prediction = mask(np.s_[4:12, 4:12, 2]), mask(np.s_[4:12, 4:12, 2])
    prediction[7, 7, 2] = 0  # a voxel inside, in plane
    assert metrics.surface_distance(prediction, reference, 1, SPACING)[1] == pytest.approx(1.5 / (64 + 63))


def test_the_crop_changes_no_distance():
    rng = np.random.default_rng(0)
    blobs = [ndimage.gaussian_filter(rng.normal(size=(30, 28, 7)), 2) > 0.05 for _ in range(2)]
    prediction, reference = (np.pad(b, ((3, 9), (6, 2), (1, 0))).astype(int) for b in blobs)
    surfaces = [m.astype(bool) & ~ndimage.binary_erosion(m) for m in (prediction, reference)]
    points = [np.argwhere(s) * SPACING for s in surfaces]
    between = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    directed = between.min(axis=1), between.min(axis=0)
    hd95, assd = metrics.surface_distance(prediction, reference, 1, SPACING)
    assert hd95 == pytest.approx(max(np.percentile(d, 95) for d in directed))
    assert assd == pytest.approx(np.concatenate(directed).mean())


def test_empty_masks():
    empty, full = mask(), mask(np.s_[3:6, 3:6, 1:3])
    assert metrics.dice(empty, empty, 1) == 1.0
    assert metrics.surface_distance(empty, empty, 1, SPACING) == (0.0, 0.0)
    for prediction, reference in ((empty, full), (full, empty)):
        assert metrics.dice(prediction, reference, 1) == 0.0
        assert all(map(math.isnan, metrics.surface_distance(prediction, reference, 1, SPACING)))


def test_distances_are_medpys_where_asked_for():
    """distances.npz is made with two versions of MedPy, see data/make_distances.py; only ASSD differs between them."""
    with np.load(pathlib.Path(__file__).parent / "data" / "distances.npz", allow_pickle=False) as file:
        expected, pairs, spacing = {**file}, file["masks"].astype(np.uint8), file["spacing"]
    definitions = {
        name: np.transpose([metrics.surface_distance(*pair, 1, spacing, name) for pair in pairs])
        for name in metrics.DISTANCES
    }
    np.testing.assert_allclose(definitions["medpy"], (expected["hd95_0.4.0"], expected["assd_0.4.0"]), rtol=1e-12)
    np.testing.assert_allclose(definitions["reloaded"][1], expected["assd_0.5.2"], rtol=1e-12)
    np.testing.assert_array_equal(expected["hd95_0.5.2"], expected["hd95_0.4.0"])
    differ = ~np.isclose(definitions["medpy"], definitions["reloaded"], rtol=1e-3)
    assert differ.sum(axis=1).min() >= 3  # else the file could not tell them apart


@pytest.mark.parametrize("definition", metrics.DISTANCES)
def test_empty_masks_have_one_rule_in_every_definition(definition):
    empty, full = mask(), mask(np.s_[3:6, 3:6, 1:3])
    assert metrics.surface_distance(empty, empty, 1, SPACING, definition) == (0.0, 0.0)
    for prediction, reference in ((empty, full), (full, empty)):
        assert all(map(math.isnan, metrics.surface_distance(prediction, reference, 1, SPACING, definition)))


def test_an_unknown_definition_is_refused():
    with pytest.raises(ValueError, match="'pooled', not one of reloaded, medpy"):
        metrics.surface_distance(mask(), mask(), 1, SPACING, "pooled")


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="different grids"):
        metrics.dice(np.zeros((4, 4, 1)), np.zeros((4, 1, 1)), 1)


def field(rows, columns):
    """A deformation [H, W, 2] from two functions of (i, j) on a 32 x 24 grid."""
    i, j = np.meshgrid(np.arange(32.0), np.arange(24.0), indexing="ij")
    return np.stack(np.broadcast_arrays(rows(i, j), columns(i, j)), axis=-1)


def test_jacobian_of_linear_maps():
    translation = field(lambda i, j: 3.0 + 0 * i, lambda i, j: -2.0 + 0 * j)
    np.testing.assert_allclose(metrics.jacobian_determinant(translation), 1)
    # x -> x - v = (0.75 i - 0.1 j, 0.2 i + 1.5 j)
    linear = field(lambda i, j: 0.25 * i + 0.1 * j, lambda i, j: -0.2 * i - 0.5 * j)
    np.testing.assert_allclose(metrics.jacobian_determinant(linear), 0.75 * 1.5 + 0.1 * 0.2)


def test_folded_share():
    still = field(lambda i, j: 0 * i, lambda i, j: 0 * j)
    # Beyond row 16 the field grows by 2 px per pixel: x - v runs backwards there.
    folded = field(lambda i, j: np.maximum(i - 16, 0) * 2.0, lambda i, j: 0 * j)
    shares = [metrics.deformation_diagnostics(f[None, None], 1.0)["folded"] for f in (still, folded)]
    assert shares == [0.0, 0.5]  # rows 16 to 31: at row 16 the central difference is 1, and the determinant 0


def test_displacement_in_pixels_and_mm():
    deformations = np.zeros((2, 1, 4, 4, 2))
    deformations[0, ..., 0], deformations[0, ..., 1] = 3, 4
    result = metrics.deformation_diagnostics(deformations, resolution=1.5)
    assert result["displacement_mean_px"] == pytest.approx(2.5)
    assert result["displacement_max_px"] == pytest.approx(5.0)
    assert result["displacement_mean_mm"] == pytest.approx(3.75)
    assert result["displacement_max_mm"] == pytest.approx(7.5)
    assert result["diversity_px"] == pytest.approx(2.5)  # (0, 0) and (3, 4) both lie 2.5 from their mean


def test_a_generator_that_ignores_z_has_no_diversity():
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1, 3, 8, 8, 2)).astype(np.float32)
    assert metrics.deformation_diagnostics(np.repeat(one, 4, axis=0), 1.0)["diversity_px"] == pytest.approx(0, abs=1e-6)
    assert metrics.intensity_diagnostics(np.repeat(one[..., :1], 4, axis=0))["diversity"] == pytest.approx(0, abs=1e-6)
    # Differing between images only is no diversity either; differing over z is.
    assert metrics.intensity_diagnostics(rng.normal(size=(64, 3, 8, 8, 1)))["diversity"] == pytest.approx(1, abs=0.05)


def test_a_generator_that_ignores_the_image_has_no_diversity_over_inputs():
    one = np.random.default_rng(0).normal(size=(4, 1, 8, 8, 2))
    found = metrics.deformation_diagnostics(np.repeat(one, 3, axis=1), 1.0)
    assert found["diversity_input_px"] == pytest.approx(0, abs=1e-6) and found["diversity_px"] > 0.5
    assert metrics.intensity_diagnostics(np.repeat(one, 3, axis=1))["diversity_input"] == pytest.approx(0, abs=1e-6)


def test_roughness_is_that_of_the_slopes():
    tilted = field(lambda i, j: 0.3 * i, lambda i, j: 0.4 * i)
    assert metrics.deformation_diagnostics(tilted[None, None], 1.0)["roughness"] == pytest.approx(0.5)
    assert metrics.deformation_diagnostics(np.ones((1, 1, 4, 4, 2)), 1.0)["roughness"] == 0


def test_percentiles_of_fields():
    fields = np.linspace(0, 1, 100).reshape(1, 1, 100, 1, 1) * np.array([1, -1]).reshape(1, 1, 1, 2, 1)
    found = metrics.intensity_diagnostics(fields)
    assert found["intensity_median"] == pytest.approx(0.5) and found["intensity_p95"] == pytest.approx(0.95)
    assert found["saturated"] == pytest.approx(5 / 100)


def test_lost_anatomy_by_hand():
    before = np.zeros((2, 4, 4, 3))
    before[..., 0] = 1
    before[0, :2, :, :] = [0, 1, 0]
    before[0, 3, :, :] = [0, 0, 1]
    after = before.copy()
    after[0, 0] = [1, 0, 0]  # half of the first structure is gone
    after[0, 2] = [0, 0, 1]  # the second has grown, which makes up for nothing
    assert metrics.lost_anatomy(before, after) == pytest.approx(0.25)
    assert metrics.lost_anatomy(before, before) == 0
    assert metrics.lost_anatomy(before[1:], before[1:]) == 0  # there is none


def test_histogram_distance_is_wassersteins():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=5000), rng.normal(size=5000) + 0.5
    assert metrics.histogram_distance(one, other) == pytest.approx(stats.wasserstein_distance(one, other), rel=0.02)
    assert metrics.histogram_distance(one, one[::-1]) == 0


def test_intensity_diagnostics():
    masks = np.stack([np.full((1, 4, 4, 1), -0.5), np.full((1, 4, 4, 1), 0.25)])
    result = metrics.intensity_diagnostics(masks)
    assert result["intensity_mean"] == 0.375 and result["intensity_max"] == 0.5
    assert result["diversity"] == 0.375 and result["saturated"] == 0
