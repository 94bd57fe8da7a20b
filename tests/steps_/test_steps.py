import itertools

import numpy as np
import pytest
import tensorflow as tf
from fast_networks import discriminator, generator, segmenter

from tfaug import losses
from tfaug.augment.learned import transform_image, transform_label
from tfaug.compat import keras
from tfaug.models.discriminator import GreyValues
from tfaug.steps import NETWORKS, Adam, AdversarialSegment, LearnAugmentation, Segment, adam
from tfaug.types import AdversarialBatch, Batch, GeneratorBatch
from tfaug.warp import warp

SIZE, N = 32, 4
WEIGHTS = (0.1, 0.3, 0.3, 0.3)


@pytest.fixture
def eager():
    """Spares the tracing, which is most of the time of a short test."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def labelled_batch(seed=0):
    rng = np.random.RandomState(seed)
    image = rng.uniform(size=(N, SIZE, SIZE, 1)).astype(np.float32)
    label = np.eye(4, dtype=np.float32)[rng.randint(0, 4, size=(N, SIZE, SIZE))]
    return Batch(tf.constant(image), tf.constant(label))


def generator_batch(seed=0, num_original=N // 2):
    rng = np.random.RandomState(seed + 1)
    return GeneratorBatch(
        labelled_batch(seed),
        tf.constant(rng.uniform(size=(N, SIZE, SIZE, 1)).astype(np.float32)),
        tf.constant(rng.normal(size=(N, 100)).astype(np.float32)),
        tf.constant(num_original),
    )


def make_step(kind="deform", norm=True, **changes):
    arguments = dict(
        learning_rate=1e-3,
        class_weights=WEIGHTS,
        lambda_seg=1.0,
        lambda_adv=1.0,
        lambda_big=1e-3,
        adversarial_form="non_saturating",
        task_gradient=True,
        discriminator_first=True,
        warmup_steps=0,
    )
    return LearnAugmentation(
        kind,
        segmenter(SIZE, 4, seed=1),
        generator(kind, SIZE, seed=2),
        discriminator(SIZE, channels=changes.get("pack", 1), seed=3, discriminator_norm=norm),
        **{**arguments, **changes},
    )


def snapshot(model):
    return [value.numpy() for value in model.variables]


def moved(model, before):
    return any(not np.array_equal(a, b) for a, b in zip(snapshot(model), before))


def networks_of(step):
    return {name: getattr(step, name) for name in NETWORKS}


@pytest.mark.parametrize("discriminator_first", [True, False])
@pytest.mark.parametrize("kind", ["deform", "intensity"])
def test_each_update_moves_its_own_network_alone(kind, discriminator_first, eager):
    """Down to the moving statistics, for every subset of the three networks."""
    step = make_step(kind, discriminator_first=discriminator_first)
    for size in (0, 1, 2, 3):
        for chosen in itertools.combinations(NETWORKS, size):
            before = {name: snapshot(model) for name, model in networks_of(step).items()}
            step.update(generator_batch(), chosen)
            for name, model in networks_of(step).items():
                assert moved(model, before[name]) == (name in chosen), (chosen, name)


def test_frozen_statistics_hold_in_a_traced_update():
    step = make_step()
    before = {name: snapshot(model) for name, model in networks_of(step).items()}
    step.update(generator_batch(), ("discriminator",))
    assert [moved(networks_of(step)[name], before[name]) for name in NETWORKS] == [True, False, False]


class Itself(keras.layers.Layer):
    """Updates a running mean, by which it divides, and a weight that is trained as well: when it is trained."""

    def build(self, shape):
        self.mean = self.add_weight("mean", (), initializer="ones", trainable=False)
        self.calls = self.add_weight("calls", (), dtype=tf.int64, initializer="zeros", trainable=False)
        self.scale = self.add_weight("scale", (), initializer="ones")

    def call(self, x, training=None):
        if training:
            self.mean.assign(0.9 * self.mean + 0.1 * tf.reduce_mean(tf.abs(x)))
            self.calls.assign_add(1)
            self.scale.assign(self.scale / 2)
        return self.scale * x / self.mean


def with_layers_that_update_themselves(**changes):
    """An update rule whose generator and discriminator have such a layer in front."""
    step = make_step(**changes)
    arguments = {name: getattr(step, name) for name in ("lambda_seg", "lambda_adv", "lambda_big", "adversarial_form")}
    arguments.update(learning_rate=1e-3, class_weights=WEIGHTS, task_gradient=True, warmup_steps=0)
    image, z = keras.Input((SIZE, SIZE, 1)), keras.Input((100,))
    g = keras.Model([image, z], step.generator([Itself(name="itself")(image), z]))
    d = keras.Model(image, step.discriminator(Itself(name="itself")(image)))
    order = {"discriminator_first": step.discriminator_first, "lambda_diversity": step.lambda_diversity, "r1": step.r1}
    return LearnAugmentation("deform", step.segmenter, g, d, **arguments, **order)


@pytest.mark.parametrize("discriminator_first", [True, False])
@pytest.mark.parametrize("traced", [True, False])
def test_layers_that_update_themselves_do_so_in_their_own_update_alone(traced, discriminator_first):
    tf.config.run_functions_eagerly(not traced)
    try:
        order = {"discriminator_first": discriminator_first}
        step, batch = with_layers_that_update_themselves(lambda_diversity=0.1, r1=1.0, **order), generator_batch()
        before = {name: snapshot(model) for name, model in networks_of(step).items()}
        tf.function(step.judge, autograph=False)(batch.labelled.image, batch.real)
        for chosen in (("segmenter",), ("generator",), ("discriminator",)):
            step.update(batch, chosen)
            for name, model in networks_of(step).items():
                assert moved(model, before[name]) == (name in chosen), (chosen, name)
                before[name] = snapshot(model)
        for name in ("generator", "discriminator"):
            assert int(getattr(step, name).get_layer("itself").calls) == 1
    finally:
        tf.config.run_functions_eagerly(False)


def test_a_layer_that_uses_what_it_keeps_gives_the_generator_one_field_an_update(eager, monkeypatch):
    step, fields = with_layers_that_update_themselves(), []
    field_of = step._field
    monkeypatch.setattr(step, "_field", lambda batch: fields.append(field_of(batch)) or fields[-1])
    step.update(generator_batch())
    np.testing.assert_array_equal(*fields)


class Position(keras.layers.Layer):
    """Adds an embedding of each row, of which it gathers a part, and has a weight without use."""

    def build(self, shape):
        self.rows = self.add_weight("rows", (2 * SIZE, 1), initializer="ones")
        self.unused = self.add_weight("unused", ())

    def call(self, x):
        return x + tf.gather(self.rows, tf.range(SIZE))[:, tf.newaxis]


@pytest.mark.parametrize("lambda_seg", [1.0, 2.0])
def test_a_segmenter_may_gather_a_weight_or_not_use_one_whatever_its_loss_weighs(lambda_seg, eager):
    step = make_step(lambda_seg=lambda_seg)
    image = keras.Input((SIZE, SIZE, 1))
    step.warm_up = Segment(keras.Model(image, step.segmenter(Position(name="position")(image))), 1e-3, WEIGHTS)
    layer = step.segmenter.get_layer("position")
    before = layer.unused.numpy()
    step.update(generator_batch())
    assert (layer.rows.numpy()[:SIZE] != 1).all() and (layer.rows.numpy()[SIZE:] == 1).all()
    assert layer.unused.numpy() == before


def test_the_three_networks_share_no_variable():
    step = make_step()
    owners = [{id(value) for value in model.variables} for model in networks_of(step).values()]
    assert sum(map(len, owners)) == len(set.union(*owners))


def test_a_full_iteration_moves_all_three_and_counts_one_update_each(eager):
    step = make_step()
    before = {name: snapshot(model) for name, model in networks_of(step).items()}
    for index in range(3):
        step(generator_batch(index), index)
    for name, model in networks_of(step).items():
        assert moved(model, before[name])
    for optimizer in (step.warm_up.optimizer, step.generator_optimizer, step.discriminator_optimizer):
        assert int(optimizer.iterations) == 3


def test_warm_up_moves_the_segmenter_alone_on_labelled_slices(eager):
    step, twin = make_step(warmup_steps=2), Segment(segmenter(SIZE, 4, seed=1), 1e-3, WEIGHTS)
    before = {name: snapshot(model) for name, model in networks_of(step).items()}
    for index in range(2):
        step(generator_batch(index), index)
        twin(labelled_batch(index), index)
    assert not moved(step.segmenter, snapshot(twin.segmenter))
    assert not moved(step.generator, before["generator"])
    assert not moved(step.discriminator, before["discriminator"])
    step(generator_batch(2), 2)
    assert moved(step.generator, before["generator"])


@pytest.mark.parametrize("kind", ["deform", "intensity"])
def test_task_gradient_is_what_lets_the_segmentation_loss_move_the_generator(kind, eager):
    for task_gradient in (True, False):
        step = make_step(kind, task_gradient=task_gradient, lambda_adv=0.0, lambda_big=0.0)
        before = [value.numpy() for value in step.generator.trainable_variables]
        step.update(generator_batch(), ("generator",))
        after = [value.numpy() for value in step.generator.trainable_variables]
        assert any(not np.array_equal(a, b) for a, b in zip(after, before)) == task_gradient


def test_the_generator_descends_the_segmentation_loss(eager):
    """With the task alone, G finds fields under which a fixed S errs less."""
    step = make_step(lambda_adv=0.0, lambda_big=0.0)
    first = step.update(generator_batch(), ("generator",))
    for _ in range(15):
        last = step.update(generator_batch(), ("generator",))
    assert last["loss/segmentation"] < first["loss/segmentation"]


@pytest.mark.parametrize("term", ["lambda_adv", "lambda_big", "lambda_seg"])
def test_a_lambda_of_zero_removes_exactly_its_term(term, eager):
    names = {"lambda_adv": "loss/adversarial", "lambda_big": "loss/big", "lambda_seg": "loss/segmentation"}
    lambdas = {"lambda_adv": 2.0, "lambda_big": 0.5, "lambda_seg": 3.0}
    step, step_without = make_step(**lambdas), make_step(**{**lambdas, term: 0.0})
    whole = step.update(generator_batch(), ("generator",))
    without = step_without.update(generator_batch(), ("generator",))
    expected = sum(lambdas[key] * float(whole[name]) for key, name in names.items() if key != term)
    np.testing.assert_allclose(without["loss/generator"], expected, rtol=1e-5)


def test_first_slices_stay_original_and_the_rest_are_generated(eager):
    """num_original = N is S on the labelled slices; 0 is S on the generated ones alone."""
    step, batch = make_step(), generator_batch()
    field = step.generator([batch.labelled.image, batch.z], training=True)
    for n in (0, 1, N):
        image = tf.concat([batch.labelled.image[:n], warp(batch.labelled.image, field)[n:]], 0)
        label = tf.concat([batch.labelled.label[:n], warp(batch.labelled.label, field)[n:]], 0)
        expected = losses.segmentation_loss(step.segmenter(image, training=True), label, WEIGHTS)
        scalars = step.update(batch._replace(num_original=tf.constant(n)), ())
        np.testing.assert_allclose(scalars["loss/segmentation"], expected, rtol=1e-4)


@pytest.mark.parametrize("form", ["saturating", "non_saturating"])
@pytest.mark.parametrize("kind", ["deform", "intensity"])
def test_the_gradients_are_those_of_equation_4_on_one_tape(kind, form, eager):
    """The update reaches them by parts, and computes G's activations twice, for the memory's sake."""
    seg, adv, big = 0.2, 1e4, 3.0  # all three are felt, though a D that has learned nothing has small gradients
    step = make_step(kind, lambda_seg=seg, lambda_adv=adv, lambda_big=big, adversarial_form=form)
    batch = generator_batch()
    (original, label), half = batch.labelled, N // 2
    with tf.GradientTape(persistent=True) as tape:
        field = step.generator([original, batch.z], training=True)
        image = transform_image(kind, original, field)
        mixed = tf.concat([original[:half], image[half:]], 0)
        mixed_label = tf.concat([label[:half], transform_label(kind, label, field)[half:]], 0)
        segmentation = losses.segmentation_loss(step.segmenter(mixed, training=True), mixed_label, WEIGHTS)
        judged = step.discriminator(tf.concat([image, batch.real], 0), training=True)[:N]
        objective = seg * segmentation + adv * losses.adversarial_loss(judged, form) + big * losses.big_loss(field)
    networks = ("generator", "segmenter")
    descended = (objective, segmentation)  # S descends L_S, whatever its weight for G
    expected = [
        tape.gradient(loss, networks_of(step)[name].trainable_variables) for loss, name in zip(descended, networks)
    ]
    step.update(batch, networks)
    for name, gradients in zip(networks, expected):
        whole = np.concatenate([gradient.numpy().ravel() for gradient in gradients])
        error = np.linalg.norm(gradients_of(optimizers_of(step)[name]) - whole)
        assert error < 1e-4 * np.linalg.norm(whole), name


def test_discriminator_learns_to_tell_apart(eager):
    step = make_step()
    for _ in range(30):
        scalars = step.update(generator_batch(), ("discriminator",))
    assert scalars["discriminator/accuracy_fake"] == 1 and scalars["discriminator/accuracy_real"] == 1


@pytest.mark.parametrize("pack", [1, 2])
def test_the_discriminator_descends_the_gradient_penalty_at_what_it_judges(pack, eager):
    """Its gradients with a penalty less those without are those of the penalty."""
    batch, weight, found = generator_batch(), 1e4, []
    for r1 in (0.0, weight):
        step = make_step(norm=False, r1=r1, pack=pack)
        d = make_step(norm=False, pack=pack).discriminator
        step.update(batch, ("discriminator",))
        found.append(gradients_of(step.discriminator_optimizer))
    with tf.GradientTape() as tape:
        judged = losses.packed(batch.real, pack)
        with tf.GradientTape() as inner:
            inner.watch(judged)
            logits = d(judged, training=True)
        penalty = weight * losses.gradient_penalty(inner.gradient(logits, judged))
    parts = tape.gradient(penalty, d.trainable_variables, unconnected_gradients="zero")
    expected = np.concatenate([part.numpy().ravel() for part in parts])
    assert np.linalg.norm(expected) > 0
    assert np.linalg.norm(found[1] - found[0] - expected) < 1e-3 * np.linalg.norm(expected)


def test_the_adversaries_may_learn_otherwise_than_the_segmenter():
    optimizers = optimizers_of(make_step(discriminator_rate=0.25, generator_rate=0.1, beta_1=0.5))
    rates = {name: float(optimizer.learning_rate) for name, optimizer in optimizers.items()}
    assert rates == pytest.approx({"discriminator": 2.5e-4, "generator": 1e-4, "segmenter": 1e-3})
    momenta = {name: optimizer.beta_1 for name, optimizer in optimizers.items()}
    assert momenta == {"discriminator": 0.5, "generator": 0.5, "segmenter": 0.9}


@pytest.mark.parametrize("form", ["difference", "volume"])
def test_a_reward_of_diversity_makes_fields_differ_over_z(form, eager):
    changes = {"lambda_adv": 0.0, "diversity": form, "big_limit": 1.0}
    steps = [make_step("intensity", lambda_diversity=weight, **changes) for weight in (0.0, 100.0)]
    batch = generator_batch()
    other = tf.roll(batch.z, 1, axis=0)
    spread = []
    for step in steps:
        for _ in range(5):
            scalars = step.update(batch, ("generator",))
        assert ("loss/diversity" in scalars) == (step is steps[1])
        fields = [step.generator([batch.labelled.image, z], training=True) for z in (batch.z, other)]
        spread.append(float(tf.reduce_mean(tf.abs(fields[0] - fields[1]))))
    assert spread[1] > 1.1 * spread[0]


def test_a_translation_may_be_left_out_of_what_l_big_rewards(eager):
    """Then G learns as if its fields had no mean; of G_I there is nothing to leave out."""
    batch, without = generator_batch(), losses.without_translation
    gradients = {}
    for big_of in ("displacement", "deformation"):
        step = make_step(lambda_adv=0.0, lambda_big=1e4, lambda_diversity=1e3, task_gradient=False, big_of=big_of)
        step.update(batch, ("generator",))
        gradients[big_of] = gradients_of(step.generator_optimizer)
    step, z = make_step(), tf.roll(batch.z, 1, axis=0)
    with tf.GradientTape() as tape:
        field, other = (step.generator([batch.labelled.image, z], training=True) for z in (batch.z, z))
        loss = 1e4 * losses.big_loss(without(field)) + 1e3 * losses.diversity_loss(without(field), without(other))
    parts = tape.gradient(loss, step.generator.trainable_variables)
    expected = np.concatenate([part.numpy().ravel() for part in parts])
    assert np.linalg.norm(gradients["deformation"] - expected) < 1e-3 * np.linalg.norm(expected)
    assert np.linalg.norm(gradients["displacement"] - expected) > 0.1 * np.linalg.norm(expected)
    assert make_step("intensity", big_of="deformation")._rewarded is tf.identity


def test_a_reward_of_strain_makes_fields_stretch(eager):
    changes = {"lambda_adv": 0.0, "big_of": "strain", "task_gradient": False}
    steps = [make_step(lambda_big=weight, **changes) for weight in (0.0, 100.0)]
    batch, strains = generator_batch(), []
    for step in steps:
        for weights in step.generator.trainable_variables[-2:]:  # a rough field has all the strain that counts
            weights.assign(0.02 * weights)
        for _ in range(5):
            step.update(batch, ("generator",))
        strains.append(tf.reduce_mean(tf.abs(losses.strain(step.generator([batch.labelled.image, batch.z])))))
    assert strains[1] > 1.1 * strains[0]


def test_a_cost_on_folding_makes_the_deformation_smoother(eager):
    steps = [make_step(lambda_fold=weight, lambda_adv=0.0, lambda_big=0.1) for weight in (0.0, 1e3)]
    batch = generator_batch()
    for step in steps:
        for _ in range(5):
            step.update(batch, ("generator",))
    folding = [float(losses.folding_loss(step.generator([batch.labelled.image, batch.z]))) for step in steps]
    assert folding[1] < folding[0]


def test_a_packs_channels_are_images_from_all_over_the_batch():
    images = tf.reshape(tf.range(5 * 2 * 3 * 2), [5, 2, 3, 2])
    packs = losses.packed(images, 2)
    assert packs.shape == (2, 2, 3, 4)
    for k in range(4):
        np.testing.assert_array_equal(packs[k % 2, ..., 2 * (k // 2) : 2 * (k // 2) + 2], images[k])
    assert losses.packed(images, 1) is images


def test_a_discriminator_of_packs_sees_that_generated_images_are_all_alike(eager):
    """And one of single images, which are all as likely, does not."""
    dark, bright = tf.zeros([N // 2, SIZE, SIZE, 1]), tf.ones([N // 2, SIZE, SIZE, 1])
    scans = tf.concat([dark, bright], 0)  # each pack holds both
    loss = {}
    for pack in (1, 2):
        step = make_step("intensity", norm=False, pack=pack)
        for k in range(60):
            alike = dark if k % 2 else bright
            loss[pack] = step._discriminate(tf.concat([alike, alike], 0), scans, update=True)["loss/discriminator"]
    assert loss[1] > 1.9 * np.log(2) and loss[2] < 1.4 * np.log(2)  # chance is 2 log 2


def test_the_energy_distance_takes_the_place_of_the_discriminator(eager):
    """G learns what the scans' grey values are; D, which nobody asks, stays as it was."""
    batch = generator_batch()
    batch = batch._replace(real=batch.labelled.image + 0.5)
    seen = GreyValues(batch.real)
    step = make_step("intensity", adversarial_form="energy", lambda_seg=0.001, pack=2, grey_values=seen)
    before = [variable.numpy() for variable in step.discriminator.variables]
    losses_ = [step.update(batch) for _ in range(30)]
    assert losses_[-1]["loss/adversarial"] < losses_[0]["loss/adversarial"]
    assert not any(name.startswith("discriminator/") for name in losses_[0])
    for variable, value in zip(step.discriminator.variables, before):
        np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize("draws", [1, 2])
