"""What networks and update rules a config builds."""

import functools
import importlib

import fast_networks
import pytest
import tensorflow as tf

from tfaug.augment.affine import Affine, Scale
from tfaug.augment.elastic import Elastic
from tfaug.augment.intensity import ContrastBrightness
from tfaug.augment.methods import GENERATORS, METHODS, TRANSFORMS
from tfaug.augment.mixup import MixUp
from tfaug.compat import keras
from tfaug.configs import acdc_quick, phantom
from tfaug.engine import devices
from tfaug.engine.errors import MachineError, UserError
from tfaug.engine.signals import Interrupted
from tfaug.experiment import networks


def small(config):
    config.data.image_size = 32
    config.data.structures, config.data.channels = (("LV", 1),), ("MRI",)
    for role in ("segmenter", "generator", "discriminator"):
        config.model[role] = f"{fast_networks.__name__}:{role}"
    return config


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("instructions", [True, False])
def test_v8_only_the_users_own_networks_are_slow_in_sixteen_bits(monkeypatch, own, instructions):
    monkeypatch.setattr(devices, "adds_in_float32", lambda dtype: instructions or dtype == "float32")
    config = small(phantom.get_config()) if own else phantom.get_config()
    assert networks.slow_precision(config) == []
    config.precision = "mixed_bfloat16"
    found = networks.slow_precision(config)
    assert len(found) == (own and not instructions)
    assert all(line.startswith("precision: mixed_bfloat16 is emulated") for line in found)


@pytest.mark.parametrize("role", ["segmenter", "discriminator"])
def test_of_a_network_that_draws_at_random_there_is_a_line(monkeypatch, role):
    config = small(phantom.get_config())
    config.augment.class_weights = (0.5, 0.5)
    assert networks.random_layers(networks.learn_augmentation(config, "deform")) == []
    build = getattr(fast_networks, role)

    @functools.wraps(build)
    def dropping(**arguments):
        model = build(**arguments)
        dropped = keras.layers.Dropout(0.5)(model.inputs[0])
        return keras.Model(model.inputs, model(dropped))

    monkeypatch.setattr(fast_networks, role, dropping)
    (line,) = networks.random_layers(networks.learn_augmentation(config, "deform"))
    assert line == "a network draws at random (Dropout): a training that is resumed differs from an undisturbed one"


@pytest.mark.parametrize("name", GENERATORS)
def test_without_regularisation_the_task_alone_teaches_a_generator(name):
    config = small(phantom.get_config())
    config.augment.class_weights = (0.5, 0.5)
    weights = ("lambda_adv", "lambda_big", "lambda_fold", "lambda_diversity")
    for key in weights:
        config.augment[key] = 0.5
    rule = networks.learn_augmentation(config, name)
    expected = dict.fromkeys(weights, 0.0 if name.endswith("_noreg") else 0.5)
    if name == "intensity":
        expected["lambda_fold"] = 0.0  # no intensity folds
    assert {key: getattr(rule, key) for key in weights} == expected
    assert rule.lambda_seg == 1.0


@pytest.mark.parametrize("kind", ["deform", "intensity"])
def test_the_update_rule_of_generators_has_the_numbers_of_the_config(kind):
    config = small(acdc_quick.get_config())
    numbers = {
        **{"lambda_seg": 0.1, "lambda_adv": 0.2, "lambda_big": 0.3, "lambda_fold": 0.4, "lambda_diversity": 0.5},
        **{"warmup_steps": 6, "r1": 0.7, "pack": 5, "class_weights": (0.2, 0.8), "adversarial_loss": "saturating"},
        **{"task_gradient": False, "discriminator_first": False, "big_of": "displacement", "diversity": "difference"},
        **{"learning_rate": 0.01, "generator_rate": 0.5, "discriminator_rate": 0.25, "beta_1": 0.6},
        **{"big_limit_mm": 5.5, "big_limit_intensity": 0.3},
    }
    config.augment.update(numbers)
    rule = networks.learn_augmentation(config, kind)
    assert rule.kind == kind
    same = ("lambda_seg", "lambda_adv", "lambda_big", "lambda_diversity", "warmup_steps", "r1", "pack")
    same += ("class_weights", "task_gradient", "discriminator_first")
    assert {key: getattr(rule, key) for key in same} == {key: numbers[key] for key in same}
    assert rule.lambda_fold == (0.4 if kind == "deform" else 0.0)  # no intensity folds
    assert rule.adversarial_form == "saturating"
    assert rule.big_limit == (2.0 if kind == "deform" else 0.3)  # px, at 2.75 mm
    rates = {name: float(getattr(rule, f"{name}_optimizer").learning_rate) for name in ("generator", "discriminator")}
    assert rates == pytest.approx({"generator": 0.005, "discriminator": 0.0025})
    assert {float(optimizer.beta_1) for optimizer in (rule.generator_optimizer, rule.discriminator_optimizer)} == {0.6}
    assert float(rule.warm_up.optimizer.learning_rate) == pytest.approx(0.01)
    assert rule.warm_up.class_weights == (0.2, 0.8)


