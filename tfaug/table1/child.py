"""Becomes another program, which ends with its parent: python child.py PARENT PROGRAM ARGUMENT...

A worker that is killed must not leave a training behind: the next attempt would find the run in use. Only Linux offers
this; elsewhere the next attempt waits until the training left behind has ended.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Replaces itself by PROGRAM, unless PARENT has already ended."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == int(parent):
        os.execv(command[0], command)


if __name__ == "__main__":
    main()
