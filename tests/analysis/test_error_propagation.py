"""Change rates over components, errors along the sequence, exact and sound bounds."""
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.vim_equations import random_variables
from vmamba_jax import analysis, attacks
from vmamba_jax.models import SequenceClassifier, interval_bounds
from vmamba_jax.models.sequence.convolution import causal
from vmamba_jax.reports import error_propagation as figures

SHAPE = (6, 2, 4, 3)


# ---- features

def test_metrics_of_the_released_pieces(golden):
    arrays = golden("ads_change_rates")
    errors = {side: analysis.feature_errors(*(arrays[f"feat_{side}_{kind}"] for kind in ("clean", "adv"))) for side in ("before", "after")}
    for i, kind in enumerate(("mse", "kl")):
        means = [float(errors[side][i].mean()) for side in ("before", "after")]
        np.testing.assert_allclose(means, [arrays[f"{kind}_before"], arrays[f"{kind}_after"]], rtol=2e-5)
        np.testing.assert_allclose(analysis.change_rate(*means), arrays[f"{kind}_change_rate"], rtol=1e-4)
    assert np.isnan(analysis.change_rate([0.0, 1.0], [1.0, 3.0])[0]) and analysis.change_rate([0.0, 1.0], [1.0, 3.0])[1] == 2
    with pytest.raises(ValueError, match=r"adversarial.shape=\(2, 3\): expected that of clean, \(2, 4\)"):
        analysis.feature_errors(np.zeros((2, 4)), np.zeros((2, 3)))


@functools.cache
def measured():
    """A DSS model with Adaptive Scaling, clean images, both results under a fixed perturbation, and the second scan's (input, output), clean and perturbed."""
    model = SequenceClassifier(layer="dss", d_model=4, depth=2, d_state=4, ads="relu")
    variables, rng = random_variables(model, SHAPE), np.random.default_rng(0)
    images, labels = rng.random(SHAPE, np.float32), np.zeros(6, np.int32)
    source = (images, labels)
    results = [f(model, variables, source, shifted, key=jax.random.key(0), batch_size=8) for f in (analysis.change_rates, analysis.sequence_errors)]
    record = jax.jit(functools.partial(model.apply, mutable=["components"]))
    scans = [record(variables, x)[1]["components"]["layers_1"]["component_scan"][0] for x in (images, shifted(None, images, None, None))]
    return model, variables, images, *results, scans


def shifted(logits_fn, images, labels, key):
    """An attack that needs no gradient: the images' left half becomes brighter."""
    del logits_fn, labels, key
    return jnp.clip(images + 0.1 * (jnp.arange(4) < 2)[:, None], 0, 1)


def test_change_rates_and_errors():
    """Against the features of two plain calls; the components in the network's order."""
    *_, rates, steps, scans = measured()
    names = [f"layers_0/{name}" for name in ("scan", "ads", "linear")] + ["block0"]
    assert rates["components"] == steps["components"] == names + [name.replace("0", "1") for name in names]
    at = lambda x, i: np.asarray(scans[x][i])
    for i, side in enumerate(("before", "after")):
        np.testing.assert_allclose(rates[f"mse_{side}"][4], ((at(0, i) - at(1, i))**2).mean(), rtol=1e-4)
    np.testing.assert_allclose(rates["mse_change_rate"][4], rates["mse_after"][4] / rates["mse_before"][4] - 1, rtol=1e-6)
    np.testing.assert_allclose(steps["error"][4], np.sqrt(((at(1, 1) - at(0, 1))**2).mean((0, 2))), rtol=1e-4)
    np.testing.assert_allclose(steps["clean"][4], np.sqrt((at(0, 1)**2).mean((0, 2))), rtol=1e-4)
    assert rates["examples"] == steps["examples"] == 6 and steps["error"].shape == (8, 8) and np.isfinite(rates["kl_change_rate"]).all()


def test_model_without_components():
    import flax.linen as nn

    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(x.reshape(len(x), -1))
    variables = Plain().init(jax.random.key(0), jnp.zeros((1, 2, 4, 1)))
    with pytest.raises(ValueError, match="classifier=Plain: expected a model that records its components"):
        analysis.change_rates(Plain(), variables, (np.zeros((2, 2, 4, 1), np.float32), np.zeros(2, int)), shifted, key=jax.random.key(0))


