"""The update rules: one `tf.Module` each, holding its networks and optimisers; calling it does one update.

A step draws nothing at random: whatever is random arrives with the batch.
"""

from __future__ import annotations

import tensorflow as tf

from tfaug import losses
from tfaug.augment.learned import transform_image, transform_label
from tfaug.models.blocks import frozen_statistics
from tfaug.types import AdversarialBatch, Batch, GeneratorBatch

NETWORKS = ("discriminator", "generator", "segmenter")


class Adam(tf.keras.optimizers.Adam):
    """Keras's Adam with TensorFlow's fused kernel: one operation a variable instead of more than twenty.

    The same update up to rounding, and the same slots, for dense gradients and without Keras's `amsgrad`. The kernel,
    that of TensorFlow 1's Adam, rounds 1 - beta2 to float32, for 0.999 by 1.3e-5 of it: the second moments show it, the
    update divides it out.
    """

    def update_step(self, gradient, variable):
        """Updates one variable and its two slots."""
        index = self._index_dict[self._var_key(variable)]
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].handle,
            v=self._velocities[index].handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=tf.cast(self.learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )

    def get_scaled_loss(self, loss):
        """`loss`; see `adam`."""
        return loss

    def get_unscaled_gradients(self, gradients):
        """`gradients`; see `adam`."""
        return gradients


def adam(model: tf.keras.Model, learning_rate: float) -> Adam | tf.keras.mixed_precision.LossScaleOptimizer:
    """Adam with beta1 0.9 and beta2 0.999 (paper, section 3.4), its slots built for `model`.

    Small gradients would vanish in float16. There the optimiser is one that scales losses, undoes it in gradients, and
    skips an update whose gradients overflow; with the same methods `Adam` leaves both as they are.
    """
    optimizer = Adam(learning_rate, beta_1=0.9, beta_2=0.999)
    if tf.keras.mixed_precision.global_policy().compute_dtype == "float16":
        optimizer = tf.keras.mixed_precision.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer


def descend(optimizer, tape: tf.GradientTape, loss: tf.Tensor, variables) -> None:
    """One update of `variables` against the gradient of `loss`, which was recorded on `tape`, scaled as it must be."""
    gradients = tape.gradient(loss, variables, output_gradients=optimizer.get_scaled_loss(tf.ones_like(loss)))
    optimizer.apply_gradients(zip(optimizer.get_unscaled_gradients(gradients), variables))


class Segment(tf.Module):
    """Trains S on labelled batches (Eq. 2).

    Args:
      segmenter: S.
      learning_rate: of Adam.
      class_weights: one weight a class.
    """

    def __init__(self, segmenter: tf.keras.Model, learning_rate: float, class_weights):
        super().__init__()
        self.segmenter = segmenter
        self.optimizer = adam(segmenter, learning_rate)
        self.class_weights = tuple(class_weights)

    def __call__(self, batch: Batch, index: int) -> dict[str, tf.Tensor]:
        """Updates S on `batch`; returns {"loss/segmentation"}."""
        del index
        return self.update(batch)

    @tf.function
    def update(self, batch: Batch):
        """One Adam step on S."""
        with tf.GradientTape() as tape:
            logits = self.segmenter(batch.image, training=True)
            loss = losses.segmentation_loss(logits, batch.label, self.class_weights)
        descend(self.optimizer, tape, loss, self.segmenter.trainable_variables)
        return {"loss/segmentation": loss}


