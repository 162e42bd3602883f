"""Auto-PGD (APGD): projected gradient ascent with momentum and an adaptive step size."""
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.attacks import losses, norms
from vmamba_jax.attacks.autoattack.apgd_schedule import Phase, ascend, dense_checkpoints, sparse_checkpoints
from vmamba_jax.attacks.autoattack.search import Search, first_successes, malt_targets, ranked_targets
from vmamba_jax.attacks.base import Passes
from vmamba_jax.attacks.randomized import value_and_gradient
from vmamba_jax.attacks.threat_model import ThreatModel
from vmamba_jax.core import checks
from vmamba_jax.core.keys import attempt_keys, fold_in
from vmamba_jax.core.records import record


@record("eps")
class APGD(Search):
    """Auto-PGD, untargeted or towards `n_targets` classes in turn.

    Per image it returns the first misclassified iterate, or the clean image if there is none or if it is misclassified already.

    Args:
        eps: radius >= 0 in pixel units; may be traced.
        steps: gradient steps >= 1 per run.
        norm: "linf", "l2" or "l1".
        random_start: begin at a random point: on the ball's surface in linf and l2, a projected Gaussian in l1; then clipped to the box.
        restarts: runs, per target, from different random starts.
        loss: "cross_entropy", "margin", "dlr", "probability_margin" or a callable (logits, labels) -> (batch,); with `n_targets` "dlr_targeted",
            or any of the others, which is then minimized at the target.
        n_targets: number of classes to attack towards, in the order of `targets`; None: untargeted.
        targets: "logits": classes of rank 2, 3, ... of the clean logits; "malt": those of the nearest linearized boundaries, see
            `autoattack.search.malt_targets`.
        rho: fraction of rising steps between two checkpoints that keeps the step size (linf and l2).
        eot: number of gradients averaged at each iterate of a `Randomized` classifier.
        large_eps: l1 only: begin in balls of three and two times the radius, 30% of the steps each (Croce & Hein 2021).
        keep: "first_hit": the first misclassified iterate; "highest_loss": the iterate of highest loss over all restarts.
        targeted: labels are targets, and the loss is minimized.
        bounds: lowest and highest value of a pixel.

    Source: Croce & Hein 2020, algorithm 1; in l1 Croce & Hein 2021, algorithm 1.
    """
    eps: float
    steps: int = 100
    norm: str = "linf"
    random_start: bool = True
    _: dataclasses.KW_ONLY
    restarts: int = 1
    loss: str = "cross_entropy"
    n_targets: int | None = None
    targets: str = "logits"
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
            raise ValueError(f"restarts={self.restarts} with random_start=False: expected restarts=1, as every restart would be the same")
        checks.choice("keep", self.keep, ("first_hit", "highest_loss"))
        if checks.choice("targets", self.targets, ("logits", "malt")) == "malt" and self.n_targets is None:
            raise ValueError("targets='malt' with n_targets=None: expected a number of classes to attack towards")
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
            raise ValueError("loss='dlr_targeted' with n_targets=None: expected a number of classes to attack towards")

    @property
    def passes(self):
        if self.keep == "first_hit":
            return None
        return Passes(sum(steps + 1 for steps in self._phases()[1]) * self.restarts)

    def search(self, logits_fn, images, labels, keys, clean, active):
        if self.n_targets is not None:
            targets = (ranked_targets(clean, self.n_targets) if self.targets == "logits" else
                       malt_targets(logits_fn, images, labels, keys, clean, self.n_targets, self.norm))

        def attempt(i, left):
            criterion = (losses.criterion(labels, self.loss, self.targeted) if self.n_targets is None else
                         towards(labels, targets[:, i // self.restarts], self.loss))
            run = self._ascend(logits_fn, images, criterion)(attempt_keys(keys, i, self.restarts), left)
            return run.adversarial, run.success
        return first_successes(attempt, images, active, (self.n_targets or 1) * self.restarts)

    def run(self, logits_fn, images, labels, keys):
        if self.keep == "first_hit":
            return super().run(logits_fn, images, labels, keys)
        one_run = self._ascend(logits_fn, images, losses.criterion(labels, self.loss, self.targeted))

        def attempt(r, best):
            run = one_run(attempt_keys(keys, r, self.restarts), None)
            better = run.best_value > best[1]
            return jnp.where(norms.per_image(better, images), run.best, best[0]), jnp.where(better, run.best_value, best[1])
        value = jax.eval_shape(lambda: one_run(attempt_keys(keys, 0, self.restarts), None).best_value)
        lowest = (0 * images.reshape(len(images), -1)[:, 0]).astype(value.dtype) - jnp.inf
        return lax.fori_loop(0, self.restarts, attempt, (images, lowest))[0]

    def _ascend(self, logits_fn, images, criterion):
        """The function (keys, active) -> `Run`: from one start, through all radii."""
        evaluate = value_and_gradient(logits_fn, criterion, self.eot)
        factors, steps = self._phases()
        checkpoints = np.full((len(steps), max(steps) + 1), -1, np.int32)
        for row, n in zip(checkpoints, steps, strict=True):
            row[:n + 1] = sparse_checkpoints(n) if self.norm == "l1" else dense_checkpoints(n, self.rho)

        def phase(p, **options):
            lower, upper = self.bounds
            radius = jnp.asarray(factors, images.dtype)[p] * self.eps if len(factors) > 1 else self.eps
            threat = ThreatModel(self.norm, radius, lower=lower, upper=upper)
            return Phase(threat, jnp.asarray(checkpoints)[p], jnp.asarray(steps)[p], **options)

        def one(keys, active):
            first = phase(0, resumed=len(factors) > 1)
            start = random_start(first.threat, images, keys) if self.random_start else images
            if len(factors) == 1:
                return ascend(first, evaluate, images, start, keys, active=active)

            def shrink(p, run):
                current = phase(p, resumed=True, final=p == len(steps) - 1)
                ball = current.threat
                inside = images + norms.l1_in_box(images, run.best - images, ball.eps, ball.lower, ball.upper)
                return ascend(current, evaluate, images, inside, keys, active=active)
            return lax.fori_loop(0, len(steps), shrink, first.begin(evaluate, images, start, keys))
        return one

    def _phases(self):
        """(multiples of the radius, steps at each)."""
        if not self.large_eps:
            return [1.0], [self.steps]
        n = math.ceil(0.3 * self.steps)
        return [3.0, 2.0, 1.0], [n, n, self.steps - 2 * n]


def towards(labels, targets, loss):
    """The criterion (see `losses.criterion`) of a targeted run whose success is any class other than `labels`.

    Args:
        labels: (batch,) integers, the true classes.
        targets: (batch,) integers.
        loss: "dlr_targeted", or a loss that is minimized at the targets.
    """
    def value(logits, labels):
        if loss == "dlr_targeted":
            return losses.dlr_targeted(logits, labels, targets)
        return -losses.get(loss)(logits, targets)
    return losses.criterion(labels, value)


def random_start(threat, images, keys):
    """A random start of APGD: of length eps in linf and l2, the projection of a standard Gaussian in l1; clipped to the box."""
    direction = norms.random_direction(images, fold_in(keys, 2**31 - 1), threat.norm)
    eps = jnp.asarray(threat.eps, images.dtype)
    if threat.norm == "l1":
        return images + norms.l1_in_box(images, direction, eps, threat.lower, threat.upper)
    size = norms.per_image(norms.length(direction, threat.norm), images)
    return threat.project(images, images + eps * direction / size)


apgd = APGD
