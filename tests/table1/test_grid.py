"""The grid, with a stub in place of train.py but for the last test."""

import errno
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time

import dask
import distributed
import pandas as pd
import pytest
from test_end_to_end import TINY, cohort  # noqa: F401 -- a fixture

from tfaug.engine.errors import MachineError, UserError
from tfaug.engine.signals import Interrupted, deferred_signals
from tfaug.table1 import grid
from tfaug.table1.grid import Outcome, View
from tfaug.table1.plan import Job

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# stub.py FOLDER NAME ACTION: what a job is, in a second instead of minutes.
STUB = """
import os, pathlib, signal, sys, time
folder, name, action = pathlib.Path(sys.argv[1]), *sys.argv[2:]
with open(folder / "order.txt", "a") as file:
    print(name, file=file)
if action in ("hang", "deaf"):
    def save(*_):
        (folder / f"{name}.saved").touch()
        sys.exit(143)
    signal.signal(signal.SIGTERM, save if action == "hang" else signal.SIG_IGN)
    signal.signal(signal.SIGINT, lambda *_: (folder / f"{name}.interrupted").touch())
if action in ("hang", "deaf", "young"):
    (folder / f"{name}.{os.getpid()}.pid").touch()
    while not (folder / "go").exists():
        time.sleep(0.01)
if action.isdigit() and (folder / "order.txt").read_text().split().count(name) <= int(action):
    print("boom\\x1b[31m\\n")
    sys.exit(3)
if action == "user":
    print("error: data: is missing; bring it")
    sys.exit(2)
if action == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
print(os.environ["TF_NUM_INTRAOP_THREADS"], "threads")
(folder / name).mkdir(exist_ok=True)
(folder / name / "checkpoints").mkdir()
(folder / name / "best").mkdir()
(folder / f"{name}.json").touch()
"""


@pytest.fixture(scope="module")
def cluster():
    """A running cluster, as somebody else starts it."""
    with distributed.LocalCluster(2, 1, dashboard_address="127.0.0.1:0", memory_limit=0, silence_logs=100) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def stub(tmp_path):
    (tmp_path / "stub.py").write_text(STUB)
    return tmp_path


def job(folder, name, action="ok", *needs):
    return Job(name, (name, action), needs, folder / name, folder / f"{name}.json")


def run(folder, *jobs, **arguments):
    grid.run(jobs, (str(folder / "stub.py"), str(folder)), folder / "logs", **arguments)


def order(folder):
    return (folder / "order.txt").read_text().split()


def wait_for(condition):
    while not condition():
        time.sleep(0.01)


def pids(folder, name):
    return [int(path.name.split(".")[1]) for path in folder.glob(f"{name}.*.pid")]


def alive(pid):
    """Whether a process runs; one that its parent has not collected does not."""
    try:
        return _stat(pid)[0] != "Z"
    except FileNotFoundError:
        return False


def parent(pid):
    return int(_stat(pid)[1])


