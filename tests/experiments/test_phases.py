"""Trainings in phases: the config, schedule, model and state of each, and runs that stop before, at and after a change."""
import copy
import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base, digits, phases_digits, scale_at
from experiments import train
from experiments.common import build, cli, limits, phases
from vmamba_jax import data, models, training
from vmamba_jax.models.baselines.vit import resize_positions
from vmamba_jax.training.objectives import InnerAttack
from vmamba_jax.training.objectives.losses import step_keys

VIT = {"name": "vit_tiny", "overrides": {"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 2, "image_size": 8, "drop_path_rate": 0.0}}
PHASES = ({"epochs": 2, "size": 4, "batch_size": 128, "attack": {"steps": 1}}, {"epochs": 1, "size": 8})


def config_of(given=PHASES, model=VIT):
    config = digits.get_config("objective=pgd_at")
    config.epochs, config.phases, config.ema_decay, config.log_every = 0, given, 0.9, 5
    config.model = copy.deepcopy(model)
    config.objective.attack.steps = 2
    config.validation.update(every_epochs=1, limit=32)
    config.validation.attack.steps = 1
    return base.complete(config)


def test_configs_and_learning_rates():
    config = config_of()
    limits.check_run(config)
    first, second = phases.configs(config)
    assert (first.epochs, first.batch_size, first.objective.attack.steps, first.objective.ramp) == (2, 128, 1, config.objective.ramp)
    assert (second.epochs, second.batch_size, second.objective.attack.steps, second.objective.ramp) == (1, 64, 2, 0)
    assert first.schedule.learning_rate == 2 * config.schedule.learning_rate == 2 * second.schedule.learning_rate
    rate, own = phases.rate([first, second], [18, 19]), [phases.rate([part], [n]) for part, n in ((first, 18), (second, 19))]
    for t in (0, 2, 10, 17, 18, 20, 36):
        assert float(rate(t)) == pytest.approx(float(own[t >= 18](t - 18 * (t >= 18))), rel=1e-6)
    chosen, = phases.configs(config_of(({"epochs": 1, "learning_rate": 1e-4, "batch_size": 128},)))
    assert chosen.schedule.learning_rate == pytest.approx(1e-4)
    plain = digits.get_config()
    assert phases.configs(base.complete(plain))[0].epochs == plain.epochs


@pytest.mark.parametrize("given, message", [
    (({"size": 8},), r"config.phases\[0\]: expected a field epochs"), (({"epochs": 1, "sizes": 8},), "sizes: unknown field"),
    (({"epochs": 0},), r"config.phases\[0\].epochs=0"), (({"epochs": 1}, 3), r"config.phases\[1\]=3: expected a dict"),
    (({"epochs": 1, "attack": 3},), "expected a dict of fields of config.objective.attack")])
def test_wrong_phases_are_one_line(given, message):
    with pytest.raises(cli.ConfigError, match=message):
        limits.check_run(config_of(given))


def test_phases_that_do_not_fit():
    config = config_of()
    config.epochs = 3
    with pytest.raises(cli.ConfigError, match="config.epochs=3: expected 0 with config.phases"):
        phases.configs(config)
    with pytest.raises(cli.ConfigError, match=r"config.phases\[0\].attack.step: expected some of"):
        phases.configs(config_of(({"epochs": 1, "attack": {"step": 3}},)))
    with pytest.raises(cli.ConfigError, match=r"config.phases\[0\].size=4: expected 8, the model's image_size, in the last phase"):
        build.build(config_of(({"epochs": 1, "size": 4},)))


def test_order_of_the_data_goes_on():
    """Each phase reads the next epochs' orders, at its own size."""
    run = build.build(config_of())
    first, = run.earlier
    assert (first.first, first.steps, run.first, run.steps) == (0, 18, 18, 37)
    assert first.batches[0]["image"].shape == (128, 4, 4, 1) and run.batches[18]["image"].shape == (64, 8, 8, 1)
    plain = data.Batches(data.load("digits", "train"), 64, seed=0)
    for t in (18, 36):
        np.testing.assert_array_equal(run.batches[t]["index"], plain[t - 18 + 2 * 19]["index"])
    np.testing.assert_array_equal(next(iter(run.batches.iterate(20, 21)))["index"], run.batches[20]["index"])
    assert first.classifier.model.image_size == 4 and run.classifier.model.image_size == 8 and run.optimizer is first.optimizer
    vmamba = build.build(config_of(model=digits.get_config().model.to_dict()))
    assert vmamba.classifier == vmamba.earlier[0].classifier


def test_resized_source():
    source = data.Arrays(np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), np.uint8), [0, 1, 1, 0])
    small = data.Resized(source, 4)
    images, labels = small.gather([2, 0])
    assert images.shape == (2, 4, 4, 3) and labels.tolist() == [1, 0] and small.image_shape == (4, 4, 3) and small.fingerprint != source.fingerprint
    np.testing.assert_allclose(images.mean((1, 2)), source.images[[2, 0]].mean((1, 2)), atol=12)
    np.testing.assert_array_equal(data.Resized(source, 8).gather([1])[0], source.images[[1]])


def made_state(classifier, optimizer):
    """A state of random arrays, without a compiled initialization."""
    shapes = jax.eval_shape(lambda: training.create_state(classifier, optimizer, jax.random.key(0), (4, 4, 1), ema_decay=0.9))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(rng.uniform(size=x.shape).astype(x.dtype)), shapes).replace(step=jnp.int32(18))


