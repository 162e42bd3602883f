"""AdamW and SGD, with clipping, decay masks, layer-wise rates, and a learning rate that the metrics can read back."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from vmamba_jax.core import checks
from vmamba_jax.training.optimization import layer_decay as layers
from vmamba_jax.training.optimization import weight_decay as rules


class LearningRateState(NamedTuple):
    count: jax.Array  # (), int32
    learning_rate: jax.Array  # (), float32: of the last update


def create(name="adamw", *, learning_rate, weight_decay=0.0, decay_rule="released", layer_decay=None, clip_norm=None, b1=0.9, b2=0.999,
           eps=1e-8, momentum=0.9, nesterov=True):
    """An optax transformation: clip by global norm, then AdamW or SGD with weight decay on some of the parameters.

    name: "adamw" (Loshchilov & Hutter 2019: decay apart from the moments) or "sgd" (decay added to the gradient, as PyTorch does).
    learning_rate: number, or a schedule of the number of updates done. decay_rule: see `weight_decay.mask`. clip_norm: None or > 0.
    layer_decay: None, or a factor in (0, 1) for every step from the head towards the input, see `layer_decay.depths`; it scales the learning rate,
    and with it the decay of weights.
    b1, b2, eps belong to AdamW; momentum (0: none) and nesterov to SGD.
    """
    make = checks.by_name("optimizer", name, _RULES)
    checks.number("weight_decay", weight_decay, low=0)
    checks.number("clip_norm", clip_norm, above=0, optional=True)
    checks.number("layer_decay", layer_decay, above=0, below=1, optional=True)
    checks.number("b1", b1, low=0, below=1)
    checks.number("b2", b2, low=0, below=1)
    checks.number("eps", eps, above=0)
    checks.number("momentum", momentum, low=0, below=1)
    if not callable(learning_rate):
        checks.number("learning_rate", learning_rate, low=0)
    if not callable(decay_rule):
        checks.choice("decay_rule", decay_rule, rules.RULES)
    clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm is not None else []
    decay = [optax.add_decayed_weights(weight_decay, rules.mask(decay_rule))] if weight_decay else []
    rule = make(decay, b1=b1, b2=b2, eps=eps, momentum=momentum, nesterov=nesterov)
    slow = [optax.stateless(lambda updates, params: jax.tree.map(lambda u, scale: scale * u, updates, layers.scales(updates, layer_decay)))]
    return optax.chain(*clip, *rule, *(slow if layer_decay is not None else []), _descend(learning_rate))


def learning_rate(opt_state):
    """Learning rate of the last update as the optimizer state holds it, or None where it holds none.

    Reads the states of `create` and of `optax.inject_hyperparams`.
    """
    found = optax.tree.get_all_with_path(opt_state, "learning_rate", filtering=lambda _, value: isinstance(value, jax.Array))
    return found[0][1] if found else None


def _adamw(decay, *, b1, b2, eps, **_):
    return [optax.scale_by_adam(b1, b2, eps), *decay]


def _sgd(decay, *, momentum, nesterov, **_):
    return [*decay, *([optax.trace(momentum, nesterov)] if momentum else [])]


_RULES = {"adamw": _adamw, "sgd": _sgd}


def _descend(learning_rate):
    """Scale updates by minus the learning rate, and remember it."""
    schedule = learning_rate if callable(learning_rate) else optax.constant_schedule(learning_rate)

    def init(params):
        del params
        return LearningRateState(jnp.zeros((), jnp.int32), jnp.asarray(schedule(0), jnp.float32))

    def update(updates, state, params=None):
        del params
        rate = jnp.asarray(schedule(state.count), jnp.float32)
        updates = jax.tree.map(lambda u: (-rate).astype(u.dtype) * u, updates)
        return updates, LearningRateState(optax.safe_increment(state.count), rate)

    return optax.GradientTransformation(init, update)
