"""Adversarial attacks: pure functions `attack(logits_fn, images, labels, key) -> adversarial`.

`logits_fn` is any callable from images (batch, H, W, C) to logits (batch, classes); images lie in [0, 1], and a model's own mean and
standard deviation belong inside `logits_fn`, never to the attack. Nothing here jits: wrap the attack where it is used,

    attack = attacks.pgd(eps=8 / 255, steps=10, step_size=2 / 255)
    adversarial = jax.jit(attack)(logits_fn, images, labels, key)     # logits_fn a jax.tree_util.Partial: its weights are an argument

One idea a file: `threat_model` (norm, radius, box), `projections`, `directions` (steepest ascent per norm), `losses` (per image, to be
maximised), `restarts`, `keys` (one key per image), `base` (what all attacks share), then one file per attack;
Patch-Fool's parts are `patches`, `patch_objective` and `patch_ascent`.
"""
from vmamba_jax.attacks import losses
from vmamba_jax.attacks.base import Attack
from vmamba_jax.attacks.fgsm import FGSM, fgsm
from vmamba_jax.attacks.keys import per_image_keys
from vmamba_jax.attacks.momentum import MomentumPGD, momentum_pgd
from vmamba_jax.attacks.patch_fool import PatchFool, patch_fool
from vmamba_jax.attacks.pgd import PGD, pgd
from vmamba_jax.attacks.threat_model import NORMS, ThreatModel

ATTACKS = {"fgsm": fgsm, "pgd": pgd, "momentum_pgd": momentum_pgd, "patch_fool": patch_fool}


def create(name, **options):
    """The attack called `name` with its own options, as a config or a saved `attack.settings` spells them.

    Raises ValueError for an unknown name (listing the known ones), TypeError for an option that the attack does not have.
    """
    if name not in ATTACKS:
        raise ValueError(f"name={name!r}: expected one of {sorted(ATTACKS)}")
    known = ATTACKS[name].options()
    if unknown := sorted(set(options) - set(known)):
        raise TypeError(f"{name} has no option {', '.join(map(repr, unknown))}: expected some of {known}")
    return ATTACKS[name](**options)


__all__ = ["ATTACKS", "Attack", "FGSM", "MomentumPGD", "NORMS", "PGD", "PatchFool", "ThreatModel", "create", "fgsm", "losses", "momentum_pgd",
           "patch_fool", "per_image_keys", "pgd"]
