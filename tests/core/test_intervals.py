"""Interval bounds: every primitive's rule holds sampled values, with rounding errors; what has no rule is an error that names it."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vmamba_jax.core import intervals
from vmamba_jax.core.intervals import arithmetic as ia

W = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
KERNEL = np.random.default_rng(1).normal(size=(2, 2, 1, 3)).astype(np.float32)
FUNCTIONS = {
    "linear": lambda x: x @ W + 1, "product of two intervals": lambda x: jnp.einsum("bi,bj->bij", x, x), "gram": lambda x: x @ x.T,
    "convolution": lambda x: lax.conv_general_dilated(x.reshape(-1, 2, 3, 1), KERNEL, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")),
    "square": lambda x: x * x, "cube": lambda x: x**3 - x**2 + x**4, "inverse": lambda x: 1 / (x + 3) + lax.integer_pow(x + 3, -2),
    "smooth": lambda x: jnp.exp(x) + jnp.tanh(x) - jax.nn.sigmoid(x) + lax.erf(x) + jnp.log1p(jnp.exp(x)) + jnp.expm1(x),
    "roots": lambda x: jnp.sqrt(x + 4) * lax.rsqrt(x + 4) - jnp.abs(x), "choice": lambda x: jnp.where(x > 0.1, x, -2 * x) + jnp.where(~(x <= 0) & (x != 1), 1.0, 0.0),
    "sums": lambda x: jnp.cumsum(x, 1) + x.sum(1, keepdims=True) - x.mean(), "order": lambda x: x.max(1) - jnp.minimum(x, 0.2).min(1),
    "moves": lambda x: jnp.concatenate([x[:, ::-1].T, jnp.pad(x, ((0, 2), (0, 0)), constant_values=0.5).reshape(6, -1)], 1)[:, jnp.array([3, 0])],
    "softmax": jax.nn.softmax, "clip": lambda x: jnp.clip(x, -0.2, 0.3) * jnp.sign(x), "silu": jax.nn.silu,
    "scan": lambda x: lax.scan(lambda h, u: (0.5 * h + u * h, h.sum()), jnp.ones(2), x.T, reverse=True)[1],
    "branches": lambda x: lax.cond(x.sum() > 0, lambda x: 2 * x, lambda x: x - 1, x)}


@pytest.fixture(scope="module")
def found():
    """{name: (bounds, 400 sampled values)} of all functions, by one program, over boxes of half width 0.05 around numbers that include 0."""
    x = jnp.asarray(np.random.default_rng(2).uniform(-1, 1, (2, 6)), jnp.float32).at[0, 0].set(0)
    low, high = x - 0.05, x + 0.05
    points = jnp.concatenate([jax.random.uniform(jax.random.key(0), (300, 2, 6), minval=low, maxval=high),
                              jnp.where(jax.random.bernoulli(jax.random.key(1), 0.5, (100, 2, 6)), low, high)])
    return jax.jit(lambda: {name: (intervals.bounds(fn, low, high), jax.vmap(fn)(points)) for name, fn in FUNCTIONS.items()})()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_samples_stay_inside(found, name):
    (low, high), values = found[name]
    assert low.shape == values.shape[1:] and (low <= high).all() and jnp.isfinite(low).all()
    assert (values >= low).all() and (values <= high).all()


@pytest.mark.parametrize("name", ["linear", "sums", "order", "moves"])
def test_linear_bounds_are_tight(found, name):
    """The corners of the box reach the bounds of a function of few inputs; sampled ranges are a good part of the bound's width."""
    (low, high), values = found[name]
    assert ((values.max(0) - values.min(0)) >= 0.5 * (high - low)).all()


def test_rounding_errors_are_inside():
    """The bounds over a point hold the float64 value of float32 weights, and the sum in any order."""
    x = np.random.default_rng(0).normal(size=(1, 2000)).astype(np.float32) * 1e3
    w = np.random.default_rng(1).normal(size=(2000, 4)).astype(np.float32)
    low, high = jax.jit(lambda x: intervals.bounds(lambda x: x @ w, x, x))(x)
    exact = x.astype(np.float64) @ w.astype(np.float64)
    assert (low < exact).all() and (exact < high).all() and (high - low).max() < 1e-3 * (np.abs(x) @ np.abs(w)).max()
    with ia.unrounded():
        low, high = intervals.bounds(lambda x: x @ w, jnp.asarray(x), jnp.asarray(x))
    assert (low == high).all()


standardized = jax.jit(lambda low, high: ia.standardized(ia.Interval(low, high), 1e-5))


@pytest.mark.parametrize("eps", [0.0, 0.01, 0.3, 5.0])
def test_standardized(eps):
    x = np.random.default_rng(3).normal(size=(50, 7)) * np.geomspace(1e-3, 10, 50)[:, None] + 1
    low, high = standardized(*(jnp.asarray(z, jnp.float32) for z in (x - eps, x + eps)))
    samples = np.float64(x) + eps * np.sign(np.random.default_rng(4).normal(size=(500, *x.shape))) * np.random.default_rng(5).uniform(size=(500, 1, 1))**0.1
    y = (samples - samples.mean(-1, keepdims=True)) / np.sqrt(samples.var(-1, keepdims=True) + 1e-5)
    assert (y >= low).all() and (y <= high).all()
    if not eps:
        assert (high - low)[10:].max() < 5e-3
    if eps == 5:
        assert (high <= 7**0.5 * 1.0001).all()


def test_difference_of_logits_is_tighter_than_the_logits():
    fn = lambda x: jnp.tanh(x @ W).reshape(2, 5, 1).mean(2) @ np.ones((5, 4), np.float32) / 2 + jnp.arange(4.0)
    x, labels = jnp.asarray(np.random.default_rng(2).normal(size=(2, 6)), jnp.float32), jnp.array([1, 3])
    low, high = jax.jit(lambda: intervals.difference_bounds(fn, x - 0.1, x + 0.1, labels))()
    exact = jnp.arange(4.0) - labels[:, None]  # all logits differ by constants
    np.testing.assert_allclose(low, exact, atol=1e-3)
    np.testing.assert_allclose(high, exact, atol=1e-3)
    assert (low <= exact).all() and (high >= exact).all()
    wide = jax.jit(lambda: intervals.bounds(fn, x - 0.1, x + 0.1))()
    assert (wide.high - wide.low).min() > 0.1


@pytest.mark.parametrize(("fn", "error", "message"), [
    (jnp.sort, NotImplementedError, "primitive 'sort' in the function"),
    (lambda x: lax.while_loop(lambda x: x.sum() < 9, lambda x: x + 1, x), NotImplementedError, "primitive 'while' in the function"),
    (lambda x: x.astype(jnp.bfloat16) * 2, TypeError, "dtype=bfloat16 from float32 in the function: expected float32 or float64"),
    (lambda x: x[:, x[0].astype(int)], TypeError, "dtype=int32 from float32")])
def test_no_rule(fn, error, message):
    with pytest.raises(error, match=message):
        intervals.bounds(fn, jnp.zeros((2, 3)), jnp.ones((2, 3)))


def test_nan_stays_nan():
    low, high = intervals.bounds(lambda x: jnp.log(x) * 0 + 1, jnp.full(1, -1.0), jnp.ones(1))
    assert not (low > 0).any()
