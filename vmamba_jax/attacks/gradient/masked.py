"""PGD on chosen pixels: patches, rings around the center, the beginning of a scan, any mask."""
import dataclasses

import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import masks
from vmamba_jax.attacks.base import worst_of
from vmamba_jax.attacks.gradient.pgd import PGD
from vmamba_jax.core.records import record


@record("eps", "step_size", "mask")
class MaskedPGD(PGD):
    """PGD on the pixels of a mask; all other pixels are bit-identical to the image's.

    The perturbation's norm over the masked values is at most `eps`. In linf every masked value has the budget `eps`, so a larger mask is a
    stronger attack; in l2 and l1 a smaller mask spends the same length on fewer values.

    Args:
        mask: see `masks.get`. An array is a pytree leaf: other masks of its shape do not recompile. One mask per image, (b, H, W, 1), must
            match the batch; for a set that is cut into batches, pass one mask for all images or a function of them. `settings` recreates
            the attack only if the mask is a named one.
        start: "uniform" is uniform in the ball of the masked values; see `pgd` for the others.
        l1_fraction: fraction of all values of the image, as in `pgd`.
        eps, steps, step_size, norm, random_start, restarts, loss, targeted, projection, bounds: see `pgd`.
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
            start = threat.random_start(images, keys, mask) if self.start == "uniform" else self._start(images, keys)
            return lax.fori_loop(0, self.steps, step, only(start))
        return worst_of(search, evaluate, images, keys, self.restarts)


masked_pgd = MaskedPGD
