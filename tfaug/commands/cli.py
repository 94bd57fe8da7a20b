"""Shared by all commands: flags, the config, and error messages.

Deliberately light: mistakes in the flags are reported at once, and preparing scans needs no TensorFlow.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import logging
import operator
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from tfaug import configs
from tfaug.config import check, check_keys
from tfaug.engine import command as processes
from tfaug.engine import files
from tfaug.engine.errors import MachineError, TfaugError, UserError, nearest
from tfaug.engine.run_dir import check_path
from tfaug.engine.signals import Interrupted, deferred_signals

DEFAULT_CONFIG = "phantom"

_PROGRAMS = ("train.py", "evaluate.py")
# Keys for which ml_collections 0.1.1 (on Python 3.9) accepts no flag, as they take values of several types; and
# labelled sets of any size, which no version accepts unless the config already has sets of that size.
_LITERAL = re.compile(
    r"--?(config\.(?:data\.(?:structures|slice_axis|image_size|resolution)|splits\.(?:random|labelled\.[^=]+)"
    r"|model\.(?:control_mm|limit_mm)|transforms\.(?:strong\.)?elastic_mm|augment\.of_intensity))(?:=|$)"
)

# Flags have no help texts of their own: the docstring of a command's module is its help page.
AUG = flags.DEFINE_string("aug", "aff_gd_gi", None)
WORKDIR = flags.DEFINE_string("workdir", "runs", None)
RESULTS = flags.DEFINE_string("results", "", None)


def run(main: Callable[[], None], experiment: bool = True) -> None:
    """Parses the command line, runs `main` and ends the process with its exit status.

    `experiment` says whether the command takes --config and the flags above. If the command's module defines a flag as
    its OPERAND, an argument without a flag's name is that flag's value.

    Exit status: 0 success, 2 user error, 3 machine error, 130 and 143 stopped by SIGINT and SIGTERM.
    """
    if _in_notebook():  # %run: a new process has neither another command's flags nor a running TensorFlow
        sys.exit(_status(lambda: processes.run([sys.executable, *sys.argv], os.environ)))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors are still raised as exceptions
    os.environ["MPLBACKEND"] = "agg"  # a notebook's backend may not be installed here
    sys.exit(_run(main, experiment))


def _run(main: Callable[[], None], experiment: bool) -> int:
    logging.lastResort.setFormatter(logging.Formatter("warning: %(message)s"))  # for what no run's report records
    if sys.stdout is None:  # it was closed
        sys.stdout = open(os.devnull, "w")
    sys.stdout.reconfigure(errors="backslashreplace")  # for example in a path that the terminal cannot show

    def work():
        try:
            _work(main, experiment)
        finally:
            sys.stdout.flush()

    try:
        return _status(work)
    except OSError as error:
        if error.filename is not None:  # about a file, not a stream
            raise
        # What is still buffered would fail again when Python closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        problem = "is closed" if isinstance(error, BrokenPipeError) else f"cannot be written ({error.strerror})"
        print(f"error: standard output: {problem}; run the same command again to resume", file=sys.stderr)
        return MachineError.exit_status


def _status(work: Callable[[], None]) -> int:
    """Does some work; prints its error, if any, and returns the exit status."""
    try:
        work()
    except TfaugError as error:
        print(f"error: {as_called(str(error))}", file=sys.stderr)
        return error.exit_status
    except Interrupted as interrupted:
        print(f"{interrupted}; the same command resumes from here", file=sys.stderr)
        return interrupted.exit_status
    return 0


def as_called(text: str) -> str:
    """A message with its commands written as this one was called: without a clone there is no train.py."""
    if _in_clone():
        return text
    return re.sub(r"(?:python |(?<=`))(train|evaluate)\.py", r"tfaug \1", text)


def _in_clone() -> bool:
    """Whether this process runs a script of a clone rather than the command `tfaug`."""
    return pathlib.Path(sys.argv[0]).name in _PROGRAMS


def _in_notebook() -> bool:
    """Whether this is an IPython kernel, whose %run starts no new process."""
    return "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None


def _work(main: Callable[[], None], experiment: bool) -> None:
    if not experiment:
        for flag in flags.FLAGS.flags_by_module_dict()[__name__][:]:
            delattr(flags.FLAGS, flag.name)
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(_help(sys.modules[main.__module__], experiment))
        return
    _check_environment()
    _parse(sys.argv, experiment, getattr(sys.modules[main.__module__], "OPERAND", None))
    with deferred_signals():
        main()


def _help(command, experiment: bool) -> str:
    """A command's help page: its module's docstring, and where to find the keys of the config."""
    keys = f"\nEvery key and its default, with its source: {configs.FOLDER / DEFAULT_CONFIG}.py" if experiment else ""
    return f"{command.__doc__.rstrip()}{keys}"


def _check_environment() -> None:
    """Refuses values that TensorFlow would crash on, or misread as another number."""
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        value = os.environ.get(name, "")
        if not re.fullmatch("[0-9]{0,4}", value):
            raise UserError(name, f"is {value!r} in the environment", "set it to a whole number, or unset it")


def load_tensorflow() -> None:
    """Imports TensorFlow, which takes seconds, and hides what its libraries print meanwhile.

    TensorFlow 2.21 prints four lines about missing GPUs whatever its log level. Failures still raise exceptions.
    """
    if sys.stderr is None:  # it was closed
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
    """The config given by the command line; its paths are absolute, as runs outlive the working directory.

    Raises:
      UserError: see `tfaug.config.check`; or a flag gives a value that another flag overrides.
    """
    config = flags.FLAGS.config
    check(config)
    _refuse_replaced(config)
    return _with_whole_paths(config)


def given_keys(names: Iterable[str]) -> dict[str, Any]:
    """The values of the config's keys that the command line gives, by key; paths are absolute.

    They are for another config, so that nothing else of the one that has them here is looked at.

    Args:
      names: names of flags, see `given`.

    Raises:
      UserError: a value is impossible.
    """
    config, keys = flags.FLAGS.config, [name.removeprefix("config.") for name in given(names)]
    check_keys(config, keys)
    config = _with_whole_paths(config)
    return {key: operator.attrgetter(key)(config) for key in keys}


def _with_whole_paths(config):
    keys = [("data", "root"), ("data", "cache_dir"), ("splits", "file")]
    for section, key in [*keys, *(("generators", name) for name in config.generators)]:
        if config[section][key] or key == "cache_dir":
            config[section][key] = os.path.abspath(os.path.expanduser(config[section][key]))
    return config


def _refuse_replaced(config) -> None:
    """Refuses flags that splits from elsewhere, or the user's own data, would override."""
    for source, none in (("file", "''"), ("random", "()")):
        if config.splits[source]:
            for key in ("labelled", "validation", "test", "unlabelled"):
                remedy = f"leave it out, or give --config.splits.{source}={none}"
                refuse_ignored(f"splits.{source}, which names all cases", [f"config.splits.{key}"], remedy)
    if config.data.root:
        refuse_ignored("data.root: it is of the built-in cohort", ["config.data.cohort_seed"])


