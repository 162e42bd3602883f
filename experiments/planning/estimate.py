"""Time of a step from the counts of its program and the figures of a chip."""
from typing import NamedTuple

from experiments.planning import running


class Estimate(NamedTuple):
    """Seconds of one step.

    Attributes:
        compute: of all matrix products at the chip's peak, and of vector operations where their rate is known.
        memory: of all bytes at the memory's bandwidth.
        network: of all collectives, one after the other.
        kernels: of Pallas kernels, by the cycles of their compiled schedules; 0: none, or not known.
        step: sum over the instructions of the longer of compute and memory, plus kernels and network: no overlap of the network is assumed.
        compiler: sum of the compiler's own estimates of cycles, plus kernels and network; None: it gave none.
    """
    compute: float
    memory: float
    network: float
    kernels: float
    step: float
    compiler: float | None


def instruction(work, chip):
    """(seconds of arithmetic, seconds of memory) of one execution of a `counts.Work`."""
    peak = chip.flops.get(work.dtype) or (chip.flops["bf16"] / work.passes if chip.platform == "tpu" else chip.flops["f32"])
    arithmetic = work.matmul / (chip.convolution if work.opcode == "convolution" and chip.convolution else peak)
    if chip.vector:
        arithmetic += work.vector / chip.vector + work.slow / (chip.slow or chip.vector)
    return arithmetic, chip.moved(work.bytes)


def collective(each, slice):
    """Seconds of one execution of a `running.Collective` over a whole slice, as rings that use all links."""
    n = slice.chips
    if n == 1:
        return 0.0
    shares = {"all-reduce": 2 * (n - 1) / n, "all-gather": n - 1, "reduce-scatter": (n - 1) / n, "all-to-all": (n - 1) / n}
    return each.bytes * shares.get(each.kind, 1) / slice.network


def estimate(works, collectives, slice, kernel_seconds=lambda work: 0.0, clock=None):
    """The `Estimate` of a program.

    Args:
        works: of `counts.count`.
        collectives: of `running.collectives`.
        slice: `chips.Slice`.
        kernel_seconds: seconds of one execution of a custom call that is a Pallas kernel.
        clock: cycles/s, by which the compiler's cycles become seconds; None: its estimates are not used.
    """
    compute = memory = step = kernels = cycles = 0.0
    known = False
    for work in works:
        arithmetic, traffic = instruction(work, slice.chip)
        own = kernel_seconds(work)
        compute += work.times * arithmetic
        memory += work.times * traffic
        kernels += work.times * own
        step += work.times * (max(own or arithmetic, traffic) + slice.chip.overhead)
        if work.cycles is not None and clock:
            known = True
            cycles += work.times * work.cycles / clock
    network = sum(each.times * collective(each, slice) for each in collectives)
    return Estimate(compute, memory, network, kernels, step + network, cycles + kernels + network if known else None)


def placed(collectives):
    """Collectives as JSON, those of one kind, dtype and place together."""
    table = {}
    for each in collectives:
        key = each.kind, "+".join(each.dtypes), each.loop, each.times, each.group
        row = table.setdefault(key, {"kind": each.kind, "dtype": key[1], "inside_loop": bool(each.loop), "loop": each.loop, "times_per_step": each.times,
                                     "devices": each.group, "count": 0, "bytes": 0, "source": each.source})
        row["count"] += 1
        row["bytes"] += each.bytes
    return list(table.values())


def facts(module):
    """[{"loop", "iterations"}] of a module's loops."""
    return [{"loop": name, "iterations": trips} for name, trips in running.loops(module)]
