"""Converted weights on disk: an Orbax checkpoint of the variables beside a readable `metadata.json`, written whole or not at all."""
import hashlib
import json
import os
import pathlib
import secrets
import shutil

import flax
import jax
import numpy as np
import orbax.checkpoint as ocp

from vmamba_jax.checkpoints.convert import convert
from vmamba_jax.checkpoints.torch_files.read import read_torch

METADATA = "metadata.json"
VARIABLES = "variables"
FILES = "files"  # our own entry of metadata.json: the checkpoint's files and their checksums, since Orbax does not notice a flipped byte


def save_variables(directory, variables, metadata=None, *, overwrite=False):
    """Writes Flax variables and what is known about them into a new folder.

    directory: the folder; made, with its parents. variables: nested dict of arrays, as `model.init` returns. metadata: dict of JSON values
    (model name, source, ...). overwrite: replace what an earlier call wrote there (and nothing else).
    The folder appears complete, by a rename, or stays as it was. Raises FileExistsError if it exists and is not empty; ValueError or
    TypeError if the variables are not a nested dict of non-empty arrays or the metadata is not JSON.
    """
    target = pathlib.Path(directory).absolute()  # Orbax takes no relative paths
    metadata = dict(metadata or {})
    if FILES in metadata:
        raise ValueError(f"metadata has an entry {FILES!r}, which this function writes itself")
    tree = arrays(variables)
    check_json(metadata)
    check_free(target, overwrite)

    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        draft.mkdir()
        with checkpointer() as saver:
            saver.save(draft / VARIABLES, args=ocp.args.StandardSave(tree))
        (draft / METADATA).write_text(json.dumps(metadata | {FILES: checksums(draft / VARIABLES)}, indent=2) + "\n")
        replace(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def load_variables(directory):
    """Reads what `save_variables` wrote: (nested dict of numpy arrays, metadata dict).

    Raises FileNotFoundError if there is no checkpoint; ValueError if it is damaged in any byte.
    """
    source = pathlib.Path(directory).absolute()
    if not (source / METADATA).is_file():
        raise FileNotFoundError(f"{directory}: no checkpoint here (expected a folder with {METADATA} and {VARIABLES}/)")
    try:
        metadata = json.loads((source / METADATA).read_text())
        files = dict(metadata.pop(FILES))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{directory}: {METADATA} is damaged or not written by save_variables ({error})") from error
    found = checksums(source / VARIABLES)
    damaged = sorted(name for name in files | found if files.get(name) != found.get(name))
    if damaged:
        raise ValueError(f"{directory}: damaged, missing or foreign files in {VARIABLES}: {', '.join(damaged)}")
    with checkpointer() as saver:
        return saver.restore(source / VARIABLES), metadata


def read_variables(model, path):
    """The variables of `model` from a folder that `save_variables` wrote, or from a released .pth, .pt or .safetensors file."""
    if pathlib.Path(path).is_dir():
        return load_variables(path)[0]
    return convert(model, read_torch(path))


def checkpointer():
    return ocp.Checkpointer(ocp.StandardCheckpointHandler())


def arrays(variables):
    """The variables as nested plain dicts of numpy arrays."""
    tree = flax.core.unfreeze(variables)
    if not isinstance(tree, dict) or not tree:
        raise TypeError(f"variables is a {type(variables).__name__}; expected a nested dict of arrays")
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: x is None):
        name = jax.tree_util.keystr(path)
        if not all(isinstance(part, jax.tree_util.DictKey) and isinstance(part.key, str) for part in path):
            raise TypeError(f"variables{name} is not reached by the string keys of dicts")
        if not isinstance(leaf, (np.ndarray, np.generic, jax.Array)):
            raise TypeError(f"variables{name} is a {type(leaf).__name__}; expected an array")
        if leaf.size == 0:
            raise ValueError(f"variables{name} has the shape {leaf.shape}; Orbax stores no empty arrays")
    return jax.tree.map(np.asarray, tree)


def check_json(metadata):
    try:
        json.dumps(metadata)
    except (TypeError, ValueError) as error:
        raise TypeError(f"metadata is not JSON: {error}") from error


def checksums(folder):
    """{relative path: SHA-256} of all files below a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with open(path, "rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def check_free(target, overwrite):
    """Refuses a target that would lose anything but an earlier checkpoint."""
    if target.is_dir() and not any(target.iterdir()) or not os.path.lexists(target):
        return
    if not overwrite:
        raise FileExistsError(f"{target} is not empty; pass overwrite=True to replace the checkpoint in it")
    if not target.is_dir() or {path.name for path in target.iterdir()} != {METADATA, VARIABLES}:
        raise FileExistsError(f"{target} is not a checkpoint of save_variables and is not overwritten")


def replace(draft, target):
    """Renames the draft to the target; an old target is moved aside first, and back if that fails."""
    old = target.with_name(f"{draft.name}.old")
    if target.exists():
        target.rename(old)
    try:
        draft.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
