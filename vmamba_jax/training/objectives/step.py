"""The training step: an objective's gradient, over microbatches and devices, and the update it makes."""
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vmamba_jax.core import checks
from vmamba_jax.training.objectives import whole_batch
from vmamba_jax.training.objectives.cost import Cost
from vmamba_jax.training.objectives.losses import step_keys
from vmamba_jax.training.optimization.optimizer import learning_rate


class Outcome(NamedTuple):
    """What a gradient leaves besides itself.

    model_state: the model's, after the pass. metrics: {name: scalar}, means over the images. carry: what the objective keeps between
    steps, after the pass. rows: per-image arrays that replace the batch's of that name.
    """
    model_state: Any
    metrics: dict
    carry: Any = None
    rows: dict = {}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Rule:
    """What makes one objective differ from another; `Step` does the rest.

    prepare: `(state, batch, keys) -> (batch, metrics)` on the current weights, such as an attack; None: nothing.
    gradient: `(params, state, batch, keys) -> (grads, Outcome)`, means over the images; may be asked at other weights than the state's.
    begin: `(state, image_shape, batch_size) -> carry` at the start of a run; None: nothing is kept between steps.
    remembered: names of metrics kept in the carry, {name: value}, after averaging over devices.
    attack_cost, update_cost: `Cost` of `prepare`, as a function without arguments, and of `gradient`.
    """
    gradient: Callable
    prepare: Callable | None = None
    begin: Callable | None = None
    remembered: tuple = ()
    attack_cost: Callable = Cost
    update_cost: Cost = Cost(1)


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """`step(state, batch, key, *, axis_name=None) -> (state, metrics)`: a pure per-device training step, see `objectives`.

    augment: `(images, keys) -> images`, before all else. mix: `(images, labels, keys) -> (images, targets)`, after it; targets (b, classes).
    ema_decay, ema_warmup: running average of the weights, see `update`.
    accumulate: into how many microbatches the device's images are split, one after another, for one update by the mean gradient; the
    same update as unsplit but for batch statistics and dropout masks, which belong to a microbatch. It must divide the images.
    perturb: `(params, grads, step) -> params`: where to take the gradient instead of at the weights (see `awp`); None: at the weights.
    """
    optimizer: optax.GradientTransformation
    rule: Rule
    augment: Callable | None = None
    mix: Callable | None = None
    ema_decay: float | None = None
    ema_warmup: bool = False
    accumulate: int = 1
    perturb: Callable | None = None

    def __post_init__(self):
        checks.number("ema_decay", self.ema_decay, low=0, below=1, optional=True)
        checks.count("accumulate", self.accumulate)
        checks.require(self.ema_decay is not None or not self.ema_warmup, f"ema_warmup={self.ema_warmup}: expected False without ema_decay")
        checks.require(self.mix is None or callable(self.mix), f"mix={self.mix!r}: expected None or a function (images, labels, keys) -> (images, targets)")
        checks.require(self.augment is None or callable(self.augment), f"augment={self.augment!r}: expected None or a function (images, keys) -> images")

    def __call__(self, state, batch, key, *, axis_name=None):
        self.check(state)
        batch, keys = self.enter(batch, key, axis_name)
        state, metrics, _ = self.advance(state, batch, keys, axis_name)
        return state, metrics

    def begin(self, state, image_shape, batch_size):
        """The state with what the objective keeps between steps; as it is where that is nothing.

        image_shape: (H, W, C). batch_size: images of a step, over all devices.
        """
        return state if self.rule.begin is None else state.replace(carry=self.rule.begin(state, tuple(image_shape), batch_size))

    def check(self, state):
        """ValueError unless the state was begun by a step that keeps something where this one does."""
        if (state.carry is None) != (self.rule.begin is None):
            raise ValueError("this objective keeps something between steps: begin with state = step.begin(state, image_shape, batch_size)"
                             if state.carry is None else "the state was begun by another objective, which keeps something between steps")

    @property
    def cost(self):
        """`Cost` of one step per image; ValueError for an attack whose cost is not a constant."""
        return self.rule.attack_cost().plus(self.rule.update_cost.times(1 if self.perturb is None else 2))

    def enter(self, batch, key, axis_name):
        """The batch, augmented, mixed and with its weights in proportion, and the keys of a step."""
        n = batch["image"].shape[0]
        if n % self.accumulate:
            raise ValueError(f"accumulate={self.accumulate} does not divide the device's {n} images")
        keys = step_keys(key, n, axis_name)
        if self.augment is not None:
            batch = {**batch, "image": self.augment(batch["image"], keys.augment)}
        if self.mix is not None:
            images, labels = self.mix(batch["image"], batch["label"], keys.augment)
            batch = {**batch, "image": images, "label": labels}
        return whole_batch.weighted(batch, axis_name), keys

    def advance(self, state, batch, keys, axis_name):
        """One update from a batch that `enter` gave: (state, metrics, the batch's new rows)."""
        weight = batch.get("weight")
        if weight is not None and self.accumulate > 1 and state.model_state:
            raise ValueError(f"accumulate={self.accumulate} with a batch that has \"weight\": expected 1 for a model with batch statistics")
        with whole_batch.batch_norm(axis_name, weight):
            return self._advance(state, batch, keys, axis_name)

    def _advance(self, state, batch, keys, axis_name):
        batch, prepared = self._prepare(state, batch, keys)
        params = state.params
        if self.perturb is not None:
            grads, _ = self._gradient(params, state, batch, keys)
            params = self.perturb(params, grads if axis_name is None else jax.lax.pmean(grads, axis_name), state.step)
        grads, outcome = self._gradient(params, state, batch, keys)
        model_state, metrics, carry = outcome.model_state, {**outcome.metrics, **prepared}, outcome.carry
        if axis_name is not None:
            grads, model_state, metrics, carry = jax.lax.pmean((grads, model_state, metrics, carry), axis_name)
        if self.rule.remembered:
            carry = {name: metrics[name] for name in self.rule.remembered}
        state, metrics = update(state.replace(carry=carry), self.optimizer, grads, model_state, metrics, self.ema_decay, self.ema_warmup)
        return state, metrics, outcome.rows

    def _prepare(self, state, batch, keys):
        if self.rule.prepare is None:
            return batch, {}
        if self.accumulate == 1:
            return self.rule.prepare(state, batch, keys)
        batch, metrics = jax.lax.map(lambda part: self.rule.prepare(state, *part), self._parts(batch, keys))
        return _joined(batch), jax.tree.map(lambda x: x.mean(0), metrics)

    def _gradient(self, params, state, batch, keys):
        if self.accumulate == 1:
            return self.rule.gradient(params, state, batch, keys)

        def one(total, part):
            grads, model_state, carry = total
            new, outcome = self.rule.gradient(params, state.replace(model_state=model_state, carry=carry), *part)
            return (jax.tree.map(jnp.add, grads, new), outcome.model_state, outcome.carry), (outcome.metrics, outcome.rows)

        start = (jax.tree.map(jnp.zeros_like, params), state.model_state, state.carry)
        (grads, model_state, carry), (metrics, rows) = jax.lax.scan(one, start, self._parts(batch, keys))
        grads, metrics = jax.tree.map(lambda x: x / self.accumulate, grads), jax.tree.map(lambda x: x.mean(0), metrics)
        return grads, Outcome(model_state, metrics, carry, _joined(rows))

    def _parts(self, batch, keys):
        """(batch, keys) of every microbatch, stacked; the per-image keys go with their images."""
        def split(x):
            return x.reshape(self.accumulate, -1, *x.shape[1:])
        folded = jax.vmap(lambda i: keys.fold_in(i))(jnp.arange(self.accumulate))
        return jax.tree.map(split, batch), folded._replace(augment=split(keys.augment), attack=split(keys.attack))


