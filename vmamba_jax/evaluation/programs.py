"""Compiled programs of the evaluations, kept as long as the functions that they were compiled for.

A plain function is static in a program: it is a part of the cache's key, and the arrays that it closes over are constants of the program. It is
traced for every evaluation, so that it is evaluated with what it closes over then (see `core.closures`). The programs here refer to functions
weakly, so a classifier that its caller drops is freed with its program and its weights. The functions of a `jax.tree_util.Partial` are treated in
the same way; its arguments are arguments of the program.
"""
import inspect
import weakref

import jax
import numpy as np
from jax.tree_util import Partial

from vmamba_jax.core import closures


class Held:
    """A function, referred to weakly: static in a program, equal for the same function only."""

    def __init__(self, fn):
        method = inspect.ismethod(fn)
        self.reference = weakref.WeakMethod(fn) if method else weakref.ref(fn)
        self.key = (id(fn.__self__), id(fn.__func__)) if method else id(fn)

    def __call__(self, *args, **kwargs):
        return self.reference()(*args, **kwargs)

    def __eq__(self, other):
        return isinstance(other, Held) and self.key == other.key

    def __hash__(self):
        return hash(self.key)


class Programs:
    """Programs by (key, functions). An entry lives as long as all its functions, which must not be referred to by the program."""

    def __init__(self):
        self.made, self.by_function = {}, weakref.WeakKeyDictionary()

    def get(self, make, key, functions=()):
        """The program of `key` and `functions`, made by `make()` if there is none; not kept if a function is not hashable."""
        node = self
        try:
            for fn in functions:
                node = node.by_function.setdefault(fn, Programs())
        except TypeError:
            return make()
        if key not in node.made:
            node.made[key] = make()
        return node.made[key]

    def current(self, make, key, functions=()):
        """A function that traces `make()` once per structure and shapes of its arguments, and shares the compiled programs of equal traces.

        For functions that may have changed since an earlier use, see `core.closures`; one use is one call of this method.
        """
        traced = {}

        def program(*args):
            leaves, structure = jax.tree.flatten(args)
            signature = structure, tuple(map(np.shape, leaves))
            if signature not in traced:
                traced[signature] = self.get(closures.Programs, ("traces", key), functions).get(make(), *args)
            return traced[signature](*args)
        return program


def held(tree):
    """(`tree` with the function of every `Partial` in it referred to weakly, these functions)."""
    functions = []

    def hold(x):
        if not isinstance(x, Partial):
            return x
        args, keywords = convert(x.args), convert(dict(x.keywords))
        try:
            fn = x.func if isinstance(x.func, Held) else Held(x.func)
        except TypeError:  # a type without weak references, whose values close over nothing
            return Partial(x.func, *args, **keywords)
        functions.extend((x.func.__self__, x.func.__func__) if inspect.ismethod(x.func) else (x.func,))
        return Partial(fn, *args, **keywords)

    def convert(tree):
        return jax.tree.map(hold, tree, is_leaf=lambda x: isinstance(x, Partial))

    return convert(tree), tuple(functions)
