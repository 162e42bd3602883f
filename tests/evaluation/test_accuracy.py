"""Accuracy over a set: independent of batches and devices, one compilation, and the definition of a robust image."""
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.small_net import KEY, TRACES, examples, logits_fn
from vmamba_jax import attacks, evaluation, parallel


class Source:
    """A minimal data source with uint8 images."""
    def __init__(self, images, labels):
        self.images, self.labels = (images * 255).astype(np.uint8), labels

    def __len__(self):
        return len(self.images)

    def gather(self, index):
        return self.images[index], self.labels[index]


def test_clean_accuracy():
    images, labels = examples()
    result = evaluation.accuracy(logits_fn(), (images, labels), batch_size=16)
    assert result["examples"] == 37 and result["correct"].dtype == bool
    np.testing.assert_array_equal(result["correct"], np.arange(37) < 31)
    assert result["accuracy"] == 31 / 37 and set(result) == {"accuracy", "correct", "examples"}


@functools.cache
def by_hand(attack):
    images, labels = examples()
    x = jax.jit(attack)(logits_fn(), images, labels, KEY)
    before, after = (np.asarray(logits_fn()(x)).argmax(1) for x in (images, x))
    return (before == labels) & (after == labels)


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 37), (8, 5), (3, 10)])
def test_same_for_all_devices_and_batches(devices, batch_size):
    images, labels = examples()
    attack = attacks.pgd(0.3, 1, step_size=0.01)  # the random start decides
    mesh = parallel.data_mesh(jax.devices()[:devices])
    result = evaluation.robust_accuracy(logits_fn(), (images, labels), attack, key=KEY, batch_size=batch_size, mesh=mesh)
    robust = by_hand(attack)
    np.testing.assert_array_equal(result["robust"], robust)
    assert result["accuracy"] == 31 / 37 and result["robust_accuracy"] == robust.mean() and 0 < robust.sum() < 31
    assert result["attack"] == attack.settings and result["examples"] == 37


def test_source_of_uint8_images():
    images, labels = examples(12, 2)
    source = Source(images, labels)
    attack = attacks.fgsm(0.05)
    result = evaluation.robust_accuracy(logits_fn(), source, attack, key=KEY, batch_size=8)
    pair = evaluation.robust_accuracy(logits_fn(), (source.images / np.float32(255), labels), attack, key=KEY, batch_size=8)
    np.testing.assert_array_equal(result["robust"], pair["robust"])
    np.testing.assert_array_equal(result["correct"], pair["correct"])


def test_robust_is_correct_with_and_without_attack():
    """An 'attack' that replaces every image by one of its true class makes no misclassified image robust."""
    images, labels = examples()
    prototypes = jnp.stack([jnp.asarray(images)[np.argmax(logits_fn()(images).argmax(1) == c)] for c in range(5)])
    result = evaluation.robust_accuracy(logits_fn(), (images, labels), lambda f, x, y, k: prototypes[y], key=KEY, batch_size=40)
    np.testing.assert_array_equal(result["robust"], result["correct"])


def test_show_returns_attacked_images():
    images, labels = examples()
    attack = attacks.pgd(0.1, 3)
    result = evaluation.robust_accuracy(logits_fn(), (images, labels), attack, key=KEY, batch_size=16, show=[36, 2, 36])
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(np.array([36, 2, 36]))
    expected = jax.jit(attack)(logits_fn(), images[[36, 2, 36]], labels[[36, 2, 36]], keys)
    np.testing.assert_allclose(result["adversarial"], expected, atol=1e-6)
    for show, of in (([37], attack), ([0], attacks.autoattack(0.1))):
        with pytest.raises(ValueError, match=r"show=\[\d+\]"):
            evaluation.robust_accuracy(logits_fn(), (images, labels), of, key=KEY, show=show)


def test_non_finite_logits_are_misclassified():
    images, labels = examples()
    result = evaluation.accuracy(lambda x: jnp.full((len(x), 5), jnp.nan), (images, 0 * labels))
    assert result["accuracy"] == 0


def test_one_compilation_for_all_weights_and_radii():
    source = examples(20, 2)
    evaluation.robust_accuracy(logits_fn(0), source, attacks.pgd(0.01, 2, random_start=False), key=KEY, batch_size=8)
    n = len(TRACES)
    evaluation.robust_accuracy(logits_fn(1), source, attacks.pgd(0.04, 2, random_start=False), key=jax.random.key(0), batch_size=8)
    assert len(TRACES) == n + 1  # for the number of classes; nothing is compiled
    evaluation.robust_accuracy(logits_fn(1), source, attacks.pgd(0.04, 3, random_start=False), key=KEY, batch_size=8)
    assert len(TRACES) > n + 2


