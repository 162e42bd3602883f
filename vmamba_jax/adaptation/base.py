"""What the methods of test-time adaptation share: the state, the passes through the model, and which parameters adapt."""
import dataclasses
import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from vmamba_jax.core import checks
from vmamba_jax.models.classifier import Classifier

ROOT = 1e-30  # under Adam's root, whose derivative at 0, of a parameter without a gradient, would make an attacker's gradient NaN


@flax.struct.dataclass
class State:
    """A pytree.

    Attributes:
        variables: the model's variables with the parameters adapted so far.
        moments: state of the optimizer, over the parameters that adapt; () without one.
        memory: what else a method keeps from batch to batch.
    """
    variables: dict
    moments: optax.OptState = ()
    memory: dict = flax.struct.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Method:
    """Base of all methods: a model, and the passes through it.

    Attributes:
        model: a Linen module, which gets the images as they are, or a `Classifier`, which normalizes images in [0, 1].
    """
    model: nn.Module | Classifier

    def __post_init__(self):
        if not isinstance(self.model, (nn.Module, Classifier)):
            raise TypeError(f"model={self.model!r}: expected a Linen module or a Classifier")

    def init(self, variables):
        """The `State` before the first batch."""
        return State(variables)

    def step(self, state, images, key=None):
        """(state, logits) after a batch (b, H, W, C)."""
        raise NotImplementedError

    @property
    def module(self):
        """The Linen module."""
        return self.model.model if isinstance(self.model, Classifier) else self.model

    def _logits(self, variables, images, key=None, train=True):
        """Logits under the batch's statistics (train) or the running ones; with drop path if a key is given."""
        module = self.module if key is not None or not hasattr(self.module, "drop_path_rate") else self.module.clone(drop_path_rate=0.0)
        call = functools.partial(module.apply, variables)
        if isinstance(self.model, Classifier):
            call = functools.partial(dataclasses.replace(self.model, model=module), variables)
        if not train:
            return call(images, train=False)
        return call(images, train=True, rngs=None if key is None else {"dropout": key}, mutable=["batch_stats"])[0]

    def _features_and_logits(self, variables, images, head, train=True):
        """(input (b, C) of the linear layer `head`, logits)."""
        found = []

        def record(call, args, kwargs, context):
            if context.method_name == "__call__" and context.module.path == (head,):
                found.append(args[0])
            return call(*args, **kwargs)

        self._check_head(variables, head)
        with nn.intercept_methods(record):
            logits = self._logits(variables, images, train=train)
        return found[-1], logits

    def _check_head(self, variables, head):
        if "kernel" not in variables["params"].get(head, {}):
            raise ValueError(f"head={head!r}: expected the last linear layer among {', '.join(variables['params'])}")

    def _classes(self, variables, head):
        """Number of logits."""
        self._check_head(variables, head)
        columns = getattr(self.model, "columns", None)
        return variables["params"][head]["kernel"].shape[-1] if columns is None else len(columns)


@dataclasses.dataclass(frozen=True)
class Adaptation(Method):
    """Base of the methods that descend a loss of some of the parameters: by Adam, or by the optimizer that the method states.

    Batch norms use the statistics of the batch, in every pass; the running ones are neither read nor changed.

    Attributes:
        model: as for `Method`.
        learning_rate: of the optimizer, > 0.
    """
    learning_rate: float = 1e-4

    def __post_init__(self):
        super().__post_init__()
        checks.number("learning_rate", self.learning_rate, above=0)

    def adapts(self, path, variables):
        """Whether the parameter at `path`, names without the collection, adapts."""
        raise NotImplementedError

    def update(self, adapted, moments, state, images, key):
        """(adapted parameters, moments) after a batch, and with them the new memory if the method keeps one."""
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
        adapted, moments, *memory = self.update(self._adapted(state.variables), state.moments, state, images, key)
        variables = self._with(state.variables, adapted)
        return State(variables, moments, *memory), self._logits(variables, images)

    @property
    def _optimizer(self):
        return optax.adam(self.learning_rate, eps=1e-8, eps_root=ROOT)

    def _adapted(self, variables):
        """{path: parameter} of those that adapt."""
        return {path: x for path, x in flatten_dict(variables["params"]).items() if self.adapts(path, variables)}

    def _with(self, variables, adapted):
        """The variables with these parameters in their places."""
        return variables | {"params": unflatten_dict(flatten_dict(variables["params"]) | adapted)}

    def _descend(self, loss, adapted, moments):
        """(adapted parameters, moments) after one update of Adam on `loss(adapted)`."""
        return self._apply(jax.grad(loss)(adapted), adapted, moments)

    def _apply(self, gradient, adapted, moments):
        """(adapted parameters, moments) after one update of the optimizer by this gradient."""
        updates, moments = self._optimizer.update(gradient, moments, adapted)
        return optax.apply_updates(adapted, updates), moments


@dataclasses.dataclass(frozen=True)
class NormAdaptation(Adaptation):
    """Base of the methods that adapt scales and biases of norms.

    Attributes:
        model, learning_rate: as for `Adaptation`.
        norms: "batch": batch norms; "all": layer norms too, which a model without batch norms needs.
    """
    norms: str = "batch"

    needs = "a model with batch norms, or norms='all'"

    def __post_init__(self):
        super().__post_init__()
        checks.choice("norms", self.norms, ("batch", "all"))

    def adapts(self, path, variables):
        norm = path[:-1] in batch_norms(variables) or (self.norms == "all" and path[:-1] + ("scale",) in flatten_dict(variables["params"]))
        return norm and path[-1] in ("scale", "bias")


@dataclasses.dataclass(frozen=True)
class MomentumAdaptation(NormAdaptation):
    """Base of the methods that adapt norms by SGD with momentum.

    Attributes:
        model, learning_rate, norms: as for `NormAdaptation`.
        momentum: of SGD, in [0, 1).
    """
    momentum: float = 0.9

    def __post_init__(self):
        super().__post_init__()
        checks.number("momentum", self.momentum, low=0, below=1)

    @property
    def _optimizer(self):
        return optax.sgd(self.learning_rate, self.momentum)


def entropy(logits):
    """Entropy (b,) of the predictions in nats."""
    log_p = jax.nn.log_softmax(logits)
    return -(jnp.exp(log_p) * log_p).sum(-1)


def batch_norms(variables):
    """Paths of the modules with running statistics."""
    return {path[:-1] for path in flatten_dict(variables.get("batch_stats", {}))}
