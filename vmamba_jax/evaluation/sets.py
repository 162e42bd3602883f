"""The sets that evaluations take: pairs (images, labels) and sources of `vmamba_jax.data`, checked against the classifier's classes."""
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.tree_util import Partial

from vmamba_jax.core import checks, closures
from vmamba_jax.core.images import gray_levels, unit_interval
from vmamba_jax.data.datasets import imagenet
from vmamba_jax.data.subsets import numbered
from vmamba_jax.evaluation.programs import held


class Entered(NamedTuple):
    """A set whose labels are classes of the classifier; every function that takes a source takes it too.

    Attributes:
        gather: integer positions (b,) -> (images (b, H, W, C), labels (b,)).
        examples: number of examples.
        classes: number of classes of the classifier.
        image: shape (H, W, C) and dtype of an image as the classifier gets it.
    """
    gather: Callable
    examples: int
    classes: int
    image: jax.ShapeDtypeStruct


def reader(source):
    """(function of an index array -> (images, labels), number of examples)."""
    if isinstance(source, Entered):
        return source.gather, source.examples
    if isinstance(source, tuple):
        if len(source) != 2 or not all(np.ndim(x) for x in source) or len(source[0]) != len(source[1]):
            raise ValueError(f"source={tuple(np.shape(x) for x in source)} (shapes): expected (images, labels) of one length")
        images, labels = map(np.asarray, source)
        checks.classes(labels, len(images))
        if images.ndim != 4:
            raise ValueError(f"images.shape={images.shape}: expected (n, height, width, channels)")
        images = gray_levels(images)
        read, n = (lambda index: (images[index], labels[index])), len(images)
    elif hasattr(source, "gather"):
        read, n = source.gather, len(source)
    else:
        raise TypeError(f"source={type(source).__name__}: expected a pair (images, labels) or a source of vmamba_jax.data")
    if n == 0:
        raise ValueError("source has 0 examples: expected at least one")
    return read, n


def examples(source):
    """Number of examples of a source, >= 1."""
    return reader(source)[1]


def enter(logits_fn, source, loop):
    """The set as `Entered`, after the checks that need no pass over the images.

    Args:
        logits_fn: images -> logits; it is traced once for its number of classes.
        source: as for `robust_accuracy`.
        loop: `Loop`, whose batches the shapes are those of.

    Raises:
        ValueError, TypeError: labels that are no classes of the classifier, or a source with another number of classes.
    """
    if isinstance(source, Entered):
        return source
    read, n = reader(source)
    size = getattr(source, "image_shape", None)
    first = unit_interval(np.zeros((1, *size), np.uint8) if size else read(np.arange(1))[0])
    checks.pixels(first, 0, 1)
    if isinstance(source, tuple) and first.dtype == source[0].dtype:
        unit_interval(np.asarray(source[0]))  # floating images: their range, before any work
    rows = -(-min(loop.batch_size, n) // loop.mesh.size)
    shape = jax.ShapeDtypeStruct((rows, *first.shape[1:]), first.dtype)
    fn = closures.argument(logits_fn, first.shape[1:])
    logits = jax.eval_shape(lambda fn, x: fn(x), held(fn if isinstance(fn, Partial) else Partial(fn))[0], shape)
    if len(getattr(logits, "shape", ())) != 2 or logits.shape[0] != rows:
        raise ValueError(f"logits_fn returned shape {getattr(logits, 'shape', type(logits).__name__)}: expected ({rows}, classes)")
    count = logits.shape[1]
    if isinstance(source, tuple):
        checks.classes(np.asarray(source[1]), n, count)
    elif names := getattr(source, "classes", None):
        _check_names(names, count, source)
    return Entered(read, n, count, jax.ShapeDtypeStruct(first.shape[1:], first.dtype))


def _check_names(names, count, source):
    if len(names) == count or (numbered(names) and len(names) < count):
        return
    identifiers = {identifier for identifier, _ in imagenet.classes()}
    advice = "; evaluation.over_classes(logits_fn, source) returns the logits of these" if count == len(identifiers) > len(names) and (
        identifiers.issuperset(names)) else ""
    shown = ", ".join(map(repr, names[:3])) + ", ..." * (len(names) > 3)
    raise ValueError(f"source={source!r} ({shown}): expected the {count} classes of logits_fn{advice}")
