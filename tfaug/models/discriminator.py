"""The discriminator D_C, which tells generated images from scans (paper, section 3.3)."""

from __future__ import annotations

from tfaug.compat import keras
from tfaug.models.blocks import conv, dense, leaky_relu


def discriminator(
    image_size: int, channels: int = 1, filters: int = 16, seed: int = 0, discriminator_norm: bool = True
) -> keras.Model:
    """Builds D.

    The paper gives it two outputs; one logit is the same function, as a softmax over two.

    Args:
      image_size: side of the square image.
      channels: of its input: 1 for images; more where label maps are judged as well.
      filters: channels after the first convolution.
      seed: of the initial weights.
      discriminator_norm: whether batch normalisation follows the convolutions (the paper's).

    Returns:
      A model from [N, H, W, channels] to [N, 1] float32 logits, positive for "a scan". Its batch statistics are
      shared by all that it is given in one call: call it once on [generated; scans].
    """
    image = keras.Input((image_size, image_size, channels), name="image")
    x = image
    for index, width in enumerate((1, 2, 4, 8, 8), start=1):
        name, norm = f"disc_c{index}", discriminator_norm
        x = conv(x, width * filters, 5, name, seed, stride=2, activation=leaky_relu, norm=norm)
    x = keras.layers.Flatten(name="flatten")(x)
    x = dense(x, 8 * filters, "fcn_c1", seed, activation=leaky_relu)
    x = dense(x, 8 * filters, "fcn_c2", seed, activation=leaky_relu)
    x = dense(x, 1, "fcn_c3", seed)
    logit = keras.layers.Activation("linear", dtype="float32", name="logit")(x)
    return keras.Model(image, logit, name="discriminator")
