"""What an unknown file of weights is: its model, its classes, and the command that converts it."""
import contextlib
import shlex

from vmamba_jax.checkpoints import wrappers
from vmamba_jax.checkpoints.convert import convert_leaves, find, named, original_shapes
from vmamba_jax.checkpoints.known_shapes import CLASSES, fitting, head_shape
from vmamba_jax.models import catalog

LEAST = 0.8  # share of the names of a shallow model by which its family is recognized


def recognize(content):
    """Lines about the content of a file: the models that it fits with the number of classes, or the family by its names.

    Args:
        content: what `read_torch` returns.

    Returns:
        (lines, names of the fitting models, number of classes); no names if none fits.
    """
    for held in wrappers.weight_sets(content).values() if isinstance(content, dict) else ():
        arrays = {name: x for name, x in held.items() if isinstance(name, str) and hasattr(x, "shape")}
        if names := fitting(arrays):
            return _checked(content, names, head_shape(arrays)[0])
    shares = {}
    for family in catalog.FAMILIES:  # by name, whatever surrounds the weights
        model = _shallow(next(name for name, entry in catalog.MODELS.items() if entry.family is family))
        with contextlib.suppress(TypeError, ValueError):
            found = find(model, content)
            if names := fitting(found.arrays):
                return _checked(content, names, head_shape(found.arrays)[0])
            wanted = original_shapes(model)
            shares[family.__name__] = len(wanted.keys() & named(model, found).keys()) / len(wanted)
    best = max(shares, key=shares.get, default=None)
    if best is None or shares[best] < LEAST:
        return ["no model of the catalog has these names"], [], None
    return [f"the names are those of {best}, the shapes of no model of the catalog: convert it with --model and the fields that differ, --override"], [], None


def _shallow(name):
    """A catalog model with one block in each stage: quick to trace, with names that all of its family have."""
    model = catalog.create_model(name)
    one = {field: (1,) * len(getattr(model, field)) for field in ("depths", "layers") if isinstance(getattr(type(model), field, ()), tuple)
           and isinstance(getattr(model, field, None), tuple)}
    return model.clone(**one) if one else model.clone(depth=1) if isinstance(getattr(model, "depth", None), int) else model


def _checked(content, names, classes):
    """As `recognize`, for names found by counting: converts the weights as a proof."""
    entry = catalog.entry(names[0])
    try:
        convert_leaves(catalog.create_model(names[0], num_classes=classes), content)
    except (TypeError, ValueError) as error:
        return [f"as many parameters as {names[0]}, but {str(error).splitlines()[0]}"], [], None
    return [f"model: {' or '.join(names)} ({entry.family.__name__}), {classes} classes"], names, classes


def command(file, names, classes):
    """Shell line that converts a file."""
    model = names[0]
    return shlex.join(["python", "-m", "vmamba_jax.checkpoints", "convert", str(file), "--model", model, "--out", f"weights/{model}",
                       *(["--override", f"num_classes={classes}"] if classes != CLASSES else [])])
