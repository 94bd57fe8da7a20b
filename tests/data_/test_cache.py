import dataclasses
import io
import logging
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from patients import anatomy, write_nifti, write_patient

from tfaug.data import cache
from tfaug.data.preprocess import Spec, prepare_volume
from tfaug.data.readers import acdc
from tfaug.engine.errors import MachineError, UserError
from tfaug.engine.signals import Interrupted, deferred_signals

SPEC = Spec(image_size=48, resolution=0.8, n4_shrink=0)
CASE, OTHER = "patient001", "patient002"
ES_IMAGE, ES_LABEL = f"{CASE}_frame12.nii.gz", f"{CASE}_frame12_gt.nii.gz"


@pytest.fixture
def root(tmp_path):
    for seed, case in enumerate((CASE, OTHER)):
        write_patient(tmp_path / "acdc", case, seed)
    return tmp_path / "acdc"


@pytest.fixture
def made(monkeypatch):
    """Makes entries in this process, which is quicker, and lists the cases for which that was needed."""
    cases = []

    def make_here(tasks, num_workers):
        for task in tasks:
            cases.append(task.case)
            error = cache._make_entry(task)
            if error:
                raise error
            yield task

    monkeypatch.setattr(cache, "_make_entries", make_here)
    return cases


def assert_same(prepared, other):
    assert (prepared.case, prepared.grid, prepared.path) == (other.case, other.grid, other.path)
    np.testing.assert_array_equal(prepared.image, other.image)
    np.testing.assert_array_equal(prepared.label, other.label)
    assert prepared.image.dtype == other.image.dtype


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_signal_does_not_wait_for_the_scan_that_is_being_prepared(tmp_path):
    image = np.random.default_rng(0).integers(20, 120, (192, 192, 12)).astype(np.int16)  # minutes of N4
    write_nifti(write_patient(tmp_path / "acdc", CASE) / ES_IMAGE, image)
    timer = threading.Timer(3, os.kill, (os.getpid(), signal.SIGTERM))
    with deferred_signals(), pytest.raises(Interrupted):
        timer.start()
        cache.load(tmp_path / "acdc", [CASE], dataclasses.replace(SPEC, n4_shrink=1), tmp_path / "cache", labels=False)
    assert entries(tmp_path / "cache") == []


def test_workers_make_what_preprocessing_makes_in_the_order_asked_for(tmp_path, root, capfd):
    """S8 too: names that a shell would act on go through every process unharmed."""
    strange = "; rm -rf $HOME #\n"
    write_patient(root, strange, seed=5)
    cases = [OTHER, strange, CASE, OTHER]
    loaded = cache.load(root, cases, SPEC, tmp_path / "new" / "cache")
    assert [prepared.case for prepared in loaded] == cases
    for prepared in loaded:
        assert_same(prepared, prepare_volume(acdc.read(root, prepared.case), SPEC))
    assert len(entries(tmp_path / "new" / "cache")) == 3
    line = r"preprocessing: 3 of 3 volumes, \d+\.\d s each, 0 s left\n"
    captured = capfd.readouterr()
    assert re.fullmatch(line, captured.out)
    assert captured.err == ""  # workers leave no traceback when they end


def test_second_call_only_reads(tmp_path, root, made):
    first = cache.load(root, [CASE, OTHER], SPEC, tmp_path)
    second = cache.load(root, [OTHER, CASE], SPEC, tmp_path)
    assert made == [CASE, OTHER]
    assert_same(first[0], second[1])
    assert_same(first[1], second[0])


def test_unlabelled_use_never_opens_a_label(tmp_path, root, made, monkeypatch):
    (root / CASE / ES_LABEL).write_bytes(b"no NIfTI")
    opened = []
    read_bytes = cache.pathlib.Path.read_bytes
    monkeypatch.setattr(cache.pathlib.Path, "read_bytes", lambda path: opened.append(path.name) or read_bytes(path))
    (prepared,) = cache.load(root, [CASE], SPEC, tmp_path, labels=False)
    assert prepared.label is None
    assert opened == [ES_IMAGE]


def test_labelled_and_unlabelled_use_do_not_share_an_entry(tmp_path, root, made):
    assert cache.load(root, [CASE], SPEC, tmp_path, labels=False)[0].label is None
    assert cache.load(root, [CASE], SPEC, tmp_path)[0].label is not None
    assert made == [CASE, CASE]


def change_image(root, monkeypatch):
    write_nifti(root / CASE / ES_IMAGE, anatomy()[0] + 1)


def change_label(root, monkeypatch):
    write_nifti(root / CASE / ES_LABEL, anatomy()[1][::-1])


def change_spacing(root, monkeypatch):
    for name, array in zip((ES_IMAGE, ES_LABEL), anatomy()):
        write_nifti(root / CASE / name, array, spacing=(1.5, 1.5, 8.0))


def change_version(root, monkeypatch):
    monkeypatch.setattr(cache.preprocess, "VERSION", 1000)


