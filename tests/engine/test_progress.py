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
