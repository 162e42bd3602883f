"""Adversarial weight perturbation: the gradient is taken where a small change of the weights raises the loss most."""
import dataclasses

import jax
import jax.numpy as jnp

from vmamba_jax.core import checks
from vmamba_jax.training.objectives.step import Step


def awp(classifier, optimizer, *, objective="pgd_at", gamma=0.01, after=0, **options):
    """The step of another objective, by name and with its own `options`, under `perturb_weights`."""
    from vmamba_jax.training.objectives import create
    checks.require(objective != "awp", "objective='awp': expected another objective")
    return perturb_weights(create(objective, classifier, optimizer, **options), gamma, after)


def perturb_weights(step, gamma=0.01, after=0):
    """Any objective's step with adversarial weight perturbation (Wu, Xia & Wang 2020, algorithm 1).

    Once the batch is attacked, every tensor w of more than one dimension moves by gamma |w| g / |g| along its gradient g of the step's own
    loss; the update's gradient is taken there and applied to the weights as they were. Batch statistics are those of the second pass.
    gamma: >= 0; the paper's for adversarial training is 0.01, for TRADES 0.005. after: steps done before the perturbation begins.
    The cost of the update, not of the attack, doubles.
    """
    checks.require(isinstance(step, Step) and step.perturb is None, f"step={step!r}: expected the step of an objective, not yet perturbed")
    checks.number("gamma", gamma, low=0)
    checks.count("after", after, 0)

    def perturb(params, grads, done):
        scale = gamma * (done >= after)

        def move(w, g):
            length = jnp.linalg.norm(g.ravel())
            return w if w.ndim <= 1 else w + (scale * jnp.linalg.norm(w.ravel()) / jnp.where(length > 0, length, 1)).astype(w.dtype) * g
        return jax.tree.map(move, params, grads)

    return dataclasses.replace(step, perturb=perturb)
