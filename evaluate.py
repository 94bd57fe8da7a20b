"""Evaluates a trained segmenter, or all that --stage=table1 has finished: python evaluate.py --split test."""

from tfaug.commands import cli, evaluate

if __name__ == "__main__":
    cli.run(evaluate.main)
