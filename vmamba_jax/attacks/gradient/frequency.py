"""PGD on low or high frequencies of the perturbation, by the discrete cosine transform (DCT)."""
import dataclasses

import jax.numpy as jnp
import numpy as np
from jax import lax

from vmamba_jax.attacks import norms
from vmamba_jax.attacks.base import worst_of
from vmamba_jax.attacks.gradient.pgd import PGD
from vmamba_jax.core import checks
from vmamba_jax.core.records import record


def dct_matrix(n):
    """The orthonormal DCT-II as an (n, n) float64 matrix: row k is the cosine of frequency k."""
    k, i = np.arange(n)[:, None], np.arange(n)
    return np.sqrt(np.where(k == 0, 1, 2) / n) * np.cos(np.pi * k * (2 * i + 1) / (2 * n))


def band(x, keep, size):
    """The part of x (b, H, W, C) whose vertical and horizontal frequencies are both below `size` ("low"), or both at least that ("high").

    The two parts do not add up to x: frequencies that are high along one axis only are in neither, as in the released evaluation of arXiv
    2406.09407. It is an orthogonal projection: it never increases the l2 norm of x, but may increase its largest value.

    Args:
        x: (b, H, W, C).
        keep: "low" or "high".
        size: number of low frequencies per axis.
    """
    def projector(n):
        rows = dct_matrix(n)[:size] if keep == "low" else dct_matrix(n)[size:]
        return rows.T @ rows
    wide = jnp.promote_types(x.dtype, jnp.float32)
    rows, columns = (jnp.asarray(projector(n), wide) for n in x.shape[1:3])
    return jnp.einsum("ij,kl,bjlc->bikc", rows, columns, x.astype(wide), precision=lax.Precision.HIGHEST).astype(x.dtype)


@record("eps", "step_size")
class FrequencyPGD(PGD):
    """PGD whose perturbation has only low or only high frequencies.

    Args:
        keep: "low" or "high", see `band`.
        size: number of low frequencies per axis, >= 1; with keep="high" less than both sides of the image.
        limit: "after": plain PGD; its last perturbation, before clipping to the box, is filtered, added to the image and clipped to the box
            (Malik et al., arXiv 2406.09407, as released with size 32 at 224 x 224). Filtering keeps the l2 norm within the radius; in linf
            and l1 the result may leave the ball. "inside": every iterate is filtered. The state is a perturbation in the band and the ball,
            scaled down radially; the model sees it added to the image and clipped to the box, and the gradient passes through filter and
            clipping. Only clipping adds other frequencies, at pixels near 0 or 1.
        projection: "nearest", or "radial" ("inside" is always radial).
        eps, steps, step_size, norm, random_start, start, restarts, loss, targeted, l1_fraction, bounds: see `pgd`.
    """
    _: dataclasses.KW_ONLY
    keep: str = "low"
    size: int = 32
    limit: str = "after"

    name = "frequency_pgd"

    def __post_init__(self):
        super().__post_init__()
        checks.choice("keep", self.keep, ("low", "high"))
        checks.choice("limit", self.limit, ("after", "inside"))
        self._set(size=checks.count("size", self.size))

    def run(self, logits_fn, images, labels, keys):
        height, width = images.shape[1:3]
        if self.keep == "high" and self.size >= min(height, width):
            raise ValueError(f"size={self.size} with keep='high' on images of {height} x {width} pixels: expected a size below both sides")
        _, evaluate, _, _ = self._tools(logits_fn, labels)
        search = self._after if self.limit == "after" else self._inside
        if not self.random_start:
            return search(logits_fn, images, labels, images)
        return worst_of(lambda keys: search(logits_fn, images, labels, self._start(images, keys)), evaluate, images, keys, self.restarts)

    def _after(self, logits_fn, images, labels, start):
        threat, _, gradient, direction = self._tools(logits_fn, labels)
        size = jnp.asarray(self.step_size, images.dtype)
        move = lambda x: x + size * direction(gradient(x), x)
        x = lax.fori_loop(0, self.steps - 1, lambda _, x: threat.project(images, move(x)), start)
        delta = threat.into_ball(move(x) - images)
        return jnp.clip(images + band(delta, self.keep, self.size), threat.lower, threat.upper)

    def _inside(self, logits_fn, images, labels, start):
        threat = self.threat_model
        size, eps = jnp.asarray(self.step_size, images.dtype), jnp.asarray(self.eps, images.dtype)
        shown = lambda delta: jnp.clip(images + band(delta, self.keep, self.size), threat.lower, threat.upper)
        _, _, gradient, direction = self._tools(lambda delta: logits_fn(shown(delta)), labels)
        limit = lambda delta: norms.radial(band(delta, self.keep, self.size), eps, threat.norm)
        move = lambda _, delta: limit(delta + size * direction(gradient(delta), images + delta))
        return shown(lax.fori_loop(0, self.steps, move, limit(start - images)))


frequency_pgd = FrequencyPGD
