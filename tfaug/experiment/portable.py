"""Trained networks in files that programs without tfaug can load: Keras, SavedModel, ONNX.

All three hold one Keras model in float32, whatever precision it was trained in: a segmenter from `image` to `logits`,
or a generator from `image`, `z` and, if it deforms, `label` to `field`, `generated_image` and `generated_label`.
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import pathlib
import zipfile

import tensorflow as tf

from tfaug.compat import bilinear_warp, keras
from tfaug.config import Config
from tfaug.engine.errors import UserError
from tfaug.engine.files import machine_errors
from tfaug.experiment import networks, runs
from tfaug.experiment.exporting import FILES, LAYERS_FILE, OPSET, ROOM
from tfaug.experiment.sources import task_of
from tfaug.models.blocks import Upsample
from tfaug.models.generator import DrawnQuantiles, Increasing, Integrate, SmoothField, ToneCurve
from tfaug.warp import warp

_HEADER = '''"""The layers of model.keras that Keras does not have: `model = layers.load("model.keras")`.

Written by tfaug (Apache-2.0). Needs TensorFlow and its Keras 2, which from TensorFlow 2.16 on is the package tf-keras.
"""

import tensorflow as tf

try:
    import tf_keras as keras
except ImportError:
    keras = tf.keras

layers = keras.layers
'''
_FOOTER = '''def load(path):
    """The model in a file, see MODEL_CARD.md."""
    return keras.models.load_model(path, custom_objects={{{objects}}}, compile=False)
'''


class Warp(keras.layers.Layer):
    """Moves an image or a label along a deformation field, see `warp`."""

    def call(self, inputs):
        """Maps (image [N, H, W, C], field [N, H, W, 2] in pixels) to [N, H, W, C]."""
        return warp(*inputs)


_LAYERS = (Upsample, SmoothField, Integrate, Increasing, ToneCurve, DrawnQuantiles, Warp)


class Network:
    """The network of a finished run, to be written by `save`.

    Args:
      path: the run's folder.
      role: "segmenter", "deform" or "intensity", see `sources.config_of_network`.
      config: the run's config.

    Attributes:
      model: the Keras model, in float32; its output is a tensor of logits, or a dict by name for a generator.

    Raises:
      UserError: the run's best model is missing or damaged.
    """

    def __init__(self, path: pathlib.Path, role: str, config: Config):
        exact = config.copy_and_resolve_references()
        exact.precision = "float32"
        with networks.precision(exact):
            if role == "segmenter":
                self.model = _plain(runs.segmenter_of(path))
            else:
                self.model = _with_images(_plain(runs.generator_of(path, role)), role, task_of(config).num_classes)
        self._inputs = dict(zip(("image", "z", "label"), self.model.inputs))

    def save(self, folder: pathlib.Path, to: str) -> None:
        """Writes the network.

        Args:
          folder: the folder to write to.
          to: the format, a key of `exporting.FILES`.

        Raises:
          UserError: the format cannot hold the network, which is the user's own.
          MachineError: it cannot be written.
        """
        save = {"keras": self._save_keras, "savedmodel": self._save_saved_model, "onnx": self._save_onnx}[to]
        try:
            with machine_errors(FILES[to], ROOM, tf.errors.OpError):
                save(folder / FILES[to])
        except (NotImplementedError, TypeError, ValueError) as error:
            (reason, *_) = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(f"--to={to}", f"cannot hold this network ({reason})", "choose another format") from error

    def _save_keras(self, path):
        self.model.save(path)
        _make_readable(path)
        if any(isinstance(layer, _LAYERS) for layer in self.model.submodules):
            path.with_name(LAYERS_FILE).write_text(_layers_file(), encoding="utf-8")

    def _save_saved_model(self, path):
        module = tf.Module()
        module.weights = self.model.weights  # only these are tracked, so that no Keras is needed to load it
        tf.saved_model.save(module, str(path), signatures=self._function())

    def _save_onnx(self, path):
        convert = importlib.import_module("tf2onnx.convert")
        logging.getLogger("tf2onnx").setLevel(logging.ERROR)
        function = self._function()
        shapes = function.get_concrete_function().structured_outputs
        shapes = {name: tensor.shape for name, tensor in {**self._inputs, **shapes}.items()}
        graph, _ = convert.from_function(function, input_signature=function.input_signature, opset=OPSET)
        for value in (*graph.graph.input, *graph.graph.output):
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
            for size, dimension in list(zip(shapes[value.name], value.type.tensor_type.shape.dim))[1:]:
                dimension.dim_value = size
        path.write_bytes(graph.SerializeToString())

    def _function(self):
        """The model as a function from its inputs by name to its outputs by name."""
        specs = [tf.TensorSpec(tensor.shape, tf.float32, name) for name, tensor in self._inputs.items()]

        @tf.function(input_signature=specs)
        def run(*inputs):
            found = self.model(list(inputs), training=False)
            return found if isinstance(found, dict) else {"logits": found}

        return run


def _plain(model: keras.Model) -> keras.Model:
    """The same model, with Keras's own layers where it has equal ones."""

    def layer_of(layer):
        if isinstance(layer, Upsample) and layer.half_pixel_centers:
            return keras.layers.UpSampling2D(2, interpolation="bilinear", name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    if not any(isinstance(layer, Upsample) for layer in model.layers):  # a user-defined network
        return model
    plain = keras.models.clone_model(model, clone_function=layer_of)
    plain.set_weights(model.get_weights())
    return plain


def _with_images(generator: keras.Model, kind: str, num_classes: int) -> keras.Model:
    """A generator that also returns what its field makes of the image and the label."""
    image, z = generator.inputs
    (field,) = generator.outputs
    if kind == "intensity":
        generated = keras.layers.Add(name="generated_image")([image, field])
        return keras.Model([image, z], {"field": field, "generated_image": generated}, name=generator.name)
    label = keras.Input((*image.shape[1:3], num_classes), name="label")
    moved = {"generated_image": image, "generated_label": label}
    outputs = {name: Warp(dtype="float32", name=name)((what, field)) for name, what in moved.items()}
    return keras.Model([image, z, label], {"field": field, **outputs}, name=generator.name)


def _make_readable(path: pathlib.Path) -> None:
    """Makes a file of tf-keras readable for Keras 2.15: module names of Keras, and no later argument."""
    with zipfile.ZipFile(path) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    config = json.loads(contents["config.json"].replace(b'"tf_keras.', b'"keras.'))
    for layer in config["config"].get("layers", ()):
        if layer["class_name"] == "InputLayer":
            layer["config"].pop("optional", None)
    contents["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, content in contents.items():
            file.writestr(name, content)


def _layers_file() -> str:
    """The content of the file with the layers that Keras lacks, for users without tfaug."""
    parts = [
        _HEADER,
        inspect.getsource(bilinear_warp),
        "dense_image_warp = bilinear_warp\n",
        *map(inspect.getsource, (warp, *_LAYERS)),
        _FOOTER.format(objects=", ".join(f'"{layer.__name__}": {layer.__name__}' for layer in _LAYERS)),
    ]
    return "\n\n".join(parts)
