"""What the objectives share: random keys, model calls, and losses in float32 at least."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from vmamba_jax import attacks
from vmamba_jax.training.objectives.whole_batch import mean


class Keys(NamedTuple):
    """Random keys of one step on one device. The per-image ones do not depend on how many devices share the batch.

    augment, attack: (b,) keys, one per image. dropout: one key for the update's forward pass, attack_dropout: the attack's in train mode.
    """
    augment: jax.Array
    attack: jax.Array
    dropout: jax.Array
    attack_dropout: jax.Array

    def fold_in(self, i):
        """The same keys with other dropout masks."""
        return self._replace(dropout=jax.random.fold_in(self.dropout, i), attack_dropout=jax.random.fold_in(self.attack_dropout, i))


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


def frozen_logits(classifier, params, model_state, mode, key):
    """`images -> logits` that leaves no trace in the state: in "eval" mode, or in "train" mode with one dropout mask throughout."""
    if mode == "eval":
        return jax.tree_util.Partial(classifier, {"params": params, **model_state})
    return lambda images: train_logits(classifier, params, model_state, images, key)[0]


def cross_entropy(logits, labels, label_smoothing=0.0, weight=None):
    """Mean cross-entropy in float32.

    labels: (b,) int classes, or (b, classes) distributions, as mixup leaves them. label_smoothing s: the targets become
    (1 - s) * target + s / classes. weight: (b,) or None, see `whole_batch.mean`.
    """
    logits = wide(logits)
    return mean(optax.softmax_cross_entropy(logits, optax.smooth_labels(distributions(labels, logits), label_smoothing)), weight)


def kl(logits, target):
    """KL(softmax(target) || softmax(logits)) per image (b,), in float32 at least; differentiable in both."""
    return optax.losses.kl_divergence_with_log_targets(jax.nn.log_softmax(wide(logits)), jax.nn.log_softmax(wide(target)))


def wide(logits):
    """Logits in float32, or as they are in float64."""
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def accuracy(logits, labels, weight=None):
    """Share of images whose largest logit is the label's class, each counted by its weight (b,)."""
    return mean((logits.argmax(-1) == classes(labels)).astype(jnp.float32), weight)


def classes(labels):
    """Int classes (b,) of labels that may be distributions (b, classes)."""
    return labels.argmax(-1) if labels.ndim == 2 else labels


def distributions(labels, logits):
    """Labels as distributions (b, classes) in the logits' dtype."""
    return labels if labels.ndim == 2 else jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
