"""Runs the stages of an experiment: tfaug train --stage=aug --gen=deform."""

from __future__ import annotations

import pathlib
import shlex

from absl import flags

from tfaug.augment.methods import GENERATORS
from tfaug.commands import check, cli, table1
from tfaug.config import cases, require, segmenter_path
from tfaug.engine import files
from tfaug.engine.run_dir import check_path, read_report
from tfaug.experiment import identity, sources
from tfaug.table1 import plan, results

STAGES = {
    "all": "both of the next, then evaluate",
    "aug": "learn a generator",
    "seg": "train a segmenter (with --results: evaluate it, and keep the result there)",
    "data": "only prepare the cases of all splits",
    "table1": "fill Table 1",
}
STAGE = flags.DEFINE_string("stage", "all", "; ".join(f"{stage}: {text}" for stage, text in STAGES.items()) + ".")
GEN = flags.DEFINE_string(
    "gen", "deform", "Which generator --stage=aug learns: deform or intensity (or deform_noreg, intensity_noreg)."
)
CHECK = flags.DEFINE_bool("check", False, "Only read and prepare every case, and list all that is wrong.")


def main() -> None:
    """Runs what the flags ask for."""
    stage = cli.choose("--stage", STAGE.value, STAGES)
    generator = cli.choose("--gen", GEN.value, GENERATORS)
    workdir = pathlib.Path(cli.WORKDIR.value)
    if CHECK.value:
        check.main()
        return
    if stage == "table1":
        table1.fill(workdir.absolute())  # its processes may work elsewhere
        return
    config = cli.config()
    name, method = sources.method(config, cli.AUG.value)
    check_writable(workdir)
    config = sources.resolve(config)
    evaluated = stage == "all" or (stage == "seg" and cli.RESULTS.value)
    if evaluated:
        require(cases(config, "test"), "test")

    cli.load_tensorflow()  # not before: a mistake in the flags need not wait for it
    from tfaug.experiment import networks, runs, stages

    networks.set_up_tensorflow(config)
    data = sources.Data(config)
    segmenter = segmenter_path(config, workdir, name)
    if stage == "data" and table1.SETS.present:
        data = sources.Data(plan.union(config, *table1.chosen_sets(config)))
    learned = {"aug": [generator], "all": method.generators}.get(stage, ())
    trainings = [stages.LearnAugmentation(config, workdir, needed, data) for needed in learned]
    if stage in ("all", "seg"):
        trainings.append(stages.TrainSegmenter(config, workdir, name, method, data))
    if stage == "data" or (stage == "all" and read_report(segmenter) is None):
        data.load(sources.SPLITS)  # a bad test scan would otherwise show last
    commit = results.commit()  # now, as it may move on while this process trains
    while trainings:
        trainings.pop(0).run()  # its networks go with it
    if evaluated:
        print(runs.evaluate(segmenter, "test"))
    if stage == "seg" and cli.RESULTS.value:
        scans = identity.of_result(config, method, data.digests(identity.splits_of(method)))
        result = results.of_run(segmenter, config, name, commit=commit, data=scans, **runs.provenance(segmenter))
        results.save(cli.results(), result, config, data.task.names)
    if stage != "data":
        print(f"\nTo look at it: tensorboard --logdir {shlex.quote(str(workdir))}")


def check_writable(folder: pathlib.Path) -> None:
    """Ends at once, rather than when TensorFlow has been loaded, if no run can be kept in `folder`.

    Raises:
      UserError: TensorFlow cannot use its path.
      MachineError: it cannot be written.
    """
    check_path(folder)
    files.check_writable(folder, "choose a --workdir that can be written")
