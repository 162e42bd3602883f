"""Probability margin attack (PMA): ascent on the difference of two softmax probabilities, in two runs with cosine step sizes."""
import dataclasses

import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks import losses
from vmamba_jax.attacks.autoattack.search import Search, first_successes
from vmamba_jax.attacks.norms import ascent, per_image
from vmamba_jax.attacks.randomized import value_and_gradient
from vmamba_jax.core import checks
from vmamba_jax.core.keys import attempt_keys, fold_in
from vmamba_jax.core.records import record

SCORES = ("probability_margin", "margin")


@record("eps")
class PMA(Search):
    """Probability margin attack: pairs of runs, one that first lowers the label's score, one that first raises the highest other score.

    The first step of a run raises the label's score, as in the released program; the steps up to the half change one of the two scores, the others
    raise their difference. The step size falls from 2 eps to 0 by a cosine in each half. Per image it returns the first misclassified iterate, or
    the clean image if there is none or if it is misclassified already.

    Args:
        eps: radius >= 0 in pixel units; may be traced.
        steps: gradient steps >= 2 per run.
        norm: "linf" (the paper's), "l2" or "l1".
        restarts: pairs of runs, from different random starts.
        loss: "probability_margin": the scores are softmax probabilities (PMA); "margin": they are logits (the margin decomposition attack, MD).
        bounds: lowest and highest value of a pixel.

    Source: Xie et al. 2024, arXiv 2411.15210; schedule and first step as in its released program (OpenTAI/taiadv) and in MD (Ma et al. 2020).
    """
    eps: float
    steps: int = 100
    norm: str = "linf"
    _: dataclasses.KW_ONLY
    restarts: int = 1
    loss: str = "probability_margin"
    bounds: tuple[float, float] = (0.0, 1.0)

    name = "pma"
    needs_key = "its runs start at random points"

    def __post_init__(self):
        super().__post_init__()
        self._set(steps=checks.count("steps", self.steps), restarts=checks.count("restarts", self.restarts))
        if self.steps < 2:
            raise ValueError(f"steps={self.steps}: expected at least 2, half of them for each part of the schedule")

    def _check_loss(self):
        checks.choice("loss", self.loss, SCORES)

    def search(self, logits_fn, images, labels, keys, clean, active):
        def attempt(i, left):
            return self._run(logits_fn, images, labels, attempt_keys(keys, i, 2 * self.restarts), left, raised=i % 2 == 1)
        return first_successes(attempt, images, active, 2 * self.restarts)

    def _run(self, logits_fn, images, labels, keys, active, raised):
        """(adversarial, success (batch,) bool) of one run from a random start; `raised`: the first half raises the highest other score."""
        threat, change = self.threat_model, self.steps / 2
        direction = ascent(threat)
        start = threat.random_start(images, fold_in(keys, 2**31 - 1))

        def evaluate(i, x):
            def value(logits, labels):
                own, other = self._scores(logits, labels)
                half = jnp.where(raised, other, -own)
                return jnp.where(i < 1, own, jnp.where(i < change, half, other - own))
            keys_now = fold_in(keys, i)
            return value_and_gradient(logits_fn, losses.criterion(labels, value), 1)(x, keys_now)

        def step(state):
            i, x, adversarial, success = state
            _, now, gradient = evaluate(i, x)
            adversarial = jnp.where(per_image(now & ~success, images), x, adversarial)
            moved = threat.project(images, x + jnp.asarray(threat.eps * step_size(i, self.steps), images.dtype) * direction(gradient, x))
            return i + 1, jnp.where(i < self.steps, moved, x), adversarial, success | now

        def unfinished(state):
            i, _, _, success = state
            return (i <= self.steps) & (active & ~success).any()

        return lax.while_loop(unfinished, step, (0, start, images, active & False))[2:]

    def _scores(self, logits, labels):
        """(score of the label, highest score of another class), each (batch,), up to a constant."""
        if self.loss == "margin":
            return losses.at(logits, labels), losses.highest_other(logits, labels)
        wrong, highest = losses.other_probabilities(logits, labels)
        return -wrong, highest


def step_size(i, steps):
    """Size of step i of a run over the radius: from 2 down to 0 by a cosine in each half of the steps; step 1 has the largest of the first half."""
    since = jnp.where(i > steps / 2, i - steps / 2 - 1, i - 1)
    return 1 + jnp.cos(2 * since / steps * jnp.pi)


pma = PMA
