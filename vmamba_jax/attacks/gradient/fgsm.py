"""The fast gradient (sign) method: one step of the full radius."""
import dataclasses

import jax.numpy as jnp

from vmamba_jax.attacks.base import Attack
from vmamba_jax.core.records import record


@record("eps")
class FGSM(Attack):
    """x + eps * sign(gradient) in linf, x + eps * gradient / |gradient| in l2 and l1 (FGM), clipped to the box (Goodfellow et al. 2015).

    Args:
        eps: radius >= 0 in pixel units; may be traced.
        norm: "linf", "l2" or "l1".
        loss: "cross_entropy", "margin", "dlr", or a callable (logits, labels) -> (batch,).
        targeted: labels are targets, and the loss is descended.
        l1_fraction: norm "l1" only: share of the values that take the step, by sign; None moves all by the normalised gradient.
        bounds: lowest and highest value of a pixel.
    """
    eps: float
    norm: str = "linf"
    _: dataclasses.KW_ONLY
    loss: str = "cross_entropy"
    targeted: bool = False
    l1_fraction: float | None = None
    bounds: tuple[float, float] = (0.0, 1.0)

    name = "fgsm"

    def run(self, logits_fn, images, labels, keys):
        del keys
        threat, _, gradient, direction = self._tools(logits_fn, labels)
        step = jnp.asarray(self.eps, images.dtype) * direction(gradient(images), images)
        return threat.project(images, images + step)


fgsm = FGSM
