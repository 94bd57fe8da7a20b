"""Composes the batches of a method from its transforms."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

from tfaug.augment.methods import AFFINE, GENERATORS, Method
from tfaug.types import Batch


class Augmenter:
    """Applies transforms by name, each with its own stream of draws.

    Args:
      transforms: objects with `sample(batch, seed)` and `apply(batch, params)`, by name.
      seed_at: function from (purpose, step) to a [2] seed.
      released_partition: see `shares`.
    """

    def __init__(self, transforms: Mapping[str, object], seed_at: Callable, released_partition: bool = False):
        self.transforms = transforms
        self.seed_at = seed_at
        self.released_partition = released_partition

    def affine(self, batch: Batch, step, purpose: str) -> Batch:
        """The affine augmentation alone, drawn from the stream of `purpose`."""
        return self._in_turn(AFFINE, batch, step, purpose)

    def method(self, method: Method) -> Callable:
        """The augmentation of one row: function from (`Batch`, step, purpose) to a `Batch` of the same size."""

        def augment(batch: Batch, step, purpose: str) -> Batch:
            batch = self._in_turn(method.first, batch, step, purpose)
            if method.generated:
                sizes = self.shares(batch.image.shape[0], len(method.generated), step, purpose)
                original, *parts = _split(batch, sizes)
                generated = [
                    self._in_turn(recipe, part, step, f"{purpose}/{'+'.join(recipe)}")
                    for recipe, part in zip(method.generated, parts)
                ]
                batch = _concat(batch, original, *generated)
            if method.mixup:
                half = batch.image.shape[0] // 2
                mixed = self._in_turn(("mixup",), batch, step, purpose)
                batch = _concat(batch, _split(batch, [half, -1])[0], _split(mixed, [half, -1])[1])
            return batch

        return augment

    def names(self, method: Method, batch_size: int, step, purpose: str) -> list[str]:
        """What has been done to each slice of a batch that `method` makes; generated ones are `first` as well."""
        recipes = [method.first, *method.generated]
        sizes = self.shares(batch_size, len(method.generated), step, purpose) if method.generated else [batch_size]
        names = ["+".join(recipe) or "original" for recipe, size in zip(recipes, sizes) for _ in range(int(size))]
        if method.mixup:
            half = batch_size // 2
            names[half:] = [f"{name}+mixup" for name in names[half:]]
        return names

    def shares(self, batch_size: int, num_recipes: int, step, purpose: str):
        """How many slices stay real, then how many each recipe generates.

        Half and half, the generated half shared evenly. With `released_partition` and three recipes, as the released
        program drew them for each batch: of 20 slices, the recipes end at a in 1..4, b in 5..9 and c in 10..14.

        Returns:
          num_recipes + 1 numbers whose sum is `batch_size`: a list, or a tensor where they are drawn.
        """
        if self.released_partition and num_recipes == 3:
            lowest, highest = tf.constant([1, 5, 10]), tf.constant([5, 10, 15])
            width = tf.cast(highest - lowest, tf.float32)
            uniform = tf.random.stateless_uniform([3], self.seed_at(f"partition/{purpose}", step))
            ends = (lowest + tf.cast(uniform * width, tf.int32)) * batch_size // 20
            starts = tf.concat([[0], ends[:-1]], 0)
            return tf.concat([[batch_size - ends[-1]], ends - starts], 0)
        generated = batch_size - batch_size // 2
        ends = [generated * index // num_recipes for index in range(num_recipes + 1)]
        return [batch_size // 2] + [end - start for start, end in zip(ends, ends[1:])]

    def _in_turn(self, names, batch, step, purpose):
        for name in names:
            # One z serves both generators: X_VI is G_I applied to X_V with the same z, as in the released program.
            stream = "z" if name in GENERATORS else name
            params = self.transforms[name].sample(batch, self.seed_at(f"{stream}/{purpose}", step))
            batch = self.transforms[name].apply(batch, params)
        return batch


def _split(batch, sizes):
    return [Batch(*parts) for parts in zip(*(tf.split(tensor, sizes) for tensor in batch))]


def _concat(like, *batches):
    """Joins batches to one of the static shape of `like`."""
    return Batch(*(tf.ensure_shape(tf.concat(parts, 0), whole.shape) for whole, *parts in zip(like, *batches)))
