"""TENT: the norms adapt to the batches by lower entropy of the predictions."""
import dataclasses

from vmamba_jax.adaptation.base import Adaptation, entropy, in_norm
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
        return in_norm(path, variables, self.norms)

    def update(self, adapted, moments, state, images, key):
        return self._descend(lambda adapted: entropy(self._logits(self._with(state.variables, adapted), images, key)).mean(), adapted, moments)


tent = Tent