class LearnAugmentation(tf.Module):
    """Trains G_V or G_I together with S and D (Eq. 4-6).

    An iteration updates D, then G, then S. What they share: D learns from the images that G learns from; S runs forward
    and backward once, so that S and G descend the same L_S, both seen from where they stood before the iteration. D,
    updated in between, judges for G with its new weights.

    Args:
      kind: "deform" or "intensity".
      segmenter: S.
      generator: G_V or G_I, according to `kind`.
      discriminator: D.
      learning_rate: of the three Adams.
      class_weights: of L_S, one a class.
      lambda_seg: weight of L_S.
      lambda_adv: weight of the adversarial loss (Eq. 5).
      lambda_big: weight of L_big (Eq. 5).
      adversarial_form: see `losses.adversarial_loss`.
      task_gradient: whether L_S reaches G (Eq. 4); the released program's did not.
      discriminator_first: False gives the released program's order: G and S, then D on newly generated images.
      warmup_steps: iterations in which S alone learns, from labelled slices alone.
    """

    def __init__(
        self,
        kind: str,
        segmenter: tf.keras.Model,
        generator: tf.keras.Model,
        discriminator: tf.keras.Model,
        *,
        learning_rate: float,
        class_weights,
        lambda_seg: float,
        lambda_adv: float,
        lambda_big: float,
        adversarial_form: str,
        task_gradient: bool,
        discriminator_first: bool,
        warmup_steps: int,
    ):
        super().__init__()
        self.kind = kind
        self.generator = generator
        self.discriminator = discriminator
        self.warm_up = Segment(segmenter, learning_rate, class_weights)
        self.generator_optimizer = adam(generator, learning_rate)
        self.discriminator_optimizer = adam(discriminator, learning_rate)
        self.class_weights = tuple(class_weights)
        self.lambda_seg, self.lambda_adv, self.lambda_big = lambda_seg, lambda_adv, lambda_big
        self.adversarial_form = adversarial_form
        self.task_gradient = task_gradient
        self.discriminator_first = discriminator_first
        self.warmup_steps = warmup_steps

    @property
    def segmenter(self) -> tf.keras.Model:
        """S."""
        return self.warm_up.segmenter

    def __call__(self, batch: GeneratorBatch, index: int) -> dict[str, tf.Tensor]:
        """Updates S alone during warm-up, all three networks after; returns every loss and diagnostic by name."""
        if index < self.warmup_steps:
            return self.warm_up(batch.labelled, index)
        return self.update(batch)

    @tf.function
    def update(self, batch: GeneratorBatch, networks: tuple[str, ...] = NETWORKS) -> dict[str, tf.Tensor]:
        """One iteration.

        Args:
          batch: what it looks at.
          networks: which networks to update, a static subset of `NETWORKS`; the others keep every variable.

        Returns:
          Named scalars: the losses, D's accuracy before its update, the field's magnitude (pixels or intensity).
        """
        s, g, d = self.segmenter, self.generator, self.discriminator
        models = {"segmenter": s, "generator": g, "discriminator": d}
        with frozen_statistics(*(model for name, model in models.items() if name not in networks)):
            scalars, field = {}, self._field(batch)
            with tf.GradientTape() as tape:
                tape.watch(field)
                image = transform_image(self.kind, batch.labelled.image, field)
                with tape.stop_recording():
                    if self.discriminator_first:
                        scalars.update(self._discriminate(image, batch.real, "discriminator" in networks))
                    adversarial, slope = self._adversarial_loss(image, batch.real)
                # Whatever D needed is free again before S, which needs most of the memory, runs.
                with tf.control_dependencies([slope]):
                    segmentation = self._segmentation_loss(batch.labelled, batch.num_original, field, image)
                big = losses.big_loss(field)
                objective = self.lambda_seg * segmentation + self.lambda_big * big
            # D and L_big do not depend on S, so one backward pass gives S its L_S and G's field all of Eq. 4.
            optimizer, slopes = self.warm_up.optimizer, [tf.ones_like(objective), self.lambda_adv * slope]
            gradients = tape.gradient(
                [objective, image],
                [field, *s.trainable_variables],
                output_gradients=[optimizer.get_scaled_loss(one) for one in slopes],
            )
            field_gradient, *segmenter_gradients = optimizer.get_unscaled_gradients(gradients)
            if "generator" in networks:
                # What G's own backward pass needs is computed again, now that S needs no memory any more.
                with tf.control_dependencies([field_gradient]), frozen_statistics(g), tf.GradientTape() as tape:
                    again = self._field(batch)
                    descent = tf.reduce_sum(field_gradient * again)
                descend(self.generator_optimizer, tape, descent, g.trainable_variables)
            if "segmenter" in networks:
                optimizer.apply_gradients(zip(segmenter_gradients, s.trainable_variables))
            if not self.discriminator_first:
                with frozen_statistics(g):
                    image = transform_image(self.kind, batch.labelled.image, self._field(batch))
                scalars.update(self._discriminate(image, batch.real, "discriminator" in networks))
        return {
            "loss/segmentation": segmentation,
            "loss/adversarial": adversarial,
            "loss/big": big,
            "loss/generator": objective + self.lambda_adv * adversarial,
            **scalars,
            "field/mean_abs": -big,
            "field/max_abs": tf.reduce_max(tf.abs(field)),
        }

    def _field(self, batch):
        return self.generator([batch.labelled.image, batch.z], training=True)

    def _segmentation_loss(self, labelled, num_original, field, image):
        """L_S on a batch whose first `num_original` slices are original, the others generated."""
        n = num_original
        label = transform_label(self.kind, labelled.label[n:], field[n:])
        image = image[n:]
        if not self.task_gradient:
            image, label = tf.stop_gradient(image), tf.stop_gradient(label)
        image = tf.ensure_shape(tf.concat([labelled.image[:n], image], 0), labelled.image.shape)
        label = tf.ensure_shape(tf.concat([labelled.label[:n], label], 0), labelled.label.shape)
        logits = self.segmenter(image, training=True)
        return losses.segmentation_loss(logits, label, self.class_weights)

    def _adversarial_loss(self, image, real):
        """G's adversarial loss, and its gradient with respect to the generated images [N, H, W, 1]."""
        if not self.lambda_adv:
            return tf.constant(0.0), tf.zeros_like(image)
        with frozen_statistics(self.discriminator), tf.GradientTape() as tape:
            tape.watch(image)
            fake_logits, _ = self._judge(image, real)
            loss = losses.adversarial_loss(fake_logits, self.adversarial_form)
        scaled = tape.gradient(loss, [image], self.discriminator_optimizer.get_scaled_loss(tf.ones_like(loss)))
        return loss, self.discriminator_optimizer.get_unscaled_gradients(scaled)[0]

    def _discriminate(self, image, real, update: bool):
        """D's loss and accuracies, and its update; nothing without an adversarial term, as nobody asks D then."""
        if not self.lambda_adv:
            return {}
        with tf.GradientTape() as tape:
            fake_logits, real_logits = self._judge(image, real)
            loss = losses.discriminator_loss(fake_logits, real_logits)
        if update:
            descend(self.discriminator_optimizer, tape, loss, self.discriminator.trainable_variables)
        return {
            "loss/discriminator": loss,
            "discriminator/accuracy_fake": tf.reduce_mean(tf.cast(fake_logits < 0, tf.float32)),
            "discriminator/accuracy_real": tf.reduce_mean(tf.cast(real_logits > 0, tf.float32)),
        }

    def _judge(self, image, real):
        """D's logits [N, 1] on generated images and on scans, from one call, as its batch statistics are shared."""
        return tf.split(self.discriminator(tf.concat([image, real], 0), training=True), 2)


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
        segmenter: tf.keras.Model,
        discriminator: tf.keras.Model,
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
