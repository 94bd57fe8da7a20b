import gzip
import os
import tracemalloc

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from patients import nifti_bytes, sform, write_nifti

from tfaug.data import images
from tfaug.engine.errors import UserError

SHAPE = (7, 6, 5)
IMAGE = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)


def with_nan(value):
    image = IMAGE.astype(np.float32)
    image[3, 2, 1] = value
    return image


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "<u2", "<i4", "<i8", "<f4", ">f4", "<f8"])
def test_every_real_type_is_read_in_file_order(tmp_path, name, dtype):
    image = (IMAGE % 100).astype(dtype)
    content = nifti_bytes(image)
    if dtype.startswith(">"):
        content = nibabel.Nifti1Header(content[:348]).as_byteswapped(">").binaryblock + content[348:]
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)

    scan = images.read(path)

    assert scan.array.dtype == np.float32
    np.testing.assert_array_equal(scan.array, image)
    assert scan.spacing == (1.5, 1.25, 8.0)


def test_slope_and_intercept_are_applied(tmp_path):
    path = write_nifti(tmp_path / "image.nii.gz", IMAGE, scl_slope=0.5, scl_inter=-3)
    np.testing.assert_array_equal(images.read(path).array, IMAGE * 0.5 - 3)


def test_slope_zero_means_unscaled(tmp_path):
    path = write_nifti(tmp_path / "image.nii.gz", IMAGE, scl_slope=0, scl_inter=5)
    np.testing.assert_array_equal(images.read(path).array, IMAGE)


def test_d14_spacing_is_pixdim_even_beside_a_unit_sform(tmp_path):
    rows = np.eye(4, dtype=np.float32)
    path = write_nifti(
        tmp_path / "image.nii.gz", IMAGE, sform_code=1, qform_code=1, srow_x=rows[0], srow_y=rows[1], srow_z=rows[2]
    )
    assert images.read(path).spacing == (1.5, 1.25, 8.0)


@pytest.mark.parametrize("handedness", [1, -1])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_frames_are_the_transforms_that_nibabel_finds(tmp_path, kind, handedness):
    axes = nibabel.eulerangles.euler2mat(0.4, -0.2, 3.1) @ np.diag([1, 1, handedness])
    affine = nibabel.affines.from_matvec(axes * [1.5, 1.25, 8], [1, 2, 3])
    image = kind(IMAGE, None)
    image.header.set_zooms((1.5, 1.25, 8))
    assert frames(image, tmp_path) == ()
    image.header.set_qform(affine, code=1)
    image.header.set_sform(affine, code=2)
    qform, sform = frames(image, tmp_path)
    np.testing.assert_allclose(qform.axes, axes, atol=1e-3)
    np.testing.assert_allclose(sform.axes, axes, atol=1e-6)
    for frame in (qform, sform):
        np.testing.assert_allclose(frame.origin, [1, 2, 3])
    image.header.set_sform(np.eye(4), code=1)  # a placeholder
    (alone,) = frames(image, tmp_path)
    np.testing.assert_allclose(alone.axes, axes, atol=1e-3)


def frames(image, folder):
    nibabel.save(image, folder / "image.nii")
    return images.read(folder / "image.nii").frames


def gz(content):
    return lambda path: path.write_bytes(gzip.compress(content))


def raw(content):
    return lambda path: path.write_bytes(content)


def header(image=IMAGE, **fields):
    return lambda path: write_nifti(path, image, **fields)


