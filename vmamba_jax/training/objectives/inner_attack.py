"""The attack inside a training step: which model it sees, how its radius grows, what it is told of the labels."""
import dataclasses

import jax.numpy as jnp

from vmamba_jax.training.checks import choice
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


def checks(attack, attack_mode, eps_schedule, scheduled, aimed=False):
    """Checks of `make_attack`'s options for `require`. aimed: the attack's loss will be set."""
    record = dataclasses.is_dataclass(attack)
    return (choice("attack_mode", attack_mode, ("eval", "train")), (callable(attack), f"attack must be callable; got {attack!r}"),
            (eps_schedule is None or callable(eps_schedule), f"eps_schedule must be None or a function of the step; got {eps_schedule!r}"),
            (eps_schedule is None or record and hasattr(attack, "eps"),
             f"eps_schedule needs an attack that is a dataclass with a field eps; got {attack!r}"),
            (not aimed or record and hasattr(attack, "loss"),
             f"attack must be a dataclass with a field loss, as this objective sets it; got {attack!r}"),
            (set(scheduled) <= set(RADII), f"scheduled must be some of {', '.join(RADII)}; got {scheduled!r}"))


def scale_radius(attack, factor, fields=RADII):
    """The attack with its radius and step size, or those of them that `fields` names, multiplied by `factor`, which may be traced."""
    radii = {name: getattr(attack, name, None) for name in fields}
    return dataclasses.replace(attack, **{name: factor * value for name, value in radii.items() if value is not None})
