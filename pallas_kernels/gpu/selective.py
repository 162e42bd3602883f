"""The backend "pallas_gpu": a two-level associative scan on NVIDIA GPUs, through Mosaic GPU (`plgpu.kernel`).

If the rows of a batch times tiles of channels do not fill the chip, time is cut into chunks: a first kernel computes each chunk's end when
begun at zero, a carry joins the chunks, and a second kernel scans every chunk again from its carried state. Otherwise the second kernel
runs alone, serial in time. `plan.plan` decides by static shapes. Arithmetic is float32; u, delta and y may be narrower.
"""
import functools
import math
import warnings

import jax

from pallas_kernels import arguments, cross, reference
from pallas_kernels.autodiff import differentiable, differentiable_recurrence
from pallas_kernels.gpu import backward, forward, state_backward, state_forward
from pallas_kernels.gpu import cross as gpu_cross
from pallas_kernels.gpu.linear import linear_states
from pallas_kernels.gpu.plan import OFFSETS, ROWS, plan
from pallas_kernels.gpu.tiles import UNAVAILABLE


def refusal(operation, *args):
    """The exception to raise for these arguments or this machine's GPU; None: the kernels support them."""
    return arguments.refusal("pallas_gpu", operation, *args) or _size(operation, *args) or _machine()


def _size(operation, *args):
    """The exception for sequences beyond a program's 32-bit offsets between its rows; None: within. Batches have no limit."""
    u = args[0] if operation == "linear_scan" else args[0].u
    batch, length, channels = u.shape[0], math.prod(u.shape[1:-1]), u.shape[-1]
    groups, state = args[0].B.shape[2:] if operation == "selective_scan" else (1, 1 if operation == "linear_scan" else args[0].A.shape[-1])
    p = plan(batch, length, groups, channels // groups, state)
    if (ROWS - 1) * p.steps * p.channels < OFFSETS:
        return None
    return ValueError(f"implementation='pallas_gpu': expected fewer than {OFFSETS // (ROWS - 1)} numbers in a chunk of a sequence, got "
                      f"{p.steps * p.channels} ({p.steps} steps of {p.channels} channels); use 'xla'")


@functools.cache
def _machine():
    """Why this machine's GPU cannot run the kernels, with one warning; None: it can, or the machine has no GPU."""
    if UNAVAILABLE is not None:
        return RuntimeError(f"implementation='pallas_gpu': expected a jaxlib with Mosaic GPU ({UNAVAILABLE}); use 'xla'")
    try:
        capabilities = [tuple(map(int, str(device.compute_capability).split("."))) for device in jax.local_devices(backend="cuda")]
    except (RuntimeError, AttributeError, ValueError):
        return None
    needed = (8, 0) if jax.__version_info__ >= (0, 11, 2) else (9, 0)
    if not capabilities or min(capabilities) >= needed:
        return None
    message = (f"implementation='pallas_gpu': expected a GPU of compute capability {'.'.join(map(str, needed))} "
               f"with jax {jax.__version__}, got compute capability {'.'.join(map(str, min(capabilities)))}")
    warnings.warn(f"{message}: scans use the 'xla' path", stacklevel=2)
    return RuntimeError(message)


def _passes(args):
    """(forward, backward) of a scan with as many states per channel."""
    return (forward.forward, backward.backward) if args.A.shape[-1] == 1 else (state_forward.forward, state_backward.backward)


def selective_scan(args, options):
    """y of `scan.selective_scan`."""
    return differentiable(*_passes(args), reference.selective_scan, arguments.narrowed(options))(args).astype(options.out_dtype)


def cross_selective_scan(args, options):
    """Merged map of `scan.cross_selective_scan`."""
    plain, narrow, fused = reference.cross_selective_scan, arguments.narrowed(options), gpu_cross.passes(args)
    scan = differentiable(*fused, plain, narrow) if fused else cross.lean(*_passes(args), plain, narrow)
    return scan(args).astype(options.out_dtype)


def linear_scan(a, b, options):
    """Every state of h_t = a_t h_{t-1} + b_t, real or complex."""
    return differentiable_recurrence(linear_states, options)(a, b)
