import itertools
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import tensorflow as tf
from toy import Toy, outcome

from tfaug.engine.errors import MachineError
from tfaug.engine.hooks import Hook, StopOnNonFinite
from tfaug.engine.loop import fit
from tfaug.engine.signals import Interrupted, deferred_signals


class Recorder(Hook):
    def __init__(self, every):
        self.every, self.calls = every, []

    def begin(self, num_done, num_steps):
        self.calls.append(("begin", num_done, num_steps))

    def __call__(self, num_done, scalars):
        self.calls.append((num_done, scalars))

    def end(self):
        self.calls.append("end")


class FakeCheckpoint:
    def __init__(self, every, start=0):
        self.every, self.start, self.saved = every, start, []

    def restore(self):
        return self.start

    def save(self, num_done):
        self.saved.append(num_done)


def echo(batch, index):
    return {"batch": batch, "index": index}


def test_each_update_gets_its_own_batch_and_index_and_hooks_follow_when_due():
    hook, checkpoint = Recorder(3), FakeCheckpoint(4, start=5)
    fit(echo, itertools.count, 11, [hook], checkpoint)
    assert hook.calls == [
        ("begin", 5, 11),
        (6, {"batch": 5, "index": 5}),
        (9, {"batch": 8, "index": 8}),
        (11, {"batch": 10, "index": 10}),
        "end",
    ]
    assert checkpoint.saved == [8, 11]


def test_a_finished_run_is_left_alone():
    hook, checkpoint = Recorder(1), FakeCheckpoint(4, start=11)
    fit(pytest.fail, itertools.count, 11, [hook], checkpoint)
    assert hook.calls == [("begin", 11, 11), "end"] and not checkpoint.saved


def test_hooks_end_also_when_an_update_fails():
    def fail(batch, index):
        raise ZeroDivisionError

    hook = Recorder(1)
    with pytest.raises(ZeroDivisionError):
        fit(fail, itertools.count, 3, [hook])
    assert hook.calls[-1] == "end"


def test_no_scalar_is_read_while_no_hook_is_due():
    """A device tensor that must be fetched would stop the queue of updates at every step."""

    class Unreadable:
        def __float__(self):
            raise AssertionError("read")

    fit(lambda *_: {"loss": Unreadable()}, itertools.count, 49, [])
    with pytest.raises(AssertionError):
        fit(lambda *_: {"loss": Unreadable()}, itertools.count, 50, [StopOnNonFinite()])


@pytest.mark.parametrize("error", [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "OOM")])
def test_p5_out_of_memory_names_a_smaller_batch(error):
    def exhaust(batch, index):
        raise error

    with pytest.raises(MachineError, match="smaller batch"):
        fit(exhaust, itertools.count, 3)


def test_n1_a_bad_loss_stops_the_run_before_anything_bad_is_saved(tmp_path):
    """Update 6 is bad; the next save would be after 8, the next validation after 6."""
    toy = Toy(tmp_path)
    update = toy.step.update

    def spoil(batch):
        return update(batch * (float("nan") if int(toy.step.optimizer.iterations) == 5 else 1.0))

    toy.step.update = spoil
    toy.keep_best._score = lambda: {"score": float(toy.step.optimizer.iterations)}
    with pytest.raises(MachineError, match="loss/toy: became nan in step 6"):
        toy.fit(14)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000000", "step-00000004"]
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["step-00000003"]


@pytest.mark.parametrize(
    "place, signum, status",
    [
        ("batch", signal.SIGTERM, 143),
        ("update", signal.SIGINT, 130),
        ("score", signal.SIGTERM, 143),
        ("save", signal.SIGINT, 130),
    ],
)
def test_p1_p2_a_signal_ends_the_run_after_the_current_update(tmp_path, undisturbed, place, signum, status):
    toy = Toy(tmp_path)
    handler = signal.getsignal(signum)

    def send_in(here, call):
        def send_then_call(*args, **kwargs):
            if here == place and int(toy.step.optimizer.iterations) == (5 if place == "batch" else 6):
                os.kill(os.getpid(), signum)
            return call(*args, **kwargs)

        return send_then_call

    def batches(start, unsent=toy.batches):
        return map(send_in("batch", lambda batch: batch), unsent(start))

    toy.batches = batches
    toy.step.update = send_in("update", toy.step.update)
    toy.keep_best._score = send_in("score", toy.score)
    toy.checkpoints.save = send_in("save", toy.checkpoints.save)
    toy.checkpoints.every = 6
    with pytest.raises(Interrupted) as stop:
        toy.fit(14)
    assert stop.value.exit_status == status
    assert signal.getsignal(signum) == handler
    resumed = Toy(tmp_path)
    num_done = resumed.checkpoints.restore()
    assert num_done == {"batch": 6, "update": 7, "score": 6, "save": 7}[place]
    resumed = Toy(tmp_path)
    resumed.fit(14)
    assert outcome(resumed) == undisturbed


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    toy = Toy(tmp_path_factory.mktemp("undisturbed"))
    toy.fit(14)
    return outcome(toy)


def test_a_signal_before_the_loop_stops_before_the_first_update():
    with deferred_signals(), pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
        fit(pytest.fail, itertools.count, 3)


def test_a_signal_without_a_checkpoint_still_stops_the_run():
    def step(batch, index):
        if index == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    hook = Recorder(1)
    with pytest.raises(Interrupted):
        fit(step, itertools.count, 100, [hook])
    assert hook.calls[-2:] == [(3, {}), "end"]


def test_sigterm_to_a_process_and_resume(tmp_path, undisturbed):
    """In a fresh process, from outside."""
    script = pathlib.Path(__file__).with_name("toy.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), "14", "0.1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    for line in process.stdout:
        if line.startswith("toy: 5/"):
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    toy = Toy(tmp_path)
    assert 5 <= toy.checkpoints.restore() < 14
    toy = Toy(tmp_path)
    toy.fit(14)
    assert outcome(toy) == undisturbed
