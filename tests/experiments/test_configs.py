"""Every config: complete, JSON, and buildable; what a config's argument accepts; configs of earlier versions."""
import importlib
import json
import pathlib

import jax
import ml_collections
import numpy as np
import pytest

import vmamba_jax
from configs import base, digits, saved
from experiments.common import build
from experiments.common.cli import ConfigError
from experiments.common.schedule import Lengths
from vmamba_jax import attacks, data, training

RUNS = ("digits", "mnist_at", "cifar10_at", "imagenet", "folder", "evaluate_weights")
BASES = dict.fromkeys((*RUNS, "ade20k"), base.run) | {
    "robustness_study": base.study, "benchmark": base.benchmark, "attack_quality": base.attack_quality}
TRAINED = ("digits", "mnist_at", "cifar10_at")  # test_imagenet_configs.py has the recipes of imagenet
SHAPES = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "cifar10": (32, 32, 3)}


def config_of(name, arg=None):
    return importlib.import_module(f"configs.{name}").get_config(arg)


def keys(config, prefix=""):
    """Dotted names of all fields of a nested dict, sections included."""
    for name, value in config.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{name}.")


def test_every_config_file_has_a_base():
    files = {path.stem for path in pathlib.Path(base.__file__).parent.glob("*.py")}
    programs = {name for name in files if not name.startswith("_")} - {"base", "saved"}
    assert programs >= set(BASES)


@pytest.mark.parametrize("name", BASES)
def test_config_has_every_key_of_its_base(name):
    assert set(keys(BASES[name]().to_dict())) <= set(keys(config_of(name).to_dict()))
    assert set(config_of(name)) == set(BASES[name]()), "unknown section"


@pytest.mark.parametrize("name", BASES)
def test_config_survives_json(name, tmp_path):
    config = config_of(name)
    path = tmp_path / "config.json"
    path.write_text(config.to_json())
    assert isinstance(config, ml_collections.ConfigDict)
    if name in RUNS:
        assert saved.get_config(str(path)).to_dict() == config.to_dict()
    else:
        assert ml_collections.ConfigDict(json.loads(path.read_text())).to_json() == config.to_json()


OLD = {  # config.json of the version before configs/base.py, with the sections that it lacked
    "seed": 3, "epochs": 2, "batch_size": 64, "data": {"name": "digits", "root": "", "options": {}}, "augment": {"name": "none"},
    "preprocessing": {"mean": [0.5], "std": [0.5]}, "model": {"name": "vmamba_tiny", "overrides": {"dims": [8], "depths": [1], "patch_size": 4}},
    "objective": {"name": "standard", "label_smoothing": 0.0, "accumulate": 1},
    "optimizer": {"name": "adamw", "weight_decay": 0.05, "clip_norm": None}, "schedule": {"name": "cosine", "learning_rate": 0.006, "warmup": 0.1},
    "ema_decay": 0.0, "validation": {"every_epochs": 1, "limit": 0, "select": "accuracy", "attack": {"name": "fgsm", "eps": 0.1}},
    "checkpoints": {"keep": 1}, "log_every": 50,
    "evaluation": {"split": "test", "batch_size": 64, "seed": 0, "examples": 10, "limit": 0, "attacks": {"fgsm": {"name": "fgsm", "eps": 0.1}},
                   "curve": {"attack": "fgsm", "radii": [0.0, 0.1]}}}


