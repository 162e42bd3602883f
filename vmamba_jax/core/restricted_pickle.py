"""A pickle machine that can only make data.

`pickletools.genops` decodes the opcodes; this machine runs the few that build containers, numbers and strings, and calls nothing but the
entries of the allow-list it is given. Every other opcode and every other name is refused by name, so that a file can neither run code nor
(by self-reference, nesting or sharing) hand back a tree that a later walk could not finish.
"""
import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

DEPTH = 100  # containers inside containers
NODES = 10_000  # what a pickle may always make from its memo, besides eight values per byte of the file
KEYS = (str, bytes, int, float, bool, type(None))
LEAVES = (*KEYS, complex, np.ndarray)

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING",
            "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
IGNORED = {"PROTO", "FRAME"}


@dataclasses.dataclass(frozen=True)
class Known:
    """An entry of the allow-list: `make(*args)` stands for the call of `name`, `build(made, state)` for setting its state."""
    name: str
    make: Callable | None = None
    build: Callable | None = None


def ignore(made, state):
    """The `build` of types whose extra attributes do not matter."""


def load(stream, known: dict[str, Any], persistent=None, size=0):
    """Runs one pickle from `stream` and returns its tree of dict, list, tuple, set, numbers, strings, bytes, None and numpy arrays.

    stream: binary file positioned at the pickle, left just behind it; its `read(n)` must not reserve memory for bytes that are not there.
    known: {"module.name": Known, or a plain value to stand for the name}. persistent: function of a persistent id, None to refuse them.
    size: bytes of the file, which bound what sharing may unfold to.
    Raises ValueError naming what is refused, or what is broken.
    """
    limit = NODES + 8 * size
    tree = Machine(known, persistent, limit).run(stream)
    check(tree, limit)
    return tree


def check(tree, limit):
    """Refuses leaves that are not plain data, cycles, nesting beyond DEPTH, and more than `limit` nodes once sharing is written out."""
    sizes = {}  # id of a container -> (nodes, height); None while its children are being counted

    def measure(node, depth):
        kind = type(node)
        if kind in (dict, list, tuple, set, frozenset):
            if id(node) not in sizes:
                if depth == DEPTH:
                    raise ValueError(f"containers are nested deeper than {DEPTH}")
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
            if depth + sizes[id(node)][1] > DEPTH:
                raise ValueError(f"containers are nested deeper than {DEPTH}")
            return sizes[id(node)]
        if kind not in LEAVES:
            raise ValueError(f"refused: {describe(node)} stands where a value should")
        return 1, 0

    measure(tree, 0)


def describe(value):
    """A short name for what a pickle holds, for messages."""
    if isinstance(value, Known):
        return value.name
    if isinstance(value, KEYS):
        text = hex(value) if type(value) is int else ascii(value)
        return text if len(text) < 60 else text[:57] + "..."
    return type(value).__name__


def key(value):
    """The value, if a dict or set may hold it as a key: small and with a hash that a file cannot make collide at will."""
    if type(value) not in KEYS or isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError(f"refused: {describe(value)} as a key; expected a string, bytes or a number")
    return value


def unique(values, kind=set):
    """A set (or frozenset) of plain keys."""
    if type(values) not in (list, tuple, set, frozenset):
        raise ValueError(f"a {kind.__name__} is made from {describe(values)}; expected a list")
    return kind(key(value) for value in values)


