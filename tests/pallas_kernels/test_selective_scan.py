"""One class of checks re-run by every backend of the selective scan; the oracle is the original program or the plain loop."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import pallas_kernels
from pallas_kernels import selective_scan

BACKENDS = ["reference", "xla"]
NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")
GOLDEN = [f"selective_scan_{i}" for i in (0, 1, 3, 4, 6, 7, 9, 11, 12, 13)]


def channels_last(name, x):
    """The original (B, D, L) and (B, G, N, L) layouts -> ours."""
    if name in ("u", "delta", "output", "output_cotangent"):
        return x.transpose(0, 2, 1)
    return x.transpose(0, 3, 1, 2) if name in ("B", "C") else x


def draw(length, groups=2, state=1, per_group=3, batch=2, dtype=jnp.float32, seed=0):
    rng = np.random.default_rng(seed)
    channels = groups * per_group
    shapes = dict(u=(batch, length, channels), delta=(batch, length, channels), A=(channels, state), B=(batch, length, groups, state),
                  C=(batch, length, groups, state), D=(channels,), delta_bias=(channels,))
    args = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    args["A"] = -np.exp(args["A"])
    return {name: jnp.asarray(x, dtype) for name, x in args.items()}


def numpy_scan(u, delta, A, B, C, D, delta_bias, reverse=False, delta_softplus=True):
    """The definition, one number at a time."""
    u, delta, A, B, C, D, delta_bias = (np.asarray(x, np.float64) for x in (u, delta, A, B, C, D, delta_bias))
    y = np.zeros_like(u)
    per_group = u.shape[2] // B.shape[2]
    for b, d in np.ndindex(u.shape[0], u.shape[2]):
        h, g = np.zeros(A.shape[1]), d // per_group
        for t in reversed(range(u.shape[1])) if reverse else range(u.shape[1]):
            dt = delta[b, t, d] + delta_bias[d]
            dt = np.log1p(np.exp(dt)) if delta_softplus else dt
            h = np.exp(dt * A[d]) * h + dt * B[b, t, g] * u[b, t, d]
            y[b, t, d] = (C[b, t, g] * h).sum() + D[d] * u[b, t, d]
    return y


def relative(x, y):
    return np.abs(np.asarray(x, np.float64) - y).max() / max(np.abs(y).max(), 1e-30)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("dtype,tolerance", [("float32", 1e-5), ("float64", 1e-10)])
def test_original_program(golden, x64, backend, name, dtype, tolerance):
    arrays = golden(name)
    args = [jnp.asarray(channels_last(n, arrays[n]), dtype) for n in NAMES]
    run = jax.jit(lambda *args: selective_scan(*args, implementation=backend))
    y, pullback = jax.vjp(run, *args)
    assert y.dtype == dtype
    assert relative(y, channels_last("output", arrays["output"])) < tolerance
    for n, gradient in zip(NAMES, pullback(jnp.asarray(channels_last("u", arrays["output_cotangent"]), dtype)), strict=True):
        assert relative(gradient, channels_last(n, arrays[f"grad_{n}"])) < tolerance, n


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("length,groups,state", [(1, 1, 1), (2, 2, 3), (7, 1, 16), (13, 3, 1), (50, 2, 2)])
@pytest.mark.parametrize("reverse", [False, True])
def test_definition(x64, backend, length, groups, state, reverse):
    args = draw(length, groups, state, dtype=jnp.float64)
    y = jax.jit(lambda args: selective_scan(**args, reverse=reverse, implementation=backend))(args)
    np.testing.assert_allclose(y, numpy_scan(**args, reverse=reverse), atol=1e-12, rtol=1e-11)


@pytest.mark.parametrize("state", [1, 4])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("softplus", [False, True])
def test_gradients_by_finite_differences(x64, state, reverse, softplus):
    args = draw(6, state=state, dtype=jnp.float64)
    if not softplus:
        args["delta"] = jnp.abs(args["delta"])
    run = lambda *args: selective_scan(*args, delta_softplus=softplus, reverse=reverse, implementation="xla")
    check_grads(jax.jit(run), tuple(args.values()), order=1, modes=["rev"], eps=1e-5, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("state", [1, 3])
@pytest.mark.parametrize("reverse", [False, True])
def test_double_and_triple_backward(x64, state, reverse):
    args = tuple(draw(5, state=state, dtype=jnp.float64).values())
    vector = tuple(jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape) for x in args)

    def directional(order, backend):
        f = lambda args: jnp.sin(selective_scan(*args, reverse=reverse, implementation=backend)).sum()
        for _ in range(order):
            f = (lambda g: lambda args: sum(jnp.vdot(a, b) for a, b in zip(jax.grad(g)(args), vector, strict=True)))(f)
        return jax.jit(jax.grad(f))(args)

    for order in (1, 2):
        for got, want in zip(directional(order, "xla"), directional(order, "reference"), strict=True):
            np.testing.assert_allclose(got, want, atol=1e-9 * max(1, float(jnp.abs(want).max())))


def test_forward_mode():
    args = draw(5)
    tangent = jnp.ones_like(args["u"])
    run = lambda u, backend: selective_scan(**{**args, "u": u}, implementation=backend)
    _, forward = jax.jvp(lambda u: run(u, "reference"), (args["u"],), (tangent,))
    np.testing.assert_allclose(forward, run(args["u"] + tangent, "xla") - run(args["u"], "xla"), atol=1e-4)   # linear in u
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda u: run(u, "xla"), (args["u"],), (tangent,))


@pytest.mark.parametrize("state", [1, 2])
def test_vmap_remat_and_shard_map(state):
    args = draw(9, state=state, batch=8)
    wanted = selective_scan(**args)
    loss = lambda u: (selective_scan(**{**args, "u": u}) ** 2).sum()
    gradient = jax.grad(loss)(args["u"])
    np.testing.assert_allclose(jax.grad(jax.checkpoint(loss))(args["u"]), gradient, rtol=1e-6)
    axes = {name: 0 if name in ("u", "delta", "B", "C") else None for name in args}
    split = {name: x.reshape(4, 2, *x.shape[1:]) if axes[name] == 0 else x for name, x in args.items()}
    mapped = jax.vmap(lambda args: selective_scan(**args), in_axes=(axes,))(split)
    np.testing.assert_allclose(mapped.reshape(wanted.shape), wanted, rtol=1e-6, atol=1e-6)

    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    specs = {name: jax.P("data") if axes[name] == 0 else jax.P() for name in args}
    per_device = jax.shard_map(lambda args: jax.grad(lambda args: (selective_scan(**args) ** 2).sum())(args)["u"],
                               mesh=mesh, in_specs=(specs,), out_specs=jax.P("data"), check_vma=False)
    np.testing.assert_allclose(jax.jit(per_device)(args), gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("state", [1, 4])
def test_memory_never_holds_all_states(state):
    """The gradient's temporaries stay a few times u: for N > 1 no (batch, length, channels, state) array exists."""
    args = draw(1024, groups=1, per_group=64, state=state * 4 if state > 1 else 1, batch=2)
    gradient = jax.jit(jax.grad(lambda args: selective_scan(**args).sum()))
    memory = gradient.lower(args).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 10 * args["u"].nbytes


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("state", [1, 4])
def test_stress(backend, state):
    """Strong decay, steps near zero, zeros and bfloat16 inputs stay finite and right to rounding against float64 numpy."""
    args = draw(300, groups=1, per_group=4, state=state, batch=1, seed=3)
    args["delta"] = args["delta"].at[:, ::7].set(60.0).at[:, 1::7].set(-60.0)
    args["u"] = args["u"].at[:, 100:150].set(0.0)
    for cast in (jnp.float32, jnp.bfloat16):
        given = {name: x.astype(cast) for name, x in args.items()}
        y, pullback = jax.vjp(lambda args: selective_scan(**args, implementation=backend), given)
        wanted = numpy_scan(**{name: np.asarray(x.astype(jnp.float32)) for name, x in given.items()})
        assert y.dtype == jnp.float32 and relative(y, wanted) < 1e-5
        gradients = pullback(jnp.ones_like(y))[0]
        assert all(g.dtype == cast and bool(jnp.isfinite(g.astype(jnp.float32)).all()) for g in gradients.values())


