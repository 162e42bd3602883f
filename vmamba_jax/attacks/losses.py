"""Losses that attacks maximize: `loss(logits, labels) -> (batch,)` for logits (batch, classes) and integer labels (batch,).

Those of dense predictions, maps over pixels, are from `attacks.dense.losses`.
"""
import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks.dense.losses import cospgd, js_avg, mask_ce_avg, mask_ce_bal, segpgd, tsallis  # noqa: F401  one name for all losses
from vmamba_jax.core import checks


def cross_entropy(logits, labels):
    """-log softmax(z)_y."""
    return jax.nn.logsumexp(logits, 1) - at(logits, labels)


def margin(logits, labels):
    """max_{j != y} z_j - z_y: positive exactly if misclassified (Carlini & Wagner 2017, f_6 without confidence)."""
    _need(logits, 2, "margin")
    return highest_other(logits, labels) - at(logits, labels)


def dlr(logits, labels):
    """Difference of logits ratio, -(z_y - max_{j != y} z_j) / (z_(1) - z_(3)) (Croce & Hein 2020, equation 6)."""
    _need(logits, 3, "dlr")
    top = lax.top_k(logits, 3)[0]
    return (highest_other(logits, labels) - at(logits, labels)) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_targeted(logits, labels, targets):
    """-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2), maximized for the targets t (Croce & Hein 2020, equation 7)."""
    _need(logits, 4, "dlr_targeted")
    top = lax.top_k(logits, 4)[0]
    return (at(logits, targets) - at(logits, labels)) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


def probability_margin(logits, labels):
    """max_{j != y} p_j - p_y for p = softmax(z): the margin in probabilities, in [-1, 1] (Xie et al. 2024, arXiv 2411.15210)."""
    _need(logits, 2, "probability_margin")
    wrong, highest = other_probabilities(logits, labels)
    return highest + wrong - 1


def other_probabilities(logits, labels):
    """(1 - p_y, max_{j != y} p_j) for p = softmax(z), each (batch,).

    Both are multiples of 1 - p_y = sigmoid(logsumexp_{j != y} z_j - z_y), whose gradient is exact where p_y rounds to 1: that of the softmax is 0 there.
    """
    others = jnp.where(jnp.arange(logits.shape[1]) == labels[:, None], -jnp.inf, logits)
    total = jax.nn.logsumexp(others, 1)
    wrong = jax.nn.sigmoid(total - at(logits, labels))
    return wrong, wrong * jnp.exp(others.max(1) - total)


LOSSES = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr, "probability_margin": probability_margin}


def get(loss):
    """A loss by name, or the callable `(logits, labels) -> (batch,)` itself."""
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise ValueError(f"loss={loss!r}: expected a callable or one of {', '.join(map(repr, LOSSES))}")
    return LOSSES[loss]


def objective(logits_fn, labels, loss, targeted=False):
    """The function images -> (value to maximize (batch,), success (batch,) bool) of an attack.

    Untargeted attacks maximize the loss at the true labels and succeed at any other class; targeted attacks minimize the loss at the target
    labels and succeed at the target only. Logits of a 16-bit float type are evaluated in float32.

    Args:
        logits_fn: images -> logits (batch, classes).
        labels: (batch,) integers: the true classes, or the targets.
        loss: name or callable, see `get`.
        targeted: whether labels are targets.
    """
    evaluate = criterion(labels, loss, targeted)
    return lambda images: evaluate(checked(logits_fn(images), images))


def criterion(labels, loss, targeted=False):
    """The function logits -> (value to maximize (batch,), success (batch,) bool) of `objective`.

    An image whose logits are not all finite counts as misclassified, and at no target.
    """
    loss = get(loss)

    def evaluate(logits):
        checks.classes(labels, len(logits), logits.shape[1])
        value = loss(logits, labels)
        if value.shape != labels.shape:
            raise ValueError(f"loss returned shape {value.shape}: expected {labels.shape}, one value per image")
        return (-value, correct(logits, labels)) if targeted else (value, ~correct(logits, labels))
    return evaluate


def correct(logits, labels):
    """Whether each image is classified as its label, (batch,) bool: its highest logit is the label's, and all its logits are finite."""
    return (logits.argmax(-1) == labels) & jnp.isfinite(logits).all(-1)


def checked(logits, images):
    """`logits` (batch, classes), in float32 at least; ValueError for any other shape."""
    if getattr(logits, "ndim", None) != 2 or len(logits) != len(images):
        shape = getattr(logits, "shape", type(logits).__name__)
        raise ValueError(f"logits_fn returned shape {shape}: expected ({len(images)}, classes)")
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def ascent_gradient(evaluate):
    """The gradient of an objective with respect to the images, per image: a function images -> (batch, H, W, C).

    It differentiates the sum over the batch, as a classifier's images do not affect each other. NaN becomes 0: a NaN gradient leaves the
    image unchanged instead of making it NaN.
    """
    gradient = jax.grad(lambda images: evaluate(images)[0].sum())
    return lambda images: jnp.nan_to_num(gradient(images))


def at(logits, labels):
    """The logits of the labels: (batch,)."""
    return jnp.take_along_axis(logits, labels[:, None], 1)[:, 0]


def highest_other(logits, labels):
    """The highest logit of another class than the label: (batch,)."""
    return jnp.where(jnp.arange(logits.shape[1]) == labels[:, None], -jnp.inf, logits).max(1)


def _need(logits, classes, loss):
    if logits.shape[1] < classes:
        raise ValueError(f"loss={loss!r} on {logits.shape[1]} classes: expected at least {classes} classes")
