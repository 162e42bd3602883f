"""APGD on segmentation with a shrinking radius against a plain loop of the released program, TsallisPGD, SEA, and PGD on any dense loss."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vmamba_jax import attacks
from vmamba_jax.attacks import losses
from vmamba_jax.attacks.dense import losses as dense

EPS, STEPS, KEY = 0.06, 20, jax.random.key(3)
RNG = np.random.default_rng(0)
MIX, HEAD = jnp.asarray(RNG.normal(size=(3, 6)) * 3, jnp.float32), jnp.asarray(RNG.normal(size=(6, 4)) * 3, jnp.float32)
WEIGHTS = (0.5, 1.0, 1.5, 1.0)


def outputs(x):
    """A smooth nonlinear segmenter whose pixels affect their neighbors."""
    h = jnp.tanh((x - 0.5) @ MIX)
    return (h + 0.5 * jnp.roll(h, 1, 1) + 0.5 * jnp.roll(h, 1, 2)) @ HEAD


IMAGES = jnp.asarray(RNG.uniform(0.1, 0.9, (3, 6, 5, 3)), jnp.float32)
LABELS = np.array(outputs(IMAGES).argmax(-1), np.int32)
LABELS[0, 0, :3], LABELS[1, 2, 2] = 255, (LABELS[1, 2, 2] + 1) % 4


NAMES = ("mask_ce_bal", "mask_ce_avg", "js_avg", "tsallis_schedule")


@jax.jit
def measured(k, x, progress):
    """(tracked loss, share of right pixels, gradient of the loss NAMES[k])."""
    def loss(x):
        logits = outputs(x)
        more = {"mask_ce_bal": {"weights": WEIGHTS}, "tsallis_schedule": {"progress": progress}}
        return lax.switch(k, [functools.partial(dense.LOSSES[name], labels=LABELS, **more.get(name, {})) for name in NAMES], logits).mean((1, 2)).sum(), logits
    (_, logits), gradient = jax.value_and_grad(loss, has_aux=True)(x)
    right = ((logits.argmax(-1) == LABELS) | (LABELS == 255)).mean((1, 2))
    return dense.cross_entropy(logits, LABELS).mean((1, 2)), right, gradient


def released(k, start):
    """The released program's loop in NumPy, image by image: three balls, momentum 0.75, the checks of APGD, the iterate of fewest right pixels."""
    x = np.asarray(IMAGES)
    for factor, n in zip((2, 1.5, 1), (6, 6, 8), strict=True):
        eps = factor * EPS
        project = lambda z, eps=eps: np.clip(np.clip(z, x - eps, x + eps), 0, 1)
        at, old = project(start), project(start)
        size, window, least, drop = np.full(3, 2 * eps), max(int(0.22 * n), 1), max(int(0.06 * n), 1), max(int(0.03 * n), 1)
        value, right, gradient = map(np.array, measured(k, jnp.asarray(at), 0.0))
        best, best_gradient, best_value, fewest, chosen = at.copy(), gradient.copy(), value.copy(), right.copy(), at.copy()
        checked, halved, history, since = value.copy(), np.ones(3, bool), np.zeros((n, 3)), 0
        for i in range(n):
            momentum, old = at - old, at.copy()
            a = 0.75 if i else 1.0
            step = project(at + size[:, None, None, None] * np.sign(gradient))
            at = project(at + (step - at) * a + momentum * (1 - a))
            value, right, gradient = map(np.array, measured(k, jnp.asarray(at, jnp.float32), (i + 1) / n))
            take = right <= fewest
            fewest, chosen[take] = np.minimum(fewest, right), at[take]
            history[i] = value
            better = value > best_value
            best[better], best_gradient[better], best_value[better] = at[better], gradient[better], value[better]
            since += 1
            if since == window:
                rises = sum(history[i - k] > history[i - k - 1] for k in range(window))
                slow = (rises <= window * 0.75) | (~halved & (checked >= best_value))
                halved, checked = slow, best_value.copy()
                size[slow] /= 2
                at[slow], gradient[slow] = best[slow], best_gradient[slow]
                since, window = 0, max(window - drop, least)
        start = chosen
    return start


@pytest.fixture(scope="module")
def from_images():
    """Results from the images themselves: the three parts of SEA in one program, and TsallisPGD."""
    ensemble = attacks.sea(EPS, STEPS, random_start=False, weights=WEIGHTS)
    each = jax.jit(lambda x: ensemble.each(outputs, x, LABELS, None)[0])(IMAGES)
    return [*each, jax.jit(lambda x: attacks.tsallis_pgd(EPS, STEPS, random_start=False)(outputs, x, LABELS))(IMAGES)]


@pytest.mark.parametrize("k", range(4), ids=NAMES)
def test_against_a_plain_loop(from_images, k):
    attack, found = attacks.dense_apgd(EPS, STEPS), from_images[k]
    wanted = released(k, np.asarray(IMAGES))
    assert np.mean(np.abs(found - wanted) > 1e-5) < 0.02                               # a sign of a gradient near 0 may differ
    assert np.abs(found - IMAGES).max() <= EPS + 1e-6 and attack.passes.forward_backward == STEPS + 3
    shown = lambda x: ((outputs(jnp.asarray(x, jnp.float32)).argmax(-1) == LABELS) | (LABELS == 255)).mean((1, 2))
    np.testing.assert_allclose(shown(found), shown(wanted), atol=0.04)
    assert (shown(found) < shown(IMAGES) - 0.2).all()


