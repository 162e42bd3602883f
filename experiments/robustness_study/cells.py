"""Cells of a study: one model under one probe, each a JSON file named by its identity."""
import numpy as np
from PIL import Image

from experiments.common import results
from vmamba_jax.evaluation import wilson_interval
from vmamba_jax.reports import figures

SIDE, LOSSLESS = 112, 64  # pixels: largest side of a picture on the page; largest side that is stored without loss


def path(workdir, probe, identity):
    """The file of a cell: cells/PROBE-DIGEST.json."""
    return workdir / "cells" / f"{probe}-{results.digest(identity)}.json"


def finished(file, identity):
    """The cell in `file` if it is done; None otherwise, so that failed and inapplicable cells are tried again."""
    cell = results.saved(file, identity)
    return cell if cell is not None and cell["status"] == "done" else None


def note_changes(file, model, identity, note):
    """Say in one line why a cell is computed although another file holds a finished one of the same model and probe."""
    probe = file.name.removesuffix(f"-{results.digest(identity)}.json")
    others = [path for path in file.parent.glob(f"{probe}-*.json") if len(path.stem) == len(file.stem) and path != file]
    for other in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            content = results.load_json(other)
        except ValueError:
            continue
        if content.get("model") == model and content.get("status") == "done":
            note(f"{model}, {probe}: measured anew, since {other.name} was measured with {results.changes(content.get('identity'), identity)}")
            return


def row(correct, **facts):
    """One accuracy of a cell.

    Args:
        correct: (n,) bool, whether each image is classified correctly.
        facts: further entries.

    Returns:
        The facts with "accuracy", its 95 % "interval", "examples" and "right": `correct` packed into hexadecimal digits, the first image highest.
    """
    correct = np.asarray(correct, bool)
    return facts | {"accuracy": float(correct.mean()), "interval": wilson_interval(int(correct.sum()), correct.size), "examples": int(correct.size),
                    "right": np.packbits(correct).tobytes().hex()}


def picture(image, read=None, truth=None, label=""):
    """An image for the page.

    Args:
        image: (H, W, 1 or 3) in [0, 1]; scaled down to `SIDE` pixels at most.
        read: the predicted class.
        truth: the true class.
        label: text below the picture.

    Returns:
        {"uri": data URI, "read": the prediction, "right": whether it is correct, "label"}.
    """
    made = figures.pil_image(image)
    made.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    form, options = ("png", {"optimize": True}) if max(made.size) <= LOSSLESS else ("webp", {"quality": 80, "method": 6})
    return {"uri": figures.data_uri(made, form, **options), "read": read, "right": None if truth is None else read == truth, "label": label}
