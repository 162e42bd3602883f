"""Projections against slow oracles, random starts against their documented distributions."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vmamba_jax import attacks
from vmamba_jax.attacks import norms
from vmamba_jax.attacks.norms import ascent, unit

NORMS = attacks.NORMS
values = st.floats(-3, 3, width=32).map(lambda v: np.float32(round(v, 3)))
deltas = hnp.arrays(np.float32, (2, 2, 3, 1), elements=values)


def l1_by_bisection(x, eps):
    """Nearest point of the l1 ball: soft thresholding by the theta at which the norm is eps."""
    if np.abs(x).sum() <= eps:
        return x
    low, high = 0.0, np.abs(x).max()
    for _ in range(100):
        theta = (low + high) / 2
        low, high = (theta, high) if np.maximum(np.abs(x) - theta, 0).sum() > eps else (low, theta)
    return np.sign(x) * np.maximum(np.abs(x) - high, 0)


@settings(max_examples=60, deadline=None)
@given(deltas, st.sampled_from([0.0, 0.01, 0.5, 2.0, 30.0]))
def test_l1_projection(delta, eps):
    expected = np.stack([l1_by_bisection(x, eps) for x in delta.astype(np.float64)])
    np.testing.assert_allclose(norms.l1(jnp.asarray(delta), eps), expected, atol=2e-6)


@settings(max_examples=60, deadline=None)
@given(deltas, st.sampled_from([0.0, 0.01, 0.5, 2.0, 30.0]), st.sampled_from(NORMS), st.sampled_from(["nearest", "radial"]))
@example(np.full((2, 2, 3, 1), 3, np.float32) * (np.arange(12) > 9).reshape(2, 2, 3, 1), 0.01, "l1", "nearest")  # 3 - theta is rounded
def test_projection_properties(delta, eps, norm, projection):
    threat = attacks.ThreatModel(norm, eps, lower=-10, upper=10, projection=projection)
    zero = jnp.zeros_like(delta)
    once = threat.project(zero, jnp.asarray(delta))
    assert (threat.distance(zero, once) <= eps * (1 + 1e-5)).all()
    np.testing.assert_allclose(threat.project(zero, once), once, atol=1e-6)  # idempotent
    inside = np.asarray(threat.distance(zero, delta)) <= eps
    np.testing.assert_array_equal(np.asarray(once)[inside], delta[inside])  # nothing moves inside


@pytest.mark.parametrize("norm", NORMS)
def test_ball_and_box(norm):
    rng = np.random.default_rng(0)
    images = rng.uniform(0.1, 0.8, (5, 4, 4, 3)).astype(np.float32)
    far = images + 3 * rng.normal(size=images.shape).astype(np.float32)
    threat = attacks.ThreatModel(norm, 0.3, lower=0.1, upper=0.8)
    x, moved = jax.jit(lambda x: (threat.project(images, x), threat.distance(images, threat.project(images, x))))(far)
    assert (np.asarray(moved) <= 0.3 * (1 + 1e-5)).all() and (np.asarray(moved) > 0).all()
    assert np.asarray(x).min() >= np.float32(0.1) and np.asarray(x).max() <= np.float32(0.8)


def test_random_start_distributions():
    """Of points uniform in a ball of any norm, the mean distance is d/(d+1) of the radius; in linf each value is uniform."""
    n, d = 4000, 3
    images = jnp.full((n, 1, d, 1), 0.5)
    start = jax.jit(attacks.ThreatModel.random_start)
    for norm in NORMS:
        threat = attacks.ThreatModel(norm, 0.25)
        moved = (np.asarray(start(threat, images, jax.random.key(3))) - 0.5).reshape(n, d)
        distance = np.linalg.norm(moved, {"linf": np.inf, "l2": 2, "l1": 1}[norm], axis=1)
        np.testing.assert_allclose((distance / 0.25).mean(), d / (d + 1), atol=0.01)
        np.testing.assert_allclose(moved.mean(0), 0, atol=0.01)
    linf = start(attacks.ThreatModel("linf", 0.25), images, jax.random.key(4))
    np.testing.assert_allclose(np.sort((np.asarray(linf) - 0.5).ravel() / 0.25), np.linspace(-1, 1, n * d), atol=0.05)


@pytest.mark.parametrize("norm", NORMS)
def test_random_start_clips_and_keeps_radius_zero(norm):
    images = np.random.default_rng(0).integers(0, 2, (3, 4, 4, 1)).astype(np.float32)
    start = jax.jit(lambda threat: threat.random_start(images, jax.random.key(1)))
    x = start(attacks.ThreatModel(norm, 2.0))
    assert np.asarray(x).min() >= 0 and np.asarray(x).max() <= 1 and (np.asarray(x) != images).any()
    np.testing.assert_array_equal(start(attacks.ThreatModel(norm, 0.0)), images)


@pytest.mark.parametrize("norm", NORMS)
def test_unit_steps(norm):
    threat = attacks.ThreatModel(norm, 1.0)
    gradient = jax.random.normal(jax.random.key(0), (3, 4, 4, 1)) * jnp.array([1e-30, 1, 0]).reshape(3, 1, 1, 1)
    step = ascent(threat)(gradient, 0.5 + 0 * gradient)
    np.testing.assert_allclose(threat.distance(0, step), [1, 1, 0], rtol=1e-5)  # 1e-30: its square underflows
    np.testing.assert_allclose(unit(gradient, norm)[1], step[1] if norm != "linf" else unit(gradient, "linf")[1])


def test_sparse_l1_step():
    """Equal steps on the share of largest gradients, except those that would leave the box."""
    gradient = jnp.array([5.0, -4.0, 3.0, -2.0, 1.0, 0.5, 0.2, 0.1]).reshape(1, 2, 4, 1)
    x = jnp.array([1.0, 0.5, 0.5, 0.0, 0.5, 0.5, 0.5, 0.5]).reshape(1, 2, 4, 1)
    step = ascent(attacks.ThreatModel("l1", 1.0), l1_fraction=0.25)(gradient, x)
    np.testing.assert_allclose(step.ravel(), [0, -0.5, 0.5, 0, 0, 0, 0, 0])
    one = ascent(attacks.ThreatModel("l1", 1.0), l1_fraction=0.01)(gradient, x)
    np.testing.assert_allclose(one.ravel(), [0, -1, 0, 0, 0, 0, 0, 0])


def test_threat_model_is_a_value():
    threat = attacks.ThreatModel("l2", 0.5)
    assert hash(threat) == hash(attacks.ThreatModel("l2", np.float64(0.5))) and threat == attacks.ThreatModel("l2", 0.5)
    assert threat != attacks.ThreatModel("linf", 0.5)
    assert repr(threat) == "ThreatModel(norm='l2', eps=0.5, lower=0, upper=1, projection='nearest')"
    assert jax.tree.leaves(threat) == [0.5]
    doubled = jax.jit(lambda t: jax.tree.map(lambda eps: 2 * eps, t))(threat)
    assert float(doubled.eps) == 1.0 and doubled.norm == "l2"


@pytest.mark.parametrize(("error", "options", "text"), [
    (ValueError, {"norm": "l3", "eps": 1}, "norm='l3'"),
    (ValueError, {"norm": "linf", "eps": -0.1}, "eps=-0.1"),
    (ValueError, {"norm": "linf", "eps": float("nan")}, "eps=nan"),
    (ValueError, {"norm": "linf", "eps": float("inf")}, "eps=inf"),
    (TypeError, {"norm": "linf", "eps": "8/255"}, "eps='8/255'"),
    (TypeError, {"norm": "linf", "eps": np.ones(2)}, "eps="),
    (TypeError, {"norm": "linf", "eps": None}, "eps=None"),
    (TypeError, {"norm": "linf", "eps": True}, "eps=True"),
    (ValueError, {"norm": "linf", "eps": 1, "lower": 1, "upper": 0}, "lower=1, upper=0"),
    (ValueError, {"norm": "linf", "eps": 1, "projection": "near"}, "projection='near'"),
])
def test_threat_model_errors(error, options, text):
    with pytest.raises(error, match="expected") as raised:
        attacks.ThreatModel(**options)
    assert text in str(raised.value)