def truncated(path):
    content = gzip.compress(nifti_bytes(IMAGE))
    path.write_bytes(content[: len(content) // 2])


def flipped(path):
    content = bytearray(gzip.compress(nifti_bytes(IMAGE), compresslevel=0))
    content[-20] ^= 0x10  # a voxel, stored as it is: only the checksum tells
    path.write_bytes(content)


def dim(*sizes):
    return [len(sizes), *sizes, *[1] * (7 - len(sizes))]


def pixdim(*spacing):
    return [1, *spacing, 0, 0, 0, 0]


COMPLETE = gzip.compress(nifti_bytes(IMAGE))
SHEAR = {"sform_code": 1, "srow_x": [1, 0.5, 0, 0], "srow_y": [0, 1, 0, 0], "srow_z": [0, 0, 1, 0]}
FLAT = {"sform_code": 1, "srow_x": [1, 0, 0, 0], "srow_y": [0, 0, 0, 0], "srow_z": [0, 0, 1, 0]}

FAULTS = [
    ("D1", truncated, "cut off"),
    ("D2", flipped, "not an intact gzip file .*CRC"),
    ("D3 no trailer", raw(COMPLETE[:-8]), "cut off"),
    ("D3 half a trailer", raw(COMPLETE[:-3]), "cut off"),
    ("D3 wrong trailer", raw(COMPLETE[:-8] + bytes(8)), "CRC"),
    ("D3 wrong length", raw(COMPLETE[:-4] + bytes(4)), "length"),
    ("D3 foreign bytes behind", raw(COMPLETE + b"more"), "not an intact gzip file"),
    ("D4", raw(nifti_bytes(IMAGE)), "not an intact gzip file"),
    ("D5", raw(b""), "empty"),
    ("D5 compressed", gz(b""), "empty"),
    ("D6", raw(b"patient001: see the other folder\n"), "not an intact gzip file"),
    ("D6 compressed", gz(b"a text " * 100), "not a NIfTI file"),
    ("D6 short", gz(b"n+1"), "not a NIfTI file"),
    ("D7", header(dim=dim(32767, 32767, 32767)), "more than"),
    ("D7 short data", header(dim=dim(400, 400, 400)), "ends before"),
    ("D8", gz(nifti_bytes(IMAGE) + bytes(10**6)), "more data"),
    ("D9", header(dim=dim(-7, 6, 5)), r"impossible shape \(-7, 6, 5\)"),
    ("D10", header(dim=dim(7, 0, 5)), r"impossible shape \(7, 0, 5\)"),
    ("D11", header(pixdim=pixdim(1.5, 0, 8)), "voxel size"),
    ("D12", header(pixdim=pixdim(1.5, -1.25, 8)), "voxel size"),
    ("D13", header(pixdim=pixdim(1.5, np.nan, 8)), "voxel size"),
    ("D13 infinite", header(pixdim=pixdim(1.5, np.inf, 8)), "voxel size"),
    ("D13 absurd", header(pixdim=pixdim(1.5, 1e30, 8)), "voxel size"),
    ("D13 metres", header(xyzt_units=1), "another unit"),
    ("D13 metres, unsaid", header(pixdim=pixdim(0.0015, 0.0015, 0.008)), "0.0105 mm wide"),
    ("D13 metres, unsaid, of the widest", header(pixdim=pixdim(0.5 / 7, 0.5 / 7, 0.3)), "0.5 mm wide"),
    ("D13 narrower than any scan", header(pixdim=pixdim(0.142, 0.142, 8)), "0.994 mm wide"),
    ("D16 offset", header(qform_code=1, qoffset_y=np.nan), "qform that is not finite"),
    ("D16 sform offset", header(**{**SHEAR, "srow_x": [1, 0, 0, np.inf]}), "sform that is not finite"),
    ("D16", header(**SHEAR), "not orthogonal"),
    ("D16 singular", header(**FLAT), "axis of length 0"),
    ("D16 NaN", header(**{**SHEAR, "srow_x": [np.nan, 0, 0, 0]}), "not finite"),
    ("D16 quaternion", header(qform_code=1, quatern_b=0.9, quatern_c=0.9), "not a rotation"),
    ("D17 NaN", header(with_nan(np.nan)), "NaN or infinite"),
    ("D17 Inf", header(with_nan(-np.inf)), "NaN or infinite"),
    ("D18 slope", header(scl_slope=np.nan), "slope nan"),
    ("D18 infinite slope", header(scl_slope=np.inf), "slope inf"),
    ("D18 intercept", header(scl_inter=np.nan), "intercept nan"),
    ("D18 overflow", header(scl_slope=3e38), "NaN or infinite"),
    ("D19 complex", header(IMAGE.astype(np.complex64)), "complex64"),
    ("D19 RGB", header(np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])), "real numbers"),
    ("D19 unknown", header(datatype=77), "unknown voxel type 77"),
    ("D19 wrong width", header(datatype=16), "bitpix 16"),
    ("D20", header(np.stack([IMAGE, IMAGE], axis=-1)), "4 dimensions"),
    ("D20 one slice", header(IMAGE[..., 0]), "2 dimensions"),
    ("header offset", header(vox_offset=0), "vox_offset"),
    ("header offset far", header(vox_offset=1e30), "vox_offset"),
    ("D26 missing", lambda path: None, "No such file"),
    ("D26 dangling", lambda path: path.symlink_to("nowhere"), "No such file"),
    ("D26 folder", lambda path: path.mkdir(), "not a regular file"),
    ("D26 pipe", lambda path: os.mkfifo(path), "not a regular file"),
]


