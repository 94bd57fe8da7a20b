"""Tells a run or a grid on one page of HTML: tfaug report RUN_OR_RESULTS -o REPORT.html

  --of=FOLDER            the folder of a finished run, of a segmenter or of a generator, or the
                         results of `tfaug table1`; may stand without its name, as above
  -o, --output FILE      for the page: one file that needs no network
Also
  --overwrite            replace a file that is there already

All comes from what the folder holds; nothing is trained. Of a segmenter: scores, curves, the
best, median and worst case slice by slice (if the scans still lie where the run found them), and
its generators, if their runs are beside it. Of a grid: table, tests, box plots, orders, figures.
"""

from __future__ import annotations

from absl import flags

from tfaug.commands import cli
from tfaug.engine.errors import UserError

OF = flags.DEFINE_string("of", "", None)
OUTPUT = flags.DEFINE_string("output", "", None, short_name="o")
OVERWRITE = flags.DEFINE_bool("overwrite", False, None)
OPERAND = OF  # the flag that takes an argument without a flag's name, see `cli`


def main() -> None:
    """Writes the page, and says where."""
    for flag, name in ((OF, "the folder of a run or of results"), (OUTPUT, "--output")):
        if not flag.value:
            raise UserError(name, "is missing", "see `tfaug report --help`")
    from tfaug.report.make import Report

    report = Report(cli.path(OF), cli.path(OUTPUT), OVERWRITE.value)
    if report.needs_tensorflow:
        cli.load_tensorflow()
    print(report.write())
