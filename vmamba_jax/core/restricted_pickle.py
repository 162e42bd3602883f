"""A pickle interpreter that runs no code: containers, numbers, strings and an allow-list of calls.

`pickletools` decodes the opcodes. The interpreter executes the opcodes that build containers, numbers and strings, and calls only
entries of the allow-list. It raises on every other opcode and every other global, so a file can neither run code nor return a tree that a
later traversal cannot finish because of self-reference, nesting or sharing. It counts the memory of what it builds before building it, and
raises beyond `limits.memory` of the file's size. An empty set reads as one and the same empty frozenset: 2**20 sets in a file of one
megabyte would take 216 megabytes.
"""
import dataclasses
import pickletools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from vmamba_jax.core import limits

NO_ITEMS = frozenset()
MAX_DEPTH = 100  # nested containers
MIN_NODES = 10_000  # values that any pickle may unfold to, besides eight per byte of the file
MAX_OPCODES = 2_000_000  # of one pickle, executed in two seconds; a checkpoint of 1000 tensors has 30,000
POINTER = 16  # bytes for an item of a list or of the stack, while it grows
CONTAINER = 280  # bytes for a list or tuple, and for its entry in `check`
ITEM = 120  # bytes for an entry of a dict, set or of the memo, while it grows
COSTS = {"EMPTY_LIST": CONTAINER, "LIST": CONTAINER, "EMPTY_DICT": CONTAINER, "DICT": CONTAINER + ITEM, "TUPLE": CONTAINER, "TUPLE1": CONTAINER,
         "TUPLE2": CONTAINER, "TUPLE3": CONTAINER, "MARK": 100, "SETITEM": 2 * ITEM, "BINPUT": ITEM, "LONG_BINPUT": ITEM, "PUT": ITEM, "MEMOIZE": ITEM,
         "REDUCE": CONTAINER, "NEWOBJ": CONTAINER, "BINPERSID": CONTAINER, "FROZENSET": CONTAINER, "ADDITEMS": CONTAINER, "SETITEMS": 2 * ITEM}
KEYS = (str, bytes, int, float, bool, type(None))
LEAVES = (*KEYS, complex, np.ndarray)

CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING",
            "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
            "INT", "LONG", "FLOAT", "UNICODE"}  # the last four are the text forms of protocol 0
EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
IGNORED = {"PROTO", "FRAME"}
SIZED = (str, bytes, bytearray, tuple, list, dict, set, frozenset)


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


def load(stream, allowed: dict[str, Any], persistent=None, size=0):
    """The tree of one pickle: dict, list, tuple, set, numbers, strings, bytes, None and NumPy arrays.

    Args:
        stream: binary file at the start of the pickle; left right behind it. Its `read(n)` must not allocate memory for bytes that the file
            does not have, see `BoundedReader`.
        allowed: {"module.name": AllowedGlobal, or a plain value that replaces the global}.
        persistent: function from a persistent id to its value; None: persistent ids are refused.
        size: bytes of the file; bounds what shared containers may unfold to.

    Raises:
        ValueError: a damaged pickle, or an opcode, global or structure that is refused, by name.
    """
    limit = MIN_NODES + 8 * size
    tree = Interpreter(allowed, persistent, limit, limits.memory(size)).run(stream)
    check(tree, limit)
    return tree


def opcodes(stream):
    """(opcode, argument) after one another, as `pickletools.genops`, which would warn about the escapes of a STRING that is refused anyway."""
    while code := stream.read(1):
        opcode = pickletools.code2op.get(code.decode("latin1"))
        if opcode is None or opcode.name == "STRING":
            raise ValueError(f"refused: opcode {opcode.name if opcode else ascii(code)}")
        yield opcode, opcode.arg.reader(stream) if opcode.arg else None


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


