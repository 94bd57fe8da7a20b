"""Evaluates a trained segmenter, or all that --stage=table1 has finished: python evaluate.py --split test."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # Python leaves it out with PYTHONSAFEPATH

from tfaug.commands import cli, evaluate

if __name__ == "__main__":
    cli.run(evaluate.main)