def path(flag: flags.FlagHolder) -> pathlib.Path:
    """The path that a flag gives, with "~" expanded: in --flag=~/folder the shell does not do so."""
    return pathlib.Path(os.path.expanduser(flag.value))


def results() -> pathlib.Path:
    """The folder of the table's results."""
    return path(RESULTS) if RESULTS.value else path(WORKDIR) / "table1"


def check_writable(folder: pathlib.Path) -> None:
    """Fails now, rather than once TensorFlow is loaded, if no run can be written to `folder`.

    Raises:
      UserError: TensorFlow cannot use its path.
      MachineError: it cannot be written.
    """
    check_path(folder)
    files.check_writable(folder, "choose a --workdir that can be written")


def refuse_all_but(used: Iterable[str], what: str) -> None:
    """Refuses flags of tfaug's commands that are not among `used`; each name includes its keys, see `given`."""
    modules = flags.FLAGS.flags_by_module_dict().items()
    ours = {flag.name.split(".")[0] for module, found in modules if module.startswith(__package__) for flag in found}
    _refuse(set(given(ours | {"config"})) - set(given(used)), what)


def refuse_ignored(what: str, names: Iterable[str], remedy: str = "leave it out") -> None:
    """Refuses flags that would have no effect.

    Args:
      what: the reason, such as "--stage=aug".
      names: names of flags, see `given`.
      remedy: what to do instead.

    Raises:
      UserError: the command line gives one of them.
    """
    _refuse(given(names), what, remedy)


def _refuse(found: Iterable[str], what: str, remedy: str = "leave it out") -> None:
    for name in sorted(found):
        raise UserError(f"--{name}", f"has no effect with {what}", remedy)


def given(names: Iterable[str]) -> list[str]:
    """The flags on the command line that are among `names`.

    Each name includes its keys, as config.splits.labelled includes config.splits.labelled.n1.
    """
    wanted, found = set(names), []
    for name in (name for name in flags.FLAGS if not flags.FLAGS[name].using_default_value):  # a tuple may be ()
        parts = name.split(".")
        if wanted & {".".join(parts[:n]) for n in range(1, len(parts) + 1)}:
            found.append(name)
    return found


def refuse_generators_but(used: Iterable[str], what: str) -> None:
    """Refuses flags that name trained generators other than `used`."""
    refuse_ignored(what, [f"config.generators.{name}" for name in flags.FLAGS.config.generators if name not in used])


