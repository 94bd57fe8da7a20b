"""Runs the stages of an experiment: python train.py --stage=aug --gen=deform."""

from __future__ import annotations

import pathlib
import re
import shlex
import tempfile

from absl import flags

from tfaug.augment.methods import GENERATORS, METHODS
from tfaug.commands import cli
from tfaug.config import segmenter_path
from tfaug.engine.errors import UserError
from tfaug.engine.files import machine_errors
from tfaug.engine.run_dir import check_path, read_report
from tfaug.table1 import plan, results
from tfaug.types import STRUCTURES

STAGES = {
    "all": "both of the next, then evaluate",
    "aug": "learn a generator",
    "seg": "train a segmenter (with --results: evaluate it, and keep the result there)",
    "data": "only prepare the patients of all splits (with --sets: those of these labelled sets)",
    "table1": "fill Table 1",
}
STAGE = flags.DEFINE_string("stage", "all", "; ".join(f"{stage}: {text}" for stage, text in STAGES.items()) + ".")
GEN = flags.DEFINE_string(
    "gen", "deform", "Which generator --stage=aug learns: deform or intensity (or deform_noreg, intensity_noreg)."
)
CHECK = flags.DEFINE_bool("check", False, "Only read the files of every split, and list all that is wrong.")
METHOD_LIST = flags.DEFINE_string("methods", ",".join(METHODS), "Which methods --stage=table1 compares.")
NUM_LABELLED = flags.DEFINE_string("num_labelled", "1,3", "With how many labelled volumes --stage=table1 does.")
SETS = flags.DEFINE_string("sets", "1-5", "On which labelled sets --stage=table1 does.")
REPEATS = flags.DEFINE_integer(
    "repeats", 3, "How often --stage=table1 trains on each set, each with a seed of its own.", 1
)
SCHEDULER = flags.DEFINE_string(
    "scheduler", "", "A Dask cluster for --stage=table1, tcp://HOST:PORT; empty: start one."
)
WORKERS = flags.DEFINE_integer(
    "workers", 0, "Trainings at a time without --scheduler; 0: what cores and memory allow.", 0
)
THREADS = flags.DEFINE_integer("threads", 1, "Of each training of --stage=table1.", 1)


def main() -> None:
    """Runs what the flags ask for."""
    stage = cli.choose("--stage", STAGE.value, STAGES)
    generator = cli.choose("--gen", GEN.value, GENERATORS)
    method = cli.choose("--aug", cli.AUG.value, METHODS)
    config, workdir = cli.config(), pathlib.Path(cli.WORKDIR.value)
    if stage == "table1":
        workdir = workdir.absolute()  # its processes work elsewhere
    if not CHECK.value:
        check_writable(workdir)
    if stage == "table1":
        fill_table1(config, workdir)
        return

    from tfaug import experiment  # not before: a mistake in the flags need not wait for TensorFlow
    from tfaug.data.check import refuse, report

    if CHECK.value:
        findings = experiment.examine_data(config)
        print(report(findings))
        refuse(findings)
        return
    experiment.set_up_tensorflow(config)
    segmenter = segmenter_path(config, workdir, method)
    if stage == "data":
        if SETS.present:
            sizes, sets = plan.numbers("--num_labelled", NUM_LABELLED.value), plan.numbers("--sets", SETS.value)
            config = plan.union(config, sizes, sets)
        experiment.prepare_data(config)
        return
    if stage == "all" and read_report(segmenter) is None:
        refuse(experiment.examine_data(config))  # a bad test scan would otherwise show last
    if stage == "aug":
        experiment.learn_augmentation(config, workdir, generator)
    if stage == "all":
        for generator in METHODS[method].generators:
            experiment.learn_augmentation(config, workdir, generator)
    commit = results.commit()  # now, as it may move on while this process trains
    if stage in ("all", "seg"):
        experiment.train_segmenter(config, workdir, method)
    if stage == "all" or (stage == "seg" and cli.RESULTS.value):
        print(experiment.evaluate_run(segmenter, "test"))
    if stage == "seg" and cli.RESULTS.value:
        result = results.of_run(segmenter, config, method, commit=commit, **experiment.provenance(segmenter))
        results.save(cli.results(), result, config, STRUCTURES)
    print(f"\nTo look at it: tensorboard --logdir {shlex.quote(str(workdir))}")


def fill_table1(config, workdir: pathlib.Path) -> None:
    """Runs what is missing in the results, in processes of this program."""
    methods = [cli.choose("--methods", method.strip(), METHODS) for method in METHOD_LIST.value.split(",")]
    sizes, sets = plan.numbers("--num_labelled", NUM_LABELLED.value), plan.numbers("--sets", SETS.value)
    if not re.fullmatch(r"((tcp|tls)://.+:\d+)?", SCHEDULER.value):
        raise UserError("--scheduler", f"cannot be {SCHEDULER.value!r}", "give tcp://HOST:PORT")
    folder = cli.results().absolute()
    grid = plan.Grid({method: METHODS[method] for method in methods}, sizes, sets, REPEATS.value)
    jobs = plan.missing(config, grid, workdir, folder)
    results.bind(folder, config, STRUCTURES)
    done = len(results.load(folder))
    print(
        f"{folder}: {done} results, " + (f"{len(jobs)} jobs to do" if jobs else "complete; nothing to do"), flush=True
    )
    if jobs:
        from tfaug.table1 import grid as dask_grid  # not before: Dask takes a second to load

        command = [str(pathlib.Path(__file__).resolve()), *cli.config_flags_of_children(), f"--workdir={workdir}"]
        dask_grid.run(jobs, command, workdir / "logs", SCHEDULER.value, WORKERS.value, THREADS.value)
    print(f"The table: python evaluate.py --table1 --results={shlex.quote(str(folder))}")


def check_writable(folder: pathlib.Path) -> None:
    """Ends at once, rather than when TensorFlow has been loaded, if no run can be kept in `folder`.

    Raises:
      UserError: TensorFlow cannot use its path.
      MachineError: it cannot be written.
    """
    check_path(folder)
    with machine_errors(folder, "choose a --workdir that can be written"):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        tempfile.TemporaryFile(dir=existing).close()


if __name__ == "__main__":
    cli.run(main)
