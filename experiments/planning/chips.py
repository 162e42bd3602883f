"""Published figures of accelerators, and the networks between them."""
import math
import re
from typing import NamedTuple

from experiments.common.cli import ConfigError

GB, GiB = 1e9, 2 ** 30


class Chip(NamedTuple):
    """Figures of one chip. Rates are per second.

    Attributes:
        label: name for people.
        platform: "tpu", "gpu" or "cpu".
        flops: {dtype: FLOP of matrix products}; a dtype that is absent has the rate of float32.
        memory: bytes of main memory.
        bandwidth: bytes of main memory.
        network: bytes that a chip sends to the others of its slice or box, in one direction, over all its links.
        outside: bytes that it sends out of its box; 0: the slice is the network.
        vector: operations of the vector unit, and of it functions such as exp; 0: not published, and not counted.
        slow: the latter.
        host: chips of one host.
        axes: axes of the torus; 0: a switch.
        clock: cycles/s of the vector unit, by which compiled schedules become seconds; 0: not used.
        cores: of a chip, which share the programs of a kernel's grid.
        ring: an axis whose size is a multiple of it is a ring, any other a line, which halves its bandwidth.
        convolution: FLOP of convolutions, if it was measured apart; 0: as products of matrices.
        levels: ((bytes, bytes/s), ...) of calls that move so many bytes, for caches; (): `bandwidth` for all.
        overhead: seconds of an instruction besides its work.
        source: where the figures were published.
    """
    label: str
    platform: str
    flops: dict
    memory: float
    bandwidth: float
    network: float
    outside: float = 0
    vector: float = 0
    slow: float = 0
    host: int = 8
    axes: int = 0
    ring: int = 0
    clock: float = 0
    cores: int = 1
    convolution: float = 0
    levels: tuple = ()
    overhead: float = 0
    source: str = ""

    def moved(self, count):
        """Seconds in which one instruction moves `count` bytes of memory."""
        rate = next((rate for size, rate in self.levels if count <= size), self.bandwidth)
        return count / rate


def _tpu(name, tflops, memory, bandwidth, network, host, axes, ring, clock, cores, page):
    return Chip(f"TPU {name}", "tpu", {"bf16": tflops * 1e12}, memory * GiB, bandwidth * GB, network * GB, host=host, axes=axes, ring=ring,
                clock=clock * 1e9, cores=cores, source=f"cloud.google.com/tpu/docs/{page}")


def _gpu(label, bf16, tf32, f32, memory, bandwidth, network, outside, source):
    return Chip(label, "gpu", {"bf16": bf16 * 1e12, "f16": bf16 * 1e12, "f32": tf32 * 1e12}, memory * GB, bandwidth * GB, network * GB, outside * GB,
                vector=f32 * 1e12, source=source)


# TPUs: "inter-chip interconnect" is stated for both directions; half of it leaves a chip. Of the memory XLA leaves less to a program; its own limit is used
# where it reports one. Clock: peak over the products of a cycle (eight 128 x 128 matrix units a chip of v4 and v5p, four of v5e, four of 256 x 256 of v6e).
# GPUs: dense products, SXM modules; tf32 for float32; half of NVLink's two directions; one port of InfiniBand a GPU in a DGX.
CHIPS = {
    "v4": _tpu("v4", 275, 32, 1200, 300, 4, 3, 4, 1.05, 2, "v4 (network: Jouppi et al., arXiv 2304.01433, 6 links of 50 GB/s)"),
    "v5e": _tpu("v5e", 197, 16, 819, 200, 8, 2, 16, 1.5, 1, "v5e"),
    "v5p": _tpu("v5p", 459, 95, 2765, 600, 4, 3, 4, 1.75, 2, "v5p"),
    "v6e": _tpu("v6e", 918, 32, 1640, 400, 8, 2, 16, 1.75, 1, "v6e"),
    "a100": _gpu("NVIDIA A100 80 GB", 312, 156, 19.5, 80, 2039, 300, 25, "NVIDIA A100 and DGX A100 datasheets"),
    "h100": _gpu("NVIDIA H100 80 GB", 989, 494, 67, 80, 3350, 450, 50, "NVIDIA H100 and DGX H100 datasheets"),
    "h200": _gpu("NVIDIA H200 141 GB", 989, 494, 67, 141, 4800, 450, 50, "NVIDIA H200 and DGX H200 datasheets"),
}
SLICES = {  # as Cloud TPU offers them
    "v4": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16"),
    "v5e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16"),
    "v6e": ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
}


def mean(measured):
    """The mean figures of several measurements of one chip."""
    first = measured[0]
    average = lambda values: sum(values) / len(values)
    return first._replace(
        flops={dtype: average([chip.flops[dtype] for chip in measured]) for dtype in first.flops},
        levels=tuple((size, average([chip.levels[i][1] for chip in measured])) for i, (size, _) in enumerate(first.levels)),
        **{name: average([getattr(chip, name) for chip in measured]) for name in ("bandwidth", "vector", "slow", "convolution", "overhead")})


class Slice(NamedTuple):
    """Chips that share a run.

    Attributes:
        name: such as "v5e:4x4" or "h100:16".
        kind: key of `CHIPS`.
        chip: its figures.
        shape: sizes of the torus' axes; (n,) for GPUs.
    """
    name: str
    kind: str
    chip: Chip
    shape: tuple

    @property
    def chips(self):
        return math.prod(self.shape)

    @property
    def network(self):
        """Bytes/s that each chip sends in a reduction over all chips; half of what leaves a chip on an axis that is no ring, none on an axis of one."""
        if not self.chip.axes:
            return self.chip.network if self.chips <= self.chip.host else self.chip.outside
        each = self.chip.network / self.chip.axes
        return sum(each * (1 if size % self.chip.ring == 0 else 0.5) for size in self.shape if size > 1)


def parse(name):
    """The `Slice` of a name such as "v5e:16x16" or "h100:8". ConfigError for any other, which lists the known ones."""
    kind, _, shape = name.partition(":")
    if kind not in CHIPS:
        raise ConfigError(f"--topology={name}: expected one of {known()}")
    chip = CHIPS[kind]
    if chip.platform == "gpu":
        if not re.fullmatch(r"[1-9]\d{0,4}", shape) or (int(shape) > chip.host and int(shape) % chip.host):
            raise ConfigError(f"--topology={name}: expected {kind}:N, a number of GPUs from 1 to {chip.host}, or a multiple of {chip.host}")
        return Slice(name, kind, chip, (int(shape),))
    if shape not in SLICES[kind]:
        raise ConfigError(f"--topology={name}: expected {kind}:SHAPE with one of {', '.join(SLICES[kind])}")
    return Slice(name, kind, chip, tuple(int(n) for n in shape.split("x")))


def known():
    """The names that `parse` accepts, in one line."""
    tpus = "; ".join(f"{kind}:{'|'.join(shapes)}" for kind, shapes in SLICES.items())
    return f"{tpus}; {'|'.join(kind for kind in CHIPS if kind not in SLICES)}:N"