def test_the_energy_distance_is_that_of_each_slices_draws_from_the_scans(draws, eager):
    """Slices that are N // draws apart are draws of one; with a single draw all slices are drawn from one kind."""
    batch = generator_batch()
    seen = GreyValues(batch.real)
    step = make_step(
        "intensity", adversarial_form="energy", lambda_seg=0.5, lambda_adv=3.0, pack=draws, grey_values=seen
    )
    (original, label), half = batch.labelled, N // 2
    kinds = [range(N)] if draws == 1 else [range(k, N, N // draws) for k in range(N // draws)]

    def mean_distance(some, others):
        apart = [tf.reduce_mean(tf.abs(a - b)) for i, a in some for j, b in others if i != j]
        return tf.add_n(apart) / len(apart)

    with tf.GradientTape() as tape:
        image = original + step.generator([original, batch.z], training=True)
        values = list(enumerate(tf.unstack(seen(image))))
        scans = [(f"scan {k}", value) for k, value in enumerate(tf.unstack(seen(batch.real)))]
        energy = [
            mean_distance(kind, scans) - 0.5 * mean_distance(kind, kind) - 0.5 * mean_distance(scans, scans)
            for kind in ([values[k] for k in slices] for slices in kinds)
        ]
        energy = tf.add_n(energy) / len(energy)
        logits = step.segmenter(tf.concat([original[:half], image[half:]], 0), training=True)
        segmentation = losses.segmentation_loss(logits, label, WEIGHTS)
        objective = 0.5 * segmentation + 3.0 * energy + 1e-3 * losses.big_loss(image - original)
    gradients = tape.gradient(objective, step.generator.trainable_variables)
    expected = np.concatenate([gradient.numpy().ravel() for gradient in gradients])
    scalars = step.update(batch, ("generator",))
    np.testing.assert_allclose(scalars["loss/adversarial"], energy, rtol=1e-4)
    error = np.linalg.norm(gradients_of(step.generator_optimizer) - expected)
    assert error < 1e-3 * np.linalg.norm(expected)


@pytest.mark.parametrize("form", ["non_saturating", "energy"])
@pytest.mark.parametrize("first", [True, False])
def test_moving_statistics_follow_one_pass_of_each_network(first, form, eager):
    """G runs up to four times in an update, and D up to three; statistics that moved with each would run ahead."""
    batch = generator_batch()
    changes = {"lambda_diversity": 0.1, "r1": 0.1, "discriminator_first": first, "adversarial_form": form}
    step, twin = (make_step("intensity", **changes, grey_values=GreyValues(batch.real)) for _ in range(2))
    image = batch.labelled.image + twin.generator([batch.labelled.image, batch.z], training=True)
    step.update(batch)
    networks = ("generator", "discriminator")
    found = {name: [value.numpy() for value in getattr(step, name).non_trainable_variables] for name in networks}
    if not first:  # D judges what the updated G makes
        image = batch.labelled.image + step.generator([batch.labelled.image, batch.z], training=True)
    if form == "non_saturating":  # else nobody asks D
        twin.discriminator(tf.concat([image, batch.real], 0), training=True)
    for name in networks:
        for value, expected in zip(found[name], getattr(twin, name).non_trainable_variables):
            np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


def test_order_decides_whose_discriminator_judges(eager):
    """D first: G meets the updated D. The released order: G meets the old one."""
    released, default, fixed = make_step(discriminator_first=False), make_step(), make_step()
    old = released.update(generator_batch())["loss/adversarial"]
    new = default.update(generator_batch())["loss/adversarial"]
    untouched = fixed.update(generator_batch(), ())["loss/adversarial"]
    np.testing.assert_allclose(old, untouched, rtol=1e-5)
    assert abs(float(new) - float(untouched)) > 1e-4


def make_adversarial(semi_supervised, lambda_adv):
    return AdversarialSegment(
        segmenter(SIZE, 4, seed=1),
        discriminator(SIZE, channels=5, seed=3),
        semi_supervised,
        learning_rate=1e-3,
        class_weights=WEIGHTS,
        lambda_adv=lambda_adv,
    )


def adversarial_batch(semi_supervised):
    labelled = labelled_batch()
    return AdversarialBatch(labelled, generator_batch().real) if semi_supervised else labelled


def test_supervised_adversary_of_weight_zero_is_plain_training(eager):
    step, twin = make_adversarial(False, 0.0), Segment(segmenter(SIZE, 4, seed=1), 1e-3, WEIGHTS)
    step(adversarial_batch(False), 0)
    twin(labelled_batch(), 0)
    assert not moved(step.segmenter, snapshot(twin.segmenter))


@pytest.mark.parametrize("semi_supervised", [False, True])
def test_both_networks_learn_and_the_adversary_matters(semi_supervised, eager):
    with_adversary, without = make_adversarial(semi_supervised, 1.0), make_adversarial(semi_supervised, 0.0)
    before = snapshot(with_adversary.discriminator)
    for step in (with_adversary, without):
        step(adversarial_batch(semi_supervised), 0)
    assert moved(with_adversary.discriminator, before)
    assert moved(with_adversary.segmenter, snapshot(without.segmenter))
    assert not moved(with_adversary.discriminator, snapshot(without.discriminator))


@pytest.mark.parametrize("semi_supervised", [False, True])
def test_the_gradients_against_an_adversary_are_those_of_its_losses_on_one_tape(semi_supervised, eager):
    """Which pairs D calls real, what each network descends, and of which sign and weight L_adv is in S's."""
    weight = 1e4  # felt, though a D that has learned nothing has small gradients
    step, batch = make_adversarial(semi_supervised, weight), adversarial_batch(semi_supervised)
    step.discriminator_optimizer.learning_rate = 0.0  # S then meets the same D as below
    image, label = batch.labelled if semi_supervised else batch
    with tf.GradientTape(persistent=True) as tape:
        images = tf.concat([image, batch.unlabelled], 0) if semi_supervised else image
        logits = step.segmenter(images, training=True)
        maps = tf.nn.softmax(logits)
        if semi_supervised:
            real = tf.concat([image, tf.stop_gradient(maps[:N])], -1)
            fake = tf.concat([batch.unlabelled, maps[N:]], -1)
        else:
            real, fake = tf.concat([image, label], -1), tf.concat([image, maps], -1)
        judged = step.discriminator(tf.concat([fake, real], 0), training=True)
        taken_for_real, known = tf.sigmoid(judged[:N]), tf.sigmoid(judged[N:])
        objectives = {
            "segmenter": losses.segmentation_loss(logits[:N], label, WEIGHTS)
            - weight * tf.reduce_mean(tf.math.log(taken_for_real)),
            "discriminator": -tf.reduce_mean(tf.math.log(known)) - tf.reduce_mean(tf.math.log(1 - taken_for_real)),
        }
    expected = {
        name: np.concatenate(
            [gradient.numpy().ravel() for gradient in tape.gradient(objective, getattr(step, name).trainable_variables)]
        )
        for name, objective in objectives.items()
    }
    step(batch, 0)
    for name, whole in expected.items():
        error = np.linalg.norm(gradients_of(getattr(step, f"{name}_optimizer")) - whole)
        assert error < 1e-4 * np.linalg.norm(whole), name


def test_unlabelled_scans_matter_to_the_semi_supervised_adversary(eager):
    one, two = make_adversarial(True, 1.0), make_adversarial(True, 1.0)
    one(adversarial_batch(True), 0)
    two(adversarial_batch(True)._replace(unlabelled=generator_batch(5).real), 0)
    assert moved(one.segmenter, snapshot(two.segmenter))


def test_semi_supervised_adversary_does_not_pull_at_the_labelled_predictions(eager):
    """They are what the unlabelled predictions should look like, not the other way round."""
    step = make_adversarial(True, 1.0)
    with tf.GradientTape() as tape:
        _, real, _ = step._predict(adversarial_batch(True))
        total = tf.reduce_sum(real[..., 1:] ** 2)
    assert all(gradient is None for gradient in tape.gradient(total, step.segmenter.trainable_variables))


EXACT = 1 - 2**-10  # beyond it float32 has no rounding to do in 1 - beta2


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("beta_2, of_slots", [(EXACT, 1e-6), (0.999, 2e-5)])
def test_fused_adam_is_the_adam_of_keras(precision, beta_2, of_slots):
    rng = np.random.RandomState(0)
    gradients = [[rng.normal(size=shape).astype(np.float32) for shape in ((3, 2), (2,))] for _ in range(5)]
    weights, slots = [], []
    for kind in (Adam, keras.optimizers.Adam):
        model = keras.Sequential([keras.layers.Dense(2, input_shape=(3,), dtype=precision)])
        model.set_weights([np.ones((3, 2)), np.ones(2)])
        optimizer = kind(0.01, beta_1=0.9, beta_2=beta_2)
        optimizer.build(model.trainable_variables)
        for gradient in gradients:
            optimizer.apply_gradients(zip(map(tf.constant, gradient), model.trainable_variables))
        weights.append(model.get_weights())
        slots.append([value.numpy() for value in optimizer.variables])
    for pairs, rtol in ((zip(*weights), 1e-6), (zip(*slots), of_slots)):
        for actual, expected in pairs:
            np.testing.assert_allclose(actual, expected, rtol=rtol)


def test_adam_has_the_papers_betas():
    config = adam(segmenter(SIZE, 4), 1e-3).get_config()
    assert (config["beta_1"], config["beta_2"]) == (0.9, 0.999)
    np.testing.assert_allclose(config["learning_rate"], 1e-3, rtol=1e-6)


def gradients_of(optimizer):
    """After one update: Adam's first moments are a tenth of them."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return 10 * np.concatenate([moment.numpy().ravel() for moment in optimizer._momentums])


def optimizers_of(step):
    return {
        "discriminator": step.discriminator_optimizer,
        "generator": step.generator_optimizer,
        "segmenter": step.warm_up.optimizer,
    }


def in_precision(precision, **changes):
    keras.mixed_precision.set_global_policy(precision)
    try:
        return make_step(**changes)
    finally:
        keras.mixed_precision.set_global_policy("float32")


def test_float16_loses_no_small_gradients(eager):
    """They would vanish unscaled, below 6e-8. bfloat16 reaches lower, but is coarser."""
    weak = {"class_weights": [1e-4 * weight for weight in WEIGHTS], "lambda_adv": 1e-4, "lambda_big": 0.0}
    steps = [in_precision(precision, **weak) for precision in ("float32", "mixed_float16", "mixed_bfloat16")]
    for step in steps:
        step.update(generator_batch())
    for name in NETWORKS:
        exact, half, brain = (gradients_of(optimizers_of(step)[name]) for step in steps)
        assert np.linalg.norm(half - exact) < np.linalg.norm(brain - exact), name


def test_float16_skips_an_update_that_overflows_and_scales_less(eager):
    step = in_precision("mixed_float16", class_weights=[1e9 * weight for weight in WEIGHTS])
    before = {name: [w.numpy() for w in model.trainable_weights] for name, model in networks_of(step).items()}
    step.update(generator_batch())
    same = {
        name: all(np.array_equal(w.numpy(), old) for w, old in zip(model.trainable_weights, before[name]))
        for name, model in networks_of(step).items()
    }
    assert same == {"discriminator": False, "generator": True, "segmenter": True}
    scales = {name: float(optimizer.loss_scale) for name, optimizer in optimizers_of(step).items()}
    assert scales["segmenter"] == scales["discriminator"] / 2
