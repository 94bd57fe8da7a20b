import errno
import json
import os

import pytest

from tfaug.engine.errors import MachineError, UserError
from tfaug.engine.files import check_writable, machine_errors, make_folder, read_json, replacing, write_json


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def contents(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("unique", [False, True])
def test_a_write_that_ends_early_leaves_the_old_file_and_no_other(tmp_path, error, unique):
    target = tmp_path / "dice.csv"
    target.write_text("old")
    expected = MachineError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected), replacing(target, "make room", unique=unique) as path:
        path.write_text("half")
        raise error
    assert contents(tmp_path) == {"dice.csv": "old"}


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_json_file_is_the_old_or_the_new(tmp_path, monkeypatch, call):
    path = tmp_path / "report.json"
    write_json(path, {"old": 1})
    with monkeypatch.context() as patch, pytest.raises(MachineError, match=r"report.json: cannot be written \(No sp"):
        patch.setattr(os, call, full)
        write_json(path, {"new": 2})
    assert {name: json.loads(text) for name, text in contents(tmp_path).items()} == {"report.json": {"old": 1}}
    write_json(path, {"new": 2})
    assert json.loads(path.read_text()) == {"new": 2}


def test_the_old_file_stands_until_the_new_one_is_whole_and_synced(tmp_path, monkeypatch):
    path, order, calls = tmp_path / "new" / "report.txt", [], {"fsync": os.fsync, "replace": os.replace}
    for name in calls:
        monkeypatch.setattr(os, name, lambda *args, name=name: (order.append(name), calls[name](*args)))
    with replacing(path, "make room") as temporary:
        temporary.write_text("new")
        assert not path.exists() and temporary.parent == path.parent and temporary.name.endswith("report.txt")
    assert order == ["fsync", "replace", "fsync"]  # the file, its name, the folder
    assert contents(path.parent) == {"report.txt": "new"}


def test_two_writers_of_one_file_do_not_share_a_temporary_one(tmp_path):
    path = tmp_path / "entry"
    with replacing(path, "", unique=True) as one, replacing(path, "", unique=True) as other:
        one.write_text("one")
        other.write_text("other")
    assert contents(tmp_path) == {"entry": "one"}  # the last to end


def test_the_error_is_about_what_the_caller_says(tmp_path):
    with pytest.raises(MachineError, match="^cache: cannot be written .*; free space$"):
        with replacing(tmp_path / "entry", "free space", subject="cache"):
            full()
    with pytest.raises(MachineError, match="^run: No space left on device; free space$"):
        with machine_errors("run", "free space"):
            full()


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"\xff", b"[" * 100_000], ids=["missing", "", "cut", "binary", "deep"]
)
def test_what_is_no_json_is_none(tmp_path, content):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    assert read_json(path) is None
    assert read_json(path / "below_a_file.json") is None
    assert read_json(tmp_path) is None


def test_a_json_file_that_cannot_be_read_is_not_taken_for_a_missing_one(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    write_json(tmp_path / "a.json", {"a": [1]})
    assert read_json(tmp_path / "a.json") == {"a": [1]}
    monkeypatch.setattr(type(tmp_path), "read_bytes", refuse)
    with pytest.raises(MachineError, match="a.json: Permission denied; make it readable"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("target", ["nowhere/masks", "out"], ids=["dangling", "circle"])
def test_c19_a_link_that_leads_nowhere_is_no_folder_to_write_to(tmp_path, target):
    link = tmp_path / "out"
    link.symlink_to(target)
    for folder in (link, link / "below/it"):
        with pytest.raises(UserError, match=f"^{link}: is a link that leads nowhere; choose another$"):
            check_writable(folder, "choose another")
        with pytest.raises(MachineError, match=f"^{folder}: .*; choose another$"):
            make_folder(folder, "choose another")
    assert os.listdir(tmp_path) == ["out"]
