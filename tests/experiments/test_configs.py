import importlib
import json
import pathlib

import ml_collections
import numpy as np
import pytest

import vmamba_jax
from configs import common, saved
from experiments.common import build
from vmamba_jax import attacks, data

FILES = sorted(path.stem for path in pathlib.Path(common.__file__).parent.glob("*.py") if path.stem not in ("__init__", "common", "saved"))


def config_of(name, arg=None):
    return importlib.import_module(f"configs.{name}").get_config(arg)


TRAINED = [name for name in FILES if "objective" in config_of(name) and name != "imagenet"]  # test_imagenet_configs.py has its recipes
ATTACKED = [name for name in FILES if "evaluation" in config_of(name)]


@pytest.mark.parametrize("name", FILES)
def test_every_config_is_json_and_comes_back_from_it(name, tmp_path):
    config = config_of(name)
    (tmp_path / "config.json").write_text(config.to_json())
    again = saved.get_config(str(tmp_path / "config.json"))
    assert isinstance(config, ml_collections.ConfigDict) and again.to_dict() == config.to_dict()


@pytest.mark.parametrize("name", ATTACKED)
def test_every_attack_of_a_config_can_be_made(name):
    config = config_of(name)
    made = {key: attacks.create(**options) for key, options in config.evaluation.attacks.items()}
    assert made[config.evaluation.curve.attack].eps in config.evaluation.curve.radii
    assert made[config.evaluation.curve.attack].steps * made[config.evaluation.curve.attack].step_size > made[config.evaluation.curve.attack].eps


@pytest.mark.parametrize("objective", ["standard", "pgd_at"])
@pytest.mark.parametrize("name", TRAINED)
def test_every_training_config_builds(name, objective):
    config = config_of(name, f"objective={objective}")
    shape, classes = {"digits": ((8, 8, 1), 10), "mnist": ((28, 28, 1), 10), "cifar10": ((32, 32, 3), 10)}[config.data.name]
    source = data.Arrays(np.zeros((2, *shape), np.uint8), [0, 1], range(classes))
    classifier = build.classifier(config, source)
    assert classifier.model.num_classes == 10 and classifier.model.in_channels == shape[-1]
    assert len(classifier.mean) == len(classifier.std) == shape[-1]
    step = build.objective(config, classifier, build.optimizer(config, 100), 100)
    assert callable(step)
    assert config.validation.select == {"standard": "accuracy", "pgd_at": "robust_accuracy"}[objective]


def test_evaluate_weights_names_any_model():
    config = config_of("evaluate_weights", "model=vmamba_small")
    assert config.model.name in vmamba_jax.list_models() and config.weights == ""


def test_parse_arg():
    read = lambda arg: common.parse_arg(arg, objective="pgd_at", epochs=3, rate=0.1, fast=False)
    assert read(None) == read("") == {"objective": "pgd_at", "epochs": 3, "rate": 0.1, "fast": False}
    assert read("epochs=5,fast,objective=standard,rate=1e-2") == {"objective": "standard", "epochs": 5, "rate": 0.01, "fast": True}
    assert read("fast=false")["fast"] is False


@pytest.mark.parametrize("arg, message", [
    ("objectiv=x", "'objectiv' is not known; expected some of epochs, fast, objective, rate"), ("epochs=five", "epochs='five' must read as int, like 3"),
    ("epochs", "epochs='true' must read as int"), ("rate=nan", "rate='nan' must be finite"), ("fast=maybe", "fast='maybe' must be true or false")])
def test_parse_arg_names_what_is_wrong(arg, message):
    with pytest.raises(ValueError, match=message):
        common.parse_arg(arg, objective="pgd_at", epochs=3, rate=0.1, fast=False)


@pytest.mark.parametrize("name", TRAINED)
def test_an_unknown_objective_is_refused(name):
    with pytest.raises(ValueError, match="objective='nosuch' is not known; expected one of standard, pgd_at"):
        config_of(name, "objective=nosuch")


def test_saved_config_errors(tmp_path):
    (tmp_path / "broken.json").write_text(json.dumps({"a": 1})[:-1])
    for path in ("broken.json", "absent.json"):
        with pytest.raises(ValueError, match=path):
            saved.get_config(str(tmp_path / path))
