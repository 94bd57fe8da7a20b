"""Runs tfaug's programs as a shell does, but in forks of a process that has imported TensorFlow and all of tfaug.

Each test process has one such server. A fork saves the seconds that importing takes, and shares nothing else with the
tests: flags, TensorFlow's state, folder, streams and exit status are its own. What is about the start of a process, as
variables of the environment, uses `subprocess` itself.
"""

import atexit
import functools
import json
import os
import pathlib
import runpy
import select
import subprocess
import sys
import tempfile
import traceback

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Not the commands: importing one defines its flags.
ROOMS = (
    *("tfaug.experiment.stages", "tfaug.experiment.runs", "tfaug.experiment.segmenters", "tfaug.prediction"),
    *("tfaug.table1.grid", "tfaug.table1.render", "tfaug.table1.figures", "tfaug.augment.learned", "ml_collections"),
    "tfaug.report.make",
)
LIGHT_ROOMS = ("tfaug.experiment.sources", "tfaug.prediction", "ml_collections")  # without TensorFlow


def run(program, *flags, cwd, timeout=300):
    """As subprocess.run(..., capture_output=True, text=True).

    Args:
      program: "train.py" or "evaluate.py" of the project, the path of such a file, "tfaug", or "-c" before a program.
      *flags: its arguments.
      cwd: where it works.
      timeout: seconds.
    """
    return _shared().run(program, *flags, cwd=cwd, timeout=timeout)


@functools.lru_cache(1)
def _shared():
    server = Server(ROOMS)
    atexit.register(server.close)
    return server


class Server:
    """A process that forks one program after the other.

    Args:
      rooms: modules that it imports first.
      environment: variables beside those of this process.
      first: Python that it runs then, to put a fault in.
    """

    def __init__(self, rooms, environment=None, first=""):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **(environment or {})}
        path = os.pathsep.join(filter(None, [environment.get("PYTHONPATH"), str(ROOT)]))
        self._process = subprocess.Popen(
            [sys.executable, __file__, first, *rooms],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "PYTHONPATH": path},
            start_new_session=True,
        )

    def run(self, program, *flags, cwd, timeout=300):
        """See `run` above."""
        arguments = [str(ROOT / program) if program.endswith(".py") else program, *map(str, flags)]
        with tempfile.TemporaryDirectory() as folder:
            streams = [os.path.join(folder, name) for name in ("stdout", "stderr")]
            print(json.dumps([arguments, str(cwd), *streams]), file=self._process.stdin, flush=True)
            if not select.select([self._process.stdout], [], [], timeout)[0]:
                self.close()
                _shared.cache_clear()
                raise subprocess.TimeoutExpired(arguments, timeout)
            status = int(self._process.stdout.readline())
            texts = [pathlib.Path(stream).read_text() for stream in streams]
        return subprocess.CompletedProcess(arguments, status, *texts)

    def close(self):
        """Ends the server and whatever it runs."""
        with self._process as process:
            process.kill() if process.poll() is None else None
            try:
                os.killpg(process.pid, 9)
            except ProcessLookupError:
                pass


def _serve():
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _become(*json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(arguments, folder, *streams):
    """Is a fresh program from here on."""
    status = 1
    try:
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, stream in enumerate(streams, start=1):
            os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT), number)
        sys.argv = arguments
        if arguments[0] == "-c":
            sys.path[0] = ""
            sys.argv = ["-c", *arguments[2:]]
            _run_text(arguments[1])
        elif arguments[0] == "tfaug":
            sys.path[0] = str(pathlib.Path(sys.executable).parent)
            from tfaug.commands import main

            main.main()
        else:
            sys.path[0] = str(pathlib.Path(arguments[0]).parent)
            runpy.run_path(arguments[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def _run_text(program):
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(program)
        file.flush()
        runpy.run_path(file.name, run_name="__main__")


if __name__ == "__main__":
    import importlib

    for room in sys.argv[2:]:
        importlib.import_module(room)
    _run_text(sys.argv[1])
    _serve()
