"""APGD: properties of each norm, loss and option."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from vmamba_jax import attacks, parallel
from vmamba_jax.attacks import norms
from vmamba_jax.attacks.autoattack.apgd import random_start
from vmamba_jax.attacks.autoattack.apgd_schedule import dense_checkpoints
from vmamba_jax.attacks.randomized import value_and_gradient
from vmamba_jax.core.keys import fold_in

EPS = {"linf": 0.06, "l2": 0.3, "l1": 0.7}
CASES = {
    "linf": attacks.apgd(EPS["linf"], 8),
    "l2-dlr": attacks.apgd(EPS["l2"], 8, "l2", loss="dlr"),
    "l1": attacks.apgd(EPS["l1"], 10, "l1", large_eps=True, restarts=2),
    "linf-t": attacks.apgd(EPS["linf"], 6, loss="dlr_targeted", n_targets=3),
    "l2-t": attacks.apgd(EPS["l2"], 6, "l2", loss="cross_entropy", n_targets=2),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.often(2)
def test_ball_box_and_success(name, tiny, check_search):
    broken = check_search(CASES[name], tiny)
    assert 2 < broken.sum() < 12


@pytest.mark.slow
def test_transformations(tiny):
    """vmap over images and shard_map with its check of varying values give the result of one call."""
    net, images, labels = (tiny[0], *(x[:8] for x in tiny[1:]))
    attack, key = CASES["linf"], jax.random.key(3)
    keys = attacks.per_image_keys(key, 8)
    whole = jax.jit(lambda attack: attack(net, images, labels, key))(attack)
    single = jax.jit(jax.vmap(lambda x, y, k: attack(net, x[None], y[None], k[None])[0]))(images, labels, keys)
    np.testing.assert_allclose(single, whole, atol=1e-6)
    sharded = functools.partial(jax.shard_map, mesh=parallel.data_mesh(), in_specs=P("data"), out_specs=P("data"))
    cases = [*CASES.values(), attacks.fab(0.1, 3), attacks.fab(0.1, 3, "l1", n_targets=2, restarts=2), attacks.square(0.1, 5),
             attacks.square(0.4, 5, "l2"), attacks.apgd(0.1, 3, keep="highest_loss"),
             attacks.autoattack(0.1, n_targets=3, steps=3, queries=3)]
    for attack in cases:
        def local(x, y, attack=attack):
            return attack(net, x, y, attacks.per_image_keys(key, len(x), offset=jax.lax.axis_index("data")))
        jax.eval_shape(sharded(local, check_vma=True), images, labels)
    np.testing.assert_allclose(jax.jit(sharded(functools.partial(local, attack=CASES["linf"])))(images, labels), whole, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float64])
def test_keeps_dtype(dtype, tiny, x64):
    net, images, labels = tiny
    for attack in [*CASES.values(), attacks.fab(0.1, 3, "l2"), attacks.fab(0.1, 3, "l1", n_targets=2), attacks.square(0.1, 5),
                   attacks.square(1.0, 5, "l1")]:
        out = jax.eval_shape(lambda x, a=attack: a(net, x, labels, jax.random.key(0)), images.astype(dtype))
        assert out.dtype == dtype and out.shape == images.shape


def test_restarts_keep_earlier_successes(tiny):
    net, images, labels = tiny
    def run(restarts):
        return np.asarray(jax.jit(attacks.apgd(0.05, 3, restarts=restarts))(net, images, labels, jax.random.key(1)))
    one, many = run(1), run(6)
    success = np.asarray(net(one)).argmax(1) != labels
    np.testing.assert_allclose(many[success], one[success], atol=1e-6)
    assert (np.asarray(net(many)).argmax(1) != labels).sum() >= success.sum() > 1


def test_highest_loss_beats_plain_ascent(tiny):
    net, images, labels = tiny
    def loss(attack):
        return np.asarray(attacks.losses.cross_entropy(net(jax.jit(attack)(net, images, labels)), labels))
    options = {"random_start": False}
    assert (loss(attacks.apgd(0.1, 20, keep="highest_loss", **options)) >= loss(attacks.pgd(0.1, 20, **options)) - 1e-3).all()


def test_randomized_classifier(tiny):
    """Its gradient is averaged over `eot` draws; without noise the result is the deterministic classifier's."""
    net, images, labels = tiny
    def noisy(images, keys):
        return net(images) + 0.01 * jax.vmap(lambda key: jax.random.normal(key, (5,)))(keys)
    key, attack = jax.random.key(0), attacks.apgd(0.06, 4, eot=3, keep="highest_loss")
    run = jax.jit(lambda: attack(attacks.Randomized(noisy), images, labels, key))
    assert np.isfinite(run()).all() and (run() == run()).all()
    quiet = jax.jit(lambda: attack(attacks.Randomized(lambda images, keys: net(images)), images, labels, key))()
    np.testing.assert_allclose(quiet, jax.jit(lambda: attack(net, images, labels, key))(), atol=1e-6)
    with pytest.raises(ValueError, match="Randomized"):
        attacks.apgd(0.1, 2, random_start=False)(attacks.Randomized(noisy), images, labels)


