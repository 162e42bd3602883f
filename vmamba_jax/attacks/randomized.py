"""Classifiers with random numbers, and averages over them (expectation over transformation, EOT).

A randomized classifier is a function `logits_fn(images, keys) -> logits` with one random key per image, the only source of randomness for
that image: its logits do not depend on the batch, and equal keys give equal logits. `expected_logits` averages it into a deterministic
classifier for any attack, `eot_pgd` attacks it with new keys at every step, and APGD takes it wrapped in `Randomized`.

Source: Athalye et al. 2018, section 3.
"""
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import losses
from vmamba_jax.core import checks
from vmamba_jax.core.keys import fold_in, image_keys
from vmamba_jax.core.records import record

AVERAGES = ("logits", "probabilities")


@record("logits_fn")
class Randomized:
    """A randomized classifier for APGD, which averages `eot` gradients of it.

    A pytree with `logits_fn` inside: as a `jax.tree_util.Partial` it passes through jit with its weights.

    Args:
        logits_fn: (images, keys) -> logits (batch, classes), with one random key per image.
    """
    logits_fn: Callable

    def __call__(self, images, keys):
        return self.logits_fn(images, keys)


def expected_logits(logits_fn, keys, samples, average="logits"):
    """A deterministic classifier `images -> logits`: the average of a randomized classifier over `samples` draws.

    Args:
        logits_fn: the randomized classifier (images, keys) -> (b, classes).
        keys: one random key per image of the batches it will be called with; draw j folds j into each of them, the same in every call.
        samples: number of draws >= 1, computed one after the other in the memory of one.
        average: "logits", or "probabilities": the logarithm of the mean softmax, whose cross-entropy is that of the mean prediction.

    Returns:
        A `jax.tree_util.Partial` with the keys (and the weights, if `logits_fn` is a Partial) as leaves.
    """
    checks.choice("average", average, AVERAGES)
    if not getattr(keys, "ndim", 0) or image_keys(keys, len(keys)) is not keys:
        raise ValueError(f"keys.shape={getattr(keys, 'shape', keys)}: expected one random key per image (attacks.per_image_keys)")
    fn = logits_fn if isinstance(logits_fn, jax.tree_util.Partial) else jax.tree_util.Partial(logits_fn)
    return jax.tree_util.Partial(_Average(checks.count("samples", samples), average), fn, keys)


@dataclasses.dataclass(frozen=True)
class _Average:
    """Static part of `expected_logits`: it compares by value, so equal averages share a compilation."""
    samples: int
    average: str

    def __call__(self, logits_fn, keys, images):
        def one(j):
            logits = logits_fn(images, fold_in(keys, j))
            return logits if self.average == "logits" else jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
        each = lax.map(jax.checkpoint(one), jnp.arange(self.samples))  # (samples, b, classes)
        return each.mean(0) if self.average == "logits" else jax.nn.logsumexp(each, 0) - jnp.log(self.samples)


def logits(logits_fn, images, keys):
    """Logits (batch, classes), of a single draw if `logits_fn` is `Randomized`."""
    if isinstance(logits_fn, Randomized):
        if keys is None:
            raise ValueError("key=None: expected a random key, as logits_fn is Randomized")
        return losses.checked(logits_fn(images, keys), images)
    return losses.checked(logits_fn(images), images)


def value_and_gradient(logits_fn, criterion, eot):
    """The function (images, keys) -> (value (batch,), success (batch,), gradient (batch, H, W, C)), all from the same passes.

    For a `Randomized` classifier the gradient is averaged over `eot` draws; value and success come from the last draw, as in the reference.
    A deterministic classifier is evaluated once. NaN in a gradient becomes 0.

    Args:
        logits_fn: images -> logits, or a `Randomized` classifier.
        criterion: logits -> (value, success), see `losses.criterion`.
        eot: number of draws >= 1.
    """
    def once(images, keys):
        def total(images):
            value, success = criterion(logits(logits_fn, images, keys))
            return value.sum(), (value, success)
        (_, (value, success)), gradient = jax.value_and_grad(total, has_aux=True)(images)
        return value, success, jnp.nan_to_num(gradient)

    if not isinstance(logits_fn, Randomized) or eot == 1:
        return once

    def mean(images, keys):
        def add(i, state):
            value, success, gradient = once(images, fold_in(keys, i))
            return value, success, state[2] + gradient
        zero = 0 * images.reshape(len(images), -1)[:, 0]
        dtype = jax.eval_shape(once, images, keys)[0].dtype
        value, success, gradient = lax.fori_loop(0, eot, add, (zero.astype(dtype), zero != 0, 0 * images))
        return value, success, gradient / eot
    return mean
