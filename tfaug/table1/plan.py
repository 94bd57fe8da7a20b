"""From a config and the requested part of Table 1 to the jobs that are missing: data, generators, segmenters."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from tfaug.augment.methods import GENERATORS, Method
from tfaug.config import Config, cases, check, check_generator, generator_path, require, segmenter_path
from tfaug.engine import run_dir
from tfaug.engine.errors import UserError
from tfaug.experiment import identity
from tfaug.table1.results import Result, name_of

DATA = "data"
_LARGEST = 1000  # largest number in a flag: a typing error must not fill the memory


class Grid(NamedTuple):
    """What to fill in: every method on every labelled set of every size, `repeats` times with different seeds.

    `methods` is as `augment.methods.table` returns it.
    """

    methods: Mapping[str, Method]
    num_labelled: Sequence[int]
    sets: Sequence[int]
    repeats: int


class Job(NamedTuple):
    """One process.

    Attributes:
      name: name of the run's folder; "data" for the data.
      flags: flags of train.py, besides those that all jobs share.
      needs: names of the jobs that must be done before.
      run: the run's folder; None for the data.
      proof: the file that exists once the job is done; None if only the process can tell.
    """

    name: str
    flags: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    run: pathlib.Path | None = None
    proof: pathlib.Path | None = None


def numbers(flag: str, text: str) -> tuple[int, ...]:
    """Parses "1,3", "1-5" or a combination: each number once, in order.

    Raises:
      UserError: names the flag.
    """
    found = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= _LARGEST:
            raise UserError(flag, f"cannot be {text!r}", "give numbers from 1 on, as in 1-3,5")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def variants(config: Config, grid: Grid) -> Iterator[Config]:
    """`config` for every repeat, number of labelled volumes and set, in this order.

    Its seed is that of the first repeat; later repeats add 1 each.

    Raises:
      UserError: the config has no such set.
    """
    for repeat in range(grid.repeats):
        for num_labelled in grid.num_labelled:
            for labelled_set in grid.sets:
                variant = config.copy_and_resolve_references()
                variant.seed = config.seed + repeat
                variant.num_labelled, variant.labelled_set = num_labelled, labelled_set
                check(variant)
                yield variant


def missing(
    config: Config,
    grid: Grid,
    workdir,
    folder,
    stale: Collection[str] = (),
    digests: Mapping[str, str] | None = None,
) -> list[Job]:
    """The jobs that the results in `folder` lack to fill the grid, each after those that it needs.

    All methods of one labelled set and seed come before the next, so that an unfinished grid compares methods. A
    generator is learned once for each labelled set and seed, and only if a missing segmenter uses it.

    Args:
      config: the experiment.
      grid: which part of the table.
      workdir: the folder of the runs.
      folder: the folder of the results, which must be sound.
      stale: names of results' files that must be made again.
      digests: as for `stale`.

    Raises:
      UserError: the config has no such set, or no test patients, or a generator cannot be learned with it; or a missing
        segmenter, or a generator that it needs, has been trained in `workdir` with other cases or scans, or with an
        earlier version of its method.
    """
    require(cases(config, "test"), "test")
    jobs: list[Job] = []
    sizes, sets = set(), set()  # of what is missing
    for variant in variants(config, grid):
        runs = {method: segmenter_path(variant, workdir, method) for method in grid.methods}
        proofs = {method: pathlib.Path(folder) / f"{run.name}.json" for method, run in runs.items()}
        todo = [method for method in grid.methods if proofs[method].name in stale or not proofs[method].exists()]
        used = {name for method in todo for name in grid.methods[method].generators}
        # A generator that the config names exists already.
        paths = {name: generator_path(variant, workdir, name) for name in GENERATORS if name in used}
        learned = {name: path for name, path in paths.items() if not config.generators[name]}
        flags = (
            f"--config.seed={variant.seed}",
            f"--config.num_labelled={variant.num_labelled}",
            f"--config.labelled_set={variant.labelled_set}",
        )
        for name, run in learned.items():
            check_generator(variant, name)
            identity.refuse_other_data(run, variant, identity.SPLITS_OF_GENERATOR, digests)
            jobs.append(Job(run.name, ("--stage=aug", f"--gen={name}", *flags), (DATA,), run, run / "report.json"))
        for method in todo:
            _refuse_other_run(runs[method], variant, method, grid.methods[method], digests)
            needs = [learned[name].name for name in grid.methods[method].generators if name in learned]
            own = ("--stage=seg", f"--aug={method}", f"--results={folder}", *flags)
            proof = None if proofs[method].name in stale else proofs[method]  # a stale result proves nothing
            jobs.append(Job(runs[method].name, own, (DATA, *needs), runs[method], proof))
        if todo:
            sizes.add(variant.num_labelled)
            sets.add(variant.labelled_set)
    if not jobs:
        return []
    flags = [f"--{name}={','.join(map(str, sorted(n)))}" for name, n in (("num_labelled", sizes), ("sets", sets))]
    return [Job(DATA, ("--stage=data", *flags)), *jobs]


def _refuse_other_run(run, variant, name, method, digests):
    row, report = identity.row_of(method), run_dir.read_report(run)
    if report is None:
        return
    if report.get("row", row) != row:  # older runs have none
        remedy = "choose another --workdir, remove the run, or give the method another name"
        raise UserError(run, f"was trained with another method {name!r}", remedy)
    used = identity.splits_of_run(Config(run_dir.read_config(run)), report)
    identity.refuse_other_data(run, variant, used, digests)


def stale(config: Config, grid: Grid, found: Sequence[Result], digests: Mapping[str, str] | None) -> list[str]:
    """The file names of results in the grid whose data or method has changed since.

    Args:
      config: the experiment.
      grid: which part of the table.
      found: results; data or methods that they do not record are taken to be unchanged.
      digests: of the current contents of all scans of the grid, by case; None if they cannot have changed.
    """
    made = {result[:4]: result for result in found}  # by method, N_L, set and seed
    names = []
    for variant in variants(config, grid):
        for name, method in grid.methods.items():
            one = made.get((name, variant.num_labelled, variant.labelled_set, variant.seed))
            if one is None:
                continue
            other_row = one.row is not None and one.row != identity.row_of(method)
            checked = one.data is not None and digests is not None
            if other_row or (checked and one.data != identity.of_result(variant, method, digests)):
                names.append(name_of(one, config.name))
    return names


def union(config: Config, num_labelled: Sequence[int], sets: Sequence[int]) -> Config:
    """`config` with one labelled set that holds the cases of all these sets of these sizes, for one job to prepare.

    Raises:
      UserError: the config has no such set.
    """
    labelled: dict[str, None] = {}  # an ordered set
    for variant in variants(config, Grid({}, num_labelled, sets, 1)):
        labelled.update(dict.fromkeys(cases(variant, "labelled")))
    config = config.copy_and_resolve_references()
    config.num_labelled, config.labelled_set = num_labelled[0], 1
    config.splits.labelled[f"n{num_labelled[0]}"] = (tuple(labelled),)
    return config
