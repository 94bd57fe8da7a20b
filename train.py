"""Runs the stages of an experiment: python train.py --stage=aug --gen=deform."""

from __future__ import annotations

import shlex

from absl import flags

from tfaug import cli
from tfaug.augment.methods import GENERATORS, METHODS
from tfaug.config import check, segmenter_path

STAGE = flags.DEFINE_string("stage", "all", "aug: learn a generator; seg: train a segmenter; all: all, then evaluate.")
GEN = flags.DEFINE_string(
    "gen", "deform", "Which generator --stage=aug learns: deform or intensity (or deform_noreg, intensity_noreg)."
)


def main() -> None:
    """Runs what the flags ask for."""
    stage = cli.choose("--stage", STAGE.value, ("all", "aug", "seg"))
    generator = cli.choose("--gen", GEN.value, GENERATORS)
    method = cli.choose("--aug", cli.AUG.value, METHODS)
    config, workdir = cli.config(), cli.WORKDIR.value
    check(config)

    from tfaug import experiment  # not before: a mistake in the flags need not wait for TensorFlow

    experiment.set_up_tensorflow(config)
    if stage == "aug":
        experiment.learn_augmentation(config, workdir, generator)
    if stage == "all":
        for generator in METHODS[method].generators:
            experiment.learn_augmentation(config, workdir, generator)
    if stage in ("all", "seg"):
        experiment.train_segmenter(config, workdir, method)
    if stage == "all":
        print(experiment.evaluate_run(segmenter_path(config, workdir, method), "test"))
    print(f"\nTo look at it: tensorboard --logdir {shlex.quote(workdir)}")


if __name__ == "__main__":
    cli.run(main)
