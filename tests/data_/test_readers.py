"""Folders of the Decathlon and of nnU-Net, pairs of files, and how their layout is found."""

import json
import pickle

import numpy as np
import pytest
import SimpleITK as sitk
from patients import anatomy, write_nifti, write_patient

from tfaug.data import readers
from tfaug.data.readers import acdc, base, msd, pairs
from tfaug.data.readers.base import read_files
from tfaug.data.task import Task
from tfaug.engine.errors import UserError

IMAGE, LABEL = anatomy()
V1 = {"labels": {"0": "background", "10": "left", "2": "right"}, "modality": {"0": "T1"}}
V2 = {"labels": {"background": 0, "left": 10, "right": 2}, "channel_names": {"0": "T1"}}


def write(path, array=IMAGE, **fields):
    path.parent.mkdir(parents=True, exist_ok=True)
    if ".nii" in path.name:
        write_nifti(path, array, **fields)
    else:
        image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
        image.SetSpacing((1.5, 1.25, 8))
        sitk.WriteImage(image, str(path))


def decathlon(root, content=V1, cases=("a", "b"), test=("c",)):
    """Three cases, as the Decathlon names them."""
    root.mkdir(exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(content))
    for case in cases:
        write(root / f"imagesTr/{case}.nii.gz")
        write(root / f"labelsTr/{case}.nii.gz", np.where(LABEL == 1, 10, np.where(LABEL == 2, 2, 0)).astype(np.uint8))
    for case in test:
        write(root / f"imagesTs/{case}.nii.gz")
    return root


def nnunet(root, content=V2, suffix=".nii.gz", channels=2, cases=("a", "b"), test=("c",)):
    """Three cases of two channels, as nnU-Net names them."""
    root.mkdir(exist_ok=True)
    names = {str(n): f"T{n + 1}" for n in range(channels)}
    (root / "dataset.json").write_text(json.dumps({**content, "channel_names": names, "file_ending": suffix}))
    for folder, case in [*(("imagesTr", case) for case in cases), *(("imagesTs", case) for case in test)]:
        for n in range(channels):
            write(root / f"{folder}/{case}_{n:04d}{suffix}", IMAGE + n)
    for case in cases:
        write(root / f"labelsTr/{case}{suffix}", np.where(LABEL == 1, 10, 0).astype(np.uint8))
    return root


def read(root, case, label=True, **options):
    reader = readers.open(root, options)
    task = Task(options["structures"], reader.channels()) if "structures" in options else reader.task()
    return read_files(reader.locate(case, label), task)


@pytest.mark.parametrize("labels", [V1["labels"], V2["labels"]], ids=["by value", "by name"])
def test_structures_come_from_dataset_json_in_the_order_of_their_values(tmp_path, labels):
    reader = readers.open(decathlon(tmp_path, {**V1, "labels": labels}), {})
    assert list(reader.task().structures.items()) == [("right", 2), ("left", 10)]
    assert reader.task().channels == ("T1",)
    found = read(tmp_path, "a")
    np.testing.assert_array_equal(found.label, np.where(LABEL == 1, 2, np.where(LABEL == 2, 1, 0)))
    np.testing.assert_array_equal(found.image[..., 0], IMAGE)


def test_the_config_may_choose_structures_of_its_own(tmp_path):
    decathlon(tmp_path, {"labels": {}, "modality": V1["modality"]})
    np.testing.assert_array_equal(
        read(tmp_path, "a", structures={"l": 10, "r": 2}).label, np.array([0, 2, 1, 0])[LABEL]
    )


