"""The five forms of a scan's attention against plain loops, without and with underflowing decays, and what normalizes and rolls them out."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pallas_kernels
from vmamba_jax.analysis import hidden_attention
from vmamba_jax.core import scan_orders

HEIGHT, WIDTH = 7, 10   # 70 steps: two chunks and a part of one
LENGTH = HEIGHT * WIDTH


def states(E=3, N=2, K=1, steepest=1.0, seed=0):
    rng = np.random.default_rng(seed)
    delta = rng.uniform(0.01, steepest, (K, LENGTH, E))
    return delta, -rng.uniform(0.2, 2, (K, E, N)), rng.standard_normal((K, LENGTH, N)), rng.standard_normal((K, LENGTH, N))


def loop(delta, A, B, C, form):
    """Mean over channels of the sum over states of C_i, exp(A sum of delta from j + 1 to i), delta_j and B_j, of which the form has some."""
    found = np.zeros((LENGTH, LENGTH))
    for i in range(LENGTH):
        for j in range(i + 1):
            for e, n in np.ndindex(A.shape):
                decay = np.exp(A[e, n] * sum(delta[t, e] for t in range(j + 1, i + 1))) if "decay" in form else 1.0
                content = C[i, n] * B[j, n] if "CB" in form else 1.0
                found[i, j] += content * decay * (delta[j, e] if "delta" in form else 1.0) / len(A)
    return found


@functools.cache
def compiled(form):
    return jax.jit(functools.partial(hidden_attention.attention, form=form))


@pytest.mark.parametrize("form", hidden_attention.FORMS)
def test_form_against_a_loop(x64, form):
    one = [x[0] for x in states()]
    expected = loop(*one, form)
    found = compiled(form)(*one)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_decays_that_underflow():
    """In float32 the cumulative decay is 0 after a few steps, but not that between neighbors where the step size is small."""
    delta, A, B, C = (x[0] for x in states(steepest=80.0))
    delta[1::2] = 0.01
    expected = loop(delta, A, B, C, "CB_delta_decay")
    found = compiled("CB_delta_decay")(*(jnp.asarray(x, jnp.float32) for x in (delta, A, B, C)))
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())
    assert np.isfinite(found).all() and np.abs(np.diagonal(found, -1))[40::2].max() > 1e-3 * np.abs(expected).max()
    assert np.exp(A * delta.sum(0)[:, None]).max() == 0 or np.exp(np.float32((A * delta.sum(0)[:, None]).max())) == 0


def test_matrix_of_a_channel_gives_the_scan(x64):
    """Applied to the input, plus D u, in raster order and in each direction's own."""
    delta, A, B, C = states(K=4)
    rng = np.random.default_rng(1)
    u, D = rng.standard_normal((LENGTH, 3)), rng.standard_normal((4, 3))
    routes = scan_orders.routes("cross", HEIGHT, WIDTH)
    per_channel = [hidden_attention.attention_of_scans(delta[None, :, :, e:e + 1], A[:, e:e + 1], B[None], C[None], routes)[0] for e in range(3)]
    for k, route in enumerate(routes):
        y = pallas_kernels.selective_scan(u[None, route], delta[None, k][:, route], A[k], B[None, k][:, route, None], C[None, k][:, route, None], D[k],
                                          delta_softplus=False, implementation="reference")[0]
        for e in range(3):
            np.testing.assert_allclose((per_channel[e][k] @ u[:, e] + D[k, e] * u[:, e])[route], y[:, e], atol=1e-12)
    own = hidden_attention.attention_of_scans(delta[None, :, :, :1], A[:, :1], B[None], C[None], routes, raster=False)[0]
    assert not np.triu(own, 1).any()
    for k, route in enumerate(routes):
        np.testing.assert_allclose(own[k], per_channel[0][k][route][:, route], atol=1e-15)


def test_memory_of_the_matrix():
    """1,024 tokens of 384 channels: no array of the program has L x L x E elements, or more than a few times L x E."""
    def largest(jaxpr):
        inside = [largest(inner.jaxpr) for equation in jaxpr.eqns for inner in jax.tree.leaves(equation.params) if hasattr(inner, "jaxpr")]
        return max([out.aval.size for equation in jaxpr.eqns for out in equation.outvars if hasattr(out.aval, "size")] + inside, default=0)
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1024, 384), (384, 4), (1024, 4), (1024, 4))]
    size = largest(jax.make_jaxpr(hidden_attention.attention)(*arguments).jaxpr)
    assert 1024 * 1024 <= size <= 1024 * 384 * 4


def test_normalized():
    M = np.array([[[-2.0, 1], [0, 6]], [[3, 3], [3, 3]]])
    np.testing.assert_allclose(hidden_attention.normalized(M, "min_max"), [[[0, 3 / 8], [2 / 8, 1]], [[0, 0], [0, 0]]])
    np.testing.assert_allclose(hidden_attention.normalized(M, "absolute"), [[[2 / 6, 1 / 6], [0, 1]], [[1, 1], [1, 1]]], rtol=1e-6)
    assert hidden_attention.normalized(M, None) is M
    with pytest.raises(ValueError, match="normalization='l2': expected one of 'min_max', 'absolute'"):
        hidden_attention.normalized(M, "l2")


def test_rolled_out():
    first, second = (np.random.default_rng(i).uniform(0, 1, (2, 3, 3)) for i in range(2))
    expected = []
    for a, b in zip(first, second, strict=True):
        a, b = (0.5 * (x + np.eye(3)) / (0.5 * (x + np.eye(3))).sum(1, keepdims=True) for x in (a, b))
        expected.append(b @ a)
    np.testing.assert_allclose(hidden_attention.rolled_out([jnp.asarray(first), jnp.asarray(second)]), expected, rtol=1e-5)
