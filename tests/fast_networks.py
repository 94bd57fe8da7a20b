"""Small networks for tests that are not about networks: they are built, traced and run several times faster.

In a config they are `fast_networks:segmenter` and so on, see `FAST`; conftest.py lets programs find them.
"""

from tfaug.compat import keras

layers = keras.layers
FAST = tuple(f"--config.model.{role}=fast_networks:{role}" for role in ("segmenter", "generator", "discriminator"))


def segmenter(image_size, num_classes, channels=1, filters=4, norm_momentum=0.9, seed=0):
    image = keras.Input((image_size, image_size, channels))
    x = _conv(image, filters, seed)
    x = layers.Activation("relu")(layers.BatchNormalization(momentum=norm_momentum)(x))
    return keras.Model(image, layers.Activation("linear", dtype="float32")(_conv(x, num_classes, seed + 1)))


def generator(kind, image_size, channels=1, filters=4, norm_momentum=0.9, seed=0):
    image, z = keras.Input((image_size, image_size, channels)), keras.Input((100,))
    drawn = layers.Dense(filters, kernel_initializer=_initial(seed + 2))(z)
    drawn = layers.UpSampling2D(image_size)(layers.Reshape((1, 1, filters))(drawn))
    x = layers.BatchNormalization(momentum=norm_momentum)(layers.Concatenate()([_conv(image, filters, seed), drawn]))
    field = _conv(layers.Activation("relu")(x), 2 if kind == "deform" else channels, seed + 1)
    return keras.Model([image, z], layers.Activation("linear" if kind == "deform" else "tanh", dtype="float32")(field))


def discriminator(image_size, channels=1, filters=4, norm_momentum=0.9, discriminator_norm=True, seed=0):
    image = keras.Input((image_size, image_size, channels))
    x = layers.Conv2D(filters, 5, strides=4, use_bias=not discriminator_norm, kernel_initializer=_initial(seed))(image)
    if discriminator_norm:
        x = layers.BatchNormalization(momentum=norm_momentum)(x)
    x = layers.Dense(1, dtype="float32", kernel_initializer=_initial(seed + 1))(layers.Flatten()(layers.ReLU()(x)))
    return keras.Model(image, x)


def _conv(x, filters, seed):
    return layers.Conv2D(filters, 3, padding="same", kernel_initializer=_initial(seed))(x)


def _initial(seed):
    return keras.initializers.GlorotUniform(seed=seed)
