"""What networks and update rules a config builds."""

import fast_networks
import pytest

from tfaug.augment.methods import GENERATORS
from tfaug.configs import acdc_quick, phantom
from tfaug.experiment import networks


@pytest.mark.parametrize("name", GENERATORS)
def test_without_regularisation_the_task_alone_teaches_a_generator(name):
    config = phantom.get_config()
    config.data.image_size = 32
    config.data.structures, config.data.channels = (("LV", 1),), ("MRI",)
    for role in ("segmenter", "generator", "discriminator"):
        config.model[role] = f"{fast_networks.__name__}:{role}"
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
