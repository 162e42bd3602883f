"""Information lost along a scan: pixels taken from each patch, more or fewer of them by where the scan meets it.

Malik et al. (arXiv 2406.09407) and their program, whose counts these are to the pixel. With N patches of P pixels, the i-th that the scan meets
(from 0) loses, of its own pixels drawn at random,

    linear       int(P r (i + 1) / N)
    falling      int(P r) - linear
    peak         int(P r (i + 1) / (N // 2)) for i < N // 2, int(P r (N - i) / (N // 2)) from there on, never more than P
    trough       int(P r) - peak, never less than 0
    uniform      int(P r)
    sequential   all of them for i < int(N r), else none
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
    """Pixels taken from the patches of a scan.

    Attributes:
        rate: r in [0, 1], the largest share of a patch's pixels that goes; of "sequential" the share of patches.
        profile: of `PROFILES`.
        direction: of `scan_orders.DIRECTIONS`; the program's 1 to 4 are "rows", "columns", "columns_back", "rows_back".
        grid: patches a side, or (rows, columns).
    """
    rate: float = 0.5
    profile: str = "linear"
    _: dataclasses.KW_ONLY
    direction: str = "rows"
    grid: int | tuple = 14

    name, places_draw = "information_drop", True

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= checks.number("rate", self.rate, low=0) <= 1:
            raise ValueError(f"rate={self.rate!r}: expected a share in [0, 1]")
        checks.choice("profile", self.profile, PROFILES)
        checks.choice("direction", self.direction, scan_orders.DIRECTIONS)
        self._set(grid=grids.sides("grid", self.grid))

    def places(self, images, keys, logits_fn, labels):
        cell = grids.patch_of_pixels(*images.shape[1:3], *self.grid)
        size = np.bincount(cell.ravel())
        met = scan_orders.ranks(self.direction, *self.grid)
        lost = np.array([dropped(self.profile, self.rate, i, len(met), n) for i, n in zip(met.tolist(), size.tolist(), strict=True)])
        place = jax.vmap(grids.random_ranks, (0, None))(keys, cell)
        return (place < jnp.asarray(lost[cell]))[..., None], cell


def dropped(profile, rate, i, patches, pixels):
    """How many of its `pixels` the i-th of `patches` loses; the arithmetic is the program's, in its order, as ints cut it off."""
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
