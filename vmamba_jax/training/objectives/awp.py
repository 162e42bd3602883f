"""Adversarial weight perturbation (Wu et al. 2020): the update's gradient is taken at weights perturbed to raise the loss."""
import dataclasses

import jax
import jax.numpy as jnp

from vmamba_jax.core import checks
from vmamba_jax.training.objectives.step import Step


def awp(classifier, optimizer, *, objective="pgd_at", gamma=0.01, after=0, **options):
    """Another objective's step under `perturb_weights`.

    Args:
        classifier, optimizer: as of `pgd_at`.
        objective: name of the other objective.
        gamma, after: see `perturb_weights`.
        **options: the other objective's.
    """
    from vmamba_jax.training.objectives import create
    if objective == "awp":
        raise ValueError("objective='awp': expected an objective other than awp")
    return perturb_weights(create(objective, classifier, optimizer, **options), gamma, after)


def perturb_weights(step, gamma=0.01, after=0):
    """Any objective's step with adversarial weight perturbation.

    After the attack, every tensor w of more than one dimension moves by gamma |w| g / |g| along its gradient g of the step's own loss; the
    update's gradient is taken there and applied to the unperturbed weights. Batch statistics are those of the second pass. The cost of the
    update, not of the attack, doubles.

    Args:
        step: `Step` of an objective without weight perturbation.
        gamma: relative size >= 0 of the perturbation; the paper's for adversarial training is 0.01, for TRADES 0.005.
        after: number of steps done before the perturbation begins.

    Source: Wu, Xia & Wang 2020, algorithm 1.
    """
    if not isinstance(step, Step) or step.perturb is not None:
        raise ValueError(f"step={step!r}: expected an objective's step that is not yet perturbed")
    checks.number("gamma", gamma, low=0)
    checks.count("after", after, 0)

    def perturb(params, grads, done):
        scale = gamma * (done >= after)

        def move(w, g):
            length = jnp.linalg.norm(g.ravel())
            return w if w.ndim <= 1 else w + (scale * jnp.linalg.norm(w.ravel()) / jnp.where(length > 0, length, 1)).astype(w.dtype) * g
        return jax.tree.map(move, params, grads)

    return dataclasses.replace(step, perturb=perturb)
