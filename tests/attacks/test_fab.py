"""FAB: properties of each norm, and its projections against random alternatives."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import attacks
from vmamba_jax.attacks.autoattack.fab import project_to_plane

CASES = {
    "linf": attacks.fab(0.06, 8),
    "l2-t": attacks.fab(0.3, 8, "l2", n_targets=3, keep="first_hit"),
    "l1-t": attacks.fab(0.9, 8, "l1", n_targets=2, restarts=2),
}


@pytest.mark.parametrize("name", CASES)
def test_ball_box_and_success(name, tiny, check_search):
    assert 2 < check_search(CASES[name], tiny).sum() < 12


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_projection_is_shortest(norm):
    """The change is in box and plane, and no random alternative in both is shorter."""
    rng = np.random.default_rng(0)
    t, w = rng.uniform(size=(20, 6)).astype(np.float32), rng.normal(size=(20, 6)).astype(np.float32)
    w[0, 2], w[1] = 0, 1e-15 * w[1]  # a flat direction, and a gradient whose squares underflow
    inside = rng.uniform(size=(20, 6)).astype(np.float32)
    b = (w * inside).sum(1)  # so the plane meets the box
    change = np.asarray(project_to_plane(norm, *map(jnp.asarray, (t, w, b)), 0.0, 1.0))
    size = {"linf": np.inf, "l2": 2, "l1": 1}[norm]
    scale = np.abs(w).max(1)
    np.testing.assert_allclose((w * (t + change)).sum(1) / scale, b / scale, atol=2e-6)
    assert (t + change > -1e-6).all() and (t + change < 1 + 1e-6).all()
    for _ in range(200):
        other = t + change + rng.normal(size=t.shape) * 0.1
        other -= ((w * other).sum(1) - b)[:, None] * w / (w.astype(float) ** 2).sum(1)[:, None]
        fits = (other >= 0).all(1) & (other <= 1).all(1)
        shorter = np.linalg.norm(other - t, size, axis=1) < np.linalg.norm(change, size, axis=1) - 1e-5
        assert not (fits & shorter).any()


def test_unreachable_plane_gives_the_corner():
    t, w = jnp.full((1, 3), 0.5), jnp.array([[1.0, -2.0, 0.0]])
    for norm in attacks.NORMS:
        np.testing.assert_allclose(project_to_plane(norm, t, w, jnp.array([9.0]), 0.0, 1.0), [[0.5, -0.5, 0]], atol=1e-6)


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_restarts_begin_at_half_the_radius(norm, tiny):
    images = 0.4 + 0.2 * tiny[1]
    start = attacks.fab(0.3, 2, norm, restarts=2)._near(images, attacks.per_image_keys(jax.random.key(0), 12))
    np.testing.assert_allclose(attacks.ThreatModel(norm, 0.3).distance(images, start), 0.15, rtol=1e-5)


def test_smallest_is_at_most_the_first(tiny):
    net, images, labels = tiny
    def change(keep):
        found = jax.jit(attacks.fab(0.2, 10, "linf", keep=keep, n_targets=1))(net, images, labels)
        return np.abs(np.asarray(found) - np.asarray(images)).max((1, 2, 3))
    first, smallest = change("first_hit"), change("smallest")
    np.testing.assert_array_equal(first > 0, smallest > 0)
    assert (smallest <= first + 1e-7).all() and (smallest < first - 1e-4).any()


@pytest.mark.parametrize(("error", "options", "text"), [
    (ValueError, {"steps": 0}, "steps=0"), (ValueError, {"beta": -1}, "beta=-1"), (TypeError, {"eta": "big"}, "eta='big'"),
    (ValueError, {"keep": "last"}, "keep='last'"), (ValueError, {"n_targets": 0}, "n_targets=0"),
])
def test_bad_settings(error, options, text):
    with pytest.raises(error, match="expected") as raised:
        attacks.create("fab", eps=0.1, **options)
    assert text in str(raised.value)


def test_bad_calls(tiny):
    net, images, labels = tiny
    with pytest.raises(ValueError, match="n_targets=9 on 5 classes"):
        attacks.fab(0.1, 2, n_targets=9)(net, images, labels)
    with pytest.raises(ValueError, match="key=None.*restarts=2"):
        attacks.fab(0.1, 2, restarts=2)(net, images, labels)
