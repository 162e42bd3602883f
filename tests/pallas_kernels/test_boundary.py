"""Scans from and to given states: pieces of a sequence equal the whole, forward and backward, on every backend."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import linear_scan, selective_scan
from tests.helpers.scans import KERNELS, by, draw, relative

OVER_TIME = ("u", "delta", "B", "C")


def cut(args, start, stop):
    return {name: x[:, start:stop] if name in OVER_TIME else x for name, x in args.items()}


def whole(args, state, options):
    """(y, last state) of one scan."""
    return selective_scan(**args, initial_state=state, return_last_state=True, **options)


def in_pieces(args, state, options, cuts=(0, 4, 5, 9)):
    """The same from three scans, each from the last state of the one before."""
    pieces = [cut(args, a, b) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
    outputs = []
    for piece in pieces[::-1] if options.get("reverse") else pieces:
        y, state = whole(piece, state, options)
        outputs.append(y)
    return jnp.concatenate(outputs[::-1] if options.get("reverse") else outputs, 1), state


def with_gradients(scan, args, state, options):
    def loss(args, state):
        y, last = scan(args, state, options)
        return (y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)).sum() + (last * jnp.sin(jnp.arange(last.size)).reshape(last.shape)).sum(), (y, last)
    (_, outputs), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(args, state)
    return jax.tree.leaves((outputs, gradients))


def loop(args, state):
    """Output and last state by the definition in numpy."""
    u, delta, A, B, C, D, bias = (np.asarray(args[name], np.float64) for name in ("u", "delta", "A", "B", "C", "D", "delta_bias"))
    h, y = np.array(state, np.float64), np.zeros_like(u)
    per_group = u.shape[2] // B.shape[2]
    for t in range(u.shape[1]):
        dt = np.log1p(np.exp(delta[:, t] + bias))[..., None]
        B_t, C_t = (np.repeat(x[:, t], per_group, 1) for x in (B, C))
        h = np.exp(dt * A) * h + dt * B_t * u[:, t, :, None]
        y[:, t] = (C_t * h).sum(-1) + D * u[:, t]
    return y, h


@pytest.mark.parametrize("backend", ["reference", pytest.param("associative", marks=pytest.mark.slow), "xla"])
@pytest.mark.parametrize("state,reverse", [pytest.param(1, False, marks=pytest.mark.slow), (3, True), pytest.param(2, False, id="by a loop")])
@pytest.mark.often(2)
def test_pieces_equal_the_whole(x64, backend, state, reverse):
    args = draw(9, state=state, dtype=jnp.float64)
    start = jnp.asarray(np.random.default_rng(1).standard_normal((2, 6, state)))
    options = by(backend) | {"reverse": reverse}
    wanted = with_gradients(whole, args, start, options)
    for x, y in zip(with_gradients(in_pieces, args, start, options), wanted, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-11)
    if not reverse:
        for x, y in zip(wanted, loop(args, start), strict=False):
            np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("state,reverse", [(1, True), pytest.param(4, False, marks=pytest.mark.slow)])
@pytest.mark.often(1)
def test_kernels_equal_the_reference(backend, state, reverse):
    args = draw(9, state=state, groups=1)
    start = jnp.asarray(np.random.default_rng(1).standard_normal((2, 3, state)), jnp.float32)
    wanted = with_gradients(whole, args, start, by("reference") | {"reverse": reverse})
    for x, y in zip(with_gradients(whole, args, start, by(backend) | {"reverse": reverse}), wanted, strict=True):
        assert relative(x, np.asarray(y, np.float64)) < 1e-5


def test_zeros_are_the_default_and_outputs_keep_their_dtype():
    args = {name: x.astype(jnp.bfloat16) for name, x in draw(7).items()}
    plain = selective_scan(**args, out_dtype=jnp.bfloat16)
    y, last = selective_scan(**args, out_dtype=jnp.bfloat16, initial_state=jnp.zeros((2, 6, 1), jnp.bfloat16), return_last_state=True)
    assert y.dtype == jnp.bfloat16 and last.dtype == jnp.float32 and last.shape == (2, 6, 1)
    np.testing.assert_array_equal(y, plain)
    np.testing.assert_array_equal(selective_scan(**args, out_dtype=jnp.bfloat16, initial_state=jnp.zeros((2, 6, 1))), plain)


@pytest.mark.parametrize("reverse", [False, True])
def test_one_state_without_the_other(reverse):
    args = draw(7, state=2)
    start = jnp.asarray(np.random.default_rng(1).standard_normal((2, 6, 2)), jnp.float32)
    y, _ = selective_scan(**args, reverse=reverse, initial_state=start, return_last_state=True)
    np.testing.assert_array_equal(selective_scan(**args, reverse=reverse, initial_state=start), y)
    y, last = selective_scan(**args, reverse=reverse, initial_state=jnp.zeros_like(start), return_last_state=True)
    for x, wanted in zip(selective_scan(**args, reverse=reverse, return_last_state=True), (y, last), strict=True):
        np.testing.assert_array_equal(x, wanted)


@pytest.mark.parametrize("backend", ["xla", *KERNELS])
@pytest.mark.parametrize("reverse", [False, True])
def test_linear_scan_in_pieces(backend, reverse):
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(0.7 * rng.standard_normal((2, 9, 3)), jnp.float32) for _ in range(2))
    state = jnp.asarray(rng.standard_normal((2, 3)), jnp.float32)
    options = by(backend) | {"reverse": reverse, "return_last_state": True}

    @jax.jit
    def run(a, b, state):
        wanted, wanted_last = linear_scan(a, b, initial_state=state, **options)
        pieces, last = [], state
        for part in [slice(4, 9), slice(0, 4)] if reverse else [slice(0, 4), slice(4, 9)]:
            h, last = linear_scan(a[:, part], b[:, part], initial_state=last, **options)
            pieces.append(h)
        return wanted, wanted_last, jnp.concatenate(pieces[::-1] if reverse else pieces, 1), last
    wanted, wanted_last, h, last = run(a, b, state)
    np.testing.assert_allclose(h, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(last, wanted_last, rtol=1e-5, atol=1e-6)
    first = (slice(None), -1 if reverse else 0)
    np.testing.assert_allclose(wanted[first], a[first] * state + b[first], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("call,error,words", [
    (lambda: selective_scan(**draw(5), initial_state=jnp.zeros((2, 6, 2))), ValueError, "initial_state.shape=(2, 6, 2): expected (2, 6, 1)"),
    (lambda: selective_scan(**draw(5), initial_state=jnp.zeros((2, 6, 1), int)), TypeError, "initial_state.dtype=int32"),
    (lambda: linear_scan(jnp.ones((2, 4, 3)), jnp.ones((2, 4, 3)), initial_state=jnp.zeros((2, 4))), ValueError, "initial_state.shape=(2, 4)"),
    (lambda: linear_scan(jnp.ones((2, 4, 3)), jnp.ones((2, 4, 3)), initial_state=jnp.zeros((2, 3), int)), TypeError, "initial_state.dtype=int32"),
])
def test_errors(call, error, words):
    with pytest.raises(error) as raised:
        call()
    assert words in str(raised.value)