def _stat(pid):
    """State, parent and more, from behind the name."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def in_background(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_every_job_runs_once_after_those_that_it_needs(stub, cluster, capsys):
    jobs = [job(stub, "a"), job(stub, "b", "ok", "a"), job(stub, "c", "ok", "a"), job(stub, "d", "ok", "b", "c")]
    run(stub, *jobs, scheduler=cluster, threads=3)
    ran = order(stub)
    assert sorted(ran) == ["a", "b", "c", "d"] and ran[0] == "a" and ran[3] == "d"
    log = (stub / "logs" / "a.log").read_text().splitlines()
    assert log[0].startswith("$ ") and log[0].endswith(" a ok") and log[1] == "3 threads"
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and re.match(r"1/4 a: done in \d+ s; running: ", lines[0])
    assert sorted(path.name for path in (stub / "a").iterdir()) == ["best"]


def test_the_first_comes_first(stub):
    run(stub, *(job(stub, name) for name in "abcde"), num_workers=1)
    assert order(stub) == list("abcde")


def test_a_failed_job_is_tried_again_with_one_log(stub, cluster):
    run(stub, job(stub, "a", "2"), scheduler=cluster)
    log = (stub / "logs" / "a.log").read_text()
    assert log.count("$ ") == 3 and log.count("boom") == 2 and log.endswith("1 threads\n")


def test_what_fails_for_good_is_reported_and_the_rest_goes_on_until_it_is_mended(stub, cluster, capsys):
    jobs = [job(stub, "a", "3"), job(stub, "b", "ok", "a"), job(stub, "c", "ok", "b"), job(stub, "d")]
    with pytest.raises(MachineError, match=r"1 of 4 jobs failed, 2 skipped that need them: a; .*same command"):
        run(stub, *jobs, scheduler=cluster)
    assert sorted(order(stub)) == ["a", "a", "a", "d"]
    out = capsys.readouterr().out
    assert rf"a: failed (exit status 3): boom\x1b[31m (log: {stub / 'logs' / 'a.log'})" in out
    assert "b: skipped" in out and "c: skipped" in out and "1 failed; 2 skipped" in out
    run(stub, *jobs, scheduler=cluster)  # the fourth attempt succeeds
    assert order(stub)[4:] == ["a", "b", "c"]
    assert "d: was done before" in capsys.readouterr().out


def test_the_users_error_is_not_tried_again_and_gives_its_status(stub, cluster, capsys):
    with pytest.raises(UserError, match="2 of 2 jobs failed: a and 1 more"):
        run(stub, job(stub, "a", "user"), job(stub, "b", "user"), scheduler=cluster)
    assert sorted(order(stub)) == ["a", "b"]
    assert "a: failed (exit status 2): error: data: is missing; bring it (log: " in capsys.readouterr().out


def test_one_machine_error_among_the_users_gives_its_status(stub, cluster, capsys):
    with pytest.raises(MachineError):
        run(stub, job(stub, "a", "user"), job(stub, "b", "killed"), scheduler=cluster)
    assert "b: failed (SIGKILL)" in capsys.readouterr().out


def test_a_job_that_no_worker_can_take_is_reported_and_what_needs_it_skipped(stub, cluster, capsys):
    (stub / "logs").mkdir()
    (stub / "logs" / "a.log").mkdir()
    with pytest.raises(MachineError, match="1 of 2 jobs failed, 1 skipped"):
        run(stub, job(stub, "a"), job(stub, "b", "ok", "a"), scheduler=cluster)
    assert re.search(r"a: failed: .*a\.log.*\n.*b: skipped", capsys.readouterr().out)


def test_a_killed_worker_takes_its_training_along_and_another_one_does_the_job(stub):
    seen = []

    def kill():
        wait_for(lambda: pids(stub, "a"))
        (first,) = pids(stub, "a")
        os.kill(parent(first), signal.SIGKILL)
        wait_for(lambda: len(pids(stub, "a")) == 2)
        seen.append(alive(first))
        (stub / "go").touch()

    in_background(kill)
    run(stub, job(stub, "a", "hang"), job(stub, "b", "ok", "a"), num_workers=1)
    assert seen == [False] and not (stub / "a.saved").exists()
    assert order(stub) == ["a", "a", "b"]


def test_a_job_that_kills_its_workers_is_given_up(stub, capsys):
    def kill():
        wait_for(lambda: pids(stub, "a"))
        os.kill(parent(*pids(stub, "a")), signal.SIGKILL)

    in_background(kill)
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        with pytest.raises(MachineError, match="1 of 2 jobs failed, 1 skipped"):
            run(stub, job(stub, "a", "hang"), job(stub, "b", "ok", "a"), num_workers=1)
    assert re.search("a: failed: .*worker.*\n.*b: skipped", capsys.readouterr().out)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_trainings_save_and_the_same_command_goes_on(stub, cluster, number):
    def stop():
        wait_for(lambda: pids(stub, "a") and pids(stub, "b"))
        os.kill(os.getpid(), number)

    in_background(stop)
    jobs = [job(stub, "a", "hang"), job(stub, "b", "hang"), job(stub, "c", "ok", "a")]
    with deferred_signals(), pytest.raises(Interrupted, match=signal.Signals(number).name):
        run(stub, *jobs, scheduler=cluster)
    assert (stub / "a.saved").exists() and (stub / "b.saved").exists()
    assert not any(map(alive, pids(stub, "a") + pids(stub, "b")))
    (stub / "go").touch()
    run(stub, *jobs, scheduler=cluster)
    assert sorted(order(stub)) == ["a", "a", "b", "b", "c"]


def start(folder, scheduler="", action="hang"):
    """The grid, with one job, as a process in a group of its own."""
    program = f"""
        import pathlib, sys
        from tfaug.engine.errors import MachineError
        from tfaug.engine.signals import Interrupted, deferred_signals
        from tfaug.table1 import grid
        from tfaug.table1.plan import Job
        if __name__ == "__main__":
            folder = pathlib.Path({str(folder)!r})
            job = Job("a", ("a", {action!r}), (), folder / "a", folder / "a.json")
            try:
                with deferred_signals():
                    grid.run([job], [str(folder / "stub.py"), str(folder)], folder / "logs", {scheduler!r}, 1)
            except Interrupted as interrupted:
                sys.exit(interrupted.exit_status)
            except MachineError as error:
                print(error, file=sys.stderr)
    """
    (folder / "main.py").write_text(textwrap.dedent(program))
    return subprocess.Popen(
        [sys.executable, "main.py"], cwd=folder, start_new_session=True, stderr=subprocess.PIPE, text=True
    )


def test_the_keyboard_reaches_no_worker_nor_training(stub):
    """As ^C in a terminal does, the signal goes to the whole process group."""
    process = start(stub)
    wait_for(lambda: pids(stub, "a") or process.poll() is not None)
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert (process.returncode, errors) == (130, "")
    assert (stub / "a.saved").exists() and order(stub) == ["a"]
    assert not (stub / "a.interrupted").exists()


def test_a_program_that_does_not_listen_to_signals_yet_can_be_stopped(stub):
    process = start(stub, action="young")
    wait_for(lambda: pids(stub, "a") or process.poll() is not None)
    process.terminate()
    assert process.communicate(timeout=60)[1] == "" and process.returncode == 143


def test_a_second_interrupt_waits_for_no_training(stub):
    process = start(stub, action="deaf")
    wait_for(lambda: pids(stub, "a") or process.poll() is not None)
    while process.poll() is None:  # signals that come too fast are one
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.2)
    assert process.returncode == 130
    wait_for(lambda: not any(map(alive, pids(stub, "a"))))


@pytest.mark.parametrize("here", [True, False])
def test_when_the_grid_itself_is_killed_no_training_stays(stub, cluster, here):
    """Those on a running cluster can even save."""
    process = start(stub, "" if here else cluster)
    wait_for(lambda: pids(stub, "a") or process.poll() is not None)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(map(alive, pids(stub, "a"))))
    assert here or (stub / "a.saved").exists()


def test_a_run_that_is_still_in_use_is_waited_for(stub, cluster):
    holder = (
        "import pathlib, sys, time\nfrom tfaug.engine.run_dir import RunDir\nfolder = pathlib.Path(sys.argv[1])\n"
        "with RunDir(folder / 'a', {}):\n"
        "    (folder / 'held').touch()\n"
        "    while not (folder / 'asked').exists(): time.sleep(0.01)\n"
        "    time.sleep(1)\n"
        "    print((folder / 'order.txt').exists())\n"
    )
    process = subprocess.Popen([sys.executable, "-c", holder, stub], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    wait_for((stub / "held").exists)
    in_background(lambda: (wait_for((stub / "logs").exists), (stub / "asked").touch()))
    run(stub, job(stub, "a"), scheduler=cluster)
    assert process.communicate()[0] == "False\n" and order(stub) == ["a"]


def test_of_two_commands_one_does_a_job_and_the_other_waits_for_it(stub, cluster, capsys):
    """No run is in use all the time from a training's start to the end of the evaluation, but the job is."""
    first = in_background(lambda: run(stub, job(stub, "a", "young"), job(stub, "b", "ok", "a"), scheduler=cluster))
    wait_for(lambda: pids(stub, "a"))
    second = in_background(lambda: run(stub, job(stub, "a", "young"), job(stub, "b", "ok", "a"), num_workers=1))
    time.sleep(5)
    (stub / "go").touch()
    first.join(), second.join()
    assert order(stub) == ["a", "b"] and "a: was done before" in capsys.readouterr().out


