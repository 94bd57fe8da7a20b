import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

from tfaug.engine.errors import MachineError, UserError
from tfaug.engine.run_dir import RunDir, check_path, differences, in_use, read_config, read_report, refuse_difference

CONFIG = {"seed": 0, "train": {"rate": 1e-3, "sizes": (1, 2)}, "precision": "float32"}

HOLD_THE_LOCK = """
import sys, time
from tfaug.engine.run_dir import RunDir
run = RunDir(sys.argv[1], {})
print("locked", flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder():
    """A folder that anybody can reach, unlike pytest's own."""
    folder = tempfile.mkdtemp()
    yield pathlib.Path(folder)
    os.chmod(folder, 0o755)
    shutil.rmtree(folder)


@contextlib.contextmanager
def unprivileged():
    """Lays down root's right to write everywhere."""
    user = os.geteuid()
    os.seteuid(65534 if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def other_process(tmp_path):
    """Another process at work in tmp_path / "run"."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_LOCK, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_run_saves_its_config_and_the_same_command_continues(tmp_path):
    with RunDir(tmp_path / "a/b", CONFIG):
        pass
    assert read_config(tmp_path / "a/b") == {**CONFIG, "train": {"rate": 1e-3, "sizes": [1, 2]}}
    with RunDir(tmp_path / "a/b", CONFIG) as run:
        assert run.report is None


def test_c4_another_config_is_refused_with_the_difference(tmp_path):
    with RunDir(tmp_path, CONFIG):
        (tmp_path / "checkpoints").mkdir()
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UserError, match=r"another config \(train.rate: 0.001 -> 0.01\)"):
        RunDir(tmp_path, {**CONFIG, "train": {"rate": 1e-2, "sizes": (1, 2)}})
    assert (tmp_path / "config.json").read_bytes() == before
    RunDir(tmp_path, CONFIG).close()  # the refused one has left no lock


def test_c8_a_key_that_does_not_count_may_change_and_the_run_keeps_the_first_value(tmp_path):
    with RunDir(tmp_path, CONFIG, keys=["train"]) as first:
        (tmp_path / "checkpoints").mkdir()
    with RunDir(tmp_path, {**CONFIG, "precision": "bfloat16"}, keys=["train"]) as second:
        assert second.config == first.config == read_config(tmp_path)


def test_a_run_that_has_done_nothing_is_bound_to_no_config(tmp_path):
    """As one that ended for want of memory, whose remedy is another batch size."""
    with pytest.raises(MachineError), RunDir(tmp_path, CONFIG):
        raise MachineError("memory", "is too small", "use a smaller batch size")
    with RunDir(tmp_path, {**CONFIG, "train": {"rate": 1e-2, "sizes": (1, 2)}}):
        assert read_config(tmp_path)["train"]["rate"] == 1e-2


def test_a_new_run_that_the_user_must_mend_leaves_nothing_behind(tmp_path):
    with pytest.raises(UserError, match="patient001"), RunDir(tmp_path / "runs/new", CONFIG) as run:
        run.warn("something")
        raise UserError("patient001", "is damaged", "replace it")
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [UserError, MachineError])
def test_a_run_that_has_something_is_kept_whatever_happens(tmp_path, error):
    with RunDir(tmp_path / "old", CONFIG):
        pass
    for name in ("old", "new"):
        with pytest.raises(error), RunDir(tmp_path / name, CONFIG) as run:
            if name == "new":
                (run.path / "checkpoints").mkdir()
            raise error("a", "b", "c")
    assert names(tmp_path) == ["new", "old"]
    assert names(tmp_path / "new") == ["checkpoints", "config.json", "lock"]
    assert names(tmp_path / "old") == ["config.json", "lock"]


def test_c7_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="not empty"):
        RunDir(tmp_path, CONFIG)
    assert names(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize("content", ["", '{"tfaug_run": 1, "config"', '{"config": {}}', "[1]"])
def test_c7_a_config_that_is_not_ours_or_is_damaged_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="config.json"):
        RunDir(tmp_path, CONFIG)
    assert names(tmp_path) == ["config.json"] and (tmp_path / "config.json").read_text() == content


def test_c7_a_file_is_no_run_directory(tmp_path):
    (tmp_path / "file").touch()
    for use in (lambda path: RunDir(path, CONFIG), read_config):
        with pytest.raises(UserError):
            use(tmp_path / "file")


def test_a_run_is_in_use_while_it_is_open(tmp_path):
    assert not in_use(tmp_path)
    with RunDir(tmp_path, CONFIG):
        assert in_use(tmp_path)
    assert not in_use(tmp_path)
    with RunDir(tmp_path, CONFIG):  # looking has not locked it
        pass


@pytest.mark.parametrize("number, version", [(1, "tfaug 0.1.0"), (3, "another version of tfaug")])
def test_a_run_of_another_version_is_refused_and_left_alone(tmp_path, number, version):
    with RunDir(tmp_path, CONFIG):
        pass
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace('"tfaug_run": 2', f'"tfaug_run": {number}'))
    before = file.read_bytes()
    for use in (lambda: RunDir(tmp_path, CONFIG), lambda: read_config(tmp_path)):
        with pytest.raises(UserError, match=f"^{tmp_path}: is a run of {version}; use that version"):
            use()
    assert names(tmp_path) == ["config.json", "lock"] and file.read_bytes() == before


def test_a_run_killed_at_its_start_is_taken_over(tmp_path):
    (tmp_path / "lock").write_text("12345\n")
    (tmp_path / ".part-config.json").write_text('{"tfa')
    with RunDir(tmp_path, CONFIG) as run:
        assert read_config(tmp_path) == run.config


@pytest.mark.parametrize("mode", [0o555, 0o000], ids=["read-only", "out of reach"])
@pytest.mark.parametrize("name", [".", "run"])
def test_k3_a_place_that_cannot_be_written_is_the_machines_fault(folder, mode, name):
    os.chmod(folder, mode)
    with unprivileged(), pytest.raises(MachineError, match="Permission denied"):
        RunDir(folder / name, CONFIG)


def test_y1_two_processes_in_one_directory(tmp_path, other_process):
    """The second is told the first's PID; when the first is killed its lock is no obstacle."""
    with pytest.raises(UserError, match=f"process {other_process.pid};"):
        RunDir(tmp_path / "run", {})
    other_process.kill()
    other_process.wait()
    with RunDir(tmp_path / "run", {}):
        assert (tmp_path / "run/lock").read_text() == f"{os.getpid()}\n"


def test_p7_a_finished_run_has_its_report(tmp_path):
    with RunDir(tmp_path, CONFIG) as run:
        run.finish({"best": 0.8, "best_step": 3})
    with RunDir(tmp_path, CONFIG) as run:
        assert run.report == {"best": 0.8, "best_step": 3, "warnings": []}


@pytest.mark.parametrize("content", ["", "[]", "{}", "5", "null", '{"best": 0.5}', "[" * 10_000, None])
def test_p7_a_damaged_report_is_refused(tmp_path, content):
    with RunDir(tmp_path, CONFIG) as run:
        pass
    if content is None:
        (tmp_path / "report.json").mkdir()
    else:
        (tmp_path / "report.json").write_text(content)
    for read in (lambda: run.report, lambda: read_report(tmp_path)):
        with pytest.raises(UserError, match="report.json: is damaged; restore"):
            read()


@pytest.mark.parametrize("content", ['{"a": 1}', '"str"', "5", "", None])
def test_damaged_warnings_are_forgotten(tmp_path, content):
    with RunDir(tmp_path, CONFIG):
        pass
    if content is None:
        (tmp_path / "warnings.json").mkdir()
    else:
        (tmp_path / "warnings.json").write_text(content)
    with RunDir(tmp_path, CONFIG) as run:
        run.finish({"best": 0.8, "best_step": 3})
    assert run.report["warnings"] == []


@pytest.mark.parametrize("name", ["w[1]", "a*", "a?", "a\\b", "w\udcff"])
def test_a_path_in_which_tensorflow_would_lose_its_checkpoints_is_refused(name):
    with pytest.raises(UserError, match="path|UTF-8"):
        check_path(pathlib.Path("runs", name, "run"))


def test_other_unusual_paths_are_fine():
    check_path(pathlib.Path("a]b", "{a}", "; rm -rf $x", "ü\n\x1b%s"))


def test_warnings_survive_an_interruption_once_each_and_on_one_line(tmp_path, capsys):
    with RunDir(tmp_path, CONFIG) as run:
        run.warn("a\nb")
    with RunDir(tmp_path, CONFIG) as run:
        run.warn("a\nb")
        run.warn("c")
        run.finish({"best": 0.8, "best_step": 3})
    assert run.report["warnings"] == ["a\\nb", "c"]
    assert capsys.readouterr().err == "warning: a\\nb\nwarning: c\n"


def test_a_difference_is_refused_if_its_key_counts():
    saved, asked = {"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 4}}
    refuse_difference("run", saved, asked, keys=["a.d", "b"])
    with pytest.raises(UserError, match=r"^run: was made with another size \(a.c: 2 -> 4\); .* another --results$"):
        refuse_difference("run", saved, asked, ["a.c"], what="size", folder_flag="--results")


def test_differences_are_by_dotted_key_and_by_type():
    old = {"a": {"b": 1, "c": 1.0, "empty": {}}, "same": (1, 2)}
    new = {"a": {"b": True, "d": None}, "same": [1, 2]}
    assert differences(old, new) == {
        "a.b": "1 -> true",
        "a.c": "1.0 -> absent",
        "a.d": "absent -> null",
        "a.empty": "{} -> absent",
    }


@pytest.mark.parametrize("name, key", [("config.json", "config"), ("report.json", "best")])
def test_a_value_that_somebody_has_changed_is_noticed(name, key, tmp_path):
    """The rest of the file is sound, and so is the value."""
    with RunDir(tmp_path, {"a": {"b": 1}, "c": [0.1, float("nan")]}) as run:
        run.finish({"best": 0.5, "best_step": 4})
    assert read_report(tmp_path)["best"] == 0.5 and read_config(tmp_path)["a"] == {"b": 1}
    content = json.loads((tmp_path / name).read_text())
    content[key] = {"a": {"b": 2}} if key == "config" else 0.75
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"{name}: has been changed"):
        read_config(tmp_path) if key == "config" else read_report(tmp_path)
