"""AdamW and SGD as optax transformations: clipping, decay masks, layer-wise learning rates, and the learning rate as a metric."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from vmamba_jax.core import checks
from vmamba_jax.training.optimization import layer_decay as layers
from vmamba_jax.training.optimization import weight_decay as rules

OPTIONS = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "momentum": 0.9, "nesterov": True, "mu_dtype": None}  # of AdamW the first three, of SGD the next two


class LearningRateState(NamedTuple):
    """State of the last transformation of `create`.

    Not `optax.inject_hyperparams`: its state has other names, so checkpoints written with this one could not be restored.

    Attributes:
        count: (), int32, number of updates done.
        learning_rate: (), float32, of the last update.
    """
    count: jax.Array
    learning_rate: jax.Array


def create(name="adamw", *, learning_rate, weight_decay=0.0, decay_rule="released", layer_decay=None, clip_norm=None, **options):
    """An optax transformation: clipping by global norm, then AdamW or SGD with weight decay on some of the parameters.

    Args:
        name: "adamw" (Loshchilov & Hutter 2019: decay apart from the moments) or "sgd" (decay added to the gradient, as in PyTorch).
        learning_rate: number >= 0, or a schedule of the number of updates done.
        weight_decay: >= 0.
        decay_rule: which parameters decay, see `weight_decay.mask`.
        layer_decay: None: one learning rate for all. In (0, 1): factor of the learning rate, and with it of the weight decay, per layer
            from the head towards the input, see `layer_decay.depths`.
        clip_norm: largest global norm of the gradient, > 0; None: no clipping.
        **options: of AdamW b1, b2 in [0, 1) and eps > 0; of SGD momentum in [0, 1), 0 for none, and nesterov; of both mu_dtype, the dtype of the first
            moment or of the momentum, such as "bfloat16", None: that of the parameters. All are accepted for both, so that one config section serves
            either; those of the other optimizer have no effect.

    Raises:
        TypeError, ValueError: an unknown option, or a value out of range.
    """
    rule = checks.by_name("optimizer", name, _RULES)
    checks.number("weight_decay", weight_decay, low=0)
    checks.number("clip_norm", clip_norm, above=0, optional=True)
    checks.number("layer_decay", layer_decay, above=0, below=1, optional=True)
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise TypeError(f"{unknown[0]}={options[unknown[0]]!r}: expected an option of the optimizer, one of {', '.join(OPTIONS)}")
    options = OPTIONS | options
    for key in ("b1", "b2", "momentum"):
        checks.number(key, options[key], low=0, below=1)
    checks.number("eps", options["eps"], above=0)
    checks.flag("nesterov", options["nesterov"])
    if not callable(learning_rate):
        checks.number("learning_rate", learning_rate, low=0)
    if not callable(decay_rule):
        checks.choice("decay_rule", decay_rule, rules.RULES)
    options["mu_dtype"] = checks.floating("mu_dtype", options["mu_dtype"])
    clip = [clip_by_global_norm(clip_norm)] if clip_norm is not None else []
    decay = [optax.add_decayed_weights(weight_decay, rules.mask(decay_rule))] if weight_decay else []

    def by_layer(updates, params):
        return jax.tree.map(lambda u, scale: scale * u, updates, layers.scales(updates, layer_decay))

    scale = [optax.stateless(by_layer)] if layer_decay is not None else []
    return optax.chain(*clip, *rule(decay, **options), *scale, _descend(learning_rate))


def learning_rate(opt_state):
    """Learning rate of the last update in an optimizer state, or None if the state has none.

    Reads the states of `create` and of `optax.inject_hyperparams`.
    """
    found = optax.tree.get_all_with_path(opt_state, "learning_rate", filtering=lambda _, value: isinstance(value, jax.Array))
    return found[0][1] if found else None


def _adamw(decay, *, b1, b2, eps, mu_dtype, **_):
    return [optax.scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype), *decay]


def _sgd(decay, *, momentum, nesterov, mu_dtype, **_):
    return [*decay, *([optax.trace(momentum, nesterov, accumulator_dtype=mu_dtype)] if momentum else [])]


_RULES = {"adamw": _adamw, "sgd": _sgd}


def clip_by_global_norm(limit):
    """As `optax.clip_by_global_norm`, but the norm is `global_norm(updates)` of the step if it passes this function: shards have no norm of their own."""
    def update(updates, state, params=None, *, global_norm=optax.tree.norm, **extra):
        del params, extra
        norm = global_norm(updates)
        return jax.tree.map(lambda u: jax.lax.select(norm < limit, u, (u / norm.astype(u.dtype)) * limit), updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _descend(learning_rate):
    """Scales updates by minus the learning rate, which its state keeps."""
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
