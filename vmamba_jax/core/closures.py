"""Compiled programs of functions that may read other values later: closures, globals and attributes are traced again, never assumed.

`jax.jit` reads what a function closes over when it traces the function first, and keeps it. An attack or an evaluation of a plain function
must use the weights that the function has now. So a program is traced for every use, which takes milliseconds to seconds, and compiled only if
the trace differs from the one that it was compiled for.
"""
import dataclasses
import functools
import hashlib
import types

import jax
import numpy as np
from jax.tree_util import Partial

JITTED = type(jax.jit(lambda: None))


def constant(value):
    """Whether a callable reads nothing that can change, so that its programs need no new trace.

    True for a jitted function, which keeps what it read itself; for a `jax.tree_util.Partial` of weights and a function without a closure, whose
    weights are arguments; and for this package's own functions and records. A wrong False costs time only.
    """
    if not callable(value) or isinstance(value, JITTED):
        return True
    if isinstance(value, functools.partial):
        weights_are_arguments = isinstance(value.func, types.FunctionType) and not value.func.__closure__ and jax.tree.leaves(value)
        return bool(weights_are_arguments or constant(value.func)) and all_constant((value.args, dict(value.keywords)))
    if isinstance(value, types.MethodType):
        return constant(value.__func__) and constant(value.__self__)
    own = (getattr(value, "__module__", None) or "").partition(".")[0] in ("vmamba_jax", "pallas_kernels")
    if isinstance(value, types.FunctionType):
        return own and value.__closure__ is None
    if own and dataclasses.is_dataclass(value) and not isinstance(value, type):
        return all_constant([getattr(value, field.name) for field in dataclasses.fields(value)])
    return False


def all_constant(tree):
    """Whether every callable in a tree is `constant`."""
    return all(map(constant, jax.tree.leaves(tree, is_leaf=callable)))


def argument(fn, image_shape=None):
    """A function as a pytree that jit accepts: itself if all its leaves are arrays or numbers, else a static `Partial`.

    A classifier of `vmamba_jax.classifier` gives its weights of now, and is checked for images of `image_shape` (H, W, C) if it was not yet.
    """
    if image_shape is not None and hasattr(fn, "check"):
        fn.check(image_shape)
    fn = fn.partial if hasattr(fn, "partial") else fn
    leaves = jax.tree.leaves(fn)
    plain = all(isinstance(leaf, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)) for leaf in leaves)
    return fn if plain else Partial(fn)


class Programs:
    """Compiled programs, one per structure, shapes and dtypes of the arguments, each for the newest trace."""

    def __init__(self):
        self.compiled = {}

    def get(self, jitted, *args, **kwargs):
        """The compiled program for these arguments, to be called with them.

        Args:
            jitted: a function of `jax.jit` made for this call: JAX would reuse the trace of an older one.
            args, kwargs: its arguments, arrays and trees of arrays.
        """
        traced = jitted.trace(*args, **kwargs)
        leaves, structure = jax.tree.flatten((args, kwargs))
        signature = structure, tuple((np.shape(x), str(jax.dtypes.result_type(x))) for x in leaves)
        found = fingerprint(traced.jaxpr)
        if signature not in self.compiled or self.compiled[signature][0] != found:
            self.compiled[signature] = found, traced.lower().compile()
        return self.compiled[signature][1]


def fingerprint(jaxpr):
    """A value that is equal for programs that compute the same: the text of the program, its constants by content, its callbacks by identity."""
    constants, callbacks = [], []
    _collect(jaxpr, constants, callbacks, set())
    digest = hashlib.sha256(str(jaxpr).encode())
    for x in constants:
        keys = jax.dtypes.issubdtype(getattr(x, "dtype", np.float32), jax.dtypes.prng_key)
        x = np.ascontiguousarray(jax.random.key_data(x) if keys else x)
        digest.update(f"{x.dtype}{x.shape}".encode() + x.tobytes())
    return digest.hexdigest(), tuple(callbacks)


def _collect(jaxpr, constants, callbacks, seen):
    """Append the constants of a program and its callbacks, those of nested programs included."""
    if id(jaxpr) in seen:
        return
    seen.add(id(jaxpr))
    constants.extend(getattr(jaxpr, "consts", ()))
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    for equation in inner.eqns:
        for name, value in equation.params.items():
            for each in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(each, "eqns") or hasattr(getattr(each, "jaxpr", None), "eqns"):
                    _collect(each, constants, callbacks, seen)
                elif isinstance(each, np.ndarray):
                    constants.append(each)
                elif name == "callback":
                    callbacks.append(getattr(each, "callback_func", each))
