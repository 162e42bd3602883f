"""Result files: written whole or not at all, and what they were computed with."""
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess

import jax
import numpy as np

from vmamba_jax.version import __version__

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def environment(source):
    """What a result depends on besides its config: versions, device, commit, and the data's fingerprint."""
    devices = jax.devices()
    return {
        "versions": versions(),
        "device": f"{devices[0].device_kind} x {len(devices)}",
        "commit": commit(),
        "data": {"name": source.name, "split": source.split, "examples": len(source), "fingerprint": source.fingerprint[:16]},
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def versions():
    """Of the interpreter and the packages that numbers depend on."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}, "vmamba_jax": __version__}


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
    """Write JSON beside `path`, then put it in place."""
    if jax.process_index() == 0:
        _replace(path, lambda part: part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8"))


def save_arrays(path, **arrays):
    """Write an .npz beside `path`, then put it in place."""
    def write(part):
        with open(part, "wb") as file:
            np.savez_compressed(file, **arrays)
    if jax.process_index() == 0:
        _replace(path, write)


def load_json(path):
    """The content of a JSON file, or None where there is none."""
    path = pathlib.Path(path)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _replace(path, write):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        write(part)
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
