"""NRRD and MetaImage files, held against SimpleITK; what all formats share, labels above all."""

import gzip
import os
import struct
import tracemalloc
import zlib

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from patients import nifti_bytes, write_nifti

from tfaug.data import images
from tfaug.engine.errors import UserError

SHAPE = (9, 8, 5)
IMAGE = np.random.default_rng(0).integers(0, 120, SHAPE).astype(np.int16)
SPACING = (1.5, 1.25, 8.0)
AXES = nibabel.eulerangles.euler2mat(0.4, -0.2, 3.1) @ np.diag([1, 1, -1])
RAS = np.diag([-1, -1, 1])


def write(path, array=IMAGE, compress=True):
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(SPACING)
    image.SetDirection(AXES.ravel().tolist())
    image.SetOrigin((10, -20, 30.5))
    sitk.WriteImage(image, str(path), useCompression=compress)
    return path


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii.gz", ".nii", ".NRRD", ".Nii.GZ"])
def test_every_real_type_and_the_geometry_are_as_simpleitk_wrote_them(tmp_path, suffix, dtype, compress):
    path = write(tmp_path / f"image{suffix.lower()}", IMAGE.astype(dtype), compress).rename(tmp_path / f"image{suffix}")
    scan = images.read(path, dtype=None)
    assert scan.array.dtype == dtype
    np.testing.assert_array_equal(scan.array, IMAGE)
    np.testing.assert_allclose(scan.spacing, SPACING, rtol=1e-6)
    for frame in scan.frames:
        np.testing.assert_allclose(frame.axes, RAS @ AXES, atol=1e-3 if ".nii" in suffix.lower() else 1e-12)
        np.testing.assert_allclose(frame.origin, [-10, 20, 30.5])
    assert scan.frames
    assert images.read(path, content=path.read_bytes()).array.dtype == np.float32


@pytest.mark.parametrize("space", ["left-posterior-superior", "right-anterior-superior", "LAS", "scanner-xyz"])
@pytest.mark.parametrize("endian", ["little", "big"])
def test_nrrd_of_other_programs_is_read_as_simpleitk_reads_it(tmp_path, space, endian):
    path = tmp_path / "image.nrrd"
    path.write_bytes(nrrd({"space": space, "endian": endian}, IMAGE.astype(">i2" if endian == "big" else "<i2")))
    scan, theirs = images.read(path), sitk.ReadImage(str(path))
    np.testing.assert_array_equal(scan.array, sitk.GetArrayFromImage(theirs).T)
    np.testing.assert_allclose(scan.spacing, theirs.GetSpacing())
    (frame,) = scan.frames
    np.testing.assert_allclose(frame.axes, RAS @ np.reshape(theirs.GetDirection(), (3, 3)), atol=1e-12)
    np.testing.assert_allclose(frame.origin, RAS @ theirs.GetOrigin())


def test_an_nrrd_without_directions_has_no_frame(tmp_path):
    path = tmp_path / "image.nrrd"
    path.write_bytes(nrrd({"space": None, "space directions": None, "space origin": None, "spacings": "1.5 1.25 8"}))
    assert images.read(path)[1:] == (SPACING, ())


def nrrd(changed=(), array=IMAGE, magic="NRRD0005"):
    """The lines of a 3D Slicer file, uncompressed; None removes a field."""
    fields = {
        "type": "int16",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "9 8 5",
        "space directions": "(0,1.5,0) (-1.25,0,0) (0,0,8)",
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "raw",
        "space origin": "(10,-20,30.5)",
        **dict(changed),
    }
    lines = [f"{key}: {value}" for key, value in fields.items() if value is not None]
    head = "\n".join([magic, "# a comment", *lines, "Segment0_Name:=LV", "", ""])
    return head.encode() + array.tobytes(order="F")


def mha(changed=(), array=IMAGE):
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "10 -20 30.5",
        "ElementSpacing": "1.5 1.25 8",
        "DimSize": "9 8 5",
        "ElementType": "MET_SHORT",
        **dict(changed),
    }
    fields = {**fields, "ElementDataFile": fields.pop("ElementDataFile", "LOCAL")}
    lines = [f"{key} = {value}\n" for key, value in fields.items() if value is not None]
    return "".join(lines).encode() + array.tobytes(order="F")


