"""Attacks at equal numbers of passes: local and global optimality over a query budget, on two small models trained adversarially on digits.

Cina et al., "AttackBench: Evaluating Gradient-based Attacks for Adversarial Examples" (arXiv 2404.19460): optimality. Xie et al. (arXiv 2411.15210): is the
probability margin a stronger loss than DLR at the same number of gradients?

    python -m experiments.attack_quality --config configs/attack_quality.py --workdir runs/attack_quality

The models are a VMamba of 21,000 and a MambaOut of 90,000 parameters, trained with the recipe of configs/digits.py:objective=pgd_at from each seed. An attack
of budget B makes at most B gradient passes per image at each radius; a forward pass alone counts as half. Expected figures and time: docs/results/README.md.
"""
from configs import base

SHARED = {"depths": (1, 1), "patch_size": 2, "drop_path_rate": 0.0}


def get_config(arg=None):
    """No axes; `--config.budgets="(20, 120)"` changes the budgets, `--config.seeds` and `--config.limit` the extent."""
    base.parse_arg(arg)
    config = base.attack_quality()
    config.models = {"vmamba": {"name": "vmamba_tiny", "overrides": {**SHARED, "dims": (16, 32), "patch_embed": "v1"}},
                     "mambaout": {"name": "mambaout_tiny", "overrides": {**SHARED, "dims": (32, 64)}}}
    config.seeds = (0, 1, 2)
    config.limit = 50
    config.eps = 0.2
    config.radii = (0.1, 0.2, 0.3)
    config.budgets = (20, 60)
    return config