def test_gradient_of_a_randomized_classifier_is_the_mean(tiny):
    """The mean over draws fold_in(keys, 0 ... eot - 1); value and success are those of the last draw."""
    net, images, labels = tiny
    keys = attacks.per_image_keys(jax.random.key(0), 12)

    def noisy(images, keys):
        return net(images + 0.1 * jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys))
    criterion = attacks.losses.criterion(labels, "margin")
    value, success, gradient = jax.jit(value_and_gradient(attacks.Randomized(noisy), criterion, 3))(images, keys)
    each = jax.jit(jax.grad(lambda x, keys: criterion(noisy(x, keys))[0].sum()))
    np.testing.assert_allclose(gradient, sum(each(images, fold_in(keys, j)) for j in range(3)) / 3, atol=1e-5)
    last = criterion(noisy(images, fold_in(keys, 2)))
    np.testing.assert_allclose(value, last[0], atol=1e-5)
    np.testing.assert_array_equal(success, last[1])


def test_larger_radii_do_not_depend_on_the_batch(tiny):
    """l1 with its larger first balls: an image alone gets the result it gets in a batch, though others are misclassified later or never."""
    net, images, labels = (tiny[0], *(x[:6] for x in tiny[1:]))
    attack, keys = attacks.apgd(EPS["l1"], 10, "l1", large_eps=True), attacks.per_image_keys(jax.random.key(5), 6)
    whole = jax.jit(lambda x, y, k: attack(net, x, y, k))(images, labels, keys)
    one = jax.jit(lambda x, y, k: attack(net, x, y, k))
    alone = [one(images[i:i + 1], labels[i:i + 1], keys[i:i + 1])[0] for i in range(6)]
    np.testing.assert_allclose(alone, whole, atol=1e-5)


@pytest.mark.parametrize("attack", [attacks.apgd(0.4, 10, targeted=True), attacks.square(0.4, 60, targeted=True)], ids=lambda attack: attack.name)
def test_targeted_search(attack, tiny):
    """It changes only images that it brings to their target; images predicted as the target already stay clean."""
    net, images, _ = tiny
    predicted = net(images).argmax(1).astype(jnp.int32)
    targets = predicted.at[:9].add(1) % 5
    found = np.asarray(jax.jit(attack)(net, images, targets, jax.random.key(0)))
    changed, reached = (found != images).any((1, 2, 3)), np.asarray(net(found).argmax(1) == targets)
    np.testing.assert_array_equal(changed, reached & (np.arange(12) < 9))
    assert changed.sum() > 2


