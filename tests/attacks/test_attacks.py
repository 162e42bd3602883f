"""Properties of every attack: bounds, dtype, independence of the batch, JAX transformations."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from jax.tree_util import Partial

from tests.helpers.two_layer_net import net
from vmamba_jax import attacks, parallel
from vmamba_jax.attacks.base import worst_of
from vmamba_jax.core.keys import fold_in

EPS = {"linf": 0.1, "l2": 0.5, "l1": 2.0}
ATTACKS = {
    "fgsm": {},
    "pgd": {"steps": 4},
    "pgd-l2": {"steps": 4, "norm": "l2"},
    "pgd-l1": {"steps": 4, "norm": "l1"},
    "pgd-restarts": {"steps": 3, "restarts": 3, "loss": "dlr"},
    "momentum_pgd": {"steps": 4, "random_start": True, "loss": "margin"},
    "momentum_pgd-l1": {"steps": 4, "norm": "l1", "l1_fraction": 0.2, "accumulate": "steps"},
}
every_attack = pytest.mark.parametrize("name", ATTACKS)


def make(name, eps=None):
    options = {"norm": "linf"} | ATTACKS[name]
    return attacks.create(name.split("-")[0], eps=EPS[options["norm"]] if eps is None else eps, **options)


@functools.cache
def weights(seed=0):
    a, b = jax.random.split(jax.random.key(seed))
    return 0.5 * jax.random.normal(a, (18, 16)), jax.random.normal(b, (16, 5))


@functools.cache
def batch(n=8):
    images = np.asarray(jax.random.uniform(jax.random.key(1), (n, 3, 3, 2)))
    return images, np.asarray(net(weights(), images).argmax(1), np.int32)


def examples(n=8):
    """(logits_fn, images, labels as predicted)."""
    return Partial(net, weights()), *map(jnp.asarray, batch(n))


@jax.jit
def loss(logits_fn, images, labels):
    return attacks.losses.cross_entropy(logits_fn(images), labels)


@every_attack
def test_ball_box_and_loss(name):
    logits_fn, images, labels = examples()
    attack, key = make(name), jax.random.key(0)
    run = jax.jit(lambda attack: attack(logits_fn, images, labels, key))
    x = np.asarray(run(attack))
    assert x.shape == images.shape and x.dtype == images.dtype
    assert x.min() >= 0 and x.max() <= 1
    order = {"linf": np.inf, "l2": 2, "l1": 1}[attack.norm]
    assert (np.linalg.norm((x - np.asarray(images)).reshape(8, -1), order, axis=1) <= attack.eps * (1 + 1e-5)).all()
    assert np.mean(loss(logits_fn, x, labels)) > 1.2 * np.mean(loss(logits_fn, images, labels))
    nothing = run(jax.tree.map(lambda number: 0 * number, attack))  # radius and step size are leaves: the same program
    np.testing.assert_array_equal(nothing, images)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float64])
@every_attack
def test_keeps_dtype(name, dtype, x64):
    logits_fn, images, labels = examples()
    out = jax.eval_shape(lambda x, eps: make(name, eps)(logits_fn, x, labels, jax.random.key(0)), images.astype(dtype), jnp.float32(0.1))
    assert out.dtype == dtype and out.shape == images.shape


def test_restarts_are_never_worse():
    logits_fn, images, labels = examples(32)
    key, before = jax.random.key(5), None
    for restarts in (1, 5):
        attack = attacks.pgd(0.05, 2, restarts=restarts)
        x = jax.jit(attack)(logits_fn, images, labels, key)
        fooled, value = np.asarray(logits_fn(x)).argmax(1) != labels, np.asarray(loss(logits_fn, x, labels))
        if before is not None:
            assert (fooled >= before[0]).all()
            assert (value >= before[1] - 1e-6)[fooled == before[0]].all() and (value > before[1] + 1e-6).any()
        before = fooled, value


def test_restarts_prefer_misclassified():
    """A misclassified image of low loss is preferred to a correctly classified one of high loss, whichever comes first."""
    draws = np.array([[0.9, 0.1], [0.2, 0.3], [0.4, 0.8], [0.3, 0.2], [0.95, 0.4]])  # restart x image
    keys = attacks.per_image_keys(jax.random.key(0), 2)
    seen = {tuple(np.asarray(jax.random.key_data(fold_in(keys, r))).ravel()): draw for r, draw in enumerate(draws)}

    def search(keys):
        def draw(data):
            return np.float32(seen[tuple(np.asarray(data).ravel())])
        return jax.pure_callback(draw, jax.ShapeDtypeStruct((2,), jnp.float32), jax.random.key_data(keys)).reshape(2, 1, 1, 1)

    def evaluate(x):  # image 0 is misclassified below 0.5, image 1 never
        return x.reshape(2), (x.reshape(2) < 0.5) & jnp.array([True, False])
    x = worst_of(search, evaluate, jnp.zeros((2, 1, 1, 1)), keys, 5)
    np.testing.assert_allclose(x.reshape(2), [0.4, 0.8])


@pytest.mark.parametrize("norm", EPS)
def test_nan_gradients_move_nothing(norm):
    images, labels = batch()

    def broken(x):  # the gradient of sqrt at 0 is infinite, times 0 it is NaN
        return jnp.sqrt(0 * x.reshape(8, -1)[:, :5]) + x.reshape(8, -1)[:, 5:10]
    x = jax.jit(attacks.fgsm(EPS[norm], norm), static_argnums=0)(broken, images, labels)
    x = np.asarray(x)
    assert np.isfinite(x).all()
    np.testing.assert_array_equal(x.reshape(8, -1)[:, :5], images.reshape(8, -1)[:, :5])
    assert (x != images).any()


@pytest.mark.parametrize("name", ["pgd", "pgd-l2", "pgd-l1", "pgd-restarts"])
def test_independent_of_batching(name):
    """The four images shared by two overlapping batches get equal results."""
    logits_fn, (images, labels) = Partial(net, weights()), batch(12)
    attack, key = jax.jit(make(name)), jax.random.key(7)
    def run(i):
        return np.asarray(attack(logits_fn, images[i:i + 8], labels[i:i + 8], attacks.per_image_keys(key, 8, offset=i)))
    first, second = run(0), run(4)
    np.testing.assert_allclose(first[4:], second[:4], atol=1e-6)
    assert np.abs(first[:4] - second[:4]).max() > 0.1


@pytest.mark.parametrize("name", ["pgd", "masked_pgd", "frequency_pgd", "transfer_pgd", "eot_pgd"])
def test_start_is_honored(name):
    """A callable start replaces the uniform one: with steps of length zero the attack returns the start."""
    _, images, labels = examples()
    extra = {"masked_pgd": {"mask": np.ones((3, 3, 1))}, "frequency_pgd": {"size": 3}}.get(name, {})
    attack = attacks.create(name, eps=0.2, steps=1, step_size=1e-12, random_start=True, start=lambda images, keys: images + 0.03, **extra)
    inside = np.clip(images, 0, 0.95)
    found = jax.jit(lambda x: attack(lambda x, keys=None: x.reshape(8, -1)[:, :5], x, labels, jax.random.key(0)))(inside)
    np.testing.assert_allclose(found, inside + 0.03, atol=1e-6)


@pytest.mark.parametrize("norm", EPS)
def test_full_mask_is_plain_pgd(norm):
    """The masked ball of all values is the ball: the same random start, the same images."""
    logits_fn, images, labels = examples()
    run = jax.jit(lambda attack: attack(logits_fn, images, labels, jax.random.key(3)))
    plain = run(attacks.pgd(EPS[norm], 2, norm=norm))
    np.testing.assert_allclose(run(attacks.masked_pgd(EPS[norm], 2, norm=norm, mask=np.ones((3, 3, 1)))), plain, atol=1e-6)


def test_momentum_is_transfer_with_decay_one():
    """m <- m + g / mean|g|, then a step along its sign, by hand; "steps" sums up signs instead."""
    logits_fn, images, labels = examples()
    gradient = jax.jit(jax.grad(lambda x: loss(logits_fn, x, labels).sum()))
    for accumulate in ("gradients", "steps"):
        x, m = images, 0
        for _ in range(3):
            g = gradient(x)
            m = 0.5 * m + (jnp.sign(g) if accumulate == "steps" else g / jnp.abs(g).mean((1, 2, 3), keepdims=True))
            x = jnp.clip(jnp.clip(x + 0.04 * jnp.sign(m), images - 0.1, images + 0.1), 0, 1)
        attack = attacks.momentum_pgd(0.1, 3, 0.04, decay=0.5, accumulate=accumulate)
        np.testing.assert_allclose(jax.jit(attack)(logits_fn, images, labels), x, atol=1e-6)
    assert attacks.momentum_pgd(0.1, 3) == attacks.transfer_pgd(0.1, 3, **attacks.TRANSFER["mi_fgsm"])


def test_under_transformations():
    """vmap over images with their keys, checkpoint, shard_map and pmap give the result of one call on the batch."""
    logits_fn, images, labels = examples()
    attack = attacks.momentum_pgd(0.1, 3, random_start=True)
    key, mesh = jax.random.key(7), parallel.data_mesh()
    whole, keys = jax.jit(attack)(logits_fn, images, labels, key), attacks.per_image_keys(key, 8)
    single = jax.jit(jax.vmap(lambda x, y, k: attack(logits_fn, x[None], y[None], k[None])[0]))
    np.testing.assert_allclose(whole, single(images, labels, keys), atol=1e-6)
    np.testing.assert_allclose(whole, jax.jit(jax.checkpoint(lambda x: attack(logits_fn, x, labels, key)))(images), atol=1e-6)

    def local(x, y, attack=attack):
        return attack(logits_fn, x, y, attacks.per_image_keys(key, len(x), offset=jax.lax.axis_index("data")))
    sharded = functools.partial(jax.shard_map, mesh=mesh, in_specs=P("data"), out_specs=P("data"))
    np.testing.assert_allclose(whole, jax.jit(sharded(local, check_vma=False))(images, labels), atol=1e-6)
    np.testing.assert_allclose(whole[:, None], jax.pmap(local, axis_name="data")(images[:, None], labels[:, None]), atol=1e-6)
    for name in ATTACKS:  # traces under the check of values that vary over devices
        jax.eval_shape(sharded(functools.partial(local, attack=make(name)), check_vma=True), images, labels)


def test_weights_are_traced():
    """One trace serves two sets of weights and two radii, and the results differ."""
    traces = []

    def counted(weights, images):
        traces.append(images.shape)
        return net(weights, images)
    _, images, labels = examples()
    run = jax.jit(lambda attack, logits_fn: attack(logits_fn, images, labels, jax.random.key(0)))
    first = run(attacks.pgd(0.1, 3, random_start=False), Partial(counted, weights(0)))
    n = len(traces)
    second = run(attacks.pgd(0.1, 3, random_start=False), Partial(counted, weights(1)))
    third = run(attacks.pgd(0.05, 3, random_start=False), Partial(counted, weights(0)))
    assert 0 < n == len(traces)
    first, second, third, images = map(np.asarray, (first, second, third, images))
    assert (first != second).any() and (np.abs(third - images) <= 0.05 + 1e-6).all() and (np.abs(first - images) > 0.06).any()


@pytest.mark.parametrize("name", attacks.losses.LOSSES)
def test_16_bit_logits_are_evaluated_in_float32(name):
    labels, logits = jnp.arange(4), jax.random.normal(jax.random.key(0), (4, 5)).astype(jnp.bfloat16)
    value, success = attacks.losses.objective(lambda x: logits, labels, name)(labels)
    assert value.dtype == jnp.float32
    np.testing.assert_array_equal(value, attacks.losses.get(name)(logits.astype(jnp.float32), labels))
    np.testing.assert_array_equal(success, logits.argmax(1) != labels)


def test_traced_radius():
    logits_fn, images, labels = examples()
    key = jax.random.key(2)
    ramp = jax.jit(lambda eps: attacks.pgd(eps, 3, 0.4 * eps, random_start=False)(logits_fn, images, labels, key))
    assert (ramp(0.0) == images).all()
    np.testing.assert_allclose(ramp(0.1), jax.jit(attacks.pgd(0.1, 3, 0.04, random_start=False))(logits_fn, images, labels, key), atol=1e-6)


def test_hashes_as_a_static_argument():
    logits_fn, images, labels = examples()
    traces = []

    def run(attack):
        traces.append(attack)
        return attack(logits_fn, images, labels, jax.random.key(0))
    run, plain = jax.jit(run, static_argnums=0), {"random_start": False}
    x, y = run(attacks.pgd(np.float32(0.125), 2, **plain)), run(attacks.pgd(0.125, np.int64(2), **plain))
    assert len(traces) == 1 and (x == y).all()
    assert attacks.pgd(0.1, 2) != attacks.pgd(0.1, 2, norm="l2")


def test_targeted():
    logits_fn, images, labels = examples()
    targets = (labels + 2) % 5
    x = jax.jit(attacks.pgd(0.5, 20, targeted=True, random_start=False))(logits_fn, images, targets, jax.random.key(0))
    assert (np.asarray(logits_fn(x)).argmax(1) == targets).mean() > 0.5  # of the clean images, none is the target
    assert (np.asarray(loss(logits_fn, x, targets)) < loss(logits_fn, images, targets)).all()


def test_callable_loss():
    def margin_again(logits, labels):
        return attacks.losses.margin(logits, labels)
    logits_fn, images, labels = examples()
    own, named = (attacks.pgd(0.1, 3, loss=loss, random_start=False) for loss in (margin_again, "margin"))
    np.testing.assert_array_equal(jax.jit(own)(logits_fn, images, labels), jax.jit(named)(logits_fn, images, labels))
    assert own.settings["loss"] == "margin_again"


def test_legacy_keys():
    _, images, _ = examples()
    start = jax.jit(attacks.ThreatModel("linf", 0.1).random_start)
    old = jax.random.PRNGKey(3)
    np.testing.assert_array_equal(start(images, old), start(images, jax.random.key(3)))
    np.testing.assert_array_equal(start(images, old), start(images, attacks.per_image_keys(old, len(images))))
