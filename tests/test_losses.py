import numpy as np
import pytest
import tensorflow as tf

from tfaug import losses

LOGITS = np.array([[-2.0], [0.5], [2.0]], np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_adversarial_forms_are_equation_5_and_the_released_program():
    saturating = losses.adversarial_loss(tf.constant(LOGITS), "saturating")
    np.testing.assert_allclose(saturating, np.log(1 - sigmoid(LOGITS)).mean(), rtol=1e-5)
    non_saturating = losses.adversarial_loss(tf.constant(LOGITS), "non_saturating")
    np.testing.assert_allclose(non_saturating, -np.log(sigmoid(LOGITS)).mean(), rtol=1e-5)
    with pytest.raises(ValueError, match="wgan"):
        losses.adversarial_loss(tf.constant(LOGITS), "wgan")


def test_discriminator_loss_is_equation_6():
    expected = -np.log(sigmoid(LOGITS + 1)).mean() - np.log(1 - sigmoid(LOGITS)).mean()
    loss = losses.discriminator_loss(tf.constant(LOGITS), tf.constant(LOGITS + 1))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_big_loss_rewards_size():
    assert float(losses.big_loss(tf.constant([[1.0, -3.0]]))) == -2


def test_big_loss_rewards_nothing_beyond_its_limit():
    assert float(losses.big_loss(tf.constant([[1.0, -3.0]]), limit=2.0)) == -1.5


def test_a_deformation_without_its_translation_has_no_mean():
    field = tf.constant(np.random.default_rng(0).normal(1, 3, size=(2, 4, 5, 2)), tf.float32)
    left = losses.without_translation(field)
    np.testing.assert_allclose(tf.reduce_mean(left, axis=[1, 2]), 0, atol=1e-6)
    np.testing.assert_allclose(left, losses.without_translation(field + 7), atol=1e-5)
    np.testing.assert_allclose(field - left, tf.broadcast_to((field - left)[:, :1, :1], field.shape), atol=1e-6)


def test_strain_is_of_stretching_and_bounded():
    rows = np.arange(6, dtype=np.float32)[:, None] * np.ones(5, np.float32)
    for slope in (0.03, 30.0):
        found = losses.strain(tf.constant(np.stack([slope * rows + 7, 0 * rows], -1)[None])).numpy()
        np.testing.assert_allclose(found[..., 0], np.tanh(slope / 0.3), rtol=1e-3)
        np.testing.assert_array_equal(found[..., 1:], 0)


def test_diversity_is_the_mean_difference_up_to_the_limit():
    one, other = tf.constant([[1.0, -3.0]]), tf.constant([[1.5, 1.0]])
    assert float(losses.diversity_loss(one, other)) == -2.25
    assert float(losses.diversity_loss(one, other, limit=1.0)) == -0.75


def test_a_volume_counts_the_directions_of_differences():
    zero = tf.zeros([2, 1, 2, 1])
    one, same = tf.constant([[3.0, 0.0], [0.0, 3.0]]), tf.constant([[3.0, 0.0], [3.0, 0.0]])
    two_ways, one_way = (losses.volume_loss(tf.reshape(field, zero.shape), zero, 1.5) for field in (one, same))
    np.testing.assert_allclose(two_ways, -np.log(3), rtol=1e-5)  # 1 + 2^2 / 2 for each of two
    np.testing.assert_allclose(one_way, -np.log(5) / 2, rtol=1e-5)  # 1 + 2 * 2^2 / 2 for both together
    assert losses.volume_loss(zero, zero, 1.0) == 0


def test_folding_costs_and_moving_does_not():
    rows, columns = np.indices((8, 8), np.float32)

    def cost(v_row, v_column):
        return float(losses.folding_loss(tf.constant(np.stack([v_row, v_column], -1)[None])))

    assert cost(0 * rows + 5, 0 * rows - 7) == 0  # a translation
    assert cost(0.5 * rows, -3 * columns) == 0  # shrinks rows by half, stretches columns
    assert cost(2 * rows, 0 * rows) == pytest.approx(1.2)  # x - 2 x: mirrored, a determinant of -1
    assert cost(0 * rows, np.where(columns == 4, 2, 0)) == pytest.approx(1.2 / 7)  # one column passes the next
    assert cost(columns, rows) == pytest.approx(0.2)  # onto a line, a determinant of 0
    assert cost(columns, -rows) == 0  # turned and stretched, one of 2


def test_energy_distance_is_0_in_the_mean_if_all_kinds_are_drawn_as_scans_are():
    rng = np.random.default_rng(0)

    def estimates(shift, spread):
        kinds = np.array([[[0.0]], [[shift]]]).transpose(1, 0, 2) + spread * rng.normal(size=(2000, 4, 2, 3))
        scans = rng.normal(size=(2000, 6, 3))
        return np.array([float(losses.energy_distance(k, s)) for k, s in zip(kinds, scans)])

    alike = estimates(0, 1)
    assert abs(alike.mean()) < 3 * alike.std() / np.sqrt(len(alike))
    for other in (estimates(0, 0.3), estimates(0, 3), estimates(1, 1)):  # one kind alone moved, in the last
        assert other.mean() > 0.05


def test_energy_distance_has_a_gradient_where_all_samples_are_the_same():
    samples = tf.zeros([3, 2, 4])
    with tf.GradientTape() as tape:
        tape.watch(samples)
        loss = losses.energy_distance(samples, tf.ones([5, 4]))
    assert np.isfinite(tape.gradient(loss, samples)).all()


def test_gradient_penalty_is_half_the_squared_norm_of_a_slice():
    gradient = tf.ones([3, 2, 2, 1]) * [[[[1.0]]], [[[2.0]]], [[[0.0]]]]
    assert float(losses.gradient_penalty(gradient)) == pytest.approx(10 / 3)


def test_segmentation_loss_weighs_pixels_by_their_class_and_soft_pixels_by_the_mean():
    logits = tf.zeros([1, 1, 3, 4])
    label = tf.constant([[[[1.0, 0, 0, 0], [0, 0, 1, 0], [0.5, 0.5, 0, 0]]]])
    loss = losses.segmentation_loss(logits, label, (0.1, 0.3, 0.3, 0.3))
    np.testing.assert_allclose(loss, np.log(4) * (0.1 + 0.3 + 0.2) / 3, rtol=1e-6)
