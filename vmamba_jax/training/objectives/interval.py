"""Training on interval bounds: the clean cross-entropy and that of the worst logits which the bounds allow."""
import jax.numpy as jnp

from vmamba_jax.core import checks
from vmamba_jax.core.intervals.arithmetic import unrounded
from vmamba_jax.models import interval_bounds
from vmamba_jax.models.classifier import Classifier
from vmamba_jax.training.objectives import losses
from vmamba_jax.training.objectives.step import Cost, Outcome, Rule, descend, make_step


def interval(classifier, optimizer, *, eps, share=0.5, eps_schedule=None, label_smoothing=0.0, **options):
    """A step of (1 - k) CE(f(x), y) + k CE(worst logits, y), where the worst logits bound z_j - z_y over the linf ball of radius eps from above.

    The schedule multiplies both eps and k = share. Bounds are those of `models.interval_bounds.margins` in evaluation mode, without the widening for
    rounding errors. A batch whose loss is not finite is the trainer's to skip.
    The step's metrics: loss, clean_loss, worst_loss, accuracy (clean), certified (share of images whose bound is below 0), grad_norm, learning_rate, and
    eps_scale with a schedule.

    Args:
        classifier: a `Classifier`, or a function of its form that is built of operations with a rule, see `core.intervals`.
        optimizer, label_smoothing, options: as of `standard`.
        eps: linf radius in pixel units, >= 0; the ball is clipped to [0, 1].
        share: k, in [0, 1].
        eps_schedule: function of the number of steps done; None: 1.

    Source: Gowal et al. 2018, equation 12, arXiv 1810.12715.
    """
    checks.number("eps", eps, low=0)
    checks.number("share", share, low=0, high=1)
    checks.number("label_smoothing", label_smoothing, low=0, below=1)
    if eps_schedule is not None and not callable(eps_schedule):
        raise TypeError(f"eps_schedule={eps_schedule!r}: expected None or a function of the number of steps done")
    bounded = interval_bounds.reference(classifier) if isinstance(classifier, Classifier) else classifier

    def loss(params, state, batch, keys):
        images, labels, weight = batch["image"], batch["label"], batch.get("weight")
        logits, model_state = losses.train_logits(classifier, params, state.model_state, images, keys.dropout)
        scale = 1.0 if eps_schedule is None else jnp.asarray(eps_schedule(state.step), jnp.float32)
        fn = losses.frozen_logits(bounded, params, state.model_state, "eval", None)
        with unrounded():
            worst = interval_bounds.margins(fn, *interval_bounds.box(images, scale * eps), losses.classes(labels)).high
        clean_loss, worst_loss = (losses.cross_entropy(z, labels, label_smoothing, weight) for z in (logits, worst))
        certified = (worst.max(-1) <= 0).astype(jnp.float32)
        metrics = {"clean_loss": clean_loss, "worst_loss": worst_loss, "accuracy": losses.accuracy(logits, labels, weight),
                   "certified": losses.mean(certified, weight)} | ({} if eps_schedule is None else {"eps_scale": scale})
        return (1 - share * scale) * clean_loss + share * scale * worst_loss, Outcome(model_state, metrics, state.carry)

    rule = Rule(gradient=descend(loss), update_cost=Cost(4), classes=losses.number_of_classes(classifier))
    return make_step(optimizer, rule, **options)
