"""Diagnostics for overestimated robustness: the checks of the reference AutoAttack, and two signs of gradient masking."""
import functools

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax import attacks
from vmamba_jax.attacks import losses
from vmamba_jax.evaluation.loop import argument

RANDOMIZED = 1e-4      # largest difference between passes over the same images that is not reported
SQUARE_GAIN = 0.002    # largest fraction of the set broken by Square after the gradient attacks that is not reported


def gradient_masking_signs(logits_fn, images, labels, *, eps, norm="linf", key, result=None, surrogate=None):
    """Signs that a robust accuracy is too high: [{"sign", "measured", "meaning"}], empty if there are none.

    Signs measured on the images, as in the reference AutoAttack: "randomised" (five forward passes differ by more than 1e-4),
    "probabilities" (rows within [0, 1] that sum to 1: attacks need logits), "zero_gradient" (correctly classified images without gradient,
    for cross-entropy or the DLR loss) and "few_classes" (fewer than 4 classes: targeted DLR is not defined; fewer than 10: the 9 targeted
    runs are not available). From a result of `robust_accuracy`: "square" (Square broke more than 0.2 % of the set after the gradient attacks).
    Two more: "single_step" (FGSM breaks more images than PGD-20 at the same radius) and "transfer" (PGD against `surrogate` breaks more
    images of this model than PGD against itself).

    Args:
        logits_fn: images (n, H, W, C) in [0, 1] -> logits (n, classes).
        images, labels: one batch of the set; labels (n,).
        eps, norm: the threat model of the evaluation.
        key: a random key.
        result: result of `robust_accuracy` for AutoAttack; None: no sign "square".
        surrogate: logits_fn of another model; None: no sign "transfer".

    Source: Croce & Hein 2020, arXiv 2003.01690, checks of the published program; Athalye et al. 2018, arXiv 1802.00420, section 3.
    """
    logits_fn, signs = argument(logits_fn), []
    images, labels = jnp.asarray(images), jnp.asarray(labels)

    def add(sign, measured, meaning):
        signs.append({"sign": sign, "measured": measured, "meaning": meaning})

    passes = np.stack([_forward(logits_fn, images) for _ in range(5)])
    logits, classes = passes[0], passes.shape[-1]
    correct = logits.argmax(-1) == np.asarray(labels)
    if (spread := float(np.ptp(passes, axis=0).max())) > RANDOMIZED:
        add("randomised", spread, "outputs differ between passes: attack the average over random draws (version 'rand')")
    if logits.min() >= 0 and logits.max() <= 1 and np.abs(logits.sum(-1) - 1).max() < 1e-5:
        add("probabilities", float(logits.max()), "outputs are probabilities, not logits: losses saturate")
    if classes < 10:
        add("few_classes", classes, "targeted attacks are not defined" if classes < 4 else "the 9 targeted runs are not available")
    for loss in ("cross_entropy", *(["dlr"] if classes >= 3 else [])):
        flat = _without_gradient(logits_fn, images, labels, loss) & correct
        if flat.any():
            add("zero_gradient", float(flat.mean()), f"the {loss} loss has no gradient for this fraction of the images")

    radii = dict(eps=eps, norm=norm)
    pgd = attacks.pgd(steps=20, **radii)

    def robust(attack, attacked):
        adversarial = _attacked(attack, attacked, images, labels, key)
        return float((correct & (_forward(logits_fn, adversarial).argmax(-1) == labels)).mean())
    white_box, single = robust(pgd, logits_fn), robust(attacks.fgsm(**radii), logits_fn)
    if single < white_box:
        add("single_step", [single, white_box], "accuracy under FGSM is below accuracy under PGD-20: gradients mislead over several steps")
    if surrogate is not None and (black_box := robust(pgd, argument(surrogate))) < white_box:
        add("transfer", [black_box, white_box], "accuracy under another model's PGD is below that under its own: gradients are masked")
    if result is not None:
        gain = sum(stage["broken"] for stage in result.get("stages", ()) if stage["name"].startswith("square")) / result["examples"]
        if gain > SQUARE_GAIN:
            add("square", gain, "a black-box attack broke this fraction after the gradient attacks: gradients are masked")
    return signs


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
