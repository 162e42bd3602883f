"""A frozen backbone: under every objective its parameters and statistics keep their bits, and the head learns."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.adversarial_steps import GAUSSIAN, OPTIONS, PGD
from tests.helpers.toy_training import SHAPE, Classifier, Net, batch
from vmamba_jax import create_model, training
from vmamba_jax.models import Classifier as Normalized
from vmamba_jax.training import objectives

EVERY = {"standard": {}, "pgd_at": {"attack": PGD}, "light": {"eps_schedule": lambda step: 1.0, "steps": 1}, "ares": {}, **OPTIONS,
         "trades": {"attack": GAUSSIAN}, "mart": {"attack": GAUSSIAN, "attack_mode": "train"}}
FAST = ("standard",)


def head_only(name, **options):
    """(state before, state after two steps) of an objective on a net with batch statistics and dropout, by AdamW or SGD with decay, with an average."""
    rule = training.optimizer.create("sgd" if name == "mart" else "adamw", learning_rate=0.01, weight_decay=0.1, decay_rule="everything", clip_norm=1.0)
    classifier, optimizer = training.linear_probe(Classifier(Net("batch", dropout=0.5)), rule, head="Dense_1")
    step = objectives.create(name, classifier, optimizer, ema_decay=0.7, **options)
    state = training.create_state(classifier, optimizer, jax.random.key(0), SHAPE, ema_decay=0.7)
    kernel = state.params["Dense_0"]["kernel"].at[0, 0].set(-0.0)
    params = state.params | {"Dense_0": state.params["Dense_0"] | {"kernel": kernel}}
    before = step.begin(state.replace(params=params, ema=jax.tree.map(jnp.copy, params)), SHAPE, 16)

    @jax.jit
    def two(state, data):
        return jax.lax.fori_loop(0, 2, lambda t, state: step(state, data, jax.random.fold_in(jax.random.key(1), t))[0], state)
    return jax.device_get((before, two(before, batch())))


@pytest.mark.parametrize("name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in EVERY])
def test_backbone_keeps_its_bits(name):
    before, after = head_only(name, **EVERY[name])
    for old, new in ((before.params, after.params), (before.ema, after.ema)):
        for layer in old:
            changed = [np.asarray(a).tobytes() != np.asarray(b).tobytes() for a, b in zip(jax.tree.leaves(old[layer]), jax.tree.leaves(new[layer]), strict=True)]
            assert all(changed) if layer == "Dense_1" else not any(changed), layer
    assert jax.tree.all(jax.tree.map(np.array_equal, before.model_state, after.model_state))


def test_names_of_the_head():
    rule = training.optimizer.create("sgd", learning_rate=0.1)
    with pytest.raises(TypeError, match="head=None with model=Net"):
        training.linear_probe(Classifier(), rule)
    assert training.linear_probe(Normalized(create_model("resnet18")), rule)[0].head == "fc"
    _, optimizer = training.linear_probe(Classifier(), rule, head="head")
    updates, _ = optimizer.update({"head": jnp.ones(2), "a": jnp.ones(2)}, optimizer.init({"head": jnp.ones(2), "a": jnp.ones(2)}))
    assert np.asarray(updates["a"]).tolist() == [0, 0] and np.signbit(updates["a"]).all(), "0.0 would turn a weight of -0.0 into 0.0"
    with pytest.raises(ValueError, match="head='head': expected one of a, b"):
        optimizer.update({"a": 1.0, "b": 2.0}, optimizer.init({"a": 1.0, "b": 2.0}))


def test_attacks_differentiate_through_the_backbone():
    classifier, _ = training.linear_probe(Classifier(), training.optimizer.create("sgd", learning_rate=0.1), head="Dense_1")
    variables, data = jax.jit(lambda key: classifier.init(key, SHAPE))(jax.random.key(0)), batch()
    gradient = lambda f, images, variables: jax.grad(lambda images, variables: f(variables, images)[:, 0].sum(), (0, 1))(images, variables)
    (found, inner), (wanted, _) = jax.jit(lambda *args: [gradient(f, *args) for f in (classifier, Classifier())])(data["image"], variables)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert np.abs(found).max() > 0
    assert {name for name, tree in inner["params"].items() if any(np.any(x) for x in jax.tree.leaves(tree))} == {"Dense_1"}
