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
from patients import anatomy, patients, write_nifti, write_patient

from tfaug.data import cache, images, scan
from tfaug.data.dataset import DataSet
from tfaug.data.preprocess import Spec, prepare_volume
from tfaug.data.task import Task
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
    """Does all jobs in this process, which is quicker, and lists the cases of which there was one."""
    cases = []

    def make_here(num_workers, jobs):
        return cache._make_here(jobs)

    def make(job):
        cases.append(job.request.case)
        return original(job)

    original = cache._make
    monkeypatch.setattr(cache, "_make_in_processes", make_here)
    monkeypatch.setattr(cache, "_make", make)
    return cases


def load(root, cases, spec, cache_dir, phase="ES", labels=True, volumes=False, **options):
    requests = [cache.Request(case, labels, volumes) for case in cases]
    return cache.load(patients(root, phase=phase), requests, spec, cache_dir, **options)


def prepare(root, case):
    return prepare_volume(patients(root).read(case), SPEC)


def assert_same(prepared, other):
    assert (prepared.case, prepared.grid, prepared.path) == (other.case, other.grid, other.path)
    np.testing.assert_array_equal(prepared.image, other.image)
    np.testing.assert_array_equal(prepared.label, other.label)
    assert prepared.image.dtype == other.image.dtype


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_signal_does_not_wait_for_the_scans_that_are_being_prepared(tmp_path):
    for case in (CASE, OTHER):
        image = np.random.default_rng(0).integers(20, 120, (192, 192, 12)).astype(np.int16)  # minutes of N4
        write_nifti(write_patient(tmp_path / "acdc", case) / f"{case}_frame12.nii.gz", image)
    timer = threading.Timer(3, os.kill, (os.getpid(), signal.SIGTERM))
    with deferred_signals(), pytest.raises(Interrupted):
        timer.start()
        spec = dataclasses.replace(SPEC, n4_shrink=1)
        load(tmp_path / "acdc", [CASE, OTHER], spec, tmp_path / "cache", labels=False)
    assert entries(tmp_path / "cache") == []
    assert multiprocessing.active_children() == []


def test_workers_make_what_preprocessing_makes_in_the_order_asked_for(tmp_path, root, capfd):
    """S8 too: names that a shell would act on go through every process unharmed."""
    strange = "; rm -rf $HOME #\n"
    write_patient(root, strange, seed=5)
    cases = [OTHER, strange, CASE, OTHER]
    loaded = load(root, cases, SPEC, tmp_path / "new" / "cache")
    assert [prepared.case for prepared in loaded] == cases
    for prepared in loaded:
        assert_same(prepared, prepare(root, prepared.case))
    assert len(entries(tmp_path / "new" / "cache")) == 3
    line = r"reading: 3/3, .+, 00:00 left\n"
    captured = capfd.readouterr()
    assert re.fullmatch(line, captured.out)
    assert captured.err == ""  # workers leave no traceback when they end


def test_second_call_only_reads(tmp_path, root, made):
    first = load(root, [CASE, OTHER], SPEC, tmp_path)
    second = load(root, [OTHER, CASE], SPEC, tmp_path)
    assert made == [CASE, OTHER]
    assert_same(first[0], second[1])
    assert_same(first[1], second[0])


@pytest.fixture
def opened(monkeypatch):
    """The names of the files that were opened, each time that one was."""
    names = []
    original = scan.opened

    def spy(path, content):
        if content is None:
            names.append(path.name)
        return original(path, content)

    for module in (scan, images):
        monkeypatch.setattr(module, "opened", spy)
    return names


def test_unlabelled_use_never_opens_a_label(tmp_path, root, made, opened):
    (root / CASE / ES_LABEL).write_bytes(b"no NIfTI")
    (prepared,) = load(root, [CASE], SPEC, tmp_path, labels=False)
    assert prepared.label is None
    assert opened == [ES_IMAGE]


