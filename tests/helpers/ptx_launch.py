"""GPU kernels run by `ptx.Machine` in the place of a GPU: `launched` replaces `plgpu.kernel`."""
import importlib.util
import re

import jax
import numpy as np
import pytest

from experiments import gpu_code
from tests.helpers import ptx

COMPILER = pytest.mark.skipif(
    not (importlib.util.find_spec("jax_cuda13_plugin") and importlib.util.find_spec("nvidia")),
    reason="the wheels of JAX's CUDA compiler are not installed: pip install --no-deps jax-cuda13-plugin jax-cuda13-pjrt nvidia-cuda-nvcc")
LAUNCH = re.compile(r"gpu\.launch_func .*?blocks in \((.*?)\).*?dynamic_shared_memory_size (%\w+) args\((.*?)\)")


def launched(kernel, folder, executed):
    """A replacement of `plgpu.kernel` that compiles for a Hopper GPU and executes the PTX.

    Args:
        kernel: `plgpu.kernel`.
        folder: where MOSAIC_GPU_DUMP_TO lets the compiler write.
        executed: list to which every launch appends its number of instructions.
    """
    def build(body, out_type, **options):
        def run(*inputs):
            shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs]
            for path in folder.iterdir():
                path.unlink()
            gpu_code.compile_for_hopper(kernel(body, out_type=out_type, **options), shapes)
            program, order, programs, shared = read(folder)

            def execute(*inputs):
                outputs = [np.empty(x.shape, x.dtype) for x in out_type]
                executed.append(ptx.Machine(program, [np.array(x) for x in inputs], outputs, order, programs, shared).run())
                for number, x in enumerate(outputs):
                    if not np.isfinite(x.astype(np.float32)).all():
                        raise ptx.Fault(f"output {number}: expected finite numbers, as the kernel writes all of them")
                return tuple(outputs)
            return jax.pure_callback(execute, tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in out_type), *inputs)
        return run
    return build


def read(folder):
    """(`ptx.Program`, array of each parameter, programs, bytes of shared memory) that the compiler wrote."""
    [source] = folder.glob("*.ptx")
    log = source.with_suffix(".mlir-passes.log").read_text()
    text = log[log.rindex("IR Dump Before GpuLaunchLoweringPass"):]
    blocks, shared, arguments = LAUNCH.search(text).groups()
    constants = {name: int(x) for name, x in re.findall(r"(%\w+) = llvm\.mlir\.constant\((-?\d+) : \w+\)", text)}
    places = {name: int(x) for name, x in re.findall(r"(%\w+) = llvm\.getelementptr %\w+\[(\d+)\]", text)}
    loads = dict(re.findall(r"(%\w+) = llvm\.load (%\w+) :", text))
    order = [places.get(loads[x.split(":")[0].strip()], 0) for x in arguments.split(",")]
    x, y, z = (constants[name.strip()] for name in blocks.split(","))
    assert (y, z) == (1, 1)
    return ptx.parse(source.read_text()), order, x, constants[shared]
