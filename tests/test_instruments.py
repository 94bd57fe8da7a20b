"""The readings of a generator; their verdicts are fault N5 in test_faults.py."""

import types

import numpy as np
import pytest
import tensorflow as tf

from tfaug import losses, pictures
from tfaug.configs import phantom
from tfaug.experiment import instruments, sources

SIZE = 32


def scan(case, seed):
    rng = np.random.default_rng(seed)
    label = np.zeros((3, SIZE, SIZE), np.uint8)
    label[:, 8:16, 8:16], label[:, 18:24, 8:20] = 1, 3
    return types.SimpleNamespace(case=case, image=rng.random((3, SIZE, SIZE, 1), np.float32) + seed, label=label)


def reading(name, generate, packs=(1, "slices"), form="quantiles", **arguments):
    config = phantom.get_config()
    config.data.image_size, config.model.intensity = SIZE, form
    config.augment.batch_size, (config.augment.pack, config.augment.pack_of) = 60, packs
    made = instruments.Instruments(name, [scan("a", 0)], [scan("b", 1)], [scan("c", 2)], sources.resolve(config))
    return made, made.measure(generate, **arguments)


def by_source(values):
    found = {}
    for tag, value in values.items():
        source, key = tag.split("/")
        found.setdefault(source, {})[key] = value
    return found


@pytest.mark.parametrize("name, random", [("deform", {"elastic"}), ("intensity", {"contrast_brightness", "histogram"})])
def test_beside_each_number_of_a_generator_stands_that_of_random_transforms(name, random):
    channels = 2 if name == "deform" else 1
    _, values = reading(name, lambda image, z: 0.1 * z[:, :1, None, None] * tf.ones([len(z), SIZE, SIZE, channels]))
    found = by_source(values)
    assert set(found) == {"generator", *random}
    for source in random:
        assert found[source].keys() == found["generator"].keys()
        assert all(np.isfinite(value) for value in found[source].values())
    assert ("lost_anatomy" in found["generator"]) == (name == "deform")


@pytest.mark.parametrize("name, random", [("deform", "elastic"), ("intensity", "contrast_brightness")])
def test_a_generator_that_is_a_random_transform_reads_as_that_transform(name, random):
    """Deviations and maxima grow with the number of draws."""
    channels = 2 if name == "deform" else 1
    made, _ = reading(name, lambda image, z: tf.zeros([len(z), SIZE, SIZE, channels]))
    drawn = iter(dict(made._random_fields())[random])
    found = [by_source(made.measure(lambda image, z: tf.constant(next(drawn)))) for _ in range(4)]
    for key, value in found[0][random].items():
        assert np.mean([one["generator"][key] for one in found]) == pytest.approx(value, rel=1e-5, abs=1e-7)
    assert next(drawn, None) is None


def test_histogram_matching_reaches_the_unlabelled_scans_and_a_shift_of_one_does():
    _, values = reading("intensity", lambda image, z: tf.ones_like(image))
    assert values["histogram/histogram_distance"] < 0.05 and values["generator/histogram_distance"] < 0.05
    _, values = reading("intensity", lambda image, z: tf.zeros_like(image))
    assert values["generator/histogram_distance"] == pytest.approx(1, abs=0.05)


def test_brightness_alone_is_no_spread_of_grey_values():
    rng = np.random.default_rng(0)
    brightness, contrast, gamma = (rng.uniform(*ends, size=(60, 1, 1, 1)) for ends in [(0, 0.3), (0.7, 1), (0.5, 2)])
    labelled, unlabelled, held_out = scan("a", 0), scan("b", 1), scan("c", 0)
    unlabelled.image = (brightness + contrast * rng.random((60, SIZE, SIZE, 1)) ** gamma).astype(np.float32)
    config = phantom.get_config()
    config.data.image_size = SIZE
    arguments = [[labelled], [unlabelled], [held_out], sources.resolve(config)]
    made = instruments.Instruments("intensity", *arguments)
    values = made.measure(lambda image, z: 0.25 * z[:, :1, None, None] * tf.ones_like(image))
    assert values["generator/diversity"] > values["histogram/diversity"]
    assert values["histogram/spread"] == pytest.approx(1, abs=0.2)
    assert values["generator/spread"] < 0.75 * values["histogram/spread"]