def test_each_file_is_opened_once_also_for_volumes(tmp_path, root, made, opened):
    for _ in range(2):  # made, then from the cache
        load(root, [CASE], SPEC, tmp_path / "cache", volumes=True)
        assert sorted(opened) == sorted([ES_IMAGE, ES_LABEL])
        opened.clear()
    assert made == [CASE]


@pytest.mark.parametrize("cases", [[CASE], [CASE, OTHER]], ids=["here", "in processes"])
def test_volumes_come_along_on_their_own_grid(tmp_path, root, cases):
    for _ in range(2):  # made, then from the cache
        for prepared in load(root, cases, SPEC, tmp_path / "cache", volumes=True):
            expected = patients(root).read(prepared.case)
            np.testing.assert_array_equal(prepared.volume.image, expected.image)
            np.testing.assert_array_equal(prepared.volume.label, expected.label)
            assert (prepared.volume.spacing, prepared.volume.path) == (expected.spacing, expected.path)
            assert_same(prepared, prepare(root, prepared.case))
    assert load(root, cases, SPEC, tmp_path / "cache")[0].volume is None


def test_the_digest_is_that_of_the_files(tmp_path, root, made):
    def digest(**options):
        return load(root, [CASE], SPEC, tmp_path / "cache", **options)[0].digest

    labelled, unlabelled = digest(), digest(labels=False)
    assert len({labelled, unlabelled}) == 2
    assert (digest(), digest(volumes=True)) == (labelled, labelled)
    write_nifti(root / CASE / ES_LABEL, anatomy()[1][::-1])
    assert digest() != labelled
    assert digest(labels=False) == unlabelled
    write_nifti(root / CASE / ES_IMAGE, anatomy()[0] + 1)
    assert digest(labels=False) != unlabelled


def test_requests_of_several_kinds_are_answered_in_their_order(tmp_path, root, made):
    requests = [cache.Request(OTHER, label=False), cache.Request(CASE, volume=True), cache.Request(OTHER, label=False)]
    loaded = cache.load(patients(root), requests, SPEC, tmp_path / "cache")
    assert [(prepared.case, prepared.label is None, prepared.volume is None) for prepared in loaded] == [
        (OTHER, True, True),
        (CASE, False, False),
        (OTHER, True, True),
    ]
    assert sorted(made) == [CASE, OTHER]


def test_labelled_and_unlabelled_use_do_not_share_an_entry(tmp_path, root, made):
    assert load(root, [CASE], SPEC, tmp_path, labels=False)[0].label is None
    assert load(root, [CASE], SPEC, tmp_path)[0].label is not None
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
    load(root, [CASE, OTHER], SPEC, tmp_path)
    change(root, monkeypatch)
    (prepared,) = load(root, [CASE], SPEC, tmp_path)
    assert made == [CASE, OTHER, CASE]
    assert_same(prepared, prepare(root, CASE))


def test_k7_other_label_values_or_another_sliced_axis_are_another_entry(tmp_path, root, made):
    reader = patients(root).reader
    tasks = [Task({"RV": 1, "Myo": 2, "LV": 3}), Task({"LV": 3, "a": 1, "b": 2})]
    request = cache.Request(CASE)
    first, renamed = (cache.load(DataSet(reader, task), [request], SPEC, tmp_path / "cache")[0].label for task in tasks)
    assert made == [CASE]  # the classes are the same under other names
    np.testing.assert_array_equal(renamed, first)
    with pytest.raises(UserError, match="holds the label 1 in"):  # nor is the entry taken for other values
        cache.load(DataSet(reader, Task({"RV": 4, "Myo": 2, "LV": 3})), [request], SPEC, tmp_path / "cache")
    (sideways,) = cache.load(DataSet(reader, tasks[0], slice_axis=0), [request], SPEC, tmp_path / "cache")
    assert (len(sideways.image), sideways.grid.axis) == (20, 0)
    (again,) = cache.load(DataSet(reader, tasks[0], slice_axis=0), [request], SPEC, tmp_path / "cache")
    assert_same(again, sideways)