def test_config_of_an_earlier_version_gets_neutral_values(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(OLD))
    config, neutral = saved.get_config(str(tmp_path / "config.json")), base.run()
    assert config.model.overrides.dims == (8,) and config.seed == 3 and config.schedule.warmup == 0.1 and config.optimizer.clip_norm is None
    for section in ("skips", "wandb", "weights", "extra", "repeats", "transform", "loader", "mix", "init"):
        assert config[section] == neutral[section], section
    assert (config.objective.ramp, config.objective.replays, config.evaluation.autoattack) == (0.0, 1, "")
    assert config.skips.to_dict() == {"in_a_row": 10, "in_all": 100}  # the limits of that version
    run = build.build(config)
    assert isinstance(run.batches, data.Batches) and run.steps == 2 * (len(run.train) // 64) and run.variables is None


def test_unknown_section_is_refused():
    with pytest.raises(ValueError, match=r"config.epoch: unknown field; expected some of augment, batch_size"):
        base.complete({"epoch": 3})
    with pytest.raises(TypeError, match="epochs"):
        base.complete({"epochs": "three"})


@pytest.mark.parametrize("name", RUNS)
def test_attacks_of_a_config(name):
    config = config_of(name)
    made = {key: attacks.create(**options) for key, options in config.evaluation.attacks.items()}
    attack = made[config.evaluation.curve.attack]
    assert attack.eps in config.evaluation.curve.radii and attack.steps * attack.step_size > attack.eps


@pytest.mark.parametrize("objective", ["standard", "pgd_at"])
@pytest.mark.parametrize("name", TRAINED)
def test_training_config_builds(name, objective):
    """The step has the objective's cost, attack and radius schedule, and the optimizer the config's learning rate and weight decay."""
    config = config_of(name, f"objective={objective}")
    shape = SHAPES[config.data.name]
    source = data.Arrays(np.zeros((2, *shape), np.uint8), [0, 1], range(10))
    classifier = build.classifier(config, source)
    assert classifier.model.num_classes == 10 and classifier.model.in_channels == shape[-1]
    assert len(classifier.mean) == len(classifier.std) == shape[-1]
    optimizer = build.optimizer(config, 100)
    step = build.objective(config, classifier, optimizer, 100)
    assert step.cost.forward_backward == (1 if objective == "standard" else 1 + config.objective.attack.steps)
    assert step.ema_decay == (config.ema_decay or None) and step.accumulate == 1
    assert config.validation.select == {"standard": "accuracy", "pgd_at": "robust_accuracy"}[objective]
    params, rates = {"kernel": np.ones((2, 2), np.float32)}, []
    state = optimizer.init(params)
    for _ in range(12):
        updates, state = optimizer.update({"kernel": np.zeros((2, 2), np.float32)}, state, params)
        rates.append(float(state[-1].learning_rate))
    assert max(rates) == pytest.approx(config.schedule.learning_rate, rel=1e-2) and rates[0] == 0
    np.testing.assert_allclose(updates["kernel"], -rates[-1] * config.optimizer.weight_decay, rtol=1e-6)


@pytest.mark.slow
def test_ramp_scales_the_radius_over_its_fraction_of_the_steps():
    config = config_of("digits", "objective=pgd_at")
    config.objective.ramp = 0.25
    assert Lengths.of(config, 100).ramp == 25
    schedule = training.schedules.ramp(25)
    assert [float(schedule(t)) for t in (0, 5, 25, 99)] == pytest.approx([0.0, 0.2, 1.0, 1.0])
    config.model.overrides.update(dims=(8,), depths=(1,), patch_size=4)
    source = build.source(config, "train", 16)
    classifier = build.classifier(config, source)
    step = build.objective(config, classifier, build.optimizer(config, 100), 100)
    images, labels = source.gather(np.arange(2))
    state = vmamba_jax.training.create_state(classifier, build.optimizer(config, 100), jax.random.key(0), (8, 8, 1)).replace(step=5)
    _, metrics = jax.jit(step)(state, {"image": images.astype(np.float32) / 255, "label": labels}, jax.random.key(1))
    assert float(metrics["eps_scale"]) == pytest.approx(0.2)


BAD = [
    ({"objective.ramp": 0.01}, "config.objective.ramp=0.01: expected 0 for no ramp, or a fraction that covers at least one of the \\d+ steps"),
    ({"objective.ramp": 1.5}, "config.objective.ramp=1.5: expected a finite number >= 0 and <= 1"),
    ({"objective.name": "free", "objective.eps": 0.1, "objective.attack": {}}, "config.objective.ramp=0.33: expected 0 for the objective 'free'"),
    ({"objective.replays": 2}, "config.objective.replays=2: expected 1 for the objective 'pgd_at'"),
    ({"objective.attack": {"eps": 0.1}}, "config.objective.attack: expected an attack's name and its options"),
    ({"schedule.warmup": 2.0}, "config.schedule.warmup=2.0: expected a finite number >= 0 and <= 1"),
    ({"schedule.warmup": float("nan")}, "config.schedule.warmup=nan: expected a finite number"),
    ({"schedule.warmup": 0.6, "schedule.cooldown": 0.4}, "config.schedule.warmup=0.6, config.schedule.cooldown=0.4: expected to leave"),
    ({"schedule.name": "constant", "schedule.cooldown": 0.1}, "config.schedule.cooldown=0.1: expected 0.0 for the constant schedule"),
    ({"schedule.boundaries": (0.5,)}, r"config.schedule.boundaries=\(0.5,\): expected \(\) for the cosine schedule"),
    ({"schedule.warmup": 0.1, "schedule.warmup_epochs": 0.5}, "config.schedule.warmup=0.1, config.schedule.warmup_epochs=0.5: expected one of them to be 0"),
    ({"schedule.warmup": 0.0, "schedule.warmup_epochs": 2.0}, "config.schedule.warmup_epochs=2: expected at most the 1 epochs of the training"),
    ({"objective.ramp": 0.0, "objective.ramp_epochs": 0.01}, "config.objective.ramp_epochs=0.01: expected 0 for no ramp, or a fraction that covers"),
    ({"model.overrides.num_classes": 3}, r"config.model.overrides.num_classes=3: expected 10, the classes of the training images \(0, 1, 2, ...\)"),
    ({"schedule.name": "line"}, "config.schedule.name='line': expected one of 'constant', 'cosine', 'linear', 'piecewise'"),
    ({"log_every": 0}, "config.log_every=0: expected at least 1"), ({"repeats": 0}, "config.repeats=0: expected at least 1"),
    ({"checkpoints.keep": 0}, "config.checkpoints.keep=0: expected at least 1"),
    ({"validation.every_epochs": 0}, "config.validation.every_epochs=0: expected at least 1"),
    ({"evaluation.batch_size": 0}, "config.evaluation.batch_size=0: expected at least 1"),
    ({"skips.in_a_row": -1}, "config.skips.in_a_row=-1: expected None or an integer >= 0"),
    ({"seed": 2**32}, "config.seed=4294967296: expected an integer from 0 to"), ({"seed": -1}, "config.seed=-1: expected an integer"),
    ({"ema_decay": 1.0}, "config.ema_decay=1.0: expected 0"), ({"batch_size": 100}, "config.batch_size=100: expected a multiple of the 8 devices"),
    ({"batch_size": 200, "mix.mixup": 0.5}, "config.batch_size=200: expected an even number of images on each of the 8 devices"),
]


@pytest.mark.parametrize("change, message", BAD, ids=lambda value: next(iter(value)) if isinstance(value, dict) else "")
def test_bad_value_is_named(change, message):
    config = digits.get_config()
    config.epochs = 1
    for name, value in change.items():
        *sections, field = name.split(".")
        section = config
        for part in sections:
            section = section[part]
        section[field] = value
    with pytest.raises(ConfigError, match=f"^{message}"):
        build.build(config)


def test_mix_is_used_only_if_it_changes_something():
    config, source = digits.get_config("objective=standard"), data.Arrays(np.zeros((2, 8, 8, 1), np.uint8), [0, 1], range(10))
    classifier, optimizer = build.classifier(config, source), build.optimizer(config, 100)
    assert build.objective(config, classifier, optimizer, 100).mix is None
    for field in ("mixup", "cutmix", "label_smoothing"):
        config.mix = base.run().mix
        config.mix[field] = 0.5
        assert build.objective(config, classifier, optimizer, 100).mix is not None


def test_evaluate_weights_accepts_any_model():
    config = config_of("evaluate_weights", "model=vmamba_small")
    assert config.model.name in vmamba_jax.list_models() and config.weights == ""


def test_parse_arg():
    read = lambda arg: base.parse_arg(arg, objective="pgd_at", epochs=3, rate=0.1, fast=False)
    assert read(None) == read("") == {"objective": "pgd_at", "epochs": 3, "rate": 0.1, "fast": False}
    assert read("epochs=5,fast,objective=standard,rate=1e-2") == {"objective": "standard", "epochs": 5, "rate": 0.01, "fast": True}
    assert read("fast=false")["fast"] is False


@pytest.mark.parametrize("arg, message", [
    ("objectiv=x", "'objectiv': expected some of epochs, fast, objective, rate"), ("epochs=five", "epochs='five': expected a value of type int, such as 3"),
    ("epochs", "epochs='true': expected a value of type int"), ("rate=nan", "rate='nan': expected a finite number"),
    ("fast=maybe", "fast='maybe': expected true or false")])
def test_parse_arg_errors(arg, message):
    with pytest.raises(ValueError, match=message):
        base.parse_arg(arg, objective="pgd_at", epochs=3, rate=0.1, fast=False)


@pytest.mark.parametrize("name", TRAINED)
def test_unknown_objective_is_refused(name):
    with pytest.raises(ValueError, match="objective='nosuch': expected one of standard, pgd_at"):
        config_of(name, "objective=nosuch")


def test_saved_config_errors(tmp_path):
    (tmp_path / "broken.json").write_text(json.dumps({"a": 1})[:-1])
    (tmp_path / "other.json").write_text("[1, 2]")
    for path in ("broken.json", "absent.json", "other.json"):
        with pytest.raises(ValueError, match=f"{path}': expected the config.json of a run"):
            saved.get_config(str(tmp_path / path))


def test_attack_labels():
    for options, label in [({"name": "pgd", "eps": 0.1, "steps": 20, "restarts": 5}, "PGD-20, 5 restarts"), ({"name": "fgsm", "eps": 0.1}, "FGSM"),
                           ({"name": "momentum_pgd", "eps": 0.1, "steps": 10}, "MI-FGSM-10"), ({"name": "autoattack", "eps": 0.1}, "AutoAttack standard"),
                           ({"name": "transfer_pgd", "eps": 0.1, "steps": 3, "scales": 2}, "transfer_pgd-3")]:
        assert build.attack_label(attacks.create(**options)) == label
