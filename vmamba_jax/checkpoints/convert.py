"""Foreign state dicts -> Flax variables, strictly: every weight of the model is found and every entry of the file used, or all that differs
is reported together."""
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vmamba_jax.checkpoints import vmamba_names
from vmamba_jax.models.classifier import Classifier
from vmamba_jax.models.resize import resize_grid
from vmamba_jax.models.vmamba import VMamba

NAMES = {VMamba: vmamba_names}  # family -> module with `original_name(model, path)` and `modern(state_dict)`
WRAPPERS = ("model_ema", "model", "state_dict")     # the original loader takes the averaged weights where a file holds both
PREFIXES = ("module.", "backbone.", "_orig_mod.")
IGNORED = ("num_batches_tracked",)                  # buffers that no forward pass reads


def convert(model, state_dict):
    """Flax variables of `model` from weights under their original names.

    Args:
        model: a Linen module of `vmamba_jax.models`, or a `Classifier` around one.
        state_dict: {original name: array}, or such a dict under "model", "model_ema" (preferred) or "state_dict", with or without "module."
            or "backbone." before every name. Old v0 names and those of the single-file release are understood, 1x1 convolutions stand for
            linear layers, and a position embedding of another grid is resized bicubically.

    Returns:
        {"params": ..., "batch_stats": ... where the model has it}; floating arrays in float32, or float64 where the file's are and x64 is on.

    Raises:
        TypeError: a model without a conversion, or a state_dict that holds no arrays.
        ValueError: missing, unexpected and misshapen entries, all named.
    """
    model, names = _family(model)
    weights = names.modern(unwrap(state_dict))
    weights = {name: x for name, x in weights.items() if name.rsplit(".", 1)[-1] not in IGNORED}

    variables, missing, misshapen = {}, [], []
    expected = flatten_dict(_abstract(model))
    for path, target in expected.items():
        name = names.original_name(model, path[1:])
        if name not in weights:
            missing.append(f"{name} {_original_shape(path, target.shape)}")
            continue
        x = _fit(np.asarray(weights.pop(name)), path, target.shape)
        if x.shape != target.shape:
            shape = _original_shape(path, x.shape) if x.ndim == len(target.shape) else x.shape
            misshapen.append(f"{name} is {shape}, expected {_original_shape(path, target.shape)}")
            continue
        wide = x.dtype if x.dtype in (np.float32, np.float64) else np.float32
        variables[path] = jnp.asarray(x.astype(wide))
    problems = [f"{len(found)} {kind}: {'; '.join(found)}" for kind, found in
                (("missing", missing), ("unexpected", [f"{n} {tuple(np.shape(x))}" for n, x in weights.items()]), ("misshapen", misshapen)) if found]
    if problems:
        raise ValueError(f"the checkpoint does not fit {type(model).__name__}:\n  " + "\n  ".join(problems))
    return unflatten_dict(variables)


def original_shapes(model):
    """{original name: original shape} of every array `convert` needs for a model."""
    model, names = _family(model)
    return {names.original_name(model, path[1:]): _original_shape(path, leaf.shape) for path, leaf in flatten_dict(_abstract(model)).items()}


def _family(model):
    model = model.model if isinstance(model, Classifier) else model
    if type(model) not in NAMES:
        raise TypeError(f"no conversion for a {type(model).__name__}; expected one of {', '.join(m.__name__ for m in NAMES)}")
    return model, NAMES[type(model)]


def unwrap(state_dict):
    """The bare {name: array} inside whatever a training program wrapped around it."""
    if not isinstance(state_dict, dict):
        raise TypeError(f"state_dict is a {type(state_dict).__name__}; expected a dict of arrays by name")
    while (inner := next((key for key in WRAPPERS if isinstance(state_dict.get(key), dict)), None)) is not None:
        state_dict = state_dict[inner]
    odd = [f"{name!r} ({type(x).__name__})" for name, x in state_dict.items() if not hasattr(x, "shape")]
    if odd or not state_dict:
        raise TypeError(f"state_dict has entries that are no arrays: {', '.join(odd[:8])}" if odd else "state_dict is empty; expected arrays by name")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state_dict):
            state_dict = {name.removeprefix(prefix): x for name, x in state_dict.items()}
    return state_dict


def _abstract(model):
    side = max(64, model.image_size if model.pos_embed else 0)
    images = jax.ShapeDtypeStruct((1, side, side, model.in_channels), jnp.float32)
    variables = jax.eval_shape(lambda images: model.init(jax.random.key(0), images), images)
    return {name: tree for name, tree in variables.items() if name != "perturbations"}


def _fit(x, path, shape):
    """An original array in the Flax layout of its leaf."""
    if path[-1] == "kernel":
        if x.ndim == 4 and len(shape) == 2 and x.shape[2:] == (1, 1):
            x = x[:, :, 0, 0]
        return x.transpose((2, 3, 1, 0) if x.ndim == 4 else None)
    if path[-1] == "pos_embed" and x.ndim == 4:
        x = x.transpose(0, 2, 3, 1)
        return np.asarray(resize_grid(x, *shape[1:3])) if x.shape[-1] == shape[-1] else x
    if path[-1] in vmamba_names.RESHAPED and x.size == np.prod(shape):
        return x.reshape(shape)
    return x


def _original_shape(path, shape):
    """The shape of a Flax leaf as the original file would have it."""
    if path[-1] == "kernel":
        return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1]
    return (shape[0], shape[3], *shape[1:3]) if path[-1] == "pos_embed" and len(shape) == 4 else tuple(shape)
