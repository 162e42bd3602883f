"""Standard training: cross-entropy on the images as they are."""
from ..checks import number, require
from . import common


def standard(classifier, optimizer, *, label_smoothing=0.0, augment=None, ema_decay=None, ema_warmup=False):
    """A step of empirical risk minimisation.

    classifier: `(variables, images, train, rngs, mutable) -> logits` on [0, 1] images. optimizer: optax transformation.
    label_smoothing: in [0, 1). augment: `(images, keys) -> images`, one key per image.
    ema_decay, ema_warmup: running average of the weights, see `common.update`.
    The step's metrics: loss, accuracy (as trained on), grad_norm, learning_rate.
    """
    require(number("label_smoothing", label_smoothing, low=0, below=1))

    loss = common.classification_loss(classifier, label_smoothing)
    return common.make_step(optimizer, loss, augment=augment, ema_decay=ema_decay, ema_warmup=ema_warmup)
