"""Certificates by randomized smoothing: counts by hand, the exact radius of a linear classifier, devices, resumption, errors."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.helpers.small_net import KEY, examples, logits_fn
from vmamba_jax import evaluation, parallel

OPTIONS = {"sigma": 0.5, "n0": 10, "n": 90, "alpha": 0.01, "key": KEY}


def certify(**options):
    return evaluation.certify(logits_fn(), examples(11, 2), **(OPTIONS | options))


@pytest.fixture(scope="module")
def whole():
    return certify(batch_size=200)


def test_counts_by_hand(whole):
    images, labels = examples(11, 2)
    for i in (0, 9):
        keys = [jax.random.fold_in(jax.random.fold_in(KEY, i), s) for s in range(100)]
        noisy = images[i] + 0.5 * np.stack([np.asarray(jax.random.normal(key, images.shape[1:])) for key in keys])
        votes = np.asarray(logits_fn()(jnp.asarray(noisy))).argmax(1)
        selected = np.bincount(votes[:10], minlength=5).argmax()
        count = int((votes[10:] == selected).sum())
        radius, abstains = evaluation.smoothing.certificate(count, 90, 0.5, 0.01)
        assert (whole["selected"][i], whole["count"][i], whole["radius"][i], whole["abstained"][i]) == (selected, count, radius, abstains)
        assert whole["predicted"][i] == (-1 if abstains else selected) and whole["correct"][i] == (whole["predicted"][i] == labels[i])
    assert whole["accuracy"] == whole["correct"].mean() and whole["abstention"] == whole["abstained"].mean() and whole["examples"] == 11
    assert 0 < whole["abstained"].sum() < 11 and "not_finite" not in whole
    assert whole["certificate"] == {"name": "smoothing", "sigma": 0.5, "n0": 10, "n": 90, "alpha": 0.01}


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 7), (8, 16)])
def test_neither_devices_nor_batches_matter(whole, devices, batch_size):
    found = certify(batch_size=batch_size, mesh=parallel.data_mesh(jax.devices()[:devices]))
    for name in ("radius", "count", "selected", "abstained", "correct"):
        np.testing.assert_array_equal(found[name], whole[name])


def side(w, images):
    z = images.reshape(len(images), -1) @ w
    return jnp.stack([-z, z], -1)


def test_radius_of_a_linear_classifier():
    """The smoothed classifier is the classifier, and its exact radius is the distance to the plane; the bound is below, and near for many samples."""
    w = np.random.default_rng(0).normal(size=4)
    images = np.random.default_rng(1).uniform(size=(24, 2, 2, 1)).astype(np.float32)
    distance = np.abs(images.reshape(24, 4) @ w) / np.linalg.norm(w)
    labels = (images.reshape(24, 4) @ w > 0).astype(int)
    found = evaluation.certify(Partial(side, jnp.asarray(w, jnp.float32)), (images, labels), sigma=0.3, n=4000, alpha=1e-4)
    known = distance < 0.7      # beyond, 4000 samples agree and the bound is at its largest
    assert (found["radius"] <= distance).all() and known.sum() > 8 and found["correct"].all()
    assert (distance - found["radius"])[known].max() < 0.1
    rows = evaluation.certified_accuracy(found, (0, 0.25, 1.5))
    assert [row["certified_accuracy"] for row in rows] == [1, (found["radius"] >= 0.25).mean(), 0] and rows[1]["examples"] == 24
    assert rows[1]["certified_accuracy_interval"] == evaluation.wilson_interval((found["radius"] >= 0.25).sum(), 24)


def test_resumes(tmp_path, whole):
    state, seen = tmp_path / "state.npz", []

    def stop(done, n, figures):
        seen.append((done, n, figures))
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        certify(batch_size=8, state=state, progress=stop, mesh=parallel.data_mesh(jax.devices()[:1]))
    assert seen[-1][:2] == (4, 11)
    rest = []
    found = certify(batch_size=8, state=state, progress=lambda *args: rest.append(args[0]), mesh=parallel.data_mesh(jax.devices()[:1]))
    assert rest == list(range(5, 12))
    for name in ("radius", "count", "predicted", "correct"):
        np.testing.assert_array_equal(found[name], whole[name])
    with pytest.raises(ValueError, match="is of another evaluation .*attack: .*'sigma': 0.5"):
        certify(state=state, sigma=0.25)
    state.write_bytes(state.read_bytes()[:300])
    with pytest.raises(ValueError, match="is damaged"):
        certify(state=state)


def broken(images):
    z = jnp.stack([images.mean((1, 2, 3)), -images.mean((1, 2, 3))], -1)
    return jnp.where(z[:, :1] > 0.6, jnp.nan, z)


def test_predictions_with_nan_count_for_no_class():
    images = np.stack([np.full((2, 2, 1), x, np.float32) for x in (0.0, 0.9)])
    found = evaluation.certify(broken, (images, np.zeros(2, int)), sigma=0.05, n0=5, n=50, alpha=0.01)
    assert found["not_finite"] == 1 and found["count"][1] == 0 and found["abstained"][1] and found["radius"][1] == 0 and found["predicted"][1] == -1


@pytest.mark.parametrize(("options", "message"), [
    ({"sigma": 0}, "sigma=0"), ({"n": 0}, "n=0"), ({"n0": 0}, "n0=0"), ({"alpha": 1}, "alpha=1")])
def test_errors(options, message):
    with pytest.raises(ValueError, match=f"{message}.*: expected"):
        certify(**options)
    with pytest.raises(ValueError, match="radii=-1"):
        evaluation.certified_accuracy({"radius": np.zeros(1), "correct": np.ones(1, bool)}, (-1,))