# ---- fixed parameters

def convolve(u, kernel):
    return causal(u, kernel)


def test_exact_bound(golden):
    """The golden bound and worst perturbation, at 1e-9; search reaches at least 95 % of the bound of every channel."""
    arrays = golden("ads_lti_bound")
    eps, kernel = float(arrays["eps"]), arrays["K"]
    with jax.enable_x64(True):
        bound, worst = analysis.worst_case_error(kernel, eps), analysis.worst_case_perturbation(kernel, eps)
        np.testing.assert_allclose(bound[:, -1], arrays["bound"], rtol=1e-9)
        np.testing.assert_allclose(worst, arrays["worst_delta"], rtol=1e-9)
    attained = [sum(k[i] * d[len(k) - 1 - i] for i in range(len(k))) for k, d in zip(kernel, arrays["worst_delta"], strict=True)]
    np.testing.assert_allclose(attained, arrays["attained"], rtol=1e-9)
    np.testing.assert_allclose(bound, [[eps * np.abs(k[:t + 1]).sum() for t in range(12)] for k in kernel], rtol=1e-6)
    found = analysis.searched_error(convolve, np.zeros((1, 12, 3), np.float32), eps, jax.random.key(0), arguments=(kernel.astype(np.float32),))
    assert (found[0] >= 0.95 * arrays["bound"]).all() and (found[0] <= arrays["bound"] * (1 + 1e-5)).all()
    with pytest.raises(ValueError, match="eps=-1.0: expected a finite number >= 0"):
        analysis.worst_case_error(kernel, -1)


def test_kernels_of_a_model():
    """The layer's scan is the convolution with its kernel, which contains the skip."""
    model, variables, images, *_, scans = measured()
    kernel = analysis.layer_kernels(model, variables, images)["layers_1"]
    for before, after in scans:
        np.testing.assert_allclose(jax.jit(causal)(before, kernel), after, atol=1e-5)
    with pytest.raises(ValueError, match="model='s6': expected a SequenceClassifier with layer 's4' or 'dss'"):
        analysis.layer_kernels(SequenceClassifier(layer="s6"), variables, images)


# ---- data-dependent parameters