@pytest.mark.parametrize("make", [decathlon, nnunet])
def test_cases_without_a_label_and_test_images_are_unlabelled(tmp_path, make):
    reader = readers.open(make(tmp_path), {})
    assert reader.cases() == (("a", "b"), ("c",))
    (tmp_path / "labelsTr/b.nii.gz").unlink()
    (tmp_path / "imagesTr/._a.nii.gz").write_bytes(b"left by macOS")
    (tmp_path / "imagesTr/notes.txt").write_text("")
    reader = readers.open(tmp_path, {})
    assert reader.cases() == (("a",), ("b", "c"))
    assert read(tmp_path, "b", label=False).label is None
    with pytest.raises(UserError, match=r"labelsTr/b.nii.gz: is missing"):
        reader.locate("b")
    pickle.dumps(reader)  # workers take it along


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_channels_are_stacked_in_the_order_of_their_numbers(tmp_path, suffix):
    nnunet(tmp_path, suffix=suffix)
    found = read(tmp_path, "a")
    np.testing.assert_array_equal(found.image, np.stack([IMAGE, IMAGE + 1], axis=-1))
    assert (found.image.dtype, found.path.name) == (np.float32, f"a_0000{suffix}")
    np.testing.assert_array_equal(found.label, 2 * (LABEL == 1))


def test_the_decathlons_4d_files_hold_all_channels(tmp_path):
    decathlon(tmp_path, {**V1, "modality": {"0": "T2", "1": "ADC"}}, cases=("a",), test=())
    write(tmp_path / "imagesTr/a.nii.gz", np.stack([IMAGE, IMAGE + 1], axis=-1))
    np.testing.assert_array_equal(read(tmp_path, "a").image, np.stack([IMAGE, IMAGE + 1], axis=-1))


def test_a_number_at_the_end_of_a_case_is_not_a_channel_if_the_label_has_it_too(tmp_path):
    decathlon(tmp_path, cases=("heart_0001", "heart_0002"), test=("heart_0003",))
    assert readers.open(tmp_path, {}).cases() == (("heart_0001", "heart_0002"), ("heart_0003",))


def dataset(**changed):
    def inject(root):
        content = {**json.loads((root / "dataset.json").read_text()), **changed}
        known = {key: value for key, value in content.items() if value is not None}
        (root / "dataset.json").write_text(json.dumps(known))

    return inject


def add(name, array=IMAGE, **fields):
    return lambda root: write(root / name, array, **fields)


def remove(name):
    return lambda root: (root / name).unlink()


def text(content):
    return lambda root: (root / "dataset.json").write_bytes(content)


MSD_FAULTS = [
    ("not JSON", text(b'{"labels": '), "dataset.json: is not JSON .*line 1"),
    ("binary", text(bytes(range(256))), "dataset.json: is not JSON"),
    ("nested", text(b"[" * 100000), "dataset.json: is not JSON"),
    ("a list", text(b"[]"), "dataset.json: is not a JSON object"),
    ("no labels", dataset(labels=None), "dataset.json: has no labels"),
    ("no background", dataset(labels={"left": 10}), "has 0 labels of the value 0"),
    ("S9", dataset(labels={"background": 0, "a\nb": 1}), r"cannot name a structure 'a\\nb'; choose another name"),
    ("background alone", dataset(labels={"background": 0}), "names 0 structures"),
    ("twice", dataset(labels={"0": "background", "1": "left", "2": "left"}), "two labels of one name"),
    ("one value", dataset(labels={"background": 0, "left": 1, "right": 1}), "left and right the same value 1"),
    ("regions", dataset(labels={"background": 0, "whole": [1, 2], "left": 1}), "'whole' a region .*not supported"),
    ("ignore", dataset(labels={"background": 0, "left": 10, "ignore": 2}), "'ignore'"),
    ("fraction", dataset(labels={"background": 0, "left": 1.5}), "'left' the value 1.5"),
    ("no channels", dataset(channel_names=None), "dataset.json: has no channel_names"),
    ("channel numbers", dataset(channel_names={"0": "T1", "2": "T2"}), "dataset.json: has no channel_names"),
    ("too many", dataset(channel_names={str(n): str(n) for n in range(5)}), "dataset.json: .* there are 5"),
    ("suffix", dataset(file_ending=".png"), "file_ending '.png'; give one of"),
    ("numTraining", dataset(numTraining=3), "numTraining as 3, but labelsTr holds 2 labels"),
    (
        "training",
        dataset(training=[{"image": "./imagesTr/x.nii.gz", "label": "./labelsTr/x.nii.gz"}]),
        "x.nii.gz', which",
    ),
    ("no images", dataset(file_ending=".mha"), "imagesTr: holds no .mha files"),
    ("channel missing", remove("imagesTr/a_0001.nii.gz"), r"imagesTr/a_0001.nii.gz: is missing \(the channel T2"),
    ("first missing", remove("imagesTr/a_0000.nii.gz"), r"imagesTr/a_0000.nii.gz: is missing \(the channel T1"),
    ("channel more", add("imagesTr/a_0002.nii.gz"), "a_0002.nii.gz: is channel 3, but dataset.json names 2 channels"),
    ("odd name", add("imagesTr/odd.nii.gz"), "odd.nii.gz: has neither a label of its name nor"),
    ("label alone", add("labelsTr/x.nii.gz"), "labelsTr/x.nii.gz: has no image"),
    ("D36", add("imagesTs/a_0000.nii.gz"), "imagesTs/a: is also the name of a case in imagesTr"),
    ("other shape", add("imagesTr/a_0001.nii.gz", IMAGE[1:]), "a_0001.nii.gz: has the shape .*, its first channel"),
    ("other grid", add("imagesTr/a_0001.nii.gz", spacing=(1.5, 1.3, 8)), "a_0001.nii.gz: has the voxel size"),
    ("D15", add("labelsTr/a.nii.gz", LABEL[1:]), "labelsTr/a.nii.gz: has the shape .*, its image"),
    ("D22", add("labelsTr/a.nii.gz", np.full_like(LABEL, 3)), "a.nii.gz: holds the label 3 in 1380 voxels"),
]


