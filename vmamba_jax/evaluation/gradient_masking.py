"""Signs that a robust accuracy is not to be trusted: the reference AutoAttack's own checks, and those for masked gradients."""
import functools

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax import attacks
from vmamba_jax.attacks import losses
from vmamba_jax.evaluation.loop import argument

RANDOMISED = 1e-4      # difference between two passes over the same images
SQUARE_GAIN = 0.002    # share of the set that a black-box attack may break after the white-box ones


def suspicions(logits_fn, images, labels, *, eps, norm="linf", key, result=None, surrogate=None):
    """Warnings as [{"sign", "measured", "meaning"}], none where all is well.

    Signs, on the images given: "randomised" (five forward passes differ by more than 1e-4), "probabilities" (rows within [0, 1] that sum to 1:
    attacks need logits), "zero_gradient" (images right but without gradient, by cross entropy or the DLR loss), "few_classes" (under 4, where
    targeted DLR is not defined, or under 10, where 9 targets are not to be had); from a result of `robust_accuracy`, "square" (Square broke more
    than 0.2 % of the set after the gradient attacks). All are the reference's (Croce & Hein 2020, its repository's checks). Ours: "single_step"
    (FGSM breaks images more often than PGD-20 at the same radius) and "transfer" (PGD against `surrogate` breaks this model more often than PGD
    against itself): both mean gradients that hide the way (Athalye et al. 2018, section 3).

    Args:
        logits_fn: images (n, H, W, C) in [0, 1] -> logits (n, classes). images, labels: one batch of the set, (n,) labels.
        eps, norm: the threat model of the evaluation. key: a random key.
        result: what `robust_accuracy` returned for AutoAttack.
        surrogate: another model's logits_fn.
    """
    logits_fn, found = argument(logits_fn), []
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    warn = lambda sign, measured, meaning: found.append({"sign": sign, "measured": measured, "meaning": meaning})

    passes = np.stack([_forward(logits_fn, images) for _ in range(5)])
    logits, classes = passes[0], passes.shape[-1]
    right = logits.argmax(-1) == np.asarray(labels)
    if (spread := float(np.ptp(passes, axis=0).max())) > RANDOMISED:
        warn("randomised", spread, "outputs differ from pass to pass: attack an average over draws (version 'rand')")
    if logits.min() >= 0 and logits.max() <= 1 and np.abs(logits.sum(-1) - 1).max() < 1e-5:
        warn("probabilities", float(logits.max()), "outputs are probabilities, not logits: losses on them saturate")
    if classes < 10:
        meaning = "targeted attacks are not defined" if classes < 4 else "nine targets are not to be had"
        warn("few_classes", classes, meaning)
    for loss in ("cross_entropy", *(["dlr"] if classes >= 3 else [])):
        still = _without_gradient(logits_fn, images, labels, loss) & right
        if still.any():
            warn("zero_gradient", float(still.mean()), f"this share of the images gives the {loss} loss no gradient")

    radii = dict(eps=eps, norm=norm)
    pgd = attacks.pgd(steps=20, **radii)
    standing = lambda attack, guide: float((right & (_forward(logits_fn, _attacked(attack, guide, images, labels, key)).argmax(-1) == labels)).mean())
    white_box, single = standing(pgd, logits_fn), standing(attacks.fgsm(**radii), logits_fn)
    if single < white_box:
        warn("single_step", [single, white_box], "accuracy under FGSM is below that under PGD-20: gradients point nowhere over many steps")
    if surrogate is not None and (black_box := standing(pgd, argument(surrogate))) < white_box:
        warn("transfer", [black_box, white_box], "accuracy under another model's PGD is below that under its own: gradients are masked")
    if result is not None:
        gain = sum(stage["broken"] for stage in result.get("stages", ()) if stage["name"].startswith("square")) / result["examples"]
        if gain > SQUARE_GAIN:
            warn("square", gain, "the black-box attack broke this share after the gradient attacks: gradients are masked")
    return found


@jax.jit
def _logits(logits_fn, images):
    return logits_fn(images)


def _forward(logits_fn, images):
    return np.asarray(_logits(logits_fn, images))


@functools.partial(jax.jit, static_argnums=3)
def _without_gradient(logits_fn, images, labels, loss):
    gradient = jax.grad(lambda x: losses.get(loss)(logits_fn(x), labels).sum())(images)
    return ~(gradient != 0).any((1, 2, 3))


@jax.jit
def _attacked(attack, logits_fn, images, labels, key):
    return attack(logits_fn, images, labels, key)
