"""The attack inside a training step: which model it sees, how its radius grows, what it is told of the labels."""
import dataclasses

import jax.numpy as jnp

from vmamba_jax.core import checks
from vmamba_jax.training.objectives import losses

RADII = ("eps", "step_size")  # the fields of an attack that have the radius' unit


def make_attack(classifier, attack, attack_mode, eps_schedule=None, scheduled=RADII, aim=None):
    """`(state, batch, keys) -> (adversarial images, metrics, logits_fn)` of the attack on the current weights.

    attack_mode: "eval" (running statistics, no dropout) or "train" (the batch's own statistics, which are not recorded, and one dropout
    mask for the whole attack). eps_schedule: function of the steps done that multiplies the attack's fields `scheduled`.
    aim: `(attack, logits_fn, images) -> attack`, to give the attack a loss that depends on the batch.
    The attack gets each label's class, the likeliest where labels are distributions.
    """
    def run(state, batch, keys):
        logits_fn = losses.frozen_logits(classifier, state.params, state.model_state, attack_mode, keys.attack_dropout)
        images, metrics, now = batch["image"], {}, attack
        if eps_schedule is not None:
            metrics["eps_scale"] = jnp.asarray(eps_schedule(state.step), jnp.float32)
            now = scale_radius(attack, metrics["eps_scale"], scheduled)
        if aim is not None:
            now = aim(now, logits_fn, images)
        return now(logits_fn, images, losses.classes(batch["label"]), keys.attack), metrics, logits_fn

    return run


def check(attack, attack_mode, eps_schedule, scheduled, aimed=False):
    """Check the options of `make_attack`. aimed: the objective sets the attack's loss."""
    record = dataclasses.is_dataclass(attack)
    checks.choice("attack_mode", attack_mode, ("eval", "train"))
    checks.require(callable(attack), f"attack={attack!r}: expected a function")
    checks.require(eps_schedule is None or callable(eps_schedule), f"eps_schedule={eps_schedule!r}: expected None or a function of the step")
    checks.require(eps_schedule is None or record and hasattr(attack, "eps"),
                   f"attack={attack!r}: expected a dataclass with a field eps, for eps_schedule")
    checks.require(not aimed or record and hasattr(attack, "loss"),
                   f"attack={attack!r}: expected a dataclass with a field loss, which this objective sets")
    checks.require(set(scheduled) <= set(RADII), f"scheduled={scheduled!r}: expected some of {', '.join(RADII)}")


def scale_radius(attack, factor, fields=RADII):
    """The attack with its radius and step size, or those of them that `fields` names, multiplied by `factor`, which may be traced."""
    radii = {name: getattr(attack, name, None) for name in fields}
    return dataclasses.replace(attack, **{name: factor * value for name, value in radii.items() if value is not None})
