"""Scores a trained segmenter, or prints and draws the grid: tfaug evaluate [--FLAG=VALUE ...]

A segmenter, on its scans' own grids: the Dice table, masks and pictures, in RUN/evaluation/SPLIT
  --split=SPLIT    test (default) or validation
  --run=RUN        the folder of its run; or name it as `tfaug train` does, by the next three
  --config=NAME    phantom (default), acdc_quick, acdc, released_code, hippocampus, own,
                   or a Python file
  --aug=METHOD     as of `tfaug train` (default: aff_gd_gi)
  --workdir=DIR    of the runs (default: runs)
  --distances=DEF  definition of HD95 and ASSD: reloaded (default) or medpy
  --config.data.root=DIR --config.splits.test="('CASE1', 'CASE2')"
                   other scans than the run's config names; also with --run
The grid of `tfaug table1`
  --table1         print its table with the tests, and write it into --results
  --figures        draw box plots and figures into --results, from the runs in --workdir
  --results=DIR    the folder of its results (default: WORKDIR/table1)

Scans without labels are segmented by `tfaug predict`.
"""

from __future__ import annotations

from absl import flags

from tfaug import metrics
from tfaug.augment import methods
from tfaug.commands import cli
from tfaug.config import segmenter_path
from tfaug.experiment import sources

SPLIT = flags.DEFINE_string("split", "test", None)
RUN = flags.DEFINE_string("run", "", None)
DISTANCES = flags.DEFINE_string("distances", metrics.DEFAULT_DISTANCES, None)
TABLE1 = flags.DEFINE_bool("table1", False, None)
FIGURES = flags.DEFINE_bool("figures", False, None)
SPLITS = ("test", "validation")
# Keys that may be changed for a trained segmenter, beside its cases.
OF_DATA = ("config.data.root", "config.data.cache_dir", "config.data.num_workers")


def main() -> None:
    """Prints the Dice table and writes CSV, masks and pictures into the run's folder; or prints and draws the grid."""
    split = cli.choose("--split", SPLIT.value, SPLITS)
    distances = cli.choose("--distances", DISTANCES.value, metrics.DISTANCES)
    if TABLE1.value or FIGURES.value:
        what = "--table1" if TABLE1.value else "--figures"
        cli.refuse_all_but(("table1", "figures", "results", "workdir", "config"), what)
    elif RUN.value:
        cli.refuse_ignored(f"--split={split}", [f"config.splits.{other}" for other in SPLITS if other != split])
        of_data = (*OF_DATA, f"config.splits.{split}")
        cli.refuse_all_but(("run", "split", "distances", *of_data), "--run, whose config counts")
        _evaluate_run(cli.path(RUN), split, cli.given_keys(of_data), distances)
        return
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

    config = sources.resolve(config)
    cli.load_tensorflow()  # deferred: a mistake in the flags need not wait for it
    from tfaug.experiment import runs

    workdir = cli.path(cli.WORKDIR)
    print(runs.evaluate(segmenter_path(config, workdir, name), split, config, distances=distances))
    cli.print_tensorboard(workdir)


def _evaluate_run(run, split, changes, distances):
    cli.load_tensorflow()
    from tfaug.experiment import runs

    print(runs.evaluate(run, split, changes=changes, distances=distances))
    cli.print_tensorboard(run.parent)
