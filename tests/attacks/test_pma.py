"""The probability margin: its equations in plain numpy; PMA, PMA+ and MALT's targets against plain loops on a linear classifier."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from vmamba_jax import attacks
from vmamba_jax.attacks import losses
from vmamba_jax.attacks.autoattack.pma import step_size
from vmamba_jax.attacks.autoattack.search import malt_targets
from vmamba_jax.core.keys import attempt_keys, fold_in

KEY, EPS, STEPS = jax.random.key(5), 0.16, 7


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def linear(weights, images):
    return images.reshape(len(images), -1) @ weights


@pytest.fixture(scope="module")
def subject():
    """(weights (12, 5), images (10, 2, 3, 2), labels) in float64: all as predicted but the last image's."""
    rng = np.random.default_rng(3)
    weights, images = rng.normal(size=(12, 5)), rng.uniform(size=(10, 2, 3, 2))
    labels = linear(weights, images).argmax(1)
    labels[-1] = (labels[-1] + 1) % 5
    return weights, images, labels


def test_probability_margin(x64):
    """max p_j - p_y, and dL/dz_i = p_m (1[i = m] - p_i) - p_y (1[i = y] - p_i), in float64."""
    z = 3 * np.random.default_rng(0).normal(size=(6, 4))
    labels = np.arange(6) % 4
    p, rows = softmax(z), np.arange(6)
    others = np.where(np.arange(4) == labels[:, None], -1, p)
    highest = others.argmax(1)
    np.testing.assert_allclose(losses.probability_margin(jnp.asarray(z), jnp.asarray(labels)), others.max(1) - p[rows, labels], atol=1e-14)
    own, other = np.eye(4)[labels] - p, np.eye(4)[highest] - p
    wanted = p[rows, highest][:, None] * other - p[rows, labels][:, None] * own
    found = jax.grad(lambda z: losses.probability_margin(z, jnp.asarray(labels)).sum())(jnp.asarray(z))
    np.testing.assert_allclose(found, wanted, atol=1e-14)
    assert losses.get("probability_margin") is losses.probability_margin
    with pytest.raises(ValueError, match="loss='probability_margin' on 1 classes: expected at least 2"):
        losses.probability_margin(jnp.ones((2, 1)), jnp.zeros(2, jnp.int32))


def test_gradient_of_a_saturated_softmax():
    """Where p_y rounds to 1 in float32, the gradient of the softmax's own margin vanishes at the label; here it does not."""
    z, labels = jnp.array([[30.0, 0.0, 1.0]]), jnp.array([0])
    wrong = float(np.exp(-30.0) + np.exp(-29.0))
    found = jax.grad(lambda z: losses.probability_margin(z, labels).sum())(z)[0]
    np.testing.assert_allclose(found[0], -wrong - np.exp(-29.0), rtol=1e-5)
    plain = jax.grad(lambda z: (jax.nn.softmax(z)[0, 2] - jax.nn.softmax(z)[0, 0]))(z)[0]
    assert abs(plain[0]) < 0.6 * abs(found[0])
    assert losses.probability_margin(z, labels)[0] == -1.0


def plain_run(weights, image, label, start, raised, loss):
    """(misclassified iterate or None) of one run of the released program, for one image."""
    x = start
    for i in range(STEPS + 1):
        z = x.ravel() @ weights
        if z.argmax() != label:
            return x
        if i == STEPS:
            return None
        p = softmax(z)
        score = p if loss == "probability_margin" else z
        jacobian = np.diag(p) - np.outer(p, p) if loss == "probability_margin" else np.eye(5)     # of the scores, d score / dz
        other = np.where(np.arange(5) == label, -np.inf, score).argmax()
        own_row, other_row = jacobian[label], jacobian[other]
        row = own_row if i < 1 else (other_row if raised else -own_row) if i < STEPS / 2 else other_row - own_row
        change = STEPS / 2
        since = i - change - 1 if i > change else i - 1
        size = 2 * EPS * 0.5 * (1 + np.cos(since / (STEPS - change) * np.pi))
        x = np.clip(np.clip(x + size * np.sign((weights @ row).reshape(x.shape)), image - EPS, image + EPS), 0, 1)
    return None


