"""Fast adversarial training (Wong et al. 2020): one attack step from a random start, with a monitor of catastrophic overfitting."""
import jax
import jax.numpy as jnp

from vmamba_jax import attacks
from vmamba_jax.core import checks
from vmamba_jax.training.objectives import losses
from vmamba_jax.training.objectives.inner_attack import InnerAttack, scale_radius
from vmamba_jax.training.objectives.standard import classification_loss
from vmamba_jax.training.objectives.step import Cost, Rule, descend, make_step

WATCHED = ("fgsm_accuracy", "pgd_accuracy", "overfitting")


def fast(classifier, optimizer, *, eps, step_size=None, label_smoothing=0.0, watch_every=None, watch_steps=10, watch_stride=4, **options):
    """A step of adversarial training by FGSM from a uniform start.

    The step's metrics: loss, accuracy under the attack, grad_norm, learning_rate; eps_scale with a schedule; with `watch_every` also
    "fgsm_accuracy" under the training attack, "pgd_accuracy" under PGD of `watch_steps` steps of eps / 4, both of the model in eval mode on
    every `watch_stride`-th image, and their difference "overfitting", which rises towards 1 at catastrophic overfitting (the paper's
    section 5.4). Between measurements the metrics repeat the last one, which the state keeps: begin with `step.begin`.

    Args:
        classifier, optimizer: as of `pgd_at`.
        eps: linf radius >= 0, in pixel units.
        step_size: in pixel units; None: 1.25 eps, as in the paper.
        label_smoothing: in [0, 1).
        watch_every: number of steps between measurements of overfitting; None: no measurement.
        watch_steps: PGD steps of a measurement.
        watch_stride: a measurement takes every so many-th image of the batch.
        **options: as of `pgd_at`, but attack_mode is "train" by default, as released: the batch's own statistics, not recorded.

    Source: Wong et al. 2020, algorithm 3.
    """
    checks.number("eps", eps, low=0)
    checks.number("step_size", step_size, low=0, optional=True)
    checks.number("label_smoothing", label_smoothing, low=0, below=1)
    checks.count("watch_every", watch_every, 1, optional=True)
    checks.count("watch_steps", watch_steps, 1)
    checks.count("watch_stride", watch_stride, 1)
    attack = attacks.pgd(eps, steps=1, step_size=1.25 * eps if step_size is None else step_size)
    inner, options = InnerAttack.from_options(attack, options, attack_mode="train")
    strong = attacks.pgd(eps, steps=watch_steps, step_size=eps / 4)

    def prepare(state, batch, keys):
        adversarial, metrics, _ = inner(classifier, state, batch, keys)
        if watch_every is not None:
            metrics |= watch(state, batch, adversarial, keys, metrics.get("eps_scale"))
        return {**batch, "image": adversarial}, metrics

    def watch(state, batch, adversarial, keys, scale):
        def measure():
            logits_fn = losses.frozen_logits(classifier, state.params, state.model_state, "eval", None)
            labels = losses.classes(batch["label"])[::watch_stride]
            weight = batch["weight"][::watch_stride] if "weight" in batch else None
            now = strong if scale is None else scale_radius(strong, scale)
            attacked = now(logits_fn, batch["image"][::watch_stride], labels, keys.attack[::watch_stride])
            weak, robust = (losses.accuracy(logits_fn(x), labels, weight) for x in (adversarial[::watch_stride], attacked))
            return dict(zip(WATCHED, (weak, robust, weak - robust), strict=True))

        return jax.lax.cond(state.step % watch_every == 0, measure, lambda: state.carry)

    def begin(state, image_shape, batch_size):
        return {name: jnp.zeros(()) for name in WATCHED}

    watched = Cost() if watch_every is None else Cost(watch_steps, 2).times(1 / (watch_every * watch_stride))
    rule = Rule(prepare=prepare, reads_ema=inner.averaged, gradient=descend(classification_loss(classifier, label_smoothing)), begin=begin if watch_every else None,
                remembered=WATCHED if watch_every else (), attack_cost=lambda: inner.cost().plus(watched),
                classes=losses.number_of_classes(classifier))
    return make_step(optimizer, rule, **options)
