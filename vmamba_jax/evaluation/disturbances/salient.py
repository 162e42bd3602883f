"""Patches chosen by how much they matter: those of the highest or the lowest saliency taken away."""
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
    """The patches of highest saliency.

    Attributes:
        by: "area": exactly `area` patches. "mass": from the highest on, until they hold a share `area` (a float) of the saliency, as the
            published program of Malik et al. (arXiv 2406.09407) cuts out the foreground.
        saliency: a map of what matters, (b, h, w) >= 0, summed over each patch; or a function of the images to such maps, a
            `jax.tree_util.Partial` where it has weights (attention received: see `analysis.attention_fn`); None or "gradient": the magnitude
            of the model's input gradient of the cross-entropy, summed over channels. Of `settings` only that makes the disturbance again.
    """
    _: dataclasses.KW_ONLY
    by: str = "area"
    saliency: object = None

    name, least = "salient_drop", False

    def __post_init__(self):
        super().__post_init__()
        checks.choice("by", self.by, ("area", "mass"))
        if self.by == "mass" and not isinstance(self.area, float):
            raise TypeError(f"area={self.area!r} with by='mass': expected a float, a share of the saliency")
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
        scores = grids.patch_sums(self._map(images, logits_fn, labels), self.grid, self.grid).reshape(len(images), -1)
        order = jnp.argsort(scores if self.least else -scores, axis=1, stable=True)      # those taken away first come first
        place = jnp.argsort(order, axis=1)
        if self.by == "area":
            taken = place < self.count
        else:
            share = jnp.take_along_axis(scores, order, 1) / scores.sum(1, keepdims=True)
            held = jnp.cumsum(share, 1)
            inside = held <= self.area if self.least else held - share < self.area
            taken = jnp.take_along_axis(inside, place, 1)
        return taken.reshape(-1, self.grid, self.grid)

    def _map(self, images, logits_fn, labels):
        if self.saliency is None:
            return optimization.saliency(logits_fn, images, labels, jnp.ones((), jnp.promote_types(images.dtype, jnp.float32)))
        found = self.saliency(images) if callable(self.saliency) else jnp.asarray(self.saliency)
        if np.ndim(found) != 3 or len(found) != len(images):
            raise ValueError(f"saliency has shape {np.shape(found)}: expected a map for each image, ({len(images)}, h, w)")
        return found


@record("saliency")
class NonSalientDrop(SalientDrop):
    """The patches of lowest saliency; by "mass", as many as hold no more than a share `area` of it.

    By mass, `area` = 1 - m leaves what `salient_drop` of `area` = m takes.
    """
    name, least = "non_salient_drop", True
