"""The code that the GPU kernels compile to, executed on a CPU and compared with the plain loop."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

import pallas_kernels
from pallas_kernels.gpu import plan as gpu_plan
from pallas_kernels.gpu import selective as gpu
from pallas_kernels.gpu import tiles
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


@pytest.mark.parametrize("sizes, more, launches", [
    ((8, 1, 16, 32), dict(batch=1), 2),
    ((66, 1, 16, 40), dict(batch=2), 2),                      # tiles overlap; a last block of two steps
], ids=["block", "overlap"])
def test_states(executed, sizes, more, launches):
    compare(pallas_kernels.selective_scan, draw(*sizes, **more), launches, executed)
