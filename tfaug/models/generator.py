"""The conditional generator G_C: G_V of deformation fields, G_I of additive intensity fields (paper, section 3.3)."""

from __future__ import annotations

import functools

from tfaug.compat import keras
from tfaug.models.blocks import Upsample, conv, dense
from tfaug.types import Z_DIM

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
) -> keras.Model:
    """Builds G_V or G_I, which differ in their head alone.

    Args:
      kind: "deform" or "intensity".
      image_size: side of the square image, a multiple of 32.
      channels: of the image.
      filters: channels at full resolution.
      half_pixel_centers: see `blocks.Upsample`.
      norm_momentum: of the batch norms' moving statistics.
      seed: of the initial weights.
      head_scale: of the last layer's initial weights, and with it of the fields that learning starts from.

    Returns:
      A model from (image [N, H, W, channels], z [N, 100]) to its field, float32: "deform" gives v [N, H, W, 2] in
      pixels (row, column), one for all channels; "intensity" gives dI [N, H, W, channels] in (-1, 1), in units of
      the normalised image.
    """
    block = functools.partial(conv, seed=seed, norm_momentum=norm_momentum)
    image = keras.Input((image_size, image_size, channels), name="image")
    z = keras.Input((Z_DIM,), name="z")

    side = image_size // 32
    noise = dense(z, side * side * 8 * filters, "gen_fc", seed, activation="relu")
    noise = keras.layers.Reshape((side, side, 8 * filters), name="gen_reshape")(noise)
    for name, width in (("gen_c5", 8), ("gen_c4", 4), ("gen_c3", 2), ("gen_c2", 1), ("gen_c1", 1)):
        last = name == "gen_c1"
        noise = Upsample(half_pixel_centers, name=f"{name}_up")(noise)
        noise = block(noise, width * filters, 2, name, activation=None if last else "relu", norm=not last)

    x = block(image, filters, 3, "conv_1a")
    x = block(x, filters, 3, "conv_1b")

    x = keras.layers.Concatenate(name="concat")([noise, x])
    x = block(x, filters, 3, "conv_1c")
    x = block(x, filters, 3, "conv_1d")
    field = _HEADS[kind](x, channels, functools.partial(block, scale=head_scale))
    return keras.Model([image, z], field, name=f"generator_{kind}")


def _deformation_head(x, channels, block):
    del channels
    v = block(x, 2, 3, "conv_1e", activation=None, norm=False)
    return keras.layers.Activation("linear", dtype="float32", name="deformation")(v)


def _intensity_head(x, channels, block):
    mask = block(x, channels, 1, "int_c1", activation=None, norm=False, bias=False)
    return keras.layers.Activation("tanh", dtype="float32", name="intensity_field")(mask)


_HEADS = {"deform": _deformation_head, "intensity": _intensity_head}