TURN = "0 1 0 1 0 0 0 0 -1"
ROOT_HALF = "0.8 0.6 0 -0.6 0.8 0 0 0 1"
UNPLACED = {"TransformMatrix": None, "Offset": None}
BY_AXIS = {"space": None, "space directions": None, "space origin": None, "spacings": "1.5 1.25 8"}
MINS = {**BY_AXIS, "axis mins": "10 -20 30"}
PLACES = {
    "mha as SimpleITK writes it": mha({"AnatomicalOrientation": "RAI", "CenterOfRotation": "0 0 0"}),
    "mha oblique": mha({"TransformMatrix": ROOT_HALF, "CenterOfRotation": "5 5 5"}),
    "mha Orientation": mha({"TransformMatrix": None, "Orientation": TURN}),
    "mha Rotation": mha({"TransformMatrix": None, "Rotation": TURN}),
    "mha Rotation and Position": mha({**UNPLACED, "Rotation": ROOT_HALF, "Position": "1 2 3"}),
    "mha Orientation alone": mha({**UNPLACED, "Orientation": TURN}),
    "mha Offset alone": mha({"TransformMatrix": None}),
    "mha Position alone": mha({**UNPLACED, "Position": "1 2 3"}),
    "mha Origin alone": mha({**UNPLACED, "Origin": "1 2 3"}),
    "mha all matrices": mha({"Orientation": TURN, "Rotation": ROOT_HALF}),
    "mha two matrices": mha({"TransformMatrix": None, "Orientation": TURN, "Rotation": ROOT_HALF}),
    "mha all origins": mha({"Position": "1 2 3", "Origin": "4 5 6"}),
    "mha Offset and Position": mha({"Position": "1 2 3"}),
    "mha Position and Origin": mha({"Offset": None, "Position": "1 2 3", "Origin": "4 5 6"}),
    "mha nothing": mha(UNPLACED),
    "mha ElementSize": mha({"ElementSpacing": None, "ElementSize": "1.5 1.25 8"}),
    "mha ElementSize beside ElementSpacing": mha({"ElementSize": "2 2 9"}),
    "nrrd as Slicer writes it": nrrd(),
    "nrrd RAS": nrrd({"space": "RAS"}),
    "nrrd without an origin": nrrd({"space origin": None}),
    "nrrd measurement frame": nrrd({"measurement frame": "(1,0,0) (0,-1,0) (0,0,1)"}),
    "nrrd spacings": nrrd(BY_AXIS),
    "nrrd axis mins": nrrd(MINS),
    "nrrd unknown axis mins": nrrd({**MINS, "axis mins": "NaN nan NaN"}),
    "nrrd axis mins of cells": nrrd({**MINS, "centers": "cell cell cell"}),
    "nrrd axis mins of nodes": nrrd({**MINS, "centerings": "node node node"}),
    "nrrd axis mins of either": nrrd({**MINS, "centers": "node ??? none"}),
    "nrrd axismins": nrrd({**BY_AXIS, "axismins": "10 -20 30"}),
    "nrrd axis maxs": nrrd({**BY_AXIS, "axis maxs": "9 8 40"}),
    "nrrd joined names": nrrd(
        {"space directions": None, "spacedirections": "(0,1.5,0) (-1.25,0,0) (0,0,8)", "space origin": None}
        | {"spaceorigin": "(1,2,3)"}
    ),
    "nrrd capitals": nrrd({"space origin": None, "Space Origin": "(1,2,3)"}),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_mask_lies_where_simpleitk_sees_the_scan_however_its_header_says_so(tmp_path, name):
    paths = [tmp_path / f"{kind}.{name.split()[0]}" for kind in ("scan", "mask")]
    paths[0].write_bytes(PLACES[name])
    np.testing.assert_array_equal(images.read(paths[0]).array, IMAGE)
    images.write(paths[1], (IMAGE > 60).astype(np.uint8), paths[0])
    scan, mask = (sitk.ReadImage(str(path)) for path in paths)
    assert mask.IsSameImageGeometryAs(scan, 1e-9, 1e-9)


def test_an_nrrd_with_an_origin_in_space_and_no_directions_lies_along_its_axes(tmp_path):
    """SimpleITK does not read it."""
    path = tmp_path / "image.nrrd"
    path.write_bytes(nrrd({"space": "RAS", "space directions": None, "spacings": "1.5 1.25 8"}))
    (frame,) = images.read(path).frames
    np.testing.assert_array_equal(frame.axes, np.eye(3))
    np.testing.assert_array_equal(frame.origin, [10, -20, 30.5])


def with_nan(value):
    image = IMAGE.astype(np.float32)
    image[3, 2, 1] = value
    return image


NRRD_FAULTS = [
    ("D1", nrrd()[:-1], "ends before the last voxel"),
    ("D1 header", nrrd()[:60], "ends within its header"),
    ("D5", b"", "is empty"),
    ("D6", b"see the other folder\n", "not an NRRD file"),
    ("D7", nrrd({"sizes": "32767 32767 32767"}), "more than"),
    ("D7 short data", nrrd({"sizes": "400 400 400"}), "ends before"),
    ("D8", nrrd() + bytes(10), "more data"),
    ("D9", nrrd({"sizes": "-9 8 5"}), "impossible shape"),
    ("D10", nrrd({"sizes": "9 0 5"}), "impossible shape"),
    ("sizes", nrrd({"sizes": "9 8"}), "sizes '9 8' where 3 sizes"),
    ("sizes huge", nrrd({"sizes": "9 8 " + "5" * 5000}), "where 3 sizes"),
    ("D11", nrrd({"space directions": "(0,0,0) (0,1,0) (0,0,8)"}), "length 0"),
    ("D11 missing", nrrd({"space directions": None}), "no spacings"),
    ("D12", nrrd({"space directions": None, "spacings": "1.5 -1 8"}), "voxel size"),
    ("D13", nrrd({"space directions": None, "spacings": "1.5 nan 8"}), "where 3 numbers"),
    ("D13 absurd", nrrd({"space directions": "(0,1.5,0) (-1.25,0,0) (0,0,8e30)"}), "voxel size"),
    ("D13 metres", nrrd({"space units": '"m" "m" "m"'}), "another unit"),
    ("D16", nrrd({"space directions": "(1,1,0) (0,1,0) (0,0,8)"}), "not orthogonal"),
    ("D16 origin", nrrd({"space origin": "(1,inf,0)"}), "space origin .* where 3 numbers"),
    ("D16 axis mins", nrrd({**MINS, "axis mins": "10 nan 30"}), "axis mins .* where 3 numbers"),
    ("D16 centers", nrrd({**MINS, "centers": "cell cell"}), "centers 'cell cell' where 3 words"),
    ("D17", nrrd({"type": "float"}, with_nan(np.nan)), "NaN or infinite"),
    ("D19 block", nrrd({"type": "block"}), "type 'block' where real numbers"),
    ("D19 RGB", nrrd({"kinds": "RGB-color domain domain"}), "rgb-color"),
    ("D20", nrrd({"dimension": "4"}), "dimension '4' where 3"),
    ("no endian", nrrd({"endian": None}), "no endian"),
    ("encoding", nrrd({"encoding": "bzip2"}), "encoding 'bzip2'"),
    ("skip", nrrd({"byte skip": "-1"}), "byte skip '-1'"),
    ("twice", nrrd({"type": "int16\ntype: uint8"}), "type twice"),
    ("detached", nrrd({"data file": "../../etc/passwd"}), "in another file; save it again as one file"),
    ("magic", nrrd(magic="NRRD0009"), "not an NRRD file"),
]
MHA_FAULTS = [
    ("D1", mha()[:-1], "ends before the last voxel"),
    ("D1 header", mha()[:60], "ends within its header"),
    (
        "D2",
        mha({"CompressedData": "True"}, np.frombuffer(zlib.compress(IMAGE.tobytes())[:-4] + bytes(4), "u1")),
        "check",
    ),
    ("D3", mha({"CompressedData": "True"}, np.frombuffer(zlib.compress(IMAGE.tobytes())[:-1], "u1")), "end early"),
    ("D4", mha({"CompressedData": "True"}), "cut off or damaged"),
    ("D5", b"", "is empty"),
    ("D6", b"see the other folder\n", "not a MetaImage file"),
    ("D7", mha({"DimSize": "32767 32767 32767"}), "more than"),
    ("D8", mha() + bytes(10), "more data"),
    ("D10", mha({"DimSize": "9 0 5"}), "impossible shape"),
    ("D11", mha({"ElementSpacing": "1.5 0 8"}), "voxel size"),
    ("D11 missing", mha({"ElementSpacing": None}), "no ElementSize"),
    ("D12", mha({"ElementSpacing": "1.5 -1 8"}), "voxel size"),
    ("D13", mha({"ElementSpacing": "1.5 nan 8"}), "where 3 numbers"),
    ("D16", mha({"TransformMatrix": "1 0 0 0.6 0.8 0 0 0 1"}), "not orthogonal"),
    (
        "D16 Rotation",
        mha({**UNPLACED, "Rotation": "1 0 0 0.6 0.8 0 0 0 1"}),
        r"directions \(Rotation\) whose axes are not ort",
    ),
    ("D16 Position", mha({**UNPLACED, "Position": "1 2"}), "Position '1 2' where 3 numbers"),
    ("D16 length", mha({"TransformMatrix": "2 0 0 0 1 0 0 0 1"}), "not of length 1"),
    ("D17", mha({"ElementType": "MET_FLOAT"}, with_nan(-np.inf)), "NaN or infinite"),
    ("D18", mha({"ElementToIntensityFunctionSlope": "2"}), "Slope '2'"),
    ("D19", mha({"ElementNumberOfChannels": "3"}), "ElementNumberOfChannels '3'"),
    ("D19 type", mha({"ElementType": "MET_STRING"}), "real numbers"),
    ("D20", mha({"NDims": "4"}), "NDims '4' where 3"),
    ("ASCII", mha({"BinaryData": "False"}), "BinaryData 'False'"),
    ("no object", mha({"ObjectType": "Tube"}), "ObjectType 'Tube'"),
    ("detached", mha({"ElementDataFile": "/etc/passwd"}), "in another file"),
    ("detached list", mha({"ElementDataFile": "LIST"}), "in another file"),
]
FAULTS = [
    *((f"{name} nrrd", ".nrrd", content, expect) for name, content, expect in NRRD_FAULTS),
    *((f"{name} mha", ".mha", content, expect) for name, content, expect in MHA_FAULTS),
]


@pytest.mark.parametrize(("suffix", "content", "expect"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_faulty_file_is_one_line_that_names_it(tmp_path, suffix, content, expect):
    path = tmp_path / f"image{suffix}"
    path.write_bytes(content)
    for given in (None, content):
        with pytest.raises(UserError, match=expect) as caught:
            images.read(path, content=given)
        assert caught.value.subject == str(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_the_files_that_the_faults_are_made_of_are_sound(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    path.write_bytes({".nrrd": nrrd, ".mha": mha}[suffix]())
    np.testing.assert_array_equal(images.read(path).array, IMAGE)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("image.nrrd", nrrd({"sizes": "400 400 400"})),
        ("image.nrrd", nrrd({"encoding": "gzip"}, np.frombuffer(gzip.compress(bytes(60 * 2**20), 1), "u1"))),
        ("image.mha", mha({"CompressedData": "True"}, np.frombuffer(zlib.compress(bytes(60 * 2**20), 1), "u1"))),
    ],
    ids=["D7 declares 128 MB", "D8 nrrd of 60 MB", "D8 mha of 60 MB"],
)
def test_memory_follows_the_smaller_of_declared_and_real_size(tmp_path, name, content):
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="more data|ends before"):
            images.read(tmp_path / name, content=content)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_random_damage_never_ends_in_a_traceback_or_in_other_voxels(tmp_path, suffix, compress):
    """Cuts and flips; those of an uncompressed file hit its header, where nothing but sense protects it."""
    rng = np.random.default_rng(3)
    intact = write(tmp_path / f"intact{suffix}", compress=compress).read_bytes()
    header = len(intact) - IMAGE.nbytes
    path, rejected = tmp_path / f"image{suffix}", 0
    for trial in range(400):
        damaged = bytearray(intact)
        if trial % 3 == 0:
            del damaged[rng.integers(len(intact)) :]
        else:
            damaged[rng.integers(len(intact) if compress else header)] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            scan = images.read(path)
        except UserError:
            rejected += 1
            continue
        assert np.isfinite(scan.array).all() and min(scan.spacing) > 0
        if compress and scan.array.shape == SHAPE:
            assert np.array_equal(scan.array, IMAGE) or b"MET_USHORT" in damaged or b"unsigned" in damaged
    assert rejected > 130


@pytest.mark.parametrize("name", ["image.dcm", "image", "image.mhd", "image.nhdr", ".nrrd", "image.gz"])
def test_other_formats_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=r"in no format that tfaug reads; give one of \.nii\.gz, \.nii, \.nrrd, \.mha"):
        images.read(tmp_path / name)


@pytest.mark.parametrize("name", ["image.nrrd", "image.mha", "image.nii"])
def test_d26_a_pipe_or_a_missing_file(tmp_path, name):
    with pytest.raises(UserError, match="No such file"):
        images.read(tmp_path / name)
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="not a regular file"):
        images.read(tmp_path / name)


