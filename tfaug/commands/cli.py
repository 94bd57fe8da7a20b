"""What train.py and evaluate.py share: flags, and errors that speak to the user.

Light on purpose: worker processes import the main program again, and need no TensorFlow.
"""

from __future__ import annotations

import functools
import operator
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

DEFAULT_CONFIG = pathlib.Path(__file__).resolve().parent.parent.parent / "configs" / "phantom.py"
_CONFIG_HELP = "The experiment; --config.KEY=VALUE changes a value. A config file is a Python program."

AUG = flags.DEFINE_string("aug", "aff_gd_gi", "Method: how the segmenter's batches are augmented, a row of Table 1.")
WORKDIR = flags.DEFINE_string("workdir", "runs", "Folder in which each run has its own folder.")
RESULTS = flags.DEFINE_string("results", "", "Folder of Table 1's results; empty: WORKDIR/table1.")


def run(main: Callable[[], None]) -> None:
    """Parses the command line, runs `main` and ends the process with its exit status.

    0 done, 2 the user's error, 3 the machine's, 130 and 143 stopped by SIGINT and SIGTERM.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors still come, as exceptions
    sys.exit(_run(main))


def _run(main: Callable[[], None]) -> int:
    if sys.stdout is None:  # was closed
        sys.stdout = open(os.devnull, "w")
    sys.stdout.reconfigure(errors="backslashreplace")  # of a path, say, that the terminal cannot show
    try:
        try:
            _work(main)
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:  # not of a stream
            raise
        # What is still buffered would fail once more when Python closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        problem = "is closed" if isinstance(error, BrokenPipeError) else f"cannot be written ({error.strerror})"
        print(f"error: standard output: {problem}; run the same command again to go on", file=sys.stderr)
        return MachineError.exit_status
    except TfaugError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except Interrupted as interrupted:
        print(f"{interrupted}; the same command goes on from here", file=sys.stderr)
        return interrupted.exit_status
    return 0


def _work(main: Callable[[], None]) -> None:
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(_help())
        return
    _parse(sys.argv)
    with deferred_signals():
        main()


def _help() -> str:
    """What the program is, and its own flags."""
    own = flags.FLAGS.module_help(__name__)
    return f"{sys.modules['__main__'].__doc__}\n{flags.FLAGS.main_module_help()}\n{own}\n  --config: {_CONFIG_HELP}"


def config() -> ml_collections.ConfigDict:
    """The config that the command line asks for; its paths are absolute, as runs outlive the working directory.

    Raises:
      UserError: see `tfaug.config.check`.
    """
    config = flags.FLAGS.config
    check(config)
    config.data.cache_dir = os.path.abspath(config.data.cache_dir)
    for section, key in _paths_or_empty(config):
        if config[section][key]:
            config[section][key] = os.path.abspath(config[section][key])
    return config


def _paths_or_empty(config):
    return [("data", "root"), *(("generators", name) for name in config.generators)]


def config_flags_of_children() -> list[str]:
    """Flags that give another process, in any folder, the config that `config` returns."""
    holder, config = flags.FLAGS["config"], flags.FLAGS.config
    keys = {"data.cache_dir", *map(".".join, _paths_or_empty(config)), *config_flags.get_override_values(holder)}
    values = {key: functools.reduce(operator.getitem, key.split("."), config) for key in sorted(keys)}
    file = os.path.abspath(config_flags.get_config_filename(holder))
    return [f"--config={file}", *(f"--config.{key}={value}" for key, value in values.items())]


def results() -> pathlib.Path:
    """The folder of Table 1's results."""
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


def _parse(argv: list[str]) -> None:
    try:
        # Not at the top: with a default, the definition reads the command line and fails on a wrong key.
        config_flags.DEFINE_config_file("config", str(DEFAULT_CONFIG), _CONFIG_HELP, lock_config=True)
        rest = flags.FLAGS(argv)[1:]
        flags.FLAGS.config.to_dict()  # fails now if the file could not be loaded
    except flags.UnrecognizedFlagError as error:
        names = [name for name in flags.FLAGS if "." not in name]
        raise UserError(f"--{error.flagname}", "is no flag", nearest(error.flagname, names)) from error
    except flags.Error as error:
        subject, _, problem = _one_line(error).removeprefix("flag ").partition(": ")
        raise UserError(subject, problem or "is wrong", "see --help") from error
    except SyntaxError as error:
        raise UserError(f"{error.filename}:{error.lineno}", f"does not parse ({error.msg})", "mend the line") from error
    except (Exception, SystemExit) as error:  # a config file is a program, and may fail in any way
        raise _config_error(argv, error) from error
    if rest:
        raise UserError(rest[0], "is no flag", "flags begin with --")


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
