"""The scan on NVIDIA GPUs, through Mosaic GPU (`plgpu.kernel`): a two-level associative scan.

Where the rows of a batch times tiles of channels do not fill the chip, time is cut into chunks: a first kernel finds each chunk's end when
begun at zero, these are carried from chunk to chunk, and a second kernel rescans every chunk from its carried state. Otherwise the second
kernel runs alone, serial in time. `tiles.plan` decides by static shapes. Arithmetic is float32; u, delta and y may be narrower.
"""
import functools
import warnings

import jax

from pallas_kernels import arguments, cross, reference
from pallas_kernels.autodiff import differentiable, differentiable_recurrence
from pallas_kernels.gpu.backward import backward
from pallas_kernels.gpu.forward import forward
from pallas_kernels.gpu.linear import linear_states
from pallas_kernels.gpu.tiles import UNAVAILABLE


def refusal(operation, *args):
    """The exception to raise for these arguments or this machine's GPU, or None when the kernels serve them."""
    return arguments.refusal("pallas_gpu", operation, *args) or _machine()


@functools.cache
def _machine():
    """What keeps the kernels off this machine's GPU, said once; None without a GPU, where code may be compiled for another machine."""
    if UNAVAILABLE is not None:
        return RuntimeError(f"implementation='pallas_gpu' needs a jaxlib with Mosaic GPU ({UNAVAILABLE}); use 'xla'")
    try:
        found = [tuple(map(int, str(device.compute_capability).split("."))) for device in jax.local_devices(backend="cuda")]
    except (RuntimeError, AttributeError, ValueError):
        return None
    needed = (8, 0) if jax.__version_info__ >= (0, 11, 2) else (9, 0)
    if not found or min(found) >= needed:
        return None
    message = (f"a GPU of compute capability {'.'.join(map(str, min(found)))}, where jax {jax.__version__} needs "
               f"{'.'.join(map(str, needed))} for implementation='pallas_gpu'")
    warnings.warn(f"{message}: scans take the 'xla' path", stacklevel=2)
    return RuntimeError(message)


def selective_scan(args, options):
    """y of `scan.selective_scan`."""
    return differentiable(forward, backward, reference.selective_scan, arguments.narrowed(options))(args).astype(options.out_dtype)


def cross_selective_scan(args, options):
    """Merged map of `scan.cross_selective_scan`."""
    return cross.lean(forward, backward, reference.cross_selective_scan, arguments.narrowed(options))(args).astype(options.out_dtype)


def linear_scan(a, b, options):
    """Every state of h_t = a_t h_{t-1} + b_t, real or complex."""
    return differentiable_recurrence(linear_states, options)(a, b)
