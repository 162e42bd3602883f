"""Standard against adversarial training of a small VMamba on scikit-learn's digits, over several seeds.

    python -m experiments.sweep --config configs/digits_sweep.py --workdir runs/digits_sweep
    python -m experiments.sweep --config configs/digits_sweep.py:seeds=5 --workdir runs/digits_sweep --config.base.epochs=10

Expected on the 360 test digits at Linf radius 0.2: 98 % clean and 70 % under PGD-20 for `pgd_at`, 97.5 % and 1 % for `standard`. Cost: about a
minute for each run on two CPU cores.
"""
from configs import base, digits, sweeps


def get_config(arg=None):
    """Argument: `seeds=3`, the number of seeds, from 0; seeds=0 runs each objective once, with the base's seed."""
    arg = base.parse_arg(arg, seeds=3)
    if arg["seeds"] < 0:
        raise ValueError(f"config argument seeds={arg['seeds']}: expected at least 0")
    standard = digits.get_config("objective=standard")
    return sweeps.sweep(
        digits.get_config("objective=pgd_at"), seeds=range(arg["seeds"]), control="standard",
        runs={"standard": {"objective": standard.objective.to_dict(), "validation": standard.validation.to_dict()}, "pgd_at": {}},
        title="Adversarial against standard training: a small VMamba on handwritten digits",
        about="VMambas of one architecture, trained on scikit-learn's digits as they are, or on the images that PGD perturbs at every step.")
