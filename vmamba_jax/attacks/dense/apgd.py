"""APGD on semantic segmentation with a shrinking radius, TsallisPGD, and the ensemble SEA."""
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.attacks.autoattack.apgd import random_start
from vmamba_jax.attacks.autoattack.apgd_schedule import Phase, ascend, dense_checkpoints
from vmamba_jax.attacks.base import Passes
from vmamba_jax.attacks.dense import losses
from vmamba_jax.attacks.dense.pgd import PixelAscent
from vmamba_jax.attacks.norms import per_image
from vmamba_jax.attacks.threat_model import ThreatModel
from vmamba_jax.core import checks
from vmamba_jax.core.records import record

RADII, SHARES = (2.0, 1.5, 1.0), (0.3, 0.3, 0.4)  # multiples of the radius, and the share of the steps at each (Croce et al. 2024, section 3.3)
SEA_LOSSES = ("mask_ce_bal", "mask_ce_avg", "js_avg")


@record("eps")
class _ShrinkingAscent(PixelAscent):
    """Fields and checks that `DenseAPGD` and `SEA` share."""
    eps: float
    steps: int = 300
    step_size: None = None
    norm: str = "linf"
    random_start: bool = True
    _: dataclasses.KW_ONLY
    weights: tuple | None = None

    def __post_init__(self):
        checks.count("steps", self.steps, 4)
        if self.step_size is not None:
            raise ValueError(f"step_size={self.step_size!r}: expected None, as APGD chooses it")
        if self.targeted:
            raise ValueError(f"targeted={self.targeted!r}: expected False for {self.name!r}")
        super().__post_init__()
        self._set(step_size=None)


@record("eps")
class DenseAPGD(_ShrinkingAscent):
    """APGD on a loss of every pixel, in balls of two, one and a half and one radius in turn; returns each image's iterate of fewest right pixels.

    The gradient is that of `loss`; step sizes follow the cross-entropy, as in the released program. A ball begins at the last one's result,
    projected onto it, and only iterates of the last ball count.

    Args:
        eps: radius >= 0 in pixel units; may be traced.
        steps: gradient steps, all balls together; at least 4.
        norm: "linf" or "l2".
        random_start: begin at a random point on the first ball's surface; False: at the image.
        loss: "cross_entropy", "mask_ce_avg", "mask_ce_bal", "js_avg", or "tsallis_schedule", whose q moves from -2 to 1 in each ball.
        weights: (classes,) weights of "mask_ce_bal", as a tuple.
        rho: fraction of rising steps between two checkpoints that keeps the step size.
        large_eps: False: all steps in the ball of the radius itself.
        ignore, bounds: see `segpgd`.

    Source: Croce et al. 2024 (arXiv 2306.12941), section 3, with the points left open as in the released program.
    """
    _: dataclasses.KW_ONLY
    loss: str = "mask_ce_avg"
    rho: float = 0.75
    large_eps: bool = True

    name = "dense_apgd"

    def __post_init__(self):
        super().__post_init__()
        self._set(rho=checks.number("rho", self.rho, low=0), large_eps=checks.flag("large_eps", self.large_eps))
        checks.choice("norm", self.norm, ("linf", "l2"))
        if self.weights is not None:
            self._set(weights=tuple(checks.number(f"weights[{i}]", w, low=0) for i, w in enumerate(self.weights)))
        if (self.weights is None) == (self.loss == "mask_ce_bal"):
            raise ValueError(f"weights={self.weights!r} with loss={self.loss!r}: expected weights for 'mask_ce_bal', and for no other loss")

    def _check_loss(self):
        checks.choice("loss", self.loss, tuple(name for name in losses.LOSSES if name != "cospgd"))

    @property
    def passes(self):
        return Passes(sum(n + 1 for n in self._phases()[1]))

    def _phases(self):
        """(multiples of the radius, steps at each)."""
        if not self.large_eps:
            return (1.0,), (self.steps,)
        first = [int(share * self.steps) for share in SHARES[:-1]]
        return RADII, (*first, self.steps - sum(first))

    def pixel_loss(self, logits, labels, progress):
        options = {"mask_ce_bal": {"weights": None if self.weights is None else jnp.asarray(self.weights)}, "tsallis_schedule": {"progress": progress}}
        return losses.LOSSES[self.loss](logits, labels, ignore=self.ignore, **options.get(self.loss, {}))

    def run(self, outputs_fn, images, labels, keys, start=None):
        return self.ascend(outputs_fn, images, labels, keys, start, lambda logits, progress: self.pixel_loss(logits, labels, progress))[0]

    def ascend(self, outputs_fn, images, labels, keys, start, loss):
        """(images, minus their shares of right pixels (batch,)) of a run; the balls share one program.

        Args:
            loss: (logits, share of the ball's steps that are done) -> the loss of each pixel.
        """
        factors, steps = self._phases()
        checkpoints = np.full((len(steps), max(steps) + 1), -1, np.int32)
        for row, n in zip(checkpoints, steps, strict=True):
            row[:n + 1] = dense_checkpoints(n, self.rho)

        def evaluate(x, progress):
            def total(x):
                logits = outputs_fn(x)
                losses.check(logits, labels, self.ignore)
                logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
                tracked = losses.cross_entropy(logits, labels, self.ignore).mean((1, 2))
                return loss(logits, progress).mean((1, 2)).sum(), (tracked, -losses.right_pixels(logits, labels, self.ignore))
            (_, (tracked, score)), gradient = jax.value_and_grad(total, has_aux=True)(x)
            return tracked, score, jnp.nan_to_num(gradient)

        def threat(p):
            return ThreatModel(self.norm, jnp.asarray(factors, images.dtype)[p] * self.eps, lower=self.bounds[0], upper=self.bounds[1])

        def ball(p, found):
            run = ascend(Phase(threat(p), jnp.asarray(checkpoints)[p], jnp.asarray(steps)[p]), evaluate, images, threat(p).project(images, found[0]),
                         numbered=True)
            return run.adversarial, run.success

        if start is None:
            start = random_start(threat(0), images, keys) if self.random_start else images
        score = jax.eval_shape(evaluate, images, 0.0)[1]
        nothing = (0 * images.reshape(len(images), -1)[:, 0]).astype(score.dtype)
        return lax.fori_loop(0, len(steps), ball, (start, nothing))


