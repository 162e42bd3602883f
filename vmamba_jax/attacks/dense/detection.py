"""PGD on a detector's losses, with proposals that follow the images or stay fixed."""
import dataclasses

import jax.numpy as jnp

from vmamba_jax.attacks.base import Passes
from vmamba_jax.attacks.dense.pgd import PixelAscent
from vmamba_jax.core import checks
from vmamba_jax.core.records import record

PROPOSALS = ("moving", "fixed")


@record("eps", "step_size")
class DetectionPGD(PixelAscent):
    """PGD on the sum of a detector's training losses; returns the last iterate.

    Args:
        proposals: "moving": regions are proposed from the current images at each step, through the whole detector; "fixed": from the clean images, once.
        losses: names of the losses that are summed, such as ("loss_cls", "loss_bbox"), as a tuple; None: all.
        eps, steps, step_size, norm, random_start, targeted, l1_fraction, bounds: see `segpgd`.

    The key also draws the samples of anchors and proposals, the same ones at all steps as far as the candidates stay.

    Source: Xie et al. 2017, arXiv 1703.08603, for fixed proposals; all losses of the whole detector as in DetecBench, arXiv 2505.18015.
    """
    _: dataclasses.KW_ONLY
    proposals: str = "moving"
    losses: tuple | None = None

    name = "detection_pgd"
    needs_key = "anchors and proposals are sampled"

    def __post_init__(self):
        super().__post_init__()
        checks.choice("proposals", self.proposals, PROPOSALS)
        if self.losses is not None:
            self._set(losses=tuple(self.losses))
            if not self.losses:
                raise ValueError("losses=(): expected at least one loss, or None for all")

    @property
    def passes(self):
        return Passes(self.steps, int(self.proposals == "fixed"))

    def __call__(self, outputs_fn, images, objects, key=None, *, start=None):
        """Adversarial images, of the shape and dtype of `images`.

        Args:
            outputs_fn: `(images, objects, keys, proposals=None) -> ({loss: (batch,)}, proposals)`, each image's own losses, differentiable in the
                images, and what they were sampled from, such as `models.dense.image_losses` makes.
            images: (batch, H, W, C), float32 or float64, within `bounds`.
            objects: the true objects, a dict of arrays (batch, ...); or the targets of a targeted attack.
            key: one random key or one per image.
            start: images to begin with, within the ball; None: the images, or a random point of the ball.
        """
        return super().__call__(outputs_fn, images, objects, key, start=start)

    def _check_call(self, images, labels, key, start=None):
        super()._check_call(images, labels, key, start)
        self._check_key(key)

    def _check_targets(self, images, labels):
        if jnp.finfo(images.dtype).bits < 32:
            raise TypeError(f"images.dtype={images.dtype}: expected float32 or float64")
        if not isinstance(labels, dict) or not labels:
            raise TypeError(f"objects={type(labels).__name__}: expected a dict of arrays, such as boxes, labels, masks and valid")
        for name, x in labels.items():
            if jnp.shape(x)[:1] != (len(images),):
                raise ValueError(f"objects[{name!r}].shape={jnp.shape(x)}: expected ({len(images)}, ...), the objects of each image")

    def image_loss(self, outputs, labels, step):
        if self.losses is not None and (unknown := [name for name in self.losses if name not in outputs]):
            raise ValueError(f"losses={unknown[0]!r}: expected some of {', '.join(outputs)}")
        return sum(outputs[name] for name in self.losses or outputs)

    def run(self, outputs_fn, images, labels, keys, start=None):
        kept = outputs_fn(images, labels, keys)[1] if self.proposals == "fixed" else None
        return super().run(lambda x: outputs_fn(x, labels, keys, kept)[0], images, labels, keys, start)


detection_pgd = DetectionPGD
