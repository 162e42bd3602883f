"""A network of two layers, and images that it classifies correctly except for the last few."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

KEY = jax.random.key(11)


def net(weights, images):
    net.traces.append(images.shape)
    a, b = weights
    return jnp.tanh(images.reshape(len(images), -1) @ a) @ b


TRACES = net.traces = []  # shapes of the images of each trace or call; as an attribute, no part of the function's identity


@functools.cache
def logits_fn(seed=0, side=3):
    a, b = jax.random.split(jax.random.key(seed))
    return Partial(net, (jax.random.normal(a, (2 * side * side, 16)), jax.random.normal(b, (16, 5))))


@functools.cache
def examples(n=37, wrong=6, side=3):
    """Images (n, side, side, 2) with the network's own predictions as labels, except for the last few."""
    images = np.asarray(jax.random.uniform(jax.random.key(1), (n, side, side, 2)))
    labels = np.array(logits_fn(side=side)(images).argmax(1))
    labels[n - wrong:] = (labels[n - wrong:] + 1) % 5
    return images, labels
