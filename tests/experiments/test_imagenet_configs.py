"""Every recipe of configs/imagenet.py: its numbers, and that the package's factories take its sections."""
import dataclasses

import numpy as np
import pytest

import vmamba_jax
from configs import imagenet
from experiments.common import build
from experiments.common.cli import ConfigError
from experiments.common.schedule import Lengths
from vmamba_jax import attacks, data, models

EPS = 4 / 255
STEPS = 3300
PAIRS = [("vmamba", "vmamba_tiny"), ("vmamba", "vmamba_base"), ("vim", "vim_tiny"), ("vim", "vim_small"), ("vim", "vim_base"), ("deit", "deit_base"),
         ("swin", "swin_small"), ("convnext", "convnext_base"), ("ares", "swin_base"), ("singh", "convnext_tiny"), ("light", "vit_small"),
         ("light", "resnet50.tv2_in1k")]
TABLE = {  # epochs, warm-up, batch, rate, its start and end, weight decay, clip, EMA, repeats; by hand from the papers' tables and programs
    "vmamba": (300, 20, 1024, 1e-3, 1e-6, 1e-5, 0.05, 5.0, 0.9999, 1),
    "vim": (300, 5, 1024, 1e-3, 1e-6, 1e-5, 0.1, None, 0.99996, 3),
    "deit": (300, 5, 1024, 1e-3, 1e-6, 1e-5, 0.05, None, 0.99996, 3),
    "swin": (300, 20, 1024, 1e-3, 1e-6, 1e-5, 0.05, 5.0, 0.0, 1),
    "convnext": (300, 20, 4096, 4e-3, 0.0, 1e-6, 0.05, None, 0.9999, 1),
    "ares": (300, 5, 512, 5e-4, 1e-6, 1e-5, 0.05, None, 0.9998, 1),
    "singh": (300, 20, 640, 1e-3, 1e-7, 1e-10, 0.05, None, 0.9999, 1),
    "light": (110, 10, 512, 5e-4, 1e-6, 1e-5, 0.5, None, 0.0, 1),
}


def config_of(recipe, **axes):
    return imagenet.get_config(",".join(f"{key}={value}" for key, value in {"recipe": recipe, **axes}.items()))


@pytest.mark.parametrize("recipe", TABLE)
def test_numbers(recipe):
    c = config_of(recipe)
    found = (c.epochs, c.schedule.warmup_epochs, c.batch_size, c.schedule.learning_rate, c.schedule.warmup_start, c.schedule.end,
             c.optimizer.weight_decay, c.optimizer.clip_norm, c.ema_decay, c.repeats)
    assert [x if x is None else pytest.approx(x, rel=1e-12) for x in found] == list(TABLE[recipe])
    assert (c.optimizer.name, c.optimizer.b1, c.optimizer.eps, c.optimizer.layer_decay) == ("adamw", 0.9, 1e-8, None)
    assert c.optimizer.b2 == (0.95 if recipe == "singh" else 0.999)
    assert list(imagenet.RECIPES) == list(TABLE)


@pytest.mark.parametrize("recipe", [name for name in TABLE if name != "light"])
def test_heavy_augmentation(recipe):
    c = config_of(recipe)
    assert (c.transform.rand_augment, c.transform.scale, c.transform.flip) == ("rand-m9-mstd0.5-inc1", (0.08, 1.0), 0.5)
    assert c.transform.fill == (124, 116, 104) and c.transform.interpolation == "bicubic"
    assert (c.augment.name, c.augment.probability, c.augment.mode) == ("erase", 0.25, "pixel")
    assert (c.mix.mixup, c.mix.cutmix, c.mix.probability, c.mix.switch_probability) == (0.8, 1, 1, 0.5)
    assert (c.mix.mode, c.mix.label_smoothing, c.objective.label_smoothing) == ("batch", 0.1, 0)


def test_adversarial_recipes():
    ares, singh, light = (config_of(name) for name in ("ares", "singh", "light"))
    assert ares.objective.attack.to_dict() == {
        "name": "pgd", "eps": EPS, "norm": "linf", "steps": 3, "step_size": pytest.approx(8 / 255 / 3), "random_start": False}
    assert singh.objective.attack.to_dict() == {
        "name": "apgd", "eps": EPS, "norm": "linf", "steps": 2, "random_start": False, "keep": "highest_loss"}
    assert light.objective.attack.to_dict() == {"name": "pgd", "eps": EPS, "norm": "linf", "steps": 1, "step_size": 6 / 255}
    assert (ares.objective.ramp_epochs, singh.objective.ramp_epochs, light.objective.ramp_epochs) == (5, 0, 10)
    assert (ares.objective.scheduled, light.objective.scheduled) == (("step_size",), ("eps",))
    assert [c.model.overrides.drop_path_rate for c in (ares, singh, light)] == [0, 0, 0.05]
    assert (light.transform.rand_augment, light.transform.color_jitter, light.augment.name) == ("", 0.4, "none")
    assert (light.mix.mixup, light.mix.cutmix, light.mix.label_smoothing) == (0, 0, 0.1)
    assert (singh.augment.mean, singh.augment.std, ares.augment.mean, ares.augment.clip) == ((0.0,), (1.0,), models.entry("swin_base").mean, True)
    assert all(c.validation.select == "robust_accuracy" for c in (ares, singh, light))


