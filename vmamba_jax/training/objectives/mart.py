"""MART (Wang et al. 2020): adversarial training that weights each image's KL term by how uncertain the model is of it when clean."""
import jax
import jax.numpy as jnp

from vmamba_jax.core import checks
from vmamba_jax.training.objectives import losses
from vmamba_jax.training.objectives.inner_attack import ATTACK, InnerAttack, two_pass_rule
from vmamba_jax.training.objectives.step import make_step
from vmamba_jax.training.objectives.whole_batch import mean


def mart(classifier, optimizer, *, beta=6.0, attack=ATTACK, statistics="shared", label_smoothing=0.0, **options):
    """A step of min E [BCE(f(x'), y) + beta KL(f(x) || f(x')) (1 - f(x)_y)] with x' from the attack.

    BCE is cross-entropy - log(1 - p) at the likeliest wrong class; the released constants are kept: log(1.0001 - p + 1e-12),
    1.0000001 - f(x)_y, and 1e-12 inside KL's logarithm.
    Where labels are distributions, the wrong classes are all but the likeliest, and f(x)_y is the mean over the labels.
    The step's metrics: loss, bce, kl (weighted), accuracy (adversarial), clean_accuracy, grad_norm, learning_rate; eps_scale with a
    schedule.

    Args:
        classifier, optimizer: as of `pgd_at`.
        beta: weight >= 0 of the second term; the paper uses 5 and 6.
        attack: as of `pgd_at`; by default that of the released program, radius 0.031.
        statistics: of batch norm, "shared" or "separate", see `inner_attack.two_pass_rule`.
        label_smoothing: in [0, 1), of the cross-entropy.
        **options: as of `pgd_at`.

    Source: Wang et al. 2020, equation 11, as released.
    """
    inner, options = InnerAttack.from_options(attack, options)
    checks.number("beta", beta, low=0)
    checks.number("label_smoothing", label_smoothing, low=0, below=1)

    def loss(clean, adversarial, labels, weight):
        natural, attacked = jax.nn.softmax(clean), jax.nn.softmax(adversarial)
        own = jnp.arange(clean.shape[-1]) == losses.classes(labels)[:, None]
        wrong = jnp.where(own, -jnp.inf, attacked).max(-1)
        bce = losses.cross_entropy(adversarial, labels, label_smoothing, weight) - mean(jnp.log(1.0001 - wrong + 1e-12), weight)
        kl = (natural * (jax.nn.log_softmax(clean) - jnp.log(attacked + 1e-12))).sum(-1)
        certain = (natural * losses.distributions(labels, natural)).sum(-1)
        robust = mean(kl * (1.0000001 - certain), weight)
        return bce + beta * robust, {"bce": bce, "kl": robust}

    return make_step(optimizer, two_pass_rule(classifier, loss, inner, statistics), **options)
