"""Models and variables from the original repositories: options -> Linen module, state dict -> Flax variables and back.

The conversion is strict: every weight of the model must be in the file and every entry of the chosen set of weights must be used; all
differences are reported together.
"""
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vmamba_jax.checkpoints import wrappers
from vmamba_jax.checkpoints.families import BY_MODEL, BY_NAME
from vmamba_jax.models.classifier import Classifier

BUFFERS = r"(^|\.)num_batches_tracked$"             # no forward pass reads it
WEIGHT_TYPES = tuple(map(np.dtype, (np.float32, np.float64, np.float16, jnp.bfloat16)))  # integers are quantized weights, which need their scales
OUTPUT_NORM = "outnorm"                             # norms of a backbone's maps; a classifier's file has none


def model_from_options(family, options):
    """The Linen module that an original repository's options describe.

    Args:
        family: "vmamba", "vim" (options of their repositories), "deit" or "vit", "swin", "convnext", "resnet" (timm's constructor arguments),
            "efficientnet_lite" (options of `efficientnet_lite_pytorch`); "s4", "dss", "s5", "mega", "s6" (constructor arguments of arXiv
            2406.05532's code) and our own "transformer" beside them.
        options: {option: value} with the repository's spelling; an option that is not given has the repository's default.

    Raises:
        KeyError: an unknown family.
        ValueError: an unknown option, or an unsupported value; the message names the option.
    """
    if family not in BY_NAME:
        raise KeyError(f"family={family!r}: expected one of {', '.join(BY_NAME)}")
    known = BY_NAME[family]
    unknown = [name for name in options if name not in known.DEFAULTS]
    if unknown:
        raise ValueError(f"{', '.join(f'{n}={options[n]!r}' for n in unknown)}: expected options of {family}: {', '.join(known.DEFAULTS)}")
    options = {**known.DEFAULTS, **options}
    for name in known.FIXED:
        if options[name] != known.DEFAULTS[name]:
            raise ValueError(f"{name}={options[name]!r}: expected {known.DEFAULTS[name]!r}, the only supported value")
    return known.build(options)


def convert(model, state_dict, weights=None):
    """Flax variables of `model` from weights with their original names.

    Args:
        model: a Linen module of `vmamba_jax.models`, or a `Classifier` around one.
        state_dict: {original name: array}, alone or as training programs store it: in nested dicts (timm, Lightning, DeepSpeed, OpenMMLab), with
            prefixes before the names ("module.", "_orig_mod.", "backbone.", any other), with copies and a normalizer. Older and other
            spellings of the families' repositories are accepted (see `families`), 1x1 convolutions serve as linear layers, position embeddings
            of another grid and relative position tables of another window are resized bicubically, and buffers that the model computes itself
            are ignored. For a backbone (`out_indices`) the classifier's entries are ignored too, and if the file has no norm of the maps, these
            norms start with scale 1 and bias 0.
        weights: "ema" (averaged weights), "raw", or the name of a set of weights as the error lists it; None: the averaged weights if the file
            has them, else its only ones.

    Returns:
        {"params": ..., "batch_stats": ... where the model has it}; floating arrays in float32, or float64 where the file's are and x64 is on.

    Raises:
        TypeError: a model without a conversion, or a state_dict without arrays.
        ValueError: missing, unexpected or misshapen entries, or weights that are no floating numbers; the first line of the message names the
            wrappers and the prefix found, the others list all entries. Several different sets of weights of which `weights` chooses none.
    """
    return convert_and_tell(model, state_dict, weights)[0]


def convert_and_tell(model, state_dict, weights=None):
    """(`convert(model, state_dict, weights)`, the `wrappers.Found` weights that it converted)."""
    model, family = _family(model)
    expected, backbone = flatten_dict(_abstract(model)), bool(getattr(model, "out_indices", ()))
    names = [name for path in expected if not (name := family.original_name(model, path[1:])).startswith(OUTPUT_NORM) or not backbone]
    found = wrappers.find(state_dict, names, lambda arrays: _modern(arrays, model, family), weights)
    return _convert(model, family, found, expected), found


