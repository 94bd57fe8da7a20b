"""FAULTS through the programs, and the table in docs/faults.md of where every case is tested."""

import ast
import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from data_.patients import anatomy, patients, sform, write_nifti, write_patient
from fast_networks import FAST
from matplotlib.image import imread
from programs import run

from benchmarks import soak
from tfaug.configs import phantom
from tfaug.engine import run_dir
from tfaug.engine.errors import UserError
from tfaug.experiment import instruments, sources
from tfaug.types import Z_DIM

ROOT = pathlib.Path(__file__).parent.parent
NAME = "phantom-n1-set1-seg-aff-seed0"
TINY = (
    "--config.data.image_size=32",
    "--config.data.resolution=1.0",
    "--config.data.n4_shrink=0",
    "--config.model.filters=2",
    "--config.segment.num_steps=9",
    "--config.segment.eval_every=2",
    "--config.report_every=2",
    "--config.picture_every=5",
    "--config.checkpoint_every=4",
    "--config.splits.labelled.n1=(('patient001',),)",
    "--config.splits.validation=('patient002',)",
    "--config.splits.unlabelled=('patient003',)",
    "--config.splits.test=('patient004',)",
    *FAST,
)


# TensorFlow 2.15 would look for tf-keras; a notebook's backend is not installed here.
IN_THE_WAY = {"TF_USE_LEGACY_KERAS": "1", "PYTHONSAFEPATH": "1", "MPLBACKEND": "module://not_there"}


