"""The conditional generator G_C: G_V of deformation fields, G_I of additive intensity fields (paper, section 3.3)."""

from __future__ import annotations

import functools
import math

import tensorflow as tf

from tfaug.compat import keras
from tfaug.models.blocks import Upsample, conv, dense
from tfaug.types import Z_DIM
from tfaug.warp import warp

KINDS = ("deform", "intensity")


def generator(
    kind: str,
    image_size: int,
    channels: int = 1,
    filters: int = 16,
    half_pixel_centers: bool = True,
    norm_momentum: float = 0.99,
    seed: int = 0,
    head_scale: float = 1.0,
    deformation: str = "free",
    control_px: float = 8.0,
    limit_px: float = 0.0,
    fixed_border: bool = False,
    intensity: str = "free",
    curve_knots: int = 8,
) -> keras.Model:
    """Builds G_V or G_I, which differ only in their heads.

    Args:
      kind: "deform" or "intensity".
      image_size: side of the square image, a multiple of 32.
      channels: channels of the image.
      filters: channels at full resolution.
      half_pixel_centers: see `blocks.Upsample`.
      norm_momentum: momentum of batch normalisation's moving statistics.
      seed: seed of the initial weights.
      head_scale: scale of the last layer's initial weights, and so of the initial fields. The forms "curve",
        "increasing" and "quantiles" do not use it: they start as `blocks.dense` does, near no change.
      deformation: the form of v. "free": one displacement per pixel (the paper's). "coarse": displacements of control
        points, upsampled bicubically. "velocity": a stationary velocity field on the control points, integrated by
        scaling and squaring (Arsigny et al., MICCAI 2006), which does not fold as long as it is smooth.
      control_px: distance between control points; rounded as `control_stride` says.
      limit_px: soft limit L on the displacements, or on the velocity: v L / sqrt(L^2 + |v|^2); 0: no limit. Not used
        by "free".
      fixed_border: whether the outermost control points are fixed: then hardly anything moves into or out of the
        image, and no repeated edge gives a deformed image away to D. Not used by "free".
      intensity: the form of dI. "free": one number per pixel (the paper's). "curve": a function of the grey value, one
        for each slice and channel, which can change contrasts, but moves and invents nothing; see `ToneCurve`.
        "increasing": the same, but grey values keep their order, see `Increasing`. "quantiles": the same, drawn as the
        slice's new quantiles, see `DrawnQuantiles`.
      curve_knots: number of knots, between which these curves are linear: evenly spaced over the normalised range, or
        at evenly spaced quantiles.

    Returns:
      A model from (image [N, H, W, channels], z [N, 100]) to its field, float32. "deform" gives v [N, H, W, 2] in
      pixels (row, column), one for all channels; "intensity" gives dI [N, H, W, channels] in units of the normalised
      image: in (-1, 1) if its form is "free" or "curve", in (-1.3, 4) if "increasing"; "quantiles" has no limit.
    """
    block = functools.partial(conv, seed=seed, norm_momentum=norm_momentum)
    image = keras.Input((image_size, image_size, channels), name="image")
    z = keras.Input((Z_DIM,), name="z")

    side = image_size // 32
    drawn = dense(z, side * side * 8 * filters, "gen_fc", seed, activation="relu")
    noise = keras.layers.Reshape((side, side, 8 * filters), name="gen_reshape")(drawn)
    for name, width in (("gen_c5", 8), ("gen_c4", 4), ("gen_c3", 2), ("gen_c2", 1), ("gen_c1", 1)):
        last = name == "gen_c1"
        noise = Upsample(half_pixel_centers, name=f"{name}_up")(noise)
        noise = block(noise, width * filters, 2, name, activation=None if last else "relu", norm=not last)

    x = block(image, filters, 3, "conv_1a")
    x = block(x, filters, 3, "conv_1b")

    x = keras.layers.Concatenate(name="concat")([noise, x])
    x = block(x, filters, 3, "conv_1c")
    x = block(x, filters, 3, "conv_1d")
    if kind == "deform" and deformation != "free":
        smooth = (control_px, limit_px, fixed_border)
        field = _smooth_head(x, deformation, *smooth, functools.partial(block, scale=head_scale))
    elif kind == "intensity" and intensity != "free":
        field = _curve_head(x, drawn, image, intensity, curve_knots, seed)
    else:
        field = _HEADS[kind](x, channels, functools.partial(block, scale=head_scale))
    return keras.Model([image, z], field, name=f"generator_{kind}")


