"""The one file that knows which TensorFlow this is, and which Keras belongs to it.

TensorFlow 2.15 carries Keras 2 and TensorFlow Addons still imports; from 2.16 on Keras 2 is the package tf-keras.
"""

from __future__ import annotations

import tensorflow as tf

keras = tf.keras