def test_d39_nifti_2(tmp_path):
    scan = nibabel.Nifti2Image(IMAGE, None)
    scan.header.set_zooms(SPACING)
    nibabel.save(scan, tmp_path / "image.nii.gz")
    found = images.read(tmp_path / "image.nii.gz")
    np.testing.assert_array_equal(found.array, IMAGE)
    assert found.spacing == SPACING


def test_random_damage_of_a_nifti_2_header_never_ends_in_a_traceback(tmp_path):
    nibabel.save(nibabel.Nifti2Image(IMAGE, np.diag([1.5, 1.25, 8, 1])), tmp_path / "intact.nii")
    intact, rng = (tmp_path / "intact.nii").read_bytes(), np.random.default_rng(4)
    for trial in range(400):
        damaged = bytearray(intact)
        damaged[rng.integers(544)] = rng.integers(256)
        if trial % 3 == 0:
            del damaged[rng.integers(len(intact)) :]
        try:
            scan = images.read(tmp_path / "intact.nii", content=bytes(damaged))
        except UserError:
            continue
        assert scan.array.shape == SHAPE and np.isfinite(scan.array).all()


def test_d40_a_large_ct_is_within_bounds(tmp_path):
    content = nifti_bytes(np.zeros((512, 512, 1), np.int16), dim=[3, 512, 512, 300, 1, 1, 1, 1])
    with pytest.raises(UserError, match="ends before the last voxel"):  # its header is not to blame
        images.read(tmp_path / "ct.nii", content=content)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_a_label_lies_where_its_scan_lies(tmp_path, suffix, dtype):
    scan = write(tmp_path / f"scan{suffix}")
    label = (IMAGE > 60).astype(dtype) * np.iinfo(dtype).max
    images.write(tmp_path / f"label{suffix}", label, scan)
    found, expected = images.read(tmp_path / f"label{suffix}", None), images.read(scan)
    assert found.array.dtype == dtype
    np.testing.assert_array_equal(found.array, label)
    assert found.spacing == pytest.approx(expected.spacing, rel=1e-12)
    for ours, theirs in zip(found.frames, expected.frames):
        np.testing.assert_allclose(ours.axes, theirs.axes, atol=1e-12)
        np.testing.assert_allclose(ours.origin, theirs.origin, atol=1e-12)
    ours, theirs = (sitk.ReadImage(str(tmp_path / f"{kind}{suffix}")) for kind in ("label", "scan"))
    assert ours.IsSameImageGeometryAs(theirs, 1e-9, 1e-9)


