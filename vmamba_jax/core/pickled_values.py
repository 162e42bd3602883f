"""The values that a pickle may hold: what replaces a global, a tree of plain data, keys and sets."""
import dataclasses
from collections.abc import Callable

import numpy as np

NO_ITEMS = frozenset()
MAX_DEPTH = 100  # nested containers
KEYS = (str, bytes, int, float, bool, type(None))
LEAVES = (*KEYS, complex, np.ndarray)


@dataclasses.dataclass(frozen=True)
class AllowedGlobal:
    """An entry of the allow-list: what replaces a global that a pickle names.

    Attributes:
        name: "module.name", as in the pickle.
        call: replaces the call of the global; None: a call is refused.
        set_state: function (object, state) that replaces `__setstate__` of what `call` returned; None: setting a state is refused.
    """
    name: str
    call: Callable | None = None
    set_state: Callable | None = None


def ignore_state(made, state):
    """The `set_state` of types whose extra attributes do not matter."""


def check(tree, limit):
    """Raise on leaves that are not plain data, cycles, nesting beyond MAX_DEPTH, and more than `limit` nodes once shared containers are copied out."""
    sizes = {}  # id of a container that is not empty -> (nodes, height); None while its children are being counted

    def measure(node, depth):
        kind = type(node)
        if kind not in (dict, list, tuple, set, frozenset):
            if kind not in LEAVES:
                raise ValueError(f"refused: {describe(node)} as a value")
            return 1, 0
        if not node and depth < MAX_DEPTH:  # an entry in `sizes` takes more memory than the container itself
            return 1, 1
        if id(node) not in sizes:
            if depth == MAX_DEPTH:
                raise ValueError(f"containers are nested deeper than {MAX_DEPTH}")
            sizes[id(node)] = None
            nodes, height = 1, 0
            for child in node.values() if kind is dict else node:
                n, h = measure(child, depth + 1)
                nodes, height = nodes + n, max(height, h)
                if nodes > limit:
                    raise ValueError(f"shared containers unfold to more than {limit} values")
            sizes[id(node)] = nodes, height + 1
        if sizes[id(node)] is None:
            raise ValueError(f"a {kind.__name__} contains itself")
        if depth + sizes[id(node)][1] > MAX_DEPTH:
            raise ValueError(f"containers are nested deeper than {MAX_DEPTH}")
        return sizes[id(node)]

    measure(tree, 0)


def describe(value):
    """A short name of what a pickle holds, for messages."""
    if isinstance(value, AllowedGlobal):
        return value.name
    if isinstance(value, KEYS):
        text = hex(value) if type(value) is int else ascii(value)
        return text if len(text) < 60 else text[:57] + "..."
    return type(value).__name__


def key(value):
    """`value` if a dict or set may hold it as a key: small, and with a hash that a file cannot make collide at will."""
    if type(value) not in KEYS or (isinstance(value, int) and abs(value) >= 2**63):
        raise ValueError(f"refused: {describe(value)} as a key; expected a string, bytes or a number")
    return value


def unique(values, kind=set):
    """A set (or frozenset) of plain keys."""
    if type(values) not in (list, tuple, set, frozenset):
        raise ValueError(f"a {kind.__name__} is made from {describe(values)}; expected a list")
    return NO_ITEMS if not values else kind(key(value) for value in values)
