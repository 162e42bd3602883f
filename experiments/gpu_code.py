"""Compile the GPU kernels for a Hopper GPU that is not there, and count registers, spills, shared memory and instructions per number.

    python -m experiments.gpu_code --out docs/benchmarks/gpu_code_h100.json

This needs the wheels of JAX's CUDA plugin without a GPU (pip install --no-deps jax-cuda13-plugin jax-cuda13-pjrt nvidia-cuda-nvcc, of JAX's own
version) and NVIDIA's disassembler (NVDISASM names it; the triton wheel has one). The counts are of machine code, not timings. The exit status is 1
if a kernel spills registers or exceeds BOUNDS, or if fewer than three of its programs fit on a multiprocessor.
"""
import functools
import glob
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import NamedTuple

from absl import app, flags

ARCHITECTURE = "sm_90a"
# What XLA asks a device about; the numbers are NVIDIA's of an H100.
TARGET = """gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472 threads_per_core_limit: 2048
  core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3350000000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 85899345920
  shared_memory_per_block_optin: 232448 registers_per_core_limit: 65536 registers_per_block_limit: 65536
  cuda_compute_capability { major: 9 minor: 0 feature_extension: ACCELERATED_FEATURES }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100"
"""
SHAPES = ((128, 3136, 96, 1), (128, 784, 192, 1), (128, 196, 384, 1), (128, 49, 768, 1), (8, 2048, 1536, 16))   # batch, length, channels, state
MAPS = ((128, 56, 96, 6), (128, 28, 192, 12), (128, 14, 384, 24), (128, 7, 768, 48))     # batch, side, channels, rank
BOUNDS = {("scan", "forward", 1): 62, ("scan", "backward", 1): 150, ("map", "forward", 1): 66, ("map", "backward", 1): 178,   # instructions per number
          ("scan", "forward", 16): 155, ("scan", "backward", 16): 520}
REGISTERS, SHARED, RESERVED = 65536, 233472, 1024      # of a multiprocessor; bytes of shared memory, and those that every program takes besides its own
KERNELS = {"forward": ("chunk ends", "scan"), "backward": ("chunk ends of adjoints", "sweep")}
LABEL = re.compile(r"^(\.L_x_\d+):")
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(.*?);")


class Loop(NamedTuple):
    """A loop of machine code: positions of its first and last instruction."""
    first: int
    last: int

    @property
    def size(self):
        return self.last - self.first + 1


def all_loops(disassembly):
    """(number of instructions, the `Loop`s of more than three instructions in order) of a disassembled kernel."""
    labels, instructions = {}, []
    for line in disassembly.splitlines():
        if match := LABEL.match(line):
            labels[match[1]] = len(instructions)
        elif match := INSTRUCTION.match(line):
            instructions.append(match[1])
    found = []
    for i, text in enumerate(instructions):
        match = re.search(r"\bBRA\b.*\((\.L_x_\d+)\)", text)
        if match and labels.get(match[1], len(instructions)) <= i and i - labels[match[1]] > 2:
            found.append(Loop(labels[match[1]], i))
    return len(instructions), sorted(found)


def loops(disassembly):
    """`all_loops`, of which only the innermost."""
    count, found = all_loops(disassembly)
    return count, [loop for loop in found if not any(other != loop and _holds(loop, other) for other in found)]


def _holds(loop, other):
    return loop.first <= other.first and other.last <= loop.last


def resources(verbose, dumped=""):
    """{"registers", "spills", "shared"} in ptxas's verbose output and in what Mosaic GPU dumps; spills and shared memory in bytes."""
    number = lambda pattern, text=verbose: int(found[1]) if (found := re.search(pattern, text)) else 0
    return {"registers": number(r"Used (\d+) registers"), "spills": number(r"(\d+) bytes spill stores"),
            "shared": number(r"smem_scratch_bytes=(\d+)", dumped)}


