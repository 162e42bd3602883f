"""PGD with momentum (MI-FGSM): gradients accumulate, which transfers better between models."""
import dataclasses

import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks.base import Attack
from vmamba_jax.attacks.directions import unit
from vmamba_jax.attacks.restarts import worst_of
from vmamba_jax.core import checks
from vmamba_jax.core.records import record


@record("eps", "step_size", "decay")
class MomentumPGD(Attack):
    """m <- decay * m + g / |g|_1, then a steepest ascent step along m and projection (Dong et al. 2018, algorithm 1).

    Args:
        decay: weight >= 0 of the accumulated gradients (mu of the paper); may be traced.
        accumulate: what m sums up. "gradients", each divided by its l1 norm, as in the paper and torchattacks (whose mean instead of sum
            gives the same steps), or "steps", the unit steps that plain PGD would take (in linf the signs), as foolbox does.
        eps, steps, step_size, norm, random_start, restarts, loss, targeted, l1_fraction, projection, bounds: as of `pgd`; the paper
            takes linf, no random start and step_size = eps / steps.
    """
    eps: float
    steps: int
    step_size: float | None = None
    norm: str = "linf"
    random_start: bool = False
    _: dataclasses.KW_ONLY
    decay: float = 1.0
    accumulate: str = "gradients"
    restarts: int = 1
    loss: str = "cross_entropy"
    targeted: bool = False
    l1_fraction: float | None = 0.01
    projection: str = "nearest"
    bounds: tuple[float, float] = (0.0, 1.0)

    name = "momentum_pgd"

    def __post_init__(self):
        super().__post_init__()
        self._check_iterations()
        self._set(decay=checks.number("decay", self.decay, low=0))
        checks.choice("accumulate", self.accumulate, ("gradients", "steps"))

    def run(self, logits_fn, images, labels, keys):
        threat, evaluate, gradient, direction = self._tools(logits_fn, labels)
        size, decay = jnp.asarray(self.step_size, images.dtype), jnp.asarray(self.decay, images.dtype)

        def step(_, state):
            x, m = state
            g = gradient(x)
            m = decay * m + (unit(g, "l1") if self.accumulate == "gradients" else direction(g, x))
            return threat.project(images, x + size * direction(m, x)), m

        def climb(start):
            return lax.fori_loop(0, self.steps, step, (start, 0 * images))[0]

        if not self.random_start:
            return climb(images)
        return worst_of(lambda keys: climb(threat.random_start(images, keys)), evaluate, images, keys, self.restarts)


momentum_pgd = MomentumPGD
