"""Disturbances that know the scan: frozen, pure functions `disturb(images, keys) -> images` on [0, 1] images (b, H, W, C).

    disturb = disturbances.create("information_drop", rate=0.5, profile="peak", direction="columns", grid=8)
    disturbed = jax.jit(disturb)(images, keys)      # one key, or one for each image

One idea a file: `base` (what all share), `contents` (what stands where something was taken away), `cells` (a grid's arithmetic), `layouts`,
`salient`, `information`, `shuffle`, `orders`. Those of which `needs_model` is true take the model too, `disturb(images, keys, logits_fn, labels)`.
"""
from vmamba_jax.core import checks
from vmamba_jax.core.scan_orders import KINDS, Order
from vmamba_jax.evaluation.disturbances.base import Disturbance
from vmamba_jax.evaluation.disturbances.fills import CONTENTS
from vmamba_jax.evaluation.disturbances.patch_drops import (
    BorderDrop,
    CentreDrop,
    ContiguousDrop,
    DenseDrop,
    DispersedDrop,
    RandomDrop,
    RingDrop,
    WindowDrop,
)
from vmamba_jax.evaluation.disturbances.salient import NonSalientDrop, SalientDrop
from vmamba_jax.evaluation.disturbances.scan_drops import PROFILES, InformationDrop
from vmamba_jax.evaluation.disturbances.shuffle import GRIDS, PatchReorder, PatchShuffle

DISTURBANCES = {each.name: each for each in (
    InformationDrop, RandomDrop, SalientDrop, NonSalientDrop, ContiguousDrop, DispersedDrop, DenseDrop, CentreDrop, BorderDrop, RingDrop,
    WindowDrop, PatchShuffle, PatchReorder)}


def create(name, **options):
    """The disturbance called `name` with its own options, as a config or a saved `disturbance.settings` spells them.

    Raises ValueError for an unknown name (listing the known ones), TypeError for an option that the disturbance does not have.
    """
    return checks.by_name("disturbance", name, DISTURBANCES, options)(**options)


__all__ = ["BorderDrop", "CONTENTS", "CentreDrop", "ContiguousDrop", "DISTURBANCES", "DenseDrop", "DispersedDrop", "Disturbance", "GRIDS",
           "InformationDrop", "KINDS", "NonSalientDrop", "Order", "PROFILES", "PatchReorder", "PatchShuffle", "RandomDrop", "RingDrop",
           "SalientDrop", "WindowDrop", "create"]
