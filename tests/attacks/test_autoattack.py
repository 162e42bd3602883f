"""AutoAttack: stages, versions and errors on a small network."""
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import attacks, evaluation
from vmamba_jax.core.keys import fold_in

SMALL = {"n_targets": 2, "steps": 5, "queries": 8}


def test_breaks_what_pgd_breaks(tiny, check_search):
    net, images, labels = tiny
    broken = check_search(attacks.autoattack(0.06, **SMALL), tiny)
    pgd = jax.jit(attacks.pgd(0.06, 5))(net, images, labels, jax.random.key(0))
    assert (broken >= (np.asarray(net(pgd)).argmax(1) != labels)).all() and broken.sum() < 12


def test_runs_its_stages_in_order(tiny):
    """Every image gets the first adversarial found by a stage that is run alone with its own keys."""
    net, images, labels = tiny
    attack, keys = attacks.autoattack(0.3, "l2", **SMALL), attacks.per_image_keys(jax.random.key(2), 12)
    expected, active = np.array(images), np.asarray(net(images).argmax(1) == labels)
    broken = []
    for s, (_, stage) in enumerate(attack.stages()):
        found = np.asarray(jax.jit(stage)(net, images, labels, fold_in(keys, s)))
        now = active & np.asarray(net(found).argmax(1) != labels)
        expected[now], active = found[now], active & ~now
        broken.append(now.sum())
    assert active.any() and broken[0] > 0
    np.testing.assert_allclose(jax.jit(attack)(net, images, labels, keys), expected, atol=1e-5)


def summary(attack):
    fields = ("loss", "restarts", "n_targets", "steps", "queries", "eot", "large_eps")
    return [(name, *(getattr(stage, field) for field in fields if hasattr(stage, field))) for name, stage in attack.stages()]


def test_versions():
    """The reference's stages, restarts and targets."""
    assert summary(attacks.autoattack(0.1)) == summary(attacks.autoattack(0.1, "l2")) == [
        ("apgd-ce", "cross_entropy", 1, None, 100, 1, False), ("apgd-t", "dlr_targeted", 1, 9, 100, 1, False),
        ("fab-t", "margin", 1, 9, 100), ("square", "margin", 1, 5000)]
    assert summary(attacks.autoattack(5.0, "l1")) == [
        ("apgd-ce", "cross_entropy", 5, None, 100, 1, True), ("apgd-t", "dlr_targeted", 1, 5, 100, 1, True),
        ("fab-t", "margin", 1, 9, 100), ("square", "margin", 1, 5000)]
    assert summary(attacks.autoattack(0.1, version="plus")) == [
        ("apgd-ce", "cross_entropy", 5, None, 100, 1, False), ("apgd-dlr", "dlr", 5, None, 100, 1, False), ("fab", "margin", 5, None, 100),
        ("square", "margin", 1, 5000), ("apgd-t", "dlr_targeted", 1, 9, 100, 1, False), ("fab-t", "margin", 1, 9, 100)]
    assert summary(attacks.autoattack(0.1, version="rand")) == [
        ("apgd-ce", "cross_entropy", 1, None, 100, 20, False), ("apgd-dlr", "dlr", 1, None, 100, 20, False)]


def test_settings_round_trip():
    for attack in (attacks.autoattack(8 / 255), attacks.autoattack(12, "l1", version="plus", n_targets=4, bounds=(-1, 1)),
                   *(stage for _, stage in attacks.autoattack(0.5, "l2", version="plus").stages())):
        again = attacks.create(**json.loads(json.dumps(attack.settings)))
        assert again == attack and hash(again) == hash(attack)


@pytest.mark.parametrize(("options", "text"), [
    ({"version": "custom"}, "version='custom'"), ({"n_targets": 0}, "n_targets=0"), ({"steps": 0}, "steps=0"), ({"eps": -1}, "eps=-1"),
    ({"norm": "l1", "steps": 4}, "steps=4"),
])
def test_bad_settings(options, text):
    with pytest.raises(ValueError, match="expected") as raised:
        attacks.create("autoattack", **{"eps": 0.1} | options)
    assert text in str(raised.value)


def test_too_few_classes_and_randomized_classifiers(tiny):
    net, images, labels = tiny
    key = jax.random.key(0)
    for classes, options, text in [(5, {}, "n_targets=9 on 5 classes: expected at most 4"),
                                   (3, {"n_targets": 2}, "loss='dlr_targeted' on 3 classes"), (2, {"version": "rand"}, "loss='dlr' on 2 classes")]:
        with pytest.raises(ValueError, match=text):
            jax.eval_shape(lambda x, n=classes, o=options: attacks.autoattack(0.1, **o)(lambda x: net(x)[:, :n], x, labels % n, key), images)
    randomized = attacks.Randomized(lambda images, keys: net(images))
    with pytest.raises(TypeError, match="version='rand'"):
        jax.eval_shape(lambda x: attacks.autoattack(0.1, **SMALL)(randomized, x, labels, key), images)
    jax.eval_shape(lambda x: attacks.autoattack(0.1, version="rand")(randomized, x, labels, key), images)
    with pytest.raises(ValueError, match="key=None"):
        attacks.autoattack(0.1, **SMALL)(net, images, labels)


@pytest.mark.parametrize("version, norm, classes, message", [
    ("standard", "linf", 3, "stage apgd-t: n_targets=9 on 3 classes"), ("plus", "l2", 2, "stage apgd-dlr: loss='dlr' on 2 classes"),
    ("rand", "linf", 2, "stage apgd-dlr: loss='dlr' on 2 classes"), ("standard", "l1", 4, "stage apgd-t: n_targets=5 on 4 classes: expected at most 3"),
    ("standard", "l1", 9, "stage fab-t: n_targets=9 on 9 classes: expected at most 8"), ("standard", "linf", 9, "stage apgd-t: n_targets=9 on 9 classes")])
def test_demands_of_every_stage_are_checked_before_any_work(version, norm, classes, message):
    calls = []

    def logits_fn(images):
        calls.append(images.shape)
        return jnp.zeros((len(images), classes)) + images.mean((1, 2, 3))[:, None]
    images, labels = np.full((4, 4, 4, 3), 0.5, np.float32), np.zeros(4, np.int32)
    attack = attacks.autoattack(0.1, norm, version, steps=10)
    with pytest.raises(ValueError, match=message):
        attack(logits_fn, jnp.asarray(images), jnp.asarray(labels), jax.random.key(0))
    assert len(calls) == 1  # the clean logits
    with pytest.raises(ValueError, match=message):
        evaluation.robust_accuracy(logits_fn, (images, labels), attack, key=jax.random.key(0), progress=lambda *figures: pytest.fail("work was done"))
