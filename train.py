"""Runs the stages of an experiment: python train.py --stage=aug --gen=deform."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # Python leaves it out with PYTHONSAFEPATH

from tfaug.commands import cli, train

if __name__ == "__main__":
    cli.run(train.main)
