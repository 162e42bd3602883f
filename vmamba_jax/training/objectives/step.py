"""The training step: an objective's gradient, over microbatches and devices, then the update, and what both cost."""
import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vmamba_jax.core import checks
from vmamba_jax.training.objectives import whole_batch
from vmamba_jax.training.objectives.losses import check_labels, step_keys
from vmamba_jax.training.optimization.optimizer import learning_rate
from vmamba_jax.training.sharding import Whole

OPTIONS = ("augment", "mix", "ema_decay", "ema_warmup", "accumulate", "reduce_dtype")


class Cost(NamedTuple):
    """Passes through the model per training image and step.

    Attributes:
        forward_backward: forward passes with a gradient.
        forward: forward passes without one.
        first_layer: passes through the first layer alone, with a gradient.
    """
    forward_backward: float = 0
    forward: float = 0
    first_layer: float = 0

    def plus(self, other):
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, n):
        return Cost(*(n * a for a in self))


class Outcome(NamedTuple):
    """Results of an objective's gradient besides the gradient.

    Attributes:
        model_state: the model's, after the pass.
        metrics: {name: scalar}, means over the images.
        carry: the objective's state between steps, after the pass.
        rows: {name: per-image array} that replace the batch's.
    """
    model_state: Any
    metrics: dict
    carry: Any = None
    rows: dict = {}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Rule:
    """The part of a `Step` that differs between objectives.

    Attributes:
        gradient: `(params, state, batch, keys) -> (grads, Outcome)`, means over the images; params may differ from the state's.
        prepare: `(state, batch, keys) -> (batch, metrics)` at the current weights, such as an attack; None: nothing.
        begin: `(state, image_shape, batch_size) -> carry` at the start of a run; None: the state keeps nothing between steps.
        reads_ema: whether `prepare` reads the running average of the weights.
        remembered: names of metrics that the carry keeps, {name: value}, after averaging over devices.
        attack_cost: function without arguments that returns the `Cost` of `prepare`.
        update_cost: `Cost` of `gradient`.
        classes: number of classes of the model; None: unknown.
    """
    gradient: Callable
    prepare: Callable | None = None
    begin: Callable | None = None
    reads_ema: bool = False
    remembered: tuple = ()
    attack_cost: Callable = Cost
    update_cost: Cost = Cost(1)
    classes: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """`step(state, batch, key, *, axis_name=None) -> (state, metrics)`: a pure per-device training step, see `objectives`.

    Attributes:
        optimizer: optax transformation.
        rule: the objective.
        augment: `(images, keys) -> images`, applied first; None: nothing.
        mix: `(images, labels, keys) -> (images, targets)`, applied next, with targets (b, classes); None: nothing.
        ema_decay, ema_warmup: running average of the weights, see `update`.
        accumulate: number of microbatches of the device's images, processed in sequence, for one update by the mean gradient. The update is
            that of the whole batch but for batch statistics and dropout masks, which are per microbatch. It must divide the number of
            images.
        reduce_dtype: floating dtype in which the devices' gradients are added, such as "bfloat16"; None: that of the gradients.
        perturb: `(params, grads, step) -> params` at which the gradient is taken (see `awp`); None: at the weights.
    """
    optimizer: optax.GradientTransformation
    rule: Rule
    augment: Callable | None = None
    mix: Callable | None = None
    ema_decay: float | None = None
    ema_warmup: bool = False
    accumulate: int = 1
    reduce_dtype: Any = None
    perturb: Callable | None = None

    def __post_init__(self):
        object.__setattr__(self, "reduce_dtype", checks.floating("reduce_dtype", self.reduce_dtype))
        checks.number("ema_decay", self.ema_decay, low=0, below=1, optional=True)
        checks.count("accumulate", self.accumulate, 1)
        if self.ema_decay is None and self.ema_warmup:
            raise ValueError("ema_warmup=True with ema_decay=None: expected an ema_decay")
        for name, signature in (("augment", "(images, keys) -> images"), ("mix", "(images, labels, keys) -> (images, targets)")):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise TypeError(f"{name}={value!r}: expected None or a function {signature}")

    def __call__(self, state, batch, key, *, axis_name=None, shards=None):
        """A step; `shards`: where the state's arrays lie, see `training.sharding`, None: whole on every device."""
        self.check(state)
        batch, keys = self.enter(batch, key, axis_name)
        state, metrics, _ = self.advance(state, batch, keys, axis_name, shards)
        return state, metrics

    @property
    def classes(self):
        """Number of classes that labels may have; None: unknown."""
        return self.rule.classes

    def check_batch(self, batch):
        """Raise a ValueError or TypeError unless a batch's labels are classes of the model, or distributions over them.

        Args:
            batch: {"image", "label"} on the host, with "index" if the positions in the set are known.
        """
        self.check_labels(batch["label"], len(batch["image"]), batch.get("index"))

    def check_labels(self, labels, n, positions=None):
        """Raise unless `labels` are those of n images; positions: (n,) in their set, for the message."""
        check_labels(labels, n, self.classes, positions)

    def begin(self, state, image_shape, batch_size):
        """The state with the objective's initial carry; unchanged if the objective keeps nothing between steps.

        Args:
            state: `TrainState` before the first step.
            image_shape: (H, W, C).
            batch_size: number of images of a step, over all devices.
        """
        return state if self.rule.begin is None else state.replace(carry=self.rule.begin(state, tuple(image_shape), batch_size))

    def check(self, state):
        """ValueError unless the state has a carry exactly if this objective keeps one."""
        if (state.carry is None) != (self.rule.begin is None):
            raise ValueError("state.carry=None: expected this objective's, from state = step.begin(state, image_shape, batch_size)"
                             if state.carry is None else "state.carry of another objective: expected None, as this one keeps nothing")

    @property
    def cost(self):
        """`Cost` of one step per image; ValueError for an attack whose number of passes depends on what it finds."""
        return self.rule.attack_cost().plus(self.rule.update_cost.times(1 if self.perturb is None else 2))

    def enter(self, batch, key, axis_name):
        """(the batch, augmented, mixed and with normalized weights; the keys of a step)."""
        n = batch["image"].shape[0]
        if not n:
            raise ValueError(f"batch[\"image\"].shape={batch['image'].shape}: expected at least one image")
        self.check_labels(batch["label"], n)
        if n % self.accumulate:
            raise ValueError(f"accumulate={self.accumulate}: expected a divisor of the device's {n} images")
        keys = step_keys(key, n, axis_name)
        if self.augment is not None:
            batch = {**batch, "image": self.augment(batch["image"], keys.augment)}
        if self.mix is not None:
            images, labels = self.mix(batch["image"], batch["label"], keys.augment)
            batch = {**batch, "image": images, "label": labels}
        return whole_batch.weighted(batch, axis_name), keys

    def advance(self, state, batch, keys, axis_name, shards=None):
        """One update from a batch of `enter`: (state, metrics, the batch's new rows)."""
        weight = batch.get("weight")
        if weight is not None and self.accumulate > 1 and state.model_state:
            raise ValueError(f"accumulate={self.accumulate} with \"weight\" in the batch: expected 1, as the model has batch statistics")
        with whole_batch.batch_norm(axis_name, weight):
            return self._advance(state, batch, keys, axis_name, shards or Whole(axis_name))

    def _advance(self, state, batch, keys, axis_name, shards):
        own = state  # with the weights that this device updates
        state = own.replace(params=shards.gather(own.params), ema=shards.gather(own.ema) if self.rule.reads_ema else own.ema)
        batch, prepared = self._prepare(state, batch, keys)
        params = state.params
        if self.perturb is not None:
            grads, _ = self._gradient(params, state, batch, keys)
            params = self.perturb(params, grads if axis_name is None else jax.lax.pmean(grads, axis_name), state.step)
        grads, outcome = self._gradient(params, state, batch, keys)
        model_state, metrics, carry = outcome.model_state, {**outcome.metrics, **prepared}, outcome.carry
        grads, (model_state, metrics, carry) = shards.mean(grads, (model_state, metrics, carry), self.reduce_dtype)
        if self.rule.remembered:
            carry = {name: metrics[name] for name in self.rule.remembered}
        state, metrics = update(own.replace(carry=carry), self.optimizer, grads, model_state, metrics, self.ema_decay, self.ema_warmup, shards.norm)
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
        """(batch, keys) of every microbatch, stacked; the per-image keys are split like their images."""
        def split(x):
            return x.reshape(self.accumulate, -1, *x.shape[1:])
        folded = jax.vmap(lambda i: keys.fold_in(i))(jnp.arange(self.accumulate))
        return jax.tree.map(split, batch), folded._replace(augment=split(keys.augment), attack=split(keys.attack))


