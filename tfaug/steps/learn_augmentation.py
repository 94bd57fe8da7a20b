"""Learning the augmentation: G, D and S together (Eq. 4-6)."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfaug import losses
from tfaug.augment.learned import transform_image, transform_label
from tfaug.compat import keras
from tfaug.models.blocks import frozen_statistics
from tfaug.steps.optimizer import adam, descend
from tfaug.steps.segment import Segment
from tfaug.types import GeneratorBatch

NETWORKS = ("discriminator", "generator", "segmenter")


class LearnAugmentation(tf.Module):
    """Trains G_V or G_I together with S and D (Eq. 4-6).

    An iteration updates D, then G, then S. D learns from the same images as G; S runs forward and backward once, so
    that S and G descend the same L_S, as of their weights before the iteration. D judges for G with its new weights.

    Args:
      kind: "deform" or "intensity".
      segmenter: S.
      generator: G_V or G_I, according to `kind`.
      discriminator: D.
      learning_rate: learning rate of the three Adams.
      class_weights: weights of L_S, one per class.
      lambda_seg: weight of L_S.
      lambda_adv: weight of the adversarial loss (Eq. 5).
      lambda_big: weight of L_big (Eq. 5).
      adversarial_form: see `losses.adversarial_loss`; "energy" replaces D by `losses.energy_distance` of the images'
        grey values. With packs, each pack is a kind.
      task_gradient: whether L_S reaches G (Eq. 4); in the released program it did not.
      discriminator_first: False gives the released program's order: G and S, then D on newly generated images.
      warmup_steps: iterations in which only S learns, from labelled slices only.
      generator_rate: learning rate of G's Adam, as a multiple of `learning_rate`.
      discriminator_rate: the same of D's.
      beta_1: of G's and D's Adam; S keeps the paper's.
      r1: weight of `losses.gradient_penalty`; not in the paper.
      big_limit: see `losses.big_loss`.
      big_of: for G_V, what L_big and the reward for diversity measure: the "displacement", as in the paper, the
        "deformation", see `losses.without_translation`, or the "strain", see `losses.strain`.
      lambda_fold: weight of `losses.folding_loss`, for G_V only; not in the paper.
      grey_values: for "energy", what is compared: function from images [N, H, W, C] to [N, Q], such as a
        `models.discriminator.GreyValues`.
      pack: how many images D judges as one, see `losses.packed`; its input has as many times the channels.
      lambda_diversity: weight of a reward for fields that differ over z, between the batch's z and the same in another
        order; not in the paper.
      diversity: its form, "difference" as in `losses.diversity_loss`, or "volume" as in `losses.volume_loss`, whose
        unit is `big_limit`.
    """

    def __init__(
        self,
        kind: str,
        segmenter: keras.Model,
        generator: keras.Model,
        discriminator: keras.Model,
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
        generator_rate: float = 1.0,
        discriminator_rate: float = 1.0,
        beta_1: float = 0.9,
        r1: float = 0.0,
        big_limit: float = 0.0,
        big_of: str = "displacement",
        lambda_fold: float = 0.0,
        lambda_diversity: float = 0.0,
        diversity: str = "difference",
        pack: int = 1,
        grey_values: Callable | None = None,
    ):
        super().__init__()
        self.kind = kind
        self.generator = generator
        self.discriminator = discriminator
        self.warm_up = Segment(segmenter, learning_rate, class_weights)
        self.generator_optimizer = adam(generator, learning_rate * generator_rate, beta_1)
        self.discriminator_optimizer = adam(discriminator, learning_rate * discriminator_rate, beta_1)
        self.class_weights = tuple(class_weights)
        self.lambda_seg, self.lambda_adv, self.lambda_big = lambda_seg, lambda_adv, lambda_big
        self.adversarial_form = adversarial_form
        self.task_gradient = task_gradient
        self.discriminator_first = discriminator_first
        self.warmup_steps = warmup_steps
        self.r1, self.big_limit, self.lambda_fold = r1, big_limit, lambda_fold if kind == "deform" else 0.0
        self.lambda_diversity, self.pack = lambda_diversity, pack
        self.asks_discriminator = bool(lambda_adv) and adversarial_form != "energy"
        self._grey_values = grey_values
        self._diversity = losses.volume_loss if diversity == "volume" else losses.diversity_loss
        measures = {"deformation": losses.without_translation, "strain": losses.strain}
        self._rewarded = measures.get(big_of, tf.identity) if kind == "deform" else tf.identity
        if self._rewarded is losses.strain:
            self.big_limit = losses.STRAIN_UNIT

    @property
    def segmenter(self) -> keras.Model:
        """S."""
        return self.warm_up.segmenter

    def __call__(self, batch: GeneratorBatch, index: int) -> dict[str, tf.Tensor]:
        """Updates only S during warm-up, then all three networks; returns every loss and diagnostic by name."""
        if index < self.warmup_steps:
            return self.warm_up(batch.labelled, index)
        return self.update(batch)

    @tf.function(autograph=False)
    def update(self, batch: GeneratorBatch, networks: tuple[str, ...] = NETWORKS) -> dict[str, tf.Tensor]:
        """One iteration.

        Args:
          batch: the data of the iteration.
          networks: which networks to update, a static subset of `NETWORKS`; the others keep every variable.

        Returns:
          The losses by name, D's accuracy before its update, gradient norms, the field's magnitude (pixels, intensity).
        """
        s, g, d = self.segmenter, self.generator, self.discriminator
        models = {"segmenter": s, "generator": g, "discriminator": d}
        with frozen_statistics(*(model for name, model in models.items() if name not in networks)):
            scalars = {}
            with frozen_statistics(g):
                field = self._field(batch)
            with tf.GradientTape() as tape:
                tape.watch(field)
                with tf.GradientTape() as transform_tape:
                    transform_tape.watch(field)
                    image = transform_image(self.kind, batch.labelled.image, field)
                with tape.stop_recording():
                    if self.discriminator_first:
                        scalars.update(self._discriminate(image, batch.real, "discriminator" in networks))
                    adversarial, image_gradient = self._adversarial_loss(image, batch.real)
                # What D needed is freed before S runs, which needs most of the memory.
                with tf.control_dependencies([image_gradient]):
                    segmentation = self._segmentation_loss(batch.labelled, batch.num_original, field, image)
                big = self._big(field)
                objective = self.lambda_seg * segmentation + self.lambda_big * big
                if self.lambda_fold:
                    objective += self.lambda_fold * losses.folding_loss(field)
            # D and L_big do not depend on S, so one backward pass gives S its L_S and G's field all of Eq. 4.
            optimizer = self.warm_up.optimizer
            output_gradients = [tf.ones_like(objective), self.lambda_adv * image_gradient]
            gradients = tape.gradient(
                [objective, image],
                [field, *s.trainable_variables],
                output_gradients=[optimizer.get_scaled_loss(gradient) for gradient in output_gradients],
            )
            field_gradient, *segmenter_gradients = optimizer.get_unscaled_gradients(gradients)
            adversarial_gradient = transform_tape.gradient(image, field, self.lambda_adv * image_gradient)
            scalars.update(self._gradient_norms(field, field_gradient, adversarial_gradient))
            if "generator" in networks:
                # What G's own backward pass needs is recomputed, now that S no longer needs memory. Only now do G's
                # statistics move: a layer that uses them gives the same field twice.
                with tf.control_dependencies([field_gradient]), tf.GradientTape() as tape:
                    again = self._field(batch)
                    descent = tf.reduce_sum(field_gradient * again)
                    if self.lambda_diversity:
                        with frozen_statistics(g):
                            other = self._field(batch._replace(z=tf.roll(batch.z, 1, axis=0)))
                        diversity = self._diversity(self._rewarded(again), self._rewarded(other), self.big_limit)
                        scalars["loss/diversity"] = diversity
                        descent += self.lambda_diversity * diversity
                descend(self.generator_optimizer, tape, descent, g.trainable_variables)
            if "segmenter" in networks:
                if self.lambda_seg not in (0, 1):  # it weights what G descends; S descends L_S
                    # That of a gathered weight is `tf.IndexedSlices`, that of an unused one None, as Adam takes both.
                    segmenter_gradients = [
                        None if gradient is None else tf.convert_to_tensor(gradient) / self.lambda_seg
                        for gradient in segmenter_gradients
                    ]
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
            "field/mean_abs": tf.reduce_mean(tf.abs(field)),
            "field/max_abs": tf.reduce_max(tf.abs(field)),
        }

    def judge(self, image, real) -> list[tf.Tensor]:
        """D's logits [N, 1] on generated images and on scans [N, H, W, C], in training mode, without changing D."""
        with frozen_statistics(self.discriminator):
            return self._judge(image, real)

    def _field(self, batch):
        return self.generator([batch.labelled.image, batch.z], training=True)

    def _big(self, field):
        return losses.big_loss(self._rewarded(field), self.big_limit)

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
        """G's adversarial loss, and its gradient with respect to the generated images [N, H, W, C]."""
        if not self.lambda_adv:
            return tf.constant(0.0), tf.zeros_like(image)
        if not self.asks_discriminator:
            with tf.GradientTape() as tape:
                tape.watch(image)
                generated, scans = self._grey_values(image), self._grey_values(real)
                draws = self.pack if self.pack > 1 else image.shape[0]
                loss = losses.energy_distance(tf.reshape(generated, [draws, -1, generated.shape[1]]), scans)
            return loss, tape.gradient(loss, image)
        with frozen_statistics(self.discriminator), tf.GradientTape() as tape:
            tape.watch(image)
            fake_logits, _ = self._judge(image, real)
            loss = losses.adversarial_loss(fake_logits, self.adversarial_form)
        scaled = tape.gradient(loss, [image], self.discriminator_optimizer.get_scaled_loss(tf.ones_like(loss)))
        return loss, self.discriminator_optimizer.get_unscaled_gradients(scaled)[0]

    def _discriminate(self, image, real, update: bool):
        """D's loss and accuracies, and its update; nothing if D is not used."""
        if not self.asks_discriminator:
            return {}
        with tf.GradientTape() as tape:
            fake_logits, real_logits = self._judge(image, real)
            loss = losses.discriminator_loss(fake_logits, real_logits)
            regularised = loss + self.r1 * self._penalty(real) if self.r1 else loss
        if update:
            descend(self.discriminator_optimizer, tape, regularised, self.discriminator.trainable_variables)
        return {
            "loss/discriminator": loss,
            "discriminator/accuracy_fake": tf.reduce_mean(tf.cast(fake_logits < 0, tf.float32)),
            "discriminator/accuracy_real": tf.reduce_mean(tf.cast(real_logits > 0, tf.float32)),
        }

    def _gradient_norms(self, field, whole, adversarial):
        """Norms of the weighted terms' gradients at the field [N, H, W, *], given L_adv's gradient and the sum of all.

        A norm that overflows where the optimiser scales losses, and skips such an update, counts as 0.
        """
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(field)
            big = self.lambda_big * self._big(field)
            if self.lambda_fold:
                folding = self.lambda_fold * losses.folding_loss(field)
        terms = {"adversarial": adversarial, "big": tape.gradient(big, field)}
        segmentation = whole - tf.add_n([*terms.values()])
        if self.lambda_fold:
            segmentation -= tape.gradient(folding, field)
        norms = {name: tf.norm(term) for name, term in {"segmentation": segmentation, **terms}.items()}
        if isinstance(self.warm_up.optimizer, keras.mixed_precision.LossScaleOptimizer):
            norms = {name: tf.where(tf.math.is_finite(norm), norm, 0.0) for name, norm in norms.items()}
        return {f"gradient/{name}": norm for name, norm in norms.items()}

    def _penalty(self, real):
        real = losses.packed(real, self.pack)  # what D judges as one
        with frozen_statistics(self.discriminator), tf.GradientTape() as tape:
            tape.watch(real)
            logits = tf.reduce_sum(self.discriminator(real, training=True))
        return losses.gradient_penalty(tape.gradient(logits, real))

    def _judge(self, image, real):
        """D's logits [N, 1] on generated images and on scans, from one call, so that they share batch statistics."""
        packs = [losses.packed(images, self.pack) for images in (image, real)]
        return tf.split(self.discriminator(tf.concat(packs, 0), training=True), 2)