def test_state_at_a_change():
    run = build.build(config_of())
    state = made_state(run.earlier[0].classifier, run.optimizer)
    found = phases.enter(state, run, 64)
    for tree, old in ((found.params, state.params), (found.ema, state.ema)):
        np.testing.assert_allclose(tree["pos_embed"], resize_positions(old["pos_embed"], 4, 4, True), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(tree["pos_embed"][:, 0], old["pos_embed"][:, 0])
        assert all(tree[name] is old[name] for name in tree if name != "pos_embed" and not isinstance(tree[name], dict))
        np.testing.assert_array_equal(tree["head"]["kernel"], old["head"]["kernel"])
    adam, before = found.opt_state[1], state.opt_state[1]
    assert not np.any(adam.mu["pos_embed"]) and not np.any(adam.nu["pos_embed"]) and adam.nu["pos_embed"].shape == (1, 17, 16)
    np.testing.assert_array_equal(adam.nu["head"]["kernel"], before.nu["head"]["kernel"])
    assert int(adam.count) == int(before.count) and int(found.step) == 18
    same = phases.enter(found, run, 64)
    assert jax.tree.all(jax.tree.map(lambda a, b: a is b, same.params, found.params))


def test_attack_on_the_averaged_weights():
    class Linear:
        def __call__(self, variables, images, train=False, rngs=None, mutable=False):
            return variables["params"] * images

    state = training.TrainState(step=0, params=jnp.float32(2), model_state={}, opt_state=(), ema=jnp.float32(3))
    batch, keys = {"image": jnp.ones((2, 1, 1, 1)), "label": jnp.zeros(2, jnp.int32)}, step_keys(jax.random.key(0), 2)
    attack = lambda logits_fn, images, labels, keys: logits_fn(images)
    for weights, value in (("current", 2), ("ema", 3)):
        assert np.all(InnerAttack(attack, attack_weights=weights)(Linear(), state, batch, keys)[0] == value)
    with pytest.raises(ValueError, match="ema=True with a state without an average"):
        InnerAttack(attack, attack_weights="ema")(Linear(), state.replace(ema=None), batch, keys)
    with pytest.raises(ValueError, match="attack_weights='best'"):
        InnerAttack(attack, attack_weights="best")


@pytest.mark.parametrize("model", scale_at.MODELS)
def test_scale_at(model):
    config = base.complete(scale_at.get_config(f"model={model}"))
    limits.check_run(config)
    parts = phases.configs(config)
    assert [part.transform.size for part in parts] == [scale_at.MODELS[model][0], 224, 336] and [part.objective.attack.steps for part in parts] == [2, 3, 3]
    entry, patch = models.entry(model), dict(models.entry(model).fields).get("patch_size", 16)
    assert entry.parameters > 8e7 and all(part.transform.size % patch == 0 for part in parts if model.startswith("vit"))
    assert [len(phases.configs(base.complete(scale_at.get_config(f"model={model},stage={stage}")))) for stage in scale_at.STAGES] == [3, 1, 2]
    assert config.sharding == "fsdp" and config.optimizer.mu_dtype == "bfloat16" and config.model.overrides.image_size == 336


def test_phases_digits_has_equal_compute():
    config = phases_digits.get_config()
    passes = lambda epochs, side, steps: epochs * side**2 * (steps + 1)
    spent = sum(passes(p["epochs"], p["size"], p.get("attack", {"steps": 5})["steps"]) for p in phases_digits.PHASES)
    assert spent == 4584 and 0.99 * passes(config.base.epochs, 8, 5) < spent <= passes(config.base.epochs, 8, 5) == 4608


class Killed(Exception):
    """The process is gone."""


class Broken:
    """Batches of which that of one step is never read."""

    def __init__(self, batches, at):
        self.batches, self.at = batches, at

    steps_per_epoch = property(lambda self: self.batches.steps_per_epoch)

    def __getitem__(self, t):
        if t == self.at:
            raise Killed
        return self.batches[t]


def killed_at(at, config):
    """The run of a config whose step `at` never begins."""
    run = build.build(config)
    broken = [dataclasses.replace(part, batches=Broken(part.batches, at)) for part in (*run.earlier, run)]
    return dataclasses.replace(broken[-1], earlier=tuple(broken[:-1]))


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["replicated", "fsdp"])
def test_killed_before_at_and_after_a_change(tmp_path, sharding):
    """Steps 0 to 17 are the first phase's, checkpoints are at 9, 18 and 37; a run is killed at steps 12, 18 and 30, in turn."""
    config = config_of()
    config.sharding = sharding
    unbroken = train.run(config, tmp_path / "unbroken", progress=False)
    assert unbroken["best"]["step"] == 37 and [phase["first"] for phase in unbroken["phases"]] == [0, 18]
    config.phases = PHASES
    for at in (12, 18, 30):
        with pytest.raises(Killed):
            train.run(config, tmp_path / "killed", progress=False, make=functools.partial(killed_at, at))
    resumed = train.run(config, tmp_path / "killed", progress=False)
    assert resumed["sha256"] == unbroken["sha256"]
    rows, expected = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("killed", "unbroken"))
    assert rows == expected and json.loads(rows.splitlines()[-1])["step"] == 37
