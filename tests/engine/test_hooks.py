import io
import math
import re
import sys

import numpy as np
import pytest
import tensorflow as tf
from toy import logged, summaries

from tfaug.engine.checkpoint import Best
from tfaug.engine.errors import MachineError
from tfaug.engine.event_log import EventLog
from tfaug.engine.hooks import KeepBest, Pictures, Progress, Scalars, StopOnNonFinite, Text


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Reading:
    """A scalar that counts how often it is read."""

    def __init__(self, value=1.0):
        self.value, self.reads = value, 0

    def __float__(self):
        self.reads += 1
        return self.value


class FakeLog:
    def __init__(self):
        self.points = []

    def scalars(self, values, num_done):
        self.points.append((num_done, dict(values)))

    def row(self, values, num_done):
        assert self.points[-1] == (num_done, dict(values))


def call_each(hook, values, start=0):
    hook.begin(start, start + len(values))
    for num_done, value in enumerate(values, start + 1):
        hook(num_done, {"loss/a": tf.constant(1.0), "loss/b": tf.constant(value)})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_n1_the_first_bad_step_and_its_scalar_are_named_although_looked_at_later(bad):
    hook = StopOnNonFinite(interval=5)
    with pytest.raises(MachineError, match=rf"^loss/b: became {bad} in step 23; "):
        call_each(hook, [1.0, 1.0, bad, bad, 1.0], start=20)


def test_n1_every_step_is_looked_at_by_the_end():
    with pytest.raises(MachineError, match="step 7"):
        call_each(StopOnNonFinite(interval=5), [1.0] * 6 + [math.nan])


def test_n1_a_look_at_any_time_finds_what_was_not_yet_looked_at():
    hook = StopOnNonFinite(interval=100)
    with pytest.raises(MachineError, match="step 2"):
        hook.begin(0, 10)
        for num_done, value in enumerate([1.0, math.nan], 1):
            hook(num_done, {"loss": value})
        hook.check()


def test_scalars_are_read_once_each_and_late():
    hook, readings = StopOnNonFinite(interval=3), [Reading() for _ in range(6)]
    hook.begin(0, 100)
    counts = []
    for num_done, reading in enumerate(readings, 1):
        hook(num_done, {"loss": reading})
        counts.append(sum(reading.reads for reading in readings))
    assert counts == [0, 0, 3, 3, 3, 6]


class FakeCheckpoints:
    def __init__(self, best=None):
        self.best, self.saved = best, []

    def save_best(self, num_done, score, models):
        assert models == {"model": "a model"}
        self.best = Best(score, num_done)
        self.saved.append(num_done)


def keep_best(scores, best=None, **arguments):
    checkpoints, log, scores = FakeCheckpoints(best), FakeLog(), list(scores)
    score = lambda: {"dice/RV": 0.0, "dice/mean": scores.pop(0)}  # noqa: E731
    hook = KeepBest(1, score, {"model": "a model"}, checkpoints, log, **arguments)
    for num_done in range(1, len(scores) + 1):
        hook(num_done, {})
    return checkpoints, log


def test_only_a_strict_improvement_replaces_the_best():
    checkpoints, log = keep_best([math.nan, 0.0, 0.3, 0.3, 0.1, 0.4, math.nan])
    assert checkpoints.saved == [2, 3, 6]
    assert checkpoints.best == (0.4, 6)
    assert [num_done for num_done, _ in log.points] == [1, 2, 3, 4, 5, 6, 7]
    assert log.points[2] == (3, {"dice/RV": 0.0, "dice/mean": 0.3})


def test_another_key_may_decide():
    assert keep_best([0.1, 0.2], key="dice/RV")[0].saved == [1]


def test_nothing_is_scored_during_warm_up():
    checkpoints, log = keep_best([0.5, 0.5, 0.6, 0.7], start=3)
    assert [num_done for num_done, _ in log.points] == [3, 4] and checkpoints.saved == [3]


