"""PGD within a mask: pixels outside it keep their values, the ball is the masked perturbation's; named masks by hand."""
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import two_layer_net
from vmamba_jax import attacks, evaluation
from vmamba_jax.attacks import masks, norms
from vmamba_jax.core import scan_orders

EPS = {"linf": 0.1, "l2": 0.4, "l1": 1.0}
KEY = jax.random.key(3)


def examples():
    return two_layer_net.examples((6, 6, 6, 2))


@jax.jit
def run(attack, logits_fn, images, labels):
    return attack(logits_fn, images, labels, KEY)


def picture(mask, side=8):
    return np.asarray(mask(jnp.zeros((2, side, side, 3))))[0, :, :, 0].astype(int)


@pytest.mark.parametrize("norm", EPS)
def test_only_masked_pixels_change(norm):
    logits_fn, images, labels = examples()
    mask = np.zeros((6, 6, 1), bool)
    mask[1:4, 2:5] = True
    attack = attacks.masked_pgd(EPS[norm], 6, norm=norm, mask=mask, l1_fraction=0.1)
    x, images = map(np.asarray, (run(attack, logits_fn, images, labels), images))
    outside = ~np.broadcast_to(mask, x.shape)
    np.testing.assert_array_equal(x[outside], images[outside])
    order = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    size = np.linalg.norm((x - images).reshape(6, -1), order, axis=1)
    assert (size <= EPS[norm] * (1 + 1e-5)).all() and (size > 0.3 * EPS[norm]).all() and x.min() >= 0 and x.max() <= 1
    at = jnp.arange(6), labels
    loss = lambda x: -jax.nn.log_softmax(logits_fn(x))[at].mean()
    assert loss(x) > loss(images) + 0.1


@pytest.mark.parametrize("norm", EPS)
def test_full_and_empty_masks(norm):
    logits_fn, images, labels = examples()
    plain = run(attacks.pgd(EPS[norm], 4, norm=norm, random_start=False), logits_fn, images, labels)
    attack = lambda mask: attacks.masked_pgd(EPS[norm], 4, norm=norm, random_start=False, mask=mask)
    np.testing.assert_array_equal(run(attack(np.ones((6, 6, 1))), logits_fn, images, labels), plain)
    np.testing.assert_array_equal(run(attack(np.zeros((6, 6))), logits_fn, images, labels), images)


def test_mask_is_traced_and_per_image():
    logits_fn, images, labels = examples()
    traces = []

    @jax.jit
    def counted(attack):
        traces.append(attack)
        return attack(logits_fn, images, labels, KEY)
    mask = np.zeros((6, 6, 6, 1))
    mask[np.arange(6), np.arange(6)] = 1
    x = np.asarray(counted(attacks.masked_pgd(0.1, 3, mask=mask, restarts=2)))
    moved = (x != np.asarray(images)).any((2, 3))
    np.testing.assert_array_equal(moved, np.eye(6, dtype=bool))
    y = counted(attacks.masked_pgd(0.1, 3, mask=mask[::-1].copy(), restarts=2))
    assert len(traces) == 1 and (np.asarray(y != images).any((2, 3)) == np.eye(6, dtype=bool)[::-1]).all()

    bright = run(attacks.masked_pgd(0.1, 1, mask=lambda images: images.mean(3, keepdims=True) > 0.5), logits_fn, images, labels)
    changed = np.asarray(bright != images).any(3)
    assert changed.any() and not changed[np.asarray(images.mean(3)) <= 0.5].any()


@pytest.mark.parametrize(("norm", "order"), [("linf", np.inf), ("l2", 2), ("l1", 1)])
def test_start_is_uniform_in_the_masked_ball(norm, order):
    mask = jnp.zeros((1, 2, 3, 1), bool).at[0, 0, :2].set(True)  # 4 values of 12
    x = np.asarray(norms.uniform_in_ball(jnp.zeros((4000, 2, 3, 2)), jax.random.split(KEY, 4000), norm, mask))
    assert not x[:, 1].any() and not x[:, 0, 2].any()
    values = x[:, 0, :2].reshape(4000, -1)
    size = np.linalg.norm(values, order, axis=1)
    assert size.max() <= 1 + 1e-6 and np.abs(values.mean(0)).max() < 0.03
    assert abs((size**4).mean() - 0.5) < 0.02  # the fraction of the volume within a radius is uniform


