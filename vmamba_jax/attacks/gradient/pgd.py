"""FGSM and projected gradient descent (PGD): the standard white-box attacks."""
import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks.base import NormAttack, Passes, worst_of
from vmamba_jax.core import checks
from vmamba_jax.core.records import record


@record("eps")
class FGSM(NormAttack):
    """The fast gradient (sign) method: one step of the full radius, clipped to the box.

    x + eps * sign(gradient) in linf, x + eps * gradient / |gradient| in l2 and l1 (FGM).

    Args:
        eps: radius >= 0 in pixel units; may be traced.
        norm: "linf", "l2" or "l1".
        loss: "cross_entropy", "margin", "dlr", "probability_margin", or a callable (logits, labels) -> (batch,).
        targeted: labels are targets, and the loss is minimized.
        l1_fraction: norm "l1" only: fraction of the values that take the step, by sign; None: all move along the normalized gradient.
        bounds: lowest and highest value of a pixel.

    Source: Goodfellow et al. 2015.
    """
    eps: float
    norm: str = "linf"
    _: dataclasses.KW_ONLY
    loss: str = "cross_entropy"
    targeted: bool = False
    l1_fraction: float | None = None
    bounds: tuple[float, float] = (0.0, 1.0)

    name = "fgsm"
    passes = Passes(1)

    def run(self, logits_fn, images, labels, keys):
        del keys
        threat, _, gradient, direction = self._tools(logits_fn, labels)
        step = jnp.asarray(self.eps, images.dtype) * direction(gradient(images), images)
        return threat.project(images, images + step)


@record("eps", "step_size")
class PGD(NormAttack):
    """Projected gradient descent: steepest ascent steps on the loss, each followed by projection; returns the last iterate.

    Without a random start and in linf it is BIM (Kurakin et al. 2017).

    Args:
        eps: radius >= 0 in pixel units; may be traced.
        steps: number of gradient steps >= 1.
        step_size: length of a step in the norm, in pixel units; None: 2.5 * eps / steps. May be traced.
        norm: "linf", "l2" or "l1".
        random_start: begin at a random point, see `start`.
        start: "uniform" in the ball (see `ThreatModel.random_start`), "gaussian": images + 0.001 N(0, 1), not projected (Zhang et al. 2019,
            TRADES as released), or a callable (images, keys) -> images.
        restarts: runs from different random starts; a misclassified image is preferred, then the highest loss.
        loss: "cross_entropy", "margin", "dlr", "probability_margin", or a callable (logits, labels) -> (batch,).
        targeted: labels are targets, and the loss is minimized.
        l1_fraction: norm "l1" only: fraction of the values that a step moves, by sign (Tramer & Boneh 2019, q = 0.99); None: all move along
            the normalized gradient.
        projection: "nearest", or "radial" as in foolbox; they differ in l1 only.
        bounds: lowest and highest value of a pixel.

    Source: Madry et al. 2018, section 2.1.
    """
    eps: float
    steps: int
    step_size: float | None = None
    norm: str = "linf"
    random_start: bool = True
    _: dataclasses.KW_ONLY
    restarts: int = 1
    start: str = "uniform"
    loss: str = "cross_entropy"
    targeted: bool = False
    l1_fraction: float | None = 0.01
    projection: str = "nearest"
    bounds: tuple[float, float] = (0.0, 1.0)

    name = "pgd"

    def __post_init__(self):
        super().__post_init__()
        self._check_iterations()
        if not callable(self.start):
            checks.choice("start", self.start, ("uniform", "gaussian"))

    @property
    def passes(self):
        return Passes(self.steps * self.restarts, self.restarts if self.restarts > 1 else 0)

    def run(self, logits_fn, images, labels, keys):
        threat, evaluate, gradient, direction = self._tools(logits_fn, labels)
        size = jnp.asarray(self.step_size, images.dtype)

        def step(_, x):
            return threat.project(images, x + size * direction(gradient(x), x))

        if not self.random_start:
            return lax.fori_loop(0, self.steps, step, images)
        return worst_of(lambda keys: lax.fori_loop(0, self.steps, step, self._start(images, keys)), evaluate, images, keys, self.restarts)

    def _start(self, images, keys):
        """The random start of each image, by the field `start`."""
        return {"uniform": self.threat_model.random_start, "gaussian": gaussian_start}.get(self.start, self.start)(images, keys)


def gaussian_start(images, keys):
    """images + 0.001 N(0, 1), not clipped to the box."""
    return images + 0.001 * jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)


fgsm, pgd = FGSM, PGD