def per_number(kernel, found, plan):
    """Instructions per number of a kernel's loops: those of one loop turn over its steps and channels per lane; None: loops of another form."""
    turn = plan.across * plan.ahead
    if kernel != "sweep":
        return max((loop.size for loop in found), default=0) / turn
    if len(found) < 2 or plan.ahead < 2:
        return None
    return found[0].size / turn + found[1].size / (plan.across * (plan.ahead // 2))      # the states again, then the adjoints


def per_number_of_states(found, plan):
    """`per_number` of a kernel of several states, from `all_loops`: a block's instructions beside the loops over its quads, and those loops.

    A thread has BLOCK / QUAD numbers of a block. Both directions of time have their own loops, of which one runs. Of three, the first runs for
    half of the quads: the states of a first half, which come before those of the second.
    """
    from pallas_kernels.gpu.state_tiles import QUADS
    inner = [loop for loop in found if not any(other != loop and _holds(loop, other) for other in found)]
    block = max(found, key=lambda loop: loop.size)
    one = inner[:len(inner) // 2]
    if block in inner or len(inner) % 2:
        return None
    turns = [QUADS / 2, *[QUADS] * 2] if len(one) == 3 else [QUADS] * len(one)
    once = block.size - sum(loop.size for loop in inner)
    return (once + sum(turn * loop.size for turn, loop in zip(turns, one, strict=True))) / QUADS


def tools():
    """Paths of ptxas and nvdisasm. Raises FileNotFoundError where one is missing."""
    found = {}
    for name, package in (("ptxas", "nvidia"), ("nvdisasm", "triton")):
        spec = importlib.util.find_spec(package)
        places = [os.environ.get(name.upper(), "")] + [path for root in (spec.submodule_search_locations if spec else ())
                                                       for path in glob.glob(os.path.join(root, "**", "bin", name), recursive=True)]
        path = next((path for path in places if os.path.exists(path)), None)
        if path is None:
            raise FileNotFoundError(f"{name}: expected it in the {package} wheel, or its path in {name.upper()}")
        found[name] = path
    return found


def compile_for_hopper(fn, args):
    """The function compiled for the absent GPU; Mosaic GPU writes the kernels into the folder of MOSAIC_GPU_DUMP_TO."""
    import jax
    from jax.experimental import topologies
    device = topologies.get_topology_desc(platform="cuda", topology_name="h100", target_config=TARGET, topology="1x1x1").devices[0]
    sharding = jax.sharding.SingleDeviceSharding(device)
    return jax.jit(fn, in_shardings=sharding, out_shardings=sharding).trace(*args).lower(lowering_platforms=("cuda",)).compile()


def cases():
    """(name, batch x length x channels, state, plan, forward, backward, arguments) of the scans of SHAPES and of the maps of MAPS, in bfloat16."""
    import jax
    import jax.numpy as jnp

    from pallas_kernels.arguments import Arguments, CrossArguments, Options
    from pallas_kernels.gpu import backward, cross, forward, state_backward, state_forward
    from pallas_kernels.gpu.plan import map_plan
    from pallas_kernels.gpu.plan import plan as scan_plan
    shape = lambda *size, dtype=jnp.float32: jax.ShapeDtypeStruct(size, dtype)
    narrow = functools.partial(shape, dtype=jnp.bfloat16)
    for batch, length, channels, state in SHAPES:
        stream, maps = narrow(batch, length, channels), shape(batch, length, 1, state)
        args = Arguments(stream, stream, shape(channels, state), maps, maps, shape(channels), shape(channels))
        both = (forward.forward, backward.backward) if state == 1 else (state_forward.forward, state_backward.backward)
        passes = (functools.partial(f, options=Options()) for f in both)
        yield "scan", (batch, length, channels), state, scan_plan(batch, length, 1, channels, state), *passes, args
    for batch, side, channels, rank in MAPS:
        maps, each = shape(batch, side, side, 4, 1), shape(4, channels)
        args = CrossArguments(narrow(batch, side, side, channels), narrow(batch, side, side, 4, rank), narrow(4, channels, rank), shape(4, channels, 1),
                              maps, maps, each, each)
        passes = (functools.partial(f, options=Options()) for f in cross.passes(args))
        yield "map", (batch, side * side, channels), 1, map_plan(batch, side, side, channels, 1), *passes, args


def measure(dumps, report=print):
    """Records of every kernel of `cases`, u and delta in bfloat16, y in float32."""
    import jax

    from pallas_kernels.gpu.state_tiles import StateTile
    from pallas_kernels.gpu.tiles import Tile
    paths, records = tools(), []
    for what, size, state, plan, forward, backward, args in cases():
        y, saved = jax.eval_shape(forward, args)
        for direction, run, inputs in (("forward", forward, (args,)), ("backward", backward, (args, saved, y))):
            for path in glob.glob(os.path.join(dumps, "*")):
                os.remove(path)
            compile_for_hopper(run, inputs)
            sources = sorted(glob.glob(os.path.join(dumps, "*.ptx")))
            for kernel, source in zip(KERNELS[direction][-len(sources):], sources, strict=True):
                code = f"{source}.cubin"
                assembled = subprocess.run([paths["ptxas"], "-v", f"-arch={ARCHITECTURE}", source, "-o", code], capture_output=True, text=True, check=True)
                text = subprocess.run([paths["nvdisasm"], "-c", code], capture_output=True, text=True, check=True).stdout
                if plan.part:
                    count, found = all_loops(text)
                    each, programs = per_number_of_states(found, plan), StateTile.programs(plan)
                else:
                    count, found = loops(text)
                    each, programs = per_number(kernel, found, plan), Tile.programs(plan if direction == "forward" else plan._replace(turns=1))
                dumped = pathlib.Path(source).with_suffix(".resources.txt")
                records.append({"kernel": kernel if what == "scan" else f"{kernel} of a map", "direction": direction, "shape": list(size), "state": state,
                                "programs": programs, "chunks": plan.chunks, "channels per lane": plan.across,
                                **resources(assembled.stderr, dumped.read_text() if dumped.exists() else ""), "instructions": count, "per_number": None if each is None else round(each, 1)})
                report(records[-1])
    return records


def exceeded(records):
    """One line for each record that spills, is above BOUNDS, or leaves no room for three programs on a multiprocessor."""
    found = [f"{row['kernel']} {row['shape']}: {row['spills']} bytes of registers spilled" for row in records if row["spills"]]
    for row in records:
        bound = BOUNDS.get(("map" if row["kernel"].endswith("map") else "scan", row["direction"], row["state"]))
        if bound and row["per_number"] and row["per_number"] > bound:
            found.append(f"{row['kernel']} {row['shape']}: {row['per_number']} instructions per number, expected at most {bound}")
    for row in records:
        resident = min(REGISTERS // (128 * -(-row["registers"] // 8) * 8), SHARED // (row["shared"] + RESERVED))
        if resident < 3:
            found.append(f"{row['kernel']} {row['shape']}: {resident} programs on a multiprocessor, expected at least 3 ({row['registers']} registers, "
                         f"{row['shared']} bytes of shared memory)")
    return found


def main(argv):
    del argv
    from experiments.common import environment, results
    with tempfile.TemporaryDirectory() as dumps:
        os.environ["MOSAIC_GPU_DUMP_TO"] = dumps
        try:
            records = measure(dumps)
        except (FileNotFoundError, RuntimeError) as error:
            sys.exit(f"gpu_code: {str(error).strip().splitlines()[0]}")
    if flags.FLAGS.out:
        out = pathlib.Path(flags.FLAGS.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        results.save_json(out, {"kind": "gpu_static_code", "device": {"kind": "NVIDIA H100"}, "date": environment.now()[:10], "versions": environment.versions(),
                                "command": "python -m experiments.gpu_code", "records": records})
    sys.exit("\n".join(exceeded(records)) or 0)


if __name__ == "__main__":
    os.environ.update(JAX_PLATFORMS="cpu", JAX_SKIP_CUDA_CONSTRAINTS_CHECK="1")
    flags.DEFINE_string("out", "", "JSON file to write the table to")
    app.run(main)
