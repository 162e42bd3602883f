"""Accuracy of a method of adaptation on a stream of corrupted images."""
import functools

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.core.images import unit_interval
from vmamba_jax.core.results import Rows
from vmamba_jax.core.statistics import summary
from vmamba_jax.evaluation import corruptions as corrupting
from vmamba_jax.evaluation.sets import reader

SETTINGS = ("continual", "reset", "episodic")


def stream_accuracy(method, variables, source, *, key, corruptions=corrupting.CORRUPTIONS, severities=(5,), setting="continual", batch_size=128, table=None,
                    init=None, progress=None) -> Rows:
    """Accuracy under each corruption, one batch after the other, each classified by the model that has adapted to it.

    An image with a logit that is not finite counts as wrong. The set is read in one random order. Its last batch begins with earlier images if it would be smaller; they are not counted again.

    Args:
        method: of this package.
        variables: of its model, at the start.
        source: a pair (images, labels) or a source of `vmamba_jax.data`, of clean square images. Images of one channel are corrupted as gray images of
            three, of which the first is used.
        key: random key of order, corruptions and drop path.
        corruptions, severities, table: as for `evaluation.corruption_accuracy`; severities of a corruption follow one another.
        setting: "continual": one stream, nothing is reset; "reset": the start again at each corruption and severity; "episodic": at each batch.
        batch_size: images of a batch, >= 2.
        init: `variables -> state` in place of `method.init`, for a method with further arguments; None: that.
        progress: called after each corruption and severity with its row; None: no calls.

    Returns:
        Rows {"corruption", "severity", "accuracy", "accuracy_interval", "examples"}, in the stream's order.
    """
    checks.choice("setting", setting, SETTINGS)
    read, n = reader(source)
    size = min(checks.count("batch_size", batch_size, 2), n)
    init = init or method.init
    order_key, corrupt_key, step_key = jax.random.split(key, 3)
    order = np.asarray(jax.random.permutation(order_key, n))
    step, state, rows, batches = _compiled(method), init(variables), [], 0
    for name, severity in [(name, severity) for name in corruptions for severity in severities]:
        correct = np.zeros(n, bool)
        if setting == "reset":
            state = init(variables)
        for start in range(0, n, size):
            index = order[min(start, n - size):min(start, n - size) + size]
            images, labels = read(index)
            keys = jax.vmap(lambda i: jax.random.fold_in(corrupt_key, i))(jnp.asarray(index))
            if setting == "episodic":
                state = init(variables)
            state, logits = step(state, corrupted(name, severity, unit_interval(images), keys, table), jax.random.fold_in(step_key, batches))
            new = slice(start - min(start, n - size), None)
            logits = np.asarray(logits)
            correct[index[new]] = ((logits.argmax(-1) == np.asarray(labels)) & np.isfinite(logits).all(-1))[new]
            batches += 1
        rows.append({"corruption": name, "severity": severity} | summary({"accuracy": float(correct.mean()), "examples": n}))
        if progress:
            progress(rows[-1])
    return Rows(rows)


@functools.lru_cache(maxsize=32)
def _compiled(method):
    """One jitted step for equal methods."""
    return jax.jit(method.step)


def corrupted(name, severity, images, keys, table=None):
    """`corruptions.corrupt` of images with three channels, or one."""
    images = jnp.asarray(images, jnp.float32)
    if images.shape[-1] == 3:
        return corrupting.corrupt(name, severity, images, keys, table=table)
    if images.shape[-1] != 1:
        raise ValueError(f"images.shape={images.shape}: expected one channel or three")
    return corrupting.corrupt(name, severity, jnp.repeat(images, 3, -1), keys, table=table)[..., :1]