def test_a_scheduler_that_does_not_answer_is_one_line(stub):
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        with pytest.raises(MachineError, match=r"^tcp://127.0.0.1:9: is lost \(.*; see that the cluster runs"):
            run(stub, job(stub, "a"), scheduler="tcp://127.0.0.1:9")


def start_dask(folder, kind, *flags):
    command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--scheduler-file=scheduler.json", *flags]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


WORKER = ("--nthreads=1", "--memory-limit=0", "--no-dashboard")


def start_scheduler(folder):
    process = start_dask(folder, "scheduler", "--host=127.0.0.1", "--port=0", "--dashboard-address=127.0.0.1:0")
    file = folder / "scheduler.json"
    wait_for(lambda: file.exists() and file.read_text().rstrip().endswith("}"))
    return process, json.loads(file.read_text())["address"]


@pytest.mark.slow
def test_a_worker_that_is_asked_to_end_saves_and_another_one_goes_on(stub):
    scheduler, address = start_scheduler(stub)
    first = start_dask(stub, "worker", *WORKER)
    process = start(stub, address)
    wait_for(lambda: pids(stub, "a") or process.poll() is not None)
    first.terminate()
    wait_for((stub / "a.saved").exists)
    second = start_dask(stub, "worker", *WORKER)
    wait_for(lambda: len(pids(stub, "a")) == 2 or process.poll() is not None)
    (stub / "go").touch()
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", 0)
    assert (stub / "a.json").exists()
    for ended in (second, scheduler):
        ended.terminate()
        ended.wait()


