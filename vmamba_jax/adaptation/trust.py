"""TRUST: VMamba adapts to its own predictions under permuted scan directions."""
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.adaptation.base import Adaptation, batch_norms

DIRECTIONS = 4
PERMUTATIONS = ("0123", "0132", "0321", "1023", "1032", "3120")     # of the directions, in the released order
PER_DIRECTION = ("x_proj_weight", "dt_projs_weight", "dt_projs_bias", "A_logs", "Ds")   # parameters of SS2D whose first axis begins with the direction


@dataclasses.dataclass(frozen=True)
class Trust(Adaptation):
    """For each permutation of the directions in turn: one update on the cross-entropy with the model's own predictions under it.

    A permutation exchanges the parameters of the scan's directions. Updates and Adam's moments go on from one permutation to the next; the
    batch is then predicted, and the next one begun, with the mean of the parameters after each. All of SS2D but its output norm adapts, and
    batch norms where the model has them.

    Attributes:
        model, learning_rate: as for `Adaptation`; the model is a VMamba.
        permutations: strings of the digits 0 to 3, each a permutation; ("0123",) is the method without permutations.

    Source: Sahardastani et al. 2025, arXiv 2509.22813, as released.
    """
    permutations: tuple = PERMUTATIONS

    needs = "a VMamba, whose SS2D adapts"

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "permutations", tuple(self.permutations))
        for permutation in self.permutations:
            if sorted(permutation) != list("0123"):
                raise ValueError(f"permutations={permutation!r}: expected each a permutation of '0123'")
        if not self.permutations:
            raise ValueError("permutations=(): expected at least one")

    def init(self, variables):
        state = super().init(variables)
        if not any(path[-1] == "A_logs" for path in self._adapted(variables)):
            raise ValueError(f"model={type(self.module).__name__}: expected {self.needs}")
        return state

    def adapts(self, path, variables):
        scan = "op" in path and "out_norm" not in path
        return scan or (path[:-1] in batch_norms(variables) and path[-1] in ("scale", "bias"))

    def update(self, adapted, moments, state, images, key):
        orders = jnp.asarray([np.argsort([int(k) for k in permutation]) for permutation in self.permutations])

        def turn(carry, inputs):
            adapted, moments, total = carry
            order, i = inputs
            permuted = lambda adapted: self._with(state.variables, _permuted(adapted, order))
            labels = self._logits(permuted(adapted), images).argmax(-1)
            turn_key = None if key is None else jax.random.fold_in(key, i)

            def loss(adapted):
                log_p = jax.nn.log_softmax(self._logits(permuted(adapted), images, turn_key))
                return -jnp.take_along_axis(log_p, labels[:, None], -1).mean()
            adapted, moments = self._descend(loss, adapted, moments)
            return (adapted, moments, jax.tree.map(jnp.add, total, adapted)), None

        start = adapted, moments, jax.tree.map(jnp.zeros_like, adapted)
        (_, moments, total), _ = jax.lax.scan(turn, start, (orders, jnp.arange(len(orders))))
        return jax.tree.map(lambda x: x / len(orders), total), moments


def _permuted(adapted, order):
    """Parameters with those of direction `order[k]` at direction k."""
    def one(path, x):
        if path[-1] not in PER_DIRECTION:
            return x
        by_direction = x.reshape(DIRECTIONS, -1, *x.shape[1:]) if x.shape[0] != DIRECTIONS else x
        return by_direction[order].reshape(x.shape)
    return {path: one(path, x) for path, x in adapted.items()}


trust = Trust
