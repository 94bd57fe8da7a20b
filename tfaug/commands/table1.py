"""Trains every method on every labelled set, and prints the table: tfaug table1 [--FLAG=VALUE ...]

What is compared
  --config=NAME        phantom (default), acdc_quick, acdc, released_code, hippocampus, own,
                       or a Python file
  --config.KEY=VALUE   any number of the config, as --config.data.root=DIR
  --methods=A,B        rows of the table (default: all of the config's `methods`)
  --num_labelled=1,3   with how many labelled volumes (default: those with most sets)
  --sets=1-5           on which labelled sets (default: all)
  --repeats=3          how often on each set, each time with a seed of its own (default: 3)
Where
  --workdir=DIR        for runs, one folder each (default: runs)
  --results=DIR        for the results, a small file each (default: WORKDIR/table1)
With what
  --workers=N          trainings at a time (default: what cores and memory allow)
  --threads=N          of each training (default: 1)
  --scheduler=ADDRESS  a Dask cluster, tcp://HOST:PORT (default: this machine)

What fails is tried again; a killed command resumes; more methods or sets add to what is there.
`tfaug evaluate --table1` prints the table again, `tfaug evaluate --figures` draws it.
"""

from __future__ import annotations

import pathlib
import re

from absl import flags

from tfaug import config as rules
from tfaug.augment import methods
from tfaug.commands import cli
from tfaug.config import Config
from tfaug.engine.errors import UserError, counted
from tfaug.experiment import sources
from tfaug.table1 import plan, results

METHOD_LIST = flags.DEFINE_string("methods", "", None)
NUM_LABELLED = flags.DEFINE_string("num_labelled", "", None)
SETS = flags.DEFINE_string("sets", "", None)
REPEATS = flags.DEFINE_integer("repeats", 3, None, 1)
SCHEDULER = flags.DEFINE_string("scheduler", "", None)
WORKERS = flags.DEFINE_integer("workers", 0, None, 0)
THREADS = flags.DEFINE_integer("threads", 1, None, 1)

FLAGS = ("results", "methods", "num_labelled", "sets", "repeats", "scheduler", "workers", "threads")


def main() -> None:
    """Fills the table, and prints it."""
    cli.refuse_all_but(("workdir", "config", *FLAGS), "the grid")
    fill(cli.path(cli.WORKDIR).absolute())

    from tfaug.table1 import render

    print(render.write(cli.results(), methods.table(cli.config().methods)))


def fill(workdir: pathlib.Path) -> None:
    """Runs the jobs whose results are missing, in processes of `tfaug train`."""
    if not re.fullmatch(r"((tcp|tls)://.+:\d+)?", SCHEDULER.value):
        raise UserError("--scheduler", f"cannot be {SCHEDULER.value!r}", "give tcp://HOST:PORT")
    if SCHEDULER.value:
        cli.refuse_ignored("--scheduler", ["workers"])
    refuse_one_set()
    config = cli.config()
    names = [name.strip() for name in METHOD_LIST.value.split(",") if name.strip()] or config.methods
    # User-defined methods become rows of the config, for the trainings and the table.
    added = [name for name in names if ":" in name and name not in config.methods]
    config.methods = (*config.methods, *added)
    config = sources.resolve(config)
    rows = dict(sources.method(config, name, "--methods") for name in names)
    used = {name for row in rows.values() for name in row.generators}
    cli.refuse_generators_but(used, "these methods")
    grid = plan.Grid(rows, *chosen_sets(config), REPEATS.value)
    folder = cli.results().absolute()
    structures = sources.task_of(config).names
    found = results.of_config(folder, config, structures, used)
    digests = None
    made = any(result.data for result in found) or any(workdir.glob(f"{config.name}-*/report.json"))
    if config.data.root and made:  # the built-in cohort does not change
        digests = sources.Data(plan.union(config, grid.num_labelled, grid.sets)).digests(sources.SPLITS)
    stale = plan.stale(config, grid, found, digests)
    jobs = plan.missing(config, grid, workdir, folder, stale, digests)
    results.bind(folder, config, structures)
    done = len(found) - len(stale)
    if stale:
        print(
            f"{folder}: the data or the method of {counted(len(stale), 'result')} changed since; to be made again: "
            f"{stale[0]}{', ...' * (len(stale) > 1)}"
        )
    print(
        f"{folder}: {counted(done, 'result')}, "
        + (f"{counted(len(jobs), 'job')} to do" if jobs else "complete; nothing to do"),
        flush=True,
    )
    if jobs:
        from tfaug.table1 import grid as runner

        command = ["-m", "tfaug", "train", f"--config={rules.write(config, workdir / 'logs')}", f"--workdir={workdir}"]
        runner.run(jobs, command, workdir / "logs", SCHEDULER.value, WORKERS.value, THREADS.value)
    rows_too = [f"--config.methods={config.methods}"] if added else []
    here = ["--table1", f"--results={folder}", *rows_too]
    print(f"The table: {cli.command('evaluate', *here, without=('stage', 'workdir', *FLAGS))}")


def refuse_one_set() -> None:
    """Refuses the config's own choice of a labelled set, which the grid ignores."""
    remedy = "give --num_labelled and --sets"
    cli.refuse_ignored("several labelled sets", ["config.num_labelled", "config.labelled_set"], remedy)


def chosen_sets(config: Config) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The numbers of labelled volumes and the labelled sets that the flags ask for.

    By default, the numbers with the most sets and all their sets: an upper bound with a single set, such as N_L = 40 of
    `configs/acdc.py`, has to be asked for.
    """
    counts = {int(key[1:]): len(of_size) for key, of_size in config.splits.labelled.items()}
    most = max(counts.values())
    sizes = plan.numbers("--num_labelled", NUM_LABELLED.value) if NUM_LABELLED.value else None
    sizes = sizes or tuple(sorted(n for n, count in counts.items() if count == most))
    available = min((counts[n] for n in sizes if n in counts), default=1)
    return sizes, plan.numbers("--sets", SETS.value) if SETS.value else tuple(range(1, available + 1))
