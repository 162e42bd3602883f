"""Lower and serialize the programs of a device check, on any machine, with inputs and float64 results of those that are compared."""
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

import pallas_kernels
from experiments.device_checks.programs import DRY, FULL, programs
from vmamba_jax.core import files

INDEX = "programs.json"


def draw(shapes, seed):
    """Random arrays for a tree of shapes, made on the device: A negative, steps of softplus around exp(-2), images in [0, 1], small weights."""
    def one(path, like):
        name, key = str(getattr(path[-1], "key", path[-1])), jax.random.fold_in(jax.random.key(seed), hash_of(jax.tree_util.keystr(path)))
        if jnp.issubdtype(like.dtype, jnp.integer):
            return jnp.zeros(like.shape, like.dtype)
        if name == "image":
            return jax.random.uniform(key, like.shape, like.dtype)
        x = jax.random.normal(key, like.shape, jnp.float32)
        if len(path) > 1:
            x = 0.02 * x
        return {"A": lambda x: -jnp.exp(x), "delta_bias": lambda x: x - 2, "dt_weight": lambda x: 0.3 * x}.get(name, lambda x: x)(x).astype(like.dtype)

    return jax.tree_util.tree_map_with_path(one, shapes)


def hash_of(text):
    """A number below 2^31 that depends on the text only."""
    return sum(ord(c) * 131**i for i, c in enumerate(text)) % 2**31


def prepare(work, platform, dry=False, report=print, plans=False):
    """Write the serialized programs, their inputs and results into the folder `work`.

    Args:
        work: folder; created.
        platform: "cuda", "tpu" or "cpu".
        dry: tiny sizes.
        report: called with one line per program.
        plans: only the geometries of a map's scan on a GPU.
    """
    work, index, sizes = pathlib.Path(work), {}, DRY if dry else FULL
    work.mkdir(parents=True, exist_ok=True)
    with pallas_kernels.platforms(platform):
        for program in programs(platform, sizes, plans):
            since, name = time.perf_counter(), f"{len(index):03d}"
            facts = dict(program.facts)
            if start := facts.pop("start", None):
                np.savez_compressed(work / "state.npz", *map(np.asarray, start))
            exported = jax.export.export(jax.jit(program.run), platforms=[platform])(program.shapes)
            (work / name).write_bytes(exported.serialize())
            if program.plain is not None:
                _write_answer(work / f"{name}.npz", program)
            index[program.name] = facts | {"part": program.part, "file": name, "lowering": round(time.perf_counter() - since, 1)}
            report(f"{index[program.name]['lowering']:6.1f} s to lower {program.name}")
    content = {"jax": jax.__version__, "platform": platform, "dry": dry, "programs": index,
               "rivals": None if plans else {"scans": sizes.scans, "images": sizes.image[0], "size": sizes.image[1]}}
    with files.atomic(work / INDEX) as path:
        path.write_text(json.dumps(content, indent=1))


def _write_answer(path, program):
    """Store the inputs, then what the plain scan returns for them in float64, as float32."""
    x = jax.device_get(draw(program.shapes, 1))
    with jax.enable_x64(True):
        answer = jax.device_get(jax.jit(program.plain)(jax.tree.map(lambda v: np.asarray(v, np.float64), x)))
    np.savez_compressed(path, *(np.asarray(v, np.float32) for v in [*jax.tree.leaves(x), *jax.tree.leaves(answer)]))
