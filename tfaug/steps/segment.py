"""Training the segmenter alone (Eq. 2)."""

from __future__ import annotations

import tensorflow as tf

from tfaug import losses
from tfaug.compat import keras
from tfaug.steps.optimizer import adam, descend
from tfaug.types import Batch


class Segment(tf.Module):
    """Trains S on labelled batches (Eq. 2).

    Args:
      segmenter: S.
      learning_rate: learning rate of Adam.
      class_weights: one weight per class.
    """

    def __init__(self, segmenter: keras.Model, learning_rate: float, class_weights):
        super().__init__()
        self.segmenter = segmenter
        self.optimizer = adam(segmenter, learning_rate)
        self.class_weights = tuple(class_weights)

    def __call__(self, batch: Batch, index: int) -> dict[str, tf.Tensor]:
        """Updates S on `batch`; returns {"loss/segmentation"}."""
        del index
        return self.update(batch)

    @tf.function(autograph=False)
    def update(self, batch: Batch):
        """One Adam step on S."""
        with tf.GradientTape() as tape:
            logits = self.segmenter(batch.image, training=True)
            loss = losses.segmentation_loss(logits, batch.label, self.class_weights)
        descend(self.optimizer, tape, loss, self.segmenter.trainable_variables)
        return {"loss/segmentation": loss}
