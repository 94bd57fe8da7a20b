"""Learns augmentations, trains segmenters with them, evaluates these: tfaug train [--FLAG=VALUE ...]

What to do
  --config=NAME    phantom (default; simulated hearts), acdc_quick, acdc, released_code,
                   hippocampus, own (a folder of yours), or a Python file of yours
  --stage=STAGE    all (default): what is missing of the next two, then evaluate
                   aug: learn a generator         seg: train a segmenter
                   data: only prepare the scans   table1: every method, see `tfaug table1 --help`
  --gen=GENERATOR  of --stage=aug: deform (default), intensity, deform_noreg, intensity_noreg
  --aug=METHOD     of --stage=seg and all: aff_gd_gi (default), none, aff, aff_rd, aff_ri, aff_gd,
                   aff_gi, aff_gd_noreg, aff_gi_noreg, aff_mixup, aff_gd_gi_mixup, adv_sl, adv_ssl,
                   aff_rd_ri, aff_hm_rd, aff_strong, aff_strong_gd_gi, or my_module:name
  --check          only read and prepare every case, list what is wrong, draw all (tfaug check)
Your data and numbers
  --config.data.root=DIR                 the folder of scans
  --config.KEY=VALUE                     any number of the config, as --config.augment.lambda_adv=0
Where
  --workdir=DIR    for runs, one folder each (default: runs)
  --results=DIR    of --stage=seg: evaluate too, and keep the result there for the table

A killed command resumes. Exit status: 0 done, 2 your input, 3 the machine, 130 and 143 a signal.
"""

from __future__ import annotations

import shlex

from absl import flags

from tfaug.augment import methods
from tfaug.augment.methods import GENERATORS
from tfaug.commands import check, cli, table1
from tfaug.config import Config, cases, require, segmenter_path
from tfaug.engine.run_dir import read_report
from tfaug.experiment import identity, sources
from tfaug.table1 import plan, results

STAGES = ("all", "aug", "seg", "data", "table1")
# The flags that each stage reads, besides those that all stages read.
FLAGS_OF = {
    "all": ("aug",),
    "aug": ("gen",),
    "seg": ("aug", "results"),
    "data": ("num_labelled", "sets"),
    "table1": table1.FLAGS,
}
STAGE = flags.DEFINE_string("stage", "all", None)
GEN = flags.DEFINE_string("gen", "deform", None)
CHECK = flags.DEFINE_bool("check", False, None)


def main() -> None:
    """Runs the stage that the flags ask for."""
    stage = cli.choose("--stage", STAGE.value, STAGES)
    generator = cli.choose("--gen", GEN.value, GENERATORS)
    cli.refuse_all_but(("stage", "check", "workdir", "config", *FLAGS_OF[stage]), f"--stage={stage}")
    workdir = cli.path(cli.WORKDIR)
    if stage == "table1" and not CHECK.value:
        table1.fill(workdir.absolute())  # its processes may run in another directory
        return
    config = cli.config()
    name, method = sources.method(config, cli.AUG.value)
    if stage != "table1":
        trained = stage in ("all", "seg")
        cli.refuse_generators_but(method.generators * trained, f"--aug={name}" if trained else f"--stage={stage}")
    cli.check_writable(workdir)
    config = sources.resolve(config, skip_unusable=CHECK.value)
    if CHECK.value:
        check.examine(_data(stage, config), workdir / f"{config.name}-check")
        return
    for_table = stage == "seg" and cli.RESULTS.value
    evaluated = stage == "all" or for_table
    if evaluated:
        require(cases(config, "test"), "test")
    if for_table:
        results.of_config(cli.results(), config, sources.task_of(config).names, method.generators)

    cli.load_tensorflow()  # deferred: a mistake in the flags need not wait for it
    from tfaug.experiment import networks, runs, stages

    networks.set_up_tensorflow(config)
    networks.warn_of_slow_precision(config)
    data = _data(stage, config)
    print(f"{networks.machine(config)}; cases: {data.counts()}", flush=True)
    segmenter = segmenter_path(config, workdir, name)
    unnamed = [needed for needed in method.generators if not config.generators[needed]]  # the others exist already
    learned = {"aug": [generator], "all": unnamed}.get(stage, ())
    trainings = [stages.LearnAugmentation(config, workdir, needed, data) for needed in learned]
    if stage in ("all", "seg"):
        trainings.append(stages.TrainSegmenter(config, workdir, name, method, data))
    if stage == "data" or (stage == "all" and read_report(segmenter) is None):
        data.load(sources.SPLITS)  # otherwise a bad test scan would only show at the end
    folders = [] if evaluated else [training.path for training in trainings]
    while trainings:
        trainings.pop(0).run()  # popped, to free its networks
    if for_table:
        runs.refuse_other_precision(segmenter, config, workdir, method)
    if evaluated:
        print(runs.evaluate(segmenter, "test", config))
    if for_table:
        scans = identity.of_result(config, method, data.digests(identity.splits_of(method)))
        made_with = {"row": identity.row_of(method), "generators": identity.of_generators(config, method.generators)}
        known = {"data": scans, **made_with, **runs.provenance(segmenter)}
        result = results.of_run(segmenter, config, name, **known)
        results.save(cli.results(), result, config, data.task.names)
        print(cli.as_called(f"The table: python evaluate.py --table1 --results={shlex.quote(str(cli.results()))}"))
    for folder in folders:
        print(f"pictures of training: {folder}")
    if stage != "data":
        cli.print_tensorboard(workdir)
    following = _next(stage, generator, config)
    if following:
        print(f"Next: {following}")


def _data(stage: str, config: Config) -> sources.Data:
    """The data that a stage needs: for the grid, or where flags ask for it, of several labelled sets."""
    if stage == "table1" or table1.SETS.present or table1.NUM_LABELLED.present:
        table1.refuse_one_set()
        config = plan.union(config, *table1.chosen_sets(config))
    return sources.Data(config)


def _next(stage: str, generator: str, config: Config) -> str:
    """The command that follows a stage; "" if there is none."""
    if stage == "data":
        return cli.command("train", without=("stage", "num_labelled", "sets"))
    if stage == "seg" and not cli.RESULTS.value:
        return cli.command("evaluate", without=("stage",))
    rows = methods.table(config.methods)
    using = [row for row, method in rows.items() if stage == "aug" and set(method.generators) == {generator}]
    return cli.command("train", "--stage=seg", f"--aug={using[0]}", without=("gen",)) if using else ""
