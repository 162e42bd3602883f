"""Free adversarial training (Shafahi et al. 2019): each gradient updates both the weights and the perturbation."""
import dataclasses
import functools

import jax
import jax.numpy as jnp

from vmamba_jax.core import checks
from vmamba_jax.training.objectives import losses
from vmamba_jax.training.objectives.step import Cost, Outcome, Rule, Step, make_step

RELEASED = 4 / 255  # radius and step size of the released programs of arXiv 2406.05532, for every data set


def free(classifier, optimizer, *, eps=None, step_size=None, replays=4, label_smoothing=0.0, released=False, **options):
    """A step that replays its batch `replays` times; each replay updates weights and perturbation by one gradient.

    Perturbed images are clipped to [0, 1]. The perturbation persists from replay to replay and, as released, from batch to batch, where it
    meets other images: the state keeps it, (batch_size, H, W, C), the same on every device. Begin with `step.begin`; a smaller batch uses
    the first rows.
    A step makes `replays` updates: train for 1 / replays of the epochs, and count the learning-rate schedule in updates, replays * steps.
    `state.step` and the other schedules count steps. The batch is augmented once per step.
    The step's metrics, means over the replays: loss, accuracy on the perturbed images, grad_norm, learning_rate.

    Args:
        classifier, optimizer: as of `pgd_at`.
        eps: linf radius >= 0, in pixel units.
        step_size: of the perturbation, in pixel units; None: eps, as in the paper.
        replays: >= 1.
        label_smoothing: in [0, 1).
        released: radius and step size 4/255 on every data set, as in the programs of arXiv 2406.05532 (eps and step_size must be None).
            Those programs also train for as many epochs as the other methods, which is set by the caller.
        **options: augment, mix, ema_decay, ema_warmup, accumulate, see `step.Step`.

    Source: Shafahi et al. 2019, algorithm 1.
    """
    checks.number("label_smoothing", label_smoothing, low=0, below=1)
    checks.count("replays", replays, 1)
    if released and (eps is not None or step_size is not None):
        raise ValueError(f"eps={eps!r}, step_size={step_size!r} with released=True: expected None for both, as it sets them to 4/255")
    if not released:
        checks.number("eps", eps, low=0)
        checks.number("step_size", step_size, low=0, optional=True)
    eps = RELEASED if released else eps
    size = eps if step_size is None else step_size

    def loss(params, noise, state, batch, keys):
        images = jnp.clip(batch["image"] + noise, 0, 1)
        logits, model_state = losses.train_logits(classifier, params, state.model_state, images, keys.dropout)
        labels, weight = batch["label"], batch.get("weight")
        return losses.cross_entropy(logits, labels, label_smoothing, weight), (model_state, losses.accuracy(logits, labels, weight))

    def gradient(params, state, batch, keys):
        noise = batch["noise"]
        derivative = jax.value_and_grad(loss, (0, 1), has_aux=True)
        (value, (model_state, accuracy)), (grads, ascent) = derivative(params, noise, state, batch, keys)
        noise = jnp.clip(noise + size * jnp.sign(ascent), -eps, eps)
        return grads, Outcome(model_state, {"loss": value, "accuracy": accuracy}, rows={"noise": noise})

    def begin(state, image_shape, batch_size):
        return jnp.zeros((batch_size, *image_shape), jax.tree.leaves(state.params)[0].dtype)

    rule = Rule(gradient=gradient, begin=begin, update_cost=Cost(replays), classes=losses.number_of_classes(classifier))
    return make_step(optimizer, rule, functools.partial(FreeStep, replays=replays), **options)


@dataclasses.dataclass(frozen=True, eq=False)
class FreeStep(Step):
    """A `Step` that makes `replays` updates from one batch; the batch's rows include the perturbation of its images."""
    replays: int = 1

    def __call__(self, state, batch, key, *, axis_name=None, shards=None):
        self.check(state)
        batch, keys = self.enter(batch, key, axis_name)
        noise, n = state.carry, batch["image"].shape[0]
        total = n if axis_name is None else n * jax.lax.psum(1, axis_name)
        if noise.shape[0] < total or noise.shape[1:] != batch["image"].shape[1:]:
            raise ValueError(f"images {(total, *batch['image'].shape[1:])} do not fit the perturbation {noise.shape} of the state: expected at "
                             "most the image_shape and batch_size given to step.begin")
        first = 0 if axis_name is None else n * jax.lax.axis_index(axis_name)

        def replay(now, i):
            before, rows = now
            after, metrics, new = self.advance(before, {**batch, "noise": rows}, keys.fold_in(i), axis_name, shards)
            return (after.replace(step=before.step), new["noise"]), metrics

        start = (state.replace(carry=None), jax.lax.dynamic_slice_in_dim(noise, first, n))
        (after, rows), metrics = jax.lax.scan(replay, start, jnp.arange(self.replays))
        rows = rows if axis_name is None else jax.lax.all_gather(rows, axis_name, tiled=True)
        after = after.replace(step=state.step + 1, carry=jax.lax.dynamic_update_slice_in_dim(noise, rows, 0, 0))
        return after, jax.tree.map(lambda x: x.mean(0), metrics)
