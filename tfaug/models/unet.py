"""The segmentation network S: a U-Net (paper, section 3.3)."""

from __future__ import annotations

import functools

from tfaug.compat import keras
from tfaug.models.blocks import Upsample, conv

DEPTH = 5


def unet(
    image_size: int,
    num_classes: int,
    channels: int = 1,
    filters: int = 16,
    half_pixel_centers: bool = True,
    norm_momentum: float = 0.99,
    seed: int = 0,
) -> keras.Model:
    """Builds S.

    Args:
      image_size: side of the square image, a multiple of 16.
      num_classes: number of structures, plus one for the background.
      channels: channels of the image.
      filters: channels at full resolution; they double at each of the four poolings.
      half_pixel_centers: see `blocks.Upsample`.
      norm_momentum: momentum of batch normalisation's moving statistics.
      seed: seed of the initial weights.

    Returns:
      A model from [N, H, W, channels] images to [N, H, W, num_classes] float32 logits.
    """
    block = functools.partial(conv, seed=seed, norm_momentum=norm_momentum)
    image = keras.Input((image_size, image_size, channels), name="image")

    x, encoded = image, {}
    for level in range(1, DEPTH + 1):
        width = filters * 2 ** (level - 1)
        x = block(x, width, 3, f"enc_c{level}_a")
        x = block(x, width, 3, f"enc_c{level}_b")
        if level < DEPTH:
            encoded[level] = x
            x = keras.layers.MaxPool2D(name=f"enc_pool{level}")(x)

    for level in range(DEPTH - 1, 0, -1):
        width = filters * 2 ** (level - 1)
        x = Upsample(half_pixel_centers, name=f"dec_up{level}")(x)
        x = block(x, width, 2, f"dec_dc{level + 1}")
        x = keras.layers.Concatenate(name=f"dec_cat{level}")([x, encoded[level]])
        x = block(x, width, 3, f"dec_c{level}_a")
        if level > 1:
            x = block(x, width, 3, f"dec_c{level}_b")

    for name in ("seg_c1_a", "seg_c1_b", "seg_c1_c"):
        x = block(x, filters, 3, name)
    x = block(x, num_classes, 3, "seg_fin_layer", activation=None, norm=False)
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    return keras.Model(image, logits, name="segmenter")
