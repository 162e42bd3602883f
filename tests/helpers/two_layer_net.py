"""A two-layer classifier of five classes, cheap to compile, for the property tests of attacks."""
import math

import jax
import jax.numpy as jnp
from jax.tree_util import Partial


def net(weights, images):
    """Logits (batch, 5), in the dtype of the images."""
    a, b = (w.astype(images.dtype) for w in weights)
    return jnp.tanh(images.reshape(len(images), -1) @ a) @ b


def examples(shape, scale=0.3, low=0.0, high=1.0):
    """(logits_fn, images of `shape` (batch, H, W, C) in [low, high], labels as predicted); the first layer's weights are N(0, scale^2)."""
    a, b, c = jax.random.split(jax.random.key(0), 3)
    weights = scale * jax.random.normal(a, (math.prod(shape[1:]), 16)), jax.random.normal(b, (16, 5))
    images = jax.random.uniform(c, shape, minval=low, maxval=high)
    return Partial(net, weights), images, net(weights, images).argmax(1)