def tsallis_pgd(eps, steps=300, norm="linf", random_start=True, **options):
    """TsallisPGD: `dense_apgd` on the Tsallis loss, whose q moves linearly from -2 to 1 in each ball. options: of `dense_apgd`.

    Source: arXiv 2605.03405.
    """
    return DenseAPGD(eps, steps, None, norm, random_start, loss="tsallis_schedule", **options)


@record("eps")
class SEA(_ShrinkingAscent):
    """Segmentation Ensemble Attack: `dense_apgd` on three losses; returns for each image the result with the fewest right pixels.

    `attacks` are its three parts; `evaluation.dense.worst_case` gives the worst-case mIoU over them, which no choice per image does.

    Args:
        eps, steps, norm, random_start, ignore, bounds: see `dense_apgd`; steps are those of each part.
        weights: (classes,) weights of the balanced masked cross-entropy; None: that part is left out.

    Source: Croce et al. 2024 (arXiv 2306.12941), section 3.4.
    """
    name = "sea"

    def __post_init__(self):
        super().__post_init__()
        tuple(self.attacks)  # checks their fields

    @property
    def attacks(self):
        """The parts, in the released order."""
        names = SEA_LOSSES if self.weights is not None else SEA_LOSSES[1:]
        return tuple(DenseAPGD(self.eps, self.steps, self.step_size, self.norm, self.random_start, loss=name, ignore=self.ignore, bounds=self.bounds,
                               weights=self.weights if name == "mask_ce_bal" else None) for name in names)

    @property
    def passes(self):
        each = self.attacks[0].passes
        return Passes(len(self.attacks) * each.forward_backward)

    def run(self, outputs_fn, images, labels, keys, start=None):
        found, right = self.each(outputs_fn, images, labels, keys, start)
        return jnp.take_along_axis(found, per_image(right.argmin(0), images)[None], 0)[0]

    def each(self, outputs_fn, images, labels, keys, start=None):
        """(images (parts, batch, H, W, C), their shares of right pixels (parts, batch)) of the parts, which share one program."""
        parts = self.attacks

        def run(k):
            loss = lambda logits, progress: lax.switch(k, [lambda x, part=part: part.pixel_loss(x, labels, progress) for part in parts], logits)
            found, score = parts[0].ascend(outputs_fn, images, labels, keys, start, loss)
            return found, -score
        return lax.map(run, jnp.arange(len(parts)))


dense_apgd, sea = DenseAPGD, SEA
