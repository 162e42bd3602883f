"""ETA and EATA: entropy of reliable and different images only, weighted; EATA also keeps the important parameters near the source's."""
import dataclasses

import jax
import jax.numpy as jnp

from vmamba_jax.adaptation.base import MomentumAdaptation, entropy
from vmamba_jax.core import checks


@dataclasses.dataclass(frozen=True)
class Eata(MomentumAdaptation):
    """One update on the mean over the selected images of exp(E0 - H) H, plus the penalty if `init` got a Fisher information.

    An image is selected if its entropy H is below E0 = threshold * log(classes), and if the cosine of its prediction with the running mean of the
    earlier ones' is below `margin` in absolute value (the first selected batch has none). The running mean takes a tenth of each batch's mean. A batch
    without a selected image changes nothing. The weight exp(E0 - H) has no gradient.

    Attributes:
        model, learning_rate, norms, momentum: as for `MomentumAdaptation`.
        threshold: > 0, of the entropy over log(classes).
        margin: of the cosine, > 0; released: 0.05 for ImageNet, 0.4 for CIFAR-10.
        fisher_weight: of the penalty sum_i fisher_i (theta_i - source_i)^2, >= 0; released: 2000 for ImageNet, 1 for CIFAR-10.
        head: name of the last linear layer, which has the number of classes.

    Source: Niu et al. 2022, equations 2 to 8, arXiv 2204.02610; the running mean as released.
    """
    learning_rate: float = 2.5e-4
    threshold: float = 0.4
    margin: float = 0.05
    fisher_weight: float = 2000.0
    head: str = "head"

    def __post_init__(self):
        super().__post_init__()
        checks.number("threshold", self.threshold, above=0)
        checks.number("margin", self.margin, above=0)
        checks.number("fisher_weight", self.fisher_weight, low=0)

    def init(self, variables, fisher=None):
        """The `State` before the first batch.

        fisher: of `fisher`, for EATA; None: ETA, without penalty.
        """
        state = super().init(variables)
        adapted = self._adapted(variables)
        if fisher is not None and fisher.keys() != adapted.keys():
            raise ValueError(f"fisher of {len(fisher)} parameters: expected that of this method and model, with {len(adapted)}")
        fisher = {path: jnp.zeros_like(x) for path, x in adapted.items()} if fisher is None else fisher
        return state.replace(memory={"fisher": fisher, "source": adapted, "mean": jnp.zeros(self._classes(variables, self.head)), "begun": jnp.zeros((), bool)})

    def fisher(self, variables, images):
        """{path: mean over the images of the squared gradient of the cross-entropy with the model's own prediction} of the parameters that adapt.

        images: (n, H, W, C) of the source's distribution, in one batch.
        """
        adapted = self._adapted(variables)
        fn = lambda adapted: self._logits(self._with(variables, adapted), images)
        logits, pull = jax.vjp(lambda adapted: jax.nn.log_softmax(fn(adapted)), adapted)
        one = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=logits.dtype)

        def add(i, total):
            gradient, = pull(jnp.zeros_like(one).at[i].set(-one[i]))
            return {path: total[path] + gradient[path]**2 for path in total}

        total = jax.lax.fori_loop(0, len(images), add, {path: jnp.zeros_like(x) for path, x in adapted.items()})
        return {path: x / len(images) for path, x in total.items()}

    def update(self, adapted, moments, state, images, key):
        memory = state.memory

        def loss(adapted):
            logits = self._logits(self._with(state.variables, adapted), images, key)
            h, p = entropy(logits), jax.nn.softmax(logits)
            limit = self.threshold * jnp.log(jnp.asarray(logits.shape[-1], h.dtype))
            chosen = h < limit
            mean = memory["mean"].astype(p.dtype)
            cosine = (p @ mean) / jnp.maximum(jnp.linalg.norm(p, axis=-1) * jnp.linalg.norm(mean), 1e-8)
            chosen = jax.lax.stop_gradient(chosen & (~memory["begun"] | (jnp.abs(cosine) < self.margin)))
            weight = jax.lax.stop_gradient(jnp.where(chosen, jnp.exp(limit - h), 0))
            count = chosen.sum()
            average = jax.lax.stop_gradient(jnp.where(chosen[:, None], p, 0)).sum(0) / jnp.maximum(count, 1)
            penalty = sum((memory["fisher"][path] * (x - memory["source"][path])**2).sum() for path, x in adapted.items())
            return (weight * h).sum() / jnp.maximum(count, 1) + self.fisher_weight * penalty, (count, average)

        gradient, (count, average) = jax.grad(loss, has_aux=True)(adapted)
        new = self._apply(gradient, adapted, moments)
        adapted, moments = jax.tree.map(lambda a, b: jnp.where(count > 0, a, b), new, (adapted, moments))
        blended = jnp.where(memory["begun"], 0.9 * memory["mean"] + 0.1 * average, average)
        mean = jnp.where(count > 0, blended, memory["mean"]).astype(memory["mean"].dtype)
        return adapted, moments, memory | {"mean": mean, "begun": memory["begun"] | (count > 0)}


eata = Eata
