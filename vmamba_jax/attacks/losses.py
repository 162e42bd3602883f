"""What an attack maximises: `loss(logits, labels) -> (batch,)` for logits (batch, classes) and integer labels (batch,)."""
import jax
import jax.numpy as jnp
from jax import lax


def cross_entropy(logits, labels):
    """-log softmax(z)_y."""
    return jax.nn.logsumexp(logits, 1) - at(logits, labels)


def margin(logits, labels):
    """max_{j != y} z_j - z_y: positive exactly where misclassified (Carlini & Wagner 2017, f_6 with no confidence)."""
    _need(logits, 2, "margin")
    return _highest_other(logits, labels) - at(logits, labels)


def dlr(logits, labels):
    """Difference of logits ratio, -(z_y - max_{j != y} z_j) / (z_(1) - z_(3)) (Croce & Hein 2020, equation 6)."""
    _need(logits, 3, "dlr")
    top = lax.top_k(logits, 3)[0]
    return (_highest_other(logits, labels) - at(logits, labels)) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_targeted(logits, labels, targets):
    """-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2), maximised towards the targets t (Croce & Hein 2020, equation 7)."""
    _need(logits, 4, "dlr_targeted")
    top = lax.top_k(logits, 4)[0]
    return (at(logits, targets) - at(logits, labels)) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


LOSSES = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}


def get(loss):
    """The loss of that name, or the callable `(logits, labels) -> (batch,)` itself."""
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise ValueError(f"loss={loss!r}: expected a callable or one of {', '.join(map(repr, LOSSES))}")
    return LOSSES[loss]


def objective(logits_fn, labels, loss, targeted=False):
    """The function images -> (value to ascend (batch,), hit (batch,) bool): a hit is an image that the attack has won.

    Untargeted, the loss at the true labels is ascended and any other class is a hit; targeted, the loss at the target labels is descended
    and only the target is. Logits in a short float type are judged in float32.
    """
    judge = judgement(labels, loss, targeted)
    return lambda images: judge(checked(logits_fn(images), images))


def judgement(labels, loss, targeted=False):
    """The function logits -> (value to ascend, hit) of `objective`."""
    loss = get(loss)

    def judge(logits):
        value = loss(logits, labels)
        if value.shape != labels.shape:
            raise ValueError(f"loss returned shape {value.shape}: expected {labels.shape}, one value per image")
        predicted = logits.argmax(1) == labels
        return (-value, predicted) if targeted else (value, ~predicted)
    return judge


def checked(logits, images):
    """`logits` (batch, classes), in float32 at least; ValueError for any other shape."""
    if getattr(logits, "ndim", None) != 2 or len(logits) != len(images):
        shape = getattr(logits, "shape", type(logits).__name__)
        raise ValueError(f"logits_fn returned shape {shape}: expected ({len(images)}, classes)")
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def ascent_gradient(evaluate):
    """Gradient with respect to the images of the summed objective: every image's own, as images do not meet in a classifier.

    NaN becomes 0, which moves nothing: a network's NaN gradient must not become a NaN image.
    """
    gradient = jax.grad(lambda images: evaluate(images)[0].sum())
    return lambda images: jnp.nan_to_num(gradient(images))


def at(logits, labels):
    """The logits of the labels: (batch,)."""
    return jnp.take_along_axis(logits, labels[:, None], 1)[:, 0]


def _highest_other(logits, labels):
    return jnp.where(jnp.arange(logits.shape[1]) == labels[:, None], -jnp.inf, logits).max(1)


def _need(logits, classes, loss):
    if logits.shape[1] < classes:
        raise ValueError(f"loss {loss} on {logits.shape[1]} classes: expected at least {classes}")