@pytest.mark.parametrize("spec", [Spec(40, 0.8, 0), Spec(48, 0.9, 0), Spec(48, 0.8, 4)], ids=str)
def test_k7_a_changed_parameter_is_another_entry(tmp_path, root, made, spec):
    first, second, again = (load(root, [CASE], s, tmp_path)[0] for s in (SPEC, spec, SPEC))
    assert made == [CASE, CASE]
    assert_same(first, again)
    assert second.image.shape != first.image.shape or not np.array_equal(second.image, first.image)


def test_phase_is_followed(tmp_path, root, made):
    es, ed = (load(root, [CASE], SPEC, tmp_path, phase=phase)[0] for phase in ("ES", "ED"))
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
    assert b"(3, 48, 48, 1)" in content
    return content.replace(b"(3, 48, 48, 1)", b"(2, 48, 48, 1)", 1)


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
    (intact,) = load(root, [CASE], SPEC, tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(damage(entry.read_bytes()))
    (again,) = load(root, [CASE], SPEC, tmp_path / "cache")
    assert made == [CASE, CASE]
    assert_same(again, intact)
    assert "damaged cache entry of patient001, made again" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_random_damage_of_an_entry_is_noticed_or_harmless(tmp_path, root, made):
    (intact,) = load(root, [CASE], SPEC, tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    content = entry.read_bytes()
    rng = np.random.default_rng(0)
    for trial in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        if trial % 5 == 0:
            del damaged[rng.integers(len(content)) :]
        entry.write_bytes(damaged)
        assert_same(load(root, [CASE], SPEC, tmp_path / "cache")[0], intact)
    assert len(made) > 250


def test_k2_full_disk_leaves_no_partial_entry(tmp_path, root, made):
    """A limit on the size of files stops a write in its midst, as a full disk does."""
    (tmp_path / "cache").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))
    try:
        with pytest.raises(MachineError, match="cache: cannot be written .*; free space there") as caught:
            load(root, [CASE], SPEC, tmp_path / "cache")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.exit_status == 3
    assert entries(tmp_path / "cache") == []
    load(root, [CASE], SPEC, tmp_path / "cache")
    assert len(entries(tmp_path / "cache")) == 1


def test_k3_unusable_cache_folder_is_found_before_the_work(tmp_path, root, made, caplog):
    (tmp_path / "file").write_text("")
    for folder in ("file", "file/cache"):
        with pytest.raises(MachineError, match="cannot be written"):
            load(root, [CASE], SPEC, tmp_path / folder)
    assert made == [] and not caplog.records


def test_k8_leftovers_of_killed_runs_are_removed_but_not_those_of_running_ones(tmp_path, root, made):
    folder = tmp_path / "cache"
    folder.mkdir()
    for name, age in ((".part-old", 7200), (".part-new", 1)):
        (folder / name).write_bytes(b"part")
        os.utime(folder / name, (time.time() - age,) * 2)
    load(root, [CASE], SPEC, folder)
    assert [name for name in entries(folder) if name.startswith(".part-")] == [".part-new"]


def test_d23_a_label_that_lacks_a_class_is_a_warning(tmp_path, root, made, caplog):
    image, label = anatomy()
    write_nifti(root / CASE / ES_LABEL, np.where(label == 3, 2, label).astype(np.uint8))
    for _ in range(2):  # a cached label is no better
        load(root, [CASE, OTHER], SPEC, tmp_path / "cache")
    assert [record.message for record in caplog.records] == ["patient001: no pixel of its prepared label is LV"] * 2


@pytest.mark.parametrize("name", [ES_IMAGE, ES_LABEL])
@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_error_reaches_the_user(tmp_path, root, name, num_workers):
    path = root / CASE / name
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="cut off") as caught:
        load(root, [OTHER, CASE], SPEC, tmp_path / "cache", num_workers=num_workers)
    assert caught.value.subject == str(path)
    assert multiprocessing.active_children() == []
    assert len(entries(tmp_path / "cache")) == 1


