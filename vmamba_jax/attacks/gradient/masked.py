"""PGD that changes chosen pixels only: patches, rings around the centre, the beginning of a scan, any mask."""
import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import masks
from vmamba_jax.attacks.gradient.pgd import PGD
from vmamba_jax.attacks.restarts import worst_of
from vmamba_jax.core.records import record


@record("eps", "step_size", "mask")
class MaskedPGD(PGD):
    """PGD on the pixels of a mask; all others keep their values to the bit.

    The threat model is that of the masked perturbation: its norm over the mask's values alone is at most eps. In linf that is eps for every
    masked value, so a larger mask is a stronger attacker; in l2 and l1 the same length is spent on fewer values the smaller the mask.

    Args:
        mask: see `masks.get`. An array is a pytree leaf: other masks of its shape need no new compilation. One mask per image, (b, H, W, 1),
            must match the batch; where a set is cut into batches, give one for all images or a function of them. Of `settings` only
            named masks make the attack again.
        random_start: a point drawn uniformly from the ball in the mask's values.
        l1_fraction: share of all values of the image, as of `pgd`.
        eps, steps, step_size, norm, restarts, loss, targeted, projection, bounds: as of `pgd`.
    """
    _: dataclasses.KW_ONLY
    mask: object

    name = "masked_pgd"

    def __post_init__(self):
        super().__post_init__()
        self._set(mask=masks.get(self.mask))

    @property
    def settings(self):
        return super().settings | {"mask": self.mask.settings}

    def run(self, logits_fn, images, labels, keys):
        mask = self.mask(images)
        only = lambda x: jnp.where(mask, x, images)  # its gradient is zero outside the mask
        threat, evaluate, gradient, direction = self._tools(lambda x: logits_fn(only(x)), labels)
        size = jnp.asarray(self.step_size, images.dtype)

        def step(_, x):
            return only(threat.project(images, x + size * direction(gradient(x), x)))

        if not self.random_start:
            return lax.fori_loop(0, self.steps, step, images)

        def search(keys):
            noise = ball(threat.norm, mask, images, keys)
            return lax.fori_loop(0, self.steps, step, only(threat.project(images, images + jnp.asarray(self.eps, images.dtype) * noise)))
        return worst_of(search, evaluate, images, keys, self.restarts)


def ball(norm, mask, images, keys):
    """A point drawn uniformly (by volume) from the unit ball of the values in the mask, zero elsewhere: (b, H, W, C)."""
    shape, dtype = images.shape[1:], images.dtype

    def draw(key, mask):
        one, two = jax.random.split(key)
        match norm:
            case "linf":
                return mask * jax.random.uniform(one, shape, dtype, -1, 1)
            case "l2":
                x = mask * jax.random.normal(one, shape, dtype)
                count = jnp.maximum(mask.sum(dtype=jnp.float32), 1).astype(dtype)
                length = jnp.sqrt((x * x).sum())
                return x / jnp.where(length > 0, length, 1) * jax.random.uniform(two, (), dtype) ** (1 / count)
            case "l1":
                rest, sign = jax.random.split(two)
                x = mask * jax.random.exponential(one, shape, dtype)
                return x / (x.sum() + jax.random.exponential(rest, (), dtype)) * jax.random.rademacher(sign, shape, dtype)

    return jax.vmap(draw)(keys, jnp.broadcast_to(mask, images.shape))


masked_pgd = MaskedPGD
