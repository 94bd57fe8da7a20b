import gzip
import multiprocessing
import os
import pathlib
import re
import signal
import time

import nibabel as nib
import numpy as np
import pytest

from tfaug.engine.errors import MachineError
from tfaug.engine.signals import Interrupted, deferred_signals
from tfaug.phantom import cohort as phantom

FIRST = {"DCM": 1, "HCM": 21, "MINF": 41, "NOR": 61, "RV": 81}
MEMBERS = 5
RV, MYO, LV = 1, 2, 3


@pytest.fixture(scope="module")
def groups():
    """The first patients of every group, by name of the group."""
    return {group: [phantom.patient(0, first + k) for k in range(MEMBERS)] for group, first in FIRST.items()}


@pytest.fixture(scope="module")
def everyone(groups):
    return [patient for members in groups.values() for patient in members]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three patients in their files, as the workers write them."""
    folder = tmp_path_factory.mktemp("cohort")
    phantom.write_cohort(folder, numbers=(2, 37, 100), num_workers=2)
    return folder


def volume(patient, phase, structure):
    """Millilitres."""
    return (getattr(patient, phase).mask == structure).sum() * np.prod(patient.spacing) / 1000


def ejection_fraction(patient):
    return 1 - volume(patient, "es", LV) / volume(patient, "ed", LV)


def radii(patient):
    """Inner and outer end-diastolic radius of the LV's wall in mm in the slice with most muscle, from areas."""
    mask = patient.ed.mask[:, :, np.argmax((patient.ed.mask == MYO).sum(axis=(0, 1)))]
    return [np.sqrt(area.sum() * patient.spacing[0] ** 2 / np.pi) for area in (mask == LV, mask >= MYO)]


def wall_thickness(patient):
    inner, outer = radii(patient)
    return outer - inner


def relative_wall_thickness(patient):
    return wall_thickness(patient) / radii(patient)[0]


