"""TENT: the norms adapt to the batches by lower entropy of the predictions."""
import dataclasses

from vmamba_jax.adaptation.base import NormAdaptation, entropy


@dataclasses.dataclass(frozen=True)
class Tent(NormAdaptation):
    """One update on the mean entropy of the predictions, of scales and biases of norms.

    The released program predicts with the parameters before the update; here the logits are those after it, as for every method.

    Attributes:
        model, learning_rate: as for `Adaptation`.
        norms: "batch": batch norms, as released; "all": layer norms too, which a model without batch norms needs.

    Source: Wang et al. 2021, arXiv 2006.10726.
    """
    def update(self, adapted, moments, state, images, key):
        return self._descend(lambda adapted: entropy(self._logits(self._with(state.variables, adapted), images, key)).mean(), adapted, moments)


tent = Tent
