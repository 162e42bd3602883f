"""The attack inside a training step, and the clean-plus-adversarial pass that TRADES and MART build on it."""
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vmamba_jax import attacks
from vmamba_jax.core import checks
from vmamba_jax.training.objectives import losses
from vmamba_jax.training.objectives.step import Cost, Outcome, Rule, descend

RADII = ("eps", "step_size")  # the fields of an attack that are lengths in pixel units
ATTACK = attacks.pgd(0.031, steps=10, step_size=0.007, start="gaussian")  # as released with TRADES and MART
STATISTICS = ("shared", "separate")
WEIGHTS = ("current", "ema")
CONSTANT = "expected one with a constant number of passes, such as pgd or apgd(keep='highest_loss')"


@dataclasses.dataclass(frozen=True)
class InnerAttack:
    """The inner maximization of adversarial training: an attack, the model's mode inside it, and the schedule of its radius.

    Objectives take one as `attack`, or make it from their keywords attack, attack_mode, eps_schedule, scheduled and attack_weights.

    Attributes:
        attack: `(logits_fn, images, labels, keys) -> adversarial images`.
        attack_mode: the model's mode inside the attack: "eval" (running statistics, no dropout) or "train" (the batch's own statistics, not
            recorded, and one dropout mask for the whole attack).
        eps_schedule: None, or a function of the number of steps done; it multiplies the attack's fields `scheduled`.
        scheduled: fields of the attack that the schedule scales, some of "eps" and "step_size".
        attack_weights: "current", or "ema": the attack sees the running average of the weights, which the state must have.
    """
    attack: Callable
    attack_mode: str = "eval"
    eps_schedule: Callable | None = None
    scheduled: tuple[str, ...] = RADII
    attack_weights: str = "current"

    def __post_init__(self):
        if not callable(self.attack):
            raise TypeError(f"attack={self.attack!r}: expected a callable (logits_fn, images, labels, keys) -> images")
        checks.choice("attack_mode", self.attack_mode, ("eval", "train"))
        checks.choice("attack_weights", self.attack_weights, WEIGHTS)
        if self.eps_schedule is not None and not callable(self.eps_schedule):
            raise TypeError(f"eps_schedule={self.eps_schedule!r}: expected None or a function of the number of steps done")
        if self.eps_schedule is not None and not _has_field(self.attack, "eps"):
            raise ValueError(f"attack={self.attack!r} with eps_schedule: expected an attack that is a dataclass with a field eps")
        if not set(self.scheduled) <= set(RADII):
            raise ValueError(f"scheduled={self.scheduled!r}: expected some of {RADII}")

    @classmethod
    def from_options(cls, attack, options, **defaults):
        """Splits an objective's keywords.

        Args:
            attack: an `InnerAttack`, or an attack.
            options: {keyword: value}; attack_mode, eps_schedule, scheduled and attack_weights belong to the inner attack.
            **defaults: of these, where they differ from the class's.

        Returns:
            (the inner attack, the options that remain).

        Raises:
            TypeError: `attack` is an `InnerAttack` and `options` also has one of them.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        own = {name: value for name, value in options.items() if name in names}
        rest = {name: value for name, value in options.items() if name not in names}
        if not isinstance(attack, cls):
            return cls(attack, **{**defaults, **own}), rest
        if own:
            raise TypeError(f"attack=InnerAttack(...) with {', '.join(sorted(own))}: expected these as fields of the InnerAttack")
        return attack, rest

    def __call__(self, classifier, state, batch, keys, aim=None):
        """Attacks a batch at the current weights.

        Args:
            classifier: `(variables, images, train, rngs, mutable) -> logits` on [0, 1] images.
            state: `TrainState`; the attack sees its weights and leaves it unchanged.
            batch: {"image", "label"}; where labels are distributions the attack gets the likeliest class.
            keys: `losses.Keys` of the step.
            aim: None, or `(attack, logits_fn, images) -> attack`, which sets a loss that depends on the batch.

        Returns:
            (adversarial images, metrics, logits_fn). metrics has "eps_scale" if there is a schedule; logits_fn is the model in
            `attack_mode`.
        """
        logits_fn = losses.frozen_logits(classifier, state.variables(self.averaged)["params"], state.model_state, self.attack_mode, keys.attack_dropout)
        attack, metrics = self.scaled(state)
        if aim is not None:
            attack = aim(attack, logits_fn, batch["image"])
        return attack(logits_fn, batch["image"], losses.classes(batch["label"]), keys.attack), metrics, logits_fn

    averaged = property(lambda self: self.attack_weights == "ema", doc="Whether the attack sees the average of the weights.")

    def scaled(self, state):
        """(the attack at the radius of the state's step, metrics: "eps_scale" if there is a schedule)."""
        if self.eps_schedule is None:
            return self.attack, {}
        scale = jnp.asarray(self.eps_schedule(state.step), jnp.float32)
        return scale_radius(self.attack, scale, self.scheduled), {"eps_scale": scale}

    def cost(self):
        """`Cost` of the attack per image, from its `passes`; ValueError if their number depends on the images."""
        passes = getattr(self.attack, "passes", None)
        if passes is None:
            raise ValueError(f"attack={self.attack!r}: {CONSTANT}")
        return Cost(*passes)


def scale_radius(attack, factor, fields=RADII):
    """The attack with its radius and step size, or those of them in `fields`, multiplied by `factor`, which may be traced."""
    radii = {name: getattr(attack, name, None) for name in fields}
    return dataclasses.replace(attack, **{name: factor * value for name, value in radii.items() if value is not None})


def require_loss(attack):
    """ValueError unless the attack of an `InnerAttack` is a dataclass whose field `loss` an objective can set."""
    if not _has_field(attack.attack, "loss"):
        raise ValueError(f"attack={attack.attack!r}: expected a dataclass with a field loss, which this objective sets")


def two_pass_rule(classifier, loss, attack, statistics, aim=None, aim_cost=None):
    """The `Rule` of a loss on clean and adversarial logits, each from its own pass in training mode.

    Args:
        classifier: as of `pgd_at`.
        loss: `(clean logits, adversarial logits, labels, weight) -> (loss, metrics)`.
        attack: `InnerAttack`.
        statistics: of batch norm. "shared": both passes update one set, the clean pass first, as in the released programs. "separate": the
            adversarial pass updates the model's own set, which the attack and every evaluation use; the clean pass updates a second set
            (`clean_variables`), initially a copy, that the state keeps: begin with `step.begin`.
        aim: see `InnerAttack.__call__`.
        aim_cost: `Cost` that `aim` adds to the attack's; None: nothing.
    """
    checks.choice("statistics", statistics, STATISTICS)
    separate = statistics == "separate"

    def prepare(state, batch, keys):
        adversarial, metrics, _ = attack(classifier, state, batch, keys, aim)
        return {**batch, "adversarial": adversarial}, metrics

    def both(params, state, batch, keys):
        before = state.carry if separate else state.model_state
        clean, after_clean = losses.train_logits(classifier, params, before, batch["image"], keys.dropout)
        before = state.model_state if separate else after_clean
        adversarial, model_state = losses.train_logits(classifier, params, before, batch["adversarial"], keys.fold_in(1).dropout)
        labels, weight = batch["label"], batch.get("weight")
        value, metrics = loss(losses.at_least_float32(clean), losses.at_least_float32(adversarial), labels, weight)
        metrics["accuracy"] = losses.accuracy(adversarial, labels, weight)
        metrics["clean_accuracy"] = losses.accuracy(clean, labels, weight)
        return value, Outcome(model_state, metrics, after_clean if separate else None)

    def begin(state, image_shape, batch_size):
        return jax.tree.map(jnp.copy, state.model_state)

    return Rule(prepare=prepare, gradient=descend(both), begin=begin if separate else None, reads_ema=attack.averaged,
                attack_cost=lambda: attack.cost().plus(aim_cost or Cost()), update_cost=Cost(2),
                classes=losses.number_of_classes(classifier))


def clean_variables(state, ema=False):
    """Model variables with the clean pass's batch statistics.

    Args:
        state: `TrainState` trained with statistics="separate"; ValueError for any other.
        ema: with the averaged weights instead of the current ones.
    """
    if state.carry is None:
        raise ValueError("state.carry=None: expected clean statistics, from training with statistics='separate' begun with step.begin")
    return {"params": state.variables(ema)["params"], **state.carry}


def _has_field(attack, name):
    return dataclasses.is_dataclass(attack) and hasattr(attack, name)