@dataclasses.dataclass
class World:
    """A folder to run the programs in, with data, and below runs/ the run that an injection spoils."""

    folder: pathlib.Path
    data: pathlib.Path

    @property
    def run(self):
        return self.folder / "runs" / NAME

    def command(self, *flags, program="train.py"):
        stage = () if program == "evaluate.py" else ("--stage=seg",)
        method = () if "--stage=aug" in flags else ("--aug=aff",)
        return [
            *(sys.executable, str(ROOT / program), f"--config.data.root={self.data}", *TINY),
            *(*stage, *method, *flags),
        ]

    def start(self, *flags, **arguments):
        return subprocess.Popen(
            self.command(*flags),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **arguments,
        )

    def do(self, *flags, program="train.py", env=None):
        if env is None:
            return run(program, *self.command(*flags, program=program)[2:], cwd=self.folder)
        command = self.command(*flags, program=program)
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=300, env=env)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A finished run. The label of its validation patient lacks LV, of which its report warns (D23)."""
    data = tmp_path_factory.mktemp("data")
    for number in range(1, 5):
        write_patient(data, f"patient{number:03d}", number)
    label = anatomy(2)[1]
    write_nifti(data / "patient002/patient002_frame12_gt.nii.gz", label.clip(max=2))
    world = World(tmp_path_factory.mktemp("undisturbed"), data)
    result = world.do(env={**os.environ, **IN_THE_WAY})
    assert result.returncode == 0, result.stderr
    (world.folder / "stdout").write_text(result.stdout)
    return world


@pytest.fixture
def interrupted(undisturbed, tmp_path):
    """A copy of the run as it was after step 8 of 9; changes of its data are undone."""
    folder = tmp_path / "work"
    shutil.copytree(undisturbed.folder, folder)
    world = World(folder, undisturbed.data)
    (world.run / "report.json").unlink()
    shutil.rmtree(world.run / "checkpoints/step-00000009")
    before = contents(world.data)
    yield world
    for path, content in before.items():
        path.write_bytes(content)


@pytest.fixture
def fresh(undisturbed, tmp_path):
    """An empty folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    return World(folder, undisturbed.data)


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a small file system of its own: small_disk(folder, bytes or "ro")."""
    mounted = []

    def mount(folder, size):
        folder.mkdir(exist_ok=True)
        options = "ro" if size == "ro" else f"size={size}"
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
        if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("needs the right to mount a small file system")
        mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"}


def failed(result, status):
    """The one line of a command that failed as it should; it may have warned before."""
    assert result.returncode == status, result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    assert re.fullmatch("error: .+: .+; .+", lines[0])
    return lines[0]


def assert_goes_on_like(undisturbed, world):
    """The same command finishes the run, and it equals the undisturbed one in every variable, slot, score and curve."""
    result = world.do()
    assert result.returncode == 0, result.stderr
    assert soak.differences(soak.outcome(undisturbed.run), soak.outcome(world.run)) == []
    assert not list(world.folder.rglob("tmp-*"))


def assert_only_sound_cases_are_cached(folder, before, most=2):
    """Nothing is new but what --check writes, and the prepared volumes of sound cases, which the next command takes."""
    new = {path for path in contents(folder).keys() - before.keys() if not path.parent.name.endswith("-check")}
    assert before.items() <= contents(folder).items() and len(new) <= most
    for path in new:
        assert path.parent.name == "cache" and path.suffix == ".npz"


def warnings(world):
    return json.loads((world.run / "report.json").read_text())["warnings"]


# Each injection spoils a world and returns the flags to run it with.


def another_rate(world):
    return ["--config.segment.learning_rate=0.5"]


def changed_scan(world):
    image, _ = anatomy(1)
    write_nifti(world.data / "patient001/patient001_frame12.nii.gz", image[::-1])
    return []


def exchanged_cases(world):
    return ["--config.splits.labelled.n1=(('patient002',),)", "--config.splits.validation=('patient001',)"]


def no_valid_checkpoint(world):
    for path in world.run.glob("checkpoints/*/variables.index"):
        os.truncate(path, 100)
    return []


def foreign_folder(world):
    shutil.rmtree(world.run)
    world.run.mkdir()
    (world.run / "thesis.tex").write_text("mine")
    return []


def damaged_config(world):
    os.truncate(world.run / "config.json", 50)
    return []


def path_as_case(world):
    return ["--workdir=other", "--config.splits.unlabelled=('../patient001',)", "--stage=aug", "--gen=deform"]


def lost_checkpoints(world):
    shutil.rmtree(world.run / "checkpoints")
    (world.run / "checkpoints").symlink_to("nowhere")
    return []


def lost_best_model(world):
    shutil.rmtree(world.run / "best")
    return []


def damaged_report(world):
    (world.run / "report.json").write_text("[]")
    return []


def pattern_as_workdir(world):
    return ["--workdir=w[1]"]


def workdir_that_is_not_utf_8(world):
    return [os.fsdecode(b"--workdir=w\xff")]


def run_of_version_0_1_0(world):
    path = world.run / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tfaug_run": 1}))
    return []


def damaged_test_scan(world):
    os.truncate(world.data / "patient004/patient004_frame12.nii.gz", 300)
    return ["--stage=all"]


def no_test_case(world):
    return ["--config.splits.test=()", "--stage=all"]


def splits_of_other_data(world):
    named = {"labelled.n1": (("c1",),), "validation": ("c2",), "unlabelled": ("c3",), "test": ("c4",)}
    return [f"--config.splits.{split}={cases!r}" for split, cases in named.items()]


def plugin_that_ends_the_program(world):
    (world.folder / "mine.py").write_text("import sys\nsys.exit(0)\n")
    return ["--aug=mine:row"]


def weights_that_carry_code(world):
    (world.folder / "model.keras").write_bytes(b"PK")
    return ["--aug=aff_gd", "--config.generators.deform=model.keras"]


def control_codes(world):
    return ["--config.splits.unlabelled=('a\\n\\x1b[31m', 'a\\n\\x1b[31m')"]


def patient_in_two_splits(world):
    return ["--config.splits.unlabelled=('patient004',)"]


REFUSED = [
    ("D25", patient_in_two_splits, r"splits.test: patient004 is also in unlabelled"),
    ("S9", control_codes, r"names a\\n\\x1b\[31m twice"),
    ("C6", no_valid_checkpoint, r"checkpoints: none of the checkpoints is valid \(step-00000008: variables.index is"),
    ("C6 lost", lost_checkpoints, r"checkpoints: the checkpoints of this run are missing"),
    ("C6 best", lost_best_model, r"none of the checkpoints is valid .*best/step-\d+: is missing"),
    ("P7", damaged_report, r"report.json: is damaged"),
    ("C7 pattern", pattern_as_workdir, r"w\[1\]: has one of \* \? \[ \\ in its path"),
    ("C7 UTF-8", workdir_that_is_not_utf_8, r"w\\udcff: is not UTF-8"),
    ("C4", another_rate, rf"{NAME}: .*config.segment.learning_rate: 0.001 -> 0.5"),
    ("C5", changed_scan, rf"{NAME}: was made with another config or other data \(data.scans.patient001: "),
    ("C5 exchanged", exchanged_cases, rf'{NAME}: was made with another .*\(patient001: "labelled" -> "validation", '),
    ("C7", foreign_folder, rf"{NAME}: is not empty"),
    ("C7 damaged", damaged_config, r"config.json: is missing or not the config of a tfaug run"),
    ("C7 0.1.0", run_of_version_0_1_0, rf"{NAME}: is a run of tfaug 0.1.0; use that version for it"),
    ("C9", no_test_case, r"--config.splits.test: is empty"),
    ("C9 damaged", damaged_test_scan, r"patient004_frame12.nii.gz: is cut off or damaged"),
    ("C18", splits_of_other_data, r"--config.splits: names none of the 4 cases of .*patient001, patient002, "),
    ("plugin", plugin_that_ends_the_program, r"--aug: mine cannot be imported \(SystemExit: 0\)"),
    ("S4", path_as_case, r"'\.\./patient001': is not the name of a folder"),
    ("S6", weights_that_carry_code, r"model.keras: there is no trained generator"),
]
QUICK = (
    "D25",
    "S9",
    "C6",
    "C7 pattern",
    "C7 UTF-8",
    "C9",
    "C9 damaged",
    "C18",
    "plugin",
)  # the others load TensorFlow to end in the same way


@pytest.mark.parametrize(
    "inject, expect",
    [pytest.param(*row, id=fault, marks=[] if fault in QUICK else pytest.mark.slow) for fault, *row in REFUSED],
)
def test_a_fault_is_refused_and_nothing_is_touched(inject, expect, interrupted):
    flags = inject(interrupted)
    before = contents(interrupted.folder / "runs")
    names = set(interrupted.folder.iterdir())
    line = failed(interrupted.do(*flags), 2)
    assert re.search(expect, line), line
    assert contents(interrupted.folder / "runs") == before
    assert set(interrupted.folder.iterdir()) == names


@pytest.mark.slow
def test_y1_the_process_that_uses_the_run_is_named(interrupted):
    config = run_dir.read_config(interrupted.run)
    with run_dir.RunDir(interrupted.run, config):
        line = failed(interrupted.do(), 2)
    assert f"{NAME}: is in use by process {os.getpid()};" in line


@pytest.mark.parametrize("flags", [(), ("--config.data.resolution=auto",)], ids=["given", "auto"])
def test_check_lists_every_problem_and_training_refuses_at_once(interrupted, flags):
    os.truncate(interrupted.data / "patient001/patient001_frame12.nii.gz", 300)
    (interrupted.data / "patient004/Info.cfg").write_text("ED: 1\n")
    shutil.rmtree(interrupted.folder / "cache")
    before = contents(interrupted.folder)
    result = interrupted.do("--check", *flags)
    line = failed(result, 2)
    assert "patient001_frame12.nii.gz" in line and "1 more problem" in line
    report = result.stdout[result.stdout.index("error, ") :].splitlines()
    assert [row.split()[0] for row in report if row.startswith("  ")] == ["patient001", "patient004", "patient002:"]
    assert report[-1] == "  patient002: no pixel of its prepared label is LV"
    table = pd.read_csv(next(interrupted.folder.glob("*/*-check/check.csv"))).set_index("case")
    assert "cut off" in table.problems["patient001"] and table.problems.isna()["patient003"]
    line = failed(interrupted.do(), 2)
    assert "patient001_frame12.nii.gz" in line and "more problem" not in line  # the test patient is not needed
    assert_only_sound_cases_are_cached(interrupted.folder, before, most=4 if flags else 2)  # at two pixel sizes


def test_check_of_a_sound_data_set_is_good_news(undisturbed, tmp_path):
    world = World(tmp_path, undisturbed.data)
    result = world.do("--check")
    assert (result.returncode, result.stderr) == (0, "")
    assert "4 cases (3 labelled) can be used\nwarning, 1 case: " in result.stdout
    shown = imread(next(tmp_path.glob("*/*-check/check.png")))
    assert shown.std() > 0.1
    assert_only_sound_cases_are_cached(tmp_path, {}, most=4)


def test_d23_the_report_warns_of_a_label_that_lacks_a_class(undisturbed):
    assert warnings(undisturbed) == ["patient002: no pixel of its prepared label is LV"]


def test_d23_so_does_that_of_a_run_whose_data_were_loaded_before_it_began(fresh):
    result = fresh.do("--stage=all")
    assert warnings(fresh) == ["patient002: no pixel of its prepared label is LV"]
    assert result.stderr.splitlines() == ["warning: patient002: no pixel of its prepared label is LV"]  # once


def test_d31_d33_d34_d35_d37_what_is_odd_is_said_before_the_training_and_kept_in_its_report(fresh, tmp_path):
    """With scans of 30 mm and a crop of 13 mm; the last case is a copy, stored with its slices first."""
    data = tmp_path / "odd"
    shutil.copytree(fresh.data, data)
    image, label = anatomy(1)
    swapped = np.array([0, 2, 1, 3], np.uint8)[label]
    write_nifti(data / "patient001/patient001_frame12_gt.nii.gz", swapped)
    for name, array in (("frame12", image), ("frame12_gt", label)):
        path = data / f"patient004/patient004_{name}.nii.gz"
        write_nifti(path, np.moveaxis(array, 2, 0), (8.0, 1.5, 1.25))
    for name, array in zip(("frame12", "frame12_gt"), anatomy(3)):
        write_nifti(data / f"patient003/patient003_{name}.nii.gz", array, (1, 1, 1), **sform((1.5, 1.25, 8)))
    odd = World(fresh.folder, data)
    flags = (
        *("--config.data.resolution=0.4", "--config.splits.validation=('patient004', 'patient003')"),
        *("--config.splits.unlabelled=('patient002',)", "--config.splits.test=()"),
    )
    result = odd.do(*flags)
    assert result.returncode == 0, result.stderr
    expected = [
        r"patient001: the crop cuts off \d+ % of RV and \d+ % of Myo; .*data.image_size or data.resolution",
        r"patient001: RV encloses 100 % of LV, Myo only 0 % of LV; .*data.structures",
        r"patient004: the crop cuts off \d+ % of RV and ",
        r"patient003: voxels are 1 x 1 x 1 mm by pixdim .used., 1.5 x 1.25 x 8 mm by the sform of patient003_frame12",
        r"patient004: is sliced across axis 0 of its file, most other cases across axis 2",
        r"patient001 and patient004 are the same image",
    ]
    lines = result.stderr.splitlines()
    assert [f"warning: {warning}" for warning in warnings(odd)] == lines and len(lines) == len(expected)
    assert all(re.search(pattern, line) for pattern, line in zip(expected, lines)), lines
    checked = odd.do(*flags, "--check")
    shown = [line.strip() for line in checked.stdout.splitlines() if line.startswith("  ")]
    assert sorted(shown) == sorted(line.removeprefix("warning: ") for line in lines)


def test_d38_cases_of_a_single_slice_are_trained_on_and_evaluated(tmp_path):
    """With N4, which works in plane; what `--check` finds sound is sound."""
    for number in range(1, 5):
        write_patient(tmp_path / "data", f"patient{number:03d}", number, shape=(20, 23, 1))
    world = World(tmp_path, tmp_path / "data")
    for flags in (["--check"], ["--stage=all"]):
        result = world.do("--config.data.n4_shrink=1", *flags)
        assert (result.returncode, result.stderr) == (0, ""), result.stderr
    assert list((world.run / "evaluation/test/masks").iterdir())


@pytest.mark.parametrize(
    "name, value",
    [("TF_NUM_INTRAOP_THREADS", value) for value in ("two", "-1", "4 ")] + [("TF_NUM_INTEROP_THREADS", "1.5")],
)
def test_v5_a_number_of_threads_that_is_none_is_refused_before_anything_is_done(name, value, fresh):
    line = failed(fresh.do(env={**os.environ, name: value}), 2)
    assert line.startswith(f"error: {name}: is {value!r} in the environment; ")
    assert not list(fresh.folder.iterdir())


def test_v4_v6_no_setting_of_the_environment_is_in_the_way(undisturbed):
    """The run that all others are compared with was trained under `IN_THE_WAY`."""
    data, machine, *_ = (undisturbed.folder / "stdout").read_text().splitlines()
    assert data.startswith("data: ")
    expected = rf"CPU, float32, threads: \d+, TensorFlow {re.escape(tf.__version__)}; cases: 1 labelled, 1 validation, "
    assert re.fullmatch(expected + "1 unlabelled, 1 test", machine)


def test_d26_a_file_that_may_not_be_read():
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        scan = write_patient(pathlib.Path(folder), "patient001") / "patient001_frame12.nii.gz"
        os.chmod(scan, 0)
        os.seteuid(65534 if user == 0 else user)  # lays down root's right to read everything
        try:
            with pytest.raises(UserError, match="patient001_frame12.nii.gz: cannot be read .Permission denied"):
                patients(pathlib.Path(folder)).read("patient001")
        finally:
            os.seteuid(user)


def no_tensorflow(folder):
    """A folder for PYTHONPATH that makes a program fail which loads TensorFlow; it takes seconds."""
    (folder / "none").mkdir()
    (folder / "none" / "tensorflow.py").write_text("raise SystemExit('TensorFlow was loaded')")
    return folder / "none"


def test_k3_a_read_only_output_is_found_before_tensorflow_loads(fresh, small_disk):
    small_disk(fresh.folder / "disk", "ro")
    path = f"{no_tensorflow(fresh.folder)}:{os.environ.get('PYTHONPATH', '')}"
    line = failed(fresh.do("--workdir=disk/runs", env={**os.environ, "PYTHONPATH": path}), 3)
    assert "disk/runs: Read-only file system" in line


def test_output_that_nobody_reads_ends_a_program_without_a_traceback(fresh):
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        fresh.command("--check"), cwd=fresh.folder, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=300
    )
    os.close(writer)
    assert "standard output: is closed" in failed(result, 3)


@pytest.mark.parametrize("flag", ["--check", "--help"])
def test_standard_output_on_a_full_disk_is_one_line(fresh, flag):
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            fresh.command(flag), cwd=fresh.folder, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300
        )
    assert "standard output: cannot be written (No space left on device)" in failed(result, 3)


@pytest.mark.slow
def test_standard_output_that_fails_or_is_closed_loses_nothing(undisturbed, interrupted):
    before = contents(interrupted.run / "checkpoints")
    for program in ("train.py", "evaluate.py"):
        command = shlex.join(interrupted.command(program=program))
        for target, status in (("/dev/full", 3), ("&-", 0)):
            result = subprocess.run(
                ["sh", "-c", f"exec {command} >{target}"], cwd=interrupted.folder, capture_output=True, text=True
            )
            if status:
                assert "standard output: cannot be written" in failed(result, status)
                assert before.items() <= contents(interrupted.run / "checkpoints").items()
            else:
                assert (result.returncode, result.stderr) == (0, "")
                before = contents(interrupted.run / "checkpoints")
    assert soak.differences(soak.outcome(undisturbed.run), soak.outcome(interrupted.run)) == []


@pytest.mark.parametrize("flag", ["--check", "--help"])
def test_a_closed_standard_output_is_no_fault(fresh, flag):
    command = shlex.join(fresh.command(flag))
    result = subprocess.run(["sh", "-c", f"exec {command} >&-"], cwd=fresh.folder, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_standard_output_that_cannot_show_a_path_escapes_it(undisturbed, tmp_path):
    data = tmp_path / "ü"
    data.symlink_to(undisturbed.data)
    result = World(tmp_path, data).do("--check", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stderr) == (0, "")
    assert "\\xfc: 4 cases" in result.stdout


def test_k4_a_damaged_table_of_curves_is_a_warning(interrupted):
    table = interrupted.run / "diagnostics.csv"
    table.write_bytes(table.read_bytes().replace(b"step", b"\x82tep"))
    result = interrupted.do()
    assert result.returncode == 0 and f"{NAME}/diagnostics.csv: has damaged rows" in result.stderr
    assert any("diagnostics.csv" in warning for warning in warnings(interrupted))


@pytest.mark.slow
def test_p7_results_that_are_gone_or_damaged_are_made_again_or_named(undisturbed, interrupted):
    shutil.rmtree(interrupted.run)
    shutil.copytree(undisturbed.run, interrupted.run)
    assert interrupted.do(program="evaluate.py").returncode == 0
    results = contents(interrupted.run / "evaluation")
    (interrupted.run / "evaluation/test/summary.txt").unlink()
    assert interrupted.do(program="evaluate.py").returncode == 0
    assert contents(interrupted.run / "evaluation") == results
    shutil.rmtree(interrupted.run / "evaluation")
    best = json.loads((interrupted.run / "report.json").read_text())["best_step"]
    (interrupted.run / f"best/step-{best:08d}").rename(interrupted.run / "best/step-00000001")
    line = failed(interrupted.do(program="evaluate.py"), 2)
    assert f"best/step-{best:08d}: is missing" in line
    damaged_report(interrupted)
    assert "report.json: is damaged" in failed(interrupted.do(program="evaluate.py"), 2)
    assert not (interrupted.run / "evaluation").exists()


@pytest.mark.slow
@pytest.mark.parametrize("room", [0, 30_000, 300_000], ids="{} bytes".format)
def test_k1_a_disk_that_fills_up_loses_nothing(room, undisturbed, interrupted, small_disk):
    """Whatever meets its end first, the event file or a checkpoint; with more room the same command goes on."""
    disk = interrupted.folder / "runs"
    disk.rename(interrupted.folder / "old")
    small_disk(disk, "100m")
    shutil.copytree(interrupted.folder / "old" / NAME, interrupted.run)
    before = contents(interrupted.run / "checkpoints")
    used = shutil.disk_usage(disk).used
    subprocess.run(["mount", "-o", f"remount,size={used + room}", str(disk)], check=True)
    line = failed(interrupted.do(), 3)
    assert "No space left on device" in line
    assert before.items() <= contents(interrupted.run / "checkpoints").items()
    subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
    assert_goes_on_like(undisturbed, interrupted)


@pytest.mark.slow
def test_k2_a_disk_that_fills_up_while_caching_keeps_no_partial_entry(fresh, small_disk):
    small_disk(fresh.folder / "cache", 8192)
    line = failed(fresh.do(), 3)
    assert "cache: cannot be written (No space left on device)" in line
    assert list((fresh.folder / "cache").iterdir()) == []


def test_k4_the_checkpoint_before_a_damaged_one_is_taken_and_the_report_names_it(undisturbed, interrupted):
    newest = "checkpoints/step-00000009"
    shutil.copytree(undisturbed.run / newest, interrupted.run / newest)
    os.truncate(interrupted.run / newest / "variables.index", 100)
    assert_goes_on_like(undisturbed, interrupted)
    assert any(
        "step-00000009: variables.index is damaged; resuming from step-00000008" in w for w in warnings(interrupted)
    )


@pytest.mark.slow
def test_c8_other_threads_are_a_warning(interrupted):
    result = interrupted.do(env={**os.environ, "TF_NUM_INTRAOP_THREADS": "7"})
    assert result.returncode == 0, result.stderr
    assert any(re.search('environment.threads: ".*" -> "7"', warning) for warning in warnings(interrupted))


@pytest.mark.parametrize(
    "wait_for, signum, status",
    [
        ("lock", signal.SIGTERM, 143),  # while the network is built and compiled
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in (
                ("lock", signal.SIGINT, 130),
                ("events.*", signal.SIGTERM, 143),  # after the first update: validation
                ("best/tmp-*", signal.SIGINT, 130),
                ("checkpoints/tmp-step-00000004", signal.SIGTERM, 143),
            )
        ),
    ],
)
def test_p1_p2_a_signal_ends_a_training_that_then_goes_on(wait_for, signum, status, undisturbed, fresh):
    process = fresh.start()
    while not any(fresh.run.glob(wait_for)):
        assert process.poll() is None
        time.sleep(0.001)
    if wait_for == "lock":
        time.sleep(2)
    process.send_signal(signum)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == status, errors
    assert "Traceback" not in errors and "the same command resumes from here" in errors
    if wait_for != "lock":
        assert list(fresh.run.glob("checkpoints/step-*"))
    assert_goes_on_like(undisturbed, fresh)


@pytest.mark.slow
def test_p3_p4_twenty_kills_and_a_negative_control():
    done = subprocess.run([sys.executable, "-m", "benchmarks.soak"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "survived 20 SIGKILLs" in done.stdout and done.stdout.count("as they must") == 2


def test_p3_the_soak_would_notice_a_difference(undisturbed, interrupted):
    """The comparison looks at slots, scores and curves: a run that lacks one of them differs."""
    expected = soak.outcome(undisturbed.run)
    for part in ("optimizer/_variables", "checkpoints/step-00000009", "best/step-", "scalars/dice/mean", "best"):
        assert any(part in name for name in expected), part
    assert soak.differences(expected, {**expected, "best": "another"}) == ["best"]
    assert soak.differences(expected, dict(list(expected.items())[1:])) == [next(iter(expected))]


def test_p5_a_batch_that_does_not_fit_into_memory(fresh):
    line = failed(fresh.do("--config.segment.batch_size=100000000"), 3)
    assert re.match(r"error: memory: a batch of 100000000 needs about \d+.* are free; use a smaller batch", line)


@pytest.mark.slow
def test_y1_two_evaluations_of_a_run_do_not_write_at_once(undisturbed, interrupted):
    shutil.rmtree(interrupted.run)
    shutil.copytree(undisturbed.run, interrupted.run)
    with run_dir.locked(interrupted.run):
        line = failed(interrupted.do("--split=test", program="evaluate.py"), 2)
    assert f"{NAME}: is in use by process {os.getpid()};" in line
    assert not (interrupted.run / "evaluation").exists()


@pytest.mark.slow
def test_p8_a_killed_evaluation_is_done_again(undisturbed, interrupted):
    results = []
    for world, killed in ((interrupted, True), (undisturbed, False)):
        world.do()  # finishes the one that is not
        if killed:
            process = subprocess.Popen(
                world.command(program="evaluate.py"), cwd=world.folder, stdout=subprocess.DEVNULL
            )
            while not any(world.run.glob("evaluation/test/masks/*")):
                assert process.poll() is None
                time.sleep(0.001)
            process.kill()
            process.wait()
            assert not (world.run / "evaluation/test/dice.csv").exists()
        result = world.do(program="evaluate.py")
        assert result.returncode == 0, result.stderr
        folder = world.run / "evaluation"
        results.append({path.relative_to(folder): content for path, content in contents(folder).items()})
    assert results[0] == results[1]


@pytest.mark.slow
def test_n1_a_generator_of_deformations_that_diverges_stops_too(fresh):
    flags = ("--stage=aug", "--gen=deform", "--config.augment.warmup_steps=0", "--config.augment.learning_rate=1e30")
    line = failed(fresh.do(*flags), 3)
    assert re.search(r"[a-z]+/\S+: became (nan|inf|-inf) in step \d|: is not finite after step \d", line), line


@pytest.mark.slow
def test_n1_a_training_that_diverges_stops_and_keeps_nothing_bad(fresh):
    line = failed(fresh.do("--config.segment.learning_rate=1e30"), 3)
    assert re.search(r"loss/\S+: became (nan|inf|-inf) in step \d|: is not finite after step \d", line), line
    assert list(fresh.run.glob("*/step-*")) == [fresh.run / "checkpoints/step-00000000"]


@pytest.mark.parametrize(
    "field, problems",
    [
        ("varied", []),
        ("constant", ["has collapsed"]),
        ("nearly constant", ["has collapsed"]),
        ("zero", ["hardly changes an image", "has collapsed"]),
        ("small", ["hardly changes an image"]),
        ("huge", ["has run away: displacement_p95_px"]),
        ("folded", ["has run away: 2"]),
    ],
)
def test_n5_a_generator_that_ignores_z_or_does_nothing_is_a_warning(field, problems):
    draws = np.random.default_rng(0).normal(size=(4, 2, 1, 1, 2))
    fields = {
        "varied": 0.1 * draws + 1,
        "constant": np.repeat(draws[:1], 4, axis=0),
        "nearly constant": draws[:1] + 1e-4 * draws,
        "zero": 0 * draws,
        "small": 0.05 * draws,
        "huge": 20 * draws,
        "folded": draws + 2 * np.indices((64, 1, 1, 1))[0][None, None, ..., 0] % 5,
    }[field]
    drawn = iter(np.broadcast_to(fields, (4, 2, 64, 64, 2)).astype(np.float32))
    scan = types.SimpleNamespace(
        case="a", image=np.zeros((2, 64, 64, 1), np.float32), label=np.ones((2, 64, 64), np.uint8)
    )
    config = sources.resolve(phantom.get_config())
    found = instruments.Instruments("deform_noreg", [scan], [], [], config)
    word, warnings = found.verdict(found.measure(lambda image, z: tf.constant(next(drawn))))
    assert len(warnings) == len(problems)
    assert all(problem in warning for problem, warning in zip(problems, warnings))
    assert problems or word == "sane"
    assert not problems or word in problems[0] or word == "next to nothing"


@pytest.mark.slow
def test_n5_the_report_of_a_real_training_says_so(fresh):
    """Through the program, with a generator of the user's own whose noise path sees zeros."""
    (fresh.folder / "deaf.py").write_text(
        "from tfaug import models\n"
        "from tfaug.compat import keras\n"
        "def generator(kind, image_size, channels, seed):\n"
        f"    image, z = keras.Input((image_size, image_size, channels)), keras.Input(({Z_DIM},))\n"
        "    arguments = dict(kind=kind, image_size=image_size, channels=channels, seed=seed)\n"
        "    model = models.GENERATORS['conditional'](**arguments)\n"
        "    return keras.Model([image, z], model([image, 0 * z]))\n"
    )
    flags = [
        *("--stage=aug", "--config.augment.num_steps=4", "--config.augment.warmup_steps=1"),
        *("--config.augment.eval_every=2", "--gen=deform", "--config.model.generator=deaf:generator"),
    ]
    result = fresh.do(*flags)
    assert result.returncode == 0, result.stderr
    report = json.loads((fresh.folder / "runs" / "phantom-n1-set1-aug-deform-seed0" / "report.json").read_text())
    assert any("generator deform has collapsed" in warning for warning in report["warnings"])


NUMBERS = {
    "D": range(1, 43),
    "C": range(1, 25),
    "K": range(1, 9),
    "P": range(1, 10),
    "N": range(1, 8),
    "Y": range(1, 4),
    "R": range(1, 6),
    "V": range(1, 11),
    "S": [1, 2, 4, 6, 8, 9],
}
IDS = [f"{kind}{number}" for kind, numbers in NUMBERS.items() for number in numbers]


def table():
    """The rows of docs/faults.md: id to the names of its tests, as path::function."""
    text = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z]\d+) \|(.*)$", text, re.MULTILINE)
    return [(fault, re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)) for fault, row in rows]


def test_every_fault_has_one_row_with_its_tests():
    assert [fault for fault, _ in table()] == IDS
    for fault, names in table():
        assert names, fault
        for path, function in names:
            functions = {node.name for node in ast.parse((ROOT / path).read_text()).body if hasattr(node, "name")}
            assert function in functions, f"{fault}: {path}::{function}"
