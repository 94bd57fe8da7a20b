"""The pages of --help."""

import re

import pytest
from programs import ROOT, run

from tfaug import configs
from tfaug.augment.methods import GENERATORS, METHODS
from tfaug.commands import cli, main, train

CONFIGS = set(configs.names())
FLAGS = re.compile(r"--([a-z][a-z0-9_-]*)")


def flags_of(command):
    """The flags that a command's own module defines and those that it shares, asked of a fresh process."""
    code = (
        f"from absl import flags\nfrom tfaug.commands import {command}\n"
        "print(*(flag.name for module, found in flags.FLAGS.flags_by_module_dict().items()"
        " if module.startswith('tfaug.') for flag in found))"
    )
    return set(run("-c", code, cwd=ROOT).stdout.split())


@pytest.mark.parametrize("command", main.COMMANDS)
def test_a_page_fits_a_screen_and_names_every_flag(command):
    """And none that does not exist."""
    page = page_of(command)
    lines = page.splitlines()
    assert len(lines) < 24 and max(map(len, lines)) <= 100
    known = flags_of(command) | {"config"}
    if command in main.WITHOUT_CONFIG:
        known -= {"aug", "workdir", "results", "config"}  # see `cli.run`
    if command in ("predict", "generate"):
        assert {"-i, --input", "-o, --output"} <= set(re.findall("-[io], --[a-z]+", page))
    if command == "train":
        known -= set(flags_of("table1")) - {"aug", "workdir", "results", "config"}  # on the page of the grid
    if command == "check":
        known = {"config", "workdir"}
    if command == "table1":
        known -= {"aug"}
    named = set(FLAGS.findall(re.sub("`.*?`", "", page)))
    assert named == known


def page_of(command):
    """Flags of some commands have one name and cannot be defined in one process."""
    code = f"from tfaug.commands import {command}\nprint({command}.__doc__, end='')"
    return run("-c", code, cwd=ROOT).stdout


def test_the_page_of_train_names_every_value():
    words = set(re.findall("[a-z0-9_]+", train.__doc__))
    assert {*METHODS, *GENERATORS, *train.STAGES, *CONFIGS} <= words


def test_every_page_that_names_configs_names_all():
    for command in ("train", "table1", "evaluate", "check"):
        assert CONFIGS <= set(re.findall("[a-z_]+", page_of(command))), command


def test_an_error_names_commands_as_this_one_was_called(monkeypatch):
    text = "x: is missing; first run `python train.py --stage=table1`, or `train.py --stage=aug`, not train.py"
    text += "; the table: python evaluate.py --table1"
    monkeypatch.setattr("sys.argv", ["clone/evaluate.py"])
    assert cli.as_called(text) == text
    monkeypatch.setattr("sys.argv", ["bin/tfaug"])
    expected = "x: is missing; first run `tfaug train --stage=table1`, or `tfaug train --stage=aug`, not train.py"
    expected += "; the table: tfaug evaluate --table1"
    assert cli.as_called(text) == expected
