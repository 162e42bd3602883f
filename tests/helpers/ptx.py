"""PTX of a GPU kernel executed on a CPU: every thread of every program in step, as arrays of numpy.

It serves kernels whose branches are the same for all threads. It raises `Fault` for accesses beyond an array or not aligned, registers and
shared memory that nothing wrote, two warps that touch a word of shared memory without a barrier between them, an output number that is
written twice with different values, and 32-bit products that overflow. It does not model caches, the order of memory within a warp, rounding
of approximate instructions, or time.
"""
import collections
import re
from typing import NamedTuple

import numpy as np

from tests.helpers.ptx_memory import SHARED, Fault, SharedMemory

LANES, THREADS = 32, 128
SPACE = np.uint64(40)          # bits of an address within one array; the bits above are the array's number
UNWRITTEN = 0xFF               # every byte of an output before it is written: NaN
UNSIGNED = {1: np.bool_, 2: np.uint16, 4: np.uint32, 8: np.uint64}
DTYPES = {"f32": np.float32, "b16": np.uint16, "u16": np.uint16, "b32": np.uint32, "u32": np.uint32, "s32": np.int32, "b64": np.uint64,
          "u64": np.uint64, "s64": np.int64, "pred": np.bool_}
COMPARE = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}


class Instruction(NamedTuple):
    """One line of PTX; guard: (predicate, wanted value) or None."""
    guard: tuple | None
    parts: tuple         # of the operation's name
    operands: tuple


class Program(NamedTuple):
    """A kernel: its instructions, the position of each label, and the number of its parameters."""
    instructions: list
    labels: dict
    parameters: int


def parse(text):
    """The `Program` of a file with one kernel, without loads of registers that nothing uses: the assembler drops them too."""
    text = re.sub(r"//[^\n]*", "", text)
    body = text[text.index("{", text.index(".entry")):]
    instructions, labels, uses = [], {}, collections.Counter(re.findall(r"%\w+", body))
    for line in body.splitlines():
        line = line.strip()
        if match := re.fullmatch(r"(\$\w+):", line):
            labels[match[1]] = len(instructions)
        elif match := re.fullmatch(r"(?:@(!?)(%p\d+)\s+)?([a-z][\w.:]*)\s*(.*?)\s*;", line):
            negated, predicate, name, rest = match.groups()
            operands = tuple(re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^\s,{}\[\]]+", rest))
            if name.startswith("ld") and all(uses[register] == 1 for register in re.findall(r"%\w+", operands[0])):
                continue
            instructions.append(Instruction((predicate, not negated) if predicate else None, tuple(name.split(".")), operands))
        elif line and line not in "{}" and line[0] != "." and not line.startswith("$"):
            raise Fault(f"line of PTX {line!r}: expected an instruction or a label")
    return Program(instructions, labels, len(re.findall(r"\.param \.u64", text)))


