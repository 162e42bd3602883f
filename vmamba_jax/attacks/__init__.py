"""Adversarial attacks: pure functions `attack(logits_fn, images, labels, key) -> adversarial`.

`logits_fn` is any callable from images (batch, H, W, C) to logits (batch, classes); images lie in [0, 1], and a model's own mean and
standard deviation belong inside `logits_fn`, never to the attack. Nothing here jits: wrap the attack where it is used,

    attack = attacks.pgd(eps=8 / 255, steps=10, step_size=2 / 255)
    adversarial = jax.jit(attack)(logits_fn, images, labels, key)     # logits_fn a jax.tree_util.Partial: its weights are an argument

One idea a file: `threat_model` (norm, radius, box), `projections`, `directions` (steepest ascent per norm), `losses` (per image, to be
maximised), `restarts`, `keys` (one key per image), `base` (what all attacks share), then one file per attack.

`autoattack` and its parts `apgd`, `fab`, `square` are searches (`search`): they return the first misclassified image that they find, and the
clean image where there is none; `apgd_run`, `apgd_pace`, `hyperplane`, `square_moves` and `order` hold their arithmetic. `patches`,
`patch_ascent` and `patch_objective` are Patch-Fool's, `transfer_gradients` what makes a gradient transfer, `masks` which pixels may change.
Models that draw random numbers take keys, `logits_fn(images, keys)`: see `eot` and `randomized`.
"""
from vmamba_jax.attacks import losses, masks
from vmamba_jax.attacks.autoattack.apgd import APGD, apgd
from vmamba_jax.attacks.autoattack.autoattack import AutoAttack, autoattack
from vmamba_jax.attacks.autoattack.fab import FAB, fab
from vmamba_jax.attacks.autoattack.square import Square, square
from vmamba_jax.attacks.base import Attack
from vmamba_jax.attacks.gradient.eot import EOTPGD, eot_pgd, expected_logits
from vmamba_jax.attacks.gradient.fgsm import FGSM, fgsm
from vmamba_jax.attacks.gradient.frequency import FrequencyPGD, frequency_pgd
from vmamba_jax.attacks.gradient.masked import MaskedPGD, masked_pgd
from vmamba_jax.attacks.gradient.momentum import MomentumPGD, momentum_pgd
from vmamba_jax.attacks.gradient.pgd import PGD, pgd
from vmamba_jax.attacks.gradient.transfer import TRANSFER, TransferPGD, transfer_pgd
from vmamba_jax.attacks.patch_fool.patch_fool import PatchFool, patch_fool
from vmamba_jax.attacks.randomized import Randomized
from vmamba_jax.attacks.threat_model import NORMS, ThreatModel
from vmamba_jax.core import checks
from vmamba_jax.core.keys import per_image_keys

ATTACKS = {"fgsm": fgsm, "pgd": pgd, "masked_pgd": masked_pgd, "frequency_pgd": frequency_pgd, "momentum_pgd": momentum_pgd,
           "transfer_pgd": transfer_pgd, "eot_pgd": eot_pgd, "apgd": apgd, "fab": fab, "square": square, "autoattack": autoattack,
           "patch_fool": patch_fool}


def create(name, **options):
    """The attack called `name` with its own options, as a config or a saved `attack.settings` spells them.

    Raises ValueError for an unknown name (listing the known ones), TypeError for an option that the attack does not have.
    """
    return checks.by_name("attack", name, ATTACKS, options)(**options)


__all__ = ["APGD", "ATTACKS", "Attack", "AutoAttack", "EOTPGD", "FAB", "FGSM", "FrequencyPGD", "MaskedPGD", "MomentumPGD", "NORMS", "PGD",
           "PatchFool", "Randomized", "Square", "TRANSFER", "ThreatModel", "TransferPGD", "apgd", "autoattack", "create", "eot_pgd",
           "expected_logits", "fab", "fgsm", "frequency_pgd", "losses", "masked_pgd", "masks", "momentum_pgd", "patch_fool", "per_image_keys",
           "pgd", "square", "transfer_pgd"]
