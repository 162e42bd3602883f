"""What the methods of test-time adaptation share: the state, the passes through the model, and which parameters adapt."""
import dataclasses

import flax.linen as nn
import flax.struct
import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from vmamba_jax.core import checks
from vmamba_jax.models.classifier import Classifier


@flax.struct.dataclass
class State:
    """A pytree.

    Attributes:
        variables: the model's variables with the parameters adapted so far.
        moments: state of the optimizer, over the parameters that adapt.
    """
    variables: dict
    moments: optax.OptState


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """Base of the methods: Adam on some of the parameters, one update or several a batch.

    Batch norms use the statistics of the batch, in every pass; the running ones are neither read nor changed.

    Attributes:
        model: a Linen module, which gets the images as they are, or a `Classifier`, which normalizes images in [0, 1].
        learning_rate: of Adam, > 0.
    """
    model: nn.Module | Classifier
    learning_rate: float = 1e-4

    def __post_init__(self):
        if not isinstance(self.model, (nn.Module, Classifier)):
            raise TypeError(f"model={self.model!r}: expected a Linen module or a Classifier")
        checks.number("learning_rate", self.learning_rate, above=0)

    def adapts(self, path, variables):
        """Whether the parameter at `path`, names without the collection, adapts."""
        raise NotImplementedError

    def update(self, adapted, moments, state, images, key):
        """(adapted parameters, moments) after a batch."""
        raise NotImplementedError

    def init(self, variables):
        """The `State` before the first batch. Raises ValueError for a model without parameters that adapt."""
        adapted = self._adapted(variables)
        if not adapted:
            raise ValueError(f"model={type(self.module).__name__}: expected {self.needs}")
        return State(variables, self._optimizer.init(adapted))

    def step(self, state, images, key=None):
        """(state, logits) after a batch (b, H, W, C); the logits (b, classes) are those of the adapted model.

        Args:
            state: of `init`, or of the batch before.
            images: (b, H, W, C), as the model takes them.
            key: random key of drop path, which is active in the passes that adapt; None: only for models without it.
        """
        if key is None and getattr(self.module, "drop_path_rate", 0):
            raise ValueError(f"key=None with drop_path_rate={self.module.drop_path_rate}: expected a random key")
        adapted, moments = self.update(self._adapted(state.variables), state.moments, state, images, key)
        variables = self._with(state.variables, adapted)
        return State(variables, moments), self._logits(variables, images)

    @property
    def module(self):
        """The Linen module."""
        return self.model.model if isinstance(self.model, Classifier) else self.model

    @property
    def _optimizer(self):
        return optax.adam(self.learning_rate, eps=1e-8)

    def _adapted(self, variables):
        """{path: parameter} of those that adapt."""
        return {path: x for path, x in flatten_dict(variables["params"]).items() if self.adapts(path, variables)}

    def _with(self, variables, adapted):
        """The variables with these parameters in their places."""
        return variables | {"params": unflatten_dict(flatten_dict(variables["params"]) | adapted)}

    def _logits(self, variables, images, key=None):
        """Logits under the batch's statistics; with drop path if a key is given."""
        module = self.module if key is not None or not hasattr(self.module, "drop_path_rate") else self.module.clone(drop_path_rate=0.0)
        rngs = None if key is None else {"dropout": key}
        if isinstance(self.model, Classifier):
            return dataclasses.replace(self.model, model=module)(variables, images, train=True, rngs=rngs, mutable=["batch_stats"])[0]
        return module.apply(variables, images, train=True, rngs=rngs, mutable=["batch_stats"])[0]

    def _descend(self, loss, adapted, moments):
        """(adapted parameters, moments) after one update of Adam on `loss(adapted)`."""
        updates, moments = self._optimizer.update(jax.grad(loss)(adapted), moments, adapted)
        return optax.apply_updates(adapted, updates), moments


def batch_norms(variables):
    """Paths of the modules with running statistics."""
    return {path[:-1] for path in flatten_dict(variables.get("batch_stats", {}))}