@pytest.fixture(scope="module")
def parts():
    """(SEA, its result, those of its parts) with one key."""
    attack = attacks.sea(EPS, STEPS, weights=WEIGHTS)
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(3))
    found, each = jax.jit(lambda x: (attack(outputs, x, LABELS, KEY), attack.each(outputs, x, LABELS, keys)[0]))(IMAGES)
    return attack, found, each


def test_sea_is_the_worst_part(parts):
    attack, found, each = parts
    right = lambda x: dense.right_pixels(outputs(x), LABELS)
    np.testing.assert_allclose(right(found), np.min([right(x) for x in each], 0))
    assert [part.loss for part in attack.attacks] == ["mask_ce_bal", "mask_ce_avg", "js_avg"] and attack.passes.forward_backward == 3 * (STEPS + 3)
    assert len({x.tobytes() for x in map(np.asarray, each)}) == 3
    assert [part.loss for part in attacks.sea(EPS, STEPS).attacks] == ["mask_ce_avg", "js_avg"]
    alone = jax.jit(lambda x, keys: attack.attacks[1](outputs, x, LABELS[1:2], keys))(IMAGES[1:2], jax.random.fold_in(KEY, 1)[None])
    np.testing.assert_allclose(alone[0], each[1][1], atol=1e-6)                         # no image affects another


def test_schedule_of_tsallis_pgd():
    assert attacks.tsallis_pgd(EPS).settings["loss"] == "tsallis_schedule" and attacks.tsallis_pgd(EPS).steps == 300
    scheduled = [float(dense.tsallis_schedule(outputs(IMAGES), LABELS, p).sum()) for p in (0.0, 0.5, 1.0)]
    np.testing.assert_allclose(scheduled, [float(losses.tsallis(outputs(IMAGES), LABELS, q).sum()) for q in (-2.0, -0.5, 1.0)], rtol=1e-6)


@pytest.mark.slow
def test_one_ball_and_l2():
    """All steps in the ball of the radius itself; the last ball's result in l2."""
    single = jax.jit(lambda x: attacks.dense_apgd(EPS, STEPS, large_eps=False, random_start=False)(outputs, x, LABELS))(IMAGES)
    assert np.abs(single - IMAGES).max() <= EPS + 1e-6
    far = jax.jit(lambda x: attacks.dense_apgd(0.8, 12, norm="l2")(outputs, x, LABELS, KEY))(IMAGES)
    assert (np.sqrt(((far - IMAGES) ** 2).sum((1, 2, 3))) <= 0.8 + 1e-5).all()


def test_pgd_on_any_loss():
    """A named loss takes the released steps of PGD; a callable gets the outputs and the labels as they are, so that both may be a detector's."""
    attack = attacks.dense_pgd(0.1, 3, 0.04, random_start=False)
    x = IMAGES
    for _ in range(3):
        gradient = jax.grad(lambda x: dense.cross_entropy(outputs(x), LABELS).sum())(x)
        x = jnp.clip(jnp.clip(x + 0.04 * jnp.sign(gradient), IMAGES - 0.1, IMAGES + 0.1), 0, 1)
    np.testing.assert_allclose(attack(outputs, IMAGES, LABELS), x, atol=1e-6)
    detector = lambda x: {"boxes": x.mean((1, 2)), "scores": x.sum((1, 2, 3))}
    targets = {"boxes": jnp.ones((3, 3))}
    loss = lambda found, wanted: ((found["boxes"] - wanted["boxes"]) ** 2).sum(-1) + 0 * found["scores"]
    found = attacks.dense_pgd(0.1, 2, loss=loss, random_start=False)(detector, IMAGES, targets)
    np.testing.assert_allclose(found, np.maximum(np.asarray(IMAGES) - 0.1, 0), atol=1e-6)
    assert attacks.create("dense_pgd", eps=0.1, steps=2) == attacks.dense_pgd(0.1, 2) and attacks.create("sea", eps=0.1).name == "sea"
    with pytest.raises(ValueError, match="loss returned shape"):
        attacks.dense_pgd(0.1, 2, loss=lambda found, wanted: found["boxes"], random_start=False)(detector, IMAGES, targets)


@pytest.mark.parametrize("make,message", [
    (lambda: attacks.dense_apgd(0.1, loss="mask_ce_bal"), "weights=None with loss='mask_ce_bal'"), (lambda: attacks.dense_apgd(0.1, weights=(1.0,)), "weights="),
    (lambda: attacks.dense_apgd(0.1, 3), "steps=3"), (lambda: attacks.dense_apgd(0.1, 8, 0.1), "step_size=0.1: expected None"),
    (lambda: attacks.dense_apgd(0.1, norm="l1"), "norm='l1'"), (lambda: attacks.sea(0.1, targeted=True), "targeted=True: expected False"),
    (lambda: attacks.dense_pgd(0.1, 2, loss="margin"), "loss='margin'"), (lambda: attacks.dense_apgd(0.1, loss="cospgd"), "loss='cospgd'"),
])
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