@pytest.mark.parametrize(("inject", "expect"), [row[1:] for row in MSD_FAULTS], ids=[row[0] for row in MSD_FAULTS])
def test_a_folder_that_contradicts_itself_is_one_line(tmp_path, inject, expect):
    inject(nnunet(tmp_path))
    with pytest.raises(UserError, match=expect) as caught:
        readers.open(tmp_path, {}).cases()
        read(tmp_path, "a")
    assert "\n" not in str(caught.value)


def test_pairs_are_joined_by_the_name_of_the_case(tmp_path):
    for case, suffix in (("a", ".nii.gz"), ("b.1", ".mha"), ("c", ".nrrd")):
        write(tmp_path / f"images/{case}{suffix}")
    write(tmp_path / "labels/a.nrrd", LABEL)
    write(tmp_path / "labels/b.1.nii", LABEL)
    (tmp_path / "images/README.md").write_text("")
    options = {"structures": {"one": 1, "two": 2, "three": 3}}
    reader = readers.open(tmp_path, options)
    assert isinstance(reader, pairs.Reader)
    assert reader.cases() == (("a", "b.1"), ("c",))
    np.testing.assert_array_equal(read(tmp_path, "b.1", **options).label, LABEL)
    assert read(tmp_path, "c", label=False, **options).path.name == "c.nrrd"
    assert (reader.task(), reader.channels()) == (None, ("image",))


def test_patterns_may_name_folders_of_cases_and_several_channels(tmp_path):
    for case in ("a", "b"):
        write(tmp_path / f"{case}/t1.nii.gz")
        write(tmp_path / f"{case}/t2.nii.gz", IMAGE + 1)
    write(tmp_path / "a/seg.nii.gz", LABEL)
    options = {
        **{"reader": "pairs", "images": "*/t1.nii.gz, */t2.nii.gz", "labels": "*/seg.nii.gz"},
        **{"structures": {"one": 1, "two": 2, "three": 3}},
    }
    assert readers.open(tmp_path, options).cases() == (("a",), ("b",))
    np.testing.assert_array_equal(read(tmp_path, "a", **options).image, np.stack([IMAGE, IMAGE + 1], axis=-1))
    (tmp_path / "b/t2.nii.gz").unlink()
    with pytest.raises(UserError, match="b/t2.nii.gz: does not exist"):
        read(tmp_path, "b", label=False, **options)


