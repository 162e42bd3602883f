"""Result files: atomic writes, what a result was computed with, and the identity that decides whether a saved result is still valid."""
import hashlib
import json
import pathlib
import re
import subprocess

import jax
import numpy as np
from flax import traverse_util

from experiments.common import environment
from experiments.common.cli import checking
from vmamba_jax.core import files
from vmamba_jax.version import __version__


def identity(*, weights, data, settings):
    """Everything that a result's figures depend on. A saved result is valid while its identity is equal to the new one.

    Devices and batch size are not in it: no figure depends on them.

    Args:
        weights: digest of the model's arrays, `parallel.fingerprint(variables)`.
        data: fingerprint of the source of the images.
        settings: JSON-able dict of everything else: the model's fields and preprocessing, attacks, seeds.

    Returns:
        A JSON-able dict with these and the versions of vmamba_jax and JAX, equal to itself after a round trip through JSON.
    """
    return json.loads(json.dumps({"versions": measuring_versions(), "weights": weights, "data": data, "settings": settings}))


def measuring_versions():
    """The versions that a result's figures depend on: those of an identity."""
    return {"vmamba_jax": __version__, "jax": jax.__version__}


def digest(identity):
    """16 hexadecimal digits that name an identity, for the name of a file."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def saved(path, identity, note=None):
    """The JSON result at `path` if it has this identity; None if there is no file, it is not JSON, or its identity differs.

    Args:
        path: the file.
        identity: of the result wanted.
        note: called with one line that says what differs; None: not called.
    """
    try:
        content = load_json(path)
    except ValueError as error:
        if note is not None:
            note(f"{error}; measured anew")
        return None
    old = content["identity"] if isinstance(content, dict) and "identity" in content else None
    if old is not None and old == identity:
        return content
    if content is not None and note is not None:
        note(f"{path}: measured anew, since it was measured with {changes(old, identity)}")
    return None


def changes(old, new, shown=3):
    """In words how one identity differs from another: "other weights (12ab34cd, now 56ef78ab)"; the first `shown` fields."""
    if not isinstance(old, dict):
        return "a version that did not record its weights, images and settings"
    rows = differences(old, new)
    listed = [f"other {name.removeprefix('settings.')} ({_brief(was)}, now {_brief(now)})" for name, was, now in rows[:shown]]
    return ", ".join(listed) + (f" and {len(rows) - shown} more" if len(rows) > shown else "")


def differences(old, new):
    """[(dotted field, old value, new value), ...] of two nested dicts; None for a field that one of them lacks."""
    old, new = (traverse_util.flatten_dict(config, sep=".", keep_empty_nodes=True) for config in (old, new))
    old, new = ({field: {} if value is traverse_util.empty_node else value for field, value in config.items()} for config in (old, new))
    return [(field, old.get(field), new.get(field)) for field in dict.fromkeys([*old, *new])
            if (field in old, old.get(field)) != (field in new, new.get(field))]


def _brief(value):
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:12] if re.fullmatch("[0-9a-f]{16,}", text) else text if len(text) <= 40 else f"{text[:37]}..."


def provenance(source):
    """Facts that a result records besides its config: versions, device, commit, data set, time."""
    devices = jax.devices()
    return {
        "versions": environment.versions(),
        "device": f"{devices[0].device_kind} x {len(devices)}",
        "commit": commit(),
        "data": {"name": source.name, "split": source.split, "examples": len(source), "fingerprint": source.fingerprint[:16]},
        "finished": environment.now(),
    }


def commit():
    """The checkout's commit, followed by + if files differ from it; "" outside a checkout."""
    here = pathlib.Path(__file__).parent
    git = lambda *arguments: subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10)
    try:
        head, changed = git("rev-parse", "--short=12", "HEAD"), git("status", "--porcelain")
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return head.stdout.strip() + "+" * bool(changed.stdout.strip()) if head.returncode == 0 else ""


def plain(config):
    """A ConfigDict as JSON gives it back: a dict with lists for tuples."""
    return json.loads(config.to_json_best_effort())


def save_json(path, content):
    """Write JSON atomically, on the first process."""
    if jax.process_index() == 0:
        files.write_json(path, content)


def save_arrays(path, **arrays):
    """Write an .npz file atomically, on the first process."""
    if jax.process_index() == 0:
        with files.atomic(path) as part, open(part, "wb") as file:
            np.savez_compressed(file, **arrays)


def load_json(path):
    """The content of a JSON file; None if there is no file. ConfigError if it is not JSON, such as an empty file after a power loss."""
    with checking():
        return files.read_json(path)


def saved_config(folder):
    """The config of a folder that holds checkpoints or results, also if some of its files were deleted; None for any other folder."""
    about, done = folder / "checkpoints" / "about.json", load_json(folder / "results.json")
    if not (folder / "checkpoints").exists() and done is None:
        return None
    if (config := load_json(folder / "config.json")) is not None:
        return config
    with checking():
        return (files.read_json(about) or {}).get("config") or (done or {}).get("config")