@pytest.mark.parametrize(
    "name, content",
    [
        ("scan.nrrd", nrrd({"endian": "big"}, IMAGE.astype(">i2"))),
        ("scan.mha", mha({"BinaryDataByteOrderMSB": "True"}, IMAGE.astype(">i2"))),
    ],
)
def test_an_image_can_be_written_in_the_voxel_type_of_a_big_endian_scan(tmp_path, name, content):
    """As `tfaug generate` does."""
    (tmp_path / name).write_bytes(content)
    source = images.read(tmp_path / name, None).array
    assert source.dtype == np.dtype(">i2")
    images.write(tmp_path / f"made-{name}", (IMAGE + 1).astype(source.dtype), tmp_path / name)
    made = images.read(tmp_path / f"made-{name}", None).array
    assert made.dtype == np.int16
    np.testing.assert_array_equal(made, IMAGE + 1)


def headers():
    """Of NIfTI scans; the first is as ACDC's are, with a true qform beside a unit sform."""
    found = {name: nibabel.Nifti1Header() for name in ("acdc", "both", "qform only")}
    found["NIfTI-2"] = nibabel.Nifti2Header()
    found["big endian, sform only"] = nibabel.Nifti1Header(endianness=">")
    affine = nibabel.affines.from_matvec(AXES * SPACING, [1, 2, 3])
    for name, header in found.items():
        header.set_data_dtype(np.int16)
        header.set_data_shape(SHAPE)
        header.set_zooms(SPACING)
        header.set_xyzt_units("mm", "sec")
        header.set_qform(affine, code=0 if "sform only" in name else 1)
        header.set_sform(np.eye(4) if name == "acdc" else affine, code=0 if name == "qform only" else 2)
    return found


