"""What all commands share: flags, the config, and errors that speak to the user.

Light on purpose: worker processes import the main program again, and need no TensorFlow.
"""

from __future__ import annotations

import importlib
import logging
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterable

import ml_collections
from absl import flags
from ml_collections import config_flags

from tfaug.config import check
from tfaug.engine.errors import MachineError, TfaugError, UserError, nearest
from tfaug.engine.signals import Interrupted, deferred_signals

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs"
DEFAULT_CONFIG = "phantom"
_CONFIG_HELP = (
    "The experiment: a file, or the name of one that tfaug brings, as acdc; --config.KEY=VALUE changes a value. A "
    "config file is a Python program."
)

AUG = flags.DEFINE_string("aug", "aff_gd_gi", "Method: how the segmenter's batches are augmented, a row of Table 1.")
WORKDIR = flags.DEFINE_string("workdir", "runs", "Folder in which each run has its own folder.")
RESULTS = flags.DEFINE_string("results", "", "Folder of the table's results; empty: WORKDIR/table1.")


def run(main: Callable[[], None], experiment: bool = True) -> None:
    """Parses the command line, runs `main` and ends the process with its exit status.

    `experiment` says whether the command takes --config and the flags above.

    0 done, 2 the user's error, 3 the machine's, 130 and 143 stopped by SIGINT and SIGTERM.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors still come, as exceptions
    sys.exit(_run(main, experiment))


def _run(main: Callable[[], None], experiment: bool) -> int:
    logging.lastResort.setFormatter(logging.Formatter("warning: %(message)s"))  # of what no run's report takes
    if sys.stdout is None:  # was closed
        sys.stdout = open(os.devnull, "w")
    sys.stdout.reconfigure(errors="backslashreplace")  # of a path, say, that the terminal cannot show
    try:
        try:
            _work(main, experiment)
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:  # not of a stream
            raise
        # What is still buffered would fail once more when Python closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        problem = "is closed" if isinstance(error, BrokenPipeError) else f"cannot be written ({error.strerror})"
        print(f"error: standard output: {problem}; run the same command again to resume", file=sys.stderr)
        return MachineError.exit_status
    except TfaugError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except Interrupted as interrupted:
        print(f"{interrupted}; the same command resumes from here", file=sys.stderr)
        return interrupted.exit_status
    return 0


def _work(main: Callable[[], None], experiment: bool) -> None:
    if not experiment:
        for flag in flags.FLAGS.flags_by_module_dict()[__name__][:]:
            delattr(flags.FLAGS, flag.name)
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(_help(sys.modules[main.__module__], experiment))
        return
    _parse(sys.argv, experiment)
    with deferred_signals():
        main()


def _help(command, experiment: bool) -> str:
    """What a command is, and the flags of all commands that its module brings."""
    names = [name for name in sys.modules if name.startswith(f"{__package__}.")]
    texts = [text for text in (flags.FLAGS.module_help(name) for name in names) if text]
    return "\n".join([command.__doc__, *texts, *([f"\n  --config: {_CONFIG_HELP}"] if experiment else [])])


def load_tensorflow() -> None:
    """Imports TensorFlow, which takes seconds, without what its libraries print meanwhile.

    TensorFlow 2.21 prints four lines about missing GPUs whatever its log level is. What goes wrong is an exception.
    """
    if sys.stderr is None:  # was closed
        return
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), 2)
        importlib.import_module("tensorflow")
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def config() -> ml_collections.ConfigDict:
    """The config that the command line asks for; its paths are absolute, as runs outlive the working directory.

    Raises:
      UserError: see `tfaug.config.check`.
    """
    config = flags.FLAGS.config
    check(config)
    keys = [("data", "root"), ("data", "cache_dir"), ("splits", "file")]
    for section, key in [*keys, *(("generators", name) for name in config.generators)]:
        if config[section][key] or key == "cache_dir":
            config[section][key] = os.path.abspath(os.path.expanduser(config[section][key]))
    return config


def results() -> pathlib.Path:
    """The folder of the table's results."""
    return pathlib.Path(RESULTS.value or pathlib.Path(WORKDIR.value, "table1"))


def choose(flag: str, value: str, known: Iterable[str]) -> str:
    """Returns `value` if it is one of `known`.

    Raises:
      UserError: names the flag and the nearest known value.
    """
    known = list(known)
    if value in known:
        return value
    raise UserError(flag, f"{value!r} is unknown", nearest(value, known))


def _parse(argv: list[str], experiment: bool) -> None:
    try:
        if experiment:
            # Not at the top: with a default, the definition reads the command line and fails on a wrong key.
            config_flags.DEFINE_config_file("config", _file(DEFAULT_CONFIG), _CONFIG_HELP, lock_config=True)
            rest = flags.FLAGS([_with_file(flag) for flag in _last_wins(argv)])[1:]
            flags.FLAGS.config.to_dict()  # fails now if the file could not be loaded
        else:
            rest = flags.FLAGS(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        names = [name for name in flags.FLAGS if "." not in name]
        raise UserError(f"--{error.flagname}", "unknown flag", nearest(error.flagname, names)) from error
    except flags.Error as error:
        subject, _, problem = _one_line(error).removeprefix("flag ").partition(": ")
        raise UserError(subject, problem or "is wrong", "see --help") from error
    except SyntaxError as error:
        raise UserError(f"{error.filename}:{error.lineno}", f"does not parse ({error.msg})", "mend the line") from error
    except (Exception, SystemExit) as error:  # a config file is a program, and may fail in any way
        raise _config_error(argv, error) from error
    if rest:
        raise UserError(rest[0], "unknown flag", "flags begin with --")


def _last_wins(argv: list[str]) -> list[str]:
    """Without values that are given again: to those of a tuple, the config's flags would add the later ones."""
    last = {arg.partition("=")[0]: k for k, arg in enumerate(argv) if arg.startswith("--config.") and "=" in arg}
    return [arg for k, arg in enumerate(argv) if "=" not in arg or last.get(arg.partition("=")[0], k) == k]


def _with_file(flag: str) -> str:
    """A --config flag that names a config of tfaug's, with its file in place of the name."""
    name = flag.removeprefix("--config=")
    return flag if name == flag else f"--config={_file(name)}"


def _file(name: str) -> str:
    """The file of a config: a name without a path or ending is that of one that tfaug brings."""
    if not re.fullmatch(r"\w+", name) or os.path.isfile(name):
        return os.path.expanduser(name)
    known = sorted(path.stem for path in CONFIGS.glob("[!_]*.py") if path.stem != "splits")
    return str(CONFIGS / f"{choose('--config', name, known)}.py")


def _config_error(argv: list[str], error: Exception) -> UserError:
    """What is wrong with a --config flag; `argv` says which one, as the error does not."""
    message = f"it calls sys.exit({error})" if isinstance(error, SystemExit) else _one_line(error)
    misspelled = re.search(r'Did you mean "(.+)" instead of "(.+)"', message)
    given = [arg for arg in argv[1:] if arg.startswith("--config")]
    if misspelled:
        near, key = misspelled.groups()
        flag = next((arg for arg in given if key in arg), f"--config...{key}")
        return UserError(flag, f"there is no config key {key!r}", f"did you mean {near!r}?")
    file = next((arg for arg in given if arg.startswith("--config=")), "--config")
    return UserError(file, f"cannot be loaded ({message})", "give a Python file with get_config(), as in configs/")


def _one_line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error))
