"""Lets an older commit train in bfloat16 on a processor without instructions for it, with sums in float32 as they have.

    PYTHONPATH=THIS_FOLDER python train.py ...

What convolves in `tfaug.models.blocks.conv` today, for commits that leave it to TensorFlow.
"""

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as tfaug does, which is imported later
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from tensorflow.python.ops import gen_nn_ops

_conv2d, _bias_add = gen_nn_ops.conv2d, gen_nn_ops.bias_add


def conv2d(input, filter, *args, **kwargs):
    """TensorFlow's, but of bfloat16 in float32, and rounded to bfloat16 again."""
    if input.dtype != tf.bfloat16:
        return _conv2d(input, filter, *args, **kwargs)
    return tf.cast(_conv2d(tf.cast(input, tf.float32), tf.cast(filter, tf.float32), *args, **kwargs), tf.bfloat16)


def bias_add(value, bias, *args, **kwargs):
    """TensorFlow's, but of bfloat16 in float32, and rounded to bfloat16 again."""
    if value.dtype != tf.bfloat16:
        return _bias_add(value, bias, *args, **kwargs)
    return tf.cast(_bias_add(tf.cast(value, tf.float32), tf.cast(bias, tf.float32), *args, **kwargs), tf.bfloat16)


gen_nn_ops.conv2d, gen_nn_ops.bias_add = conv2d, bias_add
