"""Whether what `tfaug generate` writes helps a segmenter that knows nothing of tfaug.

    tfaug generate --run GV --run GI -n 100 -o GENERATED/set1           # the generators of labelled set 1; and so on
    python -m benchmarks.others --generated=GENERATED --sets=1,2,3 --seeds=2 [--config=FILE] [--config.KEY=VALUE ...]

Trains MONAI's BasicUNet with MONAI's usual augmentation on the labelled volumes of each set, with the generated set as
half of each batch and without, and scores both on the test cases of the config, on their own grids. Needs PyTorch and
MONAI (`pip install monai`). Prints the mean Dice of each pair, the mean difference and its 95 % t-interval: over
labelled sets, as the seeds of one set are not independent, or over the seeds of the only one.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pandas as pd
from absl import flags

from benchmarks import timing
from benchmarks.precision import difference
from tfaug import evaluation
from tfaug.commands import cli
from tfaug.config import Config
from tfaug.data.preprocess import Prepared
from tfaug.experiment import sources

ARMS = ("without", "with")
Slices = tuple[np.ndarray, np.ndarray]


def main(argv: Sequence[str] | None = None) -> int:
    """Trains, scores and prints; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generated", type=pathlib.Path, required=True, help="folder of set1, set2, ...")
    parser.add_argument("--sets", type=timing.numbers, default=[1, 2, 3], help="labelled sets")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each set and arm")
    parser.add_argument("--steps", type=int, default=500, help="updates of a training")
    parser.add_argument("--batch", type=int, default=10, help="slices in each")
    arguments, config_flags = parser.parse_known_args(argv)
    sys.argv = [sys.argv[0], *config_flags]

    def work() -> None:
        from benchmarks.monai_unet import train

        compared = compare(
            flags.FLAGS.config,
            arguments.generated,
            arguments.sets,
            range(arguments.seeds),
            lambda *slices, seed: train(*slices, steps=arguments.steps, batch_size=arguments.batch, seed=seed),
        )
        print(report(compared))

    cli.run(work)
    return 0


def compare(config: Config, folder: pathlib.Path, sets: Iterable[int], seeds: Iterable[int], train: Callable):
    """Trains both arms for each labelled set and seed.

    Args:
      config: provides the labelled sets to train on and the test cases to score.
      folder: contains the generated data sets, "set1" and so on.
      sets: labelled sets, from 1.
      seeds: training seeds.
      train: function from (original slices, generated slices or None, number of classes, seed=) to a predictor.

    Returns:
      mean Dice by set and seed: a DataFrame with the columns `ARMS`.
    """
    rows = {}
    for number in sets:
        config.labelled_set = number
        resolved = sources.resolve(config)
        data = sources.Data(resolved)
        data.load(["labelled"])
        original, made = slices(data["labelled"]), slices(generated(resolved, folder / f"set{number}"))
        for seed in seeds:
            for arm, more in zip(ARMS, (None, made)):
                predict = train(original, more, data.task.num_classes, seed=seed)
                rows.setdefault((number, seed), {})[arm] = mean_dice(predict, data)
                print(f"set {number}, seed {seed}, {arm}: {rows[number, seed][arm]:.4f}", flush=True)
    return pd.DataFrame.from_dict(rows, orient="index")[[*ARMS]].rename_axis(["set", "seed"])


def report(compared: pd.DataFrame) -> str:
    """Reports the pairs, their difference and a verdict."""
    by_set = compared.groupby("set").mean()
    sample, unit = (by_set, "labelled sets") if len(by_set) > 1 else (compared, "seeds of one labelled set")
    mean, half = difference(sample["with"] - sample["without"])
    verdict = "it helps" if mean > half else "it hurts" if mean < -half else "no difference is shown"
    deviation = by_set.std()
    return "\n".join(
        [
            compared.to_string(float_format="{:.4f}".format),
            "",
            *(f"{arm}: {compared[arm].mean():.4f}, standard deviation over sets {deviation[arm]:.4f}" for arm in ARMS),
            f"difference {mean:+.4f} +- {half:.4f} (95 % t-interval, {len(sample)} {unit}): {verdict}",
        ]
    )


def generated(config: Config, folder: pathlib.Path) -> list[Prepared]:
    """The cases of a generated data set, prepared like the scans of the config."""
    config = Config(config.to_dict())
    with config.ignore_type():
        config.data.root, config.data.reader = str(folder), "msd"
        names = sources.reader(config).cases().labelled
        config.num_labelled, config.labelled_set = len(names), 1
        config.splits.labelled = {f"n{len(names)}": (names,)}
    data = sources.Data(config)
    data.load(["labelled"])
    return data["labelled"]


def slices(scans: Sequence[Prepared]) -> Slices:
    """Images [N, H, W, C] and labels [N, H, W] of all slices."""
    return np.concatenate([scan.image for scan in scans]), np.concatenate([scan.label for scan in scans])


def mean_dice(predict: Callable, data: sources.Data) -> float:
    """Mean Dice over structures and test cases, on the scans' own grids."""
    scores = [evaluation.validation_dice(predict, [scan], data.task)["mean"] for scan in data.with_volumes("test")]
    return float(np.mean(scores))


if __name__ == "__main__":
    sys.exit(main())
