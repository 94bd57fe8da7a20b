"""Segments new scans with trained segmenters: tfaug predict -i SCANS -o MASKS --run RUN."""

from __future__ import annotations

import pathlib

from absl import flags

from tfaug import metrics, prediction
from tfaug.commands import cli
from tfaug.engine import run_dir
from tfaug.engine.errors import UserError
from tfaug.experiment import sources

INPUT = flags.DEFINE_string("input", "", "A scan, a folder of scans, or a data set.", short_name="i")
OUTPUT = flags.DEFINE_string("output", "", "Folder for the masks.", short_name="o")
RUNS = flags.DEFINE_multi_string(
    "run", [], "Folder of a trained segmenter's run. Given several times, probabilities are averaged."
)
PROBABILITIES = flags.DEFINE_bool("probabilities", False, "Also write the probabilities of all classes, as NAME.npz.")
OVERLAY = flags.DEFINE_bool("overlay", False, "Also write a picture of each scan with its mask, as pictures/NAME.png.")
SCORE = flags.DEFINE_bool("score", False, "Also print the Dice table of the scans that have a label.")
DISTANCES = flags.DEFINE_string(
    "distances",
    metrics.DEFAULT_DISTANCES,
    f"Definition of HD95 and ASSD with --score: {' or '.join(metrics.DISTANCES)}.",
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Make masks again that are there already.")
KEEP_LARGEST = flags.DEFINE_list(
    "keep-largest", [], "Keep only the largest connected component of these structures, as LV,Myo, or of all."
)


def main() -> None:
    """Writes a mask for each scan, and says where."""
    for flag in (INPUT, OUTPUT, RUNS):
        if not flag.value:
            remedy = "see `tfaug predict --help`"
            raise UserError(f"--{flag.name}", "is missing", remedy)
    distances = cli.choose("--distances", DISTANCES.value, metrics.DISTANCES)
    if not SCORE.value:
        cli.refuse_ignored("a prediction that is not scored", ["distances"], "leave it out, or add --score")
    runs = [pathlib.Path(run) for run in RUNS.value]
    config = sources.configs_of_segmenters(runs)[0]
    structures = sources.task_of(config).names
    kept = structures if KEEP_LARGEST.value == ["all"] else KEEP_LARGEST.value
    for name in kept:
        cli.choose("--keep-largest", name, structures)
    dataset = sources.scans_to_segment(pathlib.Path(INPUT.value), config)
    options = prediction.Options(
        PROBABILITIES.value, OVERLAY.value, SCORE.value, OVERWRITE.value, tuple(kept), distances
    )
    made_by = sorted(f"{run.absolute().name} {run_dir.identity(run)}" for run in runs)
    job = prediction.Job(dataset, pathlib.Path(OUTPUT.value), made_by, options, sources.tag_of(dataset.reader, config))
    segmenter = None
    if job.waiting:
        cli.load_tensorflow()  # not before: a mistake in the flags need not wait for it
        from tfaug.experiment import networks, segmenters

        networks.set_up_tensorflow(config)
        segmenter = segmenters.Segmenter(runs)
    print(job.run(segmenter))