def change_library(root, monkeypatch):
    monkeypatch.setattr(cache.skimage, "__version__", "1000")


@pytest.mark.parametrize("change", [change_image, change_label, change_spacing, change_version, change_library])
def test_k7_a_changed_input_is_prepared_again(tmp_path, root, made, monkeypatch, change):
    cache.load(root, [CASE, OTHER], SPEC, tmp_path)
    change(root, monkeypatch)
    (prepared,) = cache.load(root, [CASE], SPEC, tmp_path)
    assert made == [CASE, OTHER, CASE]
    assert_same(prepared, prepare_volume(acdc.read(root, CASE), SPEC))


@pytest.mark.parametrize("spec", [Spec(40, 0.8, 0), Spec(48, 0.9, 0), Spec(48, 0.8, 4)], ids=str)
def test_k7_a_changed_parameter_is_another_entry(tmp_path, root, made, spec):
    first, second, again = (cache.load(root, [CASE], s, tmp_path)[0] for s in (SPEC, spec, SPEC))
    assert made == [CASE, CASE]
    assert_same(first, again)
    assert second.image.shape != first.image.shape or not np.array_equal(second.image, first.image)


def test_phase_is_followed(tmp_path, root, made):
    es, ed = (cache.load(root, [CASE], SPEC, tmp_path, phase=phase)[0] for phase in ("ES", "ED"))
    assert (es.path.name, ed.path.name) == (ES_IMAGE, f"{CASE}_frame01.nii.gz")


