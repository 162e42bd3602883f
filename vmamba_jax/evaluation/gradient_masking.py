"""Diagnostics for overestimated robustness: the checks of the reference AutoAttack, and two signs of gradient masking."""
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from vmamba_jax import attacks
from vmamba_jax.attacks import losses
from vmamba_jax.core import checks, closures
from vmamba_jax.core.closures import argument
from vmamba_jax.core.images import unit_interval
from vmamba_jax.core.results import Rows
from vmamba_jax.evaluation.programs import Programs, held

RANDOMIZED = 1e-4      # largest difference between passes over the same images that is not reported
SQUARE_GAIN = 0.002    # largest fraction of the set broken by Square after the gradient attacks that is not reported
NOT_FINITE = "the logits of this fraction of the images are not finite, which counts as misclassified: the accuracies have no meaning"
_PROGRAMS = Programs()


def gradient_masking_signs(logits_fn, images, labels, *, eps, norm="linf", key, result=None, surrogate=None) -> Rows:
    """Signs that a robust accuracy is too high, or of no meaning: [{"sign", "measured", "meaning"}], empty if there are none.

    The first is "not_finite": images whose logits are not all finite, which count as misclassified, clean or under PGD-20.
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
    images, labels, signs = jnp.asarray(unit_interval(np.asarray(images))), jnp.asarray(labels), []
    checks.batch(images, labels, 0, 1)
    checks.require(len(images), f"images.shape={images.shape}: expected at least one image")
    logits_fn, surrogate = argument(logits_fn, images.shape[1:]), None if surrogate is None else argument(surrogate, images.shape[1:])
    forward, without_gradient, attacked = (_program(fn, logits_fn, surrogate) for fn in (_logits, _without_gradient, _attacked))

    def add(sign, measured, meaning):
        signs.append({"sign": sign, "measured": measured, "meaning": meaning})

    passes = np.stack([forward(logits_fn, images) for _ in range(5)])
    logits, classes = passes[0], passes.shape[-1]
    checks.classes(labels, *logits.shape)
    finite, correct = np.isfinite(passes).all((0, 2)), np.asarray(losses.correct(logits, labels))
    rows = passes[:, finite]
    if (spread := float(np.ptp(rows, axis=0).max(initial=0))) > RANDOMIZED:
        add("randomised", spread, "outputs differ between passes: attack the average over random draws (version 'rand')")
    if finite.any() and rows.min() >= 0 and rows.max() <= 1 and np.abs(rows[0].sum(-1) - 1).max() < 1e-5:
        add("probabilities", float(rows[0].max()), "outputs are probabilities, not logits: losses saturate")
    if classes < 10:
        add("few_classes", classes, "targeted attacks are not defined" if classes < 4 else "the 9 targeted runs are not available")
    for loss in ("cross_entropy", *(["dlr"] if classes >= 3 else [])):
        flat = without_gradient(logits_fn, Partial(losses.get(loss)), images, labels) & correct
        if flat.any():
            add("zero_gradient", float(flat.mean()), f"the {loss} loss has no gradient for this fraction of the images")

    radii = dict(eps=eps, norm=norm)
    pgd = attacks.pgd(steps=20, **radii)

    def after(attack, model):
        return forward(logits_fn, attacked(model, attack, images, labels, key))

    def robust(logits):
        return float((correct & losses.correct(logits, labels)).mean())
    attacked_logits = after(pgd, logits_fn)
    white_box, single = robust(attacked_logits), robust(after(attacks.fgsm(**radii), logits_fn))
    finite &= np.isfinite(attacked_logits).all(-1)
    if not finite.all():
        signs.insert(0, {"sign": "not_finite", "measured": float(1 - finite.mean()), "meaning": NOT_FINITE})
    if single < white_box:
        add("single_step", [single, white_box], "accuracy under FGSM is below accuracy under PGD-20: gradients mislead over several steps")
    if surrogate is not None and (black_box := robust(after(pgd, surrogate))) < white_box:
        add("transfer", [black_box, white_box], "accuracy under another model's PGD is below that under its own: gradients are masked")
    if result is not None:
        gain = sum(stage["broken"] for stage in result.get("stages", ()) if stage["name"].startswith("square")) / result["examples"]
        if gain > SQUARE_GAIN:
            add("square", gain, "a black-box attack broke this fraction after the gradient attacks: gradients are masked")
    return Rows(signs)


def _program(fn, *models):
    """The function (model, *args) -> `fn(model, *args)` on the host, compiled; kept as long as the models' functions, see `programs`.

    A model that may have changed since an earlier use is traced once for each `_program`.
    """
    weak = {id(model): held(model)[0] for model in models}
    # A function of its own: JAX's caches of `fn` itself would keep the constants of the classifiers.
    program = (_PROGRAMS.get if closures.all_constant(models) else _PROGRAMS.current)(lambda: jax.jit(lambda *args: fn(*args)), fn, held(models)[1])
    return lambda model, *args: np.asarray(program(weak[id(model)], *args))


def _logits(logits_fn, images):
    return logits_fn(images)


def _without_gradient(logits_fn, loss, images, labels):
    gradient = jax.grad(lambda x: loss(logits_fn(x), labels).sum())(images)
    return ~(gradient != 0).any((1, 2, 3))


def _attacked(logits_fn, attack, images, labels, key):
    return attack(logits_fn, images, labels, key)