def test_curve():
    source, calls, reports = examples(), [], []

    def make(eps):
        calls.append(eps)
        return attacks.pgd(eps, 4)
    rows = evaluation.accuracy_curve(logits_fn(), source, make, [0, 0.01, 0.03, 0.3], key=KEY, batch_size=16,
                                     progress=lambda done, total, figures: reports.append((done, total)))
    assert [row["eps"] for row in rows] == [0, 0.01, 0.03, 0.3]
    assert sum(not isinstance(eps, float) for eps in calls) == 1  # traced once
    robust = [row["robust_accuracy"] for row in rows]
    assert robust == sorted(robust, reverse=True) and robust[0] == rows[0]["accuracy"] == 31 / 37 and robust[-1] < 0.2
    one = evaluation.robust_accuracy(logits_fn(), source, attacks.pgd(0.03, 4), key=KEY)
    assert robust[2] == one["robust_accuracy"]
    assert rows[3]["attack"]["eps"] == 0.3 and json.loads(json.dumps(rows)) == rows
    assert reports[-1] == (4 * 37, 4 * 37) and [done for done, _ in reports] == sorted(done for done, _ in reports)


def test_progress():
    reports = []
    result = evaluation.robust_accuracy(logits_fn(), examples(), attacks.fgsm(0.05), key=KEY, batch_size=16,
                                        progress=lambda *report: reports.append(report))
    assert [report[:2] for report in reports] == [(16, 37), (32, 37), (37, 37)]
    assert reports[-1][2] == {"accuracy": result["accuracy"], "robust_accuracy": result["robust_accuracy"]}
    assert reports[0][2]["accuracy"] == 1.0  # the first sixteen are classified correctly


def test_summary_is_json():
    result = evaluation.robust_accuracy(logits_fn(), examples(), attacks.fgsm(0.05), key=KEY)
    row = json.loads(json.dumps(evaluation.summary(result)))
    assert row["examples"] == 37 and row["attack"]["name"] == "fgsm" and "correct" not in row
    low, high = row["accuracy_interval"]
    assert 0 <= low < row["accuracy"] < high <= 1
    assert set(evaluation.summary(evaluation.accuracy(logits_fn(), examples()))) == {"accuracy", "accuracy_interval", "examples"}


@pytest.mark.parametrize(("change", "text"), [
    ({"batch_size": 0}, "batch_size=0"),
    ({"attack": attacks.pgd(0.1, 1, targeted=True)}, "untargeted"),
    ({"source": (np.zeros((4, 3, 3, 2)), np.zeros(3, int))}, "source=((4, 3, 3, 2), (3,))"),
    ({"source": (np.zeros((0, 3, 3, 2)), np.zeros(0, int))}, "0 examples"),
    ({"source": (np.full((4, 3, 3, 2), 200.0), np.zeros(4, int))}, "images=[200, 200]"),
    ({"source": (np.zeros((4, 18)), np.zeros(4, int))}, "images.shape=(4, 18)"),
])
def test_value_errors(change, text):
    options = {"source": examples(), "attack": attacks.fgsm(0.1)} | change
    source, attack = options.pop("source"), options.pop("attack")
    with pytest.raises(ValueError, match="expected") as raised:
        evaluation.robust_accuracy(logits_fn(), source, attack, key=KEY, **options)
    assert text in str(raised.value)


def test_type_errors():
    with pytest.raises(TypeError, match="images.dtype=int64"):
        evaluation.accuracy(logits_fn(), (np.zeros((4, 3, 3, 2), np.int64), np.zeros(4, int)))
    with pytest.raises(TypeError, match="source=list"):
        evaluation.accuracy(logits_fn(), [1, 2])
    with pytest.raises(TypeError, match="batch_size=2.5: expected an integer >= 1"):
        evaluation.accuracy(logits_fn(), examples(), batch_size=2.5)
    with pytest.raises(ValueError, match="eps=-1"):
        evaluation.accuracy_curve(logits_fn(), examples(), attacks.fgsm, [0.1, -1], key=KEY)