def test_moving_anatomy_out_of_the_picture_is_seen():
    _, values = reading("deform", lambda image, z: tf.fill([len(z), SIZE, SIZE, 2], 40.0))
    assert values["generator/lost_anatomy"] == 1 and values["elastic/lost_anatomy"] < 0.5


@pytest.mark.parametrize("name, random", [("deform", "elastic"), ("intensity", "contrast_brightness")])
def test_what_a_random_transform_does_is_sane(name, random):
    """Elastic fields may lose more than a tenth of a small structure; the histograms of other scans may be far."""
    channels = 2 if name == "deform" else 1
    made, values = reading(
        name, lambda image, z: z[:, :1, None, None] * tf.ones([len(z), SIZE, SIZE, channels]), form="free"
    )
    share = {"deform": "lost_anatomy", "intensity": "saturated"}[name]
    values |= {tag: 0.3 for tag in values if tag.endswith(f"/{share}")}
    values |= {f"generator/{tag.split('/')[1]}": value for tag, value in values.items() if tag.startswith(random)}
    if name == "intensity":
        values["generator/intensity_p95"] = values["histogram/intensity_p95"]
        assert values["generator/intensity_p95"] > 3 * values["contrast_brightness/intensity_p95"]
    assert made.verdict(values) == ("sane", [])
    word, (reason,) = made.verdict({**values, f"generator/{share}": 0.4})
    assert word == "run away" and "40 %" in reason and "(sane: up to 30 %)" in reason


@pytest.mark.parametrize(
    "name, changes, word",
    [
        ("intensity", {}, "sane"),
        ("intensity", {"intensity_mean": 0.029}, "next to nothing"),
        ("intensity", {"intensity_mean": 0.031}, "sane"),
        ("intensity", {"diversity": 0.0011}, "collapsed"),
        ("intensity", {"diversity": 0.0013}, "sane"),
        ("intensity", {"intensity_p95": 2.9}, "sane"),
        ("intensity", {"intensity_p95": 3.1}, "run away"),
        ("intensity", {"saturated": 0.009}, "sane"),
        ("intensity", {"saturated": 0.011}, "run away"),
        ("deform", {"displacement_mean_px": 0.09}, "next to nothing"),
        ("deform", {"displacement_mean_px": 0.11}, "sane"),
        ("deform", {"folded": 0.009}, "sane"),
        ("deform", {"folded": 0.011}, "run away"),
        ("deform", {"lost_anatomy": 0.09}, "sane"),
        ("deform", {"lost_anatomy": 0.11}, "run away"),
    ],
)
def test_a_verdict_has_limits(name, changes, word):
    channels = 2 if name == "deform" else 1
    made, values = reading(name, lambda image, z: tf.zeros([len(z), SIZE, SIZE, channels]), form="free")
    usual = {"intensity_mean": 0.12, "diversity": 0.1, "displacement_mean_px": 2.0, "diversity_px": 1.0}
    values = {
        tag: 1.0 if key.endswith(("_p95", "_p95_px")) else usual.get(key, 0.0)
        for tag, key in ((tag, tag.split("/")[1]) for tag in values)
    }
    values.update({f"generator/{key}": value for key, value in changes.items()})
    assert made.verdict(values)[0] == word


@pytest.mark.parametrize("form", ["free", "curve", "increasing", "quantiles"])
def test_the_limit_of_tanh_is_told_of_the_forms_that_have_it(form):
    made, values = reading("intensity", lambda image, z: z[:, :1, None, None] * tf.ones_like(image), form=form)
    assert values["generator/saturated"] > 0.1  # which stays a column of diagnostics.csv
    values["histogram/saturated"] = 0.0
    told = any("at the limit of tanh" in reason for reason in made.verdict(values)[1])
    shown = "share of pixels saturated" in made.charts([{"step": 10, **values}])
    in_short = "share of pixels saturated" in made.in_short(values)
    assert told == shown == in_short == (form in ("free", "curve"))