@pytest.mark.slow
def test_a_scheduler_that_is_killed_is_one_line_and_the_trainings_save(stub):
    scheduler, address = start_scheduler(stub)
    worker = start_dask(stub, "worker", *WORKER)
    process = start(stub, address)
    wait_for(lambda: pids(stub, "a") or process.poll() is not None)
    scheduler.kill()
    errors = process.communicate(timeout=60)[1]
    assert errors.startswith(f"{address}: ") and errors.count("\n") == 1
    wait_for((stub / "a.saved").exists)
    worker.terminate()
    worker.wait()


class Cluster:
    """A client and its cluster whose jobs end, and whose workers die, when a test says so."""

    def __init__(self, threads):
        self.threads, self.had, self.futures = threads, [], {}

    def submit(self, do, job, program, *, key, workers, pure):
        (worker,) = workers
        self.had.append((job.name, worker))
        self.futures[job.name] = self.Future(key)
        return self.futures[job.name]

    def cancel(self, futures, force):
        for future in futures:
            future.cancelled = True

    def nthreads(self):
        return dict(self.threads)

    def run(self, *_, **__):
        return {}

    class Future:
        def __init__(self, key):
            self.key, self.status, self.cancelled, self.lost = key, "pending", False, False

        def done(self):
            return self.status != "pending"

        def result(self, timeout):
            if self.lost:
                raise distributed.TimeoutError
            return Outcome(0, "done")

    def end(self, name):
        self.futures[name].status = "finished"


def watch(monkeypatch, cluster, jobs, *moments):
    """Watches jobs; before each look but the first, the next of the moments happens."""
    script = iter(moments)
    monkeypatch.setattr(grid.time, "sleep", lambda _: next(script)())
    return grid._watch(cluster, jobs, None)