def test_labels_may_lie_among_the_images(tmp_path):
    for case in ("a", "b"):
        write(tmp_path / f"{case}.nii.gz")
        write(tmp_path / f"{case}_seg.nii.gz", LABEL)
    options = {"reader": "pairs", "images": "*", "labels": "*_seg.nii.gz"}
    assert readers.open(tmp_path, options).cases() == (("a", "b"), ())


@pytest.mark.parametrize(
    ("options", "expect"),
    [
        ({"images": "../*"}, r"data.images: '\.\./\*' leaves the data set's folder"),
        ({"labels": "/etc/*"}, r"data.labels: '/etc/\*' leaves"),
        ({"images": "images"}, "data.images: 'images' is not a pattern"),
        ({"images": "**/*"}, "is not a pattern"),
        ({"labels": "labels/[ab]*"}, "data.labels: .* is not a pattern"),
        ({"images": "scans/*"}, r"holds no file of the pattern 'scans/\*'"),
    ],
)
def test_s4_patterns_stay_in_the_folder(tmp_path, options, expect):
    with pytest.raises(UserError, match=expect):
        readers.open(tmp_path, {"reader": "pairs", **options}).cases()


def test_two_files_of_one_case_and_a_label_without_an_image(tmp_path):
    write(tmp_path / "images/a.nii.gz")
    write(tmp_path / "labels/b.nii.gz", LABEL)
    with pytest.raises(UserError, match="labels/b.nii.gz: has no image"):
        readers.open(tmp_path, {}).cases()
    write(tmp_path / "images/a.nrrd")
    with pytest.raises(UserError, match="images/a.nrrd: is of the same case as a.nii.gz"):
        readers.open(tmp_path, {}).cases()


@pytest.mark.parametrize(
    "case", ["../a", "/etc/passwd", "..", "", "imagesTr/a", "a\0b", "x" * 300, "a\x1b[31m"], ids=repr
)
@pytest.mark.parametrize("name", ["msd", "pairs"])
def test_s4_a_case_is_only_what_the_folder_lists(tmp_path, name, case):
    decathlon(tmp_path / "root")
    write(tmp_path / "a.nii.gz")
    options = {"reader": name, "images": "imagesTr/*", "labels": "labelsTr/*"}
    with pytest.raises(UserError, match="does not exist") as caught:
        readers.open(tmp_path / "root", options).locate(case)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("case", ["John's scan 7", "; rm -rf $HOME #", "a\nb", "-o", "x.y"], ids=repr)
def test_s8_any_other_name_is_a_case(tmp_path, case):
    decathlon(tmp_path, cases=(case,), test=())
    assert readers.open(tmp_path, {}).cases().labelled == (case,)
    assert read(tmp_path, case).path.name == f"{case}.nii.gz"


def test_the_layout_is_recognised(tmp_path):
    write_patient(tmp_path / "acdc")
    assert isinstance(readers.open(tmp_path / "acdc", {"reader": ""}), acdc.Reader)
    assert isinstance(readers.open(decathlon(tmp_path / "msd"), {}), msd.Reader)
    assert isinstance(readers.open(decathlon(tmp_path / "msd"), {"reader": "pairs"}), pairs.Reader)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UserError, match=r"empty: is of no known layout: acdc \(.*Info.cfg\), msd \(dataset.json .*pairs"
    ):
        readers.open(tmp_path / "empty", {})
    with pytest.raises(UserError, match="nowhere: is not a folder; set data.root"):
        readers.open(tmp_path / "nowhere", {})
    with pytest.raises(UserError, match="data.reader: 'msdd' is unknown; did you mean 'msd'"):
        readers.open(tmp_path, {"reader": "msdd"})


