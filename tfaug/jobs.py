"""The commands as functions, for notebooks and scripts; available as `tfaug.train` and so on. Needs no TensorFlow.

Each runs its command in a process of its own, prints its output, and returns when it ends. So it gives the same digits
as the command however often it is called, even in a notebook that has used TensorFlow; its memory is free afterwards;
and a script that calls it needs no `__main__` guard. An interrupted function resumes when it is called again.
"""

from __future__ import annotations

import importlib
import os
import pathlib
import runpy
import sys
from collections.abc import Mapping
from typing import Any

import pandas as pd

import tfaug
from tfaug import config as rules
from tfaug import configs, tables
from tfaug.config import Config
from tfaug.engine import command
from tfaug.engine.errors import UserError, nearest
from tfaug.plugins import short_name


def load_config(name: str | os.PathLike = "phantom") -> Config:
    """A config that you can change and pass to `train`: `config.data.root = "/data/mine"`.

    Args:
      name: a built-in config, such as "acdc" or "own", or a Python file with `get_config()`, which is run.

    Raises:
      UserError: there is no such config.
    """
    if os.path.isfile(name):
        program = runpy.run_path(os.fspath(name))
        if "get_config" not in program:
            raise UserError(name, "has no get_config()", "give a Python file as those in configs/")
        return program["get_config"]()
    known = configs.names()
    if name not in known:
        raise UserError("config", f"{os.fspath(name)!r} is unknown", nearest(os.fspath(name), known))
    return importlib.import_module(f"tfaug.configs.{name}").get_config()


def check(config: Config | str = "phantom", workdir: str | os.PathLike = "runs") -> pd.DataFrame:
    """Reads and prepares every case as a training would, like `tfaug check`.

    Returns:
      check.csv, one row per case; the contact sheet is beside it, WORKDIR/NAME-check/check.png.

    Raises:
      UserError: a case cannot be used; table and picture have been written.
    """
    workdir = pathlib.Path(os.path.expanduser(workdir))
    config, file = _written(config, workdir)
    _run("check", f"--config={file}", f"--workdir={workdir}")
    return tables.read(workdir / f"{config.name}-check" / "check.csv")


def train(
    config: Config | str = "phantom",
    stage: str = "all",
    *,
    aug: str = "aff_gd_gi",
    gen: str = "deform",
    workdir: str | os.PathLike = "runs",
) -> pathlib.Path:
    """Trains as `tfaug train` does. Finished runs are not repeated.

    Args:
      config: a name, a file, or a config from `load_config`.
      stage: "all": the generators that `aug` needs, a segmenter, and its evaluation; "aug": one generator; "seg":
        a segmenter.
      aug: the method of the segmenter, a row of the table.
      gen: the generator that "aug" learns.
      workdir: where runs are kept.

    Returns:
      The folder of the segmenter's run (with "aug", the generator's), for `evaluate`, `load_segmenter` and
      `load_generator`.

    Raises:
      UserError: config, data or arguments cannot be used.
      MachineError: there is too little disk space or memory.
      Interrupted: a signal stopped it; call it again to resume.
    """
    if stage not in ("all", "aug", "seg"):
        raise UserError("stage", f"{stage!r} is unknown", nearest(str(stage), ("all", "aug", "seg")))
    workdir = pathlib.Path(os.path.expanduser(workdir))
    config, file = _written(config, workdir)
    flag = f"--gen={gen}" if stage == "aug" else f"--aug={aug}"
    _run("train", f"--stage={stage}", flag, f"--config={file}", f"--workdir={workdir}")
    if stage == "aug":
        return rules.generator_path(config, workdir, gen)
    return rules.segmenter_path(config, workdir, short_name(aug))


def evaluate(run: str | os.PathLike, split: str = "test", changes: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Evaluates a segmenter on the scans' own grids, as `tfaug evaluate --run` does.

    Args:
      run: the folder of its run.
      split: "test" or "validation".
      changes: data to use instead of the run's, as {"data.root": "/data/b", "splits.test": ("CASE7",)}.

    Returns:
      dice.csv: case, structure, dice, hd95_mm, assd_mm and in_neither (see `tfaug.metrics`), one row per structure
      and case.

    Raises:
      UserError: there is no such run, or its data cannot be used.
    """
    run = pathlib.Path(os.path.expanduser(run))
    flags = [f"--config.{key}={rules.plain(value)}" for key, value in (changes or {}).items()]
    _run("evaluate", f"--run={run}", f"--split={split}", *flags)
    return tables.read(run / "evaluation" / split / "dice.csv")


def _written(config: Config | str, workdir: pathlib.Path) -> tuple[Config, pathlib.Path]:
    """A config and its file, which later commands may name."""
    if not isinstance(config, Config):
        config = load_config(config)
    rules.check(config)
    return config, rules.write(config, workdir / "logs")


def _run(*arguments: str) -> None:
    package = pathlib.Path(tfaug.__file__).resolve().parent.parent
    path = os.pathsep.join(filter(None, [str(package), os.environ.get("PYTHONPATH")]))
    command.run([sys.executable, "-m", "tfaug", *arguments], {**os.environ, "PYTHONPATH": path})
