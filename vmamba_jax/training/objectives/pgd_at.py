"""Adversarial training: descend the loss at the images an attack makes of the batch."""
import dataclasses

from vmamba_jax import attacks
from vmamba_jax.core import checks
from vmamba_jax.training.objectives import losses
from vmamba_jax.training.objectives.cost import Cost, attack_cost
from vmamba_jax.training.objectives.inner_attack import RADII, check, make_attack
from vmamba_jax.training.objectives.released_pgd import ReleasedPGD
from vmamba_jax.training.objectives.standard import classification_loss
from vmamba_jax.training.objectives.step import Rule, descend, make_step


def pgd_at(classifier, optimizer, *, attack, attack_mode="eval", eps_schedule=None, scheduled=RADII, label_smoothing=0.0,
           clean_accuracy=False, released=False, **options):
    """A step of min_params E max_{x' near x} loss(x', y) (Madry et al. 2018, eq. 2.1).

    classifier: `(variables, images, train, rngs, mutable) -> logits` on [0, 1] images. optimizer: optax transformation.
    attack: `(logits_fn, images, labels, keys) -> adversarial`; it sees the current weights, and no gradient flows back through it.
    attack_mode: the model's mode inside the attack, "eval" (running statistics, no dropout) or "train" (the batch's own statistics, which
    are not recorded, and one dropout mask for the whole attack). The update itself always runs in training mode.
    eps_schedule: function of the steps done; the attack's fields named by `scheduled` are multiplied by it (`schedules.ramp`).
    label_smoothing: in [0, 1), in the update's loss, not the attack's.
    clean_accuracy: also measure accuracy on the clean images, in the attack's mode, at the cost of a forward pass.
    released: attack as the programs of arXiv 2406.05532 do, see `ReleasedPGD`; the attack must be `attacks.pgd` in linf.
    options: augment, ema_decay, ema_warmup, accumulate, see `step.Step`.
    The step's metrics: loss, accuracy on the adversarial images, grad_norm, learning_rate; clean_accuracy if asked, eps_scale if scheduled.
    """
    check(attack, attack_mode, eps_schedule, scheduled)
    checks.number("label_smoothing", label_smoothing, low=0, below=1)
    if released:
        checks.require(isinstance(attack, attacks.PGD), f"attack={attack!r}: expected attacks.pgd(...) with released=True")
        attack = ReleasedPGD(**{field.name: getattr(attack, field.name) for field in dataclasses.fields(attack)})
    run = make_attack(classifier, attack, attack_mode, eps_schedule, scheduled)

    def prepare(state, batch, keys):
        adversarial, metrics, logits_fn = run(state, batch, keys)
        if clean_accuracy:
            metrics["clean_accuracy"] = losses.accuracy(logits_fn(batch["image"]), batch["label"], batch.get("weight"))
        return {**batch, "image": adversarial}, metrics

    rule = Rule(prepare=prepare, gradient=descend(classification_loss(classifier, label_smoothing)),
                attack_cost=lambda: attack_cost(attack).plus(Cost(0, int(clean_accuracy))))
    return make_step(optimizer, rule, **options)
