"""The TPU kernels without a TPU: lowering, and selection by platform."""
import jax
import jax.numpy as jnp
import pytest

import pallas_kernels
from pallas_kernels import cross_selective_scan, linear_scan, selective_scan
from pallas_kernels.tpu.tiles import tiles

KERNEL = "tpu_custom_call"


def shapes(*sizes, dtype=jnp.float32):
    return [jax.ShapeDtypeStruct(size, dtype) for size in sizes]


def scan_arguments(state, channels, groups=1, length=784, dtype=jnp.float32):
    stream = shapes((2, length, channels), (2, length, channels), dtype=dtype)
    return *stream, *shapes((channels, state), (2, length, groups, state), (2, length, groups, state), (channels,), (channels,))


def cross_arguments(size, channels, rank, state=1):
    return shapes((2, size, size, channels), (2, size, size, 4, rank), (4, channels, rank), (4, channels, state), (2, size, size, 4, state),
                  (2, size, size, 4, state), (4, channels), (4, channels))


def lowered(run, args, platform="tpu"):
    with pallas_kernels.platforms(platform):
        return jax.jit(run).trace(*args).lower(lowering_platforms=(platform,)).as_text()


def gradient(run, args):
    return jax.grad(lambda *args: run(*args).astype(jnp.float32).sum(), argnums=tuple(range(len(args))))


@pytest.mark.parametrize("state,channels,groups", [(1, 96, 1), (1, 384, 1), (16, 192, 1), (16, 3, 1), (2, 192, 2)])
@pytest.mark.parametrize("reverse,dtype", [(False, jnp.float32), (True, jnp.bfloat16), *(pytest.param(*row, marks=pytest.mark.slow) for row in (
    (True, jnp.float32), (False, jnp.bfloat16)))])
@pytest.mark.often(10)
def test_selective_scan(state, channels, groups, reverse, dtype):
    args = scan_arguments(state, channels, groups, dtype=dtype)
    run = lambda *args: selective_scan(*args, reverse=reverse, out_dtype=dtype, implementation="pallas_tpu")
    assert lowered(run, args).count(KERNEL) == 1
    assert lowered(gradient(run, args), args).count(KERNEL) == 2


def test_float16_is_widened():
    args = scan_arguments(1, 96, dtype=jnp.float16)
    text = lowered(lambda *args: selective_scan(*args, out_dtype=jnp.float16, implementation="pallas_tpu"), args)
    calls = [line for line in text.splitlines() if KERNEL in line]
    assert len(calls) == 1 and "xf16" not in calls[0] and "xf32" in calls[0]


@pytest.mark.parametrize("size,channels,rank", [(56, 96, 6), (7, 768, 48), (13, 192, 12)])
def test_fused_cross_scan(size, channels, rank):
    args = cross_arguments(size, channels, rank)
    run = lambda *args: cross_selective_scan(*args, implementation="pallas_tpu")
    assert lowered(run, args).count(KERNEL) == 1
    assert lowered(gradient(run, args), args).count(KERNEL) == 2


@pytest.mark.parametrize("size,state", [(256, 1), (14, 16)])
def test_cross_scan_of_four_scans(size, state):
    args = cross_arguments(size, 96, 6, state)
    text = lowered(lambda *args: cross_selective_scan(*args, implementation="pallas_tpu"), args)
    assert text.count(KERNEL) >= 2                        # directions of one shape share a function


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.complex64])
def test_linear_scan(dtype):
    args = shapes((2, 784, 384), (2, 784, 384), dtype=dtype)
    run = lambda a, b: linear_scan(a, b, implementation="pallas_tpu")
    assert lowered(run, args).count(KERNEL) == 1
    assert KERNEL in lowered(jax.grad(lambda a, b: jnp.abs(run(a, b)).sum(), argnums=(0, 1)), args)


def test_platform_selects_kernel():
    for run, args in ((selective_scan, scan_arguments(1, 96)), (cross_selective_scan, cross_arguments(14, 96, 6))):
        assert KERNEL in lowered(run, args) and KERNEL in lowered(gradient(run, args), args)
        assert KERNEL not in lowered(run, args, "cpu")
    wide = scan_arguments(17, 96)                         # more states than the kernels take: xla on every platform
    assert KERNEL not in lowered(selective_scan, wide)


@pytest.mark.parametrize("length", [1, 7, 49, 128, 196, 784, 992, 993, 3136, 65536])
def test_tiles_coverage_and_strides(length):
    t = tiles(1, length, 96)
    assert t.steps % 8 == 0 and t.blocks * t.steps >= length > (t.blocks - 1) * t.steps
    assert t.steps <= 992 and (t.steps <= 128 or t.chunk % 8 == 4)