def plain(name, *needs, run=None):
    return Job(name, (f"--stage={name}",), needs, run)


def test_a_worker_has_one_job_at_a_time_and_the_next_when_it_is_free(monkeypatch):
    cluster = Cluster({"one": 1, "two": 1})
    jobs = [plain("a"), *(plain(name, "a") for name in "bcde"), plain("f")]
    had = []

    def end(*names):
        def moment():
            had.append(list(cluster.had))
            cluster.had.clear()
            for name in names:
                cluster.end(name)

        return moment

    assert watch(monkeypatch, cluster, jobs, end(), end("f"), end("a"), end("b"), end("d", "c"), end("e"), end()) == {}
    assert had == [
        [("a", "one"), ("f", "two")],
        [],
        [],  # what is left needs a
        [("b", "one"), ("c", "two")],
        [("d", "one")],
        [("e", "one")],
        [],
    ]


def test_the_job_of_a_lost_worker_goes_to_a_free_one_and_a_new_worker_gets_the_next(monkeypatch):
    cluster = Cluster({"one": 1, "two": 1})
    jobs = [plain(name) for name in "abcd"]
    first = []

    def lose():
        first.append(cluster.futures["a"])
        del cluster.threads["one"]

    def join():
        assert first[0].cancelled and cluster.had[2:] == []
        cluster.threads["three"] = 2

    def end():
        assert cluster.had[2:] == [("a", "three"), ("c", "three")]
        for name in "abc":
            cluster.end(name)

    assert watch(monkeypatch, cluster, jobs, lose, join, end, lambda: cluster.end("d"), lambda: None) == {}
    assert cluster.had[4:] == [("d", "two")]


def test_a_job_that_gets_on_may_lose_any_number_of_workers(monkeypatch, tmp_path):
    cluster = Cluster({"one": 1})
    tries = iter(range(100))

    def lose(save):
        def moment():
            number = next(tries)
            if save:
                (tmp_path / "checkpoints" / f"step-{number:08}").mkdir(parents=True)
            cluster.threads = {f"worker {number}": 1}

        return moment

    jobs = [plain("a", run=tmp_path), plain("b", "a")]
    not_done = watch(monkeypatch, cluster, jobs, *[lose(True)] * 9, *[lose(False)] * 3, lambda: None)
    assert {name: outcome.kind for name, outcome in not_done.items()} == {"a": "failed", "b": "skipped"}
    assert not_done["a"].text == "failed: it has lost 4 workers" and len(cluster.had) == 12


def test_a_worker_that_dies_with_its_result_is_a_lost_worker(monkeypatch):
    cluster = Cluster({"one": 1})

    def die():
        cluster.futures["a"].lost = True
        cluster.end("a")

    not_done = watch(monkeypatch, cluster, [plain("a")], die, lambda: cluster.end("a"), lambda: None)
    assert not_done == {} and cluster.had == [("a", "one"), ("a", "one")]


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC])
def test_a_closed_or_full_output_is_not_taken_for_a_lost_cluster(stub, cluster, monkeypatch, number):
    def fail(*_):
        raise OSError(number, "of the output")

    monkeypatch.setattr(View, "update", fail)
    with pytest.raises(OSError, match="of the output"):
        run(stub, job(stub, "a"), scheduler=cluster)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_view_estimates_the_time_left_from_each_stage():
    def named(stage, name):
        return Job(name, (f"--stage={stage}",))

    stream = io.StringIO()
    view = View(8, stream)
    segmenters, generators = [named("seg", f"s{n}") for n in range(4)], [named("aug", f"g{n}") for n in range(3)]
    view.update([], [named("data", "data"), *generators, *segmenters], ["data"], 2)
    assert stream.getvalue() == ""
    view.update([(named("data", "data"), Outcome(0, "done", 1000.0))], generators + segmenters, [], 2)
    view.update([(generators[0], Outcome(0, "done", 100.0))], generators[1:] + segmenters, ["g1"], 2)
    view.update([(generators[1], Outcome(0, "done before"))], generators[2:] + segmenters, ["g2", "s0"], 2)
    view.update([(segmenters[0], Outcome(0, "done", 50.0))], generators[2:] + segmenters[1:], ["g2"], 2)
    view.update([(segmenters[1], Outcome(3, "failed", 1e6))], generators[2:] + segmenters[2:], ["g2"], 1)
    for num_workers in (0, 0, 1):
        view.update([], generators[2:] + segmenters[2:], [], num_workers)
    assert stream.getvalue().splitlines() == [
        "1/8 data: done; running: none; time left unknown",
        "2/8 g0: done; running: g1; 05:00 left",
        "3/8 g1: done before; running: g2, s0; 04:10 left",
        "4/8 s0: done; running: g2; 02:05 left",
        "5/8 s1: failed; running: g2; 1 failed; 03:20 left",
        "running: none; 1 failed; waiting for a worker",
    ]


