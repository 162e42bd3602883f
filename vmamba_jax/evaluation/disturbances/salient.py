"""Drops of the patches with the highest or the lowest saliency."""
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.attacks.patch_fool import optimization
from vmamba_jax.core import checks, grids
from vmamba_jax.core.records import record
from vmamba_jax.evaluation.disturbances.patch_drops import GridDrop


@record("saliency")
class SalientDrop(GridDrop):
    """The patches of highest saliency dropped.

    Attributes:
        by: "area": exactly `area` patches. "mass": the patches of highest saliency that together hold a fraction `area` (a float) of it, as
            the published program of Malik et al. (arXiv 2406.09407) selects the foreground.
        saliency: a map (b, h, w) >= 0, summed over each patch; or a function from images to such maps, a `jax.tree_util.Partial` if it has
            weights (for the attention received, see `analysis.attention_fn`); None or "gradient": the magnitude of the cross-entropy's
            input gradient, summed over channels. `settings` can restore only the last.
    """
    _: dataclasses.KW_ONLY
    by: str = "area"
    saliency: object = None

    name, least = "salient_drop", False

    def __post_init__(self):
        super().__post_init__()
        checks.choice("by", self.by, ("area", "mass"))
        if self.by == "mass" and not isinstance(self.area, float):
            raise TypeError(f"area={self.area!r} with by='mass': expected a float, a fraction of the saliency")
        if isinstance(self.saliency, str):
            checks.choice("saliency", self.saliency, ("gradient",))
            self._set(saliency=None)
        if callable(self.saliency) and not isinstance(self.saliency, jax.tree_util.Partial):
            self._set(saliency=jax.tree_util.Partial(self.saliency))

    places_need_model = property(lambda self: self.saliency is None)

    @property
    def settings(self):
        return super().settings | {"saliency": "gradient" if self.saliency is None else "given"}

    def chosen(self, images, keys, logits_fn, labels):
        scores = grids.patch_sums(self._saliency(images, logits_fn, labels), self.grid, self.grid).reshape(len(images), -1)
        order = jnp.argsort(scores if self.least else -scores, axis=1, stable=True)      # the first to be dropped comes first
        place = jnp.argsort(order, axis=1)
        if self.by == "area":
            dropped = place < self.count
        else:
            fraction = jnp.take_along_axis(scores, order, 1) / scores.sum(1, keepdims=True)
            held = jnp.cumsum(fraction, 1)
            inside = held <= self.area if self.least else held - fraction < self.area
            dropped = jnp.take_along_axis(inside, place, 1)
        return dropped.reshape(-1, self.grid, self.grid)

    def _saliency(self, images, logits_fn, labels):
        if self.saliency is None:
            return optimization.saliency(logits_fn, images, labels, jnp.ones((), jnp.promote_types(images.dtype, jnp.float32)))
        found = self.saliency(images) if callable(self.saliency) else jnp.asarray(self.saliency)
        if np.ndim(found) != 3 or len(found) != len(images):
            raise ValueError(f"saliency.shape={np.shape(found)}: expected a map per image, ({len(images)}, h, w)")
        return found


@record("saliency")
class NonSalientDrop(SalientDrop):
    """The patches of lowest saliency dropped; by "mass", as many as hold at most a fraction `area` of it.

    By mass, `area` = 1 - m drops the complement of `salient_drop` with `area` = m.
    """
    name, least = "non_salient_drop", True
