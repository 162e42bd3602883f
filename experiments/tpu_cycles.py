"""Compile the TPU kernels ahead of time, without a TPU, and count the cycles of their schedules.

    python -m experiments.tpu_cycles --topology v5e:2x2 --out docs/benchmarks/tpu_v5e.json

This needs the libtpu wheel (extra `aot`), or TPU_LIBRARY_PATH if it is not installed next to JAX. The compiler dumps each kernel's
instruction bundles, of one cycle each; a loop counts once per iteration. The count is of a schedule: it excludes stalls, memory traffic and
grid overhead.
"""
import functools
import glob
import importlib.util
import os
import pathlib
import re
import sys
import tempfile
from typing import NamedTuple

import jax
import jax.numpy as jnp
from absl import app, flags

import pallas_kernels
from experiments.common import environment, results
from pallas_kernels.arguments import Arguments, CrossArguments, Options
from pallas_kernels.tpu import cross as tpu_cross
from pallas_kernels.tpu import linear as tpu_linear
from pallas_kernels.tpu import selective as tpu

BUNDLE = re.compile(r"\s*(0x[0-9a-f]+|0)\s+(LB|PF|PB|LH|LE)?:?\s*:?\s*([> ]*)\s*\{")


class Case(NamedTuple):
    """One kernel call, `run(*args)`.

    Attributes:
        kernel: its name in the table.
        direction: "forward" or "backward".
        shape: of the main array.
        run: function to compile.
        args: shapes of its arguments.
        steps: steps of a block.
        registers: number of 8 x 128 registers that one program of the grid processes.
        turns: iterations of its loops, in order.
    """
    kernel: str
    direction: str
    shape: tuple
    run: object
    args: tuple
    steps: int
    registers: float
    turns: tuple