def test_the_view_on_a_terminal_is_a_bar_above_which_failures_stay():
    stream = Terminal()
    jobs = [Job(name, ("--stage=seg",)) for name in "abc"]
    with View(3, stream) as view:
        view.update([(jobs[0], Outcome(0, "done in 5 s", 5.0))], jobs[1:], ["b", "c"], 2)
        view.update([(jobs[1], Outcome(3, "failed (exit status 3)", 5.0))], jobs[2:], ["c"], 2)
    text = stream.getvalue()
    assert "1/3 jobs" in text and "running: b, c; 00:05 left" in text and "done in" not in text
    assert "2/3 b: failed (exit status 3)\n" in text and "running: c; 1 failed; 00:02 left" in text


def test_nobody_else_can_send_jobs_to_the_local_cluster():
    with grid._cluster("", 1) as client:
        address = client.scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        with pytest.raises(OSError), dask.config.set({"distributed.comm.timeouts.connect": "2s"}):
            distributed.Client(address.replace("tls", "tcp"))


@pytest.mark.slow
def test_a_grid_killed_on_the_way_gives_the_same_results_as_an_undisturbed_one(cohort, tmp_path):  # noqa: F811
    flags = ["--stage=table1", "--methods=none,aff_gd", "--num_labelled=1", "--sets=1", "--repeats=1"]
    command = [sys.executable, str(ROOT / "train.py"), *flags, f"--config.data.root={cohort}", *TINY]

    def finish(folder):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done.stdout

    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir(), killed.mkdir()
    assert "4/4 phantom-n1-set1-seg-aff_gd-seed0: done" in finish(undisturbed)
    process = subprocess.Popen(command, cwd=killed, stdout=subprocess.DEVNULL)
    wait_for(lambda: any(killed.glob("runs/*-aug-*/checkpoints/step-*")))
    process.kill()
    process.wait()
    finish(killed)

    def outcome(folder, result):
        values = json.loads((folder / "runs" / "table1" / result).read_text())
        tables = [path.read_bytes() for path in sorted(folder.glob("runs/*/diagnostics.csv"))]
        return {key: value for key, value in values.items() if key not in ("seconds", "commit")}, tables

    for method in ("none", "aff_gd"):
        name = f"phantom-n1-set1-seg-{method}-seed0.json"
        assert outcome(undisturbed, name) == outcome(killed, name)
    diagnostics = pd.read_csv(killed / "runs" / "phantom-n1-set1-aug-deform-seed0" / "diagnostics.csv")
    assert list(diagnostics.step) == [4, 6] and "generator/displacement_max_mm" in diagnostics
    assert not list(killed.glob("runs/*/checkpoints")) and len(list(killed.glob("runs/*/best/step-*"))) == 3
    assert str(tmp_path) not in "".join(path.read_text() for path in (killed / "runs" / "table1").iterdir())
    assert "2 results, complete; nothing to do" in finish(killed)
