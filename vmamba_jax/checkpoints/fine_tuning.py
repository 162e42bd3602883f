"""Weights for another model than their own, as timm adapts them: another head, other image channels, another image size.

Source: timm's `adapt_input_conv` (channels) and `load_pretrained` (head) of huggingface/pytorch-image-models.
"""
import collections
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from vmamba_jax.checkpoints.convert import family_of, leaves_of, smallest_side
from vmamba_jax.core import checks
from vmamba_jax.models.dense.layers import OverBackbone
from vmamba_jax.models.dense.mask_rcnn import MaskRCNN
from vmamba_jax.models.dense.upernet import UperNet

HEADS = ("keep", "new", "slice")
LAST = {UperNet: ("decode_head", "conv_seg"), MaskRCNN: ("bbox_head", "fc_cls")}  # layers whose outputs are classes


def loose(model, head):
    """Paths of the leaves that may differ from the model's: none for head="keep", else those of the head and the kernel that reads the images."""
    if checks.choice("head", head, HEADS) == "keep":
        return frozenset()
    if not hasattr(type(family_of(model)[0]), "PARAMETERS"):
        raise ValueError(f"head={head!r}: expected 'keep' for a segmenter or a detector")
    return frozenset({*head_paths(model), images_path(model)})


def head_paths(model):
    """Paths of the dense layer that returns the logits, its kernel first."""
    model, _ = family_of(model)
    if not hasattr(type(model), "PARAMETERS"):  # a segmenter or a detector
        return []
    return sorted((path for path in leaves_of(model) if path[:2] == ("params", model.PARAMETERS.logits)), key=lambda path: path[-1] != "kernel")


def logits_paths(model):
    """As `head_paths`, but of a segmenter or a detector those of the layer that returns the logits of its classes."""
    model, _ = family_of(model)
    last = LAST.get(type(model))
    return head_paths(model) if last is None else [path for path in leaves_of(model) if path[:3] == ("params", *last) and path[-1] == "kernel"]


def images_path(model):
    """Path of the kernel that reads the images."""
    model, _ = family_of(model)
    inside = ("backbone",) if isinstance(model, OverBackbone) else ()
    images = (model.backbone if inside else model).PARAMETERS.images
    return next(path for path in leaves_of(model)
                if path[:1 + len(inside)] == ("params", *inside) and re.fullmatch(images, "/".join(path[1 + len(inside):])))


def adapt(model, leaves, head, *, classes=None, known=None, key=None):
    """({path: array} that fit the model, [one line per adaptation]).

    Args:
        model: the Linen module to fit.
        leaves: {path: array}; the `loose` ones may differ from the model's.
        head: "keep", "new" or "slice", see `checkpoints.read_variables`.
        classes: names of the model's classes, for "slice".
        known: names of the weights' classes, for "slice".
        key: random key of a new head; None: key 0.
    """
    model, _ = family_of(model)
    if head == "keep":
        return leaves, []
    leaves, said, expected, last = dict(leaves), [], leaves_of(model), head_paths(model)
    if (stem := images_path(model)) in leaves and leaves[stem].shape != expected[stem].shape:
        before = leaves[stem].shape[2]
        leaves[stem] = channels(leaves[stem], expected[stem].shape[2])
        rule = "their sum" if model.in_channels == 1 else f"the weights' repeated and scaled by {before}/{model.in_channels}"
        said.append(f"input channels: {model.in_channels} instead of {before}, {rule}")
    had = leaves[last[0]].shape[-1] if last and last[0] in leaves else 0
    if head == "new" and last:
        leaves |= _new_head(model, jax.random.key(0) if key is None else key)
        said.append(f"head: new, of {model.num_classes} classes" + f"; the weights have {had}" * bool(had))
    elif head == "slice":
        rows = rows_of(classes, known, had, model.num_classes)
        leaves |= {path: leaves[path][..., rows] for path in last}
        said.append(f"head: {len(rows)} of the weights' {had} classes, by name")
    return leaves, said


def resized_lines(resized, leaves):
    """One line per kind of leaf that was resized to another image size."""
    kinds = collections.defaultdict(list)
    for path in resized:
        kinds[path[-1]].append(path)
    return [f"{name}: resized from {resized[paths[0]]} to {tuple(leaves[paths[0]].shape)}" + f" and {len(paths) - 1} more" * (len(paths) > 1)
            for name, paths in kinds.items()]


def channels(kernel, n):
    """A kernel (h, w, channels, out) for n image channels, by timm's rule: for one their sum, else repeated in turn and scaled to the same sum."""
    own = kernel.shape[2]
    if n == 1:
        return kernel.sum(2, keepdims=True)
    repeated = np.tile(np.asarray(kernel), (1, 1, math.ceil(n / own), 1))[:, :, :n]
    return repeated * np.asarray(own / n, repeated.dtype)


def rows_of(classes, known, count, wanted):
    """Rows of a head, as an int array, for the classes of another one.

    Args:
        classes: names of the wanted classes in label order: as `known` has them; for ImageNet's, WordNet identifiers, label numbers, or names.
        known: names of the head's classes, or `imagenet.classes()`.
        count: of the head's classes.
        wanted: number of classes of the model.

    Raises:
        ValueError: unknown names on either side, or a class that the weights lack.
    """
    if known is None or len(known) != count:
        raise ValueError(f"head='slice': expected weights with {'names' if known is None else f'{len(known)} names'} of their {count} classes; head='new' needs none")
    if classes is None or len(classes) != wanted:
        raise ValueError(f"classes={'None' if classes is None else f'{len(classes)} names'}: expected the names of the model's {wanted} classes, with head='slice'")
    places = collections.defaultdict(list)
    for k, names in enumerate(known):
        wordnet = names if isinstance(names, tuple) else (names,)
        for name in {*wordnet, *(wordnet[1].split(", ") if len(wordnet) > 1 else ()), *([str(k)] if len(wordnet) > 1 else [])}:
            places[name.lower()].append(k)
    found = [places.get(str(name).lower(), []) for name in classes]
    if bad := [f"{name!r}{' (two classes)' if rows else ''}" for name, rows in zip(classes, found, strict=True) if len(rows) != 1]:
        raise ValueError(f"classes={', '.join(bad[:5])}{', ...' * (len(bad) > 5)}: expected classes of the weights, such as {_example(known)}")
    return np.array([rows[0] for rows in found])


def _new_head(model, key):
    """{path: array} of the head as `model.init(key, images)` has it, without the rest of the model's memory and time."""
    name, side = model.PARAMETERS.logits, smallest_side(model)
    init = jax.jit(lambda key: model.init(key, jnp.zeros((1, side, side, model.in_channels)))["params"][name])
    return {("params", name, *path): np.asarray(x) for path, x in flatten_dict(init(key)).items()}


def _example(known):
    return ", ".join(repr(names[0] if isinstance(names, tuple) else names) for names in known[:3])
