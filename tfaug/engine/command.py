"""Runs a command in a process of its own, for notebooks and scripts, and passes on what it prints."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from tfaug.engine.errors import MachineError, TfaugError, UserError
from tfaug.engine.signals import Interrupted

_ERROR = "error: "


def run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Runs a command and prints its output line by line, here, where a notebook shows it; returns if it succeeds.

    Interrupting a notebook's cell stops the command where nothing is lost.

    Args:
      command: the program and its arguments.
      environment: its environment variables.

    Raises:
      UserError, MachineError: the error that the command ended with.
      Interrupted: a signal stopped the command.
    """
    last, pipe = "", subprocess.PIPE
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            for line in process.stdout:
                if line.startswith(_ERROR):
                    last = line.removeprefix(_ERROR).rstrip("\n")
                else:
                    print(line, end="", flush=True)
        except BaseException:  # raised in the notebook, which must not leave a training behind
            process.terminate()
            raise
    status = process.returncode
    if status in (130, 143):
        raise Interrupted(status - 128)
    if status:
        raise _error(status, last or f"the command ended with status {status}")


def _error(status: int, line: str) -> TfaugError:
    """Rebuilds an error from the line that was printed."""
    subject, _, rest = line.partition(": ")
    problem, _, remedy = rest.rpartition("; ")
    kind = UserError if status == UserError.exit_status else MachineError
    return kind(subject, problem or rest or "failed", remedy if problem else "see what it printed")
