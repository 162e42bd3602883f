"""The optimisation inside Patch-Fool: Adam on the pixel values of patches, on the choice of pixels, with gradient surgery."""
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks.norms import per_image

FLOOR = 1e-6  # the lowest score that a pixel inside the patches falls to


def ascend(attack, gradients, images, inside, start, scores=None):
    """(adversarial, mask, trace) after `attack.steps` steps from given draws.

    Args:
        attack: a `PatchFool`, read for its numbers.
        gradients: x -> (cross-entropy (batch,), gradients (rows, batch, H, W, C)): of the cross-entropy, then of each layer's attention.
        images: (batch, H, W, C), in the dtype to compute in.
        inside: (batch, H, W, 1) bool, the patches.
        start: (batch, H, W, C), first values of the pixels.
        scores: (batch, H, W, 1), first scores of the pixels, 0 outside the patches; None moves them all.

    Returns the images with the patches in them, the pixels that were replaced (batch, H, W, 1) bool, and the cross-entropy before each step
    (steps, batch).
    """
    dtype = images.dtype
    unit, rate, decay = (jnp.asarray(x, dtype) for x in (attack.std, attack.learning_rate, attack.decay))
    updates = 0 if scores is None else max(min(attack.steps, attack.sparse_steps) - 1, 0)    # the choice of the last step they serve stays

    def mask(scores):
        return inside if scores is None else inside & highest(scores, attack.sparse)

    def step(state, i):
        pixels, moments, scores, score_moments = state
        chosen = mask(scores)
        loss, g = gradients(jnp.where(chosen, pixels, images))
        g = jnp.nan_to_num(g) * unit / attack.mean_over
        up, moments = adam(combined(g * chosen, attack), moments, i)
        moved = limited(attack, images, inside, pixels + rate * decay ** (i // attack.decay_every).astype(dtype) * unit * up)
        if updates:
            base = images if attack.sparse_gradient == "exact" else jnp.asarray(attack.mean, dtype)
            each = (g * (pixels - base) / unit * inside).sum(-1, keepdims=True)         # straight through the choice of the highest
            up, score_moments = adam(combined(each, attack, against_sum=attack.surgery == "released"), score_moments, i)
            raised = scores + attack.sparse_learning_rate * up
            raised = (raised - per_image(raised.reshape(len(raised), -1).min(1), raised) + FLOOR) * inside
            scores = jnp.where(i < updates, raised, scores)
        return (moved, moments, scores, score_moments), loss

    zeros = lambda x: None if x is None else (0 * x, 0 * x)
    state = start, zeros(start), scores, zeros(scores)
    (pixels, _, scores, _), trace = lax.scan(step, state, jnp.arange(attack.steps))
    chosen = mask(scores)
    return jnp.where(chosen, pixels, images), chosen, trace


def highest(scores, count):
    """The `count` pixels of highest score in each image (more where scores tie): (batch, H, W, 1) bool."""
    threshold = lax.top_k(scores.reshape(len(scores), -1), count)[0][:, -1]
    return scores >= per_image(threshold, scores)


def limited(attack, images, inside, pixels):
    """Pixel values within the box, and within a mild attack's radius: linf of each value, or l2 of each channel over all patches."""
    if attack.mild_norm == "linf":
        pixels = jnp.clip(pixels, images - attack.mild_eps, images + attack.mild_eps)
    if attack.mild_norm == "l2":
        change = (pixels - images) * inside
        size = jnp.sqrt((change * change).sum((1, 2), keepdims=True))
        pixels = images + change * jnp.where(size > attack.mild_eps, attack.mild_eps / jnp.where(size > 0, size, 1), 1)
    return jnp.clip(pixels, *attack.bounds)


def adam(gradient, moments, i):
    """The step of length about 1 that Adam takes uphill at iteration i = 0, 1, ... (Kingma & Ba 2015, algorithm 1), and its new moments."""
    mean, square = moments
    mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient * gradient
    t = (i + 1).astype(gradient.dtype)
    return mean / (1 - 0.9**t) / (jnp.sqrt(square / (1 - 0.999**t)) + 1e-8), (mean, square)


def combined(g, attack, against_sum=False):
    """g[0] plus the weighted other rows, each freed of what opposes g[0] (Yu et al. 2020, PCGrad): (rows, batch, ...) -> (batch, ...).

    With against_sum each row is freed of what opposes the sum so far, as the released program does for scores (an in-place addition there).
    """
    def add(total, row):
        ahead = total if against_sum else g[0]
        return total + attack.attention_weight * freed(row, ahead, attack.surgery), None
    return lax.scan(add, g[0], g[1:])[0]


def freed(row, ahead, surgery):
    """`row` without its part against `ahead`, per image; "released" divides by the length of `ahead` where its square belongs."""
    dot, square = ((x * ahead).reshape(len(x), -1).sum(1) for x in (row, ahead))
    size = jnp.sqrt(square) if surgery == "released" else square
    share = jnp.where(dot < 0, dot / jnp.where(size > 0, size, 1), 0)
    return row - per_image(share, row) * ahead