PLUGIN = """
import pathlib
from tfaug.data.readers import Files, Listing, Reader
from tfaug.data.task import Task

class Flat(Reader):
    def task(self):
        return Task({"one": 1, "two": 2, "three": 3})
    def cases(self):
        return Listing(tuple(sorted(p.name[:-7] for p in self.root.glob("*-mr.nii"))), ())
    def locate(self, case, label=True):
        return Files((self.root / f"{case}-mr.nii",), self.root / f"{case}-seg.nii" if label else None)

class Lacking(Reader):
    def task(self):
        return None

class Other(Flat):
    def __init__(self):
        pass

def function(root, options):
    return Flat(root, options)
"""


def test_a_layout_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "own_layouts_for_test.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    write(tmp_path / "a-mr.nii")
    write(tmp_path / "a-seg.nii", LABEL)
    options = {"reader": "own_layouts_for_test:Flat"}
    assert readers.open(tmp_path, options).cases().labelled == ("a",)
    np.testing.assert_array_equal(read(tmp_path, "a", **options).label, LABEL)


@pytest.mark.parametrize(
    ("name", "expect"),
    [("Lacking", "lacks cases, locate"), ("Other", r"does not take \(root, options\)"), ("function", "is no reader")],
)
def test_a_layout_that_cannot_be_used_is_one_line(tmp_path, monkeypatch, name, expect):
    (tmp_path / "own_layouts_for_test.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=f"data.reader: own_layouts_for_test:{name} {expect}") as caught:
        readers.open(tmp_path, {"reader": f"own_layouts_for_test:{name}"})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "case, expected",
    [("Patient_034", "patient034"), ("patient34", "patient034"), ("patient035", None), ("heart", None)],
)
def test_a_misspelled_case_gets_the_nearest_name(case, expected):
    """But another number is another case."""
    remedy = base.absent(case, ["patient033", "patient034"], "add it")
    assert remedy == (f"did you mean {expected!r}? Otherwise add it" if expected else "add it")


ENDINGS = (".mhd", ".nhdr", ".img", ".mgz", ".DCM", ".nrrd")


@pytest.mark.parametrize("layout", ["msd", "pairs", "acdc"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_d42_a_label_that_is_not_read_is_an_error_where_labels_count(tmp_path, layout, ending):
    """And never makes its case an unlabelled one."""
    if layout == "msd":
        decathlon(tmp_path)
        label = tmp_path / "labelsTr/b.nii.gz"
    elif layout == "pairs":
        for case in "ab":
            write(tmp_path / f"images/{case}.nii.gz")
            write(tmp_path / f"labels/{case}.nii.gz", LABEL)
        label = tmp_path / "labels/b.nii.gz"
        if ending == ".nrrd":
            ending = ".mgh"  # the layout takes files of several formats
    else:
        write_patient(tmp_path, "b")
        label = tmp_path / "b/b_frame12_gt.nii.gz"
    other = label.with_name(label.name.replace(".nii.gz", ending))
    other.write_bytes(label.read_bytes())
    assert "b" in readers.find(tmp_path, {}).cases().labelled  # the readable file of its name counts
    label.unlink()
    reader = readers.find(tmp_path, {})
    with pytest.raises(UserError, match=f"{other}: (does not end in|is in a format that|is no NIfTI file).*; save it"):
        reader.cases()
    assert "b" in reader.scans() and reader.locate("b", label=False).images


@pytest.mark.parametrize("layout", ["msd", "pairs"])
def test_d42_an_image_that_is_not_read_is_a_warning(tmp_path, layout, caplog):
    folder = "imagesTr" if layout == "msd" else "images"
    if layout == "msd":
        decathlon(tmp_path, cases="a")
    else:
        write(tmp_path / "images/a.nii.gz")
        write(tmp_path / "labels/a.nii.gz", LABEL)
    for name in ("d.mhd", "a.mhd", "notes.txt", "._d.mhd", "d.raw"):
        (tmp_path / folder / name).write_bytes(b"")
    assert "d" not in readers.find(tmp_path, {}).scans()
    readers.find(tmp_path, {}).cases()
    (record,) = caplog.records
    assert record.message.startswith(f"{tmp_path / folder / 'd.mhd'}: is passed over, as it ")
