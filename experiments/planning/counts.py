"""FLOPs, bytes and kernels of a compiled program, loops counted by their iterations."""
import math
import re
from typing import NamedTuple

from experiments.planning import running

FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while", "conditional", "call", "async-start", "async-done",
        "async-update", "partition-id", "replica-id", "opt-barrier", "domain", "copy-done", "iota", "add-dependency"}
MOVES = FREE | {"copy", "copy-start", "transpose", "reshape", "broadcast", "slice", "dynamic-slice", "dynamic-update-slice", "concatenate", "pad", "reverse",
                "gather", "convert", "bitcast-convert", "fusion", "dot", "convolution", "custom-call", "infeed", "outfeed", "rng-get-and-update-state"}
SLOW = {"exponential", "exponential-minus-one", "log", "log-plus-one", "logistic", "tanh", "power", "sqrt", "rsqrt", "cbrt", "erf", "sine", "cosine",
        "tan", "atan2"}  # a function of one number, as several instructions of the machine
NO_WORK = {"AllocateBuffer", "Sharding", "ConcatBitcast", "SPMDFullToShardShape", "SPMDShardToFullShape"}  # custom calls that move nothing
PASSES = {"highest": 6, "high": 3}  # products of bfloat16 numbers in one product of float32 numbers on a TPU


class Work(NamedTuple):
    """What an instruction does in one execution.

    Attributes:
        name, opcode, source: its name, opcode and the operation of the traced program that it comes from.
        times: executions per step.
        dtype: of what its products multiply, or of its result.
        matmul: FLOPs of products of matrices and of convolutions.
        passes: multiplications of bfloat16 numbers that each takes on a TPU.
        vector: other arithmetic operations.
        slow: those of `SLOW`, which `vector` does not count.
        bytes: read from and written to the main memory.
        cycles: the compiler's estimate; None: it gives none.
        target: of a custom call, "": none.
        shapes: of the operands of a custom call.
    """
    name: str
    opcode: str
    source: str
    times: int
    dtype: str
    matmul: float
    passes: int
    vector: float
    slow: float
    bytes: float
    cycles: float | None
    target: str
    shapes: tuple


def count(module):
    """The `Work` of every instruction that runs by itself, in order."""
    found = []

    def visit(name, each, times, loop):
        kind = each.opcode.removesuffix("-start")
        if each.opcode in FREE or each.opcode.endswith("-done") or kind in running.COLLECTIVES:
            return
        target = re.search(r'custom_call_target="([^"]*)"', each.attributes)
        if target and target[1] in NO_WORK:
            return
        scope = module.computations[name]
        matmul, passes, dtype, vector, slow = _arithmetic(module, scope, each)
        source = re.search(r'op_name="([^"]*)"', each.attributes)
        cycles = re.search(r'"estimated_cycles":"(\d+)"', each.attributes)
        operands = tuple(shape for operand in each.operands if operand in scope for shape in scope[operand].shapes) if target else ()
        found.append(Work(each.name, each.opcode, source[1] if source else "", times, dtype, matmul, passes, vector, slow, _traffic(module, scope, each),
                          int(cycles[1]) if cycles else None, target[1] if target else "", operands))

    running.walk(module, visit)
    return found


def _arithmetic(module, scope, each):
    """(FLOPs of products, passes, their dtype, other operations, slow operations) of an instruction, the inside of a fusion included."""
    dtype = each.shapes[0].dtype if each.shapes else ""
    if each.opcode == "fusion":
        inner = module.computations[each.called("calls")]
        parts = [_arithmetic(module, inner, part) for part in inner.values()]
        products = [part for part in parts if part[0]]
        largest = max(products, key=lambda part: part[0], default=(0, 1, dtype))
        return sum(part[0] for part in parts), largest[1], largest[2], sum(part[3] for part in parts), sum(part[4] for part in parts)
    if each.opcode in ("dot", "convolution"):
        operand = scope.get(each.operands[0])
        kind = operand.shapes[0].dtype if operand else dtype
        precision = re.search(r"operand_precision=\{(\w+)", each.attributes)
        flops = _dot(scope, each) if each.opcode == "dot" else _convolution(scope, each)
        return flops, PASSES.get(precision[1], 1) if precision and kind == "f32" else 1, kind, 0, 0
    if each.opcode in ("reduce", "reduce-window", "select-and-scatter", "sort", "scatter", "map"):
        operand = scope.get(each.operands[0])
        n = operand.elements if operand else each.elements
        if each.opcode == "reduce-window":
            n = each.elements * math.prod(size for size, *_ in _window(each, 0))
        return 0, 1, dtype, n, 0
    if each.opcode in SLOW:
        return 0, 1, dtype, 0, each.elements
    return 0, 1, dtype, 0 if each.opcode in MOVES or each.opcode.endswith("-done") else each.elements, 0