def _deformation_head(x, channels, block):
    del channels
    v = block(x, 2, 3, "conv_1e", activation=None, norm=False, dtype="float32")
    return keras.layers.Activation("linear", dtype="float32", name="deformation")(v)


def control_stride(side: int, control_px: float) -> int:
    """The number of pixels between control points.

    Args:
      side: side of the image, a multiple of 32.
      control_px: the requested number.

    Returns:
      `control_px` rounded to a power of 2, at most a fourth of the side; if it does not divide the side, the largest
      power of 2 that does.
    """
    return math.gcd(side, min(2 ** max(0, round(math.log2(control_px))), side // 4))


def _smooth_head(x, form, control_px, limit_px, fixed_border, block):
    stride = control_stride(x.shape[1], control_px)
    # In float32, as in `_curve_head`: TensorFlow's 16-bit sums lose small summands.
    x = keras.layers.AveragePooling2D(stride, dtype="float32", name="control_points")(x)
    v = block(x, 2, 3, "conv_1e", activation=None, norm=False, dtype="float32")
    v = keras.layers.Activation("linear", dtype="float32", name="control_displacements")(v)
    v = SmoothField(stride, limit_px, fixed_border, dtype="float32", name="smooth_field")(v)
    return Integrate(dtype="float32", name="deformation")(v) if form == "velocity" else v


def _intensity_head(x, channels, block):
    mask = block(x, channels, 1, "int_c1", activation=None, norm=False, bias=False)
    return keras.layers.Activation("tanh", dtype="float32", name="intensity_field")(mask)


def _curve_head(x, drawn, image, form, knots, seed):
    x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="whole_slice")(x)
    x = keras.layers.Concatenate(name="slice_and_draw")([x, drawn])
    curve = dense(x, image.shape[-1] * knots, "curve_fc", seed)
    curve = keras.layers.Reshape((image.shape[-1], knots), name="curve_reshape")(curve)
    if form == "quantiles":
        return DrawnQuantiles(dtype="float32", name="intensity_field")([image, curve])
    if form == "increasing":
        curve = Increasing(dtype="float32", name="curve")(curve)
    else:
        curve = keras.layers.Activation("tanh", dtype="float32", name="curve")(curve)
    return ToneCurve(dtype="float32", name="intensity_field")([image, curve])


class SmoothField(keras.layers.Layer):
    """Turns displacements of control points, softly limited, into a field on all pixels.

    Args:
      stride: pixels between control points.
      limit_px: see `generator`.
      fixed_border: see `generator`.
    """

    def __init__(self, stride: int, limit_px: float, fixed_border: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.stride, self.limit_px, self.fixed_border = stride, limit_px, fixed_border

    def call(self, v):
        """Maps [N, H / stride, W / stride, 2] to [N, H, W, 2], both in pixels."""
        if self.limit_px:
            v = v * (self.limit_px / tf.sqrt(self.limit_px**2 + tf.reduce_sum(v**2, axis=-1, keepdims=True)))
        if self.fixed_border:
            v = tf.pad(v[:, 1:-1, 1:-1], [[0, 0], [1, 1], [1, 1], [0, 0]])
        return tf.image.resize(v, [side * self.stride for side in v.shape[1:3]], method="bicubic")

    def get_config(self):
        """The layer's config, for Keras."""
        return {
            **super().get_config(),
            "stride": self.stride,
            "limit_px": self.limit_px,
            "fixed_border": self.fixed_border,
        }


class Integrate(keras.layers.Layer):
    """Turns a stationary velocity field into the displacements after unit time, by scaling and squaring.

    Args:
      squarings: number of squarings; the first step is 1 / 2^squarings of the velocity.
    """

    def __init__(self, squarings: int = 5, **kwargs):
        super().__init__(**kwargs)
        self.squarings = squarings

    def call(self, velocity):
        """Maps [N, H, W, 2] to [N, H, W, 2], both in pixels."""
        v = velocity / 2**self.squarings
        for _ in range(self.squarings):
            v += warp(v, v)  # `warp` samples at x - v(x), so twice v moves x by v(x) + v(x - v(x))
        return v

    def get_config(self):
        """The layer's config, for Keras."""
        return {**super().get_config(), "squarings": self.squarings}


class ToneCurve(keras.layers.Layer):
    """The change of each grey value: a curve through knots, linear between them and constant beyond the last."""

    def call(self, inputs):
        """Maps (image [N, H, W, C], values at knots from 0 to 1 of the normalised image [N, C, K]) to [N, H, W, C]."""
        image, curve = inputs
        last = curve.shape[-1] - 1
        position = last * tf.clip_by_value(tf.cast(image, curve.dtype), 0, 1)[..., tf.newaxis]
        weights = tf.nn.relu(1 - tf.abs(position - tf.range(last + 1, dtype=curve.dtype)))
        return tf.reduce_sum(weights * curve[:, tf.newaxis, tf.newaxis], axis=-1)


class Increasing(keras.layers.Layer):
    """Turns numbers into a tone curve that keeps the order of grey values; zeros into one that changes nothing."""

    def call(self, numbers):
        """Maps [N, C, K] to the changes at K knots from 0 to 1: black moves by up to 0.5, slopes are 0.2 to 4.5."""
        bounded, last = tf.tanh(numbers), numbers.shape[-1] - 1
        slopes = tf.exp(1.5 * bounded[..., 1:])
        grown = tf.pad(tf.cumsum((slopes - 1) / last, axis=-1), [[0, 0], [0, 0], [1, 0]])
        return 0.5 * bounded[..., :1] + grown


class DrawnQuantiles(keras.layers.Layer):
    """The change of each grey value that gives a slice drawn quantiles, as in histogram matching.

    The new quantiles lie between the slice's own, near which learning starts, and an increasing curve.
    """

    def call(self, inputs):
        """Maps (image [N, H, W, C], numbers [N, C, K]) to [N, H, W, C]; the darkest value is unchanged."""
        image, numbers = inputs
        image = tf.cast(image, numbers.dtype)
        _, height, width, channels = image.shape
        share, steps = numbers[..., :1], numbers[..., 1:]
        count = steps.shape[-1]
        ordered = tf.sort(tf.reshape(tf.transpose(image, [0, 3, 1, 2]), [-1, channels, height * width]), axis=-1)
        own = tf.stack([ordered[..., k * (height * width - 1) // count] for k in range(count + 1)], axis=-1)
        grown = tf.pad(tf.cumsum(tf.nn.softplus(steps), axis=-1), [[0, 0], [0, 0], [1, 0]]) / count
        drawn = own + tf.sigmoid(share - 4) * (own[..., :1] + grown - own)
        # Between two quantiles, grey values are mapped linearly.
        widths = tf.maximum(own[..., 1:] - own[..., :-1], 1e-6)[:, tf.newaxis, tf.newaxis]
        passed = tf.clip_by_value((image[..., tf.newaxis] - own[:, tf.newaxis, tf.newaxis, :, :-1]) / widths, 0, 1)
        gained = (drawn[..., 1:] - drawn[..., :-1])[:, tf.newaxis, tf.newaxis]
        return tf.reduce_sum(passed * gained, axis=-1) + drawn[:, tf.newaxis, tf.newaxis, :, 0] - image


_HEADS = {"deform": _deformation_head, "intensity": _intensity_head}
