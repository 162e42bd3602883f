"""Fingerprints of traced programs: equal for equal programs, other for any constant, callback or operation that differs."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vmamba_jax import attacks
from vmamba_jax.core import closures

X = jnp.ones((2, 3))
WEIGHTS = np.arange(9, dtype=np.float32).reshape(3, 3)


def _scaled(w, x):
    return x @ w


def fingerprint(make, *args):
    return closures.fingerprint(jax.jit(make(*args)).trace(X).jaxpr)


@jax.custom_vjp
def _cut(x, w):
    return x @ w


_cut.defvjp(lambda x, w: (x @ w, w), lambda w, g: (g @ w.T, None))
HOST = [lambda x: np.asarray(x) + 1, lambda x: np.asarray(x) + 2]

PROGRAMS = {
    "constant": (lambda w: lambda x: x @ w, WEIGHTS, WEIGHTS + 1),
    "NumPy constant": (lambda w: lambda x: jnp.asarray(w) + x[0], WEIGHTS, WEIGHTS * 2),
    "literal": (lambda s: lambda x: x * s, 0.12345678, 0.12345679),
    "random key": (lambda k: lambda x: x + jax.random.normal(jax.random.key(k), x.shape), 1, 2),
    "key in the closure": (lambda k: lambda x: x + jax.random.normal(k, x.shape), jax.random.key(1), jax.random.key(2)),
    "inside a jit": (lambda w: jax.jit(lambda x: jnp.tanh(x @ w)), WEIGHTS, WEIGHTS + 1),
    "inside a scan": (lambda w: lambda x: jax.lax.scan(lambda c, _: (c @ w, None), x, None, 3)[0], WEIGHTS, WEIGHTS + 1),
    "inside a branch": (lambda w: lambda x: jax.lax.cond(x.sum() > 0, lambda x: x @ w, lambda x: x, x), WEIGHTS, WEIGHTS + 1),
    "custom derivative": (lambda w: lambda x: jax.grad(lambda x: _cut(x, w).sum())(x), WEIGHTS, WEIGHTS + 1),
    "operation": (lambda f: lambda x: f(x), jnp.sin, jnp.cos),
    "callback": (lambda f: lambda x: jax.pure_callback(f, jax.ShapeDtypeStruct(x.shape, x.dtype), x), *HOST),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_differs(name):
    make, one, other = PROGRAMS[name]
    assert fingerprint(make, one) == fingerprint(make, one) != fingerprint(make, other)


def test_what_reads_nothing_that_changes():
    closing = lambda x: x @ WEIGHTS.T if X is None else x
    for value in (jax.jit(closing), jnp.sin, Partial(_scaled, X), attacks.pgd(0.1, 2), attacks.losses.cross_entropy, 3,
                  Partial(jax.jit(closing))):
        assert closures.constant(value), value
    bound = (lambda w: lambda x: x @ w)(WEIGHTS)
    for value in (bound, _scaled, Partial(_scaled), Partial(bound, X), functools.partial(bound), attacks.patch_fool(with_attention=bound), np.sin):
        assert not closures.constant(value), value
    assert closures.all_constant((Partial(_scaled, X), X)) and not closures.all_constant((Partial(_scaled, X), bound))


def test_a_program_per_shape_and_only_the_newest_trace():
    programs, box = closures.Programs(), {"w": WEIGHTS}
    make = lambda: jax.jit(lambda x: x @ box["w"])
    first, again, other = programs.get(make(), X), programs.get(make(), X), programs.get(make(), X[:1])
    assert first is again is not other
    box["w"] = WEIGHTS + 1
    changed = programs.get(make(), X)
    np.testing.assert_array_equal(changed(X), X @ (WEIGHTS + 1))
    assert changed is not first and len(programs.compiled) == 2
