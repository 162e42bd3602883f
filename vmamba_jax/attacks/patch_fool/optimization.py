"""The optimization of Patch-Fool: its objectives, Adam on pixel values and on the choice of pixels, gradient surgery."""
import jax
import jax.numpy as jnp
import optax
from jax import lax

from vmamba_jax.attacks import losses
from vmamba_jax.attacks.norms import per_image
from vmamba_jax.attacks.patch_fool import selection

FLOOR = 1e-6  # the lowest score of a pixel inside the patches
ADAM = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)


def logits_and_attention(with_attention, images):
    """(logits, attention) of the images; ValueError if `with_attention` is None, TypeError unless it returns such a pair."""
    if with_attention is None:
        raise ValueError("with_attention=None: expected a function images -> (logits, attention) for mode or selection 'attention', such "
                         "as analysis.attention_fn(model, variables)")
    found = with_attention(images)
    if not isinstance(found, tuple) or len(found) != 2 or not hasattr(found[1], "__len__"):
        raise TypeError(f"with_attention returned {type(found).__name__}: expected (logits, attention), attention[l] that of layer l")
    return found


def cross_entropy(logits_fn, labels):
    """The objective x -> (1, batch)."""
    evaluate = losses.objective(logits_fn, labels, "cross_entropy")
    return lambda x: evaluate(x)[0][None]


def with_paid_attention(with_attention, labels, token):
    """The objectives x -> (rows, batch): cross-entropy, then the log attention paid to `token` (batch,) in layers 1 ... n / 2 - 1 of n."""
    def evaluate(x):
        logits, attention = logits_and_attention(with_attention, x)
        if len(attention) < 4 or any(layer.ndim != 4 for layer in attention):
            raise ValueError(f"with_attention returned layers of shapes {[layer.shape for layer in attention]}: expected at least 4 layers "
                             "of (batch, heads, queries, keys) for mode='attention'")
        rows = [selection.paid(attention[layer], token) for layer in range(1, len(attention) // 2)]
        return jnp.concatenate([cross_entropy(lambda x: logits, labels)(x), jnp.stack(rows)])
    return evaluate


def saliency(logits_fn, images, labels, unit):
    """The magnitude of the cross-entropy's gradient in units of `unit`, summed over the channels: (batch, H, W)."""
    gradient = losses.ascent_gradient(losses.objective(logits_fn, labels, "cross_entropy"))(images)
    return (jnp.abs(gradient.astype(unit.dtype)) * unit).sum(-1)


def gradients(evaluate, x):
    """(first row of evaluate(x), gradients of all rows (rows, batch, H, W, C)): one forward pass, then one backward pass per row."""
    values, pullback = jax.vjp(evaluate, x)
    zero = 0 * x.reshape(len(x), -1)[:, 0]   # computed from the images: under shard_map it must vary over the devices, as the values do
    return values[0], lax.map(lambda row: pullback((row[:, None] + zero).astype(values.dtype))[0], jnp.eye(len(values)))


def ascend(attack, gradients, images, inside, start, scores=None):
    """(adversarial, mask, trace) after `attack.steps` steps of Adam.

    Args:
        attack: a `PatchFool`, for its numbers.
        gradients: x -> (cross-entropy (batch,), gradients (rows, batch, H, W, C)): of the cross-entropy, then of each layer's attention.
        images: (batch, H, W, C), in the dtype of the computation.
        inside: (batch, H, W, 1) bool, the patches.
        start: (batch, H, W, C), initial pixel values.
        scores: (batch, H, W, 1), initial scores of the pixels, 0 outside the patches; None: all pixels of the patches are replaced.

    Returns:
        The images with the patches replaced, the replaced pixels (batch, H, W, 1) bool, and the cross-entropy before each step (steps,
        batch).
    """
    dtype = images.dtype
    unit, rate, decay = (jnp.asarray(x, dtype) for x in (attack.std, attack.learning_rate, attack.decay))
    updates = 0 if scores is None else max(min(attack.steps, attack.sparse_steps) - 1, 0)    # the last of these steps keeps its choice

    def mask(scores):
        return inside if scores is None else inside & highest(scores, attack.sparse)

    def step(state, i):
        pixels, adam, scores, score_adam = state
        chosen = mask(scores)
        loss, g = gradients(jnp.where(chosen, pixels, images))
        g = jnp.nan_to_num(g) * unit / attack.mean_over
        up, adam = ADAM.update(combined(g * chosen, attack), adam)
        moved = limited(attack, images, inside, pixels + rate * decay ** (i // attack.decay_every).astype(dtype) * unit * up)
        if updates:
            base = images if attack.sparse_gradient == "exact" else jnp.asarray(attack.mean, dtype)
            each = (g * (pixels - base) / unit * inside).sum(-1, keepdims=True)         # straight-through the choice of the highest scores
            up, score_adam = ADAM.update(combined(each, attack, against_sum=attack.surgery == "released"), score_adam)
            raised = scores + attack.sparse_learning_rate * up
            raised = (raised - per_image(raised.reshape(len(raised), -1).min(1), raised) + FLOOR) * inside
            scores = jnp.where(i < updates, raised, scores)
        return (moved, adam, scores, score_adam), loss

    def begin(x):  # `ADAM.init` would not vary over the devices under shard_map
        return None if x is None else optax.ScaleByAdamState(jnp.zeros((), jnp.int32), 0 * x, 0 * x)

    state = start, begin(start), scores, begin(scores)
    (pixels, _, scores, _), trace = lax.scan(step, state, jnp.arange(attack.steps))
    chosen = mask(scores)
    return jnp.where(chosen, pixels, images), chosen, trace


def highest(scores, count):
    """The `count` pixels of highest score in each image (more if scores tie): (batch, H, W, 1) bool."""
    threshold = lax.top_k(scores.reshape(len(scores), -1), count)[0][:, -1]
    return scores >= per_image(threshold, scores)


def limited(attack, images, inside, pixels):
    """Pixel values clipped to the box, and to a mild attack's radius: linf of each value, or l2 of each channel over all patches."""
    if attack.mild_norm == "linf":
        pixels = jnp.clip(pixels, images - attack.mild_eps, images + attack.mild_eps)
    if attack.mild_norm == "l2":
        change = (pixels - images) * inside
        size = jnp.sqrt((change * change).sum((1, 2), keepdims=True))
        pixels = images + change * jnp.where(size > attack.mild_eps, attack.mild_eps / jnp.where(size > 0, size, 1), 1)
    return jnp.clip(pixels, *attack.bounds)


def combined(g, attack, against_sum=False):
    """g[0] plus the weighted other rows, each without its part against g[0] (PCGrad): (rows, batch, ...) -> (batch, ...).

    Args:
        g: (rows, batch, ...).
        attack: a `PatchFool`, for `attention_weight` and `surgery`.
        against_sum: project each row against the sum so far instead of g[0], as the released program does for scores (an in-place addition
            there).

    Source: Yu et al. 2020.
    """
    def add(total, row):
        ahead = total if against_sum else g[0]
        return total + attack.attention_weight * projected(row, ahead, attack.surgery), None
    return lax.scan(add, g[0], g[1:])[0]


def projected(row, ahead, surgery):
    """`row` without its part against `ahead`, per image; surgery "released" divides by the length of `ahead` instead of its square."""
    dot, square = ((x * ahead).reshape(len(x), -1).sum(1) for x in (row, ahead))
    size = jnp.sqrt(square) if surgery == "released" else square
    part = jnp.where(dot < 0, dot / jnp.where(size > 0, size, 1), 0)
    return row - per_image(part, row) * ahead