class Machine:
    """All threads of a launch."""

    def __init__(self, program, inputs, outputs, order, programs, shared):
        """inputs, outputs: arrays, of which the kernel's parameters are those of `order`; shared: bytes of each program."""
        self.program, self.arrays = program, [*inputs, *outputs]
        self.first_output = len(inputs)
        for x in outputs:
            x.reshape(-1).view(np.uint8)[:] = UNWRITTEN
        self.parameters = [np.uint64(i + 1) << SPACE for i in order]
        thread = np.arange(programs * THREADS)
        self.of_program, self.warp, self.lane = thread // THREADS, thread % THREADS // LANES, thread % LANES
        self.shared = SharedMemory(programs, shared)
        as_word = lambda x: np.asarray(x, np.uint32)
        self.registers = {"%tid.x": as_word(thread % THREADS), "%ctaid.x": as_word(self.of_program), "__dynamic_shmem__0": np.uint64(SHARED)}

    def run(self):
        """Execute to the end. Returns the number of instructions that a warp executed."""
        at = executed = 0
        with np.errstate(all="ignore"):
            while at < len(self.program.instructions):
                instruction = self.program.instructions[at]
                at, executed = at + 1, executed + 1
                active = None
                if instruction.guard:
                    predicate, wanted = instruction.guard
                    active = np.broadcast_to(self.value(predicate, np.bool_) == wanted, self.lane.shape)
                    if not active.any():
                        continue
                    active = None if active.all() else active
                name = instruction.parts[0]
                if name in ("bra", "ret", "bar") and active is not None:
                    raise Fault(f"{name}: expected all threads to take it")
                if name == "ret":
                    break
                if name == "bra":
                    at = self.program.labels[instruction.operands[0]]
                else:
                    try:
                        self.execute(instruction, active)
                    except Fault as fault:
                        raise Fault(f"{'.'.join(instruction.parts)} {', '.join(instruction.operands)}: {fault}") from fault
        return executed

    # ---- registers

    def value(self, operand, dtype):
        """An operand as an array or number of this type."""
        size = np.dtype(dtype).itemsize
        if operand in self.registers:
            x = self.registers[operand]
            if x.dtype.itemsize != size:
                raise Fault(f"{operand}: expected {8 * size} bits, got {8 * x.dtype.itemsize}")
        elif operand.startswith("0f"):
            x = np.uint32(int.from_bytes(bytes.fromhex(operand[2:]), "big"))
        elif re.fullmatch(r"-?\d+|0x[0-9A-Fa-f]+", operand):
            x = UNSIGNED[size](int(operand, 0) % (1 << 8 * size) if dtype is not np.bool_ else int(operand, 0) != 0)
        else:
            raise Fault(f"{operand}: expected a register with a value")
        return x.view(dtype)

    def put(self, register, x, active):
        """Set a register of the active threads."""
        x = np.asarray(x)
        x = x.view(UNSIGNED[x.dtype.itemsize])
        if active is not None:
            x = np.where(active, x, self.registers.get(register, np.zeros((), x.dtype)))
        self.registers[register] = x

    def address(self, operand):
        """Addresses [register + offset] of all threads."""
        register, _, offset = operand.strip("[]").partition("+")
        address = self.value(register, np.uint64) + np.uint64(int(offset or 0) % 2**64)
        return np.broadcast_to(address, self.lane.shape)

    # ---- instructions

    def execute(self, instruction, active):
        """One instruction that is no branch."""
        parts, operands = instruction.parts, instruction.operands
        name, kind = parts[0], parts[-1]
        if name == "ld" and parts[1].startswith("param"):
            number = int(re.search(r"_param_(\d+)", operands[1])[1])
            self.put(operands[0], self.parameters[number], active)
        elif name in ("ld", "st"):
            self.memory(instruction, active)
        elif name in ("ldmatrix", "stmatrix"):
            self.matrix(instruction)
        elif name == "bar":
            self.shared.epoch += 1
        elif name in ("fence", "membar"):
            pass
        elif name == "cvta":
            self.put(operands[0], self.value(operands[1], np.uint64), active)
        elif name == "elect":
            register, predicate = operands[0].split("|")
            self.put(register, np.uint32(0), active)
            self.put(predicate, self.lane == 0, active)
        elif name == "shfl":
            x = np.broadcast_to(self.value(operands[1], np.uint32), self.lane.shape).reshape(-1, LANES)
            by = np.broadcast_to(self.value(operands[2], np.uint32), self.lane.shape).reshape(-1, LANES).astype(np.int64)
            source = {"bfly": np.arange(LANES) ^ by, "idx": by % LANES}[parts[2]]
            self.put(operands[0].split("|")[0], np.take_along_axis(x, source, 1).reshape(-1), active)
        elif name == "setp":
            self.put(operands[0], COMPARE[parts[1]](*(self.value(x, DTYPES[kind]) for x in operands[1:])), active)
        elif name == "selp":
            a, b = (self.value(x, DTYPES[kind]) for x in operands[1:3])
            self.put(operands[0], np.where(self.value(operands[3], np.bool_), a, b), active)
        elif name == "cvt":
            self.put(operands[0], convert(parts, lambda dtype: self.value(operands[1], dtype)), active)
        else:
            self.put(operands[0], self.arithmetic(parts, operands[1:]), active)

    def arithmetic(self, parts, operands):
        """Result of an arithmetic or logical instruction."""
        name, dtype = parts[0], DTYPES[parts[-1]]
        if name in ("shl", "shr"):
            x, by = self.value(operands[0], dtype), self.value(operands[1], np.uint32).astype(dtype)
            return x << by if name == "shl" else x >> by
        if name == "bfe":
            x, first, count = (self.value(operand, np.uint32) for operand in operands)
            return (x >> first) & np.uint32((1 << int(count)) - 1)
        x = [self.value(operand, dtype) for operand in operands]
        if dtype is np.float32:
            return floating(parts, x).astype(np.float32)
        if name in ("mul", "mad"):
            wide = np.int64 if dtype in (np.int32, np.int64) else np.uint64
            product = x[0].astype(wide) * x[1].astype(wide)
            if parts[1] == "wide":
                return product if np.dtype(dtype).itemsize > 2 else product.astype(np.uint32)
            if (product.astype(dtype).astype(wide) != product).any():
                raise Fault(f"{'.'.join(parts)}: a product exceeds {np.dtype(dtype)}")
            return (product + (x[2] if name == "mad" else 0)).astype(dtype)
        plain = {"mov": lambda a: a, "add": np.add, "sub": np.subtract, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
                 "not": np.invert, "neg": np.negative, "min": np.minimum, "max": np.maximum}
        if name not in plain:
            raise Fault(f"{'.'.join(parts)}: not a known instruction")
        return plain[name](*x).astype(dtype)

    def memory(self, instruction, active):
        """Loads and stores of one or several registers."""
        parts, operands = instruction.parts, instruction.operands
        load = parts[0] == "ld"
        place, registers = (operands[1], operands[0]) if load else operands
        registers, dtype = re.findall(r"[^\s,{}]+", registers), UNSIGNED[np.dtype(DTYPES[parts[-1]]).itemsize]
        threads = slice(None) if active is None else np.flatnonzero(active)
        size = np.dtype(dtype).itemsize
        address = self.address(place)[threads]
        if (address % np.uint64(size * len(registers))).any():
            raise Fault(f"{'.'.join(parts)}: an address is not a multiple of {size * len(registers)} bytes")
        for k, register in enumerate(registers):
            at = address + np.uint64(k * size)
            value = None if load else np.broadcast_to(self.value(register, dtype), self.lane.shape)[threads]
            if "shared" in parts:
                where = at, self.of_program[threads], self.warp[threads]
                if dtype is not np.uint32:
                    raise Fault(f"{'.'.join(parts)}: expected words of 32 bits in shared memory")
                value = self.shared.read(*where) if load else self.shared.write(*where, value)
            else:
                value = self.global_memory(at, dtype, value)
            if load:
                whole = np.zeros(self.lane.shape, dtype)
                whole[threads] = value
                self.put(register, whole, active)

    def global_memory(self, address, dtype, value):
        """Numbers at addresses of one array, or their store if `value` is not None."""
        number, size = int(address[0] >> SPACE), np.dtype(dtype).itemsize
        if not 1 <= number <= len(self.arrays) or (address >> SPACE != number).any():
            raise Fault(f"address {int(address[0]):#x}: expected one of the kernel's arrays")
        flat = self.arrays[number - 1].reshape(-1).view(dtype)
        at = (address & np.uint64((1 << int(SPACE)) - 1)).astype(np.int64) // size
        if (at >= flat.size).any():
            raise Fault(f"array {number - 1}: place {at.max()} of {flat.size}")
        if value is None:
            return flat[at]
        if number - 1 < self.first_output:
            raise Fault(f"array {number - 1}: an input was written")
        if ((flat[at] != dtype(2**(8 * size) - 1)) & (flat[at] != value)).any():
            raise Fault(f"array {number - 1}: a number was written twice with different values")
        flat[at] = value
        if (flat[at] != value).any():
            raise Fault(f"array {number - 1}: two threads wrote different values to a number")
        return None

    def matrix(self, instruction):
        """ldmatrix and stmatrix of 8 x 8 halves: lane l holds the word l % 4 of the row whose address lane l / 4 gives."""
        load = instruction.parts[0] == "ldmatrix"
        place, registers = instruction.operands[::-1] if load else instruction.operands
        address = self.address(place).reshape(-1, LANES)
        if (address % np.uint64(16)).any():
            raise Fault("matrix: a row is not a multiple of 16 bytes")
        lanes = np.arange(LANES)
        for k, register in enumerate(re.findall(r"%\w+", registers)):
            where = (address[:, 8 * k + lanes // 4] + (4 * (lanes % 4)).astype(np.uint64)).reshape(-1), self.of_program, self.warp
            if load:
                self.put(register, self.shared.read(*where), None)
            else:
                self.shared.write(*where, np.broadcast_to(self.value(register, np.uint32), self.lane.shape))


def floating(parts, x):
    """Result of a float32 instruction; approximate ones are exact here."""
    name, wide = parts[0], [a.astype(np.float64) for a in x]
    if name in ("min", "max"):
        exact = "NaN" in parts
        return {("min", True): np.minimum, ("min", False): np.fmin, ("max", True): np.maximum, ("max", False): np.fmax}[name, exact](*x)
    if name == "ex2":
        y = np.exp2(wide[0]).astype(np.float32)
        return np.where(np.abs(y) < np.finfo(np.float32).tiny, np.float32(0), y)
    if name == "fma" and "rn" in parts:
        return wide[0] * wide[1] + wide[2]
    plain = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative, "abs": np.abs, "mov": np.positive,
             "rcp": np.reciprocal, "lg2": np.log2, "tanh": np.tanh, "sqrt": np.sqrt}
    if name not in plain:
        raise Fault(f"{'.'.join(parts)}: not a known instruction")
    return plain[name](*wide)


def convert(parts, value):
    """Result of a cvt instruction; value: type -> the operand."""
    if parts[1:] == ("f32", "bf16"):
        return (value(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    if parts[1:] == ("f32", "f16"):
        return value(np.uint16).view(np.float16).astype(np.float32)
    if parts[1:] == ("rn", "f16", "f32"):
        return value(np.float32).astype(np.float16)
    if parts[1:] == ("rn", "bf16", "f32"):
        x = value(np.float32)
        word = x.view(np.uint32).astype(np.uint64)
        rounded = ((word + np.uint64(0x7FFF) + ((word >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)).astype(np.uint16)
        return np.where(np.isnan(x), np.uint16(0x7FFF), rounded)
    *rounding, to, source = parts[1:]
    if to in DTYPES and source in DTYPES and not (source == "f32" and rounding):
        return value(DTYPES[source]).astype(DTYPES[to])
    raise Fault(f"{'.'.join(parts)}: not a known conversion")
