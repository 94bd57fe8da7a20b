import numpy as np
import pytest
import tensorflow as tf

from tfaug.compat import keras
from tfaug.metrics import jacobian_determinant
from tfaug.models.discriminator import (
    BINS,
    RANGE,
    GreyValues,
    Quantiles,
    SoftHistogram,
    discriminator,
    histogram_discriminator,
    quantile_discriminator,
)
from tfaug.models.generator import (
    DrawnQuantiles,
    Increasing,
    Integrate,
    SmoothField,
    ToneCurve,
    control_stride,
    generator,
)
from tfaug.warp import warp


def smooth(displacements, stride=8, limit_px=0.0):
    return SmoothField(stride, limit_px)(tf.constant(displacements, tf.float32)).numpy()


def field(seed=0, size=64, stride=16, scale=6.0):
    control = np.random.default_rng(seed).normal(size=(1, size // stride, size // stride, 2))
    return smooth(scale * control, stride)


def test_control_points_give_a_smooth_field_of_the_whole_image():
    constant = smooth(np.broadcast_to([2.0, -3.0], (2, 4, 4, 2)))
    assert constant.shape == (2, 32, 32, 2)
    np.testing.assert_allclose(constant, np.broadcast_to([2.0, -3.0], constant.shape), atol=1e-5)
    one = np.zeros((1, 4, 4, 2))
    one[0, 1, 2, 0] = 1
    moved = smooth(one)
    assert np.unravel_index(moved[0, ..., 0].argmax(), (32, 32)) in [(11, 19), (11, 20), (12, 19), (12, 20)]
    assert not moved[..., 1].any()
    assert np.abs(np.diff(moved, axis=1)).max() < 0.25  # free displacements would jump by 1


def test_the_limit_is_soft_and_holds_for_the_length_of_a_displacement():
    large, small = (np.broadcast_to(np.array([3.0, -4.0]) * scale, (1, 4, 4, 2)) for scale in (1e3, 1e-2))
    np.testing.assert_allclose(np.linalg.norm(smooth(large, limit_px=2.5), axis=-1), 2.5, rtol=1e-3)
    np.testing.assert_allclose(smooth(small, limit_px=2.5)[0, 0, 0], [0.03, -0.04], rtol=1e-3)


def test_with_a_fixed_border_the_edges_of_the_image_all_but_stay_and_the_middle_moves_as_without():
    """Bicubic interpolation overshoots at the edge by an eighth of what the next control points move."""
    displacements = np.ones((1, 8, 8, 2), np.float32)
    field = SmoothField(8, 0.0, fixed_border=True)(tf.constant(displacements)).numpy()
    for edge in (field[:, 0], field[:, -1], field[:, :, 0], field[:, :, -1]):
        assert np.abs(edge).max() < 0.13
    np.testing.assert_allclose(field[:, 28:36, 28:36], 1, atol=1e-6)


def test_a_velocity_is_integrated_for_unit_time():
    """Twice the time is the field after the field; and the way back undoes the way there."""
    v = tf.constant(field(scale=2.0))
    whole, half, back = (Integrate(7)(part) for part in (v, v / 2, -v))
    inside = (slice(None), slice(16, -16), slice(16, -16))
    np.testing.assert_allclose(
        whole[inside], (half + warp(half, half))[inside], atol=0.01
    )  # pixels; interpolation is linear
    np.testing.assert_allclose((whole + warp(back, whole))[inside], 0, atol=0.05)
    np.testing.assert_allclose(Integrate(5)(tf.ones([1, 8, 8, 2])), np.ones((1, 8, 8, 2)), atol=1e-6)


def test_a_velocity_field_does_not_fold_where_its_displacements_would():
    v = field(scale=14.0)
    assert (jacobian_determinant(v) <= 0).mean() > 0.02
    assert (jacobian_determinant(Integrate(7)(tf.constant(v)).numpy()) <= 0).mean() < 0.002


def test_a_tone_curve_adds_what_the_grey_value_says():
    rng = np.random.default_rng(0)
    image, curve = rng.normal(0.5, 0.6, (2, 8, 8, 2)), rng.uniform(-1, 1, (2, 2, 5))
    expected = [
        [np.interp(image[n, ..., c], np.linspace(0, 1, 5), curve[n, c]) for c in range(2)] for n in range(2)
    ]  # constant beyond the ends, as many pixels are
    found = ToneCurve()([tf.constant(image, tf.float32), tf.constant(curve, tf.float32)])
    np.testing.assert_allclose(found, np.moveaxis(expected, 1, -1), atol=1e-5)


def test_an_increasing_curve_keeps_brighter_what_is_brighter():
    numbers = np.random.default_rng(0).normal(0, 5, (3, 2, 8)).astype(np.float32)
    curve = Increasing()(tf.constant(numbers)).numpy()
    slopes = np.diff(curve + np.linspace(0, 1, 8), axis=-1) * 7
    assert slopes.min() > 0.2 and slopes.max() < 4.5 and np.abs(curve[..., 0]).max() <= 0.5
    assert slopes.max() > 3 and slopes.min() < 0.5
    np.testing.assert_allclose(Increasing()(tf.zeros([1, 1, 8])), 0, atol=1e-6)


AVERAGES = [
    ("intensity", {"intensity": "quantiles", "curve_knots": 16}, "whole_slice"),
    ("deform", {"deformation": "coarse", "control_px": 32.0}, "control_points"),
]


@pytest.mark.parametrize("kind, form, layer", AVERAGES, ids=[layer for *_, layer in AVERAGES])
@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_an_average_is_of_all_pixels_in_sixteen_bits_too(policy, size, kind, form, layer):
    rng, found, before = np.random.default_rng(0), [], keras.mixed_precision.global_policy()
    inputs = [rng.uniform(0, 1, (2, size, size, 1)).astype(np.float32), rng.normal(size=(2, 100)).astype(np.float32)]
    try:
        for name in ("float32", policy):
            keras.mixed_precision.set_global_policy(name)
            model = generator(kind, size, filters=2, seed=1, **form)
            inner = keras.Model(model.inputs, model.get_layer(layer).output)
            found.append(tf.cast(inner(inputs, training=True), tf.float32).numpy())
    finally:
        keras.mixed_precision.set_global_policy(before)
    assert np.linalg.norm(found[1] - found[0]) < 0.02 * np.linalg.norm(found[0])


FORMS = [
    ("deform", {"deformation": "coarse", "control_px": 9.0, "limit_px": 4.0, "head_scale": 5.0}),
    (
        "deform",
        {"deformation": "velocity", "control_px": 9.0, "limit_px": 4.0, "head_scale": 5.0, "fixed_border": True},
    ),
    ("intensity", {"intensity": "curve"}),
    ("intensity", {"intensity": "increasing"}),
    ("intensity", {"intensity": "quantiles", "curve_knots": 16}),
]


@pytest.mark.parametrize("kind, form", FORMS, ids=["coarse", "velocity", "curve", "increasing", "quantiles"])
def test_every_form_is_a_generator_whose_field_depends_on_image_and_z(kind, form):
    model = generator(kind, 64, 2, filters=2, **form)
    rng = np.random.default_rng(0)
    images, z = rng.random((2, 64, 64, 2), np.float32), rng.normal(size=(2, 100)).astype(np.float32) * 20
    made = model([images, z]).numpy()
    assert made.shape == (2, 64, 64, 2) and made.dtype == np.float32
    assert np.abs(model([images[::-1], z]) - made).max() > 1e-4 and np.abs(model([images, z[::-1]]) - made).max() > 1e-4
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model([images, z], training=True) ** 2)
    assert all(gradient is not None for gradient in tape.gradient(total, model.trainable_variables))


@pytest.mark.parametrize("control_px", [1, 8, 9.3, 52, 55, 1000, "auto"])
def test_control_points_fit_every_image_and_are_as_far_apart_as_asked_where_that_fits(control_px):
    for side in range(32, 609, 32):
        asked = side / 8 if control_px == "auto" else control_px
        stride, wanted = control_stride(side, asked), min(2 ** round(np.log2(asked)), side // 4)
        assert side % stride == 0 and side // stride >= 4
        assert stride == wanted or side % wanted and stride > asked / 3


@pytest.mark.parametrize("form", ["coarse", "velocity"])
def test_a_field_of_control_points_has_the_size_of_the_image(form):
    model = generator("deform", 416, filters=1, deformation=form, control_px=52)
    assert model.output_shape == (None, 416, 416, 2)


@pytest.mark.parametrize("build", [histogram_discriminator, quantile_discriminator])
def test_a_discriminator_of_grey_values_knows_no_anatomy(build):
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 1, (2, 32, 32, 2)).astype(np.float32)
    d = build(32, 2, filters=2)
    shuffled = rng.permuted(images.reshape(2, -1, 2), axis=1).reshape(images.shape)
    np.testing.assert_allclose(d(shuffled), d(images), atol=1e-5)
    assert np.abs(d(images**2) - d(images)).min() > 1e-2


def test_histograms_and_quantiles_are_those_of_the_image():
    images = np.random.default_rng(0).uniform(0, 1, (2, 32, 32, 2)).astype(np.float32)
    counts = SoftHistogram()(tf.constant(images)).numpy()
    assert counts.shape == (2, 2, BINS) and counts.mean(-1) == pytest.approx(np.ones((2, 2)), abs=1e-5)
    whole = np.full((1, 4, 4, 1), RANGE[0] + 3 * (RANGE[1] - RANGE[0]) / (BINS - 1), np.float32)
    assert SoftHistogram()(tf.constant(whole)).numpy()[0, 0, 3] == pytest.approx(BINS, rel=1e-4)
    parts = np.sort(images.reshape(2, 1024, 2), axis=1).reshape(2, BINS, 32, 2).mean(axis=2)
    np.testing.assert_allclose(Quantiles()(tf.constant(images)), parts.swapaxes(1, 2), rtol=1e-5)


def test_a_discriminator_may_do_without_batch_statistics():
    images = np.random.default_rng(0).random((4, 64, 64, 1), np.float32)
    d = discriminator(64, filters=2, discriminator_norm=False)
    together, alone = d(images, training=True), d(images[:1], training=True)
    np.testing.assert_allclose(together[:1], alone, rtol=1e-4)


def test_grey_values_spread_alike_in_all_directions_in_which_scans_differ():
    """Brightness, which differs most, weighs no more than contrast."""
    rng = np.random.default_rng(0)
    texture, brightness, contrast = rng.random((32, 32, 1)), 0.5 * rng.normal(size=400), 1 + 0.1 * rng.normal(size=400)
    scans = (brightness[:, None, None, None] + contrast[:, None, None, None] * texture).astype(np.float32)
    spread = np.linalg.svd(np.cov(GreyValues(scans)(tf.constant(scans)).numpy().T), compute_uv=False)
    assert spread[:2] == pytest.approx([1, 1], rel=0.05) and spread[2] < 0.01
    assert np.isfinite(GreyValues(scans[:1])(tf.constant(scans))).all()


def test_drawn_quantiles_become_those_of_the_slice():
    """As histogram matching does; black, of which there is much, stays."""
    rng = np.random.default_rng(0)
    image = np.maximum(rng.normal(0.3, 0.3, size=(2, 32, 32, 1)), 0).astype(np.float32)
    numbers = np.zeros([2, 1, 17], np.float32)  # a share, and 16 steps
    numbers[..., 0] = 100
    made = image + DrawnQuantiles()([tf.constant(image), tf.constant(numbers)]).numpy()
    expected = np.log(2) * np.linspace(0, 1, 17)
    black = (image[0] == 0).mean()
    levels = np.linspace(0, 1, 17)[np.linspace(0, 1, 17) > black + 0.07]
    np.testing.assert_allclose(np.quantile(made[0], levels), expected[-len(levels) :], atol=0.01)
    assert (made[0][image[0] == 0] == 0).all()
    numbers[..., 0] = -100
    np.testing.assert_allclose(DrawnQuantiles()([tf.constant(image), tf.constant(numbers)]), 0, atol=1e-6)