def test_the_errors_of_all_cases_are_one_line(tmp_path, root, made):
    write_patient(root, "patient003")
    (root / CASE / ES_IMAGE).unlink()
    (root / OTHER / f"{OTHER}_frame12.nii.gz").write_bytes(b"no NIfTI")
    with pytest.raises(UserError, match="and there is 1 more problem; .*--check") as caught:
        load(root, ["patient003", CASE, OTHER], SPEC, tmp_path / "cache")
    assert caught.value.subject == str(root / CASE / ES_IMAGE)


def test_nothing_is_prepared_after_an_error_but_all_is_read(tmp_path, root, made):
    write_patient(root, "patient003")
    (root / CASE / ES_IMAGE).unlink()
    image = np.full((20, 23, 3), 7, np.int16)
    write_nifti(root / "patient003" / "patient003_frame12.nii.gz", image)
    requests = [cache.Request(case) for case in (CASE, OTHER, "patient003")]
    results = dict(cache.load_each(patients(root), requests, SPEC, tmp_path / "cache", num_workers=1))
    assert "is missing" in str(results[requests[0]])
    assert results[requests[1]] is None
    assert "has no contrast" in str(results[requests[2]])
    assert not (tmp_path / "cache").exists()


def test_a_file_that_is_missing_is_known_before_anything_is_prepared(tmp_path, root, made):
    (root / OTHER / f"{OTHER}_frame12_gt.nii.gz").unlink()
    with pytest.raises(UserError, match="label of ES"):
        load(root, [CASE, OTHER], SPEC, tmp_path / "cache", num_workers=1)
    assert not (tmp_path / "cache").exists()


def test_nothing_is_prepared_if_a_file_among_the_first_cannot_be_read(tmp_path, root, made):
    """With three workers, three cases are looked at before the first is given away."""
    for case in ("patient003", "patient004"):
        write_patient(root, case)
    original = cache._read

    def read(path):
        if OTHER in path.name:
            raise UserError(path, "cannot be read", "mend it")
        return original(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "_read", read)
        with pytest.raises(UserError, match="cannot be read"):
            load(root, [CASE, OTHER, "patient003", "patient004"], SPEC, tmp_path / "cache", num_workers=3)
    assert not (tmp_path / "cache").exists()


def test_an_error_of_the_machine_ends_everything_at_once(tmp_path, root, made, monkeypatch):
    def fail(*arguments):
        raise MemoryError

    monkeypatch.setattr(cache.preprocess, "prepare_volume", fail)
    with pytest.raises(MachineError, match="patient001: there is too little memory"):
        load(root, [CASE, OTHER], SPEC, tmp_path / "cache")
    assert made == [CASE]


def test_v7_one_case_or_one_worker_need_no_process_and_no_main_guard(tmp_path, root):
    program = tmp_path / "script.py"
    program.write_text(
        textwrap.dedent("""
        import multiprocessing, sys
        from patients import patients
        from tfaug.data import cache, preprocess

        def no_process(*arguments):
            raise AssertionError("a process was started")

        multiprocessing.process.BaseProcess.start = no_process
        spec, (root, cache_dir, *cases) = preprocess.Spec(16, 1.6, 0), sys.argv[1:]
        requests = [cache.Request(case) for case in cases]
        cache.load(patients(root), requests[:1], spec, cache_dir)
        cache.load(patients(root), requests, preprocess.Spec(16, 1.7, 0), cache_dir, num_workers=1)
        """)
    )
    subprocess.run([sys.executable, program, root, tmp_path / "cache", CASE, OTHER], env=environment(), check=True)
    assert len(entries(tmp_path / "cache")) == 3


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
        load(root, [CASE], SPEC, tmp_path / "cache")
    assert entries(tmp_path / "cache") == []