def test_the_latest_may_be_kept_whatever_it_scores():
    checkpoints, _ = keep_best([0.6, 0.8, 0.1], latest=True)
    assert checkpoints.saved == [1, 2, 3] and checkpoints.best == (0.1, 3)


def test_a_resumed_run_knows_its_best():
    checkpoints, _ = keep_best([0.6, 0.8], best=Best(0.7, 0))
    assert checkpoints.saved == [2]


def test_what_is_logged_is_found_under_its_tag_and_step(tmp_path):
    log = EventLog(tmp_path)
    picture = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    Text("config", "seed = 0", log)(1, {})
    Text("config", "seed = 0", log)(2, {})
    Scalars(5, log)(5, {"loss": tf.constant(0.25)})
    Pictures(5, lambda num_done: {"one": picture[0], "two": picture + num_done}, log)(5, {})
    log.sizes()
    text, loss, one, two = summaries(tmp_path)
    assert text == ("config", 1, b"seed = 0")
    assert loss == ("loss", 5, 0.25)
    assert one[:2] == ("one", 5) and two[:2] == ("two", 5)
    decoded = [tf.io.decode_png(png).numpy() for png in two[2][2:]]  # preceded by width and height
    np.testing.assert_array_equal(decoded, picture + 5)
    assert len(one[2]) == 3


def test_logs_are_cut_back_to_where_their_sizes_were_taken(tmp_path):
    def write(log, steps):
        for num_done in steps:
            log.scalars({"loss": num_done}, num_done)

    first = EventLog(tmp_path)
    write(first, range(1, 5))
    sizes = first.sizes()
    write(first, range(5, 8))
    first.sizes()
    second = EventLog(tmp_path)
    write(second, range(8, 10))
    second.sizes()
    (tmp_path / "notes.txt").touch()
    third = EventLog(tmp_path)
    third.cut(sizes)
    write(third, range(5, 7))
    third.sizes()
    assert [step for _, step, _ in logged(tmp_path)] == [1, 2, 3, 4, 5, 6]
    EventLog(tmp_path).cut({})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "old, new, left",
    [
        (b"2,0.5", b"2,0.\xff", [1, 3]),
        (b"2,0.5", b"2\x000.5", [1, 3]),
        (b"2,0.5", b"nan,5", [1, 3]),
        (b"2,0.5", b"inf,5", [1, 3]),
        (b"2,0.5\r\n", b"", [1, 3]),
        (b"step", b"st\xffp", []),
        (b"step,score\r\n1,0.5\r\n2,0.5\r\n3,0.5\r\n", b"", []),
        (b"step,score", b'"step,score', []),
    ],
)
def test_k4_damaged_rows_of_the_table_are_left_out_and_told(tmp_path, old, new, left):
    log = EventLog(tmp_path)
    assert log.rows() == ([], False)
    for step in (1, 2, 3):
        log.row({"score": 0.5}, step)
    assert log.rows() == ([{"step": step, "score": 0.5} for step in (1, 2, 3)], False)
    table = tmp_path / "diagnostics.csv"
    table.write_bytes(table.read_bytes().replace(old, new))
    rows, damaged = log.rows()
    if b"\0" in new and sys.version_info < (3, 11):
        left = []  # there `csv` reads nothing then
    assert [row["step"] for row in rows] == left and damaged == (len(new) > 0 or not left)


def test_validations_are_rows_of_a_table_that_is_cut_back_like_the_events(tmp_path):
    def validate(log, steps):
        scores = [{"dice/mean": 0.1 * step, "generator/folded": step / 3} for step in steps]
        hook = KeepBest(1, lambda: scores.pop(0), {"model": "a model"}, FakeCheckpoints(), log)
        for num_done in steps:
            hook(num_done, {})

    first = EventLog(tmp_path)
    before = first.sizes()
    validate(first, [2, 4])
    sizes = first.sizes()
    validate(first, [6, 8])
    second = EventLog(tmp_path)
    second.cut(sizes)
    validate(second, [6])
    lines = ["step,dice/mean,generator/folded", "2,0.2,0.666667", "4,0.4,1.33333", "6,0.6,2"]
    assert (tmp_path / "diagnostics.csv").read_text().splitlines() == lines
    EventLog(tmp_path).cut(before)
    assert not (tmp_path / "diagnostics.csv").exists()


