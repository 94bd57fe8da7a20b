"""Training the segmenter against a discriminator: the paper's "Adv Tr" (section 4)."""

from __future__ import annotations

import tensorflow as tf

from tfaug import losses
from tfaug.compat import keras
from tfaug.models.blocks import frozen_statistics
from tfaug.steps.optimizer import adam, descend
from tfaug.types import AdversarialBatch


class AdversarialSegment(tf.Module):
    """Trains S against a discriminator of (image, label map) pairs (section 4, "Adv Tr").

    With `adversary` "expert" (adv_sl, after Luc et al. 2016), D tells the experts' maps from S's predictions on the
    same labelled slices. With "unlabelled" (adv_ssl, after Zhang et al. 2017), D tells S's predictions on labelled
    slices from those on unlabelled ones. S adds to L_S the wish that D takes its predictions, in the second case those
    on unlabelled slices, for the better kind.

    Of the second kind the paper says (section 1) that pairs of unlabelled images and estimated maps are matched to
    pairs of labelled images and true maps, while Zhang et al., whom it cites, compare predictions with predictions, as
    an expert's map is easily told from any prediction. This is Zhang's.

    The paper leaves open D's form, the weight and the batch. Here D is the discriminator of section 3.3 with the image
    and the four class probabilities as its channels, L_adv is non-saturating, and there are as many unlabelled slices
    as labelled ones, all affine-augmented. D and then S are updated in one iteration; S runs forward once.

    Args:
      segmenter: S.
      discriminator: D, of 5 channels.
      adversary: "expert" or "unlabelled".
      learning_rate: of both Adams.
      class_weights: of L_S, one a class.
      lambda_adv: weight of L_adv.
    """

    def __init__(
        self,
        segmenter: keras.Model,
        discriminator: keras.Model,
        adversary: str,
        *,
        learning_rate: float,
        class_weights,
        lambda_adv: float,
    ):
        super().__init__()
        self.segmenter = segmenter
        self.discriminator = discriminator
        self.adversary = adversary
        self.segmenter_optimizer = adam(segmenter, learning_rate)
        self.discriminator_optimizer = adam(discriminator, learning_rate)
        self.class_weights = tuple(class_weights)
        self.lambda_adv = lambda_adv

    def __call__(self, batch: AdversarialBatch, index: int) -> dict[str, tf.Tensor]:
        """Updates D, then S; returns the losses and D's accuracy by name."""
        del index
        return self.update(batch)

    @tf.function
    def update(self, batch: AdversarialBatch) -> dict[str, tf.Tensor]:
        """One iteration."""
        s, d = self.segmenter, self.discriminator
        with tf.GradientTape() as tape:
            logits, better, worse = self._predict(batch)
            segmentation = losses.segmentation_loss(logits, batch.labelled.label, self.class_weights)
            with tape.stop_recording(), tf.GradientTape() as d_tape:
                worse_logits, better_logits = self._judge(worse, better)
                d_loss = losses.discriminator_loss(worse_logits, better_logits)
            with tape.stop_recording():
                descend(self.discriminator_optimizer, d_tape, d_loss, d.trainable_variables)
            with frozen_statistics(d):
                adversarial = losses.adversarial_loss(self._judge(worse, better)[0], "non_saturating")
            total = segmentation + self.lambda_adv * adversarial
        descend(self.segmenter_optimizer, tape, total, s.trainable_variables)
        return {
            "loss/segmentation": segmentation,
            "loss/adversarial": adversarial,
            "loss/discriminator": d_loss,
            "discriminator/accuracy_worse": tf.reduce_mean(tf.cast(worse_logits < 0, tf.float32)),
            "discriminator/accuracy_better": tf.reduce_mean(tf.cast(better_logits > 0, tf.float32)),
        }

    def _predict(self, batch):
        """S's logits on the labelled slices, and the (image, map) pairs of the better and of the worse kind."""
        image, label = batch.labelled
        if self.adversary == "expert":
            logits = self.segmenter(image, training=True)
            return logits, _pair(image, label), _pair(image, tf.nn.softmax(logits))
        both = self.segmenter(tf.concat([image, batch.unlabelled], 0), training=True)
        logits, unlabelled_logits = tf.split(both, 2)
        better = tf.stop_gradient(tf.nn.softmax(logits))
        return logits, _pair(image, better), _pair(batch.unlabelled, tf.nn.softmax(unlabelled_logits))

    def _judge(self, worse, better):
        return tf.split(self.discriminator(tf.concat([worse, better], 0), training=True), 2)


def _pair(image, label):
    return tf.concat([image, label], axis=-1)
