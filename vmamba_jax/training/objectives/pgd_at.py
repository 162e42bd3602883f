"""PGD adversarial training (Madry et al. 2018): descend the loss at the images that an attack makes of the batch."""
import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from vmamba_jax import attacks
from vmamba_jax.attacks.losses import ascent_gradient, objective
from vmamba_jax.core import checks
from vmamba_jax.core.records import record
from vmamba_jax.training.objectives import losses
from vmamba_jax.training.objectives.inner_attack import InnerAttack
from vmamba_jax.training.objectives.standard import classification_loss
from vmamba_jax.training.objectives.step import Cost, Rule, descend, make_step


def pgd_at(classifier, optimizer, *, attack, label_smoothing=0.0, clean_accuracy=False, released=False, **options):
    """A step of min_params E max_{x' near x} loss(x', y).

    The step's metrics: loss, accuracy on the adversarial images, grad_norm, learning_rate; clean_accuracy on request; eps_scale with a
    schedule.

    Args:
        classifier: `(variables, images, train, rngs, mutable) -> logits` on [0, 1] images.
        optimizer: optax transformation.
        attack: `(logits_fn, images, labels, keys) -> adversarial`, or an `InnerAttack`. It sees the current weights, and no gradient flows
            back through it. The update itself always runs in training mode.
        label_smoothing: in [0, 1), in the update's loss, not the attack's.
        clean_accuracy: also measure accuracy on the clean images, in the attack's mode, at the cost of a forward pass.
        released: attack as the programs of arXiv 2406.05532 do, see `ReleasedPGD`; the attack must be `attacks.pgd` in linf.
        **options: attack_mode, eps_schedule, scheduled, attack_weights: see `InnerAttack`; augment, mix, ema_decay, ema_warmup, accumulate,
            reduce_dtype: see `step.Step`.

    Source: Madry et al. 2018, equation 2.1.
    """
    inner, options = InnerAttack.from_options(attack, options)
    checks.number("label_smoothing", label_smoothing, low=0, below=1)
    if released:
        if not isinstance(inner.attack, attacks.PGD):
            raise ValueError(f"attack={inner.attack!r} with released=True: expected attacks.pgd(...)")
        fields = {field.name: getattr(inner.attack, field.name) for field in dataclasses.fields(attacks.PGD)}
        inner = dataclasses.replace(inner, attack=ReleasedPGD(**fields))

    def prepare(state, batch, keys):
        adversarial, metrics, logits_fn = inner(classifier, state, batch, keys)
        if clean_accuracy:
            metrics["clean_accuracy"] = losses.accuracy(logits_fn(batch["image"]), batch["label"], batch.get("weight"))
        return {**batch, "image": adversarial}, metrics

    rule = Rule(prepare=prepare, reads_ema=inner.averaged, gradient=descend(classification_loss(classifier, label_smoothing)),
                attack_cost=lambda: inner.cost().plus(Cost(0, int(clean_accuracy))), classes=losses.number_of_classes(classifier))
    return make_step(optimizer, rule, **options)


@record("eps", "step_size")
class ReleasedPGD(attacks.PGD):
    """PGD in linf with the start of the programs released with arXiv 2406.05532, which add it twice.

    The random start d0 is added to the images (then clipped to the box) and is also the first perturbation d: gradients are taken at
    clip(clip(x + d0) + d), the result is clip(x + d). Gradients and result are thus at different points; for comparison with published
    numbers.

    Args: as of `attacks.pgd`; norm must be "linf", restarts 1, random_start True.
    """
    name = "released_pgd"

    def __post_init__(self):
        super().__post_init__()
        if self.norm != "linf" or self.restarts > 1 or not self.random_start:
            raise ValueError(f"norm={self.norm!r}, restarts={self.restarts}, random_start={self.random_start}: expected the released PGD's "
                             "norm='linf', restarts=1, random_start=True")

    def run(self, logits_fn, images, labels, keys):
        lower, upper = self.bounds
        eps, size = jnp.asarray(self.eps, images.dtype), jnp.asarray(self.step_size, images.dtype)
        if callable(self.start):
            first = self.start(images, keys) - images
        else:
            first = eps * jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:], images.dtype, -1, 1))(keys)
        base = jnp.clip(images + first, lower, upper)
        evaluate = objective(logits_fn, labels, self.loss, self.targeted)
        gradient = ascent_gradient(lambda x: evaluate(jnp.clip(x, lower, upper)))
        d = lax.fori_loop(0, self.steps, lambda _, d: jnp.clip(d + size * jnp.sign(gradient(base + d)), -eps, eps), first)
        return jnp.clip(images + d, lower, upper)
