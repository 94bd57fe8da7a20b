"""The command `tfaug`: one file per subcommand."""

from __future__ import annotations

import importlib
import sys

from tfaug.engine.errors import nearest, printable

COMMANDS = {
    "train": "learn generators, train a segmenter, evaluate it",
    "evaluate": "score a trained segmenter; print the table; draw the figures",
    "report": "tell a run or a grid on one page of HTML",
    "predict": "segment new scans with trained segmenters",
    "generate": "make a data set for other programs with learned augmentation",
    "export": "hand a trained network to programs without tfaug: Keras, SavedModel, ONNX",
    "table1": "train every method on every labelled set, and print the table",
    "check": "read and prepare every case, and list all that is wrong",
}
WITHOUT_CONFIG = ("report", "predict", "generate", "export")  # they read all they need from folders of runs


def main() -> None:
    """Runs the subcommand that the command line names, and ends the process."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h"):
        print("usage: tfaug COMMAND [FLAGS]\n")
        for command, text in COMMANDS.items():
            print(f"  {command:9} {text}")
        print(
            "\n`tfaug COMMAND --help` tells what one takes. `tfaug train` begins with simulated hearts, in ten minutes;"
        )
        print("`tfaug train --config=own --config.data.root=DIR` with a folder of yours.")
        sys.exit(0)
    if name not in COMMANDS:
        print(f"error: {printable(name)}: unknown command; {nearest(name, COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    del sys.argv[1]

    from tfaug.commands import cli

    cli.run(importlib.import_module(f"tfaug.commands.{name}").main, experiment=name not in WITHOUT_CONFIG)