def print_tensorboard(workdir) -> None:
    """Prints how to view all runs in a folder."""
    print(f"\nTo look at it: tensorboard --logdir {shlex.quote(str(workdir))}")


def command(program: str, *changed: str, without: Iterable[str] = ()) -> str:
    """A command to type next: this one with another program and changed flags.

    Args:
      program: "train" or "evaluate".
      *changed: flags that replace those of this command or are added.
      without: names of flags to leave out.
    """
    dropped = {*without, *(flag.lstrip("-").partition("=")[0] for flag in changed)}
    kept, keep = [], True
    for arg in sys.argv[1:]:
        if arg.startswith("-"):  # otherwise the value of the preceding flag
            keep = arg.lstrip("-").partition("=")[0] not in dropped
        kept += [arg] * keep
    here = pathlib.Path(sys.argv[0])
    start = ["python", str(here.with_name(f"{program}.py"))] if _in_clone() else ["tfaug", program]
    of_config = [flag for flag in changed if flag.startswith("--config.")]  # must follow --config
    others = [flag for flag in changed if flag not in of_config]
    return " ".join(map(_quoted, [*start, *others, *kept, *of_config]))


def _quoted(argument: str) -> str:
    """As `shlex.quote`, but in double quotes where that is easier to read: "('CASE1',)"."""
    plain = "'" in argument and not set(argument) & set('"$`\\!')
    return f'"{argument}"' if plain else shlex.quote(argument)


def choose(flag: str, value: str, known: Iterable[str]) -> str:
    """Returns `value` if it is one of `known`.

    Raises:
      UserError: names the flag and the nearest known value.
    """
    known = list(known)
    if value in known:
        return value
    raise UserError(flag, f"{value!r} is unknown", nearest(value, known))


def _parse(argv: list[str], experiment: bool, operand: flags.FlagHolder | None = None) -> None:
    flags.FLAGS.set_gnu_getopt(operand is not None)  # flags may follow it
    literal = sorted({found[1] for arg in argv if (found := _LITERAL.match(arg))}) if experiment else []
    try:
        with _command_line([arg for arg in _last_wins(argv) if not _LITERAL.match(arg)]):
            # Not at module level: with a default, the definition reads the command line and fails on a wrong key.
            if experiment:
                config_flags.DEFINE_config_file("config", _file(DEFAULT_CONFIG), None, lock_config=True)
            for name in literal:
                flags.DEFINE_string(name, "", "An override of the config's.")
            rest = flags.FLAGS([_with_file(flag) for flag in _last_wins(argv)] if experiment else argv)[1:]
            if experiment:
                flags.FLAGS.config.to_dict()  # fails now if the file could not be loaded
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
    if rest and operand is not None and not flags.FLAGS[operand.name].present:
        flags.FLAGS[operand.name].value = rest.pop(0)
        if rest:
            raise UserError(rest[0], "is one folder too many", "give one")
    if rest:
        raise UserError(rest[0], "unknown flag", "flags begin with --")
    for name in literal:
        _set(flags.FLAGS.config, name, flags.FLAGS[name].value)


@contextlib.contextmanager
def _command_line(argv: list[str]) -> Iterator[None]:
    """Within the block, `sys.argv`, where ml_collections looks for keys of the config, is `argv`."""
    before, sys.argv = sys.argv, argv
    try:
        yield
    finally:
        sys.argv = before


def _set(config: ml_collections.ConfigDict, name: str, text: str) -> None:
    """Sets the key of the config that the flag `name` stands for: to a Python literal, or to text such as auto."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        value = text
    _, *sections, key = name.split(".")
    section = config
    try:
        for part in sections:
            section = section[part]
        with section.unlocked(), section.ignore_type():
            section[key] = value
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise UserError(f"--{name}", f"cannot be {text!r}", "see the config's file for its form") from error


def _last_wins(argv: list[str]) -> list[str]:
    """Drops config flags that are given again later: the values of a tuple would otherwise accumulate."""
    last = {arg.partition("=")[0]: k for k, arg in enumerate(argv) if arg.startswith("--config.") and "=" in arg}
    return [arg for k, arg in enumerate(argv) if "=" not in arg or last.get(arg.partition("=")[0], k) == k]


def _with_file(flag: str) -> str:
    """A --config flag with the name of a built-in config replaced by its file; other flags unchanged."""
    name = flag.removeprefix("--config=")
    return flag if name == flag else f"--config={_file(name)}"


def _file(name: str) -> str:
    """The file of a config; a bare name that is not a file here stands for a built-in config."""
    if not re.fullmatch(r"\w+", name) or os.path.isfile(name):
        return os.path.expanduser(name)
    return str(configs.FOLDER / f"{choose('--config', name, configs.names())}.py")


def _config_error(argv: list[str], error: Exception) -> UserError:
    """What is wrong with a --config flag; which one is found in `argv`, as the error does not say."""
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
