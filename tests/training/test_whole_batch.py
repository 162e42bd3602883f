"""Eight devices make the update of one, with any normalization and also for batches that they do not divide."""
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.toy_training import SHAPE, Classifier, Net, Toy, batch
from vmamba_jax import attacks, models, parallel, training
from vmamba_jax.training.objectives.whole_batch import batch_norm

KEY = jax.random.key(3)
ROWS = 11  # on eight devices: two rows each; the last two devices have only padding, the third last has one row of it
OPTIMIZER = training.optimizer.create("sgd", learning_rate=0.1)
RESNET = models.Classifier(models.ResNet(num_classes=3, layers=(1,), channels=(8,), stem="cifar", stem_width=4, in_channels=1, remat=True),
                           0.5, 0.5)
CASES = {"layer norm": Classifier(Net("layer")), "batch norm": Classifier(Net("batch")), "resnet": RESNET}


@functools.cache
def setting(name, mode):
    """(the step, its initial state) of a classifier of `CASES`. mode: of the attack; None: no attack."""
    if mode is None:
        step = training.objectives.standard(CASES[name], OPTIMIZER, label_smoothing=0.1)
    else:
        attack = attacks.pgd(0.1, steps=2, step_size=0.05)
        step = training.objectives.pgd_at(CASES[name], OPTIMIZER, attack=attack, attack_mode=mode, clean_accuracy=True, label_smoothing=0.1)
    state = training.create_state(CASES[name], OPTIMIZER, jax.random.key(0), SHAPE)
    return step, state.replace(model_state=jax.tree.map(lambda x: x + 0.2, state.model_state))


def spread(step, state, data, devices=8):
    mesh = parallel.data_mesh(jax.devices()[:devices])
    placed = parallel.shard_batch(parallel.weigh_padding(data, devices), mesh)
    return jax.device_get(parallel.map_step(step, mesh, donate=False)(parallel.replicate(state, mesh), placed, KEY))


def close(a, b, atol=2e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=atol), a, b)


@pytest.mark.parametrize(("name", "mode"), [pytest.param("layer norm", "eval", marks=pytest.mark.slow), pytest.param("batch norm", "eval", marks=pytest.mark.slow), ("batch norm", "train"), ("resnet", None)])
@pytest.mark.often(1)
def test_same_update_of_an_indivisible_batch(name, mode):
    step, state = setting(name, mode)
    data = batch(batch_size=ROWS)
    expected = jax.device_get(jax.jit(step)(state, data, KEY))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), (state.params, state.model_state), (expected[0].params, expected[0].model_state))
    assert max(jax.tree.leaves(moved[0])) > 1e-3 and all(x > 1e-3 for x in jax.tree.leaves(moved[1]))
    close(spread(step, state, data), expected)


@pytest.mark.parametrize("name", ["trades", pytest.param("mart", marks=pytest.mark.slow), "yopo", "free"])
@pytest.mark.often(1)
def test_objectives_weight_examples(name):
    attack = {"attack": attacks.pgd(0.1, steps=1, step_size=0.05)}
    options = {"trades": attack, "mart": attack, "yopo": {"eps": 0.1, "step_size": 0.05, "passes": 1, "inner_steps": 1}, "free": {"eps": 0.1, "replays": 2}}
    step = training.objectives.create(name, CASES["layer norm"], OPTIMIZER, **options[name])
    state = step.begin(training.create_state(CASES["layer norm"], OPTIMIZER, jax.random.key(0), SHAPE), SHAPE, 16)
    data = batch(batch_size=ROWS)
    one, eight = jax.device_get(jax.jit(step)(state, data, KEY)), spread(step, state, data)
    close((eight[0].params, eight[1]), (one[0].params, one[1]))


def test_weights_and_microbatches():
    """They combine without batch statistics; the statistics of a microbatch might have no example of positive weight."""
    weighted = {**batch(batch_size=8), "weight": np.float32([1, 2, 0, 1, 1, 0, 3, 1])}
    step, split = (training.objectives.standard(CASES["layer norm"], OPTIMIZER, accumulate=k) for k in (1, 4))
    _, state = setting("layer norm", "eval")
    close(*(jax.device_get(jax.jit(step)(state, weighted, KEY)) for step in (split, step)))
    with pytest.raises(ValueError, match='accumulate=4 with "weight" in the batch: expected 1'):
        jax.eval_shape(training.objectives.standard(CASES["batch norm"], OPTIMIZER, accumulate=4), setting("batch norm", "eval")[1], weighted, KEY)


