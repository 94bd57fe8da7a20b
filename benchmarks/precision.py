"""Whether bfloat16 costs Dice: the same trainings in float32 and in bfloat16, paired by labelled set and seed.

    python -m benchmarks.precision --workdir=DIR

Trains segmenters by `train.py --stage=table1` in both precisions and prints the mean test Dice of each pair, the mean
difference with its 95 % t-interval, and the seconds of training. Goes on from what is in DIR; further flags, such as
--config.data.root, are those of train.py.
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from tfaug.table1 import results

ROOT = pathlib.Path(__file__).resolve().parent.parent
PRECISIONS = ("float32", "mixed_bfloat16")
KEY = ["method", "labelled_set", "seed"]


def main(argv: Sequence[str] | None = None) -> int:
    """Trains what is missing and prints the comparison; returns 0, or the exit status of a training that failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--methods", default="aff_ri")
    parser.add_argument("--num_labelled", type=int, default=1)
    parser.add_argument("--sets", default="1-5")
    parser.add_argument("--repeats", type=int, default=1)
    arguments, flags = parser.parse_known_args(argv)
    folders = {}
    for precision in PRECISIONS:
        workdir = arguments.workdir / precision
        folders[precision] = workdir / "results"
        command = [
            *(sys.executable, str(ROOT / "train.py"), "--stage=table1", f"--num_labelled={arguments.num_labelled}"),
            *(f"--methods={arguments.methods}", f"--sets={arguments.sets}", f"--repeats={arguments.repeats}"),
            *(f"--workdir={workdir}", f"--results={folders[precision]}", f"--config.precision={precision}", *flags),
        ]
        status = subprocess.run(command).returncode
        if status:
            return status
    print(compare(folders))
    return 0


def compare(folders: dict[str, pathlib.Path]) -> str:
    """The pairs and the difference of their means, as text.

    Args:
      folders: results folder by precision, the reference first.
    """
    runs = {precision: _runs(folder) for precision, folder in folders.items()}
    pairs = pd.concat(runs, axis=1, join="inner")
    dice = pairs.xs("dice", axis=1, level=1)
    seconds = pairs.xs("seconds", axis=1, level=1).sum()
    reference, other = folders
    mean, half = difference(dice[other] - dice[reference])
    return "\n".join(
        [
            dice.to_string(float_format="{:.4f}".format),
            "",
            f"mean Dice {dice[reference].mean():.4f} in {reference}, {dice[other].mean():.4f} in {other}",
            f"difference {mean:+.4f} +- {half:.4f} (95 % t-interval, {len(dice)} pairs)",
            f"time of training {seconds[other] / seconds[reference]:.2f} of that in {reference}",
        ]
    )


def difference(pairs: pd.Series) -> tuple[float, float]:
    """The mean of paired differences and the half-width of its 95 % t-interval; NaN for a single pair."""
    half = stats.t.ppf(0.975, len(pairs) - 1) * stats.sem(pairs) if len(pairs) > 1 else np.nan
    return float(pairs.mean()), float(half)


def _runs(folder):
    rows = [
        {
            **{key: getattr(result, key) for key in KEY},
            "dice": np.nanmean(list(result.dice.values())),
            "seconds": result.seconds,
        }
        for result in results.load(folder)
    ]
    return pd.DataFrame(rows).set_index(KEY)


if __name__ == "__main__":
    sys.exit(main())
