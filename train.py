"""Runs the stages of an experiment: python train.py --stage=aug --gen=deform."""

from __future__ import annotations

import pathlib
import shlex
import tempfile

from absl import flags

from tfaug import cli
from tfaug.augment.methods import GENERATORS, METHODS
from tfaug.config import check, segmenter_path
from tfaug.files import machine_errors

STAGE = flags.DEFINE_string("stage", "all", "aug: learn a generator; seg: train a segmenter; all: all, then evaluate.")
GEN = flags.DEFINE_string(
    "gen", "deform", "Which generator --stage=aug learns: deform or intensity (or deform_noreg, intensity_noreg)."
)
CHECK = flags.DEFINE_bool("check", False, "Only read the files of every split, and list all that is wrong.")


def main() -> None:
    """Runs what the flags ask for."""
    stage = cli.choose("--stage", STAGE.value, ("all", "aug", "seg"))
    generator = cli.choose("--gen", GEN.value, GENERATORS)
    method = cli.choose("--aug", cli.AUG.value, METHODS)
    config, workdir = cli.config(), cli.WORKDIR.value
    check(config)
    if not CHECK.value:
        check_writable(pathlib.Path(workdir))

    from tfaug import experiment  # not before: a mistake in the flags need not wait for TensorFlow
    from tfaug.data.check import refuse, report

    if CHECK.value:
        findings = experiment.examine_data(config)
        print(report(findings))
        refuse(findings)
        return
    experiment.set_up_tensorflow(config)
    segmenter = segmenter_path(config, workdir, method)
    if stage == "all" and not (segmenter / "report.json").exists():
        refuse(experiment.examine_data(config))  # a bad test scan would otherwise show last
    if stage == "aug":
        experiment.learn_augmentation(config, workdir, generator)
    if stage == "all":
        for generator in METHODS[method].generators:
            experiment.learn_augmentation(config, workdir, generator)
    if stage in ("all", "seg"):
        experiment.train_segmenter(config, workdir, method)
    if stage == "all":
        print(experiment.evaluate_run(segmenter, "test"))
    print(f"\nTo look at it: tensorboard --logdir {shlex.quote(workdir)}")


def check_writable(folder: pathlib.Path) -> None:
    """Raises MachineError at once, rather than when TensorFlow has been loaded, if no run can be kept in `folder`."""
    with machine_errors(folder, "choose a --workdir that can be written"):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        tempfile.TemporaryFile(dir=existing).close()


if __name__ == "__main__":
    cli.run(main)
