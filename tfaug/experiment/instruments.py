"""Whether a generator is sane: numbers of its fields beside those of random transforms, and a verdict in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfaug import metrics
from tfaug.augment.learned import transform_image, transform_label
from tfaug.augment.methods import GENERATORS
from tfaug.config import Config, draws_of_a_slice, limits_intensity
from tfaug.data import pipeline
from tfaug.data.preprocess import Prepared
from tfaug.experiment import networks
from tfaug.experiment.drawing import Generate, Pictured, fields
from tfaug.models.discriminator import GreyValues
from tfaug.types import Batch

Z_DRAWS = 4  # fields per image
YARDSTICK_READINGS = 4  # of as many draws each; their mean represents a random transform
JUDGED_SLICES = 12  # of each pool, or the size of a pack if that is larger

# The random transforms that each kind of generator is compared with.
YARDSTICKS = {"deform": ("elastic",), "intensity": ("contrast_brightness", "histogram")}

COLLAPSED = 0.01  # a generator ignores z if its fields vary by less than this share of their magnitude
NEGLIGIBLE = {"deform": 0.1, "intensity": 0.03}  # pixels; normalised intensity, of which an image spans about 1
LIMITS = {"folded": 0.01, "lost_anatomy": 0.1, "saturated": 0.01}  # shares; a generator beyond one has run away
TIMES = 3  # largest sane ratio of the 95th percentile of its fields to a random transform's

_WORDS = {
    "folded": "of the pixels are folded",
    "lost_anatomy": "of the labelled anatomy is moved out of the picture or shrunk away",
    "saturated": "of the pixels have a |dI| at the limit of tanh",
}


class Instruments:
    """Measurements of a generator at each validation, always on the same labelled slices and draws of z.

    Args:
      name: a key of `GENERATORS`.
      labelled: the scans that it is conditioned on.
      unlabelled: scans whose grey values it should reach.
      held_out: scans that no network learns from.
      config: resolved.
    """

    def __init__(
        self,
        name: str,
        labelled: Sequence[Prepared],
        unlabelled: Sequence[Prepared],
        held_out: Sequence[Prepared],
        config: Config,
    ):
        self._name, self._kind, self._config = name, GENERATORS[name][0], config
        self._left_out = set() if limits_intensity(config) else {"saturated"}
        self._pools = {
            pool: _spread_out(np.concatenate([scan.image for scan in scans]), max(JUDGED_SLICES, config.augment.pack))
            for pool, scans in (("labelled", labelled), ("unlabelled", unlabelled), ("held_out", held_out))
            if scans
        }
        shown = Pictured(labelled)
        num_classes = networks.task_of(config).num_classes
        self._shown = Batch(tf.constant(shown.images), tf.one_hot(shown.labels, num_classes))
        self._unlabelled = [scan.image for scan in unlabelled]
        if unlabelled:  # these quantiles are all that `histogram_distance` needs
            slices = np.concatenate(self._unlabelled)
            self._grey_values = np.quantile(slices, np.linspace(0, 1, metrics.NUM_LEVELS))
            if self._kind == "intensity":
                self._principal = GreyValues(slices)
        random_fields = dict(self._random_fields())
        self._random = list(random_fields)
        self._yardsticks = {
            f"{transform}/{key}": value
            for transform, drawn in random_fields.items()
            for key, value in self._mean_reading(drawn).items()
        }

    def measure(self, generate: Generate, judge: Callable | None = None) -> dict[str, float]:
        """One reading, by tag: "generator/..." and the same for each random transform.

        Args:
          generate: function from images and z to fields.
          judge: function from generated images and scans to D's logits for both; None if there is no D.
        """
        drawn = fields(generate, self._shown.image.numpy(), self._config, Z_DRAWS)
        values = {f"generator/{key}": value for key, value in self._describe(drawn).items()}
        return {**values, **self._yardsticks, **(self._ask(generate, judge) if judge else {})}

    def magnitudes(self, generate: Generate) -> dict[str, np.ndarray]:
        """The fields behind `measure`, pixel by pixel: by source, "generator" and the random transforms.

        Returns:
          displacements in mm, or the |dI| of the first channel; flat.
        """
        drawn = {"generator": fields(generate, self._shown.image.numpy(), self._config, Z_DRAWS)}
        drawn.update(self._random_fields())
        if self._kind == "deform":
            resolution = self._config.data.resolution
            return {name: (resolution * np.linalg.norm(field, axis=-1)).ravel() for name, field in drawn.items()}
        return {name: np.abs(field[..., 0]).ravel() for name, field in drawn.items()}

    def verdict(self, values: Mapping[str, float]) -> tuple[str, list[str]]:
        """The verdict on a reading.

        Returns:
          "sane", "run away", "collapsed" or "next to nothing", and the reasons, one line each.
        """
        mean, diversity = (values[f"generator/{key}"] for key in _SIZE[self._kind])
        found = []
        if mean < NEGLIGIBLE[self._kind]:
            found.append(
                ("next to nothing", f"hardly changes an image: its fields have a mean magnitude of {mean:.2g}")
            )
        if diversity <= COLLAPSED * mean:
            problem = f"has collapsed: its fields vary by {diversity:.2g} over z, of {mean:.2g} in mean"
            found.append(("collapsed", problem))
        found += [("run away", f"has run away: {problem}") for problem in self._excesses(values)]
        reasons = [f"generator {self._name} {problem}" for _, problem in found]
        return (found[0][0] if found else "sane"), reasons

    def in_short(self, values: Mapping[str, float]) -> str:
        """The most telling numbers of a reading, each with those of the random transforms in brackets."""
        keys = [key for key in _TELLING[self._kind] if f"generator/{key}" in values and key not in self._left_out]
        random = {key: [f"{values[f'{name}/{key}']:.2g}" for name in self._random] for key in keys}
        return ", ".join(
            f"{_CHARTS[self._kind][key]} {values[f'generator/{key}']:.2g} ({', '.join(random[key])})" for key in keys
        )

    def charts(self, rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Sequence[float]]]:
        """The curves of a run by chart and name, of what the rows of its diagnostics.csv have."""
        sources = ("generator", *YARDSTICKS[self._kind])
        pools = ("generated", "labelled", "unlabelled", "held_out")
        found = {
            "Dice of S, validation": {"mean": "dice/mean"},
            "D is right": {pool.replace("_", " "): f"discriminator/accuracy_{pool}" for pool in pools},
        }
        for key, title in _CHARTS[self._kind].items():
            if key not in self._left_out:
                found[title] = {source.replace("_", " "): f"{source}/{key}" for source in sources}
        found.update(_LOSSES)
        curves = {
            chart: {name: [row[tag] for row in rows] for name, tag in lines.items() if tag in rows[0]}
            for chart, lines in found.items()
        }
        return {chart: lines for chart, lines in curves.items() if lines}

    def _excesses(self, values):
        for key, limit in LIMITS.items():
            if key in self._left_out:
                continue
            limit = max([limit, *(values.get(f"{name}/{key}", 0) for name in self._random)])  # these are sane
            if (share := values.get(f"generator/{key}", 0)) > limit:
                yield f"{100 * share:.2g} % {_WORDS[key]} (sane: up to {100 * limit:.2g} %)"
        key = _LARGE[self._kind]
        largest = max(self._random, key=lambda name: values[f"{name}/{key}"])
        ours, theirs = values[f"generator/{key}"], values[f"{largest}/{key}"]
        if ours > TIMES * theirs:
            yield f"{key} is {ours:.2g}, {ours / theirs:.2g} times that of {largest}"

    def _describe(self, drawn):
        """Measures fields [K, N, H, W, *] of the shown slices."""
        images, labels = self._transform(np.asarray(drawn))
        values = (
            metrics.deformation_diagnostics(drawn, self._config.data.resolution)
            if self._kind == "deform"
            else metrics.intensity_diagnostics(drawn)
        )
        if self._kind == "deform":  # an intensity leaves every label in place
            before = np.broadcast_to(self._shown.label, labels.shape)
            values["lost_anatomy"] = metrics.lost_anatomy(before, labels)
        if self._unlabelled:
            values["histogram_distance"] = metrics.histogram_distance(images, self._grey_values)
            if self._kind == "intensity":
                values["spread"] = self._spread(images)
        return values

    def _mean_reading(self, drawn):
        """`_describe`, averaged over parts of `Z_DRAWS` draws: deviations and maxima depend on their number."""
        readings = [self._describe(part) for part in np.split(drawn, len(drawn) // Z_DRAWS)]
        return {key: float(np.mean([reading[key] for reading in readings])) for key in readings[0]}

    def _spread(self, images):
        """How much the grey values of images [K, N, H, W, C] vary over K, relative to the unlabelled slices.

        The median over the directions in which unlabelled slices differ, of which brightness is one.
        """
        flat = tf.constant(images.reshape(-1, *images.shape[2:]), tf.float32)
        seen = self._principal(flat).numpy()[:, -self._principal.directions :].reshape(*images.shape[:2], -1)
        return float(np.median(np.sqrt(seen.var(axis=0, ddof=1).mean(axis=0))))

    def _transform(self, drawn):
        """The shown slices after fields [K, N, H, W, *]: images and labels, each [K, N, H, W, C]."""
        image, label = (np.broadcast_to(part, (len(drawn), *part.shape)) for part in self._shown)
        flat = [part.reshape(-1, *part.shape[2:]) for part in (image, label, drawn)]
        made = Batch(transform_image(self._kind, flat[0], flat[2]), transform_label(self._kind, flat[1], flat[2]))
        return Batch(*(np.reshape(part, (len(drawn), -1, *part.shape[1:])) for part in made))

    def _random_fields(self):
        """Fields [K, N, H, W, *] of the random transforms, by name; histograms need unlabelled scans."""
        unlabelled = self._unlabelled if "histogram" in YARDSTICKS[self._kind] else []
        transforms = networks.augmenter(self._config, "even", unlabelled=unlabelled).transforms
        for name in YARDSTICKS[self._kind]:
            if name in transforms:
                draws = range(YARDSTICK_READINGS * Z_DRAWS)
                yield name, np.stack([self._random_field(transforms[name], name, k) for k in draws])

    def _random_field(self, transform, name, k):
        params = transform.sample(self._shown, pipeline.seed_at(self._config.seed, f"yardstick/{name}", k))
        if self._kind == "deform":
            return transform.deformation(params, self._shown.image.shape[1:3]).numpy()
        return (transform.apply(self._shown, params).image - self._shown.image).numpy()

    def _ask(self, generate, judge):
        """How often D is right, on generated slices and on the scans of each pool separately."""
        source, repeats = self._pools["labelled"], draws_of_a_slice(self._config.augment)
        source = np.tile(source[: len(source) // repeats], (repeats, 1, 1, 1))
        field = fields(generate, source, self._config, num_draws=1)[0]
        generated = transform_image(self._kind, tf.constant(source), field)
        right = {}
        for pool, images in self._pools.items():
            fake, real = judge(generated, tf.constant(images))
            right[pool] = float(np.mean(real > 0))
            right.setdefault("generated", float(np.mean(fake < 0)))
        return {f"discriminator/accuracy_{pool}": value for pool, value in right.items()}


_SIZE = {"deform": ("displacement_mean_px", "diversity_px"), "intensity": ("intensity_mean", "diversity")}
_TELLING = {
    "deform": ("displacement_p95_px", "folded", "diversity_px", "lost_anatomy"),
    "intensity": ("intensity_p95", "saturated", "spread", "histogram_distance"),
}
_LARGE = {"deform": "displacement_p95_px", "intensity": "intensity_p95"}


# Titles by key, in the page's order.
_CHARTS = {
    "deform": {
        "displacement_median_px": "displacement, median (px)",
        "displacement_p95_px": "displacement, 95th percentile (px)",
        "displacement_max_px": "displacement, maximum (px)",
        "folded": "share of pixels folded",
        "roughness": "roughness (px per px)",
        "diversity_px": "diversity over z (px)",
        "diversity_input_px": "diversity over images (px)",
        "lost_anatomy": "share of anatomy lost",
    },
    "intensity": {
        "intensity_median": "|dI|, median",
        "intensity_p95": "|dI|, 95th percentile",
        "intensity_max": "|dI|, maximum",
        "saturated": "share of pixels saturated",
        "diversity": "diversity over z",
        "diversity_input": "diversity over images",
        "histogram_distance": "distance to unlabelled histograms",
        "spread": "spread of grey values",
    },
}


_LOSSES = {
    "segmentation loss": {"L_S": "loss/segmentation"},
    "other losses": {"L_adv": "loss/adversarial", "L_big": "loss/big", "L_D": "loss/discriminator"},
    "norm of the gradient at the field": {
        "L_S": "gradient/segmentation",
        "L_adv": "gradient/adversarial",
        "L_big": "gradient/big",
    },
}


def _spread_out(slices, number):
    """`number` slices, evenly spread; some repeat if there are fewer."""
    return slices[np.linspace(0, len(slices) - 1, number).round().astype(int)]
