"""Models and variables from the original repositories: options -> Linen module, state dict -> Flax variables and back.

The conversion is strict: every weight of the model must be in the file and every entry of the chosen set of weights must be used; all
differences are reported together.
"""
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vmamba_jax.checkpoints import wrappers
from vmamba_jax.checkpoints.families import BY_MODEL, BY_NAME
from vmamba_jax.checkpoints.families.common import complete
from vmamba_jax.checkpoints.known_shapes import sentence
from vmamba_jax.checkpoints.misfit import Misfit, MisfitError
from vmamba_jax.models.classifier import Classifier

BUFFERS = r"(^|\.)num_batches_tracked$"             # no forward pass reads it
WEIGHT_TYPES = tuple(map(np.dtype, (np.float32, np.float64, np.float16, jnp.bfloat16)))  # integers are quantized weights, which need their scales
OUTPUT_NORM = "outnorm"                             # norms of a backbone's maps; a classifier's file has none


def model_from_options(family, options):
    """The Linen module that an original repository's options describe.

    Args:
        family: "vmamba", "vim" (options of their repositories), "deit" or "vit", "swin", "convnext", "mambaout", "resnet" (timm's constructor
            arguments), "spatial_mamba" and "mambavision" (constructor arguments of their repositories), "efficientnet_lite" (options of `efficientnet_lite_pytorch`), "upernet" and "mask_rcnn" (parts of MMSegmentation's and
            MMDetection's configs); "s4", "dss", "s5", "mega", "s6" (constructor arguments of arXiv 2406.05532's code) and our own "transformer"
            beside them.
        options: {option: value} with the repository's spelling; an option that is not given has the repository's default.

    Raises:
        KeyError: an unknown family.
        ValueError: an unknown option, or an unsupported value; the message names the option.
    """
    if family not in BY_NAME:
        raise KeyError(f"family={family!r}: expected one of {', '.join(BY_NAME)}")
    known = BY_NAME[family]
    return known.build(complete(family, known, options))


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
        MisfitError: missing, unexpected or misshapen entries, or weights that are no floating numbers.
        ValueError: several different sets of weights of which `weights` chooses none.
    """
    return unflatten_dict(convert_leaves(model, state_dict, weights)[0])


def convert_leaves(model, state_dict, weights=None, loose=frozenset()):
    """As `convert`, for weights that are to be adapted to the model.

    Args:
        model, state_dict, weights: as for `convert`.
        loose: paths of leaves that may be absent or have another shape than the model's.

    Returns:
        ({path: array}, the `wrappers.Found` weights, {path: shape in the file} of the leaves that were resized to the model's image size).
    """
    found = find(model, state_dict, weights)
    leaves, resized = assemble(model, named(model, found), loose, told=found.told)
    return leaves, found, resized


def named(model, found):
    """{current original name: array} of `Found` weights of a model, without buffers."""
    model, family = family_of(model)
    skipped = "|".join([BUFFERS, *getattr(family, "BUFFERS", ())])
    return {name: x for name, x in _modern(found.arrays, model, family).items() if not re.search(skipped, name)}


def find(model, state_dict, weights=None):
    """The `wrappers.Found` weights of a model in the content of a file; arguments and errors as for `convert`."""
    model, family = family_of(model)
    backbone = bool(getattr(model, "out_indices", ()))
    names = [name for path in leaves_of(model) if not (name := family.original_name(model, path[1:])).startswith(OUTPUT_NORM) or not backbone]
    return wrappers.find(state_dict, names, lambda arrays: _modern(arrays, model, family), weights)


def shapes_in(model, state_dict, weights=None):
    """{path: shape in the layout of Flax} of the kernels of a model in the content of a file; arguments and errors as for `convert`."""
    inner, family = family_of(model)
    arrays = named(model, find(model, state_dict, weights))
    kernels = {path: arrays.get(family.original_name(inner, path[1:])) for path in leaves_of(inner) if path[-1] == "kernel"}
    return {path: (*x.shape[2:], x.shape[1], x.shape[0]) for path, x in kernels.items() if x is not None and x.ndim > 1}


def reassemble(model, leaves, loose=frozenset()):
    """({path: array}, {path: earlier shape} of the resized leaves) of a model from {path: array} in the layout of Flax; dtypes stay.

    Args:
        model: as for `convert`.
        leaves: {path: array}, of the same family.
        loose: as for `convert_leaves`.

    Raises:
        MisfitError: as `convert`.
    """
    model, family = family_of(model)
    expected = leaves_of(model)
    known = {path: x for path, x in leaves.items() if path in expected and path[0] != "perturbations"}
    original = {family.original_name(model, path[1:]): _unfit(np.asarray(x), path, family) for path, x in known.items()}
    others = {"/".join(path): np.asarray(x) for path, x in leaves.items() if path not in known}
    found, resized = assemble(model, original | others, loose, dtypes=None)
    return {path: known[path] if path in known and path not in resized else x for path, x in found.items()}, resized


def assemble(model, weights, loose=frozenset(), dtypes=WEIGHT_TYPES, told=()):
    """({path: array}, {path: shape in the file} of the resized leaves) of a model from {original name: array}.

    Args:
        model: as for `convert`.
        weights: names and layouts are the family's current ones.
        loose: as for `convert_leaves`.
        dtypes: accepted ones, as float32 or float64 in the result; None: all, unchanged.
        told: phrases about the weights for an error.

    Raises:
        MisfitError: as `convert`.
    """
    model, family = family_of(model)
    given, weights, expected, fresh = weights, dict(weights), leaves_of(model), False
    if getattr(model, "out_indices", ()):
        weights = {name: x for name, x in weights.items() if not name.startswith(family.CLASSIFIER)}
        fresh = not any(name.startswith(OUTPUT_NORM) for name in weights)

    leaves, resized, misfit = {}, {}, Misfit({}, {}, {}, {})
    for path, target in expected.items():
        name = family.original_name(model, path[1:])
        if name not in weights:
            if fresh and name.startswith(OUTPUT_NORM):
                leaves[path] = (jnp.ones if path[-1] == "scale" else jnp.zeros)(target.shape, target.dtype)
            elif path not in loose:
                misfit.missing[name] = _original_shape(family, path, target.shape)
            continue
        x = np.asarray(weights.pop(name))
        if dtypes is not None and x.dtype not in dtypes:
            misfit.of_another_type[name] = x.dtype, ', '.join(map(str, dtypes))
            continue
        before, x = x, _fit(x, path, target.shape, model, family)
        if x.shape != target.shape and path not in loose:
            misfit.misshapen[name] = before.shape, _original_shape(family, path, target.shape)
            continue
        if _numbers(x) != _numbers(before):
            resized[path] = before.shape
        leaves[path] = x if dtypes is None else jnp.asarray(x.astype(x.dtype if x.dtype in (np.float32, np.float64) else np.float32))
    misfit.unexpected.update({name: tuple(np.shape(x)) for name, x in weights.items()})
    if any(misfit):
        unknown = "" if dtypes is None else "these shapes are those of no model of the catalog"  # None: of a place that says its model
        raise MisfitError(model, misfit, told, sentence(given) or unknown)
    return leaves, resized


def original_shapes(model):
    """{original name: original shape} of every array that `convert` needs for a model."""
    model, family = family_of(model)
    return {family.original_name(model, path[1:]): _original_shape(family, path, leaf.shape) for path, leaf in leaves_of(model).items()}


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
    model, family = family_of(model)
    given = {path: x for path, x in flatten_dict(variables).items() if path[0] != "perturbations"}
    expected = {path: leaf.shape for path, leaf in leaves_of(model).items()}
    differing = sorted("/".join(path) for path in given.keys() | expected.keys() if path not in given or expected.get(path) != np.shape(given[path]))
    if differing:
        raise ValueError(f"variables={', '.join(differing[:8])}: expected the names and shapes of this {type(model).__name__}")
    return {family.original_name(model, path[1:]): np.asarray(_unfit(np.asarray(x), path, family), order="C") for path, x in given.items()}


def family_of(model):
    """(the Linen module, its family's file); a TypeError for a model without a conversion."""
    model = model.model if isinstance(model, Classifier) else model
    if type(model) not in BY_MODEL:
        raise TypeError(f"model={type(model).__name__}: expected one of {', '.join(m.__name__ for m in BY_MODEL)}")
    family = BY_MODEL[type(model)]
    return model, family.of(model) if hasattr(family, "of") else family


def _modern(arrays, model, family):
    """The weights under the family's current names."""
    return family.modern(arrays, model) if hasattr(family, "modern") else arrays


def leaves_of(model):
    """{path: shape and dtype} of a model's variables."""
    model = model.model if isinstance(model, Classifier) else model
    try:
        hash(model)
    except TypeError:  # a module with a list as a field
        return _leaves_of(model)
    return _cached_leaves(model)


def smallest_side(model):
    """A side of images, in pixels, that the model accepts: its `image_size` where position embeddings fix it."""
    smallest = getattr(model, "smallest_side", 64)
    return max(smallest, model.image_size if getattr(model, "pos_embed", True) else 0) if hasattr(model, "image_size") else smallest


def _leaves_of(model):
    side = smallest_side(model)
    images = jax.ShapeDtypeStruct((1, side, side, model.in_channels), jnp.float32)
    variables = jax.eval_shape(lambda images: model.init(jax.random.key(0), images), images)
    return {path: leaf for path, leaf in flatten_dict(variables).items() if path[0] != "perturbations"}


_cached_leaves = functools.lru_cache(maxsize=16)(_leaves_of)


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


def _numbers(x):
    """How many real numbers an array holds."""
    return x.size * (2 if np.iscomplexobj(x) else 1)


def _original_shape(family, path, shape):
    """Shape in the original file of a Flax leaf of this shape."""
    if path[-1] == "kernel":
        return (shape[-1], shape[-2], *shape[:-2]) if len(shape) > 1 else tuple(shape)
    return family.original_shape(path, shape) if hasattr(family, "original_shape") else tuple(shape)
