"""Shared by the objectives: random keys, model calls, and losses in at least float32."""
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vmamba_jax import attacks
from vmamba_jax.core import checks
from vmamba_jax.training.objectives.whole_batch import mean


class Keys(NamedTuple):
    """Random keys of one step on one device. The per-image ones do not depend on how many devices share the batch.

    Attributes:
        augment, attack: (b,) keys, one per image.
        dropout: key of the update's forward pass.
        attack_dropout: key of the attack's forward passes in train mode.
    """
    augment: jax.Array
    attack: jax.Array
    dropout: jax.Array
    attack_dropout: jax.Array

    def fold_in(self, i):
        """The same keys but for other dropout masks."""
        return self._replace(dropout=jax.random.fold_in(self.dropout, i), attack_dropout=jax.random.fold_in(self.attack_dropout, i))


def step_keys(key, n, axis_name=None):
    """`Keys` of one step for the device's `n` images."""
    device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    augment, attack, dropout, attack_dropout = jax.random.split(key, 4)
    augment, attack = (attacks.per_image_keys(k, n, offset=device * n) for k in (augment, attack))
    return Keys(augment, attack, jax.random.fold_in(dropout, device), jax.random.fold_in(attack_dropout, device))


def train_logits(classifier, params, model_state, images, key, **options):
    """(logits in training mode, model state after the pass); options: further keywords of the classifier's call."""
    variables = {"params": params, **model_state}
    if not model_state:
        return classifier(variables, images, train=True, rngs={"dropout": key}, **options), model_state
    logits, updates = classifier(variables, images, train=True, rngs={"dropout": key}, mutable=list(model_state), **options)
    return logits, {**model_state, **updates}


def frozen_logits(classifier, params, model_state, mode, key):
    """`images -> logits` that does not update the state: in "eval" mode, or in "train" mode with one dropout mask for all calls."""
    if mode == "eval":
        return jax.tree_util.Partial(classifier, {"params": params, **model_state})
    return lambda images: train_logits(classifier, params, model_state, images, key)[0]


def cross_entropy(logits, labels, label_smoothing=0.0, weight=None):
    """Mean cross-entropy in float32.

    Args:
        logits: (b, classes), any floating dtype.
        labels: (b,) int classes, or (b, classes) distributions, such as mixup's.
        label_smoothing: s in [0, 1); the targets become (1 - s) * target + s / classes.
        weight: (b,) or None, see `whole_batch.mean`.
    """
    logits = at_least_float32(logits)
    return mean(optax.softmax_cross_entropy(logits, optax.smooth_labels(distributions(labels, logits), label_smoothing)), weight)


def kl(logits, target):
    """KL(softmax(target) || softmax(logits)) per image (b,), in at least float32; differentiable in both."""
    log_q, log_p = (jax.nn.log_softmax(at_least_float32(x)) for x in (logits, target))
    return optax.losses.kl_divergence_with_log_targets(log_q, log_p)


def at_least_float32(logits):
    """Logits in float32; float64 logits unchanged."""
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def accuracy(logits, labels, weight=None):
    """Fraction of images whose largest logit is the label's class, each counted by its weight (b,)."""
    return mean((logits.argmax(-1) == classes(labels)).astype(jnp.float32), weight)


def classes(labels):
    """Int classes (b,) of labels that may be distributions (b, classes)."""
    return labels.argmax(-1) if labels.ndim == 2 else labels


def distributions(labels, logits):
    """Labels as distributions (b, classes) in the logits' dtype.

    Traced labels that are no class become NaN, so that a step inside `jax.jit` has no finite loss: the one-hot vector of such a label is zero,
    and its image would have no loss.
    """
    check_labels(labels, *logits.shape)
    if labels.ndim == 2:
        return labels
    count = logits.shape[-1]
    valid = (labels >= 0) & (labels < count)
    return jnp.where(valid[:, None], jax.nn.one_hot(labels, count, dtype=logits.dtype), jnp.nan)


def check_labels(labels, n, count=None, positions=None):
    """Raise unless `labels` are classes (n,), see `checks.classes`, or distributions (n, count): rows >= 0 with sum 1.

    The values of traced labels are not checked.

    Args:
        labels: an array.
        n: number of images.
        count: number of classes; None: unknown.
        positions: (n,), positions of the examples in their set, for the message; None: 0 to n - 1.
    """
    if getattr(labels, "ndim", None) != 2:
        return checks.classes(labels, n, count, positions=positions)
    if labels.shape != (n, labels.shape[1] if count is None else count) or labels.shape[1] < 2:
        raise ValueError(f"labels.shape={labels.shape}: expected ({n},) classes or ({n}, {'classes' if count is None else count}) distributions")
    if checks.known(labels):
        rows = np.asarray(labels, np.float32)
        wrong = np.flatnonzero(~((rows >= 0).all(1) & (np.abs(rows.sum(1) - 1) < 1e-2)))
        if wrong.size:
            place = wrong[0] if positions is None else positions[wrong[0]]
            raise ValueError(f"labels[{place}]={rows[wrong[0]].tolist()[:5]} (first values): expected a distribution, numbers >= 0 with sum 1")


def number_of_classes(classifier):
    """Number of classes of a classifier, from its model's field `num_classes`; None if it has none."""
    return getattr(getattr(classifier, "model", None), "num_classes", None)
