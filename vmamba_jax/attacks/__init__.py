"""Adversarial attacks: pure functions `attack(logits_fn, images, labels, key) -> adversarial`.

`logits_fn` is any callable from images (batch, H, W, C) to logits (batch, classes); images are in [0, 1], and a model's own mean and
standard deviation belong inside `logits_fn`, never to the attack. The call of an attack is not compiled; its form for one classifier is:

    attack = attacks.pgd(eps=8 / 255, steps=10, step_size=2 / 255)
    adversarial = attack.jit(logits_fn)(images, labels, key)     # any callable; never with weights of an earlier call
    adversarial = jax.jit(attack)(logits_fn, images, labels, key)     # logits_fn a tree of arrays, such as a jax.tree_util.Partial

`gradient` holds PGD and its variants, `dense` attacks on semantic segmentation (their `outputs_fn` gives logits of every pixel) and on
detectors, `autoattack` AutoAttack and its parts APGD, FAB and Square, and PMA, `patch_fool` Patch-Fool. `base` is the
interface they share, `threat_model` a norm ball in the box of pixel values, `norms` its geometry, `losses` the objectives, `masks` the
pixels an attack may change, `randomized` classifiers with random numbers.
"""

from vmamba_jax.attacks import losses, masks
from vmamba_jax.attacks.autoattack.apgd import APGD, apgd
from vmamba_jax.attacks.autoattack.autoattack import AutoAttack, autoattack  # the function, not the folder
from vmamba_jax.attacks.autoattack.fab import FAB, fab
from vmamba_jax.attacks.autoattack.pma import PMA, pma
from vmamba_jax.attacks.autoattack.square import Square, square
from vmamba_jax.attacks.base import Attack, Passes
from vmamba_jax.attacks.dense.apgd import SEA, DenseAPGD, dense_apgd, sea, tsallis_pgd
from vmamba_jax.attacks.dense.detection import DetectionPGD, detection_pgd
from vmamba_jax.attacks.dense.pgd import CosPGD, DensePGD, SegPGD, cospgd, dense_pgd, segpgd
from vmamba_jax.attacks.gradient.eot import EOTPGD, eot_pgd
from vmamba_jax.attacks.gradient.frequency import FrequencyPGD, frequency_pgd
from vmamba_jax.attacks.gradient.masked import MaskedPGD, masked_pgd
from vmamba_jax.attacks.gradient.pgd import FGSM, PGD, fgsm, pgd
from vmamba_jax.attacks.gradient.transfer import TRANSFER, TransferPGD, momentum_pgd, transfer_pgd
from vmamba_jax.attacks.patch_fool.patch_fool import PatchFool, patch_fool  # the function, not the folder
from vmamba_jax.attacks.randomized import Randomized, expected_logits
from vmamba_jax.attacks.threat_model import NORMS, ThreatModel
from vmamba_jax.core import checks, deprecation
from vmamba_jax.core.keys import per_image_keys

ATTACKS = {"fgsm": fgsm, "pgd": pgd, "masked_pgd": masked_pgd, "frequency_pgd": frequency_pgd, "momentum_pgd": momentum_pgd,
           "transfer_pgd": transfer_pgd, "eot_pgd": eot_pgd, "apgd": apgd, "fab": fab, "square": square, "pma": pma, "autoattack": autoattack,
           "patch_fool": patch_fool}
DENSE = {"dense_pgd": dense_pgd, "segpgd": segpgd, "cospgd": cospgd, "dense_apgd": dense_apgd, "tsallis_pgd": tsallis_pgd, "sea": sea,
         "detection_pgd": detection_pgd}
"""Attacks on dense predictions, by name; `create` makes these too."""


def create(name, **options):
    """The attack `name` of `ATTACKS` or `DENSE` with its own options, as a config or a saved `attack.settings` spells them.

    Raises:
        ValueError: an unknown name; the message lists the names.
        TypeError: an option the attack does not have.
    """
    for old, new in _RENAMED_OPTIONS.items():
        if old in options:
            deprecation.warn(f"option {old!r}", repr(new))
            options[new] = options.pop(old)
    return checks.by_name("attack", name, DENSE if name in DENSE else ATTACKS, options)(**options)


_RENAMED_OPTIONS = {"neighbours": "neighbors", "neighbourhood": "neighborhood"}
__getattr__ = deprecation.renamed(__name__, {"MomentumPGD": "vmamba_jax.attacks.gradient.transfer:momentum_pgd"})

__all__ = ["APGD", "ATTACKS", "Attack", "AutoAttack", "CosPGD", "DENSE", "DenseAPGD", "DensePGD", "DetectionPGD", "EOTPGD", "FAB", "FGSM", "FrequencyPGD",
           "MaskedPGD", "NORMS", "PGD", "PMA", "Passes", "PatchFool", "Randomized", "SEA", "SegPGD", "Square", "TRANSFER", "ThreatModel",
           "TransferPGD", "apgd", "autoattack", "cospgd", "create", "dense_apgd", "dense_pgd", "detection_pgd", "eot_pgd", "expected_logits", "fab", "fgsm",
           "frequency_pgd", "losses", "masked_pgd", "masks", "momentum_pgd", "patch_fool", "per_image_keys", "pgd", "pma", "sea", "segpgd", "square",
           "transfer_pgd", "tsallis_pgd"]
