"""The benchmarks' workloads: the project's own networks, steps and pipelines, on volumes of noise.

Each function that returns a `Job` is meant for a process of its own, as it changes global settings of TensorFlow.
Learning rates, weights and batches are those of `configs/acdc.py`; none of these values affects the cost of a step.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from benchmarks.timing import Job
from tfaug import inference, losses, streams
from tfaug.augment.affine import Affine
from tfaug.augment.compose import Augmenter
from tfaug.augment.learned import Learned
from tfaug.augment.methods import METHODS
from tfaug.compat import keras
from tfaug.data import pipeline, preprocess
from tfaug.engine import determinism
from tfaug.models.blocks import Upsample
from tfaug.models.discriminator import discriminator
from tfaug.models.generator import KINDS, generator
from tfaug.models.unet import unet
from tfaug.phantom import cohort
from tfaug.steps import LearnAugmentation, Segment
from tfaug.types import Volume

SEED = 0
SLICES = 10  # of each volume of noise
LEARNING_RATE = 1e-3
CLASS_WEIGHTS = (0.1, 0.3, 0.3, 0.3)
NUM_CLASSES = len(CLASS_WEIGHTS)
UNLABELLED = 25  # volumes (paper, section 4)
BACKWARD = 2  # gradients for a layer's input and its weights: two products, each as large as the forward one

Make = Callable  # function from a step number to its batch, see `pipeline`


def segment_iterations(size: int, batch: int, precision: str, method: str = "aff", num_steps: int = 1) -> Job:
    """Iterations of training S, input pipeline included."""
    _set_up(precision)
    step, make, gflop = _segment(size, batch, method)
    return _iterations(step, make, num_steps, {"gflop": gflop * num_steps, "data_mib": _mebibytes(size, 1)})


def learn_iterations(
    size: int,
    batch: int,
    precision: str,
    task_gradient: bool = True,
    volumes: int = UNLABELLED,
    num_steps: int = 1,
) -> Job:
    """Iterations of learning G_V, input pipeline included."""
    _set_up(precision)
    step, make, gflop = _learn(size, batch, task_gradient, volumes)
    return _iterations(step, make, num_steps, {"gflop": gflop * num_steps, "data_mib": _mebibytes(size, volumes)})


def segment_updates(size: int, batch: int, precision: str) -> Job:
    """Updates of S on one batch made beforehand."""
    _set_up(precision)
    step, make, gflop = _segment(size, batch, "aff")
    one = next(pipeline.iterate(make, 0))
    return Job(lambda: _wait_for(step(one, 0)), {"gflop": gflop})


def segment_waiting(size: int, batch: int, precision: str, method: str, num_steps: int) -> Job:
    """`waiting` for the training of S with a method, whose generators are untrained."""
    _set_up(precision)
    step, make, _ = _segment(size, batch, method)
    return waiting(step, make, num_steps)


def learn_waiting(size: int, batch: int, precision: str, num_steps: int) -> Job:
    """`waiting` for the learning of G_V."""
    _set_up(precision)
    step, make, _ = _learn(size, batch, task_gradient=True, volumes=UNLABELLED)
    return waiting(step, make, num_steps)


def waiting(step: Callable, make: Make, num_steps: int) -> Job:
    """Iterations with their pipeline, then as many steps on one batch, then as many batches without a step.

    Its numbers are mean seconds: of an iteration, of its wait for a batch, of a step while no pipeline runs, and of
    making a batch while no step runs.
    """
    batches, make_now = pipeline.iterate(make, 0), tf.function(make)

    def run() -> dict[str, float]:
        waited, start = 0.0, time.perf_counter()
        for index in range(num_steps):
            asked = time.perf_counter()
            one = next(batches)
            waited += time.perf_counter() - asked
            scalars = step(one, index)
        _wait_for(scalars)
        iterations = time.perf_counter() - start
        time.sleep(0.2)  # lets the pipeline fill its prefetch buffer
        return {
            "iteration": iterations / num_steps,
            "waited": waited / num_steps,
            "step": _mean_seconds(lambda index: _wait_for(step(one, index)), num_steps),
            "batch": _mean_seconds(lambda index: make_now(tf.constant(index, tf.int64)), num_steps),
        }

    return Job(run)


def plain_keras(size: int, batch: int, precision: str) -> Job:
    """`train_on_batch` of the same U-Net, compiled as a Keras user would, with the released program's biases."""
    keras.mixed_precision.set_global_policy(precision)
    segmenter = keras.models.clone_model(unet(size, NUM_CLASSES), clone_function=_with_bias)
    segmenter.compile(
        optimizer=keras.optimizers.Adam(LEARNING_RATE),
        loss=lambda label, logits: losses.segmentation_loss(logits, label, CLASS_WEIGHTS),
    )
    image, label = next(pipeline.iterate(_labelled(size, batch, "aff"), 0))

    def run() -> None:
        segmenter.train_on_batch(image, label)

    return Job(run, {"gflop": batch * (1 + BACKWARD) * gflop_per_slice(segmenter)})


def predictions(size: int, batch: int, precision: str, patients: int) -> Job:
    """From prepared scans to masks on their own grids, as `evaluation.segment` does; a `batch` of 1 is slice by slice.

    Its numbers: seconds for the network and for restoring the grid, summed over all volumes.
    """
    _set_up(precision)
    predict = inference.predictor(unet(size, NUM_CLASSES, seed=SEED), batch)
    resolution = 1.36719 * 224 / size
    scans = [
        preprocess.prepare_volume(scan, preprocess.Spec(size, resolution, n4_shrink=0)) for scan in _patients(patients)
    ]

    def run() -> dict[str, float]:
        network = restoring = 0.0
        for scan in scans:
            start = time.perf_counter()
            probabilities = predict(scan.image)
            between = time.perf_counter()
            preprocess.restore(probabilities, scan.grid)
            network, restoring = network + between - start, restoring + time.perf_counter() - between
        return {"network": network, "restore": restoring}

    return Job(run, {"volumes": len(scans), "slices": sum(len(scan.image) for scan in scans)})