def _convert(model, family, found, expected):
    """Flax variables of `model`, whose leaves are `expected`, from `Found` weights."""
    weights = _modern(found.arrays, model, family)
    skipped = "|".join([BUFFERS, *getattr(family, "BUFFERS", ())])
    weights = {name: x for name, x in weights.items() if not re.search(skipped, name)}
    fresh = False
    if getattr(model, "out_indices", ()):
        weights = {name: x for name, x in weights.items() if not name.startswith(family.CLASSIFIER)}
        fresh = not any(name.startswith(OUTPUT_NORM) for name in weights)

    variables, missing, misshapen, odd = {}, [], [], []
    for path, target in expected.items():
        name = family.original_name(model, path[1:])
        if name not in weights:
            if fresh and name.startswith(OUTPUT_NORM):
                variables[path] = (jnp.ones if path[-1] == "scale" else jnp.zeros)(target.shape, target.dtype)
                continue
            missing.append(f"{name} {_original_shape(family, path, target.shape)}")
            continue
        x = np.asarray(weights.pop(name))
        if x.dtype not in WEIGHT_TYPES:
            odd.append(f"{name} is {x.dtype}, expected one of {', '.join(map(str, WEIGHT_TYPES))}")
            continue
        x = _fit(x, path, target.shape, model, family)
        if x.shape != target.shape:
            shape = _original_shape(family, path, x.shape) if x.ndim == len(target.shape) else x.shape
            misshapen.append(f"{name} is {shape}, expected {_original_shape(family, path, target.shape)}")
            continue
        wide = x.dtype if x.dtype in (np.float32, np.float64) else np.float32
        variables[path] = jnp.asarray(x.astype(wide))
    unexpected = [f"{n} {tuple(np.shape(x))}" for n, x in weights.items()]
    listed = (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen), ("of another type", odd))
    if any(entries for _, entries in listed):
        few = None if variables else 8  # a file of another model: two lists of every weight tell nothing
        lines = [f"{len(entries)} {kind}: {'; '.join(entries[:few])}{'; ...' if few and len(entries) > few else ''}" for kind, entries in listed if entries]
        told = f" (found: {'; '.join(found.told)})" if found.told else ""
        raise ValueError(f"the checkpoint does not fit {type(model).__name__}{told}:\n  " + "\n  ".join(lines))
    return unflatten_dict(variables)


def original_shapes(model):
    """{original name: original shape} of every array that `convert` needs for a model."""
    model, family = _family(model)
    return {family.original_name(model, path[1:]): _original_shape(family, path, leaf.shape)
            for path, leaf in flatten_dict(_abstract(model)).items()}


def to_state_dict(model, variables):
    """{original name: numpy array}, the inverse of `convert`, for the original programs (which may expect buffers that they compute themselves).

    The arrays are contiguous, because safetensors writes the memory of other arrays in the wrong order without an error.

    Args:
        model: a Linen module of `vmamba_jax.models`, or a `Classifier` around one.
        variables: the model's variables.

    Raises:
        TypeError: a model without a conversion.
        ValueError: variables with other names or shapes than the model's.
    """
    model, family = _family(model)
    given = {path: x for path, x in flatten_dict(variables).items() if path[0] != "perturbations"}
    expected = {path: leaf.shape for path, leaf in flatten_dict(_abstract(model)).items()}
    differing = sorted("/".join(path) for path in given.keys() | expected.keys() if path not in given or expected.get(path) != np.shape(given[path]))
    if differing:
        raise ValueError(f"variables={', '.join(differing[:8])}: expected the names and shapes of this {type(model).__name__}")
    return {family.original_name(model, path[1:]): np.asarray(_unfit(np.asarray(x), path, family), order="C") for path, x in given.items()}


def _family(model):
    model = model.model if isinstance(model, Classifier) else model
    if type(model) not in BY_MODEL:
        raise TypeError(f"model={type(model).__name__}: expected one of {', '.join(m.__name__ for m in BY_MODEL)}")
    family = BY_MODEL[type(model)]
    return model, family.of(model) if hasattr(family, "of") else family


def _modern(arrays, model, family):
    """The weights under the family's current names."""
    return family.modern(arrays, model) if hasattr(family, "modern") else arrays


def _abstract(model):
    smallest = getattr(model, "smallest_side", 64)
    side = max(smallest, model.image_size if getattr(model, "pos_embed", True) else 0) if hasattr(model, "image_size") else smallest
    images = jax.ShapeDtypeStruct((1, side, side, model.in_channels), jnp.float32)
    variables = jax.eval_shape(lambda images: model.init(jax.random.key(0), images), images)
    return {name: tree for name, tree in variables.items() if name != "perturbations"}


def _fit(x, path, shape, model, family):
    """An original array in the layout of its Flax leaf: (out, in, ...) kernels as (..., in, out)."""
    if path[-1] == "kernel":
        if x.ndim == 4 and len(shape) == 2 and x.shape[2:] == (1, 1):
            x = x[:, :, 0, 0]
        return x.transpose(*range(2, x.ndim), 1, 0) if x.ndim > 1 else x
    return family.fit(x, path, shape, model) if hasattr(family, "fit") else x


def _unfit(x, path, family):
    """Inverse of `_fit`."""
    if path[-1] == "kernel":
        return x.transpose(-1, -2, *range(x.ndim - 2)) if x.ndim > 1 else x
    return family.unfit(x, path) if hasattr(family, "unfit") else x


def _original_shape(family, path, shape):
    """Shape in the original file of a Flax leaf of this shape."""
    if path[-1] == "kernel":
        return (shape[-1], shape[-2], *shape[:-2]) if len(shape) > 1 else tuple(shape)
    return family.original_shape(path, shape) if hasattr(family, "original_shape") else tuple(shape)