def test_rates_follow_the_batch():
    for recipe, factor in (("vmamba", (2, 2, 2)), ("deit", (2, 1, 1)), ("convnext", (2, 1, 1)), ("singh", (1, 1, 1))):
        a, b = (config_of(recipe, batch=n).schedule for n in (256, 512))
        assert [b[k] for k in ("learning_rate", "warmup_start", "end")] == [
            pytest.approx(f * a[k]) for f, k in zip(factor, ("learning_rate", "warmup_start", "end"), strict=True)]


def test_vim_differs_by_size():
    tiny, small, base = (config_of("vim", model=f"vim_{size}") for size in ("tiny", "small", "base"))
    assert [c.optimizer.weight_decay for c in (tiny, small, base)] == [0.1, 0.05, 0.05]
    assert [(c.batch_size, c.schedule.learning_rate) for c in (tiny, small, base)] == [(1024, 1e-3), (512, 1e-3), (1024, 1e-3)]


@pytest.mark.parametrize("recipe, model", PAIRS)
def test_factories_take_the_sections(recipe, model):
    c = config_of(recipe, model=model)
    again = type(c)(c.to_dict())
    transform = data.transforms.create(**again.transform)
    assert transform(np.zeros((20, 30, 3), np.uint8), np.random.default_rng(0)).shape == (224, 224, 3)
    assert callable(data.augment.create(**again.augment)) and callable(data.mix.create(**again.mix))
    assert "drop_path_rate" in {field.name for field in dataclasses.fields(vmamba_jax.create_model(model, **again.model.overrides))}
    assert build.optimizer(again, STEPS)
    if recipe in ("ares", "singh", "light"):
        assert attacks.create(**again.objective.attack).eps == EPS
    assert again.data.options.resize == models.entry(model).preprocessing.resize


def test_drop_path_of_standard_training_is_the_catalogs():
    assert [vmamba_jax.create_model(name, **config_of("vmamba", model=name).model.overrides).drop_path_rate
            for name in ("vmamba_tiny", "vmamba_small", "vmamba_base", "convnext_small", "vim_small")] == [0.2, 0.3, 0.6, 0.4, 0.05]


def test_cooldown_ends_the_cosine_early():
    c = config_of("light")
    states = {}
    optimizer = build.optimizer(c, STEPS)
    for t in (0, 300, 3000, 3299):
        state = optimizer.init({"head": np.zeros(1)})
        state = state[:-1] + (state[-1]._replace(count=np.int32(t)),)
        states[t] = float(optimizer.update({"head": np.zeros(1)}, state, {"head": np.zeros(1)})[1][-1].learning_rate)
    assert [states[t] for t in (0, 300, 3000, 3299)] == pytest.approx([1e-6, 5e-4, 1e-5, 1e-5], rel=1e-4)


def test_epochs_of_a_recipe_stay_epochs():
    """100 steps per epoch: 20 epochs of warm-up in 50 as in 300; a training shorter than the warm-up is an error that says what to do."""
    c = config_of("ares", model="swin_base")
    for epochs in (300, 50):
        c.epochs = epochs
        found = Lengths.of(c, 100 * epochs)
        assert (found.warmup, found.ramp, found.decay) == (500, 500, 100 * epochs - 500)
    c.epochs = 4
    with pytest.raises(ConfigError, match="config.schedule.warmup_epochs=5: expected at most the 4 epochs of the training; to take a share"):
        Lengths.of(c, 400)


def test_another_resolution():
    c = config_of("vmamba", size=384)
    assert (c.transform.size, c.data.options.size, c.data.options.resize) == (384, 384, 438)
    assert data.transforms.create("evaluation", **{k: c.data.options[k] for k in ("size", "resize", "interpolation")}).size == 384


def test_optional_fields_can_be_set():
    c = config_of("convnext")
    c.optimizer.layer_decay = 0.7
    assert build.optimizer(c, STEPS) and config_of("convnext").optimizer.layer_decay is None
    with pytest.raises(TypeError):
        c.optimizer.clip_norm = "much"


@pytest.mark.parametrize("arg, message", [
    ("recipe=pgd", "recipe='pgd': expected one of vmamba, vim"), ("epochs=3", "'epochs': expected some of batch, model")])
def test_errors(arg, message):
    with pytest.raises(ValueError, match=message):
        imagenet.get_config(arg)