def _shape(*size, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(size, dtype)


def scan_cases(state, length=784, channels=256, batch=8):
    """Forward and backward pass of the selective scan at one shape."""
    stream, maps = _shape(batch, length, channels), _shape(batch, length, 1, state)
    args = Arguments(stream, stream, _shape(channels, state), maps, maps, _shape(channels), _shape(channels))
    t, options = tpu.tiles_of(args), Options()
    turns, registers = t.chunk // t.unroll(options), t.steps // 8
    _, saved = jax.eval_shape(functools.partial(tpu.forward, options=options), args)
    name = f"selective_scan N={state}"
    return [Case(name, "forward", stream.shape, functools.partial(tpu.forward, options=options), (args,), t.steps, registers, (turns,) * 2),
            Case(name, "backward", stream.shape, functools.partial(tpu.backward, options=options), (args, saved, stream), t.steps, registers,
                 (turns,) * 3)]


def linear_cases(length=784, channels=256, batch=8):
    """The first-order recurrence."""
    stream = _shape(batch, length, channels)
    t, options = tpu_linear.tiles(*stream.shape), Options()
    turns = t.chunk // t.unroll(options)
    return [Case("linear_scan", "forward", stream.shape, functools.partial(tpu.linear_scan, options=options), (stream, stream), t.steps,
                 t.steps // 8, (turns,) * 2)]


def cross_cases(size, channels, rank, dtype=jnp.float32, batch=8):
    """Forward and backward pass of the fused cross scan of one map; registers count the map once, cycles all four directions."""
    u, maps = _shape(batch, size, size, channels, dtype=dtype), _shape(batch, size, size, 4, 1)
    args = CrossArguments(u, _shape(batch, size, size, 4, rank, dtype=dtype), _shape(4, channels, rank, dtype=dtype), _shape(4, channels, 1), maps,
                          maps, _shape(4, channels), _shape(4, channels))
    options, bands = Options(), size * size // tpu_cross.BAND
    per_band = lambda count: (bands,) * count if bands > 1 else ()   # one iteration compiles to no loop
    packed = per_band(1 if dtype != jnp.float32 else 0)
    _, saved = jax.eval_shape(functools.partial(tpu_cross.forward, options=options), args)
    name = f"cross_selective_scan R={rank} {jnp.dtype(dtype).name}"
    turns = {"forward": lambda loops: (*packed, *per_band(1), *(*per_band(1), size, size, size) * loops),
             "backward": lambda loops: (*packed, *per_band(1), *(*per_band(1), size, size, size, size, *per_band(1)) * loops, *packed)}
    inputs = {"forward": (args,), "backward": (args, saved, _shape(*u.shape))}
    found = []
    for direction in turns:
        plane = tpu_cross.plane(args, direction, options)
        found.append(Case(name, direction, u.shape, functools.partial(getattr(tpu_cross, direction), options=options), inputs[direction], size * size,
                          plane.images * size * size / 8, turns[direction](len(tpu_cross.loops(plane)))))
    return found


def cases():
    """Cases of the table: VMamba-T's stages, with channels rounded up to whole registers."""
    bf16 = functools.partial(cross_cases, dtype=jnp.bfloat16)
    return [*linear_cases(), *scan_cases(1), *scan_cases(1, 3136, 128), *scan_cases(16, 1152), *cross_cases(56, 128, 6), *bf16(56, 128, 6),
            *bf16(28, 256, 12), *bf16(14, 384, 24), *bf16(7, 768, 48)]


def device(topology):
    """A device of an absent TPU topology such as "v5e:2x2"."""
    from jax.experimental import topologies
    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]


def compile_case(case, target):
    """Compile one case for an absent device; compiler errors, such as too much vector memory, are raised."""
    sharding = jax.sharding.SingleDeviceSharding(target)
    with pallas_kernels.platforms("tpu"):
        traced = jax.jit(case.run, in_shardings=sharding, out_shardings=sharding).trace(*case.args)
    return traced.lower(lowering_platforms=("tpu",)).compile()


def cycles(case, dumps):
    """{"total", "cycles_per_register", "loops"} of a case from the bundles in `dumps`; None: its loops differ from `case.turns`."""
    for path in sorted(glob.glob(os.path.join(dumps, "*final_bundles.txt"))):
        total, loops = _bundles(path)
        if len(loops) == len(case.turns) and total:
            total += sum(size * (turns - 1) for size, turns in zip(loops, case.turns, strict=True))
            return {"total": total, "cycles_per_register": round(total / case.registers, 1), "loops": loops}
    return None


def _bundles(path):
    """(number of bundles of a kernel, number of bundles of each loop inside its grid's loop)."""
    found = []
    for line in open(path):
        match = BUNDLE.match(line)
        if match:
            found.append((int(match[1], 16), match[2], match[3].count(">")))
    loops = []
    for address, tag, depth in found:
        if tag == "LB":
            loops.append([address, address, depth])
        elif loops and depth >= loops[-1][2]:
            loops[-1][1] = address
    return len(found), [end - start + 1 for start, end, depth in loops if depth == 2]


def _library():
    """Path of libtpu.so, which is also written to TPU_LIBRARY_PATH unless that is set; "": not installed."""
    found = importlib.util.find_spec("libtpu")
    if "TPU_LIBRARY_PATH" not in os.environ and found:
        os.environ["TPU_LIBRARY_PATH"] = str(pathlib.Path(found.origin).parent / "libtpu.so")
    return os.environ.get("TPU_LIBRARY_PATH", "")


def prepare(dumps):
    """`prepare_compiler`, with the compiler's dumps in a folder."""
    os.environ["LIBTPU_INIT_ARGS"] = f"--xla_jf_dump_to={dumps} --xla_jf_dump_llo_text=true"
    return prepare_compiler()


def prepare_compiler():
    """Set the environment of an ahead-of-time compile, before the library is loaded. Returns whether the library exists."""
    os.environ.update(TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1")  # no device is used, so other compiles may run beside this
    for name, value in (("TPU_ACCELERATOR_TYPE", "v5litepod-4"), ("TPU_WORKER_HOSTNAMES", "localhost"), ("TPU_WORKER_ID", "0")):
        os.environ.setdefault(name, value)
    return os.path.exists(_library())


def run(topology, dumps, chosen=None, report=print):
    """Compile the chosen cases for `topology` and return the table; `dumps` is the folder given to `prepare`.

    chosen=None compiles all `cases()`.
    """
    target, records = device(topology), []
    for case in cases() if chosen is None else chosen:
        for path in glob.glob(os.path.join(dumps, "*")):
            os.remove(path)
        compile_case(case, target)
        counted = cycles(case, dumps)
        if counted is None:
            raise RuntimeError(f"{case.kernel} {case.direction}: expected {len(case.turns)} loops in the compiled kernel")
        records.append({"kernel": case.kernel, "direction": case.direction, "shape": list(case.shape), "T": case.steps, **counted})
        report(f"{case.kernel:36s} {case.direction:9s} {case.shape} {counted['cycles_per_register']} cycles per register {counted['loops']}")
    return {"kind": "tpu_static_cycles", "device": {"kind": target.device_kind}, "date": environment.now()[:10],
            "versions": environment.versions() | {"libtpu": library_version()}, "command": f"python -m experiments.tpu_cycles --topology {topology}",
            "records": records}


def library_version():
    """Version of libtpu; "unknown" if its wheel's metadata are not beside it."""
    library = pathlib.Path(_library()).parent
    found = sorted(library.parent.glob("libtpu-*.dist-info"))
    return found[0].name.removeprefix("libtpu-").removesuffix(".dist-info") if found else "unknown"


def main(argv):
    del argv
    with tempfile.TemporaryDirectory() as dumps:
        if not prepare(dumps):
            sys.exit("tpu_cycles: libtpu is not installed: pip install libtpu (extra aot), or name its libtpu.so in TPU_LIBRARY_PATH")
        result = run(flags.FLAGS.topology, dumps)
    if flags.FLAGS.out:
        out = pathlib.Path(flags.FLAGS.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        results.save_json(out, result)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    flags.DEFINE_string("topology", "v5e:2x2", "TPU to compile for: v4:2x2x1, v5e:2x2, v5p:2x2x1, v6e:2x2")
    flags.DEFINE_string("out", "", "JSON file to write the table to")
    app.run(main)