def test_the_discriminator_is_asked_about_each_pool_apart():
    """This one has learned the unlabelled scan, whose values begin at 1 and end at 2, by heart."""

    def judge(image, real):
        inside = [tf.reduce_mean(images, [1, 2, 3]) - 1 for images in (image, real)]
        return [0.5 - tf.abs(values - 0.5) for values in inside]

    _, values = reading("intensity", lambda image, z: tf.zeros_like(image), judge=judge)
    assert by_source(values)["discriminator"] == pytest.approx(
        {"accuracy_generated": 1, "accuracy_labelled": 0, "accuracy_unlabelled": 1, "accuracy_held_out": 0}
    )


def test_the_discriminator_is_asked_about_packs_as_it_was_trained_on_them():
    seen = []

    def judge(image, real):
        seen.append(image.numpy())
        return tf.zeros(2), tf.zeros(2)

    reading("intensity", lambda image, z: tf.zeros_like(image), judge=judge, packs=(2, "draws"))
    first, second = np.split(seen[0], 2)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    "pack, of, judged", [(5, "slices", 12), (5, "draws", 10), (15, "slices", 15), (15, "draws", 15)]
)
def test_the_discriminator_is_asked_about_twelve_slices_or_as_many_as_make_a_pack(pack, of, judged):
    def judge(image, real):
        assert len(image) == judged and len(real) == max(12, pack)
        return [tf.reshape(losses.packed(images, pack)[:, 0, 0, 0], [-1, 1]) - 0.5 for images in (image, real)]

    _, values = reading("intensity", lambda image, z: tf.zeros_like(image), judge=judge, packs=(pack, of))
    accuracies = by_source(values)["discriminator"]
    assert len(accuracies) == 4 and np.isfinite([*accuracies.values()]).all()


def test_a_page_shows_every_number_over_the_steps():
    made, values = reading("deform", lambda image, z: z[:, :1, None, None] * tf.ones([len(z), SIZE, SIZE, 2]))
    rows = [{"step": step, "dice/mean": 0.5, **values} for step in (10, 20)]
    charts = made.charts(rows)
    assert charts["share of pixels folded"]["generator"] == [0, 0] and "D is right" not in charts
    assert "segmentation loss" not in charts
    last = {"loss/segmentation": 0.1, "loss/adversarial": -1.0, "gradient/segmentation": 0.2, "gradient/big": 0.0}
    charts = made.charts([{**row, **last} for row in rows])
    assert charts["segmentation loss"] == {"L_S": [0.1, 0.1]} and charts["other losses"] == {"L_adv": [-1.0, -1.0]}
    assert charts["norm of the gradient at the field"] == {"L_S": [0.2, 0.2], "L_big": [0.0, 0.0]}
    assert all(len(curve) == 2 for curves in charts.values() for curve in curves.values())
    page = pictures.curves_page("run: sane", np.zeros((100, 600, 3), np.uint8), [10, 20], charts)
    assert page.shape[1] == 600 and page.shape[0] > 100 and page.dtype == np.uint8
    assert "displacement, 95th percentile (px)" in made.in_short(values)


def test_a_page_has_no_chart_of_what_was_not_measured():
    config = phantom.get_config()
    config.data.image_size = SIZE
    made = instruments.Instruments("intensity", [scan("a", 0)], [], [], sources.resolve(config))  # no unlabelled scans
    charts = made.charts([{"step": 10, "dice/mean": 0.5, **made.measure(lambda image, z: tf.zeros_like(image))}])
    assert "spread of grey values" not in charts and "diversity over z" in charts
    assert pictures.curves_page("run: sane", np.zeros((100, 600, 3), np.uint8), [10], charts).shape[1] == 600


def test_a_pages_title_is_broken_where_it_would_be_cut():
    panel, curves = np.full((100, 600, 3), 255, np.uint8), {"a": {"b": [1, 2]}}
    short, long = (pictures.curves_page(title, panel, [1, 2], curves) for title in ("sane", "run away, " * 20))
    assert len(long) > len(short) and (long[:100, -10:] == 255).all()