def with_flipped_byte(content):
    damaged = bytearray(content)
    damaged[len(content) // 3] ^= 1
    return bytes(damaged)


def pickled(content):
    file = io.BytesIO()
    with np.load(io.BytesIO(content)) as arrays:
        np.savez(file, **{**arrays, "image": np.array([{"a": 1}], dtype=object)})
    return file.getvalue()


def with_fewer_slices(content):
    """NumPy reads little more than the shape asks for, and so does not come to the checksum."""
    assert b"(3, 48, 48)" in content
    return content.replace(b"(3, 48, 48)", b"(2, 48, 48)", 1)


def without_label(content):
    file = io.BytesIO()
    with np.load(io.BytesIO(content)) as arrays:
        np.savez(file, **{name: arrays[name] for name in arrays if name != "label"})
    return file.getvalue()


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-1],
        with_flipped_byte,
        with_fewer_slices,
        without_label,
        pickled,
    ],
    ids=["empty", "half", "one byte short", "flipped", "fewer slices", "array missing", "S1 pickled"],
)
def test_k6_damaged_entry_is_made_again(tmp_path, root, made, caplog, damage):
    (intact,) = cache.load(root, [CASE], SPEC, tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(damage(entry.read_bytes()))
    (again,) = cache.load(root, [CASE], SPEC, tmp_path / "cache")
    assert made == [CASE, CASE]
    assert_same(again, intact)
    assert "damaged cache entry of patient001, made again" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_random_damage_of_an_entry_is_noticed_or_harmless(tmp_path, root, made):
    (intact,) = cache.load(root, [CASE], SPEC, tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    content = entry.read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        if trial % 5 == 0:
            del damaged[rng.integers(len(content)) :]
        entry.write_bytes(damaged)
        assert_same(cache.load(root, [CASE], SPEC, tmp_path / "cache")[0], intact)
    assert len(made) > 250


def test_k2_full_disk_leaves_no_partial_entry(tmp_path, root, made):
    """A limit on the size of files stops a write in its midst, as a full disk does."""
    (tmp_path / "cache").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        with pytest.raises(MachineError, match="cache: cannot be written .*; free space there") as caught:
            cache.load(root, [CASE], SPEC, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.exit_status == 3
    assert entries(tmp_path / "cache") == []
    cache.load(root, [CASE], SPEC, tmp_path / "cache")
    assert len(entries(tmp_path / "cache")) == 1


def test_k3_unusable_cache_folder_is_found_before_the_work(tmp_path, root, made):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot be written"):
        cache.load(root, [CASE], SPEC, tmp_path / "file" / "cache")
    assert made == []


def test_k8_leftovers_of_killed_runs_are_removed_but_not_those_of_running_ones(tmp_path, root, made):
    folder = tmp_path / "cache"
    folder.mkdir()
    for name, age in ((".part-old", 7200), (".part-new", 1)):
        (folder / name).write_bytes(b"part")
        os.utime(folder / name, (time.time() - age,) * 2)
    cache.load(root, [CASE], SPEC, folder)
    assert [name for name in entries(folder) if name.startswith(".part-")] == [".part-new"]


def test_d23_a_label_that_lacks_a_class_is_a_warning(tmp_path, root, made, caplog):
    image, label = anatomy()
    write_nifti(root / CASE / ES_LABEL, np.where(label == 3, 2, label).astype(np.uint8))
    for _ in range(2):  # a cached label is no better
        cache.load(root, [CASE, OTHER], SPEC, tmp_path / "cache")
    assert [record.message for record in caplog.records] == ["patient001: no pixel of its prepared label is LV"] * 2


@pytest.mark.parametrize("name", [ES_IMAGE, ES_LABEL])
def test_an_error_in_a_worker_reaches_the_user(tmp_path, root, name):
    path = root / CASE / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="cut off") as caught:
        cache.load(root, [OTHER, CASE], SPEC, tmp_path / "cache", num_workers=1)
    assert caught.value.subject == str(path)
    assert multiprocessing.active_children() == []
    assert len(entries(tmp_path / "cache")) == 1


@pytest.mark.parametrize(
    ("error", "kind", "expect"),
    [
        (MemoryError("Unable to allocate 7.28 TiB"), MachineError, "too little memory"),
        (
            OverflowError("too\nlarge"),
            UserError,
            r"cannot be prepared \(OverflowError: too\\nlarge\); .*out of the split",
        ),
    ],
    ids=["memory", "unforeseen"],
)
def test_any_failure_of_a_worker_names_its_case(tmp_path, root, made, monkeypatch, error, kind, expect):
    def fail(volume, spec):
        raise error

    monkeypatch.setattr(cache.preprocess, "prepare_volume", fail)
    with pytest.raises(kind, match=f"patient001: .*{expect}"):
        cache.load(root, [CASE], SPEC, tmp_path / "cache")
    assert entries(tmp_path / "cache") == []


def test_p6_a_worker_that_dies_is_named_by_its_case(tmp_path, root):
    """The first case is done; the worker is killed during the second, which N4 makes long enough for that."""
    write_patient(root, "slow", shape=(120, 120, 6))
    spec = Spec(16, 1.6, 1)
    tasks = [
        cache._Task(root, case, "ES", "required", spec, root / case, tmp_path / f"{case}.npz")
        for case in (CASE, "slow", OTHER)
    ]
    done = cache._make_entries(tasks, num_workers=1)
    assert next(done).case == CASE
    (worker,) = multiprocessing.active_children()
    worker.kill()
    with pytest.raises(UserError, match="slow: the process that prepared it died"):
        next(done)
    assert multiprocessing.active_children() == []
    assert not (tmp_path / "slow.npz").exists()


def test_p2_an_interrupt_leaves_a_starting_worker_alone(tmp_path, root, monkeypatch, capfd):
    monkeypatch.setattr(cache, "_work", _interrupted_work)
    assert len(cache.load(root, [CASE], SPEC, tmp_path / "cache")) == 1
    assert capfd.readouterr().err == ""


def _interrupted_work(connection):
    os.kill(os.getpid(), signal.SIGINT)
    cache._work(connection)


def test_workers_end_with_a_killed_main_process(tmp_path, root):
    """N4 would go on for many seconds; what the workers hold open closes when they end."""
    write_patient(root, "slow", shape=(160, 160, 8))
    program = textwrap.dedent("""
        import multiprocessing, sys, threading, time
        from tfaug.data import cache, preprocess

        def report():
            while not multiprocessing.active_children():
                time.sleep(0.05)
            time.sleep(2)
            print("working", flush=True)

        threading.Thread(target=report, daemon=True).start()
        cache.load(sys.argv[1], ["slow"], preprocess.Spec(16, 1.6, 1), sys.argv[2])
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", program, root, tmp_path / "cache"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout.readline() == b"working\n"
    process.kill()
    start = time.monotonic()
    assert process.stdout.read() == b""
    assert time.monotonic() - start < 5


def test_y2_two_processes_build_one_cache(tmp_path, root):
    program = textwrap.dedent("""
        import sys
        from tfaug.data import cache, preprocess

        root, cache_dir, *cases = sys.argv[1:]
        volumes = cache.load(root, cases, preprocess.Spec(16, 1.6, 1), cache_dir, num_workers=1)
        print([float(abs(volume.image).sum()) for volume in volumes])
    """)
    command = [sys.executable, "-c", program, root, tmp_path / "cache", CASE, OTHER]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].splitlines()[-1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1] != ""
    assert len(entries(tmp_path / "cache")) == 2


def test_y2_an_entry_that_another_process_finishes_meanwhile(tmp_path, root, monkeypatch):
    prepared = prepare_volume(acdc.read(root, CASE), SPEC)
    fsync = os.fsync

    def other_process(descriptor):
        monkeypatch.setattr(os, "fsync", fsync)
        cache._store(prepared, tmp_path / "entry.npz")

    monkeypatch.setattr(os, "fsync", other_process)
    cache._store(prepared, tmp_path / "entry.npz")
    assert [name for name in entries(tmp_path) if name != "acdc"] == ["entry.npz"]


def test_workers_do_not_load_tensorflow(tmp_path, root):
    """They would start seconds later, and each take hundreds of megabytes."""
    program = "import sys, tfaug.data.cache; print([m for m in sys.modules if m.startswith('tensorflow')])"
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"
