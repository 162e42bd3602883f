"""TENT: the norms adapt to the batches by lower entropy of the predictions."""
import dataclasses

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from vmamba_jax.adaptation.base import Adaptation, batch_norms
from vmamba_jax.core import checks


@dataclasses.dataclass(frozen=True)
class Tent(Adaptation):
    """One update on the mean entropy of the predictions, of scales and biases of norms.

    The released program predicts with the parameters before the update; here the logits are those after it, as for every method.

    Attributes:
        model, learning_rate: as for `Adaptation`.
        norms: "batch": batch norms, as released; "all": layer norms too, which a model without batch norms needs.

    Source: Wang et al. 2021, arXiv 2006.10726.
    """
    norms: str = "batch"

    needs = "a model with batch norms, or norms='all'"

    def __post_init__(self):
        super().__post_init__()
        checks.choice("norms", self.norms, ("batch", "all"))

    def adapts(self, path, variables):
        known = path[:-1] in batch_norms(variables)
        norm = known or (self.norms == "all" and path[:-1] + ("scale",) in flatten_dict(variables["params"]))
        return norm and path[-1] in ("scale", "bias")

    def update(self, adapted, moments, state, images, key):
        def entropy(adapted):
            log_p = jax.nn.log_softmax(self._logits(self._with(state.variables, adapted), images, key))
            return -(jnp.exp(log_p) * log_p).sum(-1).mean()
        return self._descend(entropy, adapted, moments)


tent = Tent
