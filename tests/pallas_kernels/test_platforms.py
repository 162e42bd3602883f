"""Which platforms a scan is traced for, and the error of lowering it for another one."""
import contextlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import pallas_kernels
from pallas_kernels import cross_selective_scan, linear_scan, platform_guard, selective_scan
from pallas_kernels.tpu.launch import without_bodies

CUSTOM_CALL = {"tpu": "tpu_custom_call", "cuda": "mosaic_gpu"}
X = jnp.linspace(0.1, 1, 2 * 4 * 3).reshape(2, 4, 3)


def selective(u, **options):
    maps = jnp.ones((u.shape[0], u.shape[1], 1, 1))
    return selective_scan(u, u, -jnp.ones((u.shape[2], 1)), maps, maps, **options)


def cross(u, **options):
    u = u[:, :, None]
    maps = jnp.ones((*u.shape[:3], 4, 1))
    return cross_selective_scan(u, maps, jnp.ones((4, u.shape[3], 1)), -jnp.ones((4, u.shape[3], 1)), maps, maps, **options)


def linear(u, **options):
    return linear_scan(u, u, **options)


SCANS = pytest.mark.parametrize("scan", [selective, cross, linear])


def gradient(scan):
    return jax.grad(lambda u: scan(u).sum())


def equations(jaxpr):
    """Names of the primitives of a jaxpr and of every jaxpr inside it."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def primitives(f, *args):
    return list(equations(jax.make_jaxpr(f)(*args).jaxpr))


def lower(f, *args, platforms):
    return jax.jit(f).trace(*args).lower(lowering_platforms=platforms).as_text()


@SCANS
def test_cpu_process_traces_no_kernel(scan):
    found = primitives(gradient(scan), X)
    assert not {"pallas_call", "core_map", "cond", "platform_index"} & set(found)
    assert found.count("scan_platform_guard") >= 1
    plain = primitives(gradient(lambda u: scan(u, implementation="xla")), X)
    assert len(found) - found.count("scan_platform_guard") == len(plain)


@SCANS
@pytest.mark.parametrize("platform", ["tpu", "cuda", "rocm"])
def test_unnamed_platform_raises(scan, platform):
    for f in (scan, gradient(scan)):
        with pytest.raises(ValueError, match=rf"platform='{platform}': expected one of cpu.*with pallas_kernels.platforms\('{platform}'\)"):
            lower(f, X, platforms=(platform,))
    with pytest.raises(ValueError, match=f"platform='{platform}'"):
        lower(scan, X, platforms=("cpu", platform))


@SCANS
@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_named_platform_has_its_kernels(scan, platform):
    with pallas_kernels.platforms(platform):
        traced = jax.jit(gradient(scan)).trace(X)
    assert CUSTOM_CALL[platform] in traced.lower(lowering_platforms=(platform,)).as_text()      # outside of the context
    assert "custom_call" not in traced.lower(lowering_platforms=("cpu",)).as_text()
    other, = CUSTOM_CALL.keys() - {platform}
    with pytest.raises(ValueError, match=f"platform='{other}': expected one of cpu, {platform}"):
        traced.lower(lowering_platforms=(other,))


def test_contexts_nest():
    with pallas_kernels.platforms("tpu"):
        with pallas_kernels.platforms("cuda", "rocm"):
            inner = jax.jit(selective).trace(X)
        outer = jax.jit(selective).trace(X)
    for platform in ("tpu", "cuda", "rocm"):
        text = inner.lower(lowering_platforms=(platform,)).as_text()
        assert [name for name, call in CUSTOM_CALL.items() if call in text] == [platform] * (platform != "rocm")
    outer.lower(lowering_platforms=("tpu",))
    with pytest.raises(ValueError, match="platform='cuda'"):
        outer.lower(lowering_platforms=("cuda",))


def test_name_retraces_a_cached_function():
    run = jax.jit(selective)
    run(X)
    with pytest.raises(ValueError, match="platform='tpu'"):
        run.trace(X).lower(lowering_platforms=("tpu",))
    with pallas_kernels.platforms("tpu"):
        assert "tpu_custom_call" in run.trace(X).lower(lowering_platforms=("tpu",)).as_text()
    with pytest.raises(ValueError, match="platform='tpu'"):
        run.trace(X).lower(lowering_platforms=("tpu",))


@SCANS
def test_export(scan):
    run = jax.jit(scan)
    with pytest.raises(ValueError, match="platform='tpu'"):
        jax.export.export(run, platforms=["tpu"])(X)
    with pallas_kernels.platforms("tpu", "rocm"):
        assert "tpu_custom_call" in jax.export.export(run, platforms=["tpu"])(X).mlir_module()
    with pallas_kernels.platforms("rocm"):
        exported = jax.export.export(run, platforms=["cpu", "rocm"])(X)
    np.testing.assert_allclose(exported.call(X), run(X), rtol=1e-6)


def test_unknown_name():
    with pytest.raises(ValueError, match="platforms='gpu': expected one of cpu, tpu, cuda, rocm"), pallas_kernels.platforms("gpu"):
        pass


@pytest.mark.parametrize("scan", [selective, pytest.param(cross, marks=pytest.mark.slow), pytest.param(linear, marks=pytest.mark.slow)])
def test_transformations_pass_the_guard(scan):
    plain = lambda u: scan(u, implementation="reference")
    loss = lambda scan: lambda u: (scan(u) ** 2).sum()
    np.testing.assert_allclose(jax.jit(scan)(X), plain(X), rtol=1e-5)
    np.testing.assert_allclose(scan(X), plain(X), rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(scan)(X[None])[0], plain(X), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(jax.checkpoint(loss(scan)))(X), jax.grad(loss(plain))(X), rtol=1e-4)
    check_grads(scan, (X,), order=2, modes=["rev"], atol=0.05, rtol=0.05)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    batch = jnp.tile(X, (len(jax.devices()) // 2, 1, 1))
    mapped = jax.shard_map(scan, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data"))
    np.testing.assert_allclose(jax.jit(mapped)(batch), plain(batch), rtol=1e-5)
    mapped = jax.shard_map(jax.grad(loss(scan)), mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data"),
                           check_vma=False)
    np.testing.assert_allclose(jax.jit(mapped)(batch), jax.grad(loss(plain))(batch), rtol=1e-4)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_transformations_keep_the_guard(platform):
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    batch = jnp.tile(X, (len(jax.devices()) // 2, 1, 1))
    mapped = jax.shard_map(selective, mesh=mesh, in_specs=jax.P("data"), out_specs=jax.P("data"), check_vma=False)
    second = jax.grad(lambda u: (gradient(selective)(u) ** 2).sum())
    for f, x in ((jax.vmap(selective), X[None]), (mapped, batch), (jax.checkpoint(selective), X), (second, X)):
        with pytest.raises(ValueError, match=f"platform='{platform}'"):
            lower(f, x, platforms=(platform,))
        with pallas_kernels.platforms(platform):
            assert CUSTOM_CALL[platform] in lower(f, x, platforms=(platform,))


def test_forward_mode_passes_the_guard():
    """The guard has a forward derivative; that of the scan decides."""
    y, tangent = jax.jvp(lambda x: platform_guard.guard(x, ("cpu",)) ** 2, (X,), (X,))
    np.testing.assert_allclose(tangent, 2 * X * X, rtol=1e-6)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(selective, (X,), (X,))


@pytest.mark.parametrize("scan", [cross, linear])
def test_kernels_without_bodies_keep_their_calls(scan):
    """As many calls with the same operands, results, layouts and vector memory, little code inside them; the trace with bodies is not reused."""
    def calls(context):
        with pallas_kernels.platforms("tpu"), context:
            text = jax.jit(gradient(scan)).trace(X).lower(lowering_platforms=("tpu",)).as_text()
        lines = [line for line in text.splitlines() if "tpu_custom_call" in line]
        return [len(line) for line in lines], [re.sub(r"body[^,]*,", "", line) for line in lines]

    bodies, full = calls(contextlib.nullcontext())
    lengths, empty = calls(without_bodies())
    assert full and empty == full
    assert all(short < 0.7 * long for short, long in zip(lengths, bodies, strict=True))
    assert calls(contextlib.nullcontext()) == (bodies, full)
