"""Semantic segmentation: cross-entropy of every pixel, with an auxiliary head, on the batch's images or on those that an attack makes of them."""
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from vmamba_jax.attacks.dense import losses as pixels
from vmamba_jax.core import checks
from vmamba_jax.training.objectives import losses
from vmamba_jax.training.objectives.inner_attack import InnerAttack
from vmamba_jax.training.objectives.step import Cost, Outcome, Rule, Step, descend, make_step
from vmamba_jax.training.objectives.whole_batch import mean


def segmentation(classifier, optimizer, *, attack=None, auxiliary=0.4, ignore=pixels.IGNORE, label_smoothing=0.0, clean_accuracy=False, **options):
    """A step of semantic segmentation; with `attack` one of adversarial training on the attacked images (PGD-AT).

    The batch's "label" is (b, H, W) integers, classes or `ignore`. The step's metrics: loss, accuracy (of pixels, on the images trained
    on), auxiliary_loss, grad_norm, learning_rate; clean_accuracy on request; eps_scale with a schedule.

    Args:
        classifier: `(variables, images, train, rngs, mutable) -> logits (b, H, W, classes)` on [0, 1] images; with auxiliary=True (logits, the
            auxiliary head's logits).
        optimizer: optax transformation.
        attack: None; an attack on dense predictions, such as `attacks.dense_pgd`, or an `InnerAttack`. It sees the decode head's logits alone.
        auxiliary: weight >= 0 of the auxiliary head's loss; 0: the classifier is called without `auxiliary`.
        ignore: label of pixels that count for nothing.
        label_smoothing: in [0, 1), of the loss, not the attack's.
        clean_accuracy: also measure pixel accuracy on the clean images, in the attack's mode, at the cost of a forward pass.
        **options: attack_mode, eps_schedule, scheduled: see `InnerAttack`, only with an attack; ema_decay, ema_warmup, accumulate: see `step.Step`.
            augment and mix change images alone, so they must be None: joint transforms are `data.transforms.joint`.

    Source: MMSegmentation's EncoderDecoder; the adversarial one: Croce et al. 2024 (arXiv 2306.12941), section 4: PIR-AT begins from a robust backbone.
    """
    checks.number("auxiliary", auxiliary, low=0), checks.number("label_smoothing", label_smoothing, low=0, below=1)
    checks.flag("clean_accuracy", clean_accuracy)
    if clean_accuracy and attack is None:
        raise ValueError("clean_accuracy=True with attack=None: expected False, as accuracy is already that of the clean images")
    for name in ("augment", "mix"):
        if options.get(name) is not None:
            raise ValueError(f"{name}={options[name]!r}: expected None, as it changes images without their label maps; use a joint transform of the data")
    prepare, attack_cost = None, Cost
    if attack is not None:
        inner, options = InnerAttack.from_options(attack, options)

        def prepare(state, batch, keys):
            adversarial, metrics, logits_fn = inner(classifier, state, batch, keys)
            if clean_accuracy:
                metrics["clean_accuracy"] = pixel_accuracy(logits_fn(batch["image"]), batch["label"], ignore, batch.get("weight"))
            return {**batch, "image": adversarial}, metrics
        attack_cost = lambda: inner.cost().plus(Cost(0, int(clean_accuracy)))

    def loss(params, state, batch, keys):
        labels, weight, both = batch["label"], batch.get("weight"), {"auxiliary": True} if auxiliary else {}
        found, model_state = losses.train_logits(classifier, params, state.model_state, batch["image"], keys.dropout, **both)
        logits, *others = found if auxiliary else (found,)
        value = pixel_cross_entropy(logits, labels, ignore, label_smoothing, weight)
        metrics = {"accuracy": pixel_accuracy(logits, labels, ignore, weight)}
        if auxiliary:
            metrics["auxiliary_loss"] = pixel_cross_entropy(others[0], labels, ignore, label_smoothing, weight)
            value = value + auxiliary * metrics["auxiliary_loss"]
        return value, Outcome(model_state, metrics, state.carry)

    rule = Rule(gradient=descend(loss), prepare=prepare, attack_cost=attack_cost, classes=losses.number_of_classes(classifier))
    return make_step(optimizer, rule, kind=functools.partial(SegmentationStep, ignore=ignore), **options)


@dataclasses.dataclass(frozen=True, eq=False)
class SegmentationStep(Step):
    """A `Step` whose labels are maps.

    Attributes:
        ignore: label of pixels that count for nothing.
    """
    ignore: int = pixels.IGNORE

    def check_labels(self, labels, n, positions=None):
        """Raise unless `labels` are (n, H, W) integers, each a class or `ignore`; the message names the image by its position in the set."""
        shape = getattr(labels, "shape", None)
        if shape is None or len(shape) != 3 or shape[0] != n:
            raise ValueError(f"labels.shape={type(labels).__name__ if shape is None else shape}: expected ({n}, height, width), one class per pixel")
        if not jnp.issubdtype(labels.dtype, jnp.integer):
            raise TypeError(f"labels.dtype={labels.dtype}: expected an integer type, one class per pixel")
        if not checks.known(labels):
            return
        values = np.asarray(labels)
        wrong = np.argwhere((values != self.ignore) & ((values < 0) | (False if self.classes is None else values >= self.classes)))
        if len(wrong):
            i, y, x = wrong[0].tolist()
            expected = "a class >= 0" if self.classes is None else f"a class from 0 to {self.classes - 1}"
            raise ValueError(f"labels[{i if positions is None else int(positions[i])}, {y}, {x}]={values[i, y, x]}: expected {expected}, or {self.ignore}")


def pixel_cross_entropy(logits, labels, ignore=pixels.IGNORE, label_smoothing=0.0, weight=None):
    """Mean cross-entropy over all pixels, those of label `ignore` included, which count as 0: MMSegmentation's mean.

    A label that is neither a class nor `ignore` makes the loss NaN.

    Args:
        logits: (b, H, W, classes).
        labels: (b, H, W) integers.
        ignore: label of pixels without a loss.
        label_smoothing: s in [0, 1); the targets become (1 - s) * target + s / classes.
        weight: (b,) or None, see `whole_batch.mean`.
    """
    log_p = jax.nn.log_softmax(losses.at_least_float32(logits))
    inside = (labels >= 0) & (labels < logits.shape[-1])
    nll = -jnp.take_along_axis(log_p, jnp.where(inside, labels, 0)[..., None], -1)[..., 0]
    if label_smoothing:
        nll = (1 - label_smoothing) * nll - label_smoothing * log_p.mean(-1)
    nll = jnp.where(labels == ignore, 0, jnp.where(inside, nll, jnp.nan))
    return mean(nll.mean((1, 2)), weight)


def pixel_accuracy(logits, labels, ignore=pixels.IGNORE, weight=None):
    """Mean over images of the share of the pixels with another label than `ignore` that are right; an image without any has 1.

    A mean over images, unlike the share over all pixels, is the mean over devices too.
    """
    counted = labels != ignore
    right = (logits.argmax(-1) == labels) & counted
    number = counted.sum((1, 2))
    return mean(jnp.where(number > 0, right.sum((1, 2)) / jnp.maximum(number, 1), 1.0), weight)
