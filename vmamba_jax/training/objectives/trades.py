"""TRADES (Zhang et al. 2019): clean cross-entropy plus the largest KL divergence between clean and adversarial predictions."""
import dataclasses

from jax import lax

from vmamba_jax.core import checks
from vmamba_jax.training.objectives import losses
from vmamba_jax.training.objectives.inner_attack import ATTACK, InnerAttack, require_loss, two_pass_rule
from vmamba_jax.training.objectives.step import Cost, make_step
from vmamba_jax.training.objectives.whole_batch import mean


def trades(classifier, optimizer, *, beta=6.0, attack=ATTACK, recompute_targets=True, detach_targets=False, statistics="shared",
           label_smoothing=0.0, **options):
    """A step of min E [CE(f(x), y) + beta max_{x' near x} KL(f(x) || f(x'))].

    Labels may be distributions; the attack needs none.
    The step's metrics: loss, clean_loss, kl, accuracy (adversarial), clean_accuracy, grad_norm, learning_rate; eps_scale with a schedule.

    Args:
        classifier, optimizer: as of `pgd_at`.
        beta: weight >= 0 of the second term.
        attack: an attack with a field `loss`, which becomes KL(f(x) || f(x')), or an `InnerAttack`; by default that of the released
            program, radius 0.031.
        recompute_targets: compute f(x) again in every step of the attack, as released. False computes it once: the same attack, fewer
            passes.
        detach_targets: no gradient through f(x) of the second term; as released, it flows through both.
        statistics: of batch norm, "shared" or "separate", see `inner_attack.two_pass_rule`.
        label_smoothing: in [0, 1), of the clean cross-entropy.
        **options: as of `pgd_at`.

    Source: Zhang et al. 2019, equation 5, as released.
    """
    inner, options = InnerAttack.from_options(attack, options)
    require_loss(inner)
    checks.number("beta", beta, low=0)
    checks.number("label_smoothing", label_smoothing, low=0, below=1)

    def aim(attack, logits_fn, images):
        target = None if recompute_targets else logits_fn(images)
        return dataclasses.replace(attack, loss=lambda logits, labels: losses.kl(logits, logits_fn(images) if target is None else target))

    def loss(clean, adversarial, labels, weight):
        natural = losses.cross_entropy(clean, labels, label_smoothing, weight)
        robust = mean(losses.kl(adversarial, lax.stop_gradient(clean) if detach_targets else clean), weight)
        return natural + beta * robust, {"clean_loss": natural, "kl": robust}

    evaluations = getattr(inner.attack, "steps", 1) * getattr(inner.attack, "restarts", 1)
    rule = two_pass_rule(classifier, loss, inner, statistics, aim, Cost(0, evaluations if recompute_targets else 1))
    return make_step(optimizer, rule, **options)