def test_a_row_also_has_what_the_update_returned(tmp_path):
    log = EventLog(tmp_path)
    hook = KeepBest(1, lambda: {"dice/mean": 0.5}, {"model": "a model"}, FakeCheckpoints(), log)
    hook(2, {"loss/segmentation": tf.constant(0.25), "dice/mean": tf.constant(9.0)})
    assert log.rows() == ([{"step": 2, "dice/mean": 0.5, "loss/segmentation": 0.25}], False)


def test_a_table_keeps_its_columns(tmp_path):
    log = EventLog(tmp_path)
    log.row({"dice/RV, left": 0.5}, 1)
    log.row({"loss/segmentation": 0.25, "dice/RV, left": 0.75}, 2)
    assert log.rows() == ([{"step": 1, "dice/RV, left": 0.5}, {"step": 2, "dice/RV, left": 0.75}], False)


def test_a_table_with_a_damaged_head_takes_rows(tmp_path):
    (tmp_path / "diagnostics.csv").write_bytes(b"st\xffp,\x00\r\n1,0.5\r\n")
    log = EventLog(tmp_path)
    log.row({"dice/mean": 0.5}, 2)
    assert log.rows() == ([], True)


def test_the_time_of_training_is_summed_over_sessions_without_the_pause(tmp_path):
    assert EventLog(tmp_path).seconds() == 0
    for session, times in enumerate([(10.0, 12.0, 15.0), (100.0, 101.0)]):
        with tf.io.TFRecordWriter(str(tmp_path / f"events.out.tfevents.{session}")) as file:
            for moment in times:
                file.write(tf.compat.v1.Event(wall_time=moment).SerializeToString())
    assert EventLog(tmp_path).seconds() == 6


def test_nothing_is_written_before_something_is_logged(tmp_path):
    assert EventLog(tmp_path / "events").sizes() == {}
    EventLog(tmp_path / "events").cut({})
    assert not (tmp_path / "events").exists()


def test_a_log_that_cannot_be_written_is_the_machines_fault(tmp_path):
    (tmp_path / "events").touch()
    with pytest.raises(MachineError, match="events"):
        EventLog(tmp_path / "events").scalars({"loss": 1.0}, 1)


def run_progress(stream, num_steps, start=0, every=10):
    hook = Progress("deform", every, FakeCheckpoints(Best(0.75, 2)), stream)
    readings = [Reading(0.123456) for _ in range(start, num_steps)]
    hook.begin(start, num_steps)
    for num_done, reading in enumerate(readings, start + 1):
        if num_done % hook.every == 0 or num_done == num_steps:
            hook(num_done, {"loss/a": reading, "accuracy": 0.5})
    hook.end()
    return stream.getvalue(), [number for number, reading in enumerate(readings, start + 1) if reading.reads]


def test_without_a_terminal_there_is_one_line_per_interval_and_one_at_the_end():
    printed, read = run_progress(io.StringIO(), 25)
    lines = printed.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"deform: {n}/25" for n in (10, 20, 25)]
    for line in lines:
        assert re.search(r"/25, +[\d.]+step/s, 00:00 left, loss/a=0.1235 kept 0.7500 \(step 2\)$", line)
    assert read == [10, 20, 25]


def test_a_terminal_gets_a_bar_that_starts_where_the_run_resumes():
    printed, read = run_progress(Terminal(), 45, start=20)
    assert "\n" not in printed.rstrip("\n")
    assert "deform" in printed and " 20/45 " in printed and " 45/45 " in printed
    assert "loss/a=0.1235" in printed
    assert read == [30, 40, 45]
