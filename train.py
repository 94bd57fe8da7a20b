"""Runs the stages of an experiment: python train.py --stage=aug --gen=deform."""

from tfaug.commands import cli, train

if __name__ == "__main__":
    cli.run(train.main)
