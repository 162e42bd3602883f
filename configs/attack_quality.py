"""Attacks at equal numbers of passes: local and global optimality over a query budget, on two small models trained adversarially on digits.

Cina et al., "AttackBench: Evaluating Gradient-based Attacks for Adversarial Examples" (arXiv 2404.19460): optimality. Xie et al. (arXiv 2411.15210): is the
probability margin a stronger loss than DLR at the same number of gradients?

    python -m experiments.attack_quality --config configs/attack_quality.py --workdir runs/attack_quality
    python -m experiments.attack_quality --config configs/attack_quality.py:models=vmamba --workdir runs/attack_quality_vmamba

The models are two plain networks, a perceptron of one hidden layer and one of four, trained adversarially from each seed in seconds; with
`models=vmamba` the small VMamba of configs/digits.py:objective=pgd_at, trained by that recipe, and the first perceptron, on half of the images and
radii. An attack of budget B makes at most B gradient passes per image at each radius; a forward pass alone counts as half. Figures and time of the
default: docs/results/README.md.
"""
from configs import base, digits

PERCEPTRON = {"name": "perceptron", "overrides": {}}


def get_config(arg=None):
    """Axis: `models=nets` or `vmamba`. `--config.budgets="(20, 120)"` changes the budgets, `--config.seeds` and `--config.limit` the extent."""
    arg = base.parse_arg(arg, models="nets")
    nets = base.choose("models", arg["models"], {"nets": True, "vmamba": False})
    config = base.attack_quality()
    config.models = ({"perceptron": PERCEPTRON, "deep": {"name": "deep_perceptron", "overrides": {}}} if nets else
                     {"perceptron": PERCEPTRON, "vmamba": digits.get_config("objective=pgd_at").model})
    config.seeds = (0, 1, 2)
    config.limit = 0 if nets else 180
    config.eps = 0.2
    config.radii = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3) if nets else (0.1, 0.2, 0.3)
    config.budgets = (20, 50)
    return config
