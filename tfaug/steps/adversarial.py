"""Training the segmenter against a discriminator: the paper's "Adv Tr" (section 4)."""

from __future__ import annotations

import tensorflow as tf

from tfaug import losses
from tfaug.compat import keras
from tfaug.models.blocks import frozen_statistics
from tfaug.steps.optimizer import adam, descend
from tfaug.types import AdversarialBatch, Batch


class AdversarialSegment(tf.Module):
    """Trains S against a discriminator of (image, label map) pairs (section 4, "Adv Tr").

    Supervised (adv_sl, after Luc et al. 2016), D tells the reference labels from S's predictions on the same labelled
    slices. Semi-supervised (adv_ssl, after Zhang et al. 2017), D tells S's predictions on labelled slices from those on
    unlabelled ones. The former pairs are called real, the latter fake; to L_S, S adds a loss that rewards fake pairs
    which D takes for real.

    Of the second kind the paper says (section 1) that pairs of unlabelled images and estimated maps are matched to
    pairs of labelled images and true maps, while Zhang et al., whom it cites, compare predictions with predictions, as
    a reference label is easily told from any prediction. This follows Zhang et al.

    The paper leaves open D's form, the weight and the batch. Here D is the discriminator of section 3.3 with the image
    and the class probabilities as its channels, L_adv is non-saturating, and there are as many unlabelled slices as
    labelled ones, all affine-augmented. D and then S are updated in one iteration; S runs forward once.

    Args:
      segmenter: S.
      discriminator: D, with as many channels as the image has plus the number of S's classes.
      semi_supervised: which of the two kinds.
      learning_rate: learning rate of both Adams.
      class_weights: weights of L_S, one per class.
      lambda_adv: weight of L_adv.
    """

    def __init__(
        self,
        segmenter: keras.Model,
        discriminator: keras.Model,
        semi_supervised: bool,
        *,
        learning_rate: float,
        class_weights,
        lambda_adv: float,
    ):
        super().__init__()
        self.segmenter = segmenter
        self.discriminator = discriminator
        self.semi_supervised = semi_supervised
        self.segmenter_optimizer = adam(segmenter, learning_rate)
        self.discriminator_optimizer = adam(discriminator, learning_rate)
        self.class_weights = tuple(class_weights)
        self.lambda_adv = lambda_adv

    def __call__(self, batch: Batch | AdversarialBatch, index: int) -> dict[str, tf.Tensor]:
        """Updates D, then S; returns the losses and D's accuracy by name.

        Args:
          batch: `AdversarialBatch` if semi-supervised, else `Batch`.
          index: unused.
        """
        del index
        return self.update(batch)

    @tf.function(autograph=False)
    def update(self, batch: Batch | AdversarialBatch) -> dict[str, tf.Tensor]:
        """One iteration."""
        s, d = self.segmenter, self.discriminator
        label = batch.labelled.label if self.semi_supervised else batch.label
        with tf.GradientTape() as tape:
            logits, real, fake = self._predict(batch)
            segmentation = losses.segmentation_loss(logits, label, self.class_weights)
            with tape.stop_recording(), tf.GradientTape() as d_tape:
                fake_logits, real_logits = self._judge(fake, real)
                d_loss = losses.discriminator_loss(fake_logits, real_logits)
            with tape.stop_recording():
                descend(self.discriminator_optimizer, d_tape, d_loss, d.trainable_variables)
            with frozen_statistics(d):
                adversarial = losses.adversarial_loss(self._judge(fake, real)[0], "non_saturating")
            total = segmentation + self.lambda_adv * adversarial
        descend(self.segmenter_optimizer, tape, total, s.trainable_variables)
        return {
            "loss/segmentation": segmentation,
            "loss/adversarial": adversarial,
            "loss/discriminator": d_loss,
            "discriminator/accuracy_fake": tf.reduce_mean(tf.cast(fake_logits < 0, tf.float32)),
            "discriminator/accuracy_real": tf.reduce_mean(tf.cast(real_logits > 0, tf.float32)),
        }

    def _predict(self, batch):
        """S's logits on the labelled slices, and the real and the fake (image, map) pairs."""
        if not self.semi_supervised:
            image, label = batch
            logits = self.segmenter(image, training=True)
            return logits, _pair(image, label), _pair(image, tf.nn.softmax(logits))
        image, _ = batch.labelled
        both = self.segmenter(tf.concat([image, batch.unlabelled], 0), training=True)
        logits, unlabelled_logits = tf.split(both, 2)
        real = _pair(image, tf.stop_gradient(tf.nn.softmax(logits)))
        return logits, real, _pair(batch.unlabelled, tf.nn.softmax(unlabelled_logits))

    def _judge(self, fake, real):
        return tf.split(self.discriminator(tf.concat([fake, real], 0), training=True), 2)


def _pair(image, label):
    return tf.concat([image, label], axis=-1)
