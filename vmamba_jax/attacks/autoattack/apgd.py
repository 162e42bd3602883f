"""APGD: projected gradient ascent with momentum that sets its own step sizes."""
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.attacks import losses, norms
from vmamba_jax.attacks.autoattack.apgd_run import begin, climb
from vmamba_jax.attacks.autoattack.apgd_schedule import rise_limits, sparsity_checks
from vmamba_jax.attacks.autoattack.search import Search, first_hits, ranked_targets
from vmamba_jax.attacks.directions import noise
from vmamba_jax.attacks.randomized import value_and_gradient
from vmamba_jax.attacks.threat_model import ThreatModel
from vmamba_jax.core import checks
from vmamba_jax.core.keys import attempt_keys, fold_in
from vmamba_jax.core.records import record


@record("eps")
class APGD(Search):
    """Auto-PGD (Croce & Hein 2020, algorithm 1; in l1 Croce & Hein 2021, algorithm 1), towards the runners-up where `n_targets` is given.

    Per image the first misclassified iterate is returned, the clean image where there is none (or where it is misclassified already).

    Args:
        eps: radius >= 0 in pixel units; may be traced.
        steps: gradient steps >= 1 of each run.
        norm: "linf", "l2" or "l1".
        random_start: begin at a random point: on the ball's surface in linf and l2, a projected Gaussian in l1; then clipped to the box.
        restarts: runs, per target, from different random starts.
        loss: "cross_entropy", "margin", "dlr" or a callable (logits, labels) -> (batch,); with `n_targets` "dlr_targeted", or any of the
            others, which is then descended at the target.
        n_targets: None, or attack towards this many classes in turn, those of rank 2, 3, ... of the clean logits.
        rho: share of rising steps between two checkpoints that keeps the step size (linf and l2).
        eot: gradients averaged at each iterate of a `Randomized` classifier.
        large_eps: l1 only: begin in balls of three and two times the radius, 30% of the steps each (Croce & Hein 2021).
        keep: "first_hit", or "highest_loss": the iterate of highest loss over all restarts, misclassified or not.
        targeted: labels are targets, and the loss is descended.
        bounds: lowest and highest value of a pixel.
    """
    eps: float
    steps: int = 100
    norm: str = "linf"
    random_start: bool = True
    _: dataclasses.KW_ONLY
    restarts: int = 1
    loss: str = "cross_entropy"
    n_targets: int | None = None
    rho: float = 0.75
    eot: int = 1
    large_eps: bool = False
    keep: str = "first_hit"
    targeted: bool = False
    bounds: tuple[float, float] = (0.0, 1.0)

    name = "apgd"

    def __post_init__(self):
        super().__post_init__()
        self._set(steps=checks.count("steps", self.steps), restarts=checks.count("restarts", self.restarts),
                  eot=checks.count("eot", self.eot), random_start=checks.flag("random_start", self.random_start),
                  large_eps=checks.flag("large_eps", self.large_eps), rho=checks.number("rho", self.rho, low=0))
        if self.restarts > 1 and not self.random_start:
            raise ValueError(f"restarts={self.restarts} with random_start=False: expected restarts=1, as all would be the same")
        checks.choice("keep", self.keep, ("first_hit", "highest_loss"))
        if self.n_targets is not None:
            self._set(n_targets=checks.count("n_targets", self.n_targets))
            if self.targeted or self.keep == "highest_loss":
                raise ValueError(f"n_targets={self.n_targets} with targeted={self.targeted}, keep={self.keep!r}: expected targeted=False "
                                 "and keep='first_hit'")
        if self.large_eps and (self.norm != "l1" or self._phases()[1][-1] < 1):
            raise ValueError(f"large_eps=True with norm={self.norm!r}, steps={self.steps}: expected norm='l1' and steps >= 5")

    def _check_loss(self):
        if self.loss != "dlr_targeted":
            losses.get(self.loss)
        elif self.n_targets is None:
            raise ValueError("loss='dlr_targeted' with n_targets=None: expected n_targets, the number of classes to attack towards")

    def search(self, logits_fn, images, labels, keys, clean, standing):
        if self.n_targets is not None:
            targets = ranked_targets(clean, self.n_targets)

        def attempt(i, left):
            judge = (losses.judgement(labels, self.loss, self.targeted) if self.n_targets is None else
                     towards(labels, targets[:, i // self.restarts], self.loss))
            run = self._climb(logits_fn, images, judge)(attempt_keys(keys, i, self.restarts), left)
            return run.adversarial, run.hit
        return first_hits(attempt, images, standing, (self.n_targets or 1) * self.restarts)

    def run(self, logits_fn, images, labels, keys):
        if self.keep == "first_hit":
            return super().run(logits_fn, images, labels, keys)
        climb = self._climb(logits_fn, images, losses.judgement(labels, self.loss, self.targeted))

        def attempt(r, best):
            run = climb(attempt_keys(keys, r, self.restarts), None)
            better = run.best_value > best[1]
            return jnp.where(norms.per_image(better, images), run.best, best[0]), jnp.where(better, run.best_value, best[1])
        value = jax.eval_shape(lambda: climb(attempt_keys(keys, 0, self.restarts), None).best_value)
        lowest = (0 * images.reshape(len(images), -1)[:, 0]).astype(value.dtype) - jnp.inf
        return lax.fori_loop(0, self.restarts, attempt, (images, lowest))[0]

    def _climb(self, logits_fn, images, judge):
        """The function (keys, standing) -> run: from one start, through all its radii."""
        evaluate = value_and_gradient(logits_fn, judge, self.eot)
        factors, steps = self._phases()
        limits = np.full((len(steps), max(steps) + 1), -1, np.int32)
        for row, n in zip(limits, steps, strict=True):
            row[:n + 1] = sparsity_checks(n) if self.norm == "l1" else rise_limits(n, self.rho)

        def threat(p):
            lower, upper = self.bounds
            radius = jnp.asarray(factors, images.dtype)[p] * self.eps if len(factors) > 1 else self.eps
            return ThreatModel(self.norm, radius, lower=lower, upper=upper)

        def phase(p, start, keys, standing, **options):
            return climb(evaluate, threat(p), images, start, jnp.asarray(limits)[p], jnp.asarray(steps)[p], keys=keys, standing=standing,
                         **options)

        def one(keys, standing):
            first = start(threat(0), images, keys) if self.random_start else images
            if len(factors) == 1:
                return phase(0, first, keys, standing)

            def shrink(p, state):
                ball = threat(p)
                inside = images + norms.l1_in_box(images, state.best - images, ball.eps, ball.lower, ball.upper)
                return phase(p, inside, keys, standing, final=p == len(steps) - 1, phase=True)
            return lax.fori_loop(0, len(steps), shrink, begin(evaluate, threat(0), images, first, keys, phase=True))
        return one

    def _phases(self):
        """(multiples of the radius, steps in each)."""
        if not self.large_eps:
            return [1.0], [self.steps]
        n = math.ceil(0.3 * self.steps)
        return [3.0, 2.0, 1.0], [n, n, self.steps - 2 * n]


def towards(labels, targets, loss):
    """Judgement of logits for an attack towards `targets` that any other class than `labels` satisfies."""
    def value(logits, labels):
        if loss == "dlr_targeted":
            return losses.dlr_targeted(logits, labels, targets)
        return -losses.get(loss)(logits, targets)
    return losses.judgement(labels, value)


def start(threat, images, keys):
    """A random start of APGD: of length eps in linf and l2, the projection of a standard Gaussian in l1; clipped to the box."""
    drawn = noise(images, fold_in(keys, 2**31 - 1), threat.norm)
    eps = jnp.asarray(threat.eps, images.dtype)
    if threat.norm == "l1":
        return images + norms.l1_in_box(images, drawn, eps, threat.lower, threat.upper)
    size = norms.per_image(norms.length(drawn, threat.norm), images)
    return threat.project(images, images + eps * drawn / size)


apgd = APGD