def whole_predictions(size: int, batch: int, precision: str, patients: int, n4_shrink: int) -> Job:
    """From scans in memory to masks on their own grids, as `tfaug predict` does between reading and writing.

    Its number: seconds for the network, summed over all volumes.
    """
    _set_up(precision)
    predict = inference.predictor(unet(size, NUM_CLASSES, seed=SEED), batch)
    spec, scans = preprocess.Spec(size, 1.36719 * 224 / size, n4_shrink), list(_patients(patients))

    def run() -> dict[str, float]:
        network = 0.0
        for scan in scans:
            prepared = preprocess.prepare_volume(scan, spec)
            start = time.perf_counter()
            probabilities = predict(prepared.image)
            network += time.perf_counter() - start
            preprocess.restore(probabilities, prepared.grid)
        return {"network": network}

    return Job(run, {"slices": sum(scan.image.shape[2] for scan in scans)})


def gflop_per_slice(model: keras.Model) -> float:
    """GFLOP of a forward pass, counting the multiplications and additions of convolutions and dense layers."""
    products = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            products += np.prod(layer.kernel.shape) * np.prod(layer.output_shape[1:3])
        elif isinstance(layer, keras.layers.Dense):
            products += np.prod(layer.kernel.shape)
    return 2 * float(products) / 1e9


def _set_up(precision):
    """Does what `networks.set_up_tensorflow` does."""
    determinism.fix_order()
    keras.mixed_precision.set_global_policy(precision)


def _segment(size, batch, method):
    """The step of S, its batches, and the GFLOP of an update."""
    segmenter = unet(size, NUM_CLASSES, seed=SEED)
    step = Segment(segmenter, LEARNING_RATE, CLASS_WEIGHTS)
    return step, _labelled(size, batch, method), batch * (1 + BACKWARD) * gflop_per_slice(segmenter)


def _learn(size, batch, task_gradient, volumes):
    """The step that learns G_V, its batches, and the GFLOP of an iteration."""
    step = LearnAugmentation(
        "deform",
        unet(size, NUM_CLASSES, seed=SEED),
        generator("deform", size, seed=SEED),
        discriminator(size, seed=SEED),
        learning_rate=LEARNING_RATE,
        class_weights=CLASS_WEIGHTS,
        lambda_seg=1.0,
        lambda_adv=1.0,
        lambda_big=1e-3,
        adversarial_form="non_saturating",
        task_gradient=task_gradient,
        discriminator_first=True,
        warmup_steps=0,
    )
    real = pipeline.Slices(_slices(size, volumes).image, None)
    make = pipeline.generator_batches(_slices(size, 1), [real], NUM_CLASSES, batch, _augmenter().affine, SEED)
    s, g, d = map(gflop_per_slice, (step.segmenter, step.generator, step.discriminator))
    # G runs forward twice. D sees twice the batch: once to learn, once for G, when its weights get no gradient.
    gflop = batch * ((1 + BACKWARD) * (s + g) + g + 2 * d * (1 + BACKWARD + 1 + BACKWARD / 2))
    return step, make, gflop


def _iterations(step, make, num_steps, facts):
    batches = pipeline.iterate(make, 0)

    def run() -> None:
        for index in range(num_steps):
            scalars = step(next(batches), index)
        _wait_for(scalars)

    return Job(run, facts)


def _mean_seconds(call, repeats):
    start = time.perf_counter()
    for index in range(repeats):
        call(index)
    return (time.perf_counter() - start) / repeats


def _wait_for(scalars):
    """Waits until the device has finished."""
    float(scalars["loss/segmentation"])


def _labelled(size, batch, method):
    row = METHODS[method]
    models = {kind: generator(kind, size, seed=SEED) for kind in KINDS if kind in row.generators}
    learned = {kind: Learned(kind, inference.inference_mode(model)) for kind, model in models.items()}
    return pipeline.labelled_batches(_slices(size, 1), NUM_CLASSES, batch, _augmenter(**learned).method(row), SEED)


def _augmenter(**learned):
    return Augmenter({"affine": Affine(), **learned}, functools.partial(pipeline.seed_at, SEED))


def _slices(size, volumes):
    """Slices of volumes of noise with random labels."""
    rng = streams.generator(SEED, "benchmarks", volumes)
    shape = (SLICES, size, size)
    images = [rng.random((*shape, 1), np.float32) for _ in range(volumes)]
    return pipeline.slices(images, [rng.integers(NUM_CLASSES, size=shape, dtype=np.uint8) for _ in range(volumes)])


def _mebibytes(size, volumes):
    return volumes * SLICES * size**2 * 4 / 2**20


def _patients(number):
    """Patients of the built-in cohort, not written to disk."""
    for index in range(1, number + 1):
        made = cohort.patient(SEED, index)
        image = made.es.image[..., None].astype(np.float32)
        yield Volume(f"patient{index:03d}", image, made.es.mask, made.spacing, 2, None)


def _with_bias(layer):
    """A copy of a layer of the U-Net; a convolution gets a bias."""
    if isinstance(layer, Upsample):
        return Upsample(layer.half_pixel_centers, name=layer.name)
    config = layer.get_config()
    if isinstance(layer, keras.layers.Conv2D):
        config["use_bias"] = True
    return type(layer).from_config(config)
