"""The accuracy under FGSM of the cards of the weights that come with the package, measured again."""
import jax
import pytest

import vmamba_jax
from configs import digits
from experiments.common import results
from vmamba_jax import attacks, data, evaluation
from vmamba_jax.checkpoints import examples


@pytest.mark.slow
@pytest.mark.parametrize("name", examples.names())
def test_accuracy_under_attack_is_that_of_the_card(name):
    card = examples.card(name)
    config = results.plain(digits.get_config(card["config"].partition(":")[2]))["evaluation"]
    found = evaluation.robust_accuracy(vmamba_jax.logits_fn(*vmamba_jax.example(name)), data.load("digits", "test"), attacks.create(**config["attacks"]["fgsm"]),
                                       key=jax.random.key(config["seed"]), batch_size=config["batch_size"])
    assert found["robust_accuracy"] == pytest.approx(card["evaluation"]["attacks"]["fgsm"]["robust_accuracy"], abs=2.5 / 360)
