"""Sections of a config reach the run: transforms, repeats, erasing, mixing, loader, extra images, starting weights, objectives."""
import jax
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import vmamba_jax
from configs import base, cifar10_at, digits, imagenet
from experiments import train
from experiments.common import build
from experiments.common.cli import ConfigError
from vmamba_jax import checkpoints, data, training

SMALL = {"depth": 1, "embed_dim": 16, "num_heads": 2, "patch_size": 8, "image_size": 32, "num_classes": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes, gray and bright, of noisy JPEG files in ImageNet's layout; one file is damaged."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for name, level in (("gray", 80), ("bright", 180)):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(rng.normal(level, 30, (40, 48, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.jpg")
    (root / "train" / "gray" / "3.jpg").write_bytes(b"no picture")
    return root


def recipe(folder, **overrides):
    config = imagenet.get_config("recipe=deit,model=deit_tiny,batch=16,size=32")
    config.epochs = 2
    config.data.root = str(folder)
    config.schedule.warmup_epochs = 0.0
    config.model.overrides = SMALL | overrides
    config.validation.attack.steps = 1
    config.evaluation.batch_size = 8
    return config


@pytest.mark.slow
def test_recipe_trains_from_a_folder_and_given_weights(folder, tmp_path):
    config = recipe(folder)
    model = vmamba_jax.create_model("deit_tiny", **SMALL)
    variables = model.init(jax.random.key(5), np.zeros((1, 32, 32, 3)))
    safetensors.numpy.save_file(checkpoints.to_state_dict(model, variables), tmp_path / "weights.safetensors")
    config.init.checkpoint = str(tmp_path / "weights.safetensors")
    results = train.run(config, tmp_path / "run", progress=False)
    assert (results["steps"], results["steps_per_epoch"]) == (2, 1)
    rows = training.read_metrics(tmp_path / "run")
    assert all(np.isfinite(row["loss"]) for row in rows if "loss" in row) and not any(row.get("skipped") for row in rows)
    timing = [line for line in (tmp_path / "run" / "timing.jsonl").read_text().splitlines() if "bad_images" in line]
    assert timing and '"bad_images": 1' in timing[-1]
    found = training.restore_variables(tmp_path / "run" / "checkpoints", "latest", ema=True)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), found["params"], variables["params"])
    assert 0 < max(jax.tree.leaves(moved)) < 0.02  # two steps of a small rate away from where it began


def test_misfit_weights_are_named(folder, tmp_path):
    config = recipe(folder, embed_dim=24)
    model = vmamba_jax.create_model("deit_tiny", **SMALL)
    variables = model.init(jax.random.key(5), np.zeros((1, 32, 32, 3)))
    safetensors.numpy.save_file(checkpoints.to_state_dict(model, variables), tmp_path / "weights.safetensors")
    config.init.checkpoint = str(tmp_path / "weights.safetensors")
    with pytest.raises(ConfigError, match=r"config.init.checkpoint: .*weights.safetensors: the checkpoint does not fit ViT(.|\n)*19 misshapen") as caught:
        train.run(config, tmp_path / "run", progress=False)
    assert caught.value.__cause__.misfit.misshapen["cls_token"] == ((1, 1, 16), (1, 1, 24))


def test_batches_follow_the_config(folder, tmp_path):
    config = recipe(folder)
    source = build.source(config, "train")
    batches = build.batches(config, source)
    assert isinstance(batches, data.Pipeline) and isinstance(batches.source, data.Repeated) and batches.source.times == 3
    indices = batches.indices(0)
    assert indices[0] == indices[1] == indices[2] and batches[0]["image"].shape == (16, 32, 32, 3)

    config = digits.get_config()
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "extra.npz", image=rng.integers(0, 255, (40, 8, 8, 1), np.uint8), label=rng.integers(0, 10, 40))
    config.extra = {"name": "npz", "root": str(tmp_path), "fraction": 0.25, "options": {"file": "extra.npz"}}
    source = build.source(config, "train")
    batches = build.batches(config, source)
    assert ((batches.indices(0) >= len(source)).sum(), len(batches.source)) == (round(0.25 * config.batch_size), len(source) + 40)
    config.extra.options.file = "absent.npz"
    with pytest.raises(ConfigError, match="config.extra: .*absent.npz"):
        build.batches(config, source)


COST = {  # forward-backwards, extra forward passes, first-layer passes per image and step; ten attack steps
    "standard": (1, 0, 0), "pgd_at": (11, 0, 0), "trades": (12, 10, 0), "mart": (12, 0, 0), "free": (4, 0, 0), "yopo": (5, 0, 15),
    "pgd_awp": (12, 0, 0), "trades_awp": (14, 10, 0), "mart_awp": (14, 0, 0)}


@pytest.mark.parametrize("name", COST)
def test_cost_of_every_objective(name):
    config = cifar10_at.get_config(f"objective={name},model=resnet_small")
    step = build.objective(config, None, build.optimizer(config, 100), 100)
    cost = step.cost
    assert (cost.forward_backward, cost.forward, cost.first_layer) == COST[name]
    assert config.validation.select == ("accuracy" if name == "standard" else "robust_accuracy")


@pytest.mark.parametrize(("replays", "left"), [(1, 0.0), (4, 0.9)])
def test_free_schedules_by_updates(replays, left):
    """After as many updates as steps, the schedule of one replay has ended; that of four replays is at a quarter."""
    config = cifar10_at.get_config("objective=free,model=resnet_small")
    config.objective.replays = replays
    optimizer, params = build.optimizer(config, 100), {"w": np.ones(2, np.float32)}
    update = lambda _, state: optimizer.update(params, state, params)[1]
    state = jax.jit(lambda: jax.lax.fori_loop(0, 101, update, optimizer.init(params)))()
    rate = training.optimizer.learning_rate(state) / config.schedule.learning_rate
    np.testing.assert_allclose(rate, left, atol=0.1 if left else 1e-6)


@pytest.mark.slow
def test_short_run_of_the_cifar_config_learns(tmp_path):
    """A VMamba of a million parameters by the config's own recipe on real digits: the loss falls, robust accuracy under PGD-10 at 0.1 exceeds 50 %."""
    config = cifar10_at.get_config("model=vmamba_1m")
    config.data, config.preprocessing = digits.get_config().data, digits.get_config().preprocessing
    config.objective.update(base.objective("pgd_at", eps=0.1, steps=5, step_size=0.03, ramp=0.1))
    config.validation.update(base.validation("pgd_at", eps=0.1, every_epochs=6))
    config.augment = {"name": "none"}
    config.epochs, config.batch_size, config.log_every, config.ema_decay = 6, 64, 5, 0.9
    results = train.run(config, tmp_path, progress=False)
    losses = [row["loss"] for row in training.read_metrics(tmp_path) if "loss" in row]
    assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[:3])
    assert results["best"]["validation/robust_accuracy"] > 0.5 and 0.9e6 < results["parameters"] < 1.6e6