@pytest.mark.parametrize("name", headers())
def test_a_label_has_both_transforms_of_its_nifti_scan_as_they_are(tmp_path, name):
    header = headers()[name]
    kind = nibabel.Nifti2Image if name == "NIfTI-2" else nibabel.Nifti1Image
    nibabel.save(kind(IMAGE, None, header), tmp_path / "scan.nii.gz")
    images.write(tmp_path / "label.nii.gz", (IMAGE > 60).astype(np.uint8), tmp_path / "scan.nii.gz")
    scan, label = (nibabel.load(tmp_path / f"{kind}.nii.gz") for kind in ("scan", "label"))
    np.testing.assert_array_equal(np.asarray(label.dataobj), IMAGE > 60)
    np.testing.assert_array_equal(label.affine, scan.affine)
    for transform in ("get_qform", "get_sform"):
        ours, theirs = (getattr(image.header, transform)(coded=True) for image in (label, scan))
        assert ours[1] == theirs[1]
        np.testing.assert_array_equal(ours[0], theirs[0])  # None where the code is 0
    assert label.header.get_zooms() == scan.header.get_zooms()
    assert label.header.get_xyzt_units() == scan.header.get_xyzt_units()
    assert label.get_data_dtype() == np.uint8
    if name != "NIfTI-2":
        assert struct.unpack("<ff", gzip.open(tmp_path / "label.nii.gz").read(120)[112:]) == (1.0, 0.0)  # scl_*


