"""An exported CUDA program compiles in a process without this package; what it must import there, as docs/kernels.md says."""
import importlib.util
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

import pallas_kernels
from experiments.gpu_code import TARGET

ROOT = pathlib.Path(__file__).parents[2]
BARE = """
import sys
import jax
from jax.experimental import topologies
{imported}
assert not any(name.partition(".")[0] in ("pallas_kernels", "vmamba_jax") for name in sys.modules)
target, program = (open(path, "rb").read() for path in sys.argv[1:])
device = topologies.get_topology_desc(platform="cuda", topology_name="h100", target_config=target.decode(), topology="1x1x1").devices[0]
sharding = jax.sharding.SingleDeviceSharding(device)
exported = jax.export.deserialize(bytearray(program))
jax.jit(exported.call, in_shardings=sharding, out_shardings=sharding).trace(*exported.in_avals).lower(lowering_platforms=("cuda",)).compile()
print("compiled")
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Paths of the target's description and of an exported selective scan."""
    folder = tmp_path_factory.mktemp("bare")
    shape = lambda *size: jax.ShapeDtypeStruct(size, jnp.float32)
    scan = lambda u, delta, A, B, C, D: pallas_kernels.selective_scan(u, delta, A, B, C, D)
    args = shape(2, 64, 32), shape(2, 64, 32), shape(32, 1), shape(2, 64, 1, 1), shape(2, 64, 1, 1), shape(32)
    with pallas_kernels.platforms("cuda"):
        program = jax.export.export(jax.jit(scan), platforms=["cuda"])(*args)
    assert "mosaic_gpu" in program.mlir_module()
    (folder / "target").write_text(TARGET)
    (folder / "program").write_bytes(bytes(program.serialize()))
    return folder / "target", folder / "program"


@pytest.mark.slow
@pytest.mark.skipif(not (importlib.util.find_spec("jax_cuda13_plugin") and importlib.util.find_spec("nvidia")),
                    reason="the wheels of JAX's CUDA compiler are not installed: pip install --no-deps jax-cuda13-plugin jax-cuda13-pjrt nvidia-cuda-nvcc")
@pytest.mark.parametrize("imported, compiles", [("import jax.experimental.mosaic.gpu", True), ("", False)])
def test_exported_program_in_a_bare_process(exported, tmp_path, imported, compiles):
    """JAX's own import is enough; without it the compiler does not find Mosaic GPU's runtime library."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLA_FLAGS", "MOSAIC_GPU_RUNTIME_LIB_PATH")}
    env |= {"JAX_PLATFORMS": "cpu", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"}
    done = subprocess.run([sys.executable, "-c", BARE.format(imported=imported), *map(str, exported)], env=env, cwd=tmp_path, capture_output=True,
                          text=True, timeout=300)
    assert (done.returncode == 0 and "compiled" in done.stdout) == compiles, done.stderr[-2000:]
    if not compiles:
        assert "Failed to lookup host symbol" in done.stderr, done.stderr[-2000:]
