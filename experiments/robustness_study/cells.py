"""Cells of a study: one model under one probe, a JSON file each, named by all that its figures depend on."""
import base64
import hashlib
import io
import json

import jax
import numpy as np
from PIL import Image

from experiments.common import results
from vmamba_jax.evaluation import wilson_interval
from vmamba_jax.version import __version__

SIDE, EXACT = 112, 64  # pixels of a page's picture: at most; up to where it is stored without loss


def digest(inputs):
    """The content's name: 16 hexadecimal digits of what a cell's figures depend on."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def numerics():
    """The programs whose change may change a figure."""
    return {"vmamba_jax": __version__, "jax": jax.__version__}


def path(workdir, probe, inputs):
    return workdir / "cells" / f"{probe}-{digest(inputs)}.json"


def finished(file):
    """The cell in `file`, or None: cells that failed or could not run are tried again."""
    try:
        cell = results.load_json(file)
    except ValueError:
        return None
    return cell if cell and cell["status"] == "done" else None


def row(right, **facts):
    """One accuracy of a cell with its interval and its images: `right` (n,) bool, packed into hexadecimal digits, the first image highest."""
    right = np.asarray(right, bool)
    return facts | {"accuracy": float(right.mean()), "interval": wilson_interval(int(right.sum()), right.size), "examples": int(right.size),
                    "right": np.packbits(right).tobytes().hex()}


def picture(image, read=None, truth=None, label=""):
    """A [0, 1] image (H, W, 1 or 3) for the page: its data URI at `SIDE` pixels at most, what the model reads in it, whether that is right."""
    pixels = np.round(np.clip(np.asarray(image, np.float64), 0, 1) * 255).astype(np.uint8)
    made = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    made.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    form, options = ("png", {"optimize": True}) if max(made.size) <= EXACT else ("webp", {"quality": 80, "method": 6})
    made.save(buffer, form, **options)
    uri = f"data:image/{form};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"uri": uri, "read": read, "right": None if truth is None else read == truth, "label": label}