def make_step(optimizer, rule, kind=Step, **options):
    """The `Step` of a rule, or a `kind` of it; `options` are its fields `OPTIONS`, TypeError for any other."""
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise TypeError(f"{unknown[0]}={options[unknown[0]]!r}: expected an option of the objective, or one of {', '.join(OPTIONS)}")
    return kind(optimizer, rule, **options)


def descend(loss):
    """The `Rule.gradient` of a loss `(params, state, batch, keys) -> (loss, Outcome)`; its value becomes the metric "loss"."""
    def gradient(params, state, batch, keys):
        (value, outcome), grads = jax.value_and_grad(loss, has_aux=True)(params, state, batch, keys)
        return grads, outcome._replace(metrics={"loss": value, **outcome.metrics})

    return gradient


def update(state, optimizer, grads, model_state, metrics, ema_decay=None, ema_warmup=False, global_norm=optax.tree.norm):
    """One update of a state from gradients, model state and metrics already averaged over the devices.

    Args:
        state: `TrainState`.
        optimizer: optax transformation.
        grads: gradients, in the structure of the weights.
        model_state: the model's, after the pass.
        metrics: {name: scalar}.
        ema_decay: None: no running average. Else it becomes d * ema + (1 - d) * params, with d = ema_decay.
        ema_warmup: d = min(ema_decay, (1 + t) / (10 + t)) after t earlier updates.
        global_norm: function tree of gradients -> scalar, also an argument of optimizers that take it; see `training.sharding`.

    Returns:
        (state, metrics); the metrics gain "grad_norm", before clipping, and "learning_rate" if the optimizer's state has it.
    """
    if (ema_decay is None) != (state.ema is None):
        raise ValueError(f"ema_decay={ema_decay!r} with a state {'without' if state.ema is None else 'with'} an average: expected the same "
                         "ema_decay in create_state and the objective")
    updates, opt_state = optax.with_extra_args_support(optimizer).update(grads, state.opt_state, state.params, global_norm=global_norm)
    params = optax.apply_updates(state.params, updates)
    metrics = {**metrics, "grad_norm": global_norm(grads)}
    rate = learning_rate(opt_state)
    if rate is not None:
        metrics["learning_rate"] = rate
    ema = state.ema
    if ema is not None:
        d = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step)) if ema_warmup else ema_decay
        ema = jax.tree.map(lambda e, p: jnp.where(e == p, p, d * e + (1 - d) * p), ema, params)  # the sum rounds, also where both are equal
    return state.replace(step=state.step + 1, params=params, model_state=model_state, opt_state=opt_state, ema=ema), metrics


def _joined(tree):
    """Stacked microbatches (k, b, ...) as one batch (k * b, ...)."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)
