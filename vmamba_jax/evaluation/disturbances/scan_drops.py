"""Information drop along a scan: the number of pixels dropped from a patch depends on when the scan visits it.

The counts equal those of the program of Malik et al. (arXiv 2406.09407). With N patches of P pixels, the i-th patch in scan order (from 0)
loses this many of its pixels, drawn at random:

    linear       int(P r (i + 1) / N)
    falling      int(P r) - linear
    peak         int(P r (i + 1) / (N // 2)) for i < N // 2, int(P r (N - i) / (N // 2)) for i >= N // 2; at most P
    trough       int(P r) - peak; at least 0
    uniform      int(P r)
    sequential   P for i < int(N r), else 0
"""
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.core import checks, grids, scan_orders
from vmamba_jax.core.records import record
from vmamba_jax.evaluation.disturbances.base import Occlusion

PROFILES = ("linear", "falling", "peak", "trough", "uniform", "sequential")


@record()
class InformationDrop(Occlusion):
    """Pixels dropped from the patches of a scan.

    Attributes:
        rate: r in [0, 1], the largest fraction of a patch's pixels that is dropped; for "sequential", the fraction of patches.
        profile: one of `PROFILES`.
        direction: one of `scan_orders.DIRECTIONS`; the program's 1 to 4 are "rows", "columns", "columns_back", "rows_back".
        grid: patches per side, or (rows, columns).
    """
    rate: float = 0.5
    profile: str = "linear"
    _: dataclasses.KW_ONLY
    direction: str = "rows"
    grid: int | tuple = 14

    name, places_draw = "information_drop", True

    def __post_init__(self):
        super().__post_init__()
        checks.number("rate", self.rate, low=0, high=1)
        checks.choice("profile", self.profile, PROFILES)
        checks.choice("direction", self.direction, scan_orders.DIRECTIONS)
        self._set(grid=grids.sides("grid", self.grid))

    def places(self, images, keys, logits_fn, labels):
        patch = grids.patch_of_pixels(*images.shape[1:3], *self.grid)
        size = np.bincount(patch.ravel())
        visited = scan_orders.ranks(self.direction, *self.grid)
        pairs = zip(visited.tolist(), size.tolist(), strict=True)
        lost = np.array([dropped(self.profile, self.rate, i, len(visited), n) for i, n in pairs])
        rank = jax.vmap(grids.random_ranks, (0, None))(keys, patch)
        return (rank < jnp.asarray(lost[patch]))[..., None], patch


def dropped(profile, rate, i, patches, pixels):
    """Pixels that the i-th of `patches` patches loses. int() truncates, so the operations keep the order of the published program."""
    linear, half = int(pixels * rate * (i + 1) / patches), patches // 2 or 1
    peak = min(pixels, int(pixels * rate * ((i + 1) if i < half else (patches - i)) / half))
    match profile:
        case "linear":
            return linear
        case "falling":
            return int(pixels * rate) - linear
        case "peak":
            return peak
        case "trough":
            return max(0, int(pixels * rate) - peak)
        case "uniform":
            return int(pixels * rate)
    return pixels if i < int(patches * rate) else 0
