"""How APGD moves and when it slows: momentum with halving steps in linf and l2, sparse sign steps in l1. All state is per image."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.attacks import norms, order
from vmamba_jax.attacks.directions import unit


def rise_limits(steps, rho):
    """The checkpoints of dense APGD: entry j of steps + 1 is how many rises are too few for the step size after step j; -1: no check.

    The first window is 22% of the steps, each later one 3% of the steps shorter, down to 6% (Croce & Hein 2020, section 3).
    """
    limits, window, since = np.full(steps + 1, -1, np.int32), max(int(0.22 * steps), 1), 0
    for j in range(1, steps + 1):
        since += 1
        if since == window:
            limits[j], since = int(window * rho), 0
            window = max(window - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    return limits


def sparsity_checks(steps):
    """The checkpoints of sparse APGD, every 4% of the steps: 0 after a step that is one, -1 after others."""
    j = np.arange(steps + 1)
    return np.where((j > 0) & (j % max(int(0.04 * steps), 1) == 0), 0, -1).astype(np.int32)


class Dense(NamedTuple):
    """linf and l2 (Croce & Hein 2020, algorithm 1). All fields are (batch,)."""
    size: jax.Array      # of a step
    rises: jax.Array     # steps since the last check that raised the loss
    last: jax.Array      # loss of the previous iterate
    checked: jax.Array   # best loss at the last check
    halved: jax.Array    # whether the last check halved the steps

    @classmethod
    def start(cls, threat, images, value):
        zero = 0 * images.reshape(len(images), -1)[:, 0]
        return cls(zero + 2 * threat.eps, zero.astype(jnp.int32), 0 * value, value, zero == 0)

    def observe(self, j, limit, threat, images, value, best, best_value):
        """The pace after evaluating iterate j, and which images go back to their best iterate."""
        # The first rise is counted against 0, as in the reference, whose table of losses is still empty there.
        rises = self.rises + ((value > self.last) & (j > 0))
        checked = jnp.where(j == 0, value, self.checked)
        slow = (rises <= limit) | (~self.halved & (checked >= best_value))
        check = limit >= 0
        back = check & slow
        return Dense(jnp.where(back, self.size / 2, self.size), jnp.where(check, 0, rises), jnp.where(j == 0, self.last, value),
                     jnp.where(check, best_value, checked), jnp.where(check, slow, self.halved)), back

    def move(self, j, threat, images, x, before, gradient):
        size = norms.per_image(self.size, images)
        if threat.norm == "linf":
            direction = jnp.sign(gradient)
        else:  # damped as in the reference: where DLR is flat the gradient is rounding noise, which must not become a step
            length = norms.length(gradient, "l2")
            direction = unit(gradient, "l2") * norms.per_image(length / (length + 1e-12), images)
        target = threat.project(images, x + size * direction)
        a = jnp.where(j == 0, 1, 0.75).astype(images.dtype)
        return threat.project(images, x + a * (target - x) + (1 - a) * (x - before))


class Sparse(NamedTuple):
    """l1 (Croce & Hein 2021, algorithm 1): equal steps on the values of largest gradient, as many as the best iterate suggests.

    All fields are (batch,).
    """
    size: jax.Array      # l1 length of a step
    share: jax.Array     # of the values that a step moves
    count: jax.Array     # of the values that the best iterate had changed at the last check

    @classmethod
    def start(cls, threat, images, start=None):
        """`start` is given where an earlier phase left it, with its sparsity; a random start moves a fifth of the values."""
        d = images[0].size
        zero = 0 * images.reshape(len(images), -1)[:, 0]
        count = zero + d if start is None else changed(images, start)
        return cls(zero + threat.eps, zero + 0.2 if start is None else count / d / 1.5, count)

    def observe(self, j, limit, threat, images, value, best, best_value):
        count, check = changed(images, best), limit >= 0
        sparser = count < 0.95 * self.count
        eps = jnp.asarray(threat.eps, images.dtype)
        size = jnp.where(sparser, eps, jnp.clip(self.size / 1.5, eps / 10, eps))
        now = Sparse(size, count / images[0].size / 1.5, count)
        return jax.tree.map(lambda new, old: jnp.where(check, new, old), now, self), check & sparser

    def move(self, j, threat, images, x, before, gradient):
        d = images[0].size
        a = jnp.abs(gradient.reshape(len(images), -1))
        rank = jnp.clip((1 - self.share) * d, 0, d - 1).astype(jnp.int32)
        sign = jnp.where(a >= order.kth_smallest(a, rank), jnp.sign(gradient).reshape(a.shape), 0)
        step = self.size[:, None] * sign / (jnp.abs(sign).sum(1, keepdims=True) + 1e-10)
        delta = x + step.reshape(x.shape) - images
        return images + norms.l1_in_box(images, delta, jnp.asarray(threat.eps, x.dtype), threat.lower, threat.upper)


def changed(images, x):
    """How many values of each image differ: (batch,), in the images' dtype."""
    return (x != images).reshape(len(images), -1).sum(1).astype(images.dtype)