def test_named_masks():
    ring = picture(masks.rings(4, 1), 4)
    np.testing.assert_array_equal(ring, [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]])
    np.testing.assert_array_equal(picture(masks.rings(5, 0, 1), 5)[1:4, 1:4], np.ones((3, 3)))
    assert sum(picture(masks.rings(7, i), 7) for i in range(4)).tolist() == np.ones((7, 7)).tolist()
    assert [picture(masks.rings(7, i), 7).sum() for i in range(4)] == [1, 8, 16, 24]
    one = picture(masks.patches(4, (1, 14)))
    assert one.sum() == 8 and one[0:2, 2:4].all() and one[6:8, 4:6].all()
    scans = {name: picture(masks.scan(4, name, 5), 4).tolist() for name in scan_orders.DIRECTIONS}
    assert scans["rows"] == [[1, 1, 1, 1], [1, 0, 0, 0], [0] * 4, [0] * 4]
    assert scans["columns"] == np.transpose(scans["rows"]).tolist()
    assert scans["rows_back"] == [row[::-1] for row in scans["rows"][::-1]]
    assert scans["columns_back"] == np.transpose(scans["rows_back"]).tolist()
    uneven = np.asarray(masks.patches(3, (0,))(jnp.zeros((1, 7, 9, 1))))[0, :, :, 0]
    assert uneven.sum() == 9 and uneven[:3, :3].all()
    for name, route in zip(scan_orders.DIRECTIONS, scan_orders.routes("cross", 4, 4), strict=True):
        assert set(np.flatnonzero(scans[name])) == set(route[:5].tolist())


@pytest.mark.parametrize("mask", [("rings", 6, 0, 1), ("scan", 3, "columns_back", 4), ("patches", 3, (0, 8)), masks.rings(3, 1)], ids=str)
def test_settings_round_trip(mask):
    attack = attacks.masked_pgd(0.1, 3, mask=mask)
    again = attacks.create(**json.loads(json.dumps(attack.settings)))
    assert again == attack and hash(again) == hash(attack)
    logits_fn, images, labels = examples()
    shape = jax.eval_shape(jax.jit(attack), logits_fn, images, labels, KEY).shape
    assert shape == images.shape and not jax.tree.leaves(attack.mask)


@pytest.mark.parametrize(("error", "mask", "text"), [
    (ValueError, ("ring", 3), "'ring'"), (ValueError, ("rings", 4, 2), "first=2"), (ValueError, ("rings", 0, 0), "grid=0"),
    (ValueError, ("patches", 2, (4,)), "numbers=(4,)"), (ValueError, ("scan", 2, "snake", 1), "direction='snake'"),
    (ValueError, ("scan", 2, "rows", 5), "count=5"), (TypeError, ("scan", 2, "rows", 0.5), "count=0.5"), (TypeError, None, "mask=None"),
    (ValueError, ("rings", 7, 0), "grid=7"), (ValueError, np.ones((5, 6, 1)), "mask.shape=(5, 6, 1)"),
    (ValueError, np.ones((2, 6, 6, 1)), "mask.shape=(2, 6, 6, 1)"), (ValueError, lambda x: x, "mask returned shape (6, 6, 6, 2)"),
])
def test_errors(error, mask, text):
    logits_fn, images, labels = examples()
    with pytest.raises(error, match="expected") as raised:
        attacks.masked_pgd(0.1, 1, mask=mask)(logits_fn, images, labels, KEY)
    assert text in str(raised.value)


def test_over_a_set():
    """One mask for all images, as an array, serves any batch and mesh."""
    logits_fn, images, labels = examples()
    mask = np.zeros((6, 6, 1))
    mask[2:] = 1
    attack = attacks.masked_pgd(0.3, 2, mask=mask, random_start=False)
    result = evaluation.robust_accuracy(logits_fn, (np.asarray(images), np.asarray(labels)), attack, key=KEY, batch_size=3)
    fooled = logits_fn(run(attack, logits_fn, images, labels)).argmax(1) != labels
    np.testing.assert_array_equal(result["robust"], ~np.asarray(fooled))
    assert json.loads(json.dumps(result["attack"]))["mask"] == "array(6, 6, 1)"
