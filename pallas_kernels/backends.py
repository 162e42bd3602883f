"""Selection of a backend: the one that the caller names, or that of the platform a call is lowered for."""
import functools

import jax

from pallas_kernels import associative, reference, xla
from pallas_kernels.gpu import selective as gpu
from pallas_kernels.platform_guard import allowed, guard
from pallas_kernels.tpu import selective as tpu

BACKENDS = {"reference": reference, "associative": associative, "xla": xla, "pallas_tpu": tpu, "pallas_gpu": gpu}
IMPLEMENTATIONS = tuple(BACKENDS)
PLATFORMS = {"tpu": "pallas_tpu", "cuda": "pallas_gpu"}   # everything else: "xla"


def check(implementation, interpret):
    """Raise a ValueError for an unknown backend, or for interpret mode of a backend that is not a Pallas kernel."""
    if implementation is not None and implementation not in BACKENDS:
        raise ValueError(f"implementation={implementation!r}: expected None or one of {', '.join(BACKENDS)}")
    if interpret and implementation not in PLATFORMS.values():
        raise ValueError(f"interpret=True: expected implementation='pallas_tpu' or 'pallas_gpu', got {implementation!r}")


def call(operation, implementation, options, *args):
    """`operation(*args, options)` of the backend, see `_call`; the error about forward mode names the backends that have it."""
    try:
        return _call(operation, implementation, options, *args)
    except TypeError as error:
        if "forward-mode" not in str(error):
            raise
        raise TypeError(f"implementation={implementation!r}: expected implementation='reference' or 'associative' under forward-mode "
                        "differentiation (jax.jvp, jax.jacfwd, jax.hessian)") from error


def _call(operation, implementation, options, *args):
    """`operation(*args, options)` of the backend.

    Without an implementation, the call contains the kernels of the platforms in `platform_guard.allowed()`, and the platform it is lowered
    for chooses among them. A platform without a kernel, or whose kernel does not support these arguments, uses xla. Lowering for any other
    platform raises.

    Raises:
        ValueError, TypeError, RuntimeError: the named kernel does not support these arguments or this machine.
    """
    if implementation is not None:
        reason = _refusal(implementation, operation, args)
        if reason:
            raise reason
        return _function(implementation, operation, options)(*args)
    names = allowed()
    leaves, structure = jax.tree.flatten(args)
    args = structure.unflatten([guard(leaves[0], names), *leaves[1:]])
    kernels = {platform: PLATFORMS[platform] for platform in names if platform in PLATFORMS}
    kernels = {platform: _function(name, operation, options) for platform, name in kernels.items() if not _refusal(name, operation, args)}
    default = _function("xla", operation, options)
    return jax.lax.platform_dependent(*args, **kernels, default=default) if kernels else default(*args)


def _refusal(name, operation, args):
    backend = BACKENDS[name]
    return backend.refusal(operation, *args) if hasattr(backend, "refusal") else None


@functools.cache
def _function(name, operation, options):
    """The backend's function under jit, so that calls of equal shapes are traced once."""
    return jax.jit(functools.partial(getattr(BACKENDS[name], operation), options=options))
