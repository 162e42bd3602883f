"""Standard training: cross-entropy on the batch's images, without an attack."""
from vmamba_jax.core import checks
from vmamba_jax.training.objectives import losses
from vmamba_jax.training.objectives.step import Outcome, Rule, descend, make_step


def standard(classifier, optimizer, *, label_smoothing=0.0, **options):
    """A step of empirical risk minimization.

    The step's metrics: loss, accuracy on the training images, grad_norm, learning_rate.

    Args:
        classifier: `(variables, images, train, rngs, mutable) -> logits` on [0, 1] images.
        optimizer: optax transformation.
        label_smoothing: in [0, 1).
        **options: augment, mix, ema_decay, ema_warmup, accumulate, see `step.Step`.
    """
    checks.number("label_smoothing", label_smoothing, low=0, below=1)
    return make_step(optimizer, Rule(gradient=descend(classification_loss(classifier, label_smoothing)), classes=losses.number_of_classes(classifier)), **options)


def classification_loss(classifier, label_smoothing):
    """A loss for `step.descend`: cross-entropy of the batch's images, with their accuracy as a metric."""
    def loss(params, state, batch, keys):
        logits, model_state = losses.train_logits(classifier, params, state.model_state, batch["image"], keys.dropout)
        outcome = Outcome(model_state, {"accuracy": losses.accuracy(logits, batch["label"], batch.get("weight"))}, state.carry)
        return losses.cross_entropy(logits, batch["label"], label_smoothing, batch.get("weight")), outcome

    return loss
