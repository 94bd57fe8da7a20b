"""Which version of the program runs: the commit of its checkout. Needs no TensorFlow."""

from __future__ import annotations

import pathlib
import subprocess


def commit() -> str | None:
    """The git commit of the program on the disk, with "-dirty" if its code differs from it; None if there is none."""
    root = pathlib.Path(__file__).resolve().parent.parent.parent

    def git(*arguments):
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=60)

    try:
        head = git("rev-parse", "--short=12", "HEAD")
        if head.returncode != 0 or not (root / ".git").exists():
            return None
        clean = git("diff", "--quiet", "HEAD", "--", "*.py").returncode == 0  # results and pictures may have come
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("" if clean else "-dirty")
