import copy

import pytest

from tfaug.engine.errors import MachineError, TfaugError, UserError, printable


def test_the_line_names_subject_problem_and_remedy():
    error = UserError("patient007/Info.cfg", "has no ES", "restore the file")
    assert str(error) == "patient007/Info.cfg: has no ES; restore the file"


@pytest.mark.parametrize("kind, status", [(UserError, 2), (MachineError, 3)])
def test_the_exit_status_says_whose_fault_it_is(kind, status):
    error = kind("subject", "problem", "remedy")
    assert error.exit_status == status
    assert isinstance(error, TfaugError)


def test_a_worker_can_send_the_error_to_its_parent():
    error = UserError("case", "is broken", "mend it")
    received = copy.copy(error)  # by the same protocol as between processes
    assert type(received) is UserError
    assert str(received) == str(error)


@pytest.mark.parametrize(
    "name, shown",
    [
        ("two\nlines.nii.gz", r"two\nlines.nii.gz"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("over\rwritten\t\x08", r"over\rwritten\t\x08"),
        ("line\u2028separator", r"line\u2028separator"),
        ("reversed\u202egnp", r"reversed\u202egnp"),
        ("undecodable\udcff", r"undecodable\udcff"),
        ("Müller 心.nii.gz", "Müller 心.nii.gz"),
    ],
    ids=["newline", "S9 ansi", "carriage return", "unicode newline", "bidi", "undecodable", "letters stay"],
)
def test_s9_control_characters_are_escaped(name, shown):
    assert printable(name) == shown
    for error in (UserError(name, "p", "r"), UserError("s", name, "r"), UserError("s", "p", name)):
        line = str(error)
        assert shown in line
        assert line.splitlines() == [line]
        line.encode()  # can be written to a terminal
