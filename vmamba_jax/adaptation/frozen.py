"""Methods that change no parameter: no adaptation at all, and LAME, which corrects the predictions of a batch."""
import dataclasses

import jax
import jax.numpy as jnp

from vmamba_jax.adaptation.base import Method
from vmamba_jax.core import checks


@dataclasses.dataclass(frozen=True)
class NoAdaptation(Method):
    """The model as it is: the baseline of every method.

    Attributes:
        model: as for `Method`.
        statistics: of batch norms: "running"; "batch": those of the batch, which every method that adapts uses. The latter is the baseline of the
            updates alone.

    Source: of "batch": Nado et al. 2020, arXiv 2006.10963.
    """
    statistics: str = "running"

    def __post_init__(self):
        super().__post_init__()
        checks.choice("statistics", self.statistics, ("running", "batch"))

    def step(self, state, images, key=None):
        """(the same state, logits (b, classes))."""
        del key
        return state, self._logits(state.variables, images, train=self.statistics == "batch")


@dataclasses.dataclass(frozen=True)
class Lame(Method):
    """The predictions z of a batch that minimize sum_i KL(z_i || p_i) - sum_ij w_ij z_i . z_j, where p are the model's.

    w_ij is 1 if image j is among the nearest of image i by cosine, averaged with w_ji. Each of the steps is z_i = softmax(log p_i + sum_j w_ij z_j),
    the released program's for a symmetric w. Batch norms use the running statistics.

    Attributes:
        model: as for `Method`.
        neighbors: nearest images, >= 1; a batch needs more images.
        steps: of the iteration, >= 1; the released program stops earlier, where its energy no longer changes.
        head: name of the last linear layer, whose inputs are the features.

    Source: Boudiaf et al. 2022, equations 4 to 7, arXiv 2201.05718.
    """
    neighbors: int = 5
    steps: int = 100
    head: str = "head"

    def __post_init__(self):
        super().__post_init__()
        checks.count("neighbors", self.neighbors)
        checks.count("steps", self.steps)

    def step(self, state, images, key=None):
        """(the same state, log z (b, classes))."""
        del key
        if len(images) <= self.neighbors:
            raise ValueError(f"images.shape={images.shape}: expected more than neighbors={self.neighbors} images")
        features, logits = self._features_and_logits(state.variables, images, self.head, train=False)
        features = features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), 1e-12)
        near = features @ features.T - 2 * jnp.eye(len(features), dtype=features.dtype)  # an image is no neighbor of itself
        index = jax.lax.top_k(near, self.neighbors)[1]
        weights = jnp.zeros_like(near).at[jnp.arange(len(near))[:, None], index].set(1)
        weights, log_p = (weights + weights.T) / 2, jax.nn.log_softmax(logits)
        log_z = jax.lax.fori_loop(0, self.steps, lambda _, log_z: jax.nn.log_softmax(log_p + weights @ jnp.exp(log_z)), log_p)
        return state, log_z


none, lame = NoAdaptation, Lame
