"""Saved steps as objects: packs of array bytes, and a manifest that is written last and makes the step complete.

    checkpoints/STEP/ATTEMPT/PROCESS-PACK.bin    bytes of the arrays' parts, written by each process
    checkpoints/STEP/ATTEMPT/process-I.json      what process I wrote, of several processes
    checkpoints/STEP/manifest.json               step, attempt, every array's parts with their CRC-32, `extra`, metrics; its own CRC-32
    checkpoints/STEP/ATTEMPT.damaged.json        the manifest of a step set aside

Nothing is renamed. Files of an attempt without a manifest are deleted at the next start of the run.
"""
import json
import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from vmamba_jax.core import limits
from vmamba_jax.core.saved_steps import checksums

MANIFEST = "manifest.json"
PACK = 64 << 20  # bytes of an object of arrays, unless one part alone is larger
STEP = re.compile(r"(0|[1-9][0-9]*)/")


class Incomplete(ValueError):
    """A step's objects are missing, shorter or other than its manifest says; the message names what."""


def parts(tree, process):
    """[(name, start, array on the host)]: the parts of a tree's arrays that a process writes, each part of an array by one process.

    Args:
        tree: nested dicts of arrays.
        process: index of this process, which writes arrays on the host if it is 0.
    """
    found = []
    for name, leaf in checksums.flat(tree).items():
        if isinstance(leaf, jax.Array):
            found += [(name, [index.start or 0 for index in shard.index], np.array(shard.data)) for shard in leaf.addressable_shards if shard.replica_id == 0]
        elif process == 0:
            found.append((name, [0] * np.ndim(leaf), np.array(leaf)))
    return found


def shapes(tree):
    """{name: {"shape", "dtype"}} of the whole arrays, and {name: None} of empty dicts, such as the state of a model without batch statistics."""
    nested = traverse_util.flatten_dict(tree, sep="/", keep_empty_nodes=True)
    return {name: None for name, leaf in nested.items() if leaf is traverse_util.empty_node} | {name: {"shape": list(np.shape(leaf)), "dtype": np.dtype(leaf.dtype if hasattr(leaf, "dtype") else type(leaf)).name}
            for name, leaf in checksums.flat(tree).items()}


def write_parts(folder, step, attempt, process, found):
    """Write a process's parts; returns [{"name", "start", "shape", "file", "at", "crc32"}].

    Args:
        folder: the `RemotePath` of all steps.
        found: as of `parts`.
    """
    entries, pack, size, k = [], [], 0, 0

    def put():
        nonlocal pack, size, k
        if pack:
            (folder / f"{step}/{attempt}/{process}-{k}.bin").write_bytes(b"".join(pack))
            pack, size, k = [], 0, k + 1

    for name, start, array in found:
        content = array.tobytes()
        if size + len(content) > PACK:
            put()
        entries.append({"name": name, "start": start, "shape": list(array.shape), "file": f"{process}-{k}.bin", "at": size, "crc32": zlib.crc32(content)})
        pack.append(content)
        size += len(content)
    put()
    return entries


def write_manifest(folder, manifest):
    """Complete a step: `manifest` with its CRC-32 added."""
    (folder / f"{manifest['step']}/{MANIFEST}").write_bytes(json.dumps(manifest | {"crc32": checksums.of_json(manifest)}).encode())


def read_manifest(folder, step):
    """The manifest of a step.

    Raises:
        FileNotFoundError: there is none.
        Incomplete: it is damaged, or another step's.
    """
    path = folder / f"{step}/{MANIFEST}"
    raw = path.read_bytes()
    try:
        found = limits.parse_json(raw, str(path))
        crc = found.pop("crc32")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise Incomplete("its manifest cannot be read") from error
    if crc != checksums.of_json(found):
        raise Incomplete("its manifest differs from the saved one")
    if found["step"] != step:
        raise Incomplete(f"its folder holds step {found['step']}: expected folders under the names they were saved with")
    return found


def read_array(folder, manifest, name):
    """A whole array; Incomplete with the part that is missing or changed."""
    about = manifest["arrays"][name]
    array, filled = np.empty(about["shape"], jnp.dtype(about["dtype"])), 0
    for part in manifest["parts"]:
        if part["name"] != name:
            continue
        n = int(np.prod(part["shape"], dtype=np.int64)) * array.dtype.itemsize
        path = folder / f"{manifest['step']}/{manifest['attempt']}/{part['file']}"
        try:
            content = path.read_range(part["at"], part["at"] + n) if n else b""
        except (FileNotFoundError, EOFError) as error:
            raise Incomplete(f"{name}: {path} is missing or truncated") from error
        if zlib.crc32(content) != part["crc32"]:
            raise Incomplete(f"checksums differ from the saved ones: {name}")
        where = tuple(slice(start, start + length) for start, length in zip(part["start"], part["shape"], strict=True))
        array[where] = np.frombuffer(content, array.dtype).reshape(part["shape"])
        filled += n
    if filled != array.nbytes:
        raise Incomplete(f"{name}: its parts have {filled} of {array.nbytes} bytes")
    return array


def listing(folder):
    """{step: its objects' keys, relative to the step} of all steps, complete or not, ascending."""
    found = {}
    for key in folder.below():
        if STEP.match(key):
            step, _, rest = key.partition("/")
            found.setdefault(int(step), []).append(rest)
    return dict(sorted(found.items()))


def delete(folder, step, keys):
    """Delete a step's objects, its manifest first, so that a step that lost some of its objects is not taken for a complete one."""
    for key in sorted(keys, key=lambda key: key != MANIFEST):
        (folder / f"{step}/{key}").unlink(missing_ok=True)


def set_aside(folder, step, why):
    """Make a damaged step incomplete without deleting its arrays: its manifest moves to ATTEMPT.damaged.json, which keeps them."""
    path = folder / f"{step}/{MANIFEST}"
    raw = path.read_bytes()
    attempts = {key.partition("/")[0] for key in listing(folder).get(step, []) if "/" in key}
    for attempt in sorted(attempts) or ["lost"]:
        (folder / f"{step}/{attempt}.damaged.json").write_bytes(json.dumps({"damaged": why, "manifest": raw.decode("utf-8", "replace")}).encode())
    path.unlink(missing_ok=True)


def clear(folder):
    """Delete what saves that did not end have left: objects of attempts that neither a manifest nor a damaged step names."""
    for step, keys in listing(folder).items():
        kept = {key.removesuffix(".damaged.json") for key in keys if key.endswith(".damaged.json")}
        if MANIFEST in keys:
            try:
                kept.add(read_manifest(folder, step)["attempt"])
            except Incomplete:
                continue  # its attempt is unknown
        delete(folder, step, [key for key in keys if "/" in key and key.partition("/")[0] not in kept])