@pytest.mark.parametrize("change,error,words", [
    (dict(u=jnp.ones((2, 5))), ValueError, "u has shape (2, 5)"),
    (dict(u=jnp.ones((2, 5, 6), int)), TypeError, "u has dtype"),
    (dict(delta=jnp.ones((2, 5, 3))), ValueError, "delta has shape (2, 5, 3)"),
    (dict(A=jnp.ones((5, 1))), ValueError, "A has shape (5, 1)"),
    (dict(B=jnp.ones((2, 5, 4, 1))), ValueError, "4 groups, which do not divide u's 6 channels"),
    (dict(B=jnp.ones((2, 5, 2))), ValueError, "B has shape (2, 5, 2)"),
    (dict(C=jnp.ones((2, 5, 2, 3))), ValueError, "C has shape (2, 5, 2, 3)"),
    (dict(C=None), TypeError, "C is None"),
    (dict(D=jnp.ones((5,))), ValueError, "D has shape (5,)"),
    (dict(delta_bias=jnp.ones((6,), complex)), TypeError, "delta_bias has dtype"),
    (dict(implementation="cuda"), ValueError, "implementation='cuda'"),
    (dict(implementation="xla", interpret=True), ValueError, "interpret=True"),
    (dict(out_dtype=int), TypeError, "out_dtype=int"),
])
def test_errors_name_the_argument(change, error, words):
    with pytest.raises(error) as raised:
        selective_scan(**{**draw(5), **change})
    assert words in str(raised.value)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_linear_scan(x64, backend, reverse, dtype):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((2, 2, 11, 3)) * 0.7).view() if dtype == "float64" else (
        rng.standard_normal((2, 2, 11, 3)) * 0.5 + 0.5j * rng.standard_normal((2, 2, 11, 3)))
    wanted, h = np.zeros_like(b), 0
    for t in reversed(range(11)) if reverse else range(11):
        wanted[:, t] = h = a[:, t] * h + b[:, t]
    run = jax.jit(lambda a, b: pallas_kernels.linear_scan(a, b, reverse=reverse, implementation=backend))
    np.testing.assert_allclose(run(a, b), wanted, rtol=1e-12, atol=1e-12)
    check_grads(run, (jnp.asarray(a), jnp.asarray(b)), order=2, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_linear_scan_broadcasts_and_refuses():
    b = jnp.ones((2, 4, 3))
    np.testing.assert_allclose(pallas_kernels.linear_scan(jnp.full((1, 1, 3), 0.5), b)[:, -1], 1.875)
    with pytest.raises(ValueError, match=r"a has shape \(2, 5, 3\)"):
        pallas_kernels.linear_scan(jnp.ones((2, 5, 3)), b)
    with pytest.raises(TypeError, match="b has dtype int32"):
        pallas_kernels.linear_scan(jnp.ones((2, 4, 3)), b.astype(int))
