"""How large G_I's mean over a slice is in bfloat16, over its size in float32, with initial weights and grey noise.

    python docs/results/acdc/bfloat16/whole_slice.py

At commit e3e8832 it is not 1.
"""

import numpy as np
import tensorflow as tf

from tfaug.compat import keras
from tfaug.models.generator import generator


def means(policy: str, side: int) -> np.ndarray:
    """Of eight slices of `side` pixels along a side, [8, C]."""
    draw = np.random.default_rng(0)
    inputs = [draw.uniform(0, 1, (8, side, side, 1)), draw.normal(size=(8, 100))]
    keras.mixed_precision.set_global_policy(policy)
    model = generator("intensity", side, intensity="quantiles", curve_knots=32, norm_momentum=0.9, seed=3)
    inner = keras.Model(model.inputs, model.get_layer("whole_slice").output)
    return tf.cast(inner([tf.constant(array, tf.float32) for array in inputs], training=True), tf.float32).numpy()


if __name__ == "__main__":
    for side in (64, 128, 224):
        ratio = np.linalg.norm(means("mixed_bfloat16", side)) / np.linalg.norm(means("float32", side))
        print(f"{side} x {side}: {ratio:.2f}")
