import numpy as np
import pytest
import reference
import SimpleITK as sitk

from tfaug import metrics
from tfaug.data import preprocess
from tfaug.data.preprocess import Grid, Spec, prepare_volume, restore
from tfaug.engine.errors import UserError
from tfaug.types import Volume

ARRAYS = reference.load("preprocessing.npz")
SCANS = sorted({int(name.split("_")[0]) for name in ARRAYS.files if name[0].isdigit()})
SPEC = Spec(image_size=64, resolution=4.1, n4_shrink=0)


def volume(image, label=None, spacing=(1.0, 1.0, 8.0)):
    """Of one channel [X, Y, Z], or of several [X, Y, Z, C]."""
    channels = image[..., np.newaxis] if image.ndim == 3 else image
    return Volume("patient001", channels.astype(np.float32), label, spacing, 2, "patient001.nii.gz")


@pytest.fixture(params=SCANS)
def scan(request):
    return {
        name: ARRAYS[f"{request.param}_{name}"]
        for name in ("volume", "mask", "pixel", "normalised", "image", "label", "restored", "restored_counts", "dice")
    }


def test_reference_images_and_labels(scan):
    prepared = prepare_volume(volume(scan["volume"], scan["mask"], tuple(scan["pixel"])), SPEC)
    normalised = preprocess.normalise(scan["volume"], "scan")
    np.testing.assert_allclose(normalised, scan["normalised"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(prepared.image[..., 0], scan["image"].transpose(2, 0, 1), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(prepared.label, scan["label"].transpose(2, 0, 1))
    assert (prepared.image.dtype, prepared.label.dtype) == (np.float32, np.uint8)


def test_reference_restored_masks(scan):
    grid = Grid(scan["mask"].shape, tuple(scan["pixel"]), SPEC.image_size, SPEC.resolution)
    prediction = np.roll(scan["label"], 3, axis=0).transpose(2, 0, 1)
    restored = restore(np.eye(4)[prediction], grid)
    np.testing.assert_array_equal(restored, scan["restored"])
    np.testing.assert_array_equal(np.bincount(restored.ravel(), minlength=4), scan["restored_counts"])
    dice = [metrics.dice(restored, scan["mask"], structure) for structure in range(4)]
    np.testing.assert_allclose(dice, scan["dice"], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "shape", [(20, 20), (40, 40), (21, 27), (41, 47), (20, 41), (41, 20), (31, 33), (32, 32), (1, 90)], ids=str
)
def test_d28_crop_or_pad_and_its_inverse_recover_a_volume(shape):
    """At the scan's own resolution nothing is interpolated: inside the crop all comes back, the rest is background."""
    label = np.random.default_rng(0).integers(0, 4, (*shape, 2)).astype(np.uint8)
    prepared = prepare_volume(volume(np.random.default_rng(1).normal(size=label.shape), label), Spec(32, 1.0, 0))
    restored = restore(np.eye(4)[prepared.label], prepared.grid)

    expected = np.zeros_like(label)
    inside = tuple(slice(max(n - 32, 0) // 2, max(n - 32, 0) // 2 + 32) for n in shape)
    expected[inside] = label[inside]
    assert prepared.image.shape == (2, 32, 32, 1)
    np.testing.assert_array_equal(restored, expected)


@pytest.mark.parametrize(
    ("shape", "native", "prepared"), [((35, 21), (15, 10), (14, 15)), ((21, 35), (10, 15), (15, 14))]
)
def test_the_odd_pixel_is_lost_or_added_behind(shape, native, prepared):
    """35 pixels lose 1 in front and 2 behind; 21 gain 5 in front and 6 behind."""
    label = np.zeros((*shape, 1), np.uint8)
    label[native] = 1
    image = np.random.default_rng(0).normal(size=label.shape)
    np.testing.assert_array_equal(
        np.argwhere(prepare_volume(volume(image, label), Spec(32, 1.0, 0)).label), [(0, *prepared)]
    )


def test_rescaling_goes_to_the_resolution_of_each_axis():
    label = np.zeros((30, 30, 1), np.uint8)
    label[10:20, 10:20] = 1  # 20 mm x 10 mm
    image = np.random.default_rng(0).normal(size=label.shape)
    prepared = prepare_volume(volume(image, label, (2.0, 1.0, 8.0)), Spec(64, 1.0, 0))
    rows, columns = np.nonzero(prepared.label[0])
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 10)


def test_probabilities_are_interpolated_not_labels():
    """Between a pixel of class 1 and one of class 3 class 2 wins, if it comes second in both."""
    grid = Grid((8, 8, 1), (1.0, 1.0, 8.0), 4, 2.0)  # one prepared pixel covers 2 x 2 native ones
    row = [[1, 0, 0, 0], [0, 0.55, 0.45, 0], [0, 0, 0.45, 0.55], [1, 0, 0, 0]]
    np.testing.assert_array_equal(restore(np.tile(row, (1, 4, 1, 1)), grid)[..., 0], [[0, 0, 1, 2, 2, 3, 0, 0]] * 8)


def test_any_number_of_classes_is_restored():
    label = np.random.default_rng(0).integers(0, 18, (32, 32, 3)).astype(np.uint8)
    grid = Grid(label.shape, (1.0, 1.0, 8.0), 32, 1.0)
    np.testing.assert_array_equal(restore(np.eye(18)[label.transpose(2, 0, 1)], grid), label)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_sliced_axis_goes_back_to_where_it_was_in_the_file(axis):
    in_file = np.random.default_rng(0).normal(size=(4, 5, 6))
    rest = [k for k in range(3) if k != axis]
    np.testing.assert_array_equal(preprocess.to_file_order(in_file.transpose(*rest, axis), axis), in_file)


def test_each_channel_is_prepared_as_if_it_were_alone():
    tissue, field = blobs()
    channels = [tissue * field, 1000 - 3 * tissue / field]
    spec = Spec(32, 1.0, 2)
    together = prepare_volume(volume(np.stack(channels, axis=-1)), spec).image
    assert together.shape == (4, 32, 32, 2)
    for c, channel in enumerate(channels):
        np.testing.assert_array_equal(together[..., c], prepare_volume(volume(channel), spec).image[..., 0])


def test_d21_a_channel_without_contrast():
    image = np.stack([np.random.default_rng(0).normal(size=(20, 20, 3)), np.ones((20, 20, 3))], axis=-1)
    with pytest.raises(UserError, match="patient001.nii.gz: has no contrast"):
        prepare_volume(volume(image), Spec(16, 1.0, 0))


def blobs(shape=(40, 44, 4)):
    """Tissue of two brightnesses, and the smooth field that multiplies it."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape[:2]), indexing="ij")
    tissue = np.where((x**2 + y**2 < 0.35)[..., None], 200.0, 100.0) + rng.normal(0, 3, shape)
    return tissue.astype(np.float32), np.exp(0.5 * x + 0.2 * y)[..., None].astype(np.float32)


@pytest.mark.parametrize("shrink", [1, 2])
def test_n4_removes_a_smooth_field(shrink):
    tissue, field = blobs()
    corrected = preprocess.correct_bias(tissue * field, (1.5, 1.5, 8.0), shrink, "patient001")
    ratio = corrected / tissue
    assert corrected.dtype == np.float32
    assert ratio.std() / ratio.mean() < 0.1 * field.std() / field.mean()


def test_n4_shrink_0_leaves_the_image_alone():
    tissue, field = blobs()
    with_n4, without = (prepare_volume(volume(tissue * field), Spec(40, 1.0, shrink)).image for shrink in (2, 0))
    normalised = preprocess.normalise(tissue * field, "scan")
    np.testing.assert_allclose(without[0, ..., 0], normalised[:, 2:42, 0], atol=1e-6)
    assert np.abs(with_n4 - without).mean() > 0.05


def test_n4_result_does_not_depend_on_the_machines_threads():
    """Row N4 of the faults: ITK's result varies with its number of threads, ours does not."""
    tissue, field = blobs()
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    results = []
    try:
        for threads in (1, 2, 3):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
            results.append(preprocess.correct_bias(tissue * field, (1.5, 1.5, 8.0), 2, "patient001"))
            assert sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == threads
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("shrink", [0, 2])
@pytest.mark.parametrize("value", [0, 7])
def test_d21_constant_volume(shrink, value):
    image = np.full((20, 20, 3), value)
    image[0, 0, 0] = 100  # a single voxel is no contrast
    with pytest.raises(UserError, match="patient001.nii.gz: has no contrast"):
        prepare_volume(volume(image), Spec(16, 1.0, shrink))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shrink", [0, 2])
@pytest.mark.parametrize("extreme", ["one voxel", "all voxels"])
def test_d21_voxels_that_normalising_would_not_survive(extreme, shrink):
    image = np.random.default_rng(0).integers(20, 120, (20, 20, 3)).astype(np.float32)
    if extreme == "one voxel":
        image[0, 0, 0] = 3e38
    else:
        image = np.where(image > 70, np.float32(3e38), np.float32(-3e38))
    with pytest.raises(UserError, match=r"patient001.nii.gz: has voxels of up to 3e\+38 beside"):
        prepare_volume(volume(image), Spec(16, 1.0, shrink))


@pytest.mark.parametrize("constant", [-1000, -50])
def test_d32_n4_finds_the_same_field_below_zero(constant):
    """An image, and the same plus a constant: to the last bit, as long as sums are exact."""
    tissue, field = blobs()
    image = np.round(tissue * field)
    image -= image.min()
    corrected, shifted = (
        preprocess.correct_bias(each, (1.5, 1.5, 8.0), 2, "patient001")
        for each in (image, image + np.float32(constant))
    )
    np.testing.assert_array_equal(shifted, corrected)
    assert np.abs(corrected - image).max() > 0.1 * image.max()  # there is a field


def test_d32_an_image_without_negative_values_is_taken_as_it_is():
    """Its smallest value stays where it is: what was prepared before is prepared alike."""
    tissue, field = blobs()
    image = tissue * field
    full = sitk.GetImageFromArray(np.ascontiguousarray(image.T))
    full.SetSpacing((1.5, 1.5, 8.0))
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetConvergenceThreshold(preprocess.N4_CONVERGENCE_THRESHOLD)
    n4.SetMaximumNumberOfIterations(preprocess.N4_ITERATIONS)
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(preprocess.N4_THREADS)
    try:
        n4.Execute(sitk.Shrink(full, [2, 2, 1]))
        expected = image / np.exp(sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(full)).T)
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert image.min() > 0
    np.testing.assert_array_equal(preprocess.correct_bias(image, (1.5, 1.5, 8.0), 2, "patient001"), expected)


@pytest.mark.parametrize("shrink", [1, 2])
def test_d38_n4_of_a_single_slice_works_in_plane(shrink):
    tissue, field = blobs((40, 44, 1))
    corrected = preprocess.correct_bias(tissue * field, (1.5, 1.5, 8.0), shrink, "patient001")
    ratio = corrected / tissue
    assert (corrected.shape, corrected.dtype) == (tissue.shape, np.float32)
    assert ratio.std() / ratio.mean() < 0.1 * field.std() / field.mean()


def test_d27_n4_throws(monkeypatch):
    def fail(self, image):
        raise RuntimeError("Exception thrown\nin SimpleITK: no field")

    monkeypatch.setattr(sitk.N4BiasFieldCorrectionImageFilter, "Execute", fail)
    with pytest.raises(UserError, match="patient001: N4 bias correction fails .*no field.*; take the case out"):
        preprocess.correct_bias(np.ones((20, 20, 3), np.float32), (1.0, 1.0, 8.0), 1, "patient001")


def test_d27_n4_returns_nan(monkeypatch):
    monkeypatch.setattr(sitk, "GetArrayFromImage", lambda image: np.full((4, 44, 40), np.nan, np.float32))
    tissue, field = blobs()
    with pytest.raises(UserError, match="patient001: N4 bias correction gives NaN"):
        prepare_volume(volume(tissue * field), Spec(40, 1.0, 4))
