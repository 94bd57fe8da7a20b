"""Evaluates a trained segmenter, or all that --stage=table1 has finished: python evaluate.py --split test."""

from __future__ import annotations

from absl import flags

from tfaug.augment.methods import METHODS
from tfaug.commands import cli
from tfaug.config import segmenter_path

SPLIT = flags.DEFINE_string("split", "test", "Which patients: test or validation.")
RUN = flags.DEFINE_string("run", "", "The run's folder; empty: the run that --config, --aug and --workdir name.")
TABLE1 = flags.DEFINE_bool("table1", False, "Only print Table 1 from --results, and write it there.")
FIGURES = flags.DEFINE_bool(
    "figures", False, "Only draw --results, and their runs in --workdir; pictures go to --results."
)


def main() -> None:
    """Prints the Dice table, and writes CSV, masks and pictures into the run's folder; or does so for the grid."""
    split = cli.choose("--split", SPLIT.value, ("test", "validation"))
    method = cli.choose("--aug", cli.AUG.value, METHODS)
    config = cli.config()
    if TABLE1.value:
        from tfaug.table1 import render

        print(render.write(cli.results(), METHODS))
    if FIGURES.value:
        from tfaug.table1 import figures

        print("\n".join(figures.draw(cli.results(), config, cli.WORKDIR.value)))
    if TABLE1.value or FIGURES.value:
        return

    from tfaug import experiment  # not before: a mistake in the flags need not wait for TensorFlow

    if RUN.value:
        print(experiment.evaluate_run(RUN.value, split))
    else:
        print(experiment.evaluate_run(segmenter_path(config, cli.WORKDIR.value, method), split, config))


if __name__ == "__main__":
    cli.run(main)
