"""Classifiers that draw random numbers, and the gradient averaged over their draws (expectation over transformation)."""
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import losses
from vmamba_jax.core.keys import fold_in
from vmamba_jax.core.records import record


@record("logits_fn")
class Randomized:
    """A classifier that draws: `logits_fn(images, keys)` with one random key per image. APGD averages `eot` gradients of it.

    A pytree with `logits_fn` inside: as a jax.tree_util.Partial it passes through jit, weights and all.
    """
    logits_fn: Callable

    def __call__(self, images, keys):
        return self.logits_fn(images, keys)


def logits(logits_fn, images, keys):
    """Logits (batch, classes), of one draw where `logits_fn` is `Randomized`."""
    if isinstance(logits_fn, Randomized):
        if keys is None:
            raise ValueError("key=None: expected a random key, as logits_fn is Randomized")
        return losses.checked(logits_fn(images, keys), images)
    return losses.checked(logits_fn(images), images)


def value_and_gradient(logits_fn, judge, eot):
    """The function (images, keys) -> (value (batch,), hit (batch,), gradient), with one pass for all three.

    `judge(logits) -> (value, hit)`. Of a `Randomized` classifier the gradient is the mean of `eot` draws, value and hit are the last one's,
    as in the reference; any other gives the same at every draw and is asked once. NaN in a gradient becomes 0, which moves nothing.
    """
    def once(images, keys):
        def total(images):
            value, hit = judge(logits(logits_fn, images, keys))
            return value.sum(), (value, hit)
        (_, (value, hit)), gradient = jax.value_and_grad(total, has_aux=True)(images)
        return value, hit, jnp.nan_to_num(gradient)

    if not isinstance(logits_fn, Randomized) or eot == 1:
        return once

    def mean(images, keys):
        def draw(i, state):
            value, hit, gradient = once(images, fold_in(keys, i))
            return value, hit, state[2] + gradient
        zero = 0 * images.reshape(len(images), -1)[:, 0]
        dtype = jax.eval_shape(once, images, keys)[0].dtype
        value, hit, gradient = lax.fori_loop(0, eot, draw, (zero.astype(dtype), zero != 0, 0 * images))
        return value, hit, gradient / eot
    return mean
