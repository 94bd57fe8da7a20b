import io

from tfaug.engine import progress, workers
from tfaug.engine.progress import Display


class Clock:
    def __init__(self, monkeypatch, module):
        self.now = 100.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


def test_rate_and_time_left_are_those_of_this_session(monkeypatch):
    clock, stream = Clock(monkeypatch, progress), io.StringIO()
    with Display("seg", 200, "step", done=90, stream=stream) as display:
        clock.now += 2
        display.update(100, "loss=1")
        clock.now += 198
        display.update(110)
    assert stream.getvalue().splitlines() == [
        "seg: 100/200,  5.00step/s, 00:20 left, loss=1",
        "seg: 110/200, 10.00s/step, 15:00 left",
    ]


def test_what_is_unlike_the_others_is_left_out_of_the_rate(monkeypatch):
    clock, stream = Clock(monkeypatch, progress), io.StringIO()
    with Display("table1", 5, "job", stream=stream) as display:
        for number, left_out in ((1, True), (2, False), (3, True), (4, False)):
            clock.now += 10
            if left_out:
                display.leave_out()
            display.update(number)
    assert [line.split(", ", 1)[1] for line in stream.getvalue().splitlines()] == [
        *("?job/s, ? left", "10.00s/job, 00:30 left", "20.00s/job, 00:40 left", "15.00s/job, 00:15 left")
    ]


def test_a_line_comes_now_and_then_and_at_the_end(monkeypatch, capsys):
    clock = Clock(monkeypatch, workers)

    def slow():
        for number in range(9):
            clock.now += 4
            yield number

    assert list(workers.progress(slow(), 9, "checking", "case")) == list(range(9))
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == [
        *("checking: 3/9", "checking: 6/9", "checking: 9/9")
    ]
