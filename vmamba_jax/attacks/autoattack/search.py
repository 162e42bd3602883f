"""Base class of attacks that search for one misclassified image in the ball: the parts of AutoAttack."""
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import losses, randomized
from vmamba_jax.attacks.base import NormAttack
from vmamba_jax.attacks.norms import per_image
from vmamba_jax.core import checks


class Search(NormAttack):
    """An attack that returns a misclassified image if it finds one and the clean image otherwise, as the reference AutoAttack does.

    A subclass has `search(logits_fn, images, labels, keys, clean, active) -> (adversarial, success (batch,) bool)`, where `clean` are the
    logits of the images. Only `active` images (batch,) bool are attacked, and the search ends once all of them are misclassified.
    """
    targeted = False
    l1_fraction = None
    loss = "margin"

    def run(self, logits_fn, images, labels, keys):
        clean = randomized.logits(logits_fn, images, keys)
        checks.classes(labels, *clean.shape)
        predicted = losses.correct(clean, labels)
        return self.search(logits_fn, images, labels, keys, clean, ~predicted if self.targeted else predicted)[0]


def first_successes(attempt, images, active, attempts):
    """(adversarial, success (batch,) bool) of repeated attempts; each image keeps its first success.

    Args:
        attempt: (i, active (batch,) bool) -> (adversarial, success).
        images: the clean images, (batch, H, W, C).
        active: (batch,) bool, the images to attack; the loop ends once all of them are misclassified.
        attempts: maximum number of attempts.
    """
    def unfinished(state):
        i, _, success = state
        return (i < attempts) & (active & ~success).any()

    def step(state):
        i, adversarial, success = state
        left = active & ~success
        found, now = attempt(i, left)
        now = now & left
        return i + 1, jnp.where(per_image(now, images), found, adversarial), success | now

    return lax.while_loop(unfinished, step, (0, images, active & False))[1:]


def ranked_targets(clean, n_targets):
    """The classes of rank 2 to n_targets + 1 in the clean logits: (batch, n_targets)."""
    classes = clean.shape[1]
    if n_targets > classes - 1:
        raise ValueError(f"n_targets={n_targets} on {classes} classes: expected at most {classes - 1}")
    return lax.top_k(clean, n_targets + 1)[1][:, 1:]
