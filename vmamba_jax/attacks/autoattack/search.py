"""Attacks that look for one misclassified image in the ball and keep the first they find: what AutoAttack is made of."""
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import randomized
from vmamba_jax.attacks.base import Attack
from vmamba_jax.attacks.norms import per_image


class Search(Attack):
    """An attack that returns a misclassified image where it finds one and the clean image elsewhere, as the reference AutoAttack does.

    A subclass has `search(logits_fn, images, labels, keys, clean, standing) -> (adversarial, hit (batch,) bool)`: `clean` are the logits
    of the images; only those `standing` (batch,) are worth attacking, and all work ends when each of them is hit.
    """
    targeted = False
    l1_fraction = None
    loss = "margin"

    def run(self, logits_fn, images, labels, keys):
        clean = randomized.logits(logits_fn, images, keys)
        predicted = clean.argmax(1) == labels
        return self.search(logits_fn, images, labels, keys, clean, ~predicted if self.targeted else predicted)[0]


def first_hits(attempt, images, standing, attempts):
    """Repeat `attempt(i, left) -> (adversarial, hit)` for i < attempts while any image is left standing; each keeps its first hit."""
    def unfinished(state):
        i, _, hit = state
        return (i < attempts) & (standing & ~hit).any()

    def step(state):
        i, adversarial, hit = state
        left = standing & ~hit
        found, now = attempt(i, left)
        now = now & left
        return i + 1, jnp.where(per_image(now, images), found, adversarial), hit | now

    return lax.while_loop(unfinished, step, (0, images, standing & False))[1:]


def ranked_targets(clean, n_targets):
    """The classes of rank 2 to n_targets + 1 in the clean logits: (batch, n_targets)."""
    classes = clean.shape[1]
    if n_targets > classes - 1:
        raise ValueError(f"n_targets={n_targets} on {classes} classes: expected at most {classes - 1}")
    return lax.top_k(clean, n_targets + 1)[1][:, 1:]
