"""What TRADES and MART share: an attack, then a clean and an adversarial pass in one loss, each with its batch statistics."""
import jax
import jax.numpy as jnp

from vmamba_jax import attacks
from vmamba_jax.training.objectives import losses
from vmamba_jax.training.objectives.cost import Cost, attack_cost
from vmamba_jax.training.objectives.inner_attack import make_attack
from vmamba_jax.training.objectives.step import Outcome, Rule, descend

ATTACK = attacks.pgd(0.031, steps=10, step_size=0.007, start="gaussian")  # as released with both papers
STATISTICS = ("shared", "separate")


def make_rule(classifier, loss, attack, attack_mode, eps_schedule, scheduled, statistics, aim=None, aim_cost=None):
    """The `Rule` of a loss on clean and adversarial logits.

    loss: `(clean logits, adversarial logits, labels, weight) -> (loss, metrics)`.
    statistics: "shared": both passes record into one set of batch statistics, the clean one first, as the released programs do.
    "separate": the adversarial pass records into the model's own, which the attack and every evaluation use; the clean pass into a set of
    its own, `clean_variables`, that starts as a copy.
    aim, aim_cost: see `attacking.make_attack`, and what it adds to the attack's cost.
    """
    run = make_attack(classifier, attack, attack_mode, eps_schedule, scheduled, aim)
    separate = statistics == "separate"

    def prepare(state, batch, keys):
        adversarial, metrics, _ = run(state, batch, keys)
        return {**batch, "adversarial": adversarial}, metrics

    def both(params, state, batch, keys):
        clean, after_clean = losses.train_logits(classifier, params, state.carry if separate else state.model_state, batch["image"], keys.dropout)
        adversarial, model_state = losses.train_logits(classifier, params, state.model_state if separate else after_clean, batch["adversarial"],
                                                       keys.fold_in(1).dropout)
        labels, weight = batch["label"], batch.get("weight")
        value, metrics = loss(losses.wide(clean), losses.wide(adversarial), labels, weight)
        metrics["accuracy"] = losses.accuracy(adversarial, labels, weight)
        metrics["clean_accuracy"] = losses.accuracy(clean, labels, weight)
        return value, Outcome(model_state, metrics, after_clean if separate else None)

    def begin(state, image_shape, batch_size):
        return jax.tree.map(jnp.copy, state.model_state)

    return Rule(prepare=prepare, gradient=descend(both), begin=begin if separate else None,
                attack_cost=lambda: attack_cost(attack).plus(aim_cost or Cost()), update_cost=Cost(2))


def clean_variables(state, ema=False):
    """Variables with the clean pass's batch statistics, of a state trained with statistics="separate"."""
    if state.carry is None:
        raise ValueError("this state keeps no clean statistics: train with statistics='separate' and begin with step.begin")
    return {"params": state.variables(ema)["params"], **state.carry}
