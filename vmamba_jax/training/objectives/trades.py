"""TRADES: cross-entropy on clean images, and how far an attack can move the prediction from them."""
import dataclasses

from jax import lax

from vmamba_jax.core import checks
from vmamba_jax.training.objectives import losses, two_passes
from vmamba_jax.training.objectives.cost import Cost
from vmamba_jax.training.objectives.inner_attack import RADII, check
from vmamba_jax.training.objectives.step import make_step
from vmamba_jax.training.objectives.whole_batch import mean


def trades(classifier, optimizer, *, beta=6.0, attack=two_passes.ATTACK, attack_mode="eval", recompute_targets=True, detach_targets=False,
           statistics="shared", label_smoothing=0.0, eps_schedule=None, scheduled=RADII, **options):
    """A step of min E [CE(f(x), y) + beta max_{x' near x} KL(f(x) || f(x'))] (Zhang et al. 2019, eq. 5, as released).

    classifier, optimizer, attack_mode, eps_schedule, scheduled, options: as of `pgd_at`. label_smoothing: of the clean cross-entropy.
    beta: weight >= 0 of the second term. attack: its loss becomes KL(f(x) || f(x')); by default that of the released program, radius 0.031.
    recompute_targets: f(x) is computed anew in every step of the attack, as released; False computes it once, which is the same attack for
    less work. detach_targets: no gradient through f(x) of the second term; as released it flows through both.
    statistics: of batch norm, "shared" or "separate", see `two_passes.make_rule`.
    Labels may be distributions; the attack needs none.
    The step's metrics: loss, clean_loss, kl, accuracy (adversarial), clean_accuracy, grad_norm, learning_rate; eps_scale if scheduled.
    """
    check(attack, attack_mode, eps_schedule, scheduled, aimed=True)
    checks.number("beta", beta, low=0)
    checks.number("label_smoothing", label_smoothing, low=0, below=1)
    checks.choice("statistics", statistics, two_passes.STATISTICS)

    def aim(attack, logits_fn, images):
        target = None if recompute_targets else logits_fn(images)
        return dataclasses.replace(attack, loss=lambda logits, labels: losses.kl(logits, logits_fn(images) if target is None else target))

    def loss(clean, adversarial, labels, weight):
        natural = losses.cross_entropy(clean, labels, label_smoothing, weight)
        robust = mean(losses.kl(adversarial, lax.stop_gradient(clean) if detach_targets else clean), weight)
        return natural + beta * robust, {"clean_loss": natural, "kl": robust}

    evaluations = getattr(attack, "steps", 1) * getattr(attack, "restarts", 1)
    rule = two_passes.make_rule(classifier, loss, attack, attack_mode, eps_schedule, scheduled, statistics, aim,
                                Cost(0, evaluations if recompute_targets else 1))
    return make_step(optimizer, rule, **options)
