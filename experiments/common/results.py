"""Result files: written whole or not at all, and what they were computed with."""
import json
import pathlib
import subprocess

import jax
import numpy as np

from experiments.common import machine
from vmamba_jax.core import files

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def environment(source):
    """What a result depends on besides its config: versions, device, commit, and the data's fingerprint."""
    devices = jax.devices()
    return {
        "versions": machine.versions(PACKAGES),
        "device": f"{devices[0].device_kind} x {len(devices)}",
        "commit": commit(),
        "data": {"name": source.name, "split": source.split, "examples": len(source), "fingerprint": source.fingerprint[:16]},
        "finished": machine.now(),
    }


def commit():
    """The checkout's commit, with + where files differ from it; empty outside a checkout."""
    here = pathlib.Path(__file__).parent
    git = lambda *arguments: subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, timeout=10)
    try:
        head, changed = git("rev-parse", "--short=12", "HEAD"), git("status", "--porcelain")
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return head.stdout.strip() + "+" * bool(changed.stdout.strip()) if head.returncode == 0 else ""


def save_json(path, content):
    """Write JSON, whole or not at all; the first process alone."""
    if jax.process_index() == 0:
        with files.atomic(path) as part:
            part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def save_arrays(path, **arrays):
    """Write an .npz, whole or not at all; the first process alone."""
    if jax.process_index() == 0:
        with files.atomic(path) as part, open(part, "wb") as file:
            np.savez_compressed(file, **arrays)


def load_json(path):
    """The content of a JSON file, or None where there is none."""
    path = pathlib.Path(path)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
