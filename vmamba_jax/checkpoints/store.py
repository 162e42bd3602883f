"""Converted weights on disk: an Orbax checkpoint of the variables and a readable `metadata.json` in one folder, written atomically."""
import json
import math
import os
import pathlib

import flax
import jax
import numpy as np
import orbax.checkpoint as ocp

from vmamba_jax.core import files, limits

METADATA = "metadata.json"
VARIABLES = "variables"
FILES = "files"  # our own entry of metadata.json: the checkpoint's files and their checksums, since Orbax does not detect a flipped bit


def save_variables(directory, variables, metadata=None, *, overwrite=False):
    """Write Flax variables and metadata into a new folder, which appears complete or not at all.

    Args:
        directory: the folder; missing parents are created.
        variables: nested dict of arrays, as `model.init` returns.
        metadata: dict of JSON values, such as the model's name and the source of the weights.
        overwrite: replace a folder that an earlier call wrote, and no other.

    Raises:
        FileExistsError: a folder that is not empty, without `overwrite`, or that is not a checkpoint of this function.
        TypeError: variables that are not a nested dict of arrays, or metadata that is not JSON.
        ValueError: an array without elements, or a reserved entry in the metadata.
    """
    target = pathlib.Path(directory).absolute()  # Orbax takes no relative paths
    metadata = dict(metadata or {})
    if FILES in metadata:
        raise ValueError(f"metadata={sorted(metadata)}: expected no entry {FILES!r}, which this function writes")
    tree = arrays(variables)
    check_json(metadata)
    check_free(target, overwrite)
    with files.atomic_folder(target) as draft:
        with checkpointer() as saver:
            saver.save(draft / VARIABLES, args=ocp.args.StandardSave(tree))
        for marker in (draft / VARIABLES).rglob("commit_success.txt"):
            marker.write_text("committed\n")  # Orbax reads no more than its name, and writes into it where the draft lies on this machine
        (draft / METADATA).write_text(json.dumps(metadata | {FILES: checksums(draft / VARIABLES)}, indent=2) + "\n")


def load_variables(directory):
    """The variables and the metadata that `save_variables` wrote.

    Returns:
        (nested dict of NumPy arrays, metadata dict).

    Raises:
        FileNotFoundError: no checkpoint. ValueError: a checkpoint that is damaged in any byte, or whose arrays take more than 40 MB and seven
            times the size of its files.
    """
    source = pathlib.Path(directory).absolute()
    if not (source / METADATA).is_file():
        raise FileNotFoundError(f"{directory}: no checkpoint here (expected a folder with {METADATA} and {VARIABLES}/)")
    try:
        metadata = limits.parse_json((source / METADATA).read_bytes(), METADATA)
        written = dict(metadata.pop(FILES))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{directory}: {METADATA} is damaged or not written by save_variables ({error})") from error
    found = checksums(source / VARIABLES)
    damaged = sorted(name for name in written | found if written.get(name) != found.get(name))
    if damaged:
        raise ValueError(f"{directory}: damaged, missing or foreign files in {VARIABLES}: {', '.join(damaged)}")
    try:
        with checkpointer() as saver:
            leaves = jax.tree.leaves(saver.metadata(source / VARIABLES).item_metadata.tree)
            size = sum((source / VARIABLES / name).stat().st_size for name in found)
            needed = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
            if needed > limits.memory(size):  # an array without its chunks is filled with zeros of any shape
                raise ValueError(f"its arrays take {needed} bytes, more than {limits.memory(size)} for files of {size} bytes")
            return saver.restore(source / VARIABLES), metadata
    except Exception as error:  # files that agree with their checksums, but were not written by Orbax
        raise ValueError(f"{directory}: {VARIABLES} is damaged or not written by save_variables ({str(error)[:500]})") from error


def checkpointer():
    return ocp.Checkpointer(ocp.StandardCheckpointHandler())


def arrays(variables):
    """The variables as nested plain dicts of NumPy arrays."""
    tree = flax.core.unfreeze(variables)
    if not isinstance(tree, dict) or not tree:
        raise TypeError(f"variables={type(variables).__name__}: expected a nested dict of arrays that is not empty")
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: x is None):
        name = f"variables{jax.tree_util.keystr(path)}"
        if not all(isinstance(part, jax.tree_util.DictKey) and isinstance(part.key, str) for part in path):
            raise TypeError(f"{name}={type(leaf).__name__}: expected dicts with string keys around every array")
        if not isinstance(leaf, (np.ndarray, np.generic, jax.Array)):
            raise TypeError(f"{name}={type(leaf).__name__}: expected an array")
        if leaf.size == 0:
            raise ValueError(f"{name} of shape {leaf.shape}: expected at least one element; Orbax stores no empty arrays")
    return jax.tree.map(np.asarray, tree)


def check_json(metadata):
    try:
        json.dumps(metadata)
    except (TypeError, ValueError) as error:
        raise TypeError(f"metadata={sorted(map(str, metadata))}: expected JSON values ({error})") from error


def checksums(folder):
    """{relative path: SHA-256} of all files below a folder."""
    return {path.relative_to(folder).as_posix(): files.sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def check_free(target, overwrite):
    """Raise unless the target is absent, empty, or an earlier checkpoint that may be overwritten."""
    if (target.is_dir() and not any(target.iterdir())) or not os.path.lexists(target):
        return
    if not overwrite:
        raise FileExistsError(f"{target} is not empty; pass overwrite=True to replace the checkpoint in it")
    if not target.is_dir() or {path.name for path in target.iterdir()} != {METADATA, VARIABLES}:
        raise FileExistsError(f"{target} is not a checkpoint of save_variables and is not overwritten")
