"""Occlusions and patch shuffles aligned with the scan order: pure functions `disturb(images, keys)` of [0, 1] images (b, H, W, C).

    disturb = disturbances.create("information_drop", rate=0.5, profile="peak", direction="columns", grid=8)
    disturbed = jax.jit(disturb)(images, keys)      # one key, or one per image

A disturbance with `needs_model` also takes the model: `disturb(images, keys, logits_fn, labels)`. Corruptions imitate what a camera or a
codec does to an image; disturbances remove or move parts of it.
"""

from vmamba_jax.core import checks, deprecation
from vmamba_jax.core.scan_orders import KINDS, Order
from vmamba_jax.evaluation.disturbances.base import Disturbance
from vmamba_jax.evaluation.disturbances.fills import FILLS
from vmamba_jax.evaluation.disturbances.patch_drops import (
    BorderDrop,
    CenterDrop,
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
    InformationDrop, RandomDrop, SalientDrop, NonSalientDrop, ContiguousDrop, DispersedDrop, DenseDrop, CenterDrop, BorderDrop, RingDrop,
    WindowDrop, PatchShuffle, PatchReorder)}
RENAMED = {"centre_drop": "center_drop"}  # old name: new name


def create(name, **options):
    """The disturbance `name` with its options, as in a config or a saved `disturbance.settings`.

    Raises:
        ValueError: an unknown name; the message lists the known ones. TypeError: an option that the disturbance does not have.
    """
    if name in tuple(RENAMED):
        old, name = name, RENAMED[name]
        deprecation.warn(f"name={old!r}", repr(name))
    return checks.by_name("disturbance", name, DISTURBANCES, options)(**options)


__all__ = ["BorderDrop", "CenterDrop", "ContiguousDrop", "DISTURBANCES", "DenseDrop", "DispersedDrop", "Disturbance", "FILLS", "GRIDS",
           "InformationDrop", "KINDS", "NonSalientDrop", "Order", "PROFILES", "PatchReorder", "PatchShuffle", "RandomDrop", "RingDrop",
           "SalientDrop", "WindowDrop", "create"]

__getattr__ = deprecation.renamed(__name__, {"CentreDrop": f"{__name__}:CenterDrop", "CONTENTS": f"{__name__}:FILLS"})
