"""Hands a trained network to programs without tfaug: tfaug export --run RUN --to FORMAT -o DIR

  --run RUN            the folder of a segmenter's or of a generator's run
  --to FORMAT          keras: model.keras, for the Keras of TensorFlow 2.15, or tf-keras
                       savedmodel: saved_model, for TensorFlow alone
                       onnx: model.onnx, for onnxruntime and others (pip install 'tfaug[onnx]')
  -o, --output DIR     a new folder for it

Beside the network there are preprocessing.json, which tells how scans are prepared and what goes
in and comes out, and MODEL_CARD.md: data, scores, the command that trains it again, its use.
A segmenter takes prepared slices and gives logits. A generator takes slices, noise and, if it
deforms, labels, and gives its field and what that makes of slices and labels.
"""

from __future__ import annotations

from absl import flags

from tfaug.commands import cli
from tfaug.engine.errors import UserError
from tfaug.engine.run_dir import read_report
from tfaug.experiment import exporting, sources

RUN = flags.DEFINE_string("run", "", None)
TO = flags.DEFINE_string("to", "", None)
OUTPUT = flags.DEFINE_string("output", "", None, short_name="o")


def main() -> None:
    """Writes the folder, and says where."""
    for flag in (RUN, TO, OUTPUT):
        if not flag.value:
            raise UserError(f"--{flag.name}", "is missing", "see `tfaug export --help`")
    to = cli.choose("--to", TO.value, exporting.FILES)
    exporting.check_format(to)
    run = cli.path(RUN)
    role, config = sources.config_of_network(run)
    export = exporting.Export(run, role, config, cli.path(OUTPUT), to)
    cli.load_tensorflow()  # deferred: a mistake in the flags need not wait for it
    from tfaug.experiment import networks, runs
    from tfaug.experiment.portable import Network

    networks.set_up_tensorflow(config)
    learned = runs.generators_of(run, config, read_report(run))
    print(export.run(Network(run, role, config), learned))
