"""The grid, with a stub in place of train.py but for the last test."""

import concurrent.futures
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
from tfaug.table1.cluster import ClusterExecutor
from tfaug.table1.grid import Outcome
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
if action == "advances":
    number = (folder / "order.txt").read_text().split().count(name)
    (folder / name / "checkpoints" / f"step-{number:08}").mkdir(parents=True)
    sys.exit(3 if number < 6 else 0)
if action == "stuck":
    (folder / name / "checkpoints" / "step-00000001").mkdir(parents=True, exist_ok=True)
    sys.exit(3)
if action == "user":
    print("error: data: is missing; bring it")
    sys.exit(2)
if action == "warns":
    print("warning: the scans are odd\\nwarning: so is " + name, file=sys.stderr)
if action == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
print(os.environ["TF_NUM_INTRAOP_THREADS"], "threads")
(folder / name).mkdir(exist_ok=True)
(folder / name / "checkpoints").mkdir()
(folder / name / "best").mkdir()
(folder / f"{name}.json").touch()
"""


def local_cluster(num_workers):
    return distributed.LocalCluster(
        n_workers=num_workers,
        threads_per_worker=1,
        dashboard_address="127.0.0.1:0",
        memory_limit=0,
        silence_logs=100,
    )


@pytest.fixture(scope="module")
def cluster():
    """A running cluster, as somebody else starts it."""
    with local_cluster(2) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(params=["here", "cluster"])
def where(request):
    """Arguments of `grid.run`: two jobs at a time on this machine, or on a cluster."""
    return {"num_workers": 2} if request.param == "here" else {"scheduler": request.getfixturevalue("cluster")}


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


def test_every_job_runs_once_after_those_that_it_needs(stub, where, capsys):
    jobs = [job(stub, "a"), job(stub, "b", "ok", "a"), job(stub, "c", "ok", "a"), job(stub, "d", "ok", "b", "c")]
    run(stub, *jobs, **where, threads=3)
    ran = order(stub)
    assert sorted(ran) == ["a", "b", "c", "d"] and ran[0] == "a" and ran[3] == "d"
    log = (stub / "logs" / "a.log").read_text().splitlines()
    assert log[0].startswith("$ ") and log[0].endswith(" a ok") and log[1] == "3 threads"
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and re.fullmatch(r"table1: 1/4, .+ left, a: done in \d+ s; running: b, c", lines[0])
    assert sorted(path.name for path in (stub / "a").iterdir()) == ["best"]


def test_a_warning_is_shown_once_with_the_job_that_gave_it_first(stub, where, capsys):
    run(stub, job(stub, "a", "warns"), job(stub, "b", "warns", "a"), **where)
    lines = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert lines == ["a: warning: the scans are odd", "a: warning: so is a", "b: warning: so is b"]
    (stub / "a.json").unlink()
    (stub / "a" / "best").rmdir()
    run(stub, job(stub, "a"), **where)  # of this attempt alone
    assert "warning" not in capsys.readouterr().out


def test_v10_jobs_work_where_the_command_was_given_and_find_the_users_modules_there(stub, where, monkeypatch):
    """Also those of a cluster whose workers have been started elsewhere."""
    (stub / "work").mkdir()
    (stub / "work" / "my_module.py").write_text("import pathlib\n\npathlib.Path('found').touch()\n")
    monkeypatch.chdir(stub / "work")
    grid.run([Job("a")], ("-m", "my_module"), stub / "logs", **where)
    assert (stub / "work" / "found").exists()


def test_the_first_comes_first(stub):
    run(stub, *(job(stub, name) for name in "abcde"), num_workers=1)
    assert order(stub) == list("abcde")


def test_a_failed_job_is_tried_again_with_one_log(stub, where):
    run(stub, job(stub, "a", "2"), **where)
    log = (stub / "logs" / "a.log").read_text()
    assert log.count("$ ") == 3 and log.count("boom") == 2 and log.endswith("1 threads\n")


def test_what_fails_for_good_is_reported_and_the_rest_continues_until_it_is_mended(stub, where, capsys):
    jobs = [job(stub, "a", "3"), job(stub, "b", "ok", "a"), job(stub, "c", "ok", "b"), job(stub, "d")]
    with pytest.raises(MachineError, match=r"1 of 4 jobs failed, 2 skipped that need them: a; .*same command"):
        run(stub, *jobs, **where)
    assert sorted(order(stub)) == ["a", "a", "a", "d"]
    out = capsys.readouterr().out
    assert rf"a: failed (exit status 3): boom\x1b[31m (log: {stub / 'logs' / 'a.log'})" in out
    assert "b: skipped" in out and "c: skipped" in out and "; 3 not done" in out
    run(stub, *jobs, **where)  # the fourth attempt succeeds
    assert order(stub)[4:] == ["a", "b", "c"]
    assert "d: was done before" in capsys.readouterr().out


def test_what_trains_nothing_is_left_out_of_the_time_left(stub, monkeypatch):
    left_out = []
    monkeypatch.setattr(grid.Display, "leave_out", lambda _: left_out.append(True))
    data, training = Job("data", ("data", "ok")), job(stub, "a")
    run(stub, data, training)
    assert len(left_out) == 1
    run(stub, training)  # which was done before
    assert len(left_out) == 2


def test_the_users_error_is_not_tried_again_and_gives_its_status(stub, where, capsys):
    with pytest.raises(UserError, match="2 of 2 jobs failed: [ab] and 1 more"):
        run(stub, job(stub, "a", "user"), job(stub, "b", "user"), **where)
    assert sorted(order(stub)) == ["a", "b"]
    assert "a: failed (exit status 2): error: data: is missing; bring it (log: " in capsys.readouterr().out


def test_one_machine_error_among_the_users_gives_its_status(stub, capsys):
    with pytest.raises(MachineError):
        run(stub, job(stub, "a", "user"), job(stub, "b", "killed"), num_workers=2)
    assert "b: failed (SIGKILL)" in capsys.readouterr().out


def test_a_job_that_no_worker_can_take_is_reported_and_what_needs_it_skipped(stub, where, capsys):
    (stub / "logs").mkdir()
    (stub / "logs" / "a.log").mkdir()
    with pytest.raises(MachineError, match="1 of 2 jobs failed, 1 skipped"):
        run(stub, job(stub, "a"), job(stub, "b", "ok", "a"), **where)
    assert re.search(r"a: failed: .*a\.log.*\n.*b: skipped", capsys.readouterr().out)


def test_a_job_may_fail_as_often_as_it_gets_further(stub):
    run(stub, job(stub, "a", "advances"), num_workers=1)
    assert order(stub) == ["a"] * 6


def test_a_job_is_given_up_after_three_attempts_without_a_new_checkpoint(stub):
    with pytest.raises(MachineError):
        run(stub, job(stub, "a", "stuck"))
    assert order(stub) == ["a"] * 4  # the first one made one


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
    with local_cluster(1) as cluster:
        run(stub, job(stub, "a", "hang"), job(stub, "b", "ok", "a"), scheduler=cluster.scheduler_address)
    assert seen == [False] and not (stub / "a.saved").exists()
    assert order(stub) == ["a", "a", "b"]


def test_a_job_that_kills_its_workers_is_given_up(stub, capsys, monkeypatch):
    def kill():
        wait_for(lambda: pids(stub, "a"))
        os.kill(parent(*pids(stub, "a")), signal.SIGKILL)

    monkeypatch.setattr(grid, "RETRIES", 0)
    in_background(kill)
    with local_cluster(1) as cluster, pytest.raises(MachineError, match="1 of 2 jobs failed, 1 skipped"):
        run(stub, job(stub, "a", "hang"), job(stub, "b", "ok", "a"), scheduler=cluster.scheduler_address)
    assert re.search("a: failed: .*worker.*\n.*b: skipped", capsys.readouterr().out)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_trainings_save_and_the_same_command_resumes(stub, where, number):
    def stop():
        wait_for(lambda: pids(stub, "a") and pids(stub, "b"))
        os.kill(os.getpid(), number)

    in_background(stop)
    jobs = [job(stub, "a", "hang"), job(stub, "b", "hang"), job(stub, "c", "ok", "a")]
    with deferred_signals(), pytest.raises(Interrupted, match=signal.Signals(number).name):
        run(stub, *jobs, **where)
    assert (stub / "a.saved").exists() and (stub / "b.saved").exists()
    assert not any(map(alive, pids(stub, "a") + pids(stub, "b")))
    (stub / "go").touch()
    run(stub, *jobs, **where)
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


def test_a_run_that_is_still_in_use_is_waited_for(stub):
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
    run(stub, job(stub, "a"), num_workers=1)
    assert process.communicate()[0] == "False\n" and order(stub) == ["a"]


def test_of_two_commands_one_does_a_job_and_the_other_waits_for_it(stub, cluster, capsys):
    """Also while no process has the run open, as before a training and after it."""
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


def test_a_cluster_gives_each_call_to_a_free_worker(cluster):
    where = lambda: (time.sleep(0.5), distributed.get_worker().address)[1]  # noqa: E731 -- sent as it is
    with ClusterExecutor(cluster) as executor:
        for _ in range(3):
            assert executor.num_workers() == 2
            futures = [executor.submit(where) for _ in range(2)]
            assert len({future.result() for future in futures}) == 2


class Executor:
    """One whose calls end, and whose workers come and go, when a test says so; the jobs that it had are in `had`."""

    wanted = None

    def __init__(self):
        self.workers, self.had, self.futures = 2, [], {}

    def num_workers(self):
        return self.workers

    def submit(self, do, job, program, wanted):
        self.had.append(job.name)
        self.futures[job.name] = concurrent.futures.Future()
        return self.futures[job.name]

    def end(self, *names):
        for name in names:
            self.futures[name].set_result(Outcome(0, "done"))


def run_all(monkeypatch, executor, jobs, *moments):
    """Runs jobs; before each look but the first, the next of the moments happens."""
    script = iter(moments)
    monkeypatch.setattr(grid.time, "sleep", lambda _: next(script)())
    return grid._run_all(executor, jobs, None)


def test_a_worker_has_one_job_at_a_time_and_the_next_in_order_when_it_is_free(monkeypatch):
    executor, had = Executor(), []
    jobs = [plain("a"), *(plain(name, "a") for name in "bcde"), plain("f")]

    def end(*names):
        def moment():
            had.append("".join(executor.had))
            executor.had.clear()
            executor.end(*names)

        return moment

    moments = [end(), end("f"), end("a"), end("b"), end("d", "c"), end("e"), end()]
    assert run_all(monkeypatch, executor, jobs, *moments) == {}
    assert had == ["af", "", "", "bc", "d", "e", ""]


def test_a_job_whose_worker_is_lost_starts_again_before_later_ones_and_not_for_ever(monkeypatch):
    executor = Executor()
    executor.workers = 1
    lose = [lambda: executor.futures["a"].cancel()] * 3
    not_done = run_all(monkeypatch, executor, [plain("a"), plain("b")], *lose, lambda: executor.end("b"), lambda: None)
    assert not_done == {"a": Outcome(3, "failed: its worker was lost")} and executor.had == ["a", "a", "a", "b"]


def plain(name, *needs):
    return Job(name, (), needs)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_grid_without_workers_says_so_once(monkeypatch, capsys):
    executor = Executor()
    executor.workers = 0

    def come():
        executor.workers = 1

    run_all(monkeypatch, executor, [plain("a")], lambda: None, come, lambda: executor.end("a"), lambda: None)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("table1: 0/1, ") and first.endswith(", waiting for a worker")
    assert second.startswith("table1: 1/1, ") and second.endswith(" left, a: done; running: none")


def test_on_a_terminal_there_is_a_bar_above_which_failures_stay(monkeypatch):
    executor, stream = Executor(), Terminal()
    monkeypatch.setattr(sys, "stdout", stream)

    def fail():
        executor.futures["b"].set_result(Outcome(2, "failed (exit status 2)"))

    moments = [lambda: None, lambda: executor.end("a"), fail, lambda: executor.end("c"), lambda: None]
    run_all(monkeypatch, executor, [plain(name) for name in "abc"], *moments)
    text = stream.getvalue()
    assert "table1:  33%" in text and "1/3 [" in text and "running: b, c" in text and "a: done" not in text
    assert "b: failed (exit status 2)\n" in text and "running: c; 1 not done" in text


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC])
def test_a_closed_or_full_output_ends_the_trainings_and_is_not_taken_for_a_lost_cluster(
    stub, where, monkeypatch, number
):
    def fail(*_):
        wait_for(lambda: pids(stub, "b"))
        raise OSError(number, "of the output")

    monkeypatch.setattr(grid.Display, "update", fail)
    with pytest.raises(OSError, match="of the output"):
        run(stub, job(stub, "a"), job(stub, "b", "hang"), **where)
    assert (stub / "b.saved").exists()


def test_a_cluster_without_dask_is_one_line(stub, monkeypatch):
    monkeypatch.delitem(sys.modules, "tfaug.table1.cluster")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"^--scheduler: needs distributed, .*; pip install 'tfaug\[cluster\]'$"):
        run(stub, job(stub, "a"), scheduler="tcp://127.0.0.1:9")


def test_v4_jobs_find_tfaug_in_a_clone_that_is_not_installed(stub, monkeypatch):
    """With a safe path too, which leaves the working directory out."""
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    command = ("-c", "import sys, tfaug; print(tfaug.__file__, sys.path)")
    (stub / "logs").mkdir()
    assert grid.do(Job("a"), grid.Program(command, stub / "logs", 1, stub), lambda: True).status == 0
    printed = (stub / "logs" / "a.log").read_text().splitlines()[-1]
    assert printed.startswith(str(ROOT / "tfaug")) and "elsewhere" in printed


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
    assert re.search("4/4, .* phantom-n1-set1-seg-aff_gd-seed0: done", finish(undisturbed))
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
