"""The state of a training run as one pytree."""
from typing import Any

import flax
import jax
import jax.numpy as jnp

from vmamba_jax import parallel
from vmamba_jax.core import checks
from vmamba_jax.training.sharding import shardings

PER_CALL = ("intermediates", "perturbations")  # collections that belong to one call of the model, not to its state


@flax.struct.dataclass
class TrainState:
    """Everything that changes from one training step to the next.

    Attributes:
        step: int32 scalar, number of steps done.
        params: trained weights.
        model_state: the model's other variables, such as `batch_stats`.
        opt_state: the optimizer's state.
        ema: running average of params; None: no average.
        carry: the objective's state between steps, added by its `step.begin`, the same on every device; None: none.
    """
    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    ema: Any = None
    carry: Any = None

    def variables(self, ema=False):
        """Model variables with the current weights, or with their running average if `ema`."""
        if ema and self.ema is None:
            raise ValueError("ema=True with a state without an average: expected a state created with ema_decay")
        return {"params": self.ema if ema else self.params, **self.model_state}


def create_state(classifier, optimizer, key, image_shape, ema_decay=None, variables=None, mesh=None, sharding="replicated"):
    """Initial `TrainState` of a run; the model's initialization is compiled.

    Args:
        classifier: frozen callable with `init(key, image_shape)`.
        optimizer: optax transformation.
        key: random key of the initialization.
        image_shape: (H, W, C).
        ema_decay: None: no average. In [0, 1): the state has an average of the weights, equal to the initial weights.
        variables: initial model variables (a converted checkpoint); None: a random initialization.
        mesh, sharding: where the state's arrays are made, see `training.sharding`; mesh=None: on the default device.
    """
    shape = tuple(image_shape)
    checks.number("ema_decay", ema_decay, low=0, below=1, optional=True)
    if len(shape) != 3 or any(n < 1 for n in shape):
        raise ValueError(f"image_shape={image_shape!r}: expected (H, W, C), all >= 1")
    if variables is not None and "params" not in variables:
        raise ValueError(f"variables with collections {sorted(variables)}: expected a collection 'params'")
    if variables is None and mesh is None:
        variables = jax.jit(lambda key: classifier.init(key, shape))(key)

    def build(key, variables):
        variables = classifier.init(key, shape) if variables is None else variables
        params, model_state = variables["params"], {name: tree for name, tree in variables.items() if name != "params" and name not in PER_CALL}
        return TrainState(step=jnp.zeros((), jnp.int32), params=_copy(params), model_state=_copy(model_state),
                          opt_state=optimizer.init(params), ema=None if ema_decay is None else _copy(params))

    if mesh is None or checks.traced(key):
        return jax.jit(build)(key if variables is None else None, variables)
    with jax.ensure_compile_time_eval():  # also within `jax.eval_shape`, as several processes exchange no traced values
        key, variables = (parallel.replicate(key, mesh), None) if variables is None else (None, parallel.replicate(variables, mesh))
    return jax.jit(build, out_shardings=shardings(jax.eval_shape(build, key, variables), mesh, sharding))(key, variables)


def _copy(tree):
    return jax.tree.map(jnp.copy, tree)
