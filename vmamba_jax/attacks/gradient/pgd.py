"""Projected gradient descent on the negative loss: the standard white-box attack."""
import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks.base import Attack
from vmamba_jax.attacks.restarts import worst_of
from vmamba_jax.core import checks
from vmamba_jax.core.records import record


@record("eps", "step_size")
class PGD(Attack):
    """Steepest ascent steps on the loss, each followed by projection; the last iterate counts (Madry et al. 2018, section 2.1).

    Without random start and in linf it is BIM (Kurakin et al. 2017).

    Args:
        eps: radius >= 0 in pixel units; may be traced.
        steps: number of gradient steps >= 1.
        step_size: length of a step in the norm, in pixel units; None: 2.5 * eps / steps. May be traced.
        norm: "linf", "l2" or "l1".
        random_start: begin at a random point, see `start`.
        start: "uniform" in the ball (see `ThreatModel.random_start`), "gaussian": images + 0.001 N(0, 1), not projected (Zhang et al. 2019,
            TRADES as released), or a callable (images, keys) -> images.
        restarts: runs from different random starts; per image a misclassified outcome is kept before others, then the highest loss.
        loss: "cross_entropy", "margin", "dlr", or a callable (logits, labels) -> (batch,).
        targeted: labels are targets, and the loss is descended.
        l1_fraction: norm "l1" only: share of the values that a step moves, by sign (Tramer & Boneh 2019, q = 0.99); None moves all by the
            normalised gradient.
        projection: "nearest", or "radial" as in foolbox; they differ in l1 only.
        bounds: lowest and highest value of a pixel.
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

    def run(self, logits_fn, images, labels, keys):
        threat, evaluate, gradient, direction = self._tools(logits_fn, labels)
        size = jnp.asarray(self.step_size, images.dtype)

        def step(_, x):
            return threat.project(images, x + size * direction(gradient(x), x))

        if not self.random_start:
            return lax.fori_loop(0, self.steps, step, images)

        def search(keys):
            return lax.fori_loop(0, self.steps, step, start(images, keys))
        start = {"uniform": threat.random_start, "gaussian": gaussian_start}.get(self.start, self.start)
        return worst_of(search, evaluate, images, keys, self.restarts)


def gaussian_start(images, keys):
    """images + 0.001 N(0, 1), outside the box where that leads."""
    return images + 0.001 * jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(keys)


pgd = PGD