def _dot(scope, each):
    left = scope[each.operands[0]].shapes[0].dims
    return 2 * each.elements * math.prod(left[i] for i in each.numbers("lhs_contracting_dims"))


def _convolution(scope, each):
    """Twice the products of a convolution whose both factors exist: padding and the holes of a dilated image are not counted."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", each.attributes)
    image, kernel = (scope[operand].shapes[0].dims for operand in each.operands[:2])
    out = each.shapes[0].dims
    spatial = [c for c in labels[3] if c.isdigit()]
    pairs = 1
    for (size, stride, low, dilation, hole), axis in zip(_window(each, len(spatial)), spatial, strict=True):
        n, places = image[labels[1].index(axis)], out[labels[3].index(axis)]
        pairs *= sum(1 for place in range(places) for tap in range(size)
                     if 0 <= (at := place * stride - low + tap * hole) <= (n - 1) * dilation and at % dilation == 0)
    groups = re.search(r"batch_group_count=(\d+)", each.attributes)
    inputs = kernel[labels[2].index("i")]
    batch = image[labels[1].index("b")] // (int(groups[1]) if groups else 1)
    return 2 * batch * out[labels[3].index("f")] * inputs * pairs


def _window(each, dims):
    """[(size, stride, padding before, dilation of the image, dilation of the window)] per spatial axis; without a window, 1 for `dims` axes."""
    found = re.search(r"window=\{([^}]*)\}", each.attributes)
    fields = dict(part.split("=") for part in found[1].split()) if found else {}
    sizes = [int(n) for n in fields.get("size", "x".join("1" * dims)).split("x") if n]
    column = lambda name, default: [int(n.split("_")[0]) for n in fields[name].split("x")] if name in fields else [default] * len(sizes)
    return list(zip(sizes, column("stride", 1), column("pad", 0), column("lhs_dilate", 1), column("rhs_dilate", 1), strict=True))


def _traffic(module, scope, each):
    """Bytes of main memory that an instruction reads and writes; a slice counts as its size, an update in place as twice the update."""
    operands = [scope[operand] for operand in each.operands if operand in scope]
    if each.opcode == "copy-start":
        given = operands[0].bytes
        return given + sum(shape.bytes for shape in each.shapes[:1])
    if each.opcode in ("slice", "dynamic-slice", "gather"):
        return 2 * each.bytes
    if each.opcode == "dynamic-update-slice":
        return 2 * operands[1].bytes
    if each.opcode == "scatter":
        return 3 * operands[-1].bytes
    if each.opcode != "fusion":
        return each.bytes + sum(operand.bytes for operand in operands)
    inner = module.computations[each.called("calls")]
    parameters = {int(part.inside): part for part in inner.values() if part.opcode == "parameter" and part.inside.isdigit()}
    return _written(inner) + sum(_read(inner, parameters[i], operand) if i in parameters else operand.bytes for i, operand in enumerate(operands))


def _written(inner):
    """Bytes of a fusion's results; of an update in place those of the update."""
    root = next((part for part in inner.values() if part.root), None)
    if root is None:
        return 0
    parts = [inner[name] for name in root.operands if name in inner] if root.opcode == "tuple" else [root]
    total = 0
    for part in parts:
        update = _behind(inner, part)
        total += inner[update.operands[1]].bytes if update.opcode == "dynamic-update-slice" and update.operands[1] in inner else part.bytes
    return total


def _read(inner, parameter, operand):
    """Bytes that a fusion reads of one operand: all, or what its slices take if nothing else uses it, or nothing if it is only updated in place."""
    users = [part for part in inner.values() if parameter.name in part.operands]
    while len(users) == 1 and users[0].opcode in ("bitcast", "convert", "copy"):
        parameter = users[0]
        users = [part for part in inner.values() if parameter.name in part.operands]
    taken = 0
    for user in users:
        if user.opcode in ("slice", "dynamic-slice", "gather") and user.operands[0] == parameter.name:
            taken += user.elements * operand.bytes / max(1, operand.elements)
        elif not (user.opcode == "dynamic-update-slice" and user.operands[0] == parameter.name):
            return operand.bytes
    return min(taken, operand.bytes)


def _behind(inner, part):
    """The instruction behind bitcasts and conversions."""
    while part.opcode in ("bitcast", "convert", "copy") and part.operands and part.operands[0] in inner:
        part = inner[part.operands[0]]
    return part
