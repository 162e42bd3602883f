"""Every backend of the selective scan against the original program's arrays, a plain loop and finite differences."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import pallas_kernels
from pallas_kernels import arguments, selective_scan
from tests.helpers.scans import BACKENDS, EXACT, KERNELS, by, draw, relative, value_and_gradients

NAMES = ("u", "delta", "A", "B", "C", "D", "delta_bias")
GOLDEN = [f"selective_scan_{i}" for i in (0, 1, 3, 4, 6, 7, 9, 11, 12, 13)]


def channels_last(name, x):
    """The original (B, D, L) and (B, G, N, L) layouts -> ours."""
    if name in ("u", "delta", "output", "output_cotangent"):
        return x.transpose(0, 2, 1)
    return x.transpose(0, 3, 1, 2) if name in ("B", "C") else x


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


def check_original_program(arrays, backend, dtype, tolerance):
    args = {n: jnp.asarray(channels_last(n, arrays[n]), dtype) for n in NAMES}
    y, gradients = value_and_gradients(selective_scan, args, jnp.asarray(channels_last("u", arrays["output_cotangent"]), dtype), **by(backend))
    assert y.dtype == dtype
    assert relative(y, channels_last("output", arrays["output"])) < tolerance
    for n in NAMES:
        assert relative(gradients[n], channels_last(n, arrays[f"grad_{n}"])) < tolerance, n


LONG = {   # seconds each in interpret mode; the exact backends reproduce every array in float64
    **{backend: [name for name in GOLDEN if name != "selective_scan_4"] for backend in EXACT},
    "pallas_tpu": ("selective_scan_0", "selective_scan_3", "selective_scan_7", "selective_scan_11"),
    "pallas_gpu": ("selective_scan_3", "selective_scan_6", "selective_scan_7", "selective_scan_9", "selective_scan_11", "selective_scan_12", "selective_scan_13")}


@pytest.mark.parametrize("backend,name", [
    pytest.param(backend, name, marks=[pytest.mark.slow] if name in LONG.get(backend, ()) else []) for backend in BACKENDS for name in GOLDEN])
@pytest.mark.often(5)
def test_original_program(golden, backend, name):
    check_original_program(golden(name), backend, "float32", 1e-5)


@pytest.mark.parametrize("backend", ["reference", pytest.param("associative", marks=pytest.mark.slow), "xla"])
@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.often(10)
def test_original_program_in_float64(golden, x64, backend, name):
    check_original_program(golden(name), backend, "float64", 1e-10)


def test_softplus_has_all_digits():
    x = np.concatenate([np.linspace(-80, 40, 4001, dtype=np.float32), np.float32([-1e-6, -0.0, 0.0, 1e-6, 17.5])])
    exact, slope = np.log1p(np.exp(np.float64(x))), 1 / (1 + np.exp(-np.float64(x)))
    found, found_slope = arguments.softplus_and_slope(x)
    for got, wanted in ((found, exact), (found_slope, slope), (arguments.softplus_slope(found), slope),
                        (jax.vmap(jax.grad(lambda x: arguments.step_size(x, None, True)))(x), slope)):
        np.testing.assert_allclose(got, wanted, rtol=5e-7)
    curvature = jax.vmap(jax.grad(jax.grad(lambda x: arguments.step_size(x, None, True))))(x)
    np.testing.assert_allclose(curvature, slope * (1 - slope), atol=1e-7)
    np.testing.assert_array_equal(arguments.step_size(np.float32([np.inf, -np.inf, np.nan]), None, True), [np.inf, 0, np.nan])


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("length,groups,state", [(1, 1, 1), (2, 2, 3), (7, 1, 16), (13, 3, 1), (50, 2, 2)])
@pytest.mark.parametrize("reverse", [False, True])
def test_definition(x64, backend, length, groups, state, reverse):
    args = draw(length, groups, state, dtype=jnp.float64)
    y = jax.jit(lambda args: selective_scan(**args, reverse=reverse, implementation=backend))(args)
    np.testing.assert_allclose(y, numpy_scan(**args, reverse=reverse), atol=1e-12, rtol=1e-11)


def test_more_states_than_one_loop_takes(x64):
    """Six states in two loops of three: the sum and every gradient are those of the plain loop."""
    args = draw(11, 2, 6, dtype=jnp.float64)
    both = lambda backend: jax.jit(jax.value_and_grad(lambda args: jnp.sin(selective_scan(**args, implementation=backend)).sum()))(args)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12), both("xla"), both("reference"))


PRODUCT = [   # length, state, groups, per_group, dtype, reverse: every pair of values of neighboring columns at least once
    (1, 1, 1, 3, "float32", False), (1, 16, 2, 5, "bfloat16", True), (7, 2, 2, 130, "float32", True), (7, 1, 1, 96, "bfloat16", False),
    (49, 16, 1, 3, "float32", True), (49, 1, 2, 96, "float32", False), (196, 1, 1, 130, "bfloat16", True), (196, 4, 3, 7, "float32", False),
    (784, 1, 1, 96, "float32", True), (784, 2, 2, 3, "bfloat16", False), (3136, 1, 1, 5, "float32", False), (3136, 16, 1, 3, "float32", True)]


LATER = {   # rows that only `make test-slow` runs
    "xla": lambda length, state, *row: (length, state) in ((49, 16), (196, 4), (784, 1), (1, 1)),
    "associative": lambda length, state, groups, per_group, *row: length > 196 or per_group == 130,
    "pallas_tpu": lambda length, state, groups, per_group, dtype, reverse: length > 196 or (length in (49, 196) and state > 1) or length == 1,
    "pallas_gpu": lambda length, state, groups, per_group, *row: length > 100 or per_group == 130 or length == 1}


@pytest.mark.parametrize("backend,length,state,groups,per_group,dtype,reverse", [
    pytest.param(backend, *row, marks=[pytest.mark.slow] if LATER[backend](*row) else [])
    for backend in ["associative", "xla", *KERNELS] for row in PRODUCT])
@pytest.mark.often(6)
def test_product(backend, length, state, groups, per_group, dtype, reverse):
    if backend == "pallas_gpu" and length * state > 400:
        length //= 16                                     # its interpreter simulates threads: 1 s per 100 steps
    args = draw(length, groups, state, per_group, batch=1 + (length < 50))
    args = {name: x.astype(dtype) if name in ("u", "delta", "B", "C") else x for name, x in args.items()}
    cotangent = jnp.cos(jnp.arange(args["u"].size, dtype=jnp.float32)).reshape(args["u"].shape)
    y, gradients = value_and_gradients(selective_scan, args, cotangent, reverse=reverse, **by(backend))
    wanted, wanted_gradients = value_and_gradients(selective_scan, args, cotangent, reverse=reverse, implementation="reference")
    assert y.dtype == jnp.float32 and relative(y, np.asarray(wanted, np.float64)) < 1e-5
    for name, x in gradients.items():
        assert x.dtype == args[name].dtype and x.shape == args[name].shape
        tolerance = 1e-5 if x.dtype == jnp.float32 else 2**-7      # a gradient may round to a neighboring bfloat16
        assert relative(x, np.asarray(wanted_gradients[name], np.float64)) < tolerance, name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("absent", ["D", "delta_bias"])
@pytest.mark.often(5)
def test_optional_arguments_and_output_dtype(backend, absent):
    args = draw(9)
    args = {**args, "delta": jnp.abs(args["delta"]), "delta_bias": jnp.abs(args["delta_bias"]), absent: None}
    cotangent = jnp.ones(args["u"].shape, jnp.bfloat16)
    options = dict(delta_softplus=False, out_dtype=jnp.bfloat16)
    y, gradients = value_and_gradients(selective_scan, args, cotangent, **options, **by(backend))
    zeros = {**args, absent: jnp.zeros(6)}
    wanted, wanted_gradients = value_and_gradients(selective_scan, zeros, cotangent, **options, implementation="reference")
    assert y.dtype == jnp.bfloat16 and gradients[absent] is None
    np.testing.assert_allclose(y.astype(jnp.float32), wanted.astype(jnp.float32), rtol=2**-7, atol=1e-3)
    assert all(relative(x, np.asarray(wanted_gradients[name], np.float64)) < 1e-5 for name, x in gradients.items() if x is not None)


@pytest.mark.parametrize("state", [1, 4])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("softplus", [False, True])
@pytest.mark.often(4)
def test_gradients_by_finite_differences(x64, state, reverse, softplus):
    args = draw(6, state=state, dtype=jnp.float64)
    if not softplus:
        args["delta"] = jnp.abs(args["delta"])
    run = lambda *args: selective_scan(*args, delta_softplus=softplus, reverse=reverse, implementation="xla")
    check_grads(jax.jit(run), tuple(args.values()), order=1, modes=["rev"], eps=1e-5, atol=1e-6, rtol=1e-6)


def directional(args, vector, order, **options):
    """Gradient of the order-th derivative along vector of a scalar of the scan."""
    f = lambda args: jnp.sin(selective_scan(*args, **options)).sum()
    for _ in range(order):
        f = (lambda g: lambda args: sum(jnp.vdot(a, b) for a, b in zip(jax.grad(g)(args), vector, strict=True)))(f)
    return jax.jit(jax.grad(f))(args)


def along(args):
    return tuple(jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape) for x in args)


@pytest.mark.parametrize("state,reverse,order", [pytest.param(1, False, 2, marks=pytest.mark.slow), pytest.param(3, True, 2, marks=pytest.mark.slow), pytest.param(1, True, 2, marks=pytest.mark.slow),
                                                 pytest.param(3, False, 2, marks=pytest.mark.slow), (1, True, 1), (3, False, 1)])
@pytest.mark.often(2)
def test_double_and_triple_backward(x64, state, reverse, order):
    args = tuple(draw(5, state=state, dtype=jnp.float64).values())
    derivative = lambda backend: directional(args, along(args), order, reverse=reverse, implementation=backend)
    wanted = derivative("reference")
    for backend in ("associative", "xla"):
        for x, y in zip(derivative(backend), wanted, strict=True):
            np.testing.assert_allclose(x, y, atol=1e-9 * max(1, float(jnp.abs(y).max())), err_msg=backend)


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("order", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.often(1)
def test_double_and_triple_backward_of_kernels(backend, order):
    args = tuple(draw(5, groups=1, batch=1).values())
    got, wanted = (directional(args, along(args), order, **by(b)) for b in (backend, "reference"))
    for x, y in zip(got, wanted, strict=True):
        assert relative(x, np.asarray(y, np.float64)) < 1e-5


@pytest.mark.parametrize("backend", ["xla", *KERNELS])
def test_forward_mode(backend):
    args = draw(5)
    tangent = jnp.ones_like(args["u"])
    run = lambda u, backend: selective_scan(**{**args, "u": u}, **by(backend))
    for differentiable in ("reference", "associative"):
        _, forward = jax.jvp(lambda u, b=differentiable: run(u, b), (args["u"],), (tangent,))
        np.testing.assert_allclose(forward, run(args["u"] + tangent, "xla") - run(args["u"], "xla"), atol=1e-4)   # linear in u
    with pytest.raises(TypeError, match=f"implementation='{backend}': expected implementation='reference' or 'associative' under forward-mode"):
        jax.jvp(lambda u: run(u, backend), (args["u"],), (tangent,))


@pytest.mark.parametrize("backend,state", [("xla", 2), ("pallas_tpu", 1), pytest.param("pallas_gpu", 1, marks=pytest.mark.slow)])
@pytest.mark.often(1)
def test_vmap_remat_and_shard_map(backend, state):
    args = draw(9, state=state, batch=8)
    options = by(backend)
    wanted = selective_scan(**args, implementation="reference")
    loss = lambda u: (selective_scan(**{**args, "u": u}, **options) ** 2).sum()
    gradient = jax.jit(jax.grad(loss))(args["u"])
    if backend != "pallas_gpu":                           # its interpreter has effects, which remat refuses: test_gpu_lowering has the real one
        np.testing.assert_allclose(jax.jit(jax.grad(jax.checkpoint(loss)))(args["u"]), gradient, rtol=1e-6, atol=1e-6)
    axes = {name: 0 if name in ("u", "delta", "B", "C") else None for name in args}
    split = {name: x.reshape(4, 2, *x.shape[1:]) if axes[name] == 0 else x for name, x in args.items()}
    mapped = jax.jit(jax.vmap(lambda args: selective_scan(**args, **options), in_axes=(axes,)))(split)
    np.testing.assert_allclose(mapped.reshape(wanted.shape), wanted, rtol=1e-5, atol=1e-5)

    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    specs = {name: jax.P("data") if axes[name] == 0 else jax.P() for name in args}
    per_device = jax.shard_map(lambda args: jax.grad(lambda args: (selective_scan(**args, **options) ** 2).sum())(args)["u"],
                               mesh=mesh, in_specs=(specs,), out_specs=jax.P("data"), check_vma=False)
    np.testing.assert_allclose(jax.jit(per_device)(args), gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("state", [1, 4])
def test_memory_bound(state):
    """The gradient's temporary memory is below 10 times u: for N > 1 no (batch, length, channels, state) array exists."""
    args = draw(1024, groups=1, per_group=64, state=state * 4 if state > 1 else 1, batch=2)
    gradient = jax.jit(jax.grad(lambda args: selective_scan(**args).sum()))
    memory = gradient.lower(args).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 10 * args["u"].nbytes


