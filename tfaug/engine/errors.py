"""Errors for the user, in one line: what the error is about, what is wrong, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TfaugError(Exception):
    """An error that ends the program with one line and a documented exit status.

    Args:
      subject: the file, config key, flag or case that the error is about.
      problem: what is wrong with it.
      remedy: what the user can do.
    """

    exit_status = 1

    def __init__(self, subject, problem: str, remedy: str):
        super().__init__(subject, problem, remedy)
        self.subject, self.problem, self.remedy = str(subject), problem, remedy

    def __str__(self) -> str:
        return printable(f"{self.subject}: {self.problem}; {self.remedy}")


class UserError(TfaugError):
    """The user's input (data, config, flags) cannot be used: exit status 2, nothing written."""

    exit_status = 2


class MachineError(TfaugError):
    """The machine failed (disk, memory, permission): exit status 3, what was saved is kept."""

    exit_status = 3


def cause(error: Exception) -> str:
    """The type of an exception and the line of its message that says most: TensorFlow's and Keras's have many."""
    text = str(error).partition("Call arguments received by")[0]
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("[[")]
    kind, last = type(error).__name__, lines[-1] if lines else ""
    return last if last.startswith(f"{kind}: ") else f"{kind}: {last}" if last else kind


def printable(text: str) -> str:
    """Escapes control characters (newlines, ANSI codes) so that `text` stays one harmless line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(number: int, noun: str) -> str:
    """A number with its noun: "1 case", "2 cases"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def nearest(word: str, known: Iterable[str]) -> str:
    """A remedy for a misspelled word: the closest known word, or all of them."""
    known = list(known)
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {found[0]!r}?" if found else "known are " + ", ".join(known)
