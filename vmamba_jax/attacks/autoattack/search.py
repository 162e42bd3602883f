"""Base class of attacks that search for one misclassified image in the ball: the parts of AutoAttack."""
import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import losses, norms, randomized
from vmamba_jax.attacks.base import NormAttack
from vmamba_jax.attacks.norms import per_image
from vmamba_jax.core import checks

DUAL = {"linf": "l1", "l2": "l2", "l1": "linf"}  # norm of a gradient for perturbations of a norm


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


def malt_targets(logits_fn, images, labels, keys, clean, n_targets, norm, candidates=100):
    """The n_targets classes whose linearized decision boundaries are nearest, the nearest first: (batch, n_targets).

    A class t has the score (z_y - z_t) / |grad(z_y - z_t)|, with the norm dual to the attack's: the distance to its boundary if the classifier were
    linear. It takes one gradient per candidate.

    Args:
        logits_fn: images -> logits, or a `Randomized` classifier, of which one draw is used.
        images, labels: (batch, H, W, C), (batch,).
        keys: one random key per image, or None.
        clean: logits of the images.
        n_targets: number of classes returned.
        norm: "linf", "l2" or "l1".
        candidates: classes of highest logits that are scored; at least n_targets are.

    Source: Melamed et al. 2024 (MALT), arXiv 2407.02240.
    """
    classes = clean.shape[1]
    if n_targets > classes - 1:
        raise ValueError(f"n_targets={n_targets} on {classes} classes: expected at most {classes - 1}")
    others = jnp.where(jnp.arange(classes) == labels[:, None], -jnp.inf, clean)
    chosen = lax.top_k(others, min(max(candidates, n_targets), classes - 1))[1]
    logits, pull = jax.vjp(lambda x: randomized.logits(logits_fn, x, keys), images)
    own = jax.nn.one_hot(labels, classes, dtype=logits.dtype)

    def score(targets):
        w = jnp.nan_to_num(pull(own - jax.nn.one_hot(targets, classes, dtype=logits.dtype))[0])
        return (losses.at(logits, labels) - losses.at(logits, targets)) / (norms.length(w, DUAL[norm]) + 1e-12)
    scores = lax.map(score, chosen.T).T
    return jnp.take_along_axis(chosen, lax.top_k(-scores, n_targets)[1], 1)


def ranked_targets(clean, n_targets):
    """The classes of rank 2 to n_targets + 1 in the clean logits: (batch, n_targets)."""
    classes = clean.shape[1]
    if n_targets > classes - 1:
        raise ValueError(f"n_targets={n_targets} on {classes} classes: expected at most {classes - 1}")
    return lax.top_k(clean, n_targets + 1)[1][:, 1:]
