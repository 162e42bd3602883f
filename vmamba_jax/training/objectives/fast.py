"""Fast adversarial training: one step from a random start, and a watch for the moment it stops working."""
import jax
import jax.numpy as jnp

from vmamba_jax import attacks
from vmamba_jax.core import checks
from vmamba_jax.training.objectives import losses
from vmamba_jax.training.objectives.cost import Cost, attack_cost
from vmamba_jax.training.objectives.inner_attack import RADII, check, make_attack, scale_radius
from vmamba_jax.training.objectives.standard import classification_loss
from vmamba_jax.training.objectives.step import Rule, descend, make_step

WATCHED = ("fgsm_accuracy", "pgd_accuracy", "overfitting")


def fast(classifier, optimizer, *, eps, step_size=None, attack_mode="train", eps_schedule=None, scheduled=RADII, label_smoothing=0.0,
         watch_every=None, watch_steps=10, watch_stride=4, **options):
    """A step of adversarial training by FGSM from a uniform start (Wong et al. 2020, algorithm 3).

    eps: linf radius. step_size: None: 1.25 eps, the paper's. attack_mode: "train", as released: the batch's own statistics (not recorded).
    classifier, optimizer, eps_schedule, scheduled, label_smoothing, options: as of `pgd_at`.
    watch_every: None, or measure every so many steps whether training has overfitted to its own attack (catastrophic overfitting, the
    paper's section 5.4): "fgsm_accuracy" under the attack trained with, "pgd_accuracy" under PGD of `watch_steps` steps of eps / 4, both of
    the model in eval mode on every `watch_stride`-th image, and their difference, "overfitting", which leaps towards 1 when it happens.
    Between measurements the metrics repeat the last one, which the state keeps: begin with `step.begin`. A cost that is seldom paid.
    The step's metrics: loss, accuracy under the attack, grad_norm, learning_rate; eps_scale if scheduled; those three if watched.
    """
    checks.number("eps", eps, low=0)
    checks.number("step_size", step_size, low=0, optional=True)
    checks.count("watch_steps", watch_steps)
    checks.count("watch_every", watch_every, optional=True)
    checks.count("watch_stride", watch_stride)
    checks.number("label_smoothing", label_smoothing, low=0, below=1)
    attack = attacks.pgd(eps, steps=1, step_size=1.25 * eps if step_size is None else step_size)
    check(attack, attack_mode, eps_schedule, scheduled)
    strong = attacks.pgd(eps, steps=watch_steps, step_size=eps / 4)
    run = make_attack(classifier, attack, attack_mode, eps_schedule, scheduled)

    def prepare(state, batch, keys):
        adversarial, metrics, _ = run(state, batch, keys)
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
    rule = Rule(prepare=prepare, gradient=descend(classification_loss(classifier, label_smoothing)), begin=begin if watch_every else None,
                remembered=WATCHED if watch_every else (), attack_cost=lambda: attack_cost(attack).plus(watched))
    return make_step(optimizer, rule, **options)
