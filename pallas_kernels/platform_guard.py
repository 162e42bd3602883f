"""Platforms that a scan is traced for: those of the process and those named by `platforms`.

Tracing a kernel for a platform that never runs it costs 4 to 7 times the trace time of a model. A scan therefore contains the kernels of
these platforms only, and an identity primitive in front of it raises when the scan is lowered for any other platform.
"""
import contextlib
import functools

import jax
from jax.extend import backend
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

PLATFORMS = ("cpu", "tpu", "cuda", "rocm")
_named = jax.make_user_context(frozenset())    # part of the key of JAX's trace cache: a function is traced again when the names change


@contextlib.contextmanager
def platforms(*names):
    """Context in which scans are also traced for the named platforms, for `jax.export` and ahead-of-time compiles.

    The process's own platforms are always included, and nested contexts add up. Only tracing must happen inside; lowering may follow later:

        with pallas_kernels.platforms("tpu"):
            exported = jax.export.export(jax.jit(f), platforms=["tpu"])(x)

    Args:
        *names: any of "cpu", "tpu", "cuda" and "rocm".

    Raises:
        ValueError: an unknown name.
    """
    for name in names:
        if name not in PLATFORMS:
            raise ValueError(f"platforms={name!r}: expected one of {', '.join(PLATFORMS)}")
    with _named(_named.value | frozenset(names)):
        yield


def allowed():
    """Sorted names of the platforms that a scan traced now may be lowered for."""
    return tuple(sorted(present() | _named.value))


@functools.cache
def present():
    """Platforms that this process has, by the names that lowering uses."""
    return frozenset(_platform_name(client) for client in backend.backends().values())


def _platform_name(client):
    if client.platform == "gpu":
        return "rocm" if "rocm" in client.platform_version else "cuda"
    return client.platform


def guard(x, allowed):
    """x itself, in a program that raises a ValueError when it is lowered for a platform that is not in `allowed`."""
    return _guard.bind(x, allowed=allowed)


def _lower(ctx, x, *, allowed):
    for platform in ctx.module_context.platforms:
        if platform not in allowed:
            raise ValueError(f"lowering platform={platform!r}: expected one of {', '.join(allowed)}, for which this scan was traced; "
                             f"to lower it for {platform}, trace it inside `with pallas_kernels.platforms({platform!r}): ...`")
    return [x]


_guard = Primitive("scan_platform_guard")
_guard.def_impl(lambda x, *, allowed: x)
_guard.def_abstract_eval(lambda x, *, allowed: x)
ad.deflinear2(_guard, lambda cotangent, x, *, allowed: [cotangent])
batching.defvectorized(_guard)
mlir.register_lowering(_guard, _lower)