@pytest.mark.parametrize(("inject", "expect"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_faulty_file_is_one_line_that_names_it(tmp_path, inject, expect):
    path = tmp_path / "image.nii.gz"
    inject(path)
    with pytest.raises(UserError, match=expect) as caught:
        images.read(path)
    assert caught.value.subject == str(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mm", [0.143, 6 / 7])  # 1.001 mm wide; 6 mm, as an OCT
def test_small_scans_are_read(tmp_path, mm):
    path = write_nifti(tmp_path / "image.nii.gz", IMAGE, (mm, mm, 0.002))
    assert images.read(path).spacing == pytest.approx((mm, mm, 0.002))


def test_s9_control_codes_in_a_file_name_are_escaped(tmp_path):
    path = tmp_path / "a\nb\x1b[31m.nii.gz"
    path.write_bytes(b"")
    with pytest.raises(UserError) as caught:
        images.read(path)
    assert str(caught.value).isprintable()
    assert r"a\nb\x1b[31m.nii.gz" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [nifti_bytes(IMAGE, dim=dim(400, 400, 400)), nifti_bytes(IMAGE) + bytes(60 * 2**20)],
    ids=["D7 declares 128 MB, holds 420 bytes", "D8 declares 420 bytes, holds 60 MB"],
)
def test_memory_follows_the_smaller_of_declared_and_real_size(tmp_path, content):
    path = tmp_path / "image.nii.gz"
    path.write_bytes(gzip.compress(content, compresslevel=1))
    tracemalloc.start()
    try:
        with pytest.raises(UserError):
            images.read(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


def test_random_damage_is_an_error_or_harmless(tmp_path):
    """600 flips and cuts of a compressed file: an error for the user, or the very same voxels and spacing."""
    rng = np.random.default_rng(1)
    intact = gzip.compress(nifti_bytes(IMAGE))
    path = tmp_path / "image.nii.gz"
    rejected = 0
    for trial in range(600):
        damaged = bytearray(intact)
        if trial % 3 == 0:
            del damaged[rng.integers(len(intact)) :]
        for _ in range(rng.integers(1, 4) if trial % 3 else 0):
            damaged[rng.integers(len(intact))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            scan = images.read(path)
        except UserError:
            rejected += 1
        else:
            np.testing.assert_array_equal(scan.array, IMAGE)
            assert scan.spacing == (1.5, 1.25, 8.0)
    assert rejected > 500  # what is left hit the time stamp and the like


def test_random_damage_of_an_uncompressed_file_never_ends_in_a_traceback(tmp_path):
    rng = np.random.default_rng(2)
    intact = nifti_bytes(IMAGE)
    path = tmp_path / "image.nii"
    for trial in range(600):
        damaged = bytearray(intact)
        damaged[rng.integers(352)] = rng.integers(256)
        if trial % 3 == 0:
            del damaged[rng.integers(len(intact)) :]
        path.write_bytes(damaged)
        try:
            scan = images.read(path)
        except UserError:
            continue
        assert scan.array.shape == SHAPE
        assert np.isfinite(scan.array).all()
        assert min(scan.spacing) > 0


@pytest.mark.parametrize(
    "pixdim, by_sform, qform_code, contradicts",
    [
        ((1, 1, 1), (0.7, 0.7, 3), 1, True),
        ((1.5, 1.5, 1), (1.5, 1.5, 8), 1, True),
        ((1, 1, 1), (0.7, 0.7, 3), 0, True),
        ((1.5, 1.5, 1), (1.5, 1.5, 8), 0, True),
        ((0.75, 0.75, 8), (1.5, 1.5, 8), 0, True),
        ((1.5, 1.25, 8), (1, 1, 1), 0, True),  # an affine that nobody has set
        ((1.5, 1.25, 8), (1, 1, 1), 1, False),  # a placeholder, see D14
        ((1, 1, 1), (1, 1, 1.001), 1, False),
        ((1.5, 1.25, 8), (1.5, 1.25, 8.01), 0, False),
    ],
)
def test_d37_an_sform_with_another_voxel_size_is_a_contradiction(tmp_path, pixdim, by_sform, qform_code, contradicts):
    """The voxel size is that which ITK reads, and so the labels that its programs save fit."""
    array = np.zeros((12, 12, 3), np.uint8)
    path = write_nifti(tmp_path / "image.nii.gz", array, pixdim, **sform(by_sform, qform_code))
    sizes = [" x ".join(f"{mm:g}" for mm in spacing) for spacing in (pixdim, by_sform)]
    line = f"voxels are {sizes[0]} mm by pixdim (used), {sizes[1]} mm by the sform"
    assert images.contradiction(path) == images.contradiction(path, path.read_bytes()) == line * contradicts
    assert images.read(path).spacing == pytest.approx(pixdim)
    assert sitk.ReadImage(str(path)).GetSpacing() == pytest.approx(pixdim)


def test_d37_an_sform_without_a_code_contradicts_nothing(tmp_path):
    fields = {**sform((0.7, 0.7, 3), 0), "sform_code": 0}
    path = write_nifti(tmp_path / "image.nii.gz", np.zeros((12, 12, 3), np.uint8), (1, 1, 1), **fields)
    assert images.read(path).spacing == (1, 1, 1) and images.contradiction(path) == ""


@pytest.mark.parametrize("qform_code", [0, 1])
def test_d37_directions_count_whatever_the_voxel_size(tmp_path, qform_code):
    turned = sform((1.5, 1.25, 8), qform_code, np.diag([-1.0, -1, 1, 1]))
    path = write_nifti(tmp_path / "image.nii.gz", IMAGE, (1.5, 1.25, 1), **turned)
    np.testing.assert_allclose(images.read(path).frames[-1].axes, np.diag([-1, -1, 1]))
