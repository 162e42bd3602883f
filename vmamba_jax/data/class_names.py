"""Class names in label order: those of a run, in a file `classes.json` beside its weights, and those of ADE20K and COCO."""
import functools
import importlib.resources
import json

from vmamba_jax.core import files
from vmamba_jax.core.run_folder import run_folder

FILE = "classes.json"


def save_class_names(folder, names):
    """Write the names into `folder`, atomically.

    Args:
        folder: an existing folder, such as a run's.
        names: class names; label k is names[k].
    """
    files.write_json(run_folder(folder) / FILE, [str(name) for name in names])


def load_class_names(folder):
    """Tuple of the class names in `folder`, label k at position k; None if there is no such file.

    Raises:
        ValueError: the file is damaged, or is no list of different names.
    """
    path = run_folder(folder) / FILE
    names = files.read_json(path)
    if names is None:
        return None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ValueError(f"{path}: expected a JSON list of different class names, in label order")
    return tuple(names)


@functools.cache
def dense_class_names(name):
    """The names of the 150 classes of ADE20K's benchmark ("ade20k") or of COCO's 80 object categories ("coco"), in label order."""
    path = importlib.resources.files("vmamba_jax.data.datasets") / "dense_classes.json"
    return tuple(json.loads(path.read_text(encoding="utf-8"))[name])
