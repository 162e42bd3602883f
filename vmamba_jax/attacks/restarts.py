"""Repeat a randomised search and keep, for every image, the worst outcome."""
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks.norms import per_image
from vmamba_jax.core.keys import fold_in


def worst_of(search, evaluate, images, keys, restarts):
    """The best of `restarts` runs of `search(keys) -> adversarial` per image: a hit before none, then the higher value.

    `evaluate(adversarial) -> (value, hit)` judges (see `losses.objective`). Restart r draws from the keys with r folded in, so more
    restarts only ever add candidates. One restart is not judged: it costs no extra pass.
    """
    if restarts == 1:
        return search(fold_in(keys, 0))

    def attempt(r, best):
        best_images, best_value, best_hit = best
        found = search(fold_in(keys, r))
        value, hit = evaluate(found)
        # `not <` rather than `>=`: a NaN, at once or so far, never holds its place
        better = (hit & ~best_hit) | ((hit == best_hit) & ~(value < best_value))
        return jnp.where(per_image(better, images), found, best_images), jnp.where(better, value, best_value), hit | best_hit

    # The starting values are made from the images, so that under shard_map they vary over the devices as the results will.
    zero = 0 * images.reshape(len(images), -1)[:, 0]
    value = (zero - jnp.inf).astype(jnp.promote_types(images.dtype, jnp.float32))
    return lax.fori_loop(0, restarts, attempt, (images, value, zero != 0))[0]
