"""How large a generator's means over pixels are in bfloat16, over their size in float32: initial weights, grey noise.

    python docs/results/acdc/bfloat16/means.py

The means of G_I over a slice, and those of G_V over the cells between its control points. At commit e3e8832 not
all of them are 1.
"""

import numpy as np
import tensorflow as tf

from tfaug.compat import keras
from tfaug.models.generator import generator

MEANS = {"whole_slice": "intensity", "control_points": "deform"}


def means(layer: str, policy: str, side: int, control_px: int) -> np.ndarray:
    """Of eight slices of `side` pixels along a side, [8, C] or [8, side / control_px, side / control_px, C]."""
    draw = np.random.default_rng(0)
    inputs = [draw.uniform(0, 1, (8, side, side, 1)), draw.normal(size=(8, 100))]
    keras.mixed_precision.set_global_policy(policy)
    form = {"intensity": "quantiles", "curve_knots": 32, "deformation": "coarse", "control_px": control_px}
    model = generator(MEANS[layer], side, norm_momentum=0.9, seed=3, **form)
    inner = keras.Model(model.inputs, model.get_layer(layer).output)
    return tf.cast(inner([tf.constant(array, tf.float32) for array in inputs], training=True), tf.float32).numpy()


if __name__ == "__main__":
    for layer in MEANS:
        for side, control_px in ((64, 8), (128, 16), (224, 32)):
            ours, exact = (means(layer, policy, side, control_px) for policy in ("mixed_bfloat16", "float32"))
            over = f"{control_px} x {control_px} pixels" if layer == "control_points" else "a slice"
            print(f"{side} x {side}, {over}: {np.linalg.norm(ours) / np.linalg.norm(exact):.2f}")
