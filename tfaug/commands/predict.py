"""Segments new scans with trained segmenters: tfaug predict -i SCANS -o MASKS --run RUN

  -i, --input SCANS    a scan, a folder of scans, or a data set; 3D, or 4D frame by frame
  -o, --output MASKS   for the masks, in each scan's own format, geometry and label values
  --run RUN            the folder of a segmenter's run; of several, probabilities are averaged
Also
  --probabilities      the probabilities of all classes, as MASKS/CASE.npz
  --overlay            pictures of scans with their masks, as MASKS/pictures/CASE.png
  --score              the Dice table of the scans that have a label
  --distances=NAME     definition of HD95 and ASSD in it: reloaded (default) or medpy
  --keep-largest=A,B   only the largest connected component of these structures, or of all
  --overwrite          make masks again that are there already

A killed command resumes. Scans that cannot be used are reported at the end, with exit status 2.
"""

from __future__ import annotations

import os
import pathlib

from absl import flags

from tfaug import metrics, prediction
from tfaug.commands import cli
from tfaug.engine import run_dir
from tfaug.engine.errors import UserError
from tfaug.experiment import sources

INPUT = flags.DEFINE_string("input", "", None, short_name="i")
OUTPUT = flags.DEFINE_string("output", "", None, short_name="o")
RUNS = flags.DEFINE_multi_string("run", [], None)
PROBABILITIES = flags.DEFINE_bool("probabilities", False, None)
OVERLAY = flags.DEFINE_bool("overlay", False, None)
SCORE = flags.DEFINE_bool("score", False, None)
DISTANCES = flags.DEFINE_string("distances", metrics.DEFAULT_DISTANCES, None)
OVERWRITE = flags.DEFINE_bool("overwrite", False, None)
KEEP_LARGEST = flags.DEFINE_list("keep-largest", [], None)


def main() -> None:
    """Writes a mask for each scan, and says where."""
    for flag in (INPUT, OUTPUT, RUNS):
        if not flag.value:
            remedy = "see `tfaug predict --help`"
            raise UserError(f"--{flag.name}", "is missing", remedy)
    distances = cli.choose("--distances", DISTANCES.value, metrics.DISTANCES)
    if not SCORE.value:
        cli.refuse_ignored("a prediction that is not scored", ["distances"], "leave it out, or add --score")
    runs = [pathlib.Path(os.path.expanduser(run)) for run in RUNS.value]
    config = sources.configs_of_segmenters(runs)[0]
    structures = sources.task_of(config).names
    kept = structures if KEEP_LARGEST.value == ["all"] else KEEP_LARGEST.value
    for name in kept:
        cli.choose("--keep-largest", name, structures)
    dataset = sources.scans_to_segment(cli.path(INPUT), config, labels=SCORE.value)
    options = prediction.Options(
        PROBABILITIES.value, OVERLAY.value, SCORE.value, OVERWRITE.value, tuple(kept), distances
    )
    made_by = sorted(f"{run.absolute().name} {run_dir.identity(run)}" for run in runs)
    job = prediction.Job(dataset, cli.path(OUTPUT), made_by, options, sources.tag_of(dataset.reader, config))
    segmenter = None
    if job.waiting:
        cli.load_tensorflow()  # deferred: a mistake in the flags need not wait for it
        from tfaug.experiment import networks, segmenters

        networks.set_up_tensorflow(config)
        segmenter = segmenters.Segmenter(runs)
    print(job.run(segmenter))
