"""Square: windows, patterns, and properties of each norm."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import attacks
from vmamba_jax.attacks.autoattack import square_proposals
from vmamba_jax.attacks.autoattack.square import draw, random_search, random_start
from vmamba_jax.core.keys import fold_in

CASES = {"linf": attacks.square(0.1, 60), "l2": attacks.square(0.5, 60, "l2"), "l1": attacks.square(1.5, 60, "l1", restarts=2)}


@pytest.mark.parametrize("norm", CASES)
@pytest.mark.often(1)
def test_ball_box_and_success(norm, tiny, check_search):
    assert 2 < check_search(CASES[norm], tiny).sum() < 12


def test_starts():
    images, keys = jnp.full((3, 10, 15, 2), 0.5), jax.random.split(jax.random.key(0), 3)
    x = np.asarray(random_start(attacks.ThreatModel("linf", 0.125), images, keys)) - 0.5
    assert (np.abs(x) == 0.125).all() and (x == x[:, :1]).all() and (x[0] != x[1]).any()
    for norm, p in (("l2", 2), ("l1", 1)):
        x = np.asarray(random_start(attacks.ThreatModel(norm, 0.5), images, keys)) - 0.5
        np.testing.assert_allclose(np.linalg.norm(x.reshape(3, -1), p, axis=1), 0.5, rtol=1e-4)


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("side", [1, 2, 3, 7])
def test_bump(norm, side):
    x = square_proposals.bump(side, norm)
    np.testing.assert_allclose(np.linalg.norm(x.ravel(), {"l2": 2, "l1": 1}[norm]), 1)
    assert (x[:side // 2] > 0).all() and (x[side // 2:] < 0).all()


def test_proposal_changes_only_its_window():
    images = jnp.full((2, 6, 7, 3), 0.5)
    corner, signs = jnp.array([[0, 1], [3, 2]]), jnp.array([[1.0, -1, 1], [-1, 1, 1]])
    x = square_proposals.square(attacks.ThreatModel("linf", 0.1), images, images, 2, corner, signs)
    expected = np.zeros((2, 6, 7, 3))
    expected[0, 0:2, 1:3], expected[1, 3:5, 2:4] = 0.1 * signs[0], 0.1 * signs[1]
    np.testing.assert_allclose(x - images, expected, atol=1e-6)


def test_draws_cover_the_image():
    draws = jax.vmap(lambda key: draw(key[None], 3, (7, 10, 2)))(jax.random.split(jax.random.key(0), 400))
    for corners in (draws.corner, draws.other):
        assert set(np.unique(corners[..., 0])) == set(range(4)) and set(np.unique(corners[..., 1])) == set(range(7))
    assert 0.4 < np.mean(draws.flip) < 0.6 and set(np.unique(draws.signs)) == {-1, 1}


def test_success_is_accepted_at_a_lower_value():
    """A misclassified proposal ends the search of its image, whatever its value; inactive images keep their start."""
    images, keys = jnp.full((3, 6, 6, 1), 0.5), attacks.per_image_keys(jax.random.key(0), 3)
    threat = attacks.ThreatModel("linf", 0.1)

    def evaluate(x):
        change = jnp.abs(x - images).sum((1, 2, 3))
        return -change, change > 0
    used, found, value, success = random_search(evaluate, threat, images, images, np.full(4, 2), lambda i, side: draw(fold_in(keys, i), side, (6, 6, 1)),
                                                active=jnp.array([True, True, False]))
    assert used.tolist() == [2, 2, 1] and success.tolist() == [True, True, False]
    assert (value[:2] < 0).all() and (found[2] == images[2]).all()


def test_schedule():
    np.testing.assert_array_equal(attacks.square(0.1, 60, p_init=1.0).sides((8, 8)), [8] * 11 + [6] * 40 + [4] * 9)
    rescaled = attacks.square(0.1, 100, p_init=1.0, rescale=True).sides((64, 64))
    assert rescaled[0] == 64 and rescaled[1] == 32 and rescaled[-1] == 3  # query 99 of 100 is 9,900 of 10,000


@pytest.mark.parametrize(("error", "options", "text"), [
    (ValueError, {"queries": 0}, "queries=0"), (ValueError, {"p_init": 0}, "p_init=0"), (ValueError, {"p_init": 1.5}, "p_init=1.5"),
    (TypeError, {"rescale": 1}, "rescale=1"), (ValueError, {"loss": "hinge"}, "loss='hinge'"),
    (ValueError, {"norm": "Linf"}, "norm='Linf'"),
])
def test_bad_settings(error, options, text):
    with pytest.raises(error, match="expected") as raised:
        attacks.create("square", **{"eps": 0.1} | options)
    assert text in str(raised.value)


def test_needs_a_key(tiny):
    with pytest.raises(ValueError, match="key=None.*random search"):
        attacks.square(0.1)(*tiny)
