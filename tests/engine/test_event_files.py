"""Event files are read as TensorFlow wrote them, without it."""

import numpy as np
import pytest

from tfaug.engine import event_files
from tfaug.engine.event_log import EventLog


@pytest.fixture
def log(tmp_path):
    """Two sessions."""
    for steps in ((1, 2), (3,)):
        log = EventLog(tmp_path)
        for step in steps:
            log.scalars({"loss": 0.5 * step, "dice/a": 1 / step}, step)
        log.pictures({"picture": np.zeros((4, 5, 3), np.uint8)}, steps[-1])
    return log


def test_curves_go_on_over_sessions_and_pictures_are_none(log):
    curves = event_files.scalars(log.folder)
    assert curves == {"loss": ([1, 2, 3], [0.5, 1, 1.5]), "dice/a": ([1, 2, 3], [1, 0.5, pytest.approx(1 / 3)])}
    assert event_files.seconds(log.folder) == log.seconds() >= 0


@pytest.mark.parametrize("damage", [lambda content: content[:-30], lambda content: content[:-200] + 200 * b"\xff"])
def test_what_is_before_a_damage_is_read(log, damage):
    (first, _) = event_files.files(log.folder)
    first.write_bytes(damage(first.read_bytes()))
    steps, _ = event_files.scalars(log.folder)["loss"]
    assert 3 in steps and 1 in steps


def test_a_run_without_event_files_has_no_curves(tmp_path):
    assert (event_files.scalars(tmp_path), event_files.seconds(tmp_path)) == ({}, 0)
