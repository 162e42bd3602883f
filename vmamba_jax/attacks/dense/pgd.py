"""PGD on dense predictions: on any loss, SegPGD and CosPGD."""
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax.attacks.base import NormAttack, Passes
from vmamba_jax.attacks.dense import losses
from vmamba_jax.attacks.norms import ascent
from vmamba_jax.core import checks
from vmamba_jax.core.records import record

NAMED = ("cross_entropy", "mask_ce_avg", "js_avg")  # losses of `dense_pgd` by name


@record("eps", "step_size")
class PixelAscent(NormAttack):
    """Projected gradient ascent on a loss of every pixel: the base of the attacks below, which returns the last iterate.

    Args:
        eps: radius >= 0 in pixel units; may be traced.
        steps: number of gradient steps >= 1.
        step_size: length of a step in the norm, in pixel units; None: 2.5 * eps / steps. May be traced.
        norm: "linf", "l2" or "l1".
        random_start: begin at a random point of the ball.
        targeted: labels are targets, and the loss is minimized.
        ignore: label of pixels that count for nothing.
        l1_fraction: as in `pgd`.
        bounds: lowest and highest value of a pixel.
    """
    eps: float
    steps: int
    step_size: float | None = None
    norm: str = "linf"
    random_start: bool = True
    _: dataclasses.KW_ONLY
    targeted: bool = False
    ignore: int = losses.IGNORE
    l1_fraction: float | None = 0.01
    bounds: tuple[float, float] = (0.0, 1.0)

    restarts = 1

    def __post_init__(self):
        super().__post_init__()
        self._check_iterations()

    def _check_loss(self):
        """The loss is the class's own."""

    @property
    def passes(self):
        return Passes(self.steps)

    def pixel_loss(self, logits, labels, step):
        """The loss of each pixel at a step, (batch, H, W)."""
        raise NotImplementedError

    def __call__(self, outputs_fn, images, labels, key=None, *, start=None):
        """Adversarial images, of the shape and dtype of `images`.

        Args:
            outputs_fn: images -> logits (batch, H, W, classes) at the images' size, differentiable in the images.
            images: (batch, H, W, C), floating, within `bounds`.
            labels: (batch, H, W) integers, classes or `ignore`: the true labels, or the targets of a targeted attack.
            key: one random key or one per image; None: only without random_start.
            start: images to begin with, within the ball; None: the images, or a random point of the ball.
        """
        return super().__call__(outputs_fn, images, labels, key, start=start)

    def _check_call(self, images, labels, key, start=None):
        checks.pixels(images, *self.bounds)
        if start is None:
            self._check_key(key)
        self._check_targets(images, labels)
        if start is not None and start.shape != images.shape:
            raise ValueError(f"start.shape={start.shape}: expected {images.shape}, the images' shape")

    def _check_targets(self, images, labels):
        if getattr(labels, "shape", None) != images.shape[:3]:
            raise ValueError(f"labels.shape={getattr(labels, 'shape', type(labels).__name__)}: expected {images.shape[:3]}, one label per pixel")

    def image_loss(self, outputs, labels, step):
        """The loss of each image at a step, (batch,): the mean over its pixels."""
        losses.check(outputs, labels, self.ignore)
        return self.pixel_loss(outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32)), labels, step).mean((1, 2))

    def run(self, outputs_fn, images, labels, keys, start=None):
        threat = self.threat_model
        direction, size = ascent(threat, self.l1_fraction), jnp.asarray(self.step_size, images.dtype)
        sign = -1 if self.targeted else 1

        def total(x, step):
            return sign * self.image_loss(outputs_fn(x), labels, step).sum()

        def advance(step, x):
            return threat.project(images, x + size * direction(jnp.nan_to_num(jax.grad(total)(x, step)), x))

        if start is None:
            start = threat.random_start(images, keys) if self.random_start else images
        return lax.fori_loop(0, self.steps, advance, start)


@record("eps", "step_size")
class SegPGD(PixelAscent):
    """PGD on `losses.segpgd`: right pixels weigh less and wrong ones more from step to step, up to one half each (Gu et al. 2022)."""
    name = "segpgd"
    __doc__ += "\n" + PixelAscent.__doc__.partition("\n")[2]

    def pixel_loss(self, logits, labels, step):
        return losses.segpgd(logits, labels, step, self.steps, self.targeted, self.ignore)


@record("eps", "step_size")
class CosPGD(PixelAscent):
    """PGD on `losses.cospgd`: each pixel weighs by the cosine of its probabilities and its label (Agnihotri et al. 2024)."""
    name = "cospgd"
    __doc__ += "\n" + PixelAscent.__doc__.partition("\n")[2]

    def pixel_loss(self, logits, labels, step):
        del step
        return losses.cospgd(logits, labels, self.targeted, self.ignore)


@record("eps", "step_size")
class DensePGD(PixelAscent):
    """PGD on a loss of dense predictions; returns the last iterate.

    Args:
        loss: "cross_entropy", "mask_ce_avg" or "js_avg", of semantic segmentation; or a callable (outputs, labels) -> a map (batch, H, W) or values
            (batch,). Outputs and labels reach a callable as they are, so that they may be those of a detector: any tree of arrays.
        eps, steps, step_size, norm, random_start, targeted, ignore, l1_fraction, bounds: see `segpgd`; a callable takes care of `ignore` itself.

    Source: Madry et al. 2018; on detectors Xie et al. 2017.
    """
    _: dataclasses.KW_ONLY
    loss: str | Callable = "cross_entropy"

    name = "dense_pgd"

    def _check_loss(self):
        if not callable(self.loss):
            checks.choice("loss", self.loss, NAMED)

    def _check_targets(self, images, labels):
        if not callable(self.loss):
            super()._check_targets(images, labels)

    def pixel_loss(self, logits, labels, step):
        del step
        return losses.LOSSES[self.loss](logits, labels, ignore=self.ignore)

    def image_loss(self, outputs, labels, step):
        if not callable(self.loss):
            return super().image_loss(outputs, labels, step)
        value = self.loss(outputs, labels)
        if value.ndim not in (1, 3):
            raise ValueError(f"loss returned shape {value.shape}: expected a map (batch, H, W) or values (batch,)")
        return value.reshape(len(value), -1).mean(1)


segpgd, cospgd, dense_pgd = SegPGD, CosPGD, DensePGD