def least_contraction(patient):
    """How far the least moving of twelve sectors of the mid-ventricular cavity draws in, as a share of its radius."""
    depth = np.flatnonzero((patient.es.mask == LV).any(axis=(0, 1)))
    sections = []
    for z in depth[len(depth) // 3 : max(2 * len(depth) // 3, len(depth) // 3 + 1)]:
        cavities = [np.argwhere(phase.mask[:, :, z] == LV) for phase in (patient.ed, patient.es)]
        centre = cavities[0].mean(axis=0)
        areas = []
        for cavity in cavities:
            dx, dy = (cavity - centre).T
            areas.append(np.histogram(np.arctan2(dy, dx), 12, (-np.pi, np.pi))[0])
        sections.append(1 - np.sqrt(areas[1] / areas[0]))
    return np.mean(sections, axis=0).min()


def mean(function, members, *args):
    return np.mean([function(patient, *args) for patient in members])


def test_folders_are_acdcs(root):
    assert sorted(path.name for path in root.iterdir()) == ["patient002", "patient037", "patient100"]
    info = dict(line.split(": ") for line in (root / "patient037" / "Info.cfg").read_text().splitlines())
    assert list(info) == ["ED", "ES", "Group", "Height", "NbFrame", "Weight"]
    assert info["Group"] == "HCM" and info["ED"] == "1" and 1 < int(info["ES"]) < int(info["NbFrame"])
    assert 120 < float(info["Height"]) < 220 and 35 < float(info["Weight"]) < 180
    es = int(info["ES"])
    assert sorted(path.name for path in (root / "patient037").iterdir()) == [
        "Info.cfg",
        "patient037_frame01.nii.gz",
        "patient037_frame01_gt.nii.gz",
        f"patient037_frame{es:02d}.nii.gz",
        f"patient037_frame{es:02d}_gt.nii.gz",
    ]


def test_groups_go_by_number():
    groups = [phantom.group_of(number) for number in range(1, 101)]
    assert groups == ["DCM"] * 20 + ["HCM"] * 20 + ["MINF"] * 20 + ["NOR"] * 20 + ["RV"] * 20


@pytest.mark.parametrize("number", [0, 101, -5])
def test_no_patient_outside_the_cohort(number):
    with pytest.raises(ValueError, match=str(number)):
        phantom.patient(0, number)


def test_headers_carry_true_spacing_and_a_unit_sform(root):
    spacing = phantom.patient(0, 37).spacing
    for path in (root / "patient037").glob("*.nii.gz"):
        header = nib.load(path).header
        np.testing.assert_allclose(header.get_zooms(), spacing, rtol=1e-6)
        qform, qform_code = header.get_qform(coded=True)
        np.testing.assert_allclose(np.linalg.norm(qform[:3, :3], axis=0), spacing, rtol=1e-5)
        sform, sform_code = header.get_sform(coded=True)
        np.testing.assert_array_equal(sform, np.eye(4))
        assert qform_code > 0 and sform_code > 0
        assert header.get_xyzt_units()[0] == "mm"
        assert header.get_data_dtype() == (np.uint8 if "_gt" in path.name else np.int16)


def test_files_hold_the_patient(root):
    made = phantom.patient(0, 100)
    for frame, phase in ((1, made.ed), (made.info["ES"], made.es)):
        stem = root / "patient100" / f"patient100_frame{frame:02d}"
        np.testing.assert_array_equal(np.asarray(nib.load(f"{stem}.nii.gz").dataobj), phase.image)
        np.testing.assert_array_equal(np.asarray(nib.load(f"{stem}_gt.nii.gz").dataobj), phase.mask)


def test_bytes_depend_on_seed_and_number_alone(root, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1e9)  # a time in the gzip header would show
    alone = phantom.write_patient(tmp_path / "elsewhere", 0, 37)
    other_seed = phantom.write_patient(tmp_path / "other", 1, 37)
    for path in alone.iterdir():
        assert path.read_bytes() == (root / "patient037" / path.name).read_bytes()
    image = "patient037_frame01.nii.gz"
    assert (alone / image).read_bytes() != (other_seed / image).read_bytes()


def test_gzip_headers_name_no_file(root):
    for path in root.rglob("*.gz"):
        flags = path.read_bytes()[3]
        assert flags == 0, "an optional field, such as the file's name, is present"
        assert len(gzip.decompress(path.read_bytes())) > 352


def test_a_finished_cohort_says_so_where_there_is_no_terminal(tmp_path, capfd):
    phantom.write_cohort(tmp_path, numbers=(5,), num_workers=1)
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 1 and re.match("built-in cohort: 1/1, ", lines[0])


def test_dilated_hearts_eject_least_and_thick_ones_most(groups):
    fractions = {group: mean(ejection_fraction, members) for group, members in groups.items()}
    assert fractions["DCM"] < fractions["MINF"] - 0.05 < fractions["NOR"] - 0.15
    assert fractions["HCM"] > 0.55 and 0.5 < fractions["NOR"] < 0.75 and fractions["DCM"] < 0.4


def test_walls_and_cavities_differ_as_the_diseases_do(groups):
    normal = groups["NOR"]
    assert mean(wall_thickness, groups["HCM"]) > 1.3 * mean(wall_thickness, normal)
    assert mean(relative_wall_thickness, groups["DCM"]) < 0.8 * mean(relative_wall_thickness, normal)
    assert mean(volume, groups["DCM"], "ed", LV) > 1.4 * mean(volume, normal, "ed", LV)
    assert mean(volume, groups["RV"], "ed", RV) > 1.3 * mean(volume, normal, "ed", RV)


def test_infarcted_hearts_have_a_sector_that_stands_still(groups):
    assert max(least_contraction(patient) for patient in groups["MINF"]) < 0.15
    assert min(least_contraction(patient) for patient in groups["NOR"]) > 0.15


def test_hearts_contract_and_muscle_keeps_its_volume(everyone):
    for patient in everyone:
        assert volume(patient, "es", LV) < 0.95 * volume(patient, "ed", LV)
        assert volume(patient, "es", RV) < 0.95 * volume(patient, "ed", RV)
        assert volume(patient, "es", MYO) == pytest.approx(volume(patient, "ed", MYO), rel=0.25)


def test_patients_of_one_group_differ(groups):
    for members in groups.values():
        assert np.std([volume(patient, "ed", LV) for patient in members]) > 5
        assert len({patient.spacing for patient in members}) == MEMBERS
    shapes = {patient.es.image.shape for members in groups.values() for patient in members}
    assert len(shapes) > 20 and any(x != y for x, y, _ in shapes)


def test_geometry_is_within_its_ranges(everyone):
    for patient in everyone:
        x, y, z = patient.spacing
        assert x == y and 1.2 <= x <= 1.9 and 5 <= z <= 10
        for phase in (patient.ed, patient.es):
            assert phase.image.shape == phase.mask.shape == patient.ed.image.shape
            assert 6 <= phase.image.shape[2] <= 12
            assert 195 < min(phase.image.shape[:2]) * x and max(phase.image.shape[:2]) * x < 265


def test_the_heart_lies_within_a_central_crop_of_175_mm(everyone):
    for patient in everyone:
        for phase in (patient.ed, patient.es):
            where = np.argwhere(phase.mask.any(axis=2)) * patient.spacing[0]
            middle = (np.array(phase.mask.shape[:2]) - 1) / 2 * patient.spacing[0]
            assert np.abs(where - middle).max() < 87.5


def test_masks_hold_every_structure_and_nothing_else(everyone):
    for patient in everyone:
        for phase in (patient.ed, patient.es):
            assert phase.image.dtype == np.int16 and phase.mask.dtype == np.uint8
            np.testing.assert_array_equal(np.unique(phase.mask), [0, RV, MYO, LV])


def test_myocardium_encloses_the_cavity(everyone):
    for patient in everyone:
        for phase in (patient.ed, patient.es):
            inside = phase.mask >= MYO
            for axis in (0, 1):
                for step in (-1, 1):
                    assert inside[np.roll(phase.mask == LV, step, axis)].all()


def test_blood_is_brighter_than_muscle_in_every_slice(everyone):
    for patient in everyone:
        for phase in (patient.ed, patient.es):
            for z in np.flatnonzero((phase.mask == LV).sum(axis=(0, 1)) > 100):
                image, mask = phase.image[:, :, z], phase.mask[:, :, z]
                assert np.median(image[mask == LV]) > 1.25 * np.median(image[mask == MYO])


def test_contrast_differs_between_patients(everyone):
    ratios = [
        np.median(patient.es.image[patient.es.mask == MYO]) / np.median(patient.es.image[patient.es.mask == LV])
        for patient in everyone
    ]
    assert max(ratios) > 1.5 * min(ratios)


def test_stacks_reach_above_the_ventricles_and_show_slices_without_rv(everyone):
    empty_base = sum(not patient.es.mask[:, :, 0].any() for patient in everyone)
    no_rv_apex = sum(not (patient.es.mask[:, :, -1] == RV).any() for patient in everyone)
    assert len(everyone) / 4 < empty_base and len(everyone) / 2 < no_rv_apex


@pytest.fixture
def quick(monkeypatch):
    """Lets `write_cohort` write one small file, and counts how often it is called."""
    calls = []

    def write(root, seed=0, num_workers=2):
        calls.append(root)
        (pathlib.Path(root) / "patient001").mkdir()

    monkeypatch.setattr(phantom, "write_cohort", write)
    return calls


def test_a_cohort_is_made_once(tmp_path, quick):
    cohort = phantom.ensure_cohort(tmp_path / "cache", seed=3)
    assert re.fullmatch("phantom-seed3-[0-9a-f]{8}", cohort.name)
    assert phantom.ensure_cohort(tmp_path / "cache", seed=3) == cohort
    assert len(quick) == 1
    other = phantom.ensure_cohort(tmp_path / "cache", seed=4)
    assert len(quick) == 2
    assert sorted(os.listdir(tmp_path / "cache")) == [cohort.name, other.name]


def test_a_changed_generator_makes_a_new_cohort(tmp_path, quick, monkeypatch):
    before = phantom.ensure_cohort(tmp_path)
    changed = tmp_path / "phantom_image.py"
    changed.write_text(pathlib.Path(phantom.image.__file__).read_text() + "# changed\n")
    monkeypatch.setattr(phantom.image, "__file__", str(changed))
    assert phantom.ensure_cohort(tmp_path) != before


def test_of_two_processes_at_once_both_get_the_cohort(tmp_path, quick, monkeypatch):
    write = phantom.write_cohort

    def lose_the_race(root, seed=0, num_workers=2):
        monkeypatch.setattr(phantom, "write_cohort", write)
        phantom.ensure_cohort(tmp_path)  # the other process, done while we are still writing
        write(root)

    monkeypatch.setattr(phantom, "write_cohort", lose_the_race)
    cohort = phantom.ensure_cohort(tmp_path)
    assert [path.name for path in cohort.iterdir()] == ["patient001"]
    assert os.listdir(tmp_path) == [cohort.name]


def test_a_failed_write_leaves_nothing_and_says_what_to_do(tmp_path, monkeypatch):
    def fill_the_disk(root, seed=0, num_workers=2):
        (pathlib.Path(root) / "patient001").mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(phantom, "write_cohort", fill_the_disk)
    with pytest.raises(MachineError, match="No space left on device"):
        phantom.ensure_cohort(tmp_path)
    assert os.listdir(tmp_path) == []


def test_old_temporary_folders_go_and_recent_ones_stay(tmp_path, quick):
    old, recent = tmp_path / "phantom-seed0-0123abcd.tmp-old", tmp_path / "phantom-seed0-0123abcd.tmp-recent"
    for folder in (old, recent):
        (folder / "patient001").mkdir(parents=True)
    os.utime(old, (0, 0))
    cohort = phantom.ensure_cohort(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([cohort.name, recent.name])


def test_a_killed_worker_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(phantom.workers, "start", _die)
    with pytest.raises(MachineError, match="died"):
        phantom.write_cohort(tmp_path, numbers=(1,), num_workers=1)


def _die():
    multiprocessing.current_process().kill()


def test_p1_a_signal_that_ends_the_workers_first_is_no_death_of_a_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(phantom.workers, "start", _terminate_all)
    with deferred_signals(), pytest.raises(Interrupted) as stop:
        phantom.write_cohort(tmp_path, numbers=(1,), num_workers=1)
    assert stop.value.exit_status == 143


def _terminate_all():
    os.kill(os.getppid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)


def test_p2_an_interrupt_leaves_a_starting_worker_alone(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(phantom.workers, "start", _interrupt)
    phantom.write_cohort(tmp_path, numbers=(1,), num_workers=1)
    assert os.listdir(tmp_path) == ["patient001"]
    assert capfd.readouterr().err == ""


def _interrupt():
    os.kill(os.getpid(), signal.SIGINT)
