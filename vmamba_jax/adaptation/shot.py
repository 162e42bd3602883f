"""SHOT: certain and diverse predictions of all but the last layer, with pseudo-labels by the nearest centroid."""
import dataclasses

import jax
import jax.numpy as jnp
import optax

from vmamba_jax.adaptation.base import Adaptation, entropy
from vmamba_jax.core import checks


@dataclasses.dataclass(frozen=True)
class Shot(Adaptation):
    """One update on mean H(p) - H(mean p) + beta * cross-entropy with pseudo-labels, of all parameters but the last layer's.

    The pseudo-labels are those of the batch: centroids of the features weighted by the predictions, the nearest centroid by cosine, centroids of these
    classes, and the nearest again. A class that no image of the batch is nearest to has no second centroid. The published method makes them over the
    whole target set, which a stream does not have.

    Attributes:
        model, learning_rate: as for `Adaptation`.
        momentum: of SGD, in [0, 1).
        beta: weight of the pseudo-labels, >= 0.
        head: name of the last linear layer, whose inputs are the features.

    Source: Liang et al. 2020, equations 3 to 7, arXiv 2002.08546.
    """
    learning_rate: float = 1e-3
    momentum: float = 0.9
    beta: float = 0.3
    head: str = "head"

    needs = "a model with parameters besides its head"

    def __post_init__(self):
        super().__post_init__()
        checks.number("momentum", self.momentum, low=0, below=1)
        checks.number("beta", self.beta, low=0)

    def init(self, variables):
        self._check_head(variables, self.head)
        return super().init(variables)

    def adapts(self, path, variables):
        return path[0] != self.head

    @property
    def _optimizer(self):
        return optax.sgd(self.learning_rate, self.momentum)

    def update(self, adapted, moments, state, images, key):
        def loss(adapted):
            variables = self._with(state.variables, adapted)
            logits = self._logits(variables, images, key)
            log_p, mean = jax.nn.log_softmax(logits), jax.nn.softmax(logits).mean(0)
            diversity = -(mean * jnp.log(jnp.maximum(mean, jnp.finfo(mean.dtype).tiny))).sum()
            return entropy(logits).mean() - diversity - self.beta * jnp.take_along_axis(log_p, labels[:, None], -1).mean()

        labels = pseudo_labels(*self._features_and_logits(self._with(state.variables, adapted), images, self.head))
        return self._descend(loss, adapted, moments)


def pseudo_labels(features, logits):
    """Classes (b,) by the nearest centroid, from features (b, C) and logits (b, classes)."""
    unit = lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    def nearest(weights):
        centroids = weights.T @ features / jnp.maximum(weights.sum(0), 1e-12)[:, None]
        return jnp.where(weights.sum(0) > 0, unit(features) @ unit(centroids).T, -jnp.inf).argmax(-1)

    return nearest(jax.nn.one_hot(nearest(jax.nn.softmax(logits)), logits.shape[-1], dtype=features.dtype))


shot = Shot
