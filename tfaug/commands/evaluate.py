"""Evaluates a trained segmenter, or all that --stage=table1 has finished: tfaug evaluate --split test."""

from __future__ import annotations

from absl import flags

from tfaug import metrics
from tfaug.augment import methods
from tfaug.commands import cli
from tfaug.config import segmenter_path
from tfaug.experiment import sources

SPLIT = flags.DEFINE_string("split", "test", "Which cases: test or validation.")
RUN = flags.DEFINE_string("run", "", "The run's folder; empty: the run that --config, --aug and --workdir name.")
DISTANCES = flags.DEFINE_string(
    "distances", metrics.DEFAULT_DISTANCES, f"Definition of HD95 and ASSD: {' or '.join(metrics.DISTANCES)}."
)
TABLE1 = flags.DEFINE_bool("table1", False, "Only print the table from --results, and write it there.")
FIGURES = flags.DEFINE_bool(
    "figures", False, "Only draw --results, and their runs in --workdir; pictures go to --results."
)


def main() -> None:
    """Prints the Dice table, and writes CSV, masks and pictures into the run's folder; or does so for the grid."""
    split = cli.choose("--split", SPLIT.value, ("test", "validation"))
    distances = cli.choose("--distances", DISTANCES.value, metrics.DISTANCES)
    if TABLE1.value or FIGURES.value:
        what = "--table1" if TABLE1.value else "--figures"
        cli.refuse_all_but(("table1", "figures", "results", "workdir", "config"), what)
    elif RUN.value:
        cli.refuse_all_but(("run", "split", "distances"), "--run, whose config counts")
    else:
        cli.refuse_all_but(("split", "distances", "aug", "workdir", "config"), "an evaluation")
    config = cli.config()
    name, _ = sources.method(config, cli.AUG.value)
    if TABLE1.value:
        from tfaug.table1 import render

        print(render.write(cli.results(), methods.table(config.methods)))
    if FIGURES.value:
        from tfaug.table1 import figures

        rows, resolved = methods.table(config.methods), sources.resolve(config)
        print("\n".join(figures.draw(cli.results(), resolved, cli.path(cli.WORKDIR), rows)))
    if TABLE1.value or FIGURES.value:
        return

    if RUN.value:
        cli.load_tensorflow()  # not before: a mistake in the flags need not wait for it
        from tfaug.experiment import runs

        run = cli.path(RUN)
        print(runs.evaluate(run, split, distances=distances))
        cli.print_tensorboard(run.parent)
        return
    config = sources.resolve(config)
    cli.load_tensorflow()
    from tfaug.experiment import runs

    workdir = cli.path(cli.WORKDIR)
    print(runs.evaluate(segmenter_path(config, workdir, name), split, config, distances))
    cli.print_tensorboard(workdir)
