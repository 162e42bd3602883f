"""Every backend of the scan of a map along four directions, against loops over positions and the reference's gradients."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pallas_kernels import cross_selective_scan
from pallas_kernels.arguments import CrossArguments, Options
from pallas_kernels.tpu import cross as tpu_cross
from pallas_kernels.tpu import plane as tpu_plane
from tests.helpers.scans import EXACT, KERNELS, by, draw_cross, relative, value_and_gradients


def loops(u, steps, dt_weight, A, B, C, D, delta_bias):
    """The definition, one position at a time in every direction."""
    batch, height, width, _ = u.shape
    y = np.zeros(u.shape)
    rows = [(i, j) for i in range(height) for j in range(width)]
    columns = [(i, j) for j in range(width) for i in range(height)]
    for b in range(batch):
        for k, route in enumerate((rows, columns, rows[::-1], columns[::-1])):
            h = 0
            for i, j in route:
                dt = np.log1p(np.exp(dt_weight[k] @ steps[b, i, j, k] + delta_bias[k]))[:, None]
                h = np.exp(dt * A[k]) * h + dt * B[b, i, j, k] * u[b, i, j][:, None]
                y[b, i, j] += h @ C[b, i, j, k] + D[k] * u[b, i, j]
    return y


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("state", [1, 3])
def test_definition(x64, backend, state):
    args = draw_cross(3, 4, 5, 2, state, batch=2, dtype=jnp.float64)
    y = jax.jit(lambda args: cross_selective_scan(**args, **by(backend)))(args)
    np.testing.assert_allclose(y, loops(**{name: np.asarray(x) for name, x in args.items()}), rtol=1e-11, atol=1e-12)


OFTEN = {"associative": (2,), "xla": (1, 2, 7), "pallas_tpu": (2,), "pallas_gpu": (2,)}  # heights; `make test-slow` runs the others


@pytest.mark.parametrize("backend,height,width,channels,rank,state,dtype", [
    pytest.param(backend, *row, marks=[] if row[0] in OFTEN[backend] else [pytest.mark.slow])
    for backend in ["associative", "xla", *KERNELS] for row in [
        (3, 5, 4, 2, 1, "float32"), (7, 7, 130, 3, 1, "float32"), (1, 4, 3, 1, 1, "bfloat16"), (24, 24, 2, 1, 1, "float32"), (2, 3, 3, 1, 2, "float32")]])
@pytest.mark.often(3)
def test_gradients(backend, height, width, channels, rank, state, dtype):
    if backend == "pallas_gpu" and height > 6:
        height, width = 3, 6                              # its interpreter simulates threads
    args = draw_cross(height, width, channels, rank, state)
    args["u"] = args["u"].astype(dtype)
    cotangent = jnp.cos(jnp.arange(args["u"].size, dtype=jnp.float32)).reshape(args["u"].shape)
    y, gradients = value_and_gradients(cross_selective_scan, args, cotangent, **by(backend))
    wanted, wanted_gradients = value_and_gradients(cross_selective_scan, args, cotangent, implementation="reference")
    assert y.dtype == jnp.float32 and relative(y, wanted) < 1e-5
    for name, x in gradients.items():
        assert x.dtype == args[name].dtype
        assert relative(x, wanted_gradients[name]) < (1e-5 if x.dtype == jnp.float32 else 2**-7), name


@pytest.mark.slow
@pytest.mark.parametrize("ways", [1, 2])
def test_fused_kernel_with_several_images(monkeypatch, ways):
    """Two images of a program, with both ways of an axis in one loop, or one after the other as large maps need it."""
    monkeypatch.setattr(tpu_plane, "_fits", lambda size, which, of, images: of <= ways and images <= 2)
    args = draw_cross(2, 2 + ways, 130, 2, batch=2)
    p = tpu_plane.plane(CrossArguments(**args), "backward", Options(interpret=True))
    assert (p.images, p.ways, len(tpu_plane.loops(p))) == (2, ways, 4 // ways)
    cotangent = jnp.cos(jnp.arange(args["u"].size, dtype=jnp.float32)).reshape(args["u"].shape)
    y, gradients = value_and_gradients(cross_selective_scan, args, cotangent, **by("pallas_tpu"))
    wanted, wanted_gradients = value_and_gradients(cross_selective_scan, args, cotangent, implementation="reference")
    assert relative(y, wanted) < 1e-5 and all(relative(x, wanted_gradients[name]) < 1e-5 for name, x in gradients.items())


def test_images_of_a_program():
    """As many as divide the batch and fit VMEM, at most four."""
    args = lambda side, batch: jax.eval_shape(lambda: CrossArguments(**draw_cross(side, side, 2, 1, batch=batch)))
    sizes = lambda side, batch: [tpu_plane.plane(args(side, batch), which, Options())[-2:] for which in ("forward", "backward")]
    assert sizes(7, 8) == [(4, 2)] * 2 and sizes(7, 6) == [(2, 2)] * 2 and sizes(7, 3) == [(1, 2)] * 2
    assert sizes(56, 8) == [(2, 2), (1, 2)] and sizes(78, 8) == [(1, 2), (1, 1)]


@pytest.mark.parametrize("absent", ["D", pytest.param("delta_bias", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_fused_kernel_double_backward(absent):
    args = {**draw_cross(3, 2, 3, 1), absent: None}
    fused, plain = (jax.jit(jax.grad(lambda u, b=b: jnp.sin(jax.grad(lambda u: jnp.sin(cross_selective_scan(
        **{**args, "u": u}, delta_softplus=absent == "D", **by(b))).sum())(u)).sum()))(args["u"]) for b in ("pallas_tpu", "reference"))
    assert relative(fused, plain) < 1e-5


def test_fused_kernel_over_devices():
    args = draw_cross(3, 2, 3, 1, batch=8)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    specs = {name: jax.P("data") if name in ("u", "steps", "B", "C") else jax.P() for name in args}
    run = jax.shard_map(lambda args: cross_selective_scan(**args, **by("pallas_tpu")), mesh=mesh, in_specs=(specs,), out_specs=jax.P("data"),
                        check_vma=False)
    assert relative(jax.jit(run)(args), cross_selective_scan(**args, implementation="xla")) < 1e-5


def test_fused_kernel_limits():
    fits = lambda size, state=1: tpu_cross.fits(jax.eval_shape(lambda: CrossArguments(**draw_cross(size, size, 2, 1, state))))
    assert fits(56) and fits(78) and not fits(256) and not fits(14, state=2)


@pytest.mark.parametrize("change,error,words", [
    (dict(u=jnp.ones((1, 2, 3))), ValueError, "u.shape=(1, 2, 3): expected (batch, height, width, channels)"),
    (dict(steps=jnp.ones((1, 2, 3, 3, 2))), ValueError, "steps.shape=(1, 2, 3, 3, 2): expected (1, 2, 3, 4, rank)"),
    (dict(dt_weight=jnp.ones((4, 5, 3))), ValueError, "dt_weight.shape=(4, 5, 3): expected (4, 5, 2)"),
    (dict(B=jnp.ones((1, 2, 3, 4, 2))), ValueError, "B.shape="),
    (dict(D=jnp.ones(5)), ValueError, "D.shape=(5,): expected (4, 5)"),
    (dict(A=None), TypeError, "A=None"),
    (dict(u=jnp.ones((1, 2, 3, 5), int)), TypeError, "u.dtype="),
    (dict(implementation="mosaic"), ValueError, "implementation='mosaic'"),
])
def test_error_messages(change, error, words):
    with pytest.raises(error) as raised:
        cross_selective_scan(**{**draw_cross(2, 3, 5, 2), **change})
    assert words in str(raised.value)