@pytest.mark.parametrize("norm", EPS)
def test_random_start_has_length_eps(norm, tiny):
    """In l1 the projected Gaussian is far outside the ball, so its projection is on the surface too."""
    _, images, _ = tiny
    images = 0.4 + 0.2 * images
    threat = attacks.ThreatModel(norm, 0.3)
    start = random_start(threat, images, attacks.per_image_keys(jax.random.key(0), 12))
    np.testing.assert_allclose(threat.distance(images, start), 0.3, rtol=1e-5)


def test_checkpoints():
    """p_0 = 0, p_1 = 22%, then windows 3% shorter each, down to 6% (Croce & Hein 2020, section 3)."""
    checkpoints = dense_checkpoints(100, 0.75)
    np.testing.assert_array_equal(np.flatnonzero(checkpoints >= 0), [22, 41, 57, 70, 80, 87, 93, 99])
    assert checkpoints[22] == 16 and checkpoints[41] == 14


def test_kth_smallest():
    a = np.random.default_rng(0).exponential(size=(4, 9)).astype(np.float32)
    a[0, 3:7] = a[0, 0]
    for k in (0, 4, 8):
        np.testing.assert_array_equal(norms.kth_smallest(jnp.asarray(a), jnp.full(4, k))[:, 0], np.sort(a, 1)[:, k])


@pytest.mark.parametrize("eps", [0.0, 0.5, 3.0, 50.0])
def test_l1_projection_is_nearest(eps):
    """The variational inequality of the projection onto a convex set."""
    rng = np.random.default_rng(1)
    images, delta = rng.uniform(size=(6, 3, 4, 1)).astype(np.float32), 2 * rng.normal(size=(6, 3, 4, 1)).astype(np.float32)
    nearest = np.asarray(norms.l1_in_box(jnp.asarray(images), jnp.asarray(delta), eps, 0.0, 1.0))
    assert (np.abs(nearest).sum((1, 2, 3)) <= eps + 1e-5).all() and ((images + nearest >= -1e-6) & (images + nearest <= 1 + 1e-6)).all()
    for _ in range(50):
        other = np.clip(images + rng.normal(size=images.shape), 0, 1) - images
        other *= np.minimum(1, eps / np.abs(other).sum((1, 2, 3), keepdims=True))
        assert (((delta - nearest) * (other - nearest)).sum((1, 2, 3)) <= 1e-4).all()


@pytest.mark.parametrize(("error", "options", "text"), [
    (ValueError, {"steps": 0}, "steps=0"),
    (ValueError, {"loss": "dlr_targeted"}, "n_targets=None"),
    (ValueError, {"loss": "hinge"}, "loss='hinge'"),
    (ValueError, {"n_targets": 0}, "n_targets=0"),
    (ValueError, {"n_targets": 2, "targeted": True}, "targeted=True"),
    (ValueError, {"keep": "last"}, "keep='last'"),
    (ValueError, {"large_eps": True}, "norm='linf'"),
    (ValueError, {"large_eps": True, "norm": "l1", "steps": 4}, "steps=4"),
    (ValueError, {"rho": -1}, "rho=-1"),
    (TypeError, {"eot": 1.5}, "eot=1.5"),
    (ValueError, {"restarts": 2, "random_start": False}, "restarts=2"),
])
def test_bad_settings(error, options, text):
    with pytest.raises(error, match="expected") as raised:
        attacks.create("apgd", eps=0.1, **options)
    assert text in str(raised.value)


def test_too_few_classes(tiny):
    net, images, labels = tiny
    for classes, options, text in [(2, {"loss": "dlr"}, "loss='dlr' on 2"), (3, {"loss": "dlr_targeted", "n_targets": 2}, "loss='dlr_targeted' on 3"),
                                   (5, {"loss": "dlr_targeted", "n_targets": 9}, "n_targets=9 on 5 classes")]:
        with pytest.raises(ValueError, match=text):
            attacks.apgd(0.1, 2, random_start=False, **options)(lambda x, n=classes: net(x)[:, :n], images, labels % classes)
