"""What runs in a compiled program: its instructions with their number of executions, its loops, its collectives."""
import re
from typing import NamedTuple

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
PASSING = ("copy", "bitcast", "convert", "reshape", "copy-done", "copy-start")  # do not change a number


class Collective(NamedTuple):
    """One collective of a program.

    Attributes:
        kind: one of `COLLECTIVES`.
        bytes: of the arrays that a device gives, without padding, at one execution.
        dtypes: their dtypes, sorted.
        loop: name of the innermost loop around it; "": none.
        times: executions per step.
        group: devices that take part; 0: all.
        source: name of the operation in the traced program.
    """
    kind: str
    bytes: int
    dtypes: tuple
    loop: str
    times: int
    group: int
    source: str


def trips(module, loop, scope):
    """Iterations of a `while` instruction; None: unknown, as of a loop that ends by what it computes.

    The compiler's own count if the text has it. Else that of a counter which begins at a constant, grows by one, and is compared with a constant.

    Args:
        module: `Module`.
        loop: the instruction.
        scope: instructions of its computation.
    """
    if known := re.search(r'known_trip_count\D+?(\d+)', loop.attributes):
        return int(known[1])
    condition, body = (module.computations.get(loop.called(name), {}) for name in ("condition", "body"))
    test, inner, outer = _compared(module, condition)
    if test is None:
        return None
    sides = [_origin(inner, name, outer) for name in test.operands]
    direction = re.search(r"direction=(\w+)", test.attributes)[1]
    if [kind for kind, _ in sides] != ["index", "constant"] or direction not in ("LT", "LE"):
        return None
    (_, counter), (_, limit) = sides
    begin, root = scope.get(loop.operands[0]), _root(body)
    if begin is None or begin.opcode != "tuple" or root is None or root.opcode != "tuple":
        return None
    kind, start = _origin(scope, begin.operands[counter])
    if kind != "constant" or not _grows_by_one(module, body, root.operands[counter], counter):
        return None
    return max(0, limit - start + (direction == "LE"))


def _root(computation):
    return next((each for each in computation.values() if each.root), None)


def _compared(module, condition):
    """(the comparison that a condition returns, the computation it is in, the condition and operands of the fusion around it or None)."""
    root = _root(condition)
    while root is not None and root.opcode in PASSING and root.operands[0] in condition:
        root = condition[root.operands[0]]
    if root is None or root.opcode == "compare":
        return root, condition, None
    if root.opcode == "fusion" and (inner := module.computations[root.called("calls")]) and _root(inner).opcode == "compare":
        return _root(inner), inner, (condition, root.operands)
    return None, condition, None


def _origin(scope, name, outer=None):
    """("constant", its value), ("index", element of the loop's tuple) or ("", 0) for anything else, behind copies.

    Args:
        scope: computation of the instruction `name`.
        outer: (computation, operands) of the fusion that calls `scope`; None: none does.
    """
    each = scope.get(name)
    while each is not None and each.opcode in PASSING:
        each = scope.get(each.operands[0])
    if each is None:
        return "", 0
    if each.opcode == "constant" and re.fullmatch(r"-?\d+", each.inside):
        return "constant", int(each.inside)
    if each.opcode == "get-tuple-element":
        return "index", int(re.search(r"index=(\d+)", each.attributes)[1])
    if each.opcode == "parameter" and outer is not None:
        return _origin(outer[0], outer[1][int(each.inside)])
    return "", 0


def _grows_by_one(module, body, name, counter):
    """Whether an element of a loop's result is its element `counter` plus 1."""
    each, scope, outer = body.get(name), body, None
    while each is not None and each.opcode in PASSING:
        each = body.get(each.operands[0])
    if each is not None and each.opcode == "fusion":
        scope, outer = module.computations[each.called("calls")], (body, each.operands)
        each = _root(scope)
    return each is not None and each.opcode == "add" and sorted(_origin(scope, operand, outer) for operand in each.operands) == [("constant", 1), ("index", counter)]


def walk(module, visit, computation=None, times=1, loop=""):
    """Calls `visit(computation's name, instruction, executions per step, name of the innermost loop)` for every instruction that runs by itself.

    A fusion counts as one instruction. Loops of unknown length count as one iteration, and of a conditional only the longest branch runs.
    """
    name = computation or module.entry
    for each in module.computations[name].values():
        visit(name, each, times, loop)
        if each.opcode == "while":
            n = trips(module, each, module.computations[name])
            walk(module, visit, each.called("body"), times * (1 if n is None else n), each.name)
        elif each.opcode == "conditional":
            named = re.findall(r"branch_computations=\{[^}]*\}|(?:true|false)_computation=%[\w.\-]+", each.attributes)
            branches = re.findall(r"%([\w.\-]+)", " ".join(named))
            if branches:
                walk(module, visit, max(branches, key=lambda branch: _length(module, branch)), times, loop)
        elif each.opcode in ("call", "async-start") and (inner := each.called("to_apply") or each.called("calls")):
            walk(module, visit, inner, times, loop)


def _length(module, name):
    """Bytes that the instructions of a computation write."""
    return sum(each.bytes for each in module.computations[name].values())


def loops(module):
    """[(name, iterations or None)] of all loops that run."""
    found = []

    def visit(name, each, times, loop):
        if each.opcode == "while":
            found.append((each.name, trips(module, each, module.computations[name])))

    walk(module, visit)
    return found


def collectives(module):
    """The `Collective`s of a program, in order; those inside fusions too, and one that is split over several instructions once."""
    found, channels = [], set()

    def visit(name, each, times, loop):
        if each.opcode == "fusion" and (inner := each.called("calls")):
            for part in module.computations[inner].values():
                visit(inner, part, times, loop)
        kind = each.opcode.removesuffix("-start")
        if kind not in COLLECTIVES:
            return
        channel = re.search(r"channel_id=(\d+)", each.attributes)
        if channel and (channel[1], loop) in channels:
            return
        channels.add((channel and channel[1], loop))
        operands = [module.computations[name][operand] for operand in each.operands if operand in module.computations[name]]
        given = [shape for operand in operands for shape in operand.shapes]
        source = re.search(r'op_name="([^"]*)"', each.attributes)
        found.append(Collective(kind, int(sum(shape.payload for shape in given)), tuple(sorted({shape.dtype for shape in given})), loop, times,
                                _group(each.attributes), source[1] if source else ""))

    walk(module, visit)
    return found


def _group(attributes):
    """Devices of a group, from replica_groups={{0,1},{2,3}} or [2,2]<=[4]; 0: all devices, or pairs."""
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]", attributes):
        return int(found[2])
    if (found := re.search(r"replica_groups=\{\{([\d,]*)\}", attributes)) and found[1]:
        return len(found[1].split(","))
    return 0