def make_step(optimizer, rule, kind=Step, **options):
    """The `Step` of a rule, or another `kind` of it; `options` are its fields augment, mix, ema_decay, ema_warmup, accumulate."""
    if unknown := sorted(options.keys() - {"augment", "mix", "ema_decay", "ema_warmup", "accumulate"}):
        raise TypeError(f"unknown option {', '.join(unknown)} of an objective; all take augment, mix, ema_decay, ema_warmup, "
                        "accumulate besides their own")
    return kind(optimizer, rule, **options)


def descend(loss):
    """The `Rule.gradient` of a loss `(params, state, batch, keys) -> (loss, Outcome)`; its value is the metric "loss"."""
    def gradient(params, state, batch, keys):
        (value, outcome), grads = jax.value_and_grad(loss, has_aux=True)(params, state, batch, keys)
        return grads, outcome._replace(metrics={"loss": value, **outcome.metrics})

    return gradient


def update(state, optimizer, grads, model_state, metrics, ema_decay=None, ema_warmup=False):
    """One update of a state from the gradients, model state and metrics that all devices agree on.

    ema_decay: the average becomes d * ema + (1 - d) * params, with d = ema_decay, or with ema_warmup, after t earlier updates,
    d = min(ema_decay, (1 + t) / (10 + t)). The metrics gain `grad_norm`, before clipping, and `learning_rate` if the optimizer keeps it.
    """
    if (ema_decay is None) != (state.ema is None):
        raise ValueError(f"ema_decay is {ema_decay!r}, but the state was created {'without' if state.ema is None else 'with'} an average: "
                         "give create_state and the objective the same ema_decay")
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {**metrics, "grad_norm": optax.tree.norm(grads)}
    rate = learning_rate(opt_state)
    if rate is not None:
        metrics["learning_rate"] = rate
    ema = state.ema
    if ema is not None:
        d = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step)) if ema_warmup else ema_decay
        ema = jax.tree.map(lambda e, p: d * e + (1 - d) * p, ema, params)
    return state.replace(step=state.step + 1, params=params, model_state=model_state, opt_state=opt_state, ema=ema), metrics


def _joined(tree):
    """Stacked microbatches (k, b, ...) as one batch (k * b, ...)."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)