def scan_of(E=4, N=2, R=1, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
    return analysis.SelectiveScan(0.5 * draw(E, R + 2 * N), draw(R, E), draw(E), -jnp.exp(0.5 * draw(E, N)), draw(E))


@functools.cache
def loose(joint=True):
    u = jnp.asarray(np.random.default_rng(1).standard_normal((1, 6, 4)), jnp.float32)
    return analysis.bound_looseness(scan_of(), u, 0.1, jax.random.key(0), samples=5000, steps=10, joint=joint)


def test_sound_bound():
    """10,000 points of the box, half of them corners, never leave the bound; it is at most 3 times as wide as their range at the last step."""
    found = loose()
    assert int(found["outside"]) == 0 and found["width"].shape == (6,)
    assert (found["bound"] >= found["searched"]).all()
    assert 1 <= float(found["looseness"][0]) < 1.6 and 1 < float(found["looseness"][-1]) < 3


def test_joint_treatment_is_tighter():
    """Than the product of the two intervals of delta, which is sound too."""
    scan, u = scan_of(), jnp.asarray(np.random.default_rng(1).standard_normal((1, 6, 4)), jnp.float32)
    joint, plain = (analysis.selective_bound(scan, u - 0.3, u + 0.3, joint=joint) for joint in (True, False))
    assert (joint[0] >= plain[0] - 1e-5).all() and (joint[1] <= plain[1] + 1e-5).all()
    assert float((plain[1] - plain[0]).sum()) > 1.02 * float((joint[1] - joint[0]).sum())


@pytest.mark.parametrize("h,v", [((0.5, 1.0), (0.2, 0.9)), ((-1.0, 0.4), (-0.5, 0.7)), ((-0.9, -0.3), (-2.0, -0.1)), ((0.0, 0.0), (-1.0, 1.0))])
def test_one_step_of_the_bound(h, v):
    """The ends of exp(delta A) h + delta v against a fine grid: none outside, and none far inside."""
    A, delta = jnp.float32(-1.3), (jnp.float32(0.05), jnp.float32(2.0))
    grid = [np.linspace(*ends, 41)[(...,) + (None,) * (2 - i)] for i, ends in enumerate(((0.05, 2.0), h, v))]
    values = np.exp(grid[0] * -1.3) * grid[1] + grid[0] * grid[2]
    as_pair = lambda ends: tuple(jnp.float32(x) for x in ends)
    low, high = interval_bounds.next_state(A, delta, as_pair(h), as_pair(v))
    assert low <= values.min() <= low + 2e-3 and high - 2e-3 <= values.max() <= high


def test_refused_bounds():
    scan, u = scan_of(), jnp.ones((1, 6, 4), jnp.float32)
    with pytest.raises(ValueError, match=r"step_sizes=\[0.0\]: expected a sequence of positive numbers"):
        analysis.error_growth(scan, u, 0.1, [0.0], jax.random.key(0))
    with pytest.raises(ValueError, match="eps=0.0: expected a finite number > 0"):
        analysis.bound_looseness(scan, u, 0.0, jax.random.key(0))
    np.testing.assert_allclose(jax.nn.softplus(scan.with_step(0.25).dt_bias), 0.25, rtol=1e-5)


@pytest.mark.slow
def test_growth():
    """The data-dependent error grows with the step size, within its bound."""
    scan, u = scan_of(), 2 * jnp.ones((1, 6, 4), jnp.float32)
    found = analysis.error_growth(scan, u, 0.1, [0.01, 1.0], jax.random.key(0), steps=10)
    assert (found["searched"] <= found["bound"]).all() and found["searched"][1] > 2 * found["searched"][0]


@pytest.mark.slow
def test_mamba_layer_within_its_bound():
    """The scan of a real layer under PGD on its classifier's images stays within the bound of the box around its input."""
    model = SequenceClassifier(layer="s6", d_model=4, depth=1, d_state=2)
    images = np.random.default_rng(0).random(SHAPE, np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    attack = attacks.pgd(eps=0.1, steps=3, step_size=0.05)
    fn = functools.partial(model.apply, variables)
    adversarial = attack(fn, images, np.zeros(6, np.int32), jax.random.key(1))
    pairs = [model.apply(variables, x, mutable=["components"])[1]["components"]["layers_0"]["mixer"]["component_scan"][0] for x in (images, adversarial)]
    scan = analysis.SelectiveScan.of(variables["params"]["layers_0"]["mixer"])
    (u, y), (v, z) = pairs
    np.testing.assert_allclose(scan(u), y, atol=1e-5)
    radius = jnp.abs(u - v).max()
    low, high = analysis.selective_bound(scan, u - radius, u + radius)
    assert ((low <= y) & (y <= high) & (low <= z) & (z <= high)).all()


# ---- figures

def test_figures():
    *_, rates, steps, _ = measured()
    growth = {"step_sizes": [0.01, 0.1], "searched": [1e-3, 1e-2], "bound": [2e-3, 4e-2], "fixed": [1e-3, 2e-3]}
    drawn = {"rates": figures.change_rate_figure({"train": rates, "test": rates}), "steps": figures.sequence_error_figure(steps),
             "bound": figures.bound_figure([0.3, 0.1], [0.29, 0.1]), "loose": figures.looseness_figure(loose()), "growth": figures.error_growth_figure(growth)}
    for name, words in (("rates", ("layers_0/ads", "Change rate of KL", "train", "test")), ("steps", ("block0", "block1", "root mean square error")),
                        ("bound", ("found by search",)), ("loose", ("sampled",)), ("growth", ("fixed parameters, exact", "step size"))):
        assert drawn[name].startswith("<svg") and all(word in drawn[name] for word in words), name
        assert not re.search(r"nan|inf\b", drawn[name]), name
    with pytest.raises(ValueError, match=r"components=\['block9'\]: expected names among layers_0/scan"):
        figures.sequence_error_figure(steps, ["block9"])
    with pytest.raises(ValueError, match="expected results of one model"):
        figures.change_rate_figure({"a": rates, "b": rates | {"components": ["x"]}})