class Interpreter:
    """The stack, the marks and the memo of one pickle; the method `do_NAME(argument)` executes the opcode NAME."""

    def __init__(self, allowed, persistent, limit, memory):
        self.allowed, self.persistent, self.limit, self.memory = allowed, persistent, limit, memory
        self.stack, self.marks, self.memo = [], [], {}
        self.built = {}  # id -> (object, its AllowedGlobal), of the objects whose state a later BUILD may set
        self.empty_sets = []  # the memo's entries for the last empty set

    def run(self, stream):
        for count, (opcode, arg) in enumerate(opcodes(stream)):
            name = opcode.name
            self.take(COSTS.get(name, POINTER))
            if count == MAX_OPCODES:
                raise ValueError(f"the pickle has more than {MAX_OPCODES} opcodes")
            if name in LITERALS:
                self.take(sys.getsizeof(arg))
                self.push(arg)
            elif name in CONSTANTS:
                self.push(CONSTANTS[name])
            elif name in EMPTY:
                self.push(EMPTY[name]())
            elif name in TUPLES:
                self.push(tuple([self.pop() for _ in range(TUPLES[name])][::-1]))
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

    def take(self, memory):
        """Count bytes of memory that an opcode takes."""
        self.memory -= memory
        if self.memory < 0:
            raise ValueError("the pickle makes objects of more memory than the size of the file allows")

    def items(self, cost=POINTER):
        """The values pushed since the last mark, each of which takes `cost` bytes in its new container."""
        if not self.marks:
            raise ValueError("the pickle takes from an empty stack")
        found, self.stack = self.stack, self.marks.pop()
        self.take(cost * len(found))
        return found

    def pairs(self):
        """The values pushed since the last mark, as (checked key, value)."""
        values = self.items(ITEM)
        if len(values) % 2:
            raise ValueError("the pickle sets a key without a value")
        return [(key(name), value) for name, value in zip(values[::2], values[1::2], strict=True)]

    def push_global(self, module, name):
        full = f"{module}.{name}"
        if full not in self.allowed:
            raise ValueError(f"refused: {ascii(full)[1:-1]}")
        self.push(self.allowed[full])

    def charge(self, args):
        """Count what a call may copy, so that calls on one memoized value cannot add up to more than the file could hold."""
        copied = sum(len(arg) for arg in args if isinstance(arg, SIZED))
        self.limit -= copied
        self.take(copied + ITEM * sum(len(arg) for arg in args if type(arg) in (tuple, list, dict, set, frozenset)))
        if self.limit < 0:
            raise ValueError("the pickle makes more from its shared values than the file could hold")

    def call(self, arg=None):
        args, function = self.pop(), self.pop()
        if not isinstance(function, AllowedGlobal) or function.call is None:
            raise ValueError(f"refused: a call of {describe(function)}")
        if type(args) is not tuple:
            raise ValueError(f"{function.name} is called with {describe(args)}; expected a tuple")
        self.charge(args)
        try:
            made = function.call(*args)
        except (TypeError, OverflowError) as error:
            raise ValueError(f"{function.name} is called with bad arguments ({', '.join(map(describe, args[:8]))})") from error
        if function.set_state is not None:
            self.built[id(made)] = made, function
        self.push(made)

    do_REDUCE = do_NEWOBJ = call

    def do_BUILD(self, _):
        state, target = self.pop(), self.stack[-1] if self.stack else None
        made, function = self.built.get(id(target), (None, None))
        if function is None or made is not target:
            raise ValueError(f"refused: setting the state of {describe(target)}")
        self.charge((state, *state) if type(state) is tuple else (state,))
        function.set_state(made, state)

    def do_GLOBAL(self, arg):
        self.push_global(*arg.split(" ", 1))

    def do_STACK_GLOBAL(self, _):
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise ValueError(f"refused: {describe(module)}.{describe(name)} as a name")
        self.push_global(module, name)

    def do_BINPERSID(self, _):
        pid = self.pop()
        if self.persistent is None:
            raise ValueError(f"refused: persistent id {describe(pid)}")
        self.push(self.persistent(pid))

    def do_MARK(self, _):
        self.marks.append(self.stack)
        self.stack = []

    def do_EMPTY_SET(self, _):
        self.empty_sets = []
        self.push(NO_ITEMS)

    def do_DICT(self, _):
        self.push(dict(self.pairs()))

    def do_LIST(self, _):
        self.push(self.items())

    def do_FROZENSET(self, _):
        self.push(unique(self.items(ITEM), frozenset))

    def do_TUPLE(self, _):
        self.push(tuple(self.items()))

    def do_APPEND(self, _):
        value = self.pop()
        self.top(list).append(value)

    def do_APPENDS(self, _):
        values = self.items()
        self.top(list).extend(values)

    def do_ADDITEMS(self, _):
        values = self.items(ITEM)
        if values and self.stack and self.stack[-1] is NO_ITEMS:  # pickle writes the items right after EMPTY_SET
            self.stack[-1] = made = set()
            self.memo |= dict.fromkeys(self.empty_sets, made)
        if values:
            self.top(set).update(unique(values))

    def do_SETITEM(self, _):
        value, name = self.pop(), self.pop()
        self.top(dict)[key(name)] = value

    def do_SETITEMS(self, _):
        pairs = self.pairs()
        self.top(dict).update(pairs)

    def do_BINPUT(self, index):
        if not self.stack:
            raise ValueError("the pickle takes from an empty stack")
        self.memo[index] = value = self.stack[-1]
        if value is NO_ITEMS:
            self.empty_sets.append(index)

    do_PUT = do_LONG_BINPUT = do_BINPUT

    def do_MEMOIZE(self, _):
        self.do_BINPUT(len(self.memo))

    def do_BINGET(self, index):
        if index not in self.memo:
            raise ValueError(f"the pickle recalls entry {index}, which it never stored")
        self.push(self.memo[index])

    do_GET = do_LONG_BINGET = do_BINGET
