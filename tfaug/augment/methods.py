"""The methods of Table 1, as rows, and what turns a row into batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import tensorflow as tf

from tfaug.types import Batch


@dataclasses.dataclass(frozen=True)
class Method:
    """One way of training the segmenter.

    Attributes:
      first: transforms applied to the whole batch, in turn.
      generated: recipes, each a tuple of transforms applied in turn. They replace the second half of the batch, an
        even share each.
    """

    first: tuple[str, ...] = ()
    generated: tuple[tuple[str, ...], ...] = ()

    @property
    def generators(self) -> tuple[str, ...]:
        """The kinds of generator that must have been learned before."""
        used = {transform for recipe in self.generated for transform in recipe}
        return tuple(kind for kind in ("deform", "intensity") if kind in used)


AFFINE = ("affine",)

METHODS: Mapping[str, Method] = {
    "none": Method(),
    "aff": Method(AFFINE),
    "aff_gd": Method(AFFINE, (("deform",),)),
    "aff_gi": Method(AFFINE, (("intensity",),)),
    "aff_gd_gi": Method(AFFINE, (("deform",), ("intensity",), ("deform", "intensity"))),
}


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
        """The augmentation of one row: function from (`Batch`, step, purpose) to a `Batch` of the same size.

        Every slice has one draw per transform, whichever recipe it falls to, and the two generators share its z.
        """

        def augment(batch: Batch, step, purpose: str) -> Batch:
            batch = self._in_turn(method.first, batch, step, purpose)
            if not method.generated:
                return batch
            sizes = self.shares(batch.image.shape[0], len(method.generated), step, purpose)
            params = {name: self._draw(name, batch, step, purpose) for recipe in method.generated for name in recipe}
            original, *parts = _split(batch, sizes)
            parts_params = {name: _split(values, sizes)[1:] for name, values in params.items()}
            done = [original]
            for index, (recipe, part) in enumerate(zip(method.generated, parts)):
                for name in recipe:
                    part = self.transforms[name].apply(part, parts_params[name][index])
                done.append(part)
            return tf.nest.map_structure(
                lambda whole, *pieces: tf.ensure_shape(tf.concat(pieces, 0), whole.shape), batch, *done
            )

        return augment

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
            batch = self.transforms[name].apply(batch, self._draw(name, batch, step, purpose))
        return batch

    def _draw(self, name, batch, step, purpose):
        stream = "z" if name in ("deform", "intensity") else name
        return self.transforms[name].sample(batch, self.seed_at(f"{stream}/{purpose}", step))


def _split(values, sizes):
    """Splits every tensor of a nest along its first axis; returns one nest a piece."""
    flat = [tf.split(value, sizes) for value in tf.nest.flatten(values)]
    return [tf.nest.pack_sequence_as(values, pieces) for pieces in zip(*flat)]