class Machine:
    """The stack, the marks and the memo of one pickle."""

    def __init__(self, known, persistent, limit):
        self.known, self.persistent, self.limit = known, persistent, limit
        self.stack, self.marks, self.memo = [], [], {}
        self.built = {}  # id -> (object, its Known): what a later BUILD may set the state of

    def run(self, stream):
        for opcode, arg, _ in pickletools.genops(stream):
            name = opcode.name
            if name in LITERALS:
                self.push(arg)
            elif name in CONSTANTS:
                self.push(CONSTANTS[name])
            elif name in IGNORED:
                continue
            elif name == "STOP":
                return self.pop()
            elif (do := getattr(self, f"do_{name}", None)) is not None:
                do(arg)
            else:
                raise ValueError(f"refused: opcode {name}" + (f" of {describe(arg)}" if arg is not None else ""))
        raise ValueError("the pickle has no end")

    def push(self, value):
        self.stack.append(value)

    def pop(self):
        if not self.stack:
            raise ValueError("the pickle takes from an empty stack")
        return self.stack.pop()

    def top(self, kind):
        if not self.stack or type(self.stack[-1]) is not kind:
            found = describe(self.stack[-1]) if self.stack else "nothing"
            raise ValueError(f"the pickle adds items to {found}; expected a {kind.__name__}")
        return self.stack[-1]

    def items(self):
        """What was pushed since the last mark."""
        if not self.marks:
            raise ValueError("the pickle takes from an empty stack")
        found, self.stack = self.stack, self.marks.pop()
        return found

    def name(self, module, name):
        full = f"{module}.{name}"
        if full not in self.known:
            raise ValueError(f"refused: {ascii(full)[1:-1]}")
        self.push(self.known[full])

    def spend(self, args):
        """Counts what a call may copy, so that calls on one memoised value cannot add up to more than the file could hold."""
        self.limit -= sum(len(arg) for arg in args if isinstance(arg, (str, bytes, tuple, list, dict, set, frozenset)))
        if self.limit < 0:
            raise ValueError("the pickle makes more from its shared values than the file could hold")

    def call(self, arg=None):
        args, function = self.pop(), self.pop()
        if not isinstance(function, Known) or function.make is None:
            raise ValueError(f"refused: a call of {describe(function)}")
        if type(args) is not tuple:
            raise ValueError(f"{function.name} is called with {describe(args)}; expected a tuple")
        self.spend(args)
        try:
            made = function.make(*args)
        except (TypeError, OverflowError) as error:
            raise ValueError(f"{function.name} is called with bad arguments ({', '.join(map(describe, args[:8]))})") from error
        if function.build is not None:
            self.built[id(made)] = made, function
        self.push(made)

    do_REDUCE = do_NEWOBJ = call

    def do_BUILD(self, _):
        state, target = self.pop(), self.stack[-1] if self.stack else None
        made, function = self.built.get(id(target), (None, None))
        if function is None or made is not target:
            raise ValueError(f"refused: setting the state of {describe(target)}")
        self.spend((state, *state) if type(state) is tuple else (state,))
        function.build(made, state)

    def do_GLOBAL(self, arg):
        self.name(*arg.split(" ", 1))

    def do_STACK_GLOBAL(self, _):
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise ValueError(f"refused: {describe(module)}.{describe(name)} as a name")
        self.name(module, name)

    def do_BINPERSID(self, _):
        pid = self.pop()
        if self.persistent is None:
            raise ValueError(f"refused: persistent id {describe(pid)}")
        self.push(self.persistent(pid))

    def do_MARK(self, _):
        self.marks.append(self.stack)
        self.stack = []

    def do_EMPTY_DICT(self, _):
        self.push({})

    def do_EMPTY_LIST(self, _):
        self.push([])

    def do_EMPTY_SET(self, _):
        self.push(set())

    def do_FROZENSET(self, _):
        self.push(unique(self.items(), frozenset))

    def do_TUPLE(self, _):
        self.push(tuple(self.items()))

    def do_TUPLE1(self, _):
        self.push((self.pop(),))

    def do_TUPLE2(self, _):
        b, a = self.pop(), self.pop()
        self.push((a, b))

    def do_TUPLE3(self, _):
        c, b, a = self.pop(), self.pop(), self.pop()
        self.push((a, b, c))

    def do_APPEND(self, _):
        value = self.pop()
        self.top(list).append(value)

    def do_APPENDS(self, _):
        values = self.items()
        self.top(list).extend(values)

    def do_ADDITEMS(self, _):
        values = self.items()
        self.top(set).update(unique(values))

    def do_SETITEM(self, _):
        value, name = self.pop(), self.pop()
        self.top(dict)[key(name)] = value

    def do_SETITEMS(self, _):
        values = self.items()
        if len(values) % 2:
            raise ValueError("the pickle sets a key without a value")
        target = self.top(dict)
        for name, value in zip(values[::2], values[1::2], strict=True):
            target[key(name)] = value

    def do_BINPUT(self, index):
        if not self.stack:
            raise ValueError("the pickle takes from an empty stack")
        self.memo[index] = self.stack[-1]

    do_LONG_BINPUT = do_BINPUT

    def do_MEMOIZE(self, _):
        self.do_BINPUT(len(self.memo))

    def do_BINGET(self, index):
        if index not in self.memo:
            raise ValueError(f"the pickle recalls entry {index}, which it never stored")
        self.push(self.memo[index])

    do_LONG_BINGET = do_BINGET