def harsh(length, state, cast):
    """Strong decay (|A delta| up to 60), steps near zero and zeros."""
    args = draw(length, groups=1, per_group=4, state=state, batch=1, seed=3)
    args["A"] = -jnp.linspace(0.01, 1, args["A"].size).reshape(args["A"].shape)
    args["delta"] = args["delta"].at[:, ::7].set(60.0).at[:, 1::7].set(-60.0)
    args["u"] = args["u"].at[:, length // 3:length // 2].set(0.0)
    return {name: x.astype(cast) for name, x in args.items()}


@pytest.mark.parametrize("backend,state,cast", [
    pytest.param(backend, state, cast, marks=[] if (state == 4) == (cast == jnp.bfloat16) and (state == 1 or backend not in EXACT) else [pytest.mark.slow])
    for backend in BACKENDS for state in (1, 4) for cast in (jnp.float32, jnp.bfloat16)])
@pytest.mark.often(3)
def test_stress(backend, state, cast):
    args = harsh(100, state, cast)
    wanted = numpy_scan(**{name: np.asarray(x.astype(jnp.float32)) for name, x in args.items()})
    y, gradients = value_and_gradients(selective_scan, args, jnp.ones(wanted.shape, jnp.float32), **by(backend))
    assert y.dtype == jnp.float32 and relative(y, wanted) < 1e-5
    assert all(g.dtype == cast and bool(jnp.isfinite(g.astype(jnp.float32)).all()) for g in gradients.values())


@pytest.mark.parametrize("backend", ["xla", pytest.param("pallas_tpu", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_stress_over_65536_steps(backend):
    args = harsh(65536, 1, jnp.float32)
    wanted = numpy_scan(**args)
    y, gradients = value_and_gradients(selective_scan, args, jnp.ones(wanted.shape, jnp.float32), **by(backend))
    assert relative(y, wanted) < 1e-5
    assert all(bool(jnp.isfinite(g).all()) for g in gradients.values())


@pytest.mark.parametrize("change,error,words", [
    (dict(u=jnp.ones((2, 5))), ValueError, "u.shape=(2, 5)"),
    (dict(u=jnp.ones((2, 5, 6), int)), TypeError, "u.dtype="),
    (dict(delta=jnp.ones((2, 5, 3))), ValueError, "delta.shape=(2, 5, 3)"),
    (dict(A=jnp.ones((5, 1))), ValueError, "A.shape=(5, 1)"),
    (dict(B=jnp.ones((2, 5, 4, 1))), ValueError, "B.shape[2]=4 groups: expected a divisor of u's 6 channels"),
    (dict(B=jnp.ones((2, 5, 2))), ValueError, "B.shape=(2, 5, 2)"),
    (dict(C=jnp.ones((2, 5, 2, 3))), ValueError, "C.shape=(2, 5, 2, 3)"),
    (dict(C=None), TypeError, "C=None"),
    (dict(D=jnp.ones((5,))), ValueError, "D.shape=(5,)"),
    (dict(delta_bias=jnp.ones((6,), complex)), TypeError, "delta_bias.dtype="),
    (dict(implementation="cuda"), ValueError, "implementation='cuda'"),
    (dict(implementation="xla", interpret=True), ValueError, "interpret=True"),
    (dict(out_dtype=int), TypeError, "out_dtype=int"),
    (dict(A=-jnp.ones((6, 17)), B=jnp.ones((2, 5, 2, 17)), C=jnp.ones((2, 5, 2, 17)), implementation="pallas_tpu"), ValueError, "17 states"),
    (dict(A=-jnp.ones((6, 17)), B=jnp.ones((2, 5, 2, 17)), C=jnp.ones((2, 5, 2, 17)), implementation="pallas_gpu"), ValueError, "17 states"),
])
def test_error_messages(change, error, words):
    with pytest.raises(error) as raised:
        selective_scan(**{**draw(5), **change})
    assert words in str(raised.value)


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.often(5)
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


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("reverse,dtype", [(False, "float32"), (True, "complex64"), pytest.param(True, "float32", marks=pytest.mark.slow),
                                           pytest.param(False, "complex64", marks=pytest.mark.slow)])
@pytest.mark.often(2)
def test_linear_scan_of_kernels(backend, reverse, dtype):
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(0.6 * rng.standard_normal((2, 70, 5)) + (0.6j * rng.standard_normal((2, 70, 5)) if "complex" in dtype else 0), dtype)
            for _ in range(2))
    run = lambda options: jax.jit(lambda a, b: pallas_kernels.linear_scan(a, b, reverse=reverse, **options))
    np.testing.assert_allclose(run(by(backend))(a, b), run(by("reference"))(a, b), rtol=1e-5, atol=1e-5)
    gradient = lambda options: jax.grad(lambda a, b: (jnp.abs(run(options)(a, b)) ** 2).sum(), argnums=(0, 1))(a, b)
    for x, y in zip(gradient(by(backend)), gradient(by("reference")), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5 * float(jnp.abs(y).max()))


def test_linear_scan_broadcasting_and_errors():
    b = jnp.ones((2, 4, 3))
    np.testing.assert_allclose(pallas_kernels.linear_scan(jnp.full((1, 1, 3), 0.5), b)[:, -1], 1.875)
    with pytest.raises(ValueError, match=r"a.shape=\(2, 5, 3\)"):
        pallas_kernels.linear_scan(jnp.ones((2, 5, 3)), b)
    with pytest.raises(TypeError, match="b.dtype=int32"):
        pallas_kernels.linear_scan(jnp.ones((2, 4, 3)), b.astype(int))
