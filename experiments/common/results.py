"""Result files: atomic writes, what a result was computed with, and the identity that decides whether a saved result is still valid."""
import hashlib
import json
import pathlib
import subprocess

import jax
import numpy as np

from experiments.common import environment
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
    return json.loads(json.dumps({"versions": {"vmamba_jax": __version__, "jax": jax.__version__}, "weights": weights, "data": data,
                                  "settings": settings}))


def digest(identity):
    """16 hexadecimal digits that name an identity, for the name of a file."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def saved(path, identity):
    """The JSON result at `path` if it has this identity; None if there is no file, it is not JSON, or its identity differs."""
    try:
        content = load_json(path)
    except ValueError:
        return None
    return content if isinstance(content, dict) and "identity" in content and content["identity"] == identity else None


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
        with files.atomic(path) as part:
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def save_arrays(path, **arrays):
    """Write an .npz file atomically, on the first process."""
    if jax.process_index() == 0:
        with files.atomic(path) as part, open(part, "wb") as file:
            np.savez_compressed(file, **arrays)


def load_json(path):
    """The content of a JSON file; None if there is no file."""
    path = pathlib.Path(path)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
