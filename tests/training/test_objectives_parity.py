"""TRADES, MART, Free and PGD steps against the released programs, in float64: losses, weight gradients, perturbations."""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from vmamba_jax import attacks, training
from vmamba_jax.training import objectives

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Net:
    """A classifier from a function of parameters and NCHW images."""
    forward: callable

    def __call__(self, variables, images, train=False, rngs=None, mutable=False):
        return self.forward(variables["params"], jnp.moveaxis(images, -1, 1))


def convolutional(w, x):
    for name in ("c1", "c2"):
        x = lax.conv_general_dilated(x, w[f"{name}.weight"], (2, 2), ((1, 1), (1, 1)))
        x = jax.nn.relu(x + w[f"{name}.bias"][:, None, None])
    return x.reshape(len(x), -1) @ w["fc.weight"].T + w["fc.bias"]


def perceptron(w, x):
    return jnp.tanh(x.reshape(len(x), -1) @ w["W1"].T + w["b1"]) @ w["W2"].T + w["b2"]


def nhwc(x):
    return jnp.moveaxis(jnp.asarray(x), 1, -1)


def run(step, params, images, labels, steps=1):
    """State and metrics after steps of plain gradient descent at rate 1, jitted."""
    state = training.TrainState(jnp.zeros((), jnp.int32), params, {}, step.optimizer.init(params))
    state, step = step.begin(state, images.shape[1:], len(images)), jax.jit(step)
    for _ in range(steps):
        state, metrics = step(state, {"image": images, "label": labels}, KEY)
    return state, metrics


@pytest.mark.parametrize("name, beta", [("trades", 1), ("trades", 6), ("mart", 5), ("mart", 6)])
@pytest.mark.often(2)
def test_loss_and_weight_gradients(golden, x64, name, beta):
    arrays = golden("at_losses_f64")
    params = {f"{n}.{long}": jnp.asarray(arrays[f"w_{n}_{short}"]) for n in ("c1", "c2", "fc") for long, short in (("weight", "w"), ("bias", "b"))}
    images, noise = nhwc(arrays["x"]), nhwc(arrays["noise"])
    attack = attacks.pgd(0.031, 10, {"trades": 0.003, "mart": 0.007}[name], start=lambda images, keys: images + 0.001 * noise)
    step = objectives.create(name, Net(convolutional), optax.sgd(1.0), beta=beta, attack=attack)
    seen, _ = step.rule.prepare(training.TrainState(0, params, {}, None), {"image": images, "label": arrays["y"]},
                                objectives.losses.step_keys(KEY, len(images)))
    np.testing.assert_allclose(seen["adversarial"], nhwc(arrays[f"{name}_x_adv"]), rtol=0, atol=1e-8)
    state, metrics = run(step, params, images, jnp.asarray(arrays["y"]))
    np.testing.assert_allclose(metrics["loss"], arrays[f"{name}_loss_beta{beta}"], rtol=0, atol=1e-8)
    np.testing.assert_allclose(metrics["kl"], arrays[f"{name}_robust"], rtol=0, atol=1e-8)
    for key, w in params.items():
        np.testing.assert_allclose(w - state.params[key], arrays[f"{name}_beta{beta}_grad_{key}"], rtol=0, atol=1e-8)


@functools.cache
def tanh_net():
    return Net(perceptron)


@pytest.fixture
def pieces(golden, x64):
    arrays = golden("at_released_pieces")
    return arrays, {key: jnp.asarray(arrays[key]) for key in ("W1", "b1", "W2", "b2")}, nhwc(arrays["x"]), jnp.asarray(arrays["labels"])


@pytest.mark.parametrize("kind", ["standard", "released"])
def test_both_starts_of_pgd(pieces, kind):
    arrays, params, images, labels = pieces
    start = nhwc(arrays["delta0"])
    attack = attacks.pgd(arrays["eps"].item(), 10, arrays["alpha"].item(), start=lambda images, keys: images + start)
    step = objectives.pgd_at(tanh_net(), optax.sgd(1.0), attack=attack, released=kind == "released")
    batch, _ = step.rule.prepare(training.TrainState(0, params, {}, None), {"image": images, "label": labels}, objectives.losses.step_keys(KEY, 4))
    np.testing.assert_allclose(batch["image"], nhwc(arrays[f"pgd_{kind}_adv"]), rtol=0, atol=1e-8)


@pytest.mark.parametrize("recompute", [True, False])
def test_trades_of_the_released_network(pieces, recompute):
    arrays, params, images, labels = pieces
    noise = nhwc(arrays["trades_noise"])
    attack = attacks.pgd(arrays["eps"].item(), 10, arrays["alpha"].item(), start=lambda images, keys: images + noise)
    step = objectives.trades(tanh_net(), optax.sgd(1.0), attack=attack, recompute_targets=recompute)
    _, metrics = run(step, params, images, labels)
    for name, key in (("clean_loss", "trades_nat"), ("kl", "trades_rob"), ("loss", "trades_total_beta6")):
        np.testing.assert_allclose(metrics[name], arrays[key], rtol=0, atol=1e-8)


def test_free_perturbation_over_four_replays(pieces):
    """The learning rate is 0, as the golden network's weights are constant."""
    arrays, params, images, labels = pieces
    step = objectives.free(tanh_net(), optax.sgd(0.0), replays=1, released=True)
    for n in range(4):
        state, _ = run(step, params, images, labels, steps=n + 1)
        np.testing.assert_allclose(state.carry, nhwc(arrays["free_noise"][n]), rtol=0, atol=1e-8)
    four, _ = run(objectives.free(tanh_net(), optax.sgd(0.0), replays=4, eps=4 / 255), params, images, labels)
    np.testing.assert_allclose(four.carry, state.carry, rtol=0, atol=1e-12)
    assert int(four.step) == 1
