"""Everything that changes from one training step to the next, as one pytree."""
from typing import Any

import flax
import jax
import jax.numpy as jnp

from vmamba_jax.core import checks

PER_CALL = ("intermediates", "perturbations")  # collections that belong to one call of the model, not to its state


@flax.struct.dataclass
class TrainState:
    """The state of a training run.

    step: int32 scalar, steps done so far. params: trained weights. model_state: the model's other variables, such as `batch_stats`.
    opt_state: the optimizer's. ema: running average of params, or None. carry: what the objective keeps between steps (its `step.begin`
    puts it there), or None; alike on every device.
    """
    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    ema: Any = None
    carry: Any = None

    def variables(self, ema=False):
        """Model variables with the current weights, or with their running average."""
        if ema and self.ema is None:
            raise ValueError("ema=True, but this state keeps no average: create it with ema_decay")
        return {"params": self.ema if ema else self.params, **self.model_state}


def create_state(classifier, optimizer, key, image_shape, ema_decay=None, variables=None):
    """Initial state of a run; the model's initialisation is compiled.

    classifier: frozen callable with `init(key, image_shape)`. optimizer: optax transformation. image_shape: (H, W, C).
    ema_decay: None, or a decay in [0, 1): the state then keeps an average of the weights, starting at the initial ones.
    variables: start from these (a converted checkpoint) instead of a random initialisation.
    """
    shape = tuple(image_shape)
    checks.number("ema_decay", ema_decay, low=0, below=1, optional=True)
    checks.require(len(shape) == 3 and all(n >= 1 for n in shape), f"image_shape={image_shape!r}: expected (H, W, C), all positive")
    checks.require(variables is None or "params" in variables, f"variables={sorted(variables or ())}: expected a collection 'params'")
    if variables is None:
        variables = jax.jit(lambda key: classifier.init(key, shape))(key)
    model_state = {name: tree for name, tree in variables.items() if name != "params" and name not in PER_CALL}

    @jax.jit
    def build(params, model_state):
        return TrainState(step=jnp.zeros((), jnp.int32), params=_copy(params), model_state=_copy(model_state),
                          opt_state=optimizer.init(params), ema=None if ema_decay is None else _copy(params))

    return build(variables["params"], model_state)


def _copy(tree):
    return jax.tree.map(jnp.copy, tree)
