"""Adversarial training: descend the loss at the images an attack makes of the batch."""
import dataclasses

import jax.numpy as jnp

from ..checks import choice, number, require
from . import common

RADII = ("eps", "step_size")  # the fields of an attack that have the radius' unit


def pgd_at(classifier, optimizer, *, attack, attack_mode="eval", eps_schedule=None, label_smoothing=0.0, clean_accuracy=False, augment=None,
           ema_decay=None, ema_warmup=False):
    """A step of min_params E max_{x' near x} loss(x', y) (Madry et al. 2018, eq. 2.1); with a one-step attack, of Fast or Light training.

    classifier: `(variables, images, train, rngs, mutable) -> logits` on [0, 1] images. optimizer: optax transformation.
    attack: `(logits_fn, images, labels, keys) -> adversarial`; it sees the current weights, and no gradient flows back through it.
    attack_mode: the model's mode inside the attack, "eval" (running statistics, no dropout) or "train" (the batch's own statistics, which
    are not recorded, and one dropout mask for the whole attack). The update itself always runs in training mode.
    eps_schedule: function of the updates done; the attack's radius and step size are multiplied by it (`schedules.ramp`).
    label_smoothing: in [0, 1), in the update's loss, not the attack's. augment: `(images, keys) -> images` before the attack.
    clean_accuracy: also measure accuracy on the clean images, in the attack's mode, at the cost of a forward pass.
    ema_decay, ema_warmup: running average of the weights, see `common.update`.
    The step's metrics: loss, accuracy on the adversarial images, grad_norm, learning_rate; clean_accuracy if asked, eps_scale if scheduled.
    """
    require(choice("attack_mode", attack_mode, ("eval", "train")), number("label_smoothing", label_smoothing, low=0, below=1),
            (callable(attack), f"attack must be callable; got {attack!r}"),
            (eps_schedule is None or callable(eps_schedule), f"eps_schedule must be None or a function of the step; got {eps_schedule!r}"),
            (eps_schedule is None or hasattr(attack, "eps") and dataclasses.is_dataclass(attack),
             f"eps_schedule needs an attack that is a dataclass with a field eps; got {attack!r}"))

    def prepare(state, batch, keys):
        logits_fn = common.frozen_logits(classifier, state.params, state.model_state, attack_mode, keys.attack_dropout)
        images, labels, metrics = batch["image"], common.classes(batch["label"]), {}
        attack_now = attack
        if eps_schedule is not None:
            metrics["eps_scale"] = jnp.asarray(eps_schedule(state.step), jnp.float32)
            attack_now = scale_radius(attack, metrics["eps_scale"])
        if clean_accuracy:
            metrics["clean_accuracy"] = common.accuracy(logits_fn(images), labels, batch.get("weight"))
        return {**batch, "image": attack_now(logits_fn, images, labels, keys.attack)}, metrics

    loss = common.classification_loss(classifier, label_smoothing)
    return common.make_step(optimizer, loss, prepare=prepare, augment=augment, ema_decay=ema_decay, ema_warmup=ema_warmup)


def scale_radius(attack, factor):
    """The attack with its radius and step size multiplied by `factor`, which may be traced."""
    radii = {name: getattr(attack, name, None) for name in RADII}
    return dataclasses.replace(attack, **{name: factor * value for name, value in radii.items() if value is not None})
