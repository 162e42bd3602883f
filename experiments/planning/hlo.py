"""Compiled HLO text as computations of instructions: shapes with their bytes in memory."""
import math
import re
from typing import NamedTuple

SIZES = {"pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8,
         "u64": 8, "f64": 8, "c64": 8, "c128": 16}  # bytes of a number; token and opaque have none
SHAPE = re.compile(r"\b(pred|bf16|[suf]\d+|f8\w+|c64|c128)\[([\d,<=]*)\](\{[^}]*\})?")
COMPUTATION = re.compile(r"^(ENTRY\s+)?%?([\w.\-]+)\s*\(.*\)\s*->\s*.*\{\s*$")
NAMED = re.compile(r"^\s+(?:ROOT\s+)?%?([\w.\-]+)\s*=\s*")


class Shape(NamedTuple):
    """One array of a type.

    Attributes:
        dtype: HLO's name.
        dims: logical sizes.
        padded: number of elements in memory, which a layout's tiles round up.
        fast: whether it is outside the main memory, such as in a TPU's vector memory.
    """
    dtype: str
    dims: tuple
    padded: int
    fast: bool

    @property
    def elements(self):
        return math.prod(self.dims)

    @property
    def payload(self):
        """Bytes without padding."""
        return self.elements * SIZES.get(self.dtype, 1)

    @property
    def bytes(self):
        """Bytes in the main memory, padding included."""
        return 0 if self.fast else self.padded * SIZES.get(self.dtype, 1)


class Instruction(NamedTuple):
    """One line: `name = shapes opcode(inside), attributes`; `operands` are the names inside the parentheses."""
    name: str
    shapes: tuple
    opcode: str
    operands: tuple
    inside: str
    attributes: str
    root: bool

    @property
    def bytes(self):
        return sum(shape.bytes for shape in self.shapes)

    @property
    def elements(self):
        return sum(shape.elements for shape in self.shapes)

    def called(self, attribute):
        """Name of the computation in an attribute such as body=%name; None: absent."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found and found[1]

    def numbers(self, attribute):
        """The numbers of an attribute such as lhs_contracting_dims={1,2}; (): absent."""
        found = re.search(rf"\b{attribute}=\{{([\d,]*)\}}", self.attributes)
        return tuple(int(n) for n in found[1].split(",") if n) if found else ()


class Module(NamedTuple):
    """Attributes: computations: {name: {instruction's name: Instruction}, in order}; entry: name of the main one."""
    computations: dict
    entry: str


def parse(text):
    """The `Module` of compiled HLO text. ValueError: the text has no entry computation."""
    computations, entry, current = {}, None, None
    for line in text.splitlines():
        if current is None:
            if not line.startswith((" ", "}", "HloModule")) and (found := COMPUTATION.match(line)):
                current = computations[found[2]] = {}
                entry = found[2] if found[1] else entry
        elif line.startswith("}"):
            current = None
        elif (made := _instruction(line)) is not None:
            current[made.name] = made
    if entry is None:
        raise ValueError(f"HLO text of {len(text)} characters: expected a computation that begins with ENTRY")
    return Module(computations, entry)


def _instruction(line):
    found = NAMED.match(line)
    if found is None:
        return None
    rest = line[found.end():]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.find(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    begin = rest.find("(")
    close = _closing(rest, begin)
    return Instruction(found[1], tuple(shapes(kind)), rest[:begin], tuple(re.findall(r"%([\w.\-]+)", rest[begin:close])), rest[begin + 1:close],
                       rest[close + 1:], line.lstrip().startswith("ROOT"))


def _closing(text, begin):
    """Index of the parenthesis that closes the one at `begin`."""
    depth = 0
    for at in range(begin, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return at
    raise ValueError(f"HLO text {text[:80]!r}: expected a closing parenthesis")


def shapes(kind):
    """The arrays of a type, which may be a tuple."""
    for dtype, dims, layout in SHAPE.findall(re.sub(r"/\*.*?\*/", "", kind)):
        sizes = tuple(int(n.lstrip("<=")) for n in dims.split(",") if n)
        yield Shape(dtype, sizes, _padded(sizes, layout), bool(re.search(r"S\([1-9]\)", layout)))


def _padded(sizes, layout):
    """Elements in memory: the first tile of a layout such as {1,0:T(8,128)(2,1)} rounds up the dimensions that change fastest."""
    order, tile = re.match(r"\{([\d,]*)", layout), re.search(r":[^}]*?T\(([\d,]+)\)", layout)
    if not (order and tile):
        return math.prod(sizes)
    minor = [int(n) for n in order[1].split(",") if n]
    tiles = [int(n) for n in tile[1].split(",")][::-1]
    padded = list(sizes)
    for dim, size in zip(minor, tiles, strict=False):
        padded[dim] = -(-padded[dim] // size) * size
    return math.prod(padded)