def test_p6_a_worker_that_dies_is_named_by_its_case(tmp_path, root):
    """The first case is done; the worker is killed during the second, which N4 makes long enough for that."""
    write_patient(root, "slow", shape=(120, 120, 6))
    dataset, spec = patients(root), Spec(16, 1.6, 1)
    jobs = [
        cache._job(dataset, cache.Request(case), dataset.locate(case), spec, tmp_path / "cache", prepare=True)
        for case in (CASE, "slow", OTHER)
    ]
    done = cache._make_in_processes(1, iter(jobs))
    assert next(done)[0].request.case == CASE
    (worker,) = multiprocessing.active_children()
    worker.kill()
    with pytest.raises(UserError, match="slow: the process that prepared it died"):
        next(done)
    assert multiprocessing.active_children() == []
    assert not jobs[1].entry.exists()


def test_p6_a_worker_that_dies_before_it_takes_a_large_scan(tmp_path, root, monkeypatch):
    """A scan does not fit into a pipe: it is still being sent then."""
    monkeypatch.setattr(cache, "_work", _die)
    for case in (CASE, OTHER):
        write_patient(root, f"large{case}", shape=(200, 200, 9))
    with pytest.raises(UserError, match="largepatient00[12]: the process that prepared it died"):
        load(root, [f"large{case}" for case in (CASE, OTHER)], SPEC, tmp_path / "cache")


def _die(connection):
    os._exit(1)


def test_p2_an_interrupt_leaves_a_starting_worker_alone(tmp_path, root, monkeypatch, capfd):
    monkeypatch.setattr(cache, "_work", _interrupted_work)
    assert len(load(root, [CASE, OTHER], SPEC, tmp_path / "cache")) == 2
    assert capfd.readouterr().err == ""


def _interrupted_work(connection):
    os.kill(os.getpid(), signal.SIGINT)
    cache._work(connection)


def environment():
    """For programs that use this folder's helpers."""
    paths = [os.path.dirname(__file__), *filter(None, sys.path)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def test_workers_end_with_a_killed_main_process(tmp_path, root):
    """N4 would go on for many seconds; what the workers hold open closes when they end."""
    for case in ("slow1", "slow2"):
        write_patient(root, case, shape=(160, 160, 8))
    program = textwrap.dedent("""
        import multiprocessing, sys, threading, time
        from patients import patients
        from tfaug.data import cache, preprocess

        def report():
            while not multiprocessing.active_children():
                time.sleep(0.05)
            time.sleep(2)
            print("working", flush=True)

        threading.Thread(target=report, daemon=True).start()
        requests = [cache.Request(case) for case in ("slow1", "slow2")]
        cache.load(patients(sys.argv[1]), requests, preprocess.Spec(16, 1.6, 1), sys.argv[2])
    """)
    command = [sys.executable, "-c", program, root, tmp_path / "cache"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment())
    assert process.stdout.readline() == b"working\n"
    process.kill()
    start = time.monotonic()
    assert process.stdout.read() == b""
    assert time.monotonic() - start < 5


def test_y2_two_processes_build_one_cache(tmp_path, root):
    program = textwrap.dedent("""
        import sys
        from patients import patients
        from tfaug.data import cache, preprocess

        root, cache_dir, *cases = sys.argv[1:]
        requests = [cache.Request(case) for case in cases]
        volumes = cache.load(patients(root), requests, preprocess.Spec(16, 1.6, 1), cache_dir, num_workers=1)
        print([float(abs(volume.image).sum()) for volume in volumes])
    """)
    command = [sys.executable, "-c", program, root, tmp_path / "cache", CASE, OTHER]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0].splitlines()[-1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1] != ""
    assert len(entries(tmp_path / "cache")) == 2


def test_y2_an_entry_that_another_process_finishes_meanwhile(tmp_path, root, monkeypatch):
    prepared = prepare(root, CASE)
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
