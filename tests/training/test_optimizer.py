"""Schedules against their formulas, decay masks by name and rank, optimizers against numpy loops."""
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vmamba_jax.training.optimization import optimizer, schedules, weight_decay

BLOCK = {  # one SS2D block's names and ranks, each with (released, documented)
    "A_logs": ((8, 1), True, False), "Ds": ((8,), False, False), "dt_projs_weight": ((4, 2, 1), True, True),
    "dt_projs_bias": ((4, 2), True, False), "x_proj_weight": ((4, 3, 2), True, True),
    "in_proj/kernel": ((3, 2), True, True), "conv2d/kernel": ((3, 3, 1, 2), True, True), "conv2d/bias": ((2,), False, False),
    "out_norm/scale": ((2,), False, False), "out_norm/bias": ((2,), False, False), "head/bias": ((1, 2), False, False),
    "pos_embed": ((1, 4, 4, 2), False, False), "absolute_pos_embed": ((1, 4, 2), False, False), "cls_token": ((1, 1, 2), False, False),
}


def params():
    tree = {}
    for name, (shape, *_) in BLOCK.items():
        *folders, leaf = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = jnp.ones(shape)
    return {"layers_0": {"blocks_0": tree}}


def by_name(tree):
    return {"/".join(str(k.key) for k in path[2:]): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.parametrize("rule, column", [("released", 1), ("documented", 2)])
def test_decay_masks(rule, column):
    assert by_name(weight_decay.mask(rule)(params())) == {name: row[column] for name, row in BLOCK.items()}


def test_decay_masks_of_mamba2_and_of_functions():
    tree = {"Ds": jnp.ones((4, 2, 3)), "A_logs": jnp.ones((4, 2)), "w": [jnp.ones((2, 2))]}
    assert weight_decay.mask("released")(tree) == {"Ds": True, "A_logs": True, "w": [True]}
    named = {"norm": {"scale": 0.0}, "outnorm1": {"bias": 0.0}, "bn": {"scale": 0.0}, "op": {"A_logs": 0.0, "bias": 0.0}, "pos_embed": 0.0}
    assert weight_decay.mask("norms")(named) == {"norm": {"scale": False}, "outnorm1": {"bias": False}, "bn": {"scale": True}, "op": {"A_logs": True, "bias": True},
                                                 "pos_embed": False}
    assert weight_decay.mask("documented")(tree) == {"Ds": False, "A_logs": False, "w": [True]}
    assert weight_decay.mask(lambda path, x: path == ("w", "0"))(tree) == {"Ds": False, "A_logs": False, "w": [True]}
    assert all(by_name(weight_decay.mask("everything")(params())).values())


@pytest.mark.parametrize("rule, column", [("released", 1), ("documented", 2)])
def test_masked_leaves_shrink(rule, column):
    optim = optimizer.create("adamw", learning_rate=0.1, weight_decay=0.5, decay_rule=rule)
    tree = params()
    updates, _ = jax.jit(lambda tree: optim.update(jax.tree.map(jnp.zeros_like, tree), optim.init(tree), tree))(tree)
    for name, x in by_name(updates).items():
        np.testing.assert_allclose(x, -0.05 if BLOCK[name][column] else 0.0, rtol=1e-6, err_msg=name)


def test_official_cosine():
    steps = 1251
    rate = schedules.cosine(1e-3, total_steps=300 * steps, warmup_steps=20 * steps, warmup_start=1e-6, end=1e-5)
    formula = lambda t: 1e-5 + 0.5 * (1e-3 - 1e-5) * (1 + math.cos(math.pi * (t - 20 * steps) / (280 * steps)))
    expected = {0: 1e-6, 1: 1e-6 + 9.99e-4 / (20 * steps), 10 * steps: 5.005e-4, 20 * steps: 1e-3, 21 * steps: formula(21 * steps),
                160 * steps: 0.5 * (1e-3 + 1e-5), 299 * steps: formula(299 * steps), 300 * steps: 1e-5, 301 * steps: 1e-5}
    for t, value in expected.items():
        np.testing.assert_allclose(rate(jnp.int32(t)), value, rtol=1e-5, err_msg=str(t))


@pytest.mark.parametrize("name, options, expected", [
    ("constant", {}, {0: 0.4, 100: 0.4}),
    ("constant", {"warmup_steps": 4, "warmup_start": 0.2}, {0: 0.2, 1: 0.25, 4: 0.4, 5: 0.4}),
    ("cosine", {"total_steps": 8}, {0: 0.4, 2: 0.2 * (1 + math.sqrt(0.5)), 4: 0.2, 8: 0.0, 9: 0.0}),
    ("piecewise", {"boundaries": (3, 5)}, {0: 0.4, 2: 0.4, 3: 0.04, 4: 0.04, 5: 0.004}),
    ("piecewise", {"boundaries": (3, 5), "factor": 0.5, "warmup_steps": 2}, {0: 0.0, 1: 0.2, 2: 0.4, 3: 0.2, 5: 0.1}),
    ("piecewise", {"boundaries": ()}, {0: 0.4, 9: 0.4}),
    ("linear", {"total_steps": 10, "warmup_steps": 2, "end": 0.1}, {0: 0.0, 1: 0.2, 2: 0.4, 6: 0.25, 10: 0.1, 12: 0.1}),
])
def test_schedules(name, options, expected):
    rate = schedules.create(name, 0.4, **options)
    for t, value in expected.items():
        np.testing.assert_allclose(rate(jnp.int32(t)), value, atol=1e-7, err_msg=str(t))
        np.testing.assert_allclose(rate(t), value, atol=1e-7)


def test_ramp():
    assert [float(schedules.ramp(4, start=0.5)(t)) for t in (0, 1, 2, 4, 9)] == [0.5, 0.625, 0.75, 1, 1]


def run(optim, steps=4):
    """(trajectory, learning rates in the state) of `steps` updates of one vector and one bias."""
    tree, trajectory, rates = {"kernel": jnp.ones((1, 3)), "bias": jnp.ones(3)}, [], []
    state = optim.init(tree)
    for grads in gradients(steps):
        updates, state = jax.jit(optim.update)(grads, state, tree)
        tree = optax.apply_updates(tree, updates)
        trajectory.append(tree)
        rates.append(float(optimizer.learning_rate(state)))
    return trajectory, rates


def gradients(steps):
    rng = np.random.default_rng(0)
    return [{"kernel": rng.normal(size=(1, 3)).astype(np.float32), "bias": rng.normal(size=3).astype(np.float32)} for _ in range(steps)]


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("clip", [None, 0.7])
def test_updates_against_a_loop(name, clip):
    rate = lambda t: 0.1 / (1 + t)
    found, rates = run(optimizer.create(name, learning_rate=rate, weight_decay=0.1, clip_norm=clip))
    np.testing.assert_allclose(rates, [rate(t) for t in range(4)], rtol=1e-6)
    w = {"kernel": np.ones((1, 3)), "bias": np.ones(3)}
    m, v = ({k: np.zeros_like(x) for k, x in w.items()} for _ in range(2))
    for t, g in enumerate(gradients(4)):
        norm = math.sqrt(sum((x.astype(np.float64) ** 2).sum() for x in g.values()))
        for k in w:
            x = g[k] * (min(1, clip / norm) if clip else 1)
            decay = 0.1 * w[k] if k == "kernel" else 0
            if name == "sgd":
                x = x + decay
                m[k] = 0.9 * m[k] + x
                w[k] = w[k] - rate(t) * (x + 0.9 * m[k])
            else:
                m[k], v[k] = 0.9 * m[k] + 0.1 * x, 0.999 * v[k] + 0.001 * x * x
                w[k] = w[k] - rate(t) * (m[k] / (1 - 0.9 ** (t + 1)) / (np.sqrt(v[k] / (1 - 0.999 ** (t + 1))) + 1e-8) + decay)
            np.testing.assert_allclose(found[t][k], w[k], rtol=2e-5)


def test_learning_rate_of_other_optimizers():
    tree = {"w": jnp.ones(2)}
    injected = optax.inject_hyperparams(optax.sgd)(learning_rate=lambda t: 0.25)
    assert float(optimizer.learning_rate(injected.init(tree))) == 0.25
    assert optimizer.learning_rate(optax.adam(0.1).init(tree)) is None


@pytest.mark.parametrize("make, message", [
    (lambda: optimizer.create("lion", learning_rate=0.1), "optimizer='lion': expected one of 'adamw', 'sgd'"),
    (lambda: optimizer.create(learning_rate=0.1, clip_norm=0), "clip_norm=0.0: expected None or a finite number > 0"),
    (lambda: optimizer.create(learning_rate=0.1, b1=1.0), "b1=1.0: expected a finite number >= 0 and < 1"),
    (lambda: optimizer.create(learning_rate=0.1, eps=0), "eps=0.0: expected a finite number > 0"),
    (lambda: optimizer.create(learning_rate=-1), "learning_rate=-1.0: expected a finite number >= 0"),
    (lambda: optimizer.create(learning_rate=0.1, beta=0.9), "beta=0.9: expected an option of the optimizer, one of b1"),
    (lambda: optimizer.create(learning_rate=0.1, decay_rule="none"), "decay_rule='none': expected one of "),
    (lambda: optimizer.create(learning_rate="0.1"), "learning_rate='0.1': expected a finite number >= 0"),
    (lambda: schedules.cosine(1e-3, total_steps=10, warmup_steps=10), "warmup_steps=10: expected fewer than total_steps=10"),
    (lambda: schedules.cosine(math.nan, total_steps=1), "value=nan: expected a finite number >= 0"),
    (lambda: schedules.cosine(0.1, total_steps=1.5), "total_steps=1.5: expected an integer >= 1"),
    (lambda: schedules.cosine(0.0, total_steps=5, end=0.1), "end=0.1: expected 0 where value is 0"),
    (lambda: schedules.constant(0.1, warmup_steps=-1), "warmup_steps=-1: expected an integer >= 0"),
    (lambda: schedules.piecewise(0.1, boundaries=(5, 3)), r"boundaries=\(5, 3\): expected ascending"),
    (lambda: schedules.piecewise(0.1, boundaries=(5,), warmup_steps=6), r"warmup_steps=6: expected at most the first of boundaries=\(5,\)"),
    (lambda: schedules.create("line", 0.1), "schedule='line': expected one of 'constant', 'cosine', 'linear', 'piecewise'"),
    (lambda: schedules.ramp(0), "steps=0: expected an integer >= 1"),
])
def test_errors(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
