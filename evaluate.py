"""Evaluates a trained segmenter: python evaluate.py --split test."""

from __future__ import annotations

from absl import flags

from tfaug import cli

SPLIT = flags.DEFINE_string("split", "test", "Which patients: test or validation.")
RUN = flags.DEFINE_string("run", "", "The run's folder; empty: the run that --config, --aug and --workdir name.")


def main() -> None:
    """Prints the Dice table, and writes CSV, masks and pictures into the run's folder."""
    from tfaug import experiment
    from tfaug.augment.methods import METHODS

    split = cli.choose("--split", SPLIT.value, ("test", "validation"))
    method = cli.choose("--aug", cli.AUG.value, METHODS)
    run = RUN.value or experiment.segmenter_path(cli.CONFIG.value, cli.WORKDIR.value, method)
    print(experiment.evaluate_run(run, split))


if __name__ == "__main__":
    cli.run(main)
