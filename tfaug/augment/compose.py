"""Composes the batches of a method from its transforms."""

from __future__ import annotations

import collections
import inspect
from collections.abc import Callable, Mapping

import tensorflow as tf

from tfaug import plugins
from tfaug.augment.methods import AFFINE, GENERATORS, Method
from tfaug.engine.errors import UserError, cause
from tfaug.types import Batch


class Augmenter:
    """Applies transforms by name, each with its own stream of draws, wherever in a method it occurs.

    A transform has two methods, made of TensorFlow operations: `sample(batch, seed)` draws parameters (any structure of
    tensors) from a [2] seed, and `apply(batch, params)` returns a `Batch` of the same shapes and types. A method may
    name a user-defined class, "my_module:Blur", which is instantiated without arguments.

    Args:
      transforms: by name.
      seed_at: function from (purpose, step) to a [2] seed.
      partition: how the generated half is made, "even", "composed" or "released"; see `Method.recipes` and `shares`.
    """

    def __init__(self, transforms: Mapping[str, object], seed_at: Callable, partition: str = "even"):
        self.transforms = dict(transforms)
        self.seed_at = seed_at
        self.partition = partition

    def affine(self, batch: Batch, step, purpose: str) -> Batch:
        """The affine augmentation alone, drawn from the stream of `purpose`."""
        return self._in_turn(AFFINE, batch, step, purpose, collections.Counter())

    def method(self, method: Method) -> Callable:
        """The augmentation of one row: function from (`Batch`, step, purpose) to a `Batch` of the same size.

        Raises:
          UserError: a transform is unknown, or a user-defined one lacks the two methods.
        """
        for name in method.transforms:
            if name not in self.transforms:
                self.transforms[name] = _load(name, self.transforms)

        def augment(batch: Batch, step, purpose: str) -> Batch:
            drawn = collections.Counter()
            batch = self._in_turn(method.first, batch, step, purpose, drawn)
            if recipes := method.recipes(self.partition):
                sizes = self.shares(batch.image.shape[0], len(recipes), step, purpose)
                original, *parts = _split(batch, sizes)
                generated = [
                    self._in_turn(recipe, part, step, f"{purpose}/{'+'.join(recipe)}", drawn)
                    for recipe, part in zip(recipes, parts)
                ]
                batch = _concat(batch, original, *generated)
            if method.mixup:
                half = batch.image.shape[0] // 2
                mixed = self._in_turn(("mixup",), batch, step, purpose, drawn)
                batch = _concat(batch, _split(batch, [half, -1])[0], _split(mixed, [half, -1])[1])
            return batch

        return augment

    def check(self, method: Method, image_size: int, channels: int, num_classes: int) -> None:
        """Traces a method's user-defined transforms on slices of the given size.

        Raises:
          UserError: one fails, or does not return a `Batch` of the shapes and types it was given.
        """
        self.method(method)
        side = [2, image_size, image_size]
        batch = Batch(tf.TensorSpec([*side, channels]), tf.TensorSpec([*side, num_classes]))
        for name in method.transforms:
            if ":" in name:
                _check(name, self.transforms[name], batch)

    def names(self, method: Method, batch_size: int, step, purpose: str) -> list[str]:
        """The recipe of each slice in a batch of `method`, as text; generated slices have undergone `first` as well."""
        recipes = [method.first, *method.recipes(self.partition)]
        sizes = self.shares(batch_size, len(recipes) - 1, step, purpose) if len(recipes) > 1 else [batch_size]
        names = [
            "+".join(map(plugins.short_name, recipe)) or "original"
            for recipe, size in zip(recipes, sizes)
            for _ in range(int(size))
        ]
        if method.mixup:
            half = batch_size // 2
            names[half:] = [f"{name}+mixup" for name in names[half:]]
        return names

    def shares(self, batch_size: int, num_recipes: int, step, purpose: str):
        """How many slices stay original, then how many each recipe generates.

        One half stays, and the recipes share the other evenly. With "released" and three recipes, the numbers are drawn
        per batch as in the released program: of 20 slices, the recipes end at a in 1..4, b in 5..9 and c in 10..14.

        Returns:
          num_recipes + 1 numbers whose sum is `batch_size`: a list, or a tensor if they are drawn.
        """
        if self.partition == "released" and num_recipes == 3:
            lowest, highest = tf.constant([1, 5, 10]), tf.constant([5, 10, 15])
            width = tf.cast(highest - lowest, tf.float32)
            uniform = tf.random.stateless_uniform([3], self.seed_at(f"partition/{purpose}", step))
            ends = (lowest + tf.cast(uniform * width, tf.int32)) * batch_size // 20
            starts = tf.concat([[0], ends[:-1]], 0)
            return tf.concat([[batch_size - ends[-1]], ends - starts], 0)
        generated = batch_size - batch_size // 2
        ends = [generated * index // num_recipes for index in range(num_recipes + 1)]
        return [batch_size // 2] + [end - start for start, end in zip(ends, ends[1:])]

    def _in_turn(self, names, batch, step, purpose, drawn):
        """Applies transforms one after another; `drawn` counts how often each has drawn for a purpose in this batch."""
        for name in names:
            before = drawn[name, purpose]
            drawn[name, purpose] += 1
            # Both generators share one z: X_VI is G_I applied to X_V with the same z, as in the released program.
            stream = "z" if name in GENERATORS else name
            stream = f"{stream}#{before}/{purpose}" if before else f"{stream}/{purpose}"
            params = self.transforms[name].sample(batch, self.seed_at(stream, step))
            batch = self.transforms[name].apply(batch, params)
        return batch


def _load(name, known):
    transform = plugins.load(name, known, "transform")
    if isinstance(transform, type):
        try:
            transform = transform()
        except Exception as error:  # user code may fail in any way
            problem = f"cannot be made without arguments ({type(error).__name__}: {error})"
            raise UserError(f"transform {name}", problem, "give its arguments defaults") from error
    for method in ("sample", "apply"):
        try:
            inspect.signature(getattr(transform, method)).bind(None, None)
        except (AttributeError, TypeError) as error:
            remedy = "write sample(self, batch, seed) and apply(self, batch, params)"
            raise UserError(f"transform {name}", f"has no suitable method {method!r} ({error})", remedy) from error
    return transform


def _check(name, transform, batch):
    def once(batch, seed):
        return transform.apply(batch, transform.sample(batch, seed))

    try:
        traced = tf.function(once, autograph=False)  # as in the pipeline
        made = traced.get_concrete_function(batch, tf.TensorSpec([2], tf.int64)).structured_outputs
    except Exception as error:  # user code may fail in any way
        remedy = "make it of TensorFlow operations; others go into tf.numpy_function"
        raise UserError(f"transform {name}", f"fails ({cause(error)})", remedy) from error
    remedy = "let `apply` return a tfaug.types.Batch of the shapes and types that it is given"
    if not isinstance(made, Batch):
        raise UserError(f"transform {name}", f"returns an object of type {type(made).__name__}", remedy)
    for field, part, given in zip(Batch._fields, made, batch):
        if not tf.is_tensor(part) or not given.is_compatible_with(part):
            returned = f"{part.dtype.name} {part.shape}" if tf.is_tensor(part) else repr(part)
            raise UserError(
                f"transform {name}",
                f"returns the {field} {returned} for one of {given.dtype.name} {given.shape}",
                remedy,
            )


def _split(batch, sizes):
    return [Batch(*parts) for parts in zip(*(tf.split(tensor, sizes) for tensor in batch))]


def _concat(like, *batches):
    """Concatenates batches into one with the static shape of `like`."""
    return Batch(*(tf.ensure_shape(tf.concat(parts, 0), whole.shape) for whole, *parts in zip(like, *batches)))
