"""The networks by name: segmenters, conditional generators, discriminators.

A config names one of these, or a user-defined function as "my_module:function". The function is called with keyword
arguments and returns a functional Keras model, `keras.Model(inputs, outputs)`:

| role | arguments | input | output, float32 |
| --- | --- | --- | --- |
| segmenter | image_size, num_classes, channels, seed | image | logits [N, H, W, num_classes] |
| generator | kind, image_size, channels, seed | [image, z] | field: v [N, H, W, 2] or dI [N, H, W, channels] |
| discriminator | image_size, channels, seed | image | logits [N, 1], positive for "a scan" |

image is [N, H, W, channels] float32, H and W are image_size, not None, and z is [N, 100]. The field of kind "deform" is
v in pixels, (row, column); of kind "intensity" it is dI in units of the normalised image. The initial weights must
depend on `seed` alone, as those of layers without a seed do, or runs will differ. A layer that draws at random in
training, such as Dropout, makes a resumed training differ from an undisturbed one; a generator may have none. A
function is passed those options of `config.model` for which it has parameters: for each role filters,
half_pixel_centers, norm_momentum and discriminator_norm; for a generator also head_scale, deformation, fixed_border,
intensity, curve_knots, and, in pixels of the image, control_px and limit_px.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tfaug import plugins
from tfaug.compat import keras
from tfaug.engine.errors import UserError
from tfaug.models.discriminator import discriminator, histogram_discriminator, quantile_discriminator
from tfaug.models.generator import generator
from tfaug.models.unet import unet
from tfaug.types import Z_DIM

SEGMENTERS: Mapping[str, Callable[..., keras.Model]] = {"unet": unet}
GENERATORS: Mapping[str, Callable[..., keras.Model]] = {"conditional": generator}
DISCRIMINATORS: Mapping[str, Callable[..., keras.Model]] = {
    "dcgan": discriminator,
    "histogram": histogram_discriminator,
    "quantiles": quantile_discriminator,
}

ROLES = {"segmenter": SEGMENTERS, "generator": GENERATORS, "discriminator": DISCRIMINATORS}


def build(role: str, name: str, options: Mapping[str, Any], **arguments) -> keras.Model:
    """Builds a network by its name.

    Args:
      role: "segmenter", "generator" or "discriminator".
      name: name of a built-in network, or "my_module:function".
      options: the network's function is passed those for which it has parameters.
      **arguments: all that the table above lists for the role.

    Raises:
      UserError: the name is unknown, or a user-defined function does not do what the table says; or a user-defined
        generator has layers that draw at random.
    """
    key = f"model.{role}"
    function = plugins.load(name, ROLES[role], key)
    if name in ROLES[role]:
        return function(**arguments, **_accepted(function, options))
    remedy = f"see tfaug.models for what a {role} takes and returns"
    try:
        options = _accepted(function, options)
        inspect.signature(function).bind(**arguments, **options)
    except (TypeError, ValueError) as error:
        raise UserError(key, f"{name} cannot be called with {', '.join(arguments)} ({error})", remedy) from error
    try:
        model = function(**arguments, **options)
    except Exception as error:  # user code may fail in any way
        raise UserError(key, f"{name} failed ({type(error).__name__}: {error})", remedy) from error
    if problem := _mismatch(model, *_shapes(role, **arguments)):
        raise UserError(key, f"{name} {problem}", remedy)
    if role == "generator" and (random := random_layers(model)):
        problem = f"{name} draws at random within ({', '.join(random)}), and its gradient would be of another draw"
        raise UserError(key, problem, "take these layers out: what is random in a generator is z")
    return model


def random_layers(module: tf.Module) -> list[str]:
    """The types of a module's Keras layers that draw at random in training, such as "Dropout"; sorted, each once.

    The state of their draws is in no checkpoint, whether or not they have a seed.
    """
    base = keras.__internal__.layers.BaseRandomLayer
    layers = [one for one in module.submodules if isinstance(one, base)]
    return sorted({type(layer).__name__ for layer in layers if _draws(layer)})


def _draws(layer):
    """Whether a layer that can draw does: a recurrent one only if it drops something out, others not at 0."""
    amounts = [getattr(layer, name) for name in _AMOUNTS if hasattr(layer, name)]
    return not amounts or any(amounts)


_AMOUNTS = ("rate", "dropout", "recurrent_dropout", "stddev")


def _accepted(function, options):
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(options)
    return {option: value for option, value in options.items() if option in parameters}


def _shapes(role, image_size, channels, kind=None, num_classes=None, seed=None):
    """The shapes of a network's inputs, and of its output."""
    del seed
    image = (None, image_size, image_size, channels)
    if role == "segmenter":
        return [image], (*image[:3], num_classes)
    if role == "generator":
        return [image, (None, Z_DIM)], (*image[:3], 2) if kind == "deform" else image
    return [image], (None, 1)


def _mismatch(model, inputs, output):
    """What is wrong with a user-defined model, in words; "" if nothing is."""
    if not isinstance(model, keras.Model):
        return f"returns an object of type {type(model).__name__}, not a keras.Model of tfaug.compat"
    if not model.inputs or not model.outputs:
        return "returns a model without fixed inputs, not keras.Model(inputs, outputs)"
    for what, tensors, expected in (("inputs", model.inputs, inputs), ("outputs", model.outputs, [output])):
        shapes = [tuple(tensor.shape) for tensor in tensors]
        compatible = (tf.TensorShape(shape).is_compatible_with(wanted) for shape, wanted in zip(shapes, expected))
        if len(shapes) != len(expected) or not all(compatible):
            return f"has {what} of the shapes {shapes}, not {expected}"
        if any(None in shape[1:] for shape in shapes):
            written = "write image_size for H and W, as in keras.Input((image_size, image_size, channels))"
            return f"has {what} of the open shapes {shapes}, not {expected}: {written}"
    if model.outputs[0].dtype != tf.float32:
        return f"has an output of type {model.outputs[0].dtype.name}, not float32"
    return ""