def test_without_weights_the_padding_counts():
    """Padding rows without weights change the update."""
    step, state = setting("batch norm", "eval")
    data = batch(batch_size=ROWS)
    expected = jax.device_get(jax.jit(step)(state, data, KEY))
    padded, _ = parallel.pad_batch(data, 8)
    other = spread(step, state, padded)
    assert abs(other[1]["loss"] - expected[1]["loss"]) > 1e-3
    a, b = (found[0].model_state["batch_stats"]["BatchNorm_0"]["mean"] for found in (other, expected))
    assert np.abs(a - b).max() > 1e-4


def test_weights_equal_copies():
    """An example of weight 2 counts as two, and only the ratio of the weights matters."""
    step = training.objectives.standard(CASES["batch norm"], OPTIMIZER)
    _, state = setting("batch norm", "eval")
    data = batch(batch_size=8)
    copies = jax.tree.map(lambda x: x[[0, 0, 1, 3, 4, 5, 6, 7]], data)
    expected = jax.device_get(jax.jit(step)(state, copies, KEY))
    weighted = {**data, "weight": np.float32([6, 3, 0, 3, 3, 3, 3, 3])}
    close(jax.device_get(jax.jit(step)(state, weighted, KEY)), expected)
    close(spread(step, state, weighted, devices=4), expected)


def test_training_with_short_batches():
    step, state = setting("batch norm", None)

    class Short(Toy):
        def __getitem__(self, t):
            return {name: array[:ROWS] if t % 2 else array for name, array in super().__getitem__(t).items()}

    run = functools.partial(training.train, step, state, Short(), steps=3, key=KEY, monitoring=training.Monitoring(progress=False))
    close(jax.device_get(run(mesh=parallel.data_mesh())), jax.device_get(run()), atol=1e-5)


@pytest.mark.parametrize("weight", [None, np.float32([1, 1, 1, 1])])
def test_batch_norm_without_weights_is_that_of_flax(weight):
    norm, x = nn.BatchNorm(use_running_average=False, momentum=0.9, axis=-2, use_bias=False, dtype=jnp.bfloat16), np.arange(24.0).reshape(4, 3, 2)
    variables = norm.init(KEY, x)
    expected = norm.apply(variables, x, mutable=["batch_stats"])
    with batch_norm(weight=weight):
        found = norm.apply(variables, x, mutable=["batch_stats"])
        again = norm.clone(use_running_average=True).apply(variables, x)
    assert found[0].dtype == again.dtype == jnp.bfloat16
    jax.tree.map(lambda a, b: np.testing.assert_allclose(np.float32(a), np.float32(b), rtol=1e-6), found, expected)
    np.testing.assert_array_equal(again, norm.clone(use_running_average=True).apply(variables, x))


def test_errors():
    norm, x = nn.BatchNorm(use_running_average=False), np.ones((4, 3))
    variables = norm.init(KEY, x)
    with batch_norm(weight=np.ones(2)), pytest.raises(ValueError, match="weight of 2 rows: expected 4, one for each row"):
        norm.apply(variables, x, mutable=["batch_stats"])
    with batch_norm(weight=np.ones(4)), pytest.raises(ValueError, match='mask of a BatchNorm.s call: expected None, and "weight"'):
        norm.apply(variables, x, mask=np.ones((4, 1)), mutable=["batch_stats"])


def test_weigh_padding():
    data = {"image": np.zeros((5, 2)), "label": np.arange(5)}
    padded = parallel.weigh_padding(data, 4)
    assert padded["weight"].tolist() == [1, 1, 1, 1, 1, 0, 0, 0] and padded["weight"].dtype == np.float32 and padded["label"][-1] == 4
    assert parallel.weigh_padding(data, 5) is data
    assert parallel.weigh_padding({**data, "weight": np.float32([2, 0, 1, 1, 3])}, 3)["weight"].tolist() == [2, 0, 1, 1, 3, 0]