@pytest.mark.parametrize("loss", ["probability_margin", pytest.param("margin", marks=pytest.mark.slow)])
def test_pma_is_the_plain_loop(x64, subject, loss):
    weights, images, labels = subject
    attack = attacks.pma(EPS, STEPS, loss=loss)
    found = np.asarray(jax.jit(attack)(Partial(linear, jnp.asarray(weights)), jnp.asarray(images), jnp.asarray(labels), KEY))
    wanted, runs = images.copy(), []
    for r in range(2):
        keys = attempt_keys(attacks.per_image_keys(KEY, len(images)), r, 2)
        starts = np.asarray(attack.threat_model.random_start(jnp.asarray(images), fold_in(keys, 2**31 - 1)))
        for n in range(len(images) - 1):
            if (wanted[n] == images[n]).all():
                x = plain_run(weights, images[n], labels[n], starts[n], r == 1, loss)
                if x is not None:
                    wanted[n] = x
                    runs.append(r)
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    assert (found[-1] == images[-1]).all() and 2 < len(runs) < len(images) - 1


def test_step_sizes():
    """The released program's: initial_step_size = 2 eps, times half of one plus a cosine, which begins again after the half."""
    for steps in (7, 10):
        wanted = [0.5 * 2 * (1 + np.cos((i - steps / 2 - 1 if i > steps / 2 else i - 1) / (steps - steps / 2) * np.pi)) for i in range(steps)]
        np.testing.assert_allclose([step_size(i, steps) for i in range(steps)], wanted, atol=1e-6)
    assert step_size(6, 10) == 2 == step_size(1, 10) and step_size(5, 10) < 0.2


def test_pma_searches(tiny, check_search):
    assert 2 < check_search(attacks.pma(0.06, 6), tiny).sum() < 12


@pytest.mark.slow
@pytest.mark.parametrize("norm,eps", [("l2", 0.3), ("l1", 0.7)])
def test_pma_in_other_norms(norm, eps, tiny, check_search):
    assert 2 < check_search(attacks.pma(eps, 6, norm), tiny).sum() < 12


def test_targets_of_malt(x64, subject):
    """The classes in the order of (z_y - z_t) / |w_y - w_t| in the dual norm, the nearest boundary of a linear classifier first."""
    weights, images, labels = subject
    weights = weights * (1, 5, 1, 5, 1)  # long and short gradients: the nearest boundary is not always that of the highest logit
    z, rows = linear(weights, images), np.arange(len(images))
    for norm, order in (("linf", 1), ("l2", 2), ("l1", np.inf)):
        lengths = np.stack([[np.linalg.norm(weights[:, y] - weights[:, t], order) for t in range(5)] for y in labels])
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = np.where(np.arange(5) == labels[:, None], np.inf, (z[rows, labels][:, None] - z) / lengths)
        arguments = Partial(linear, jnp.asarray(weights)), jnp.asarray(images), jnp.asarray(labels), None, jnp.asarray(z)
        np.testing.assert_array_equal(malt_targets(*arguments, 3, norm), distance.argsort(1)[:, :3])
        only = np.asarray(malt_targets(*arguments, 2, norm, candidates=2))
        highest = np.where(np.arange(5) == labels[:, None], -np.inf, z).argsort(1)[:, ::-1][:, :2]
        np.testing.assert_array_equal(np.sort(only), np.sort(highest))
    assert (distance.argsort(1)[:, :4] != np.where(np.arange(5) == labels[:, None], np.inf, -z).argsort(1)[:, :4]).any()
    with pytest.raises(ValueError, match="n_targets=5 on 5 classes: expected at most 4"):
        malt_targets(*arguments, 5, norm)


def test_malt_in_apgd(tiny, check_search):
    """The first target is the nearest boundary's; with one step per target the results differ from those in the order of the logits."""
    attack = attacks.apgd(0.06, 4, loss="dlr_targeted", n_targets=2, targets="malt")
    assert 2 < check_search(attack, tiny).sum() < 12
    assert attacks.create(**attack.settings) == attack
    with pytest.raises(ValueError, match="targets='malt' with n_targets=None"):
        attacks.apgd(0.1, targets="malt")
    with pytest.raises(ValueError, match="targets='random': expected one of 'logits', 'malt'"):
        attacks.apgd(0.1, n_targets=2, targets="random")


def test_pma_plus():
    stages = attacks.autoattack(0.1, version="pma+", n_targets=3, steps=4).stages()
    assert [name for name, _ in stages] == ["pma", "apgd-t"]
    assert stages[0][1] == attacks.pma(0.1, 4) and stages[1][1].n_targets == 3


@pytest.mark.parametrize("options,words", [
    (dict(steps=1), "steps=1: expected at least 2"), (dict(loss="dlr"), "loss='dlr': expected one of 'probability_margin', 'margin'"), (dict(eps=-1), "eps=-1")])
def test_wrong_arguments(options, words):
    with pytest.raises(ValueError, match=words):
        attacks.pma(**{"eps": 0.1} | options)