@pytest.mark.parametrize("name", ["adv_sl", "adv_ssl"])
def test_the_update_rule_of_a_segmenter_has_the_numbers_of_the_config(name):
    config = small(acdc_quick.get_config())
    config.segment.update({"learning_rate": 0.02, "class_weights": (0.3, 0.7), "lambda_adv": 0.4})
    rule = networks.train_segmenter(config, METHODS[name])
    assert (rule.class_weights, rule.lambda_adv) == ((0.3, 0.7), 0.4)
    assert float(rule.segmenter_optimizer.learning_rate) == pytest.approx(0.02)
    assert rule.semi_supervised == (name == "adv_ssl")


def test_the_transforms_have_the_strengths_of_the_config():
    config = small(acdc_quick.get_config())
    config.data.resolution = 2.0
    config.transforms.update({"elastic_mm": 6.0, "mixup_alpha": 0.7})
    strong = {"scale": (0.3, 1.9), "elastic_mm": 10.0, "contrast": (0.2, 1.8), "brightness": (-0.4, 0.5)}
    config.transforms.strong.update(strong)
    transforms = networks.augmenter(config, "even").transforms
    assert transforms == {
        "affine": Affine(),
        "scale": Scale((0.3, 1.9)),
        "elastic": Elastic(3.0),
        "elastic_strong": Elastic(5.0),
        "contrast_brightness": ContrastBrightness((0.8, 1.2), (-0.1, 0.1)),
        "contrast_brightness_strong": ContrastBrightness((0.2, 1.8), (-0.4, 0.5)),
        "mixup": MixUp(0.7),
    }
    assert sorted(TRANSFORMS) == sorted({*transforms, "histogram", *GENERATORS})  # these need scans and networks
    config.transforms.update({"affine": "released", "random_intensity": "released", "elastic_mm": "auto"})
    transforms = networks.augmenter(config, "even").transforms
    assert transforms["affine"] == Affine(scale_decimals=2, extra_flip_coin=True)
    assert transforms["contrast_brightness"] == ContrastBrightness(split=True)
    assert transforms["elastic"] == Elastic()
    assert not transforms["contrast_brightness_strong"].split


@pytest.mark.parametrize("resolution", [2.75, 1.0])
def test_lengths_that_are_auto_are_shares_of_the_image(resolution):
    config = acdc_quick.get_config()
    config.data.structures, config.data.channels = (("LV", 1),), ("MRI",)
    config.data.resolution = resolution
    fields = []
    for lengths in ((64 * resolution / 8, 64 * resolution * 3 / 16), ("auto", "auto")):
        config.model.control_mm, config.model.limit_mm = lengths
        fields.append(networks.generator(config, "deform").get_layer("smooth_field").get_config())
    assert fields[0] == fields[1]
    assert (fields[0]["stride"], fields[0]["limit_px"]) == (8, pytest.approx(12.0))


@pytest.mark.parametrize(
    "error, line",
    [
        (AttributeError("'Batch' object has no attribute 'unlabelled'"), "AttributeError: 'Batch' object has no"),
        (ValueError('in user code:\n\n    File "my.py", line 3\n        x\n\n    ValueError: no'), "(ValueError: no)"),
        (
            ValueError("Exception encountered\n\nno way\n\nCall arguments received by layer:\n  x=1"),
            "(ValueError: no way)",
        ),
        (tf.errors.InvalidArgumentError(None, None, "assertion failed: [dark]\n\t [[{{node x}}]]"), "failed: [dark])"),
        (StopIteration(), "(StopIteration)"),
    ],
)
def test_what_fails_in_training_is_answered_for_by_the_users_own_parts_if_there_are_any(error, line):
    with pytest.raises(UserError) as raised, networks.answerable(["unet", "my:rule", "my:net", "my:rule"]):
        raise error
    text = str(raised.value)
    assert text.startswith("my:rule, my:net: cannot be trained with (") and line in text and "\\n" not in text
    with pytest.raises(type(error)) as raised, networks.answerable(["unet", "segment"]):
        raise error
    assert raised.value is error


@pytest.mark.parametrize(
    "error", [MachineError("memory", "is full", "wait"), OSError("gone"), MemoryError(), Interrupted(15)]
)
def test_the_machines_faults_and_signals_stay_their_own(error):
    with pytest.raises(type(error)) as raised, networks.answerable(["my:net"]):
        raise error
    assert raised.value is error


def test_a_system_error_is_the_users_if_their_own_module_has_caused_it(tmp_path, monkeypatch):
    (tmp_path / "my_reader_of_weights.py").write_text("def net():\n    open('gone.txt')\n")
    monkeypatch.syspath_prepend(tmp_path)
    net = importlib.import_module("my_reader_of_weights").net
    line = "my_reader_of_weights:net: cannot be trained with (my_reader_of_weights.py, line 2: FileNotFoundError: "
    with pytest.raises(UserError) as raised, networks.answerable(["unet", "my_reader_of_weights:net", "other:rule"]):
        net()
    assert str(raised.value).startswith(line.replace(": cannot", ", other:rule: cannot", 1))
    assert "; mend it; " in str(raised.value)
