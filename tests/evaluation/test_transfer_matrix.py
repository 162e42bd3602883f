"""Transfer matrix: computed by hand, independent of devices, each adversarial set computed once."""
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vmamba_jax import attacks, evaluation, parallel

KEY = jax.random.key(11)
N = 21


def net(weights, images):
    a, b = weights
    return jnp.tanh(images.reshape(len(images), -1) @ a) @ b


@functools.cache
def model(seed):
    a, b = jax.random.split(jax.random.key(seed))
    return Partial(net, (jax.random.normal(a, (18, 16)), jax.random.normal(b, (16, 5))))


def examples():
    """Images whose labels are model 0's predictions, except for the last four."""
    images = np.asarray(jax.random.uniform(jax.random.key(1), (N, 3, 3, 2)))
    labels = np.array(model(0)(images).argmax(1))
    labels[-4:] = (labels[-4:] + 1) % 5
    return images, labels


MODELS = {"one": model(0), "two": model(1)}
ATTACK = attacks.pgd(0.2, 2)


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 21), (8, 8)])
def test_as_by_hand(devices, batch_size):
    images, labels = examples()
    mesh, reports = parallel.data_mesh(jax.devices()[:devices]), []
    result = evaluation.transfer_matrix(MODELS, (images, labels), ATTACK, key=KEY, batch_size=batch_size, mesh=mesh,
                                        progress=lambda *report: reports.append(report))
    attack, right = jax.jit(ATTACK), lambda fn, x: np.asarray(fn(x)).argmax(1) == labels
    for i, (a, source) in enumerate(MODELS.items()):
        np.testing.assert_array_equal(result["correct"][i], right(source, images))
        adversarial = attack(source, images, labels, KEY)
        for j, (b, judge) in enumerate(MODELS.items()):
            robust = right(judge, images) & right(judge, adversarial)
            np.testing.assert_array_equal(result["robust"][i, j], robust)
            assert result["transfer"][a][b] == robust.mean()
            np.testing.assert_allclose(result["fooled"][a][b], 1 - robust.sum() / right(judge, images).sum())
    assert result["models"] == ["one", "two"] and result["clean"]["one"] == 17 / N and result["examples"] == N and "hit" not in result
    assert result["transfer"]["one"]["one"] < result["transfer"]["two"]["one"] < result["clean"]["one"]
    assert [report[:2] for report in reports][-1] == (N, N) and reports[-1][2] == result["clean"]
    alone = evaluation.robust_accuracy(model(0), (images, labels), ATTACK, key=KEY, batch_size=batch_size, mesh=mesh)
    assert result["transfer"]["one"]["one"] == alone["robust_accuracy"]
    row = json.loads(json.dumps(evaluation.summary(result)))
    assert row["transfer"] == result["transfer"] and row["attack"] == ATTACK.settings and "robust" not in row


def test_targets():
    images, labels = examples()
    targets = (labels + 2) % 5
    targets[:3] = labels[:3]  # the target is the class: not counted
    attack = attacks.pgd(0.2, 3, targeted=True, random_start=False)
    result = evaluation.transfer_matrix(MODELS, (images, labels), attack, key=KEY, targets=targets, batch_size=8)
    adversarial = jax.jit(attack)(model(0), images, targets)
    for name, fn in MODELS.items():
        predicted = np.asarray(fn(adversarial)).argmax(1)
        assert result["hit"]["one"][name] == (predicted == targets)[3:].mean()
    assert result["hit"]["one"]["one"] > result["hit"]["two"]["one"] and result["at_target"].shape == (2, 2, N)
    json.dumps(evaluation.summary(result))


def test_each_set_is_computed_once():
    images, labels = examples()
    calls = []

    def attack(logits_fn, x, y, keys):
        jax.debug.callback(lambda _: calls.append(1), x[0, 0, 0, 0])
        return 1 - x
    flat = lambda x: x.reshape(len(x), -1)
    plain = {"a": lambda x: flat(x)[:, :5], "b": lambda x: flat(x)[:, 5:10], "c": lambda x: jnp.full((len(x), 5), jnp.nan)}
    result = evaluation.transfer_matrix(plain, (images, labels), attack, key=KEY, mesh=parallel.data_mesh(jax.devices()[:1]))
    jax.effects_barrier()
    assert len(calls) == 3 and result["clean"]["c"] == 0 and result["fooled"]["a"]["c"] is None


@pytest.mark.parametrize(("change", "text"), [
    ({"models": {}}, "models={}"), ({"batch_size": 0}, "batch_size=0"), ({"targets": np.zeros(N, int)}, "targets=given"),
    ({"attack": attacks.pgd(0.1, 1, targeted=True)}, "targets=None"),
    ({"attack": attacks.pgd(0.1, 1, targeted=True), "targets": np.zeros(3, int)}, "targets.shape=(3,)"),
    ({"attack": attacks.pgd(0.1, 1, targeted=True), "targets": np.full(N, 5)}, "targets[0]=5"),
])
def test_refusals(change, text):
    options = {"models": MODELS, "attack": ATTACK} | change
    with pytest.raises(ValueError, match="expected") as raised:
        evaluation.transfer_matrix(options.pop("models"), examples(), options.pop("attack"), key=KEY, **options)
    assert text in str(raised.value)
