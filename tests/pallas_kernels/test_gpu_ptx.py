"""The code that the GPU kernels compile to, executed on a CPU and compared with the plain loop."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

import pallas_kernels
from pallas_kernels.gpu import plan as gpu_plan
from pallas_kernels.gpu import selective as gpu
from pallas_kernels.gpu import state_tiles, tiles
from tests.helpers import ptx_launch
from tests.helpers.scans import draw, draw_cross, relative, value_and_gradients

pytestmark = [pytest.mark.slow, ptx_launch.COMPILER]


@pytest.fixture
def executed(monkeypatch, tmp_path):
    """List of the instructions of every launch, of kernels that the test compiles and executes."""
    monkeypatch.setenv("MOSAIC_GPU_DUMP_TO", str(tmp_path))
    monkeypatch.setenv("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
    monkeypatch.setattr(gpu, "_machine", lambda: None)
    counts = []
    monkeypatch.setattr(tiles.plgpu, "kernel", ptx_launch.launched(tiles.plgpu.kernel, tmp_path, counts))
    jax.clear_caches()
    jax.config.update("jax_enable_compilation_cache", False)      # it would store programs that this machine cannot load
    compilation_cache.reset_cache()
    yield counts
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()
    jax.clear_caches()


def compare(scan, args, launches, executed, tolerance=1e-5, **options):
    """Compare y and all gradients of a scan with those of the plain loop in float32."""
    kernels = len(executed)
    wide = {name: x.astype(jnp.float32) for name, x in args.items()}
    shape = jax.eval_shape(lambda args: scan(**args, implementation="reference"), wide).shape
    cotangent = jnp.cos(jnp.arange(np.prod(shape), dtype=jnp.float32)).reshape(shape)
    y, gradients = value_and_gradients(scan, args, cotangent, implementation="pallas_gpu", **options)
    wanted, reference = value_and_gradients(scan, wide, cotangent, implementation="reference", **options)
    assert len(executed) - kernels == launches and min(executed) > 0
    assert relative(y, wanted) < 1e-5
    bounds = {name: tolerance if x.dtype != jnp.float32 else 1e-5 for name, x in args.items()}
    assert {name: error for name, x in gradients.items() if (error := relative(x, reference[name])) >= bounds[name]} == {}


@pytest.mark.parametrize("sizes, more, options, launches", [
    ((39, 1, 1, 130), dict(batch=5), dict(), 2),                                           # rows and tiles overlap; a partial segment
    ((66, 1, 16, 40), dict(batch=2), dict(), 2),                                           # tiles overlap; a last block of two steps
    ((45, 2, 16, 3), dict(batch=1, dtype=jnp.bfloat16), dict(reverse=True), 2),            # a second block, of which 4 does not divide the length
    ((3, 3, 3, 32), dict(batch=1, dtype=jnp.float16), dict(delta_softplus=False), 2),      # shorter than four steps
    ((100, 1, 5, 32), dict(batch=1), dict(reverse=True), 4),                               # chunks, joined by XLA
], ids=["one-state", "16-states", "16-states-reverse-bfloat16", "3-states-float16", "5-states-chunks"])
def test_selective_scan(executed, monkeypatch, sizes, more, options, launches):
    monkeypatch.setattr(gpu_plan, "SHORTEST", 20)
    if launches == 4:
        monkeypatch.setattr(gpu_plan, "LAUNCH", 0)
    args = draw(*sizes, **more)
    args = args if options.get("delta_softplus", True) else args | dict(delta=jnp.abs(args["delta"]), delta_bias=jnp.abs(args["delta_bias"]))
    compare(pallas_kernels.selective_scan, args, launches, executed, tolerance=3e-3 if more.get("dtype") == jnp.float16 else 1e-2, **options)


@pytest.mark.parametrize("turns", [1, 4])
def test_cross_selective_scan(executed, monkeypatch, turns):
    """The four directions of a map in one launch: each stores its part, or a program adds them."""
    monkeypatch.setattr(gpu_plan, "FEWEST", 0)
    monkeypatch.setattr(gpu_plan, "CORES", 1 if turns == 4 else 132)
    args = draw_cross(5, 7, 40, 2, batch=5)
    assert gpu_plan.map_plan(*args["u"].shape, 1).turns == turns
    compare(pallas_kernels.cross_selective_scan, args, 2, executed)


def test_a_fault_is_found(executed, monkeypatch):
    """Without a barrier the lanes of a channel read what other warps have not written yet."""
    monkeypatch.setattr(state_tiles.StateTile, "sync", lambda tile: None)
    with pytest.raises(Exception, match="since the last barrier|that nothing wrote"):
        compare(pallas_kernels.selective_scan, draw(8, 1, 16, 32, batch=1), 2, executed)
