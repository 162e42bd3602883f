"""SAR: the entropy of reliable images at a flat minimum, with a recovery of the source's parameters."""
import dataclasses

import jax
import jax.numpy as jnp
import optax

from vmamba_jax.adaptation.base import MomentumAdaptation, entropy
from vmamba_jax.core import checks


@dataclasses.dataclass(frozen=True)
class Sar(MomentumAdaptation):
    """One sharpness-aware update on the mean entropy H of the images with H < E0 = threshold * log(classes).

    The gradient at the parameters plus rho g / |g|, g being the gradient at the parameters, descends the mean entropy there of the images that are below
    E0 at both places. A running mean of the entropy of the images below E0 at the first place (0.9 of the old and 0.1 of the new value) falls below
    `recovery` if the model collapses; then the parameters and the optimizer return to the start.

    Attributes:
        model, learning_rate, norms, momentum: as for `MomentumAdaptation`; all norms adapt, the released program leaves out the last block's.
        threshold: > 0, of the entropy over log(classes).
        rho: length of the step to the sharper place, >= 0.
        recovery: in nats, >= 0; 0: never.

    Source: Niu et al. 2023, algorithm 1 and equations 1 to 6, arXiv 2302.12400.
    """
    learning_rate: float = 2.5e-4
    threshold: float = 0.4
    rho: float = 0.05
    recovery: float = 0.2

    def __post_init__(self):
        super().__post_init__()
        checks.number("threshold", self.threshold, above=0)
        checks.number("rho", self.rho, low=0)
        checks.number("recovery", self.recovery, low=0)

    def init(self, variables):
        state = super().init(variables)
        return state.replace(memory={"source": self._adapted(variables), "mean": jnp.zeros(()), "begun": jnp.zeros((), bool)})

    def update(self, adapted, moments, state, images, key):
        memory, start = state.memory, (state.memory["source"], self._optimizer.init(state.memory["source"]))

        def loss(adapted, chosen):
            """(mean entropy of the chosen images below E0, (they, mean entropy of all chosen ones))."""
            logits = self._logits(self._with(state.variables, adapted), images, key)
            h = entropy(logits)
            below = jax.lax.stop_gradient(chosen & (h < self.threshold * jnp.log(jnp.asarray(logits.shape[-1], h.dtype))))
            mean = lambda mask: jnp.where(mask, h, 0).sum() / jnp.maximum(mask.sum(), 1)
            return mean(below), (below, mean(chosen))

        gradient, (reliable, _) = jax.grad(loss, has_aux=True)(adapted, jnp.ones(len(images), bool))
        step = self.rho / (optax.tree.norm(gradient) + 1e-12)
        gradient, (both, value) = jax.grad(loss, has_aux=True)(jax.tree.map(lambda x, g: x + step * g, adapted, gradient), reliable)
        new = self._apply(gradient, adapted, moments)
        found = jax.tree.map(lambda a, b: jnp.where(both.any(), a, b), new, (adapted, moments))
        mean = jnp.where(memory["begun"], 0.9 * memory["mean"] + 0.1 * value, value)
        mean = jnp.where(reliable.any(), mean, memory["mean"]).astype(memory["mean"].dtype)
        begun = memory["begun"] | reliable.any()
        adapted, moments = jax.tree.map(lambda a, b: jnp.where(begun & (mean < self.recovery), a, b), start, found)
        return adapted, moments, memory | {"mean": mean, "begun": begun}


sar = Sar
