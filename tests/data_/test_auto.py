import numpy as np
import pytest
from patients import patients, write_nifti, write_patient

from tfaug.data import auto
from tfaug.data.auto import Region
from tfaug.data.preprocess import Spec, prepare_volume
from tfaug.engine.errors import UserError
from tfaug.types import Volume


def test_the_resolution_is_the_median_of_both_axes_in_plane():
    assert auto.resolution([(1.5, 1.25, 8.0), (1.5, 1.25, 8.0), (3.0, 3.0, 1.0)]) == 1.5
    assert auto.resolution([(1.5, 1.25, 8.0)]) == 1.375
    assert auto.resolution([(1.3671875, 1.3671875, 10.0)]) == 1.367
    assert auto.resolution([(0.0123449, 0.0123449, 0.1)]) == 0.01234


@pytest.mark.parametrize(
    ("shape", "spacing", "box", "resolution", "expected"),
    [
        ((100, 100), (1, 1), ((40, 60), (40, 60)), 1.0, 32),
        ((100, 100), (1, 1), ((37, 63), (37, 63)), 1.0, 32),  # 26 and 2 x 2.6 are 31.2
        ((100, 100), (1, 1), ((36, 64), (40, 60)), 1.0, 64),  # 28 and 2 x 2.8 are more than 32
        ((100, 100), (2, 2), ((40, 60), (40, 60)), 1.0, 64),
        ((100, 100), (2, 2), ((40, 60), (40, 60)), 2.0, 32),
        ((100, 100), (1, 1), ((60, 70), (45, 55)), 1.0, 64),  # ends 21 off the centre
        ((100, 100), (1, 1), ((45, 55), (2, 12)), 1.0, 128),  # begins 49 off the centre: only 128 holds the whole axis
        ((30, 30), (1, 1), ((0, 30), (0, 30)), 1.0, 32),  # nothing lies outside the slice
        ((5, 5), (1, 1), ((2, 3), (2, 3)), 1.0, 32),
    ],
)
def test_the_size_holds_the_region_with_its_margin(shape, spacing, box, resolution, expected):
    assert auto.image_size([Region((*shape, 3), (*spacing, 8.0), box)], resolution) == expected


def test_the_largest_region_decides():
    regions = [Region((100, 100, 3), (1.0, 1.0, 8.0), ((a, 100 - a), (45, 55))) for a in (45, 20, 40)]
    assert auto.image_size(regions, 1.0) == 96


@pytest.mark.parametrize("seed", range(20))
def test_no_labelled_voxel_is_cropped_away(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(20, 140, 2))
    label = np.zeros((*shape, 2), np.uint8)
    starts = [rng.integers(0, n - 6) for n in shape]
    label[tuple(slice(start, start + 6) for start in starts)] = 1
    image = rng.normal(size=(*label.shape, 1)).astype(np.float32)
    volume = Volume("a", image, label, (1.5, 1.0, 8.0), 2, "a.nii.gz")
    size = auto.image_size([auto.labelled_region(volume)], 1.0)

    def labelled_pixels(size):
        return np.count_nonzero(prepare_volume(volume, Spec(int(size), 1.0, 0)).label)

    assert labelled_pixels(size) == labelled_pixels(256)


def test_without_any_label_the_user_is_asked():
    with pytest.raises(UserError, match="data.image_size: cannot be chosen: no voxel .* is labelled; give a number"):
        auto.image_size([], 1.0)


def test_both_are_chosen_from_the_files(tmp_path):
    for case in ("a", "b", "c"):
        write_patient(tmp_path, case)
    for name in ("c_frame12.nii.gz", "c_frame12_gt.nii.gz"):
        (tmp_path / "c" / name).unlink()
    image = np.random.default_rng(0).integers(0, 99, (20, 23, 3)).astype(np.int16)
    write_nifti(tmp_path / "c" / "c_frame12.nii.gz", image, spacing=(3.0, 3.0, 8.0))
    (tmp_path / "b" / "b_frame12_gt.nii.gz").unlink()
    dataset = patients(tmp_path)
    assert auto.choose(dataset, ["a", "b", "c"], ["a"]) == (1.5, 32)
    assert auto.choose(dataset, ["b", "c", "c"], ["a"]) == (1.5, 32)
    assert auto.choose(dataset, ["nobody"], ["a"], given_resolution=0.3) == (0.3, 96)
    with pytest.raises(UserError, match="label of ES"):
        auto.choose(dataset, [], ["b"])
    assert auto.choose(dataset, ["nobody"], ["a", "b"], skip_unusable=True) == (1.375, 32)
    with pytest.raises(UserError, match="label of ES"):  # there is nothing to choose from
        auto.choose(dataset, ["a"], ["b"], skip_unusable=True)
