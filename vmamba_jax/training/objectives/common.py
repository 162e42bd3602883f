"""What the objectives share: random keys, model calls, losses, and the update with its averages."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from ... import attacks
from ..checks import number, require
from ..optimizer import learning_rate
from ..whole_batch import mean, over_devices


class Keys(NamedTuple):
    """Random keys of one step on one device. The per-image ones do not depend on how many devices share the batch.

    augment, attack: (b,) keys, one per image. dropout: one key for the update's forward pass, attack_dropout: the attack's in train mode.
    """
    augment: jax.Array
    attack: jax.Array
    dropout: jax.Array
    attack_dropout: jax.Array


def make_step(optimizer, loss, *, prepare=None, augment=None, ema_decay=None, ema_warmup=False):
    """Join a loss, and what is done to the batch before it, into a step.

    loss: `(params, state, batch, keys) -> (loss, (model_state, metrics))`, a mean over the device's images.
    prepare: `(state, batch, keys) -> (batch, metrics)` on the current weights, such as an attack; not differentiated through.
    augment: `(images, keys) -> images`, before all else. ema_decay, ema_warmup: see `update`.
    Examples count by the batch's "weight", and batch norm takes the whole batch's statistics: see `whole_batch`.
    """
    require(number("ema_decay", ema_decay, low=0, below=1, optional=True),
            (ema_decay is not None or not ema_warmup, "ema_warmup needs ema_decay"))

    def step(state, batch, key, *, axis_name=None):
        keys = step_keys(key, batch["image"].shape[0], axis_name)
        metrics = {}
        if augment is not None:
            batch = {**batch, "image": augment(batch["image"], keys.augment)}
        if prepare is not None:
            batch, metrics = prepare(state, batch, keys)
        (value, (model_state, more)), grads = jax.value_and_grad(loss, has_aux=True)(state.params, state, batch, keys)
        metrics = {"loss": value, **more, **metrics}
        return update(state, optimizer, grads, model_state, metrics, axis_name, ema_decay, ema_warmup)

    return over_devices(step)


def update(state, optimizer, grads, model_state, metrics, axis_name=None, ema_decay=None, ema_warmup=False):
    """One update of a state from one device's gradients, model state and metrics, averaged over the devices of `axis_name`.

    ema_decay: the average becomes d * ema + (1 - d) * params, with d = ema_decay, or with ema_warmup, after t earlier updates,
    d = min(ema_decay, (1 + t) / (10 + t)). The metrics gain `grad_norm`, before clipping, and `learning_rate` if the optimizer keeps it.
    """
    if (ema_decay is None) != (state.ema is None):
        raise ValueError(f"ema_decay is {ema_decay!r}, but the state was created {'without' if state.ema is None else 'with'} an average: "
                         "give create_state and the objective the same ema_decay")
    if axis_name is not None:
        grads, model_state, metrics = jax.lax.pmean((grads, model_state, metrics), axis_name)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {**metrics, "grad_norm": optax.tree.norm(grads)}
    rate = learning_rate(opt_state)
    if rate is not None:
        metrics["learning_rate"] = rate
    ema = state.ema
    if ema is not None:
        d = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step)) if ema_warmup else ema_decay
        ema = jax.tree.map(lambda e, p: d * e + (1 - d) * p, ema, params)
    return state.replace(step=state.step + 1, params=params, model_state=model_state, opt_state=opt_state, ema=ema), metrics


def step_keys(key, n, axis_name=None):
    """The `Keys` of one step for the device's `n` images."""
    device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    augment, attack, dropout, attack_dropout = jax.random.split(key, 4)
    augment, attack = (attacks.per_image_keys(k, n, offset=device * n) for k in (augment, attack))
    return Keys(augment, attack, jax.random.fold_in(dropout, device), jax.random.fold_in(attack_dropout, device))


def train_logits(classifier, params, model_state, images, key):
    """Logits in training mode, and the model state the pass leaves."""
    variables = {"params": params, **model_state}
    if not model_state:
        return classifier(variables, images, train=True, rngs={"dropout": key}), model_state
    logits, updates = classifier(variables, images, train=True, rngs={"dropout": key}, mutable=list(model_state))
    return logits, {**model_state, **updates}


def classification_loss(classifier, label_smoothing):
    """A loss for `make_step`: cross-entropy and accuracy on the batch as it is."""
    def loss(params, state, batch, keys):
        logits, model_state = train_logits(classifier, params, state.model_state, batch["image"], keys.dropout)
        metrics = {"accuracy": accuracy(logits, batch["label"], batch.get("weight"))}
        return cross_entropy(logits, batch["label"], label_smoothing, batch.get("weight")), (model_state, metrics)

    return loss


def frozen_logits(classifier, params, model_state, mode, key):
    """`images -> logits` that leaves no trace in the state: in "eval" mode, or in "train" mode with one dropout mask throughout."""
    if mode == "eval":
        return jax.tree_util.Partial(classifier, {"params": params, **model_state})
    return lambda images: train_logits(classifier, params, model_state, images, key)[0]


def cross_entropy(logits, labels, label_smoothing=0.0, weight=None):
    """Mean cross-entropy in float32.

    labels: (b,) int classes, or (b, classes) distributions, as mixup leaves them. label_smoothing s: the targets become
    (1 - s) * target + s / classes. weight: (b,), see `whole_batch.mean`.
    """
    logits = logits.astype(jnp.float32) if logits.dtype in (jnp.bfloat16, jnp.float16) else logits
    targets = labels if labels.ndim == 2 else jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return mean(optax.softmax_cross_entropy(logits, optax.smooth_labels(targets, label_smoothing)), weight)


def accuracy(logits, labels, weight=None):
    """Share of images whose largest logit is the label's class, each counted by its weight (b,)."""
    return mean((logits.argmax(-1) == classes(labels)).astype(jnp.float32), weight)


def classes(labels):
    """Int classes (b,) of labels that may be distributions (b, classes)."""
    return labels.argmax(-1) if labels.ndim == 2 else labels
