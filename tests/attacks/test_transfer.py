"""Transfer attacks against torchattacks in float64 with its random numbers, and each option by hand."""
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from tests.helpers import two_layer_net
from vmamba_jax import attacks, parallel
from vmamba_jax.attacks.gradient import input_diversity, transfer

PIXEL = 1 / 255
KEY = jax.random.key(4)
STRONG, WEAK = dict(eps=8 * PIXEL, steps=10, step_size=2 * PIXEL), dict(eps=2 * PIXEL, steps=10, step_size=0.5 * PIXEL)
FIVE = STRONG | {"steps": 5}


def compare(found, wanted):
    np.testing.assert_allclose(np.moveaxis(found, -1, 1), wanted, atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", ["nifgsm", "sinifgsm"])
def test_oracle(oracle, x64, name):
    arrays, net, images, labels = oracle("attacks_whitebox_f64")
    recipe = {"nifgsm": "ni_fgsm", "sinifgsm": "si_ni_fgsm"}[name]
    run = jax.jit(lambda attack: attack(net, images, labels))
    for options, suffix in ((STRONG, ""), (WEAK, "_e2")):
        compare(run(attacks.transfer_pgd(**options, **attacks.TRANSFER[recipe])), arrays[f"ta_{name}10{suffix}"])


@pytest.fixture
def torchattacks(golden, oracle, x64, monkeypatch):
    """(arrays, run): an attack on four images whose keys are numbers, 8 * key + data under fold_in, so the value of a key shows where it is used."""
    arrays, (_, net, images, labels) = golden("attacks_transfer_f64"), oracle("attacks_whitebox_f64")
    for module in (transfer, input_diversity):
        monkeypatch.setattr(module, "fold_in", lambda keys, data: 8 * keys + data)

    def run(**options):
        attack = attacks.transfer_pgd(**FIVE, **options)
        return jax.jit(lambda keys: attack.run(net, images[:4], labels[:4], keys))(jnp.zeros(4, jnp.int32))
    return arrays, run


@pytest.mark.parametrize("name", ["vmi", "vni"])
def test_variance_tuning(torchattacks, monkeypatch, name):
    arrays, run = torchattacks
    noise = jnp.asarray(np.moveaxis(arrays[f"{name}_noise"], 3, -1) / 4096)  # step, neighbor, image, ...

    def recorded(threat, radius, x, keys):
        assert (threat.norm, radius) == ("linf", 1.5)
        step, neighbor = (keys[0] - 8) // 64, (keys[0] - 8) % 64
        return noise[step, neighbor]
    monkeypatch.setattr(input_diversity, "neighbor", recorded)
    compare(run(**attacks.TRANSFER[f"{name}_fgsm"] | {"neighbors": 2}), arrays[name])


@pytest.mark.parametrize("kernel", input_diversity.KERNELS)
def test_translations(torchattacks, kernel):
    arrays, run = torchattacks
    compare(run(decay=1.0, kernel=kernel, kernel_size=7), arrays[f"ti_{kernel}"])
    if kernel == "gaussian":
        compare(run(kernel=kernel), arrays["ti_default"])


@pytest.mark.parametrize("name", ["di", "di_ti"])
def test_input_diversity(torchattacks, monkeypatch, name):
    arrays, run = torchattacks
    draws = jnp.asarray(arrays[f"{name}_draws"])  # step: rows, top, left, coin

    def recorded(key, height, width, rate, probability):
        rows, top, left, coin = draws[key // 8]
        return coin < probability, rows.astype(int), top.astype(int), left.astype(int)
    monkeypatch.setattr(input_diversity, "placement", recorded)
    options = {"di": {}, "di_ti": dict(kernel="gaussian", kernel_size=5)}[name]
    compare(run(decay=1.0, diversity=0.7, resize_rate=0.6, **options), arrays[name])


def test_resizing_matches_jax():
    x = np.random.default_rng(0).random((1, 10, 15, 2), np.float32)

    @jax.jit
    def both():
        def apply(whether, rate):
            rows, columns = input_diversity.resize_matrices(whether, 6, 3, 2, 10, 15, rate)
            return jnp.einsum("ij,kl,bjlc->bikc", rows, columns, x)
        found = apply(True, 0.5), apply(False, 0.5), apply(False, 1.4)
        shrunk = jax.image.resize(x, (1, 6, 9, 2), "linear", antialias=False)
        return found, (jnp.pad(shrunk, ((0, 0), (3, 1), (2, 4), (0, 0))), x, jax.image.resize(x, (1, 14, 21, 2), "linear"))
    for found, wanted in zip(*both(), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_placement():
    place = input_diversity.placement
    draw = jax.jit(jax.vmap(lambda key: (place(key, 10, 20, 0.6, 0.25), place(key, 10, 10, 1.5, 1.0))))
    (whether, rows, top, left), (_, large, above, _) = jax.tree.map(np.asarray, draw(jax.random.split(KEY, 2000)))
    assert abs(whether.mean() - 0.25) < 0.04 and set(rows) == {6, 7, 8, 9}
    assert (top >= 0).all() and (top < 10 - rows).all() and (left < 20 - 2 * rows).all() and left.max() == 7
    assert set(large) == set(range(10, 15)) and (above < 15 - large).all()


def examples(n=6):
    return two_layer_net.examples((n, 6, 6, 2))


ALL = dict(decay=0.9, nesterov=True, scales=2, diversity=0.8, resize_rate=0.7, kernel="gaussian", kernel_size=3, neighbors=2)


@pytest.mark.slow
def test_all_options_together():
    """Inside ball and box, with increasing loss, and independent of the batch."""
    logits_fn, images, labels = examples(8)
    attack = attacks.transfer_pgd(0.5, 4, norm="l2", random_start=True, **ALL)
    run = jax.jit(lambda x, y, keys: attack(logits_fn, x, y, keys))
    keys = attacks.per_image_keys(KEY, 8)
    first, second = run(images[:6], labels[:6], keys[:6]), run(images[2:], labels[2:], keys[2:])
    np.testing.assert_allclose(first[2:], second[:4], atol=1e-5)
    moved = np.asarray(first - images[:6]).reshape(6, -1)
    assert np.linalg.norm(moved, axis=1).max() <= 0.5 * (1 + 1e-5) and first.min() >= 0 and first.max() <= 1
    loss = lambda x: attacks.losses.cross_entropy(logits_fn(x), labels[:6]).mean()
    assert loss(first) > loss(images[:6]) + 0.05
    other = run(images[:6], labels[:6], attacks.per_image_keys(jax.random.key(9), 6))
    assert np.abs(other - first).max() > 1e-3


def test_neighbors_are_uniform_in_the_ball():
    x = jnp.zeros((300, 2, 2, 1))
    for norm, order in (("linf", np.inf), ("l2", 2), ("l1", 1)):
        threat = attacks.ThreatModel(norm, 2.0)
        drawn = jax.jit(lambda keys, threat=threat: input_diversity.neighbor(threat, 1.5, x, keys))(jax.random.split(KEY, 300))
        size = np.linalg.norm(np.asarray(drawn).reshape(300, -1), order, axis=1)
        assert 2.8 < size.max() <= 3 + 1e-5


def test_defaults_are_pgd():
    logits_fn, images, labels = examples()
    run = jax.jit(lambda attack: attack(logits_fn, images, labels))
    np.testing.assert_array_equal(run(attacks.transfer_pgd(0.1, 3)), run(attacks.pgd(0.1, 3, random_start=False)))


def test_published_names():
    for name, options in attacks.TRANSFER.items():
        assert attacks.transfer_pgd(0.1, 3, norm="l2", **options).published == name
    assert attacks.momentum_pgd(0.1, 3).published == "mi_fgsm"
    assert attacks.transfer_pgd(0.1, 3).published is None and attacks.momentum_pgd(0.1, 3, accumulate="steps").published is None


def test_settings_and_errors():
    attack = attacks.transfer_pgd(0.1, 3, **ALL)
    assert attacks.create(**json.loads(json.dumps(attack.settings))) == attack and hash(attack)
    for error, options, text in (
            (ValueError, dict(diversity=1.5), "diversity=1.5"), (ValueError, dict(resize_rate=1), "resize_rate=1"),
            (ValueError, dict(kernel="box"), "kernel='box'"), (ValueError, dict(kernel_size=4), "kernel_size=4"),
            (ValueError, dict(neighbors=-1), "neighbors=-1"), (ValueError, dict(scales=0), "scales=0"),
            (TypeError, dict(nesterov=1), "nesterov=1")):
        with pytest.raises(error, match="expected") as raised:
            attacks.transfer_pgd(0.1, 3, **options)
        assert text in str(raised.value)
    with pytest.raises(ValueError, match="key=None: expected a random key"):
        attacks.transfer_pgd(0.1, 1, neighbors=1)(*examples())
    with pytest.raises(ValueError, match="resize_rate=0.9.*1 pixels high.*expected"):
        attacks.transfer_pgd(0.1, 1, diversity=1)(lambda x: x.reshape(2, -1), jnp.zeros((2, 1, 9, 1)), jnp.zeros(2, int), KEY)


@pytest.mark.parametrize("attack", [
    attacks.transfer_pgd(0.1, 2, **ALL), attacks.transfer_pgd(0.5, 2, norm="l1", random_start=True, **ALL | {"resize_rate": 1.3, "diversity": 0.0}),
    attacks.masked_pgd(0.1, 2, mask=("scan", 3, "rows", 4), restarts=2), attacks.frequency_pgd(0.1, 2, size=2, restarts=2),
    attacks.frequency_pgd(0.1, 2, keep="high", size=2, limit="inside"), attacks.eot_pgd(0.1, 2, restarts=2),
], ids=lambda attack: attack.name)
def test_dtype_and_shard_map(attack, x64):
    _, images, labels = examples(8)
    plain = lambda x, keys=None: x.reshape(len(x), -1)[:, :5] ** 2
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float64):
        out = jax.eval_shape(lambda x: attack(plain, x, labels, KEY), jax.ShapeDtypeStruct(images.shape, dtype))
        assert (out.shape, out.dtype) == (images.shape, dtype)
    mesh = parallel.data_mesh()
    sharded = jax.shard_map(lambda x, y, keys: attack(plain, x, y, keys), mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=True)
    jax.eval_shape(sharded, images, labels, attacks.per_image_keys(KEY, 8))