@pytest.mark.parametrize("size", [0, 7, 48, 2**31 - 1, -16])
def test_a_label_can_be_written_for_every_scan_that_can_be_read(tmp_path, size, capfd):
    """The scan's header extension is nonsense, and its qform's handedness is neither 1 nor -1."""
    content = bytearray(nifti_bytes(IMAGE, qform_code=1, vox_offset=384))
    content[76:80] = struct.pack("<f", 5)  # pixdim[0]
    content[348:352] = b"\1\0\0\0" + struct.pack("<i", size) + bytes(28)
    (tmp_path / "scan.nii").write_bytes(content)
    np.testing.assert_array_equal(images.read(tmp_path / "scan.nii").array, IMAGE)
    images.write(tmp_path / "label.nii", (IMAGE > 60).astype(np.uint8), tmp_path / "scan.nii")
    np.testing.assert_array_equal(images.read(tmp_path / "label.nii").array, IMAGE > 60)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii"])
def test_a_label_that_cannot_be_written_is_the_machines_fault(tmp_path, suffix):
    scan = write(tmp_path / f"scan{suffix}")
    with pytest.raises(OSError):
        images.write(tmp_path / f"nowhere/label{suffix}", (IMAGE > 60).astype(np.uint8), scan)


def test_a_label_for_a_scan_that_is_damaged(tmp_path):
    (tmp_path / "scan.nrrd").write_bytes(b"NRRD0004\n")
    with pytest.raises(UserError, match="scan.nrrd: ends within its header"):
        images.write(tmp_path / "label.nrrd", (IMAGE > 60).astype(np.uint8), tmp_path / "scan.nrrd")


def test_several_channels_are_the_fourth_axis_of_a_nifti_file(tmp_path):
    path = write_nifti(tmp_path / "image.nii.gz", np.stack([IMAGE, IMAGE + 1], -1))
    np.testing.assert_array_equal(images.read(path, channels=2).array, np.stack([IMAGE, IMAGE + 1], -1))
    with pytest.raises(UserError, match="holds 2 channels where 3 are expected"):
        images.read(path, channels=3)
    with pytest.raises(UserError, match="4 dimensions where 3 are expected"):
        images.read(path)
    for name in ("image.nii", "image.mha"):
        with pytest.raises(UserError, match="holds 1 channel.? where 2 are expected"):
            images.read(write(tmp_path / name), channels=2)


@pytest.mark.parametrize("name", ["label.nii.gz", "label.png"])
def test_a_label_is_written_in_the_format_of_its_scan(tmp_path, name):
    with pytest.raises(
        UserError, match=f"{name}: is (not in the format of scan.nrrd; end its name in .nrrd|in no format)"
    ):
        images.write(tmp_path / name, (IMAGE > 60).astype(np.uint8), write(tmp_path / "scan.nrrd"))
    assert not (tmp_path / name).exists()
