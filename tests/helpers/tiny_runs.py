"""Runs on the real digits whose model and training are so small that only the programs are tested."""
from configs import digits, sweeps


def tiny(objective):
    """configs/digits.py with 2 epochs of 4 steps, one block of 8 channels, and 32 test images."""
    config = digits.get_config(f"objective={objective}")
    config.epochs, config.batch_size = 2, 256
    config.model.overrides.update(dims=(8,), depths=(1,), patch_size=4)
    config.validation.attack.steps, config.validation.every_epochs = 1, 1
    config.evaluation.update(limit=32, batch_size=32)
    config.evaluation.attacks = {"pgd": {**config.evaluation.attacks.pgd, "steps": 2, "restarts": 2}}
    config.evaluation.curve.radii = (0.0, 0.1, 0.2)
    config.evaluation.states.images = 0
    if objective == "pgd_at":
        config.objective.attack.steps = 1
    return config


def tiny_quickstart():
    """The quickstart's sweep with the configs of `tiny`."""
    return sweeps.sweep(tiny("pgd_at"), runs={"standard": tiny("standard").to_dict(), "pgd_at": {}}, control="standard")


def forbidden(*args, **options):
    """A stand-in for a function that must not be called."""
    raise AssertionError("this was done already")
