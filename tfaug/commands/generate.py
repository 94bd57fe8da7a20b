"""Makes a data set for other programs with learned augmentation: tfaug generate --run RUN -n N -o DIR

  --run RUN             the folder of a generator's run; with one of deformations and one of
                        intensities, scans are deformed, then brightened
  -n, --number N        how many scans are made; the run's labelled cases take turns as sources
  -o, --output DIR      for the data set, in the layout of nnU-Net v2
Also
  -i, --input DIR       the run's data set, if it lies elsewhere now
  --with-originals      the sources, too
  --per-slice           another change in each slice; else one that goes together along the scan
  --seed N              of the noise (default: 0); the same seed makes the same scans

Scans keep their grid, format and geometry. A killed command resumes; a larger N adds to it.
"""

from __future__ import annotations

import os
import pathlib

from absl import flags

from tfaug import generation
from tfaug.commands import cli
from tfaug.config import cases
from tfaug.engine import run_dir
from tfaug.engine.errors import MachineError, UserError
from tfaug.experiment import sources

RUNS = flags.DEFINE_multi_string("run", [], None)
NUMBER = flags.DEFINE_integer("number", None, None, 1, short_name="n")
OUTPUT = flags.DEFINE_string("output", "", None, short_name="o")
INPUT = flags.DEFINE_string("input", "", None, short_name="i")
WITH_ORIGINALS = flags.DEFINE_bool("with-originals", False, None)
PER_SLICE = flags.DEFINE_bool("per-slice", False, None)
SEED = flags.DEFINE_integer("seed", 0, None, 0)


def main() -> None:
    """Writes the data set, and says where."""
    for flag in (RUNS, NUMBER, OUTPUT):
        if not flag.value:
            raise UserError(f"--{flag.name}", "is missing", "see `tfaug generate --help`")
    runs = [pathlib.Path(os.path.expanduser(run)) for run in RUNS.value]
    config = sources.configs_of_generators(runs)[0]
    if INPUT.value:
        config.data.root = str(cli.path(INPUT))
    try:
        dataset = sources.Data(config).dataset
    except MachineError as error:  # the built-in cohort is made in the folder of the run's cache
        remedy = "see that it can be written, or give the data set with -i"
        raise MachineError(error.subject, error.problem, remedy) from error
    if INPUT.value:
        sources.refuse_other_coding(dataset.reader, dataset.task)
    options = generation.Options(NUMBER.value, SEED.value, PER_SLICE.value, WITH_ORIGINALS.value)
    made_by = sorted(f"{run.absolute().name} {run_dir.identity(run)}" for run in runs)
    arguments = (sources.spec_of(config), cli.path(OUTPUT), made_by, options)
    job = generation.Job(dataset, cases(config, "labelled"), *arguments)
    generators = None
    if job.waiting:
        cli.load_tensorflow()  # deferred: a mistake in the flags need not wait for it
        from tfaug.experiment import networks
        from tfaug.experiment.generators import Generators

        networks.set_up_tensorflow(config)
        generators = Generators(runs)
    print(job.run(generators))
