"""The accuracies under attack of the cards of the weights that come with the package, measured again."""
import jax
import pytest

import vmamba_jax
from configs import digits
from experiments.common import results
from vmamba_jax import attacks, data, evaluation
from vmamba_jax.checkpoints import examples


@pytest.mark.slow
@pytest.mark.parametrize("name", examples.names())
def test_accuracies_under_attack_are_those_of_the_card(name):
    card = examples.card(name)
    config = results.plain(digits.get_config(card["config"].partition(":")[2]))["evaluation"]
    made = {name: attacks.create(**settings) for name, settings in config["attacks"].items()} | {"autoattack": attacks.autoattack(0.2)}
    logits_fn = vmamba_jax.logits_fn(*vmamba_jax.example(name))
    for attack in card["evaluation"]["attacks"]:
        found = evaluation.robust_accuracy(logits_fn, data.load("digits", "test"), made[attack], key=jax.random.key(config["seed"]), batch_size=config["batch_size"])
        assert found["robust_accuracy"] == pytest.approx(card["evaluation"]["attacks"][attack]["robust_accuracy"], abs=2.5 / 360), attack
