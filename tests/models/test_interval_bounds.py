"""Bounds of a VMamba's logits: no sampled image and no attack leaves them; certified images survive AutoAttack; how loose they are."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pallas_kernels
from vmamba_jax import attacks, create_model, evaluation, logits_fn
from vmamba_jax.core import intervals
from vmamba_jax.models import Classifier, interval_bounds

EPS = {"fast": 1e-3, "slow": 4e-3}
FIELDS = {"dims": (8,), "depths": (1,), "patch_size": 4, "patch_embed": "v1", "drop_path_rate": 0.0, "in_channels": 1, "num_classes": 3, "mlp_ratio": 1.0}


@functools.cache
def small(**fields):
    """(logits function, images, their predicted classes) of a VMamba with one block, whose weights are large enough for distinct logits."""
    classifier = Classifier(create_model("vmamba_tiny", **FIELDS | fields), 0.5, 0.5)
    shapes = jax.eval_shape(lambda: classifier.init(jax.random.key(0), (8, 8, 1)))
    rng = np.random.default_rng(0)
    draw = lambda path, x: jnp.asarray(rng.normal(1.0 if path[-1].key in ("scale", "Ds") else 0.0, 0.3, x.shape), jnp.float32)
    fn = logits_fn(classifier, jax.tree_util.tree_map_with_path(draw, shapes))
    images = jnp.asarray(rng.uniform(size=(4, 8, 8, 1)), jnp.float32)
    return fn, images, fn(images).argmax(-1)


def block(weights, images):
    """The layers of a VMamba with one direction: convolution, layer norm, SiLU, selective scan, GELU, pooling, head."""
    kernel, x_proj, A, head = weights
    x = jax.lax.conv_general_dilated(images - 0.5, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = x + interval_bounds.standardize(x)
    u = interval_bounds.silu(x).reshape(len(x), -1, 4)
    p = u @ x_proj
    y = pallas_kernels.selective_scan(u, p[..., :4], -jnp.exp(A), p[..., None, 4:5], p[..., None, 5:], reverse=True, implementation="reference")
    return interval_bounds.gelu(interval_bounds.standardize(y)).mean(1) @ head


@functools.cache
def plain():
    """(logits function, images, their predicted classes) of `block`, for the fast tests."""
    rng = np.random.default_rng(1)
    weights = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2, 2, 1, 4), (4, 6), (4, 1), (4, 3))]
    fn, images = jax.tree_util.Partial(block, tuple(weights)), jnp.asarray(rng.uniform(size=(4, 4, 4, 1)), jnp.float32)
    return fn, images, fn(images).argmax(-1)


@jax.jit
def worst(fn, images, labels, eps):
    low, high = interval_bounds.box(images, eps)
    return (low, high), interval_bounds.logits(fn, low, high), interval_bounds.margins(fn, low, high, labels)


@functools.partial(jax.jit, static_argnums=5)
def outside(fn, labels, box, bound, margin, samples):
    """(number of sampled logits and differences that leave their bounds, range of the sampled logits)."""
    def draw(i, carry):
        count, least, most = carry
        place = jax.random.uniform(jax.random.fold_in(jax.random.key(5), i), box[0].shape)
        place = jnp.where(i % 2, jnp.round(place), place)
        z = fn(jnp.clip(box[0] + place * (box[1] - box[0]), *box))
        d = z - jnp.take_along_axis(z, labels[:, None], 1)
        left = (z < bound.low) | (z > bound.high) | (d < margin.low) | (d > margin.high)
        return count + left.sum(), jnp.minimum(least, z), jnp.maximum(most, z)
    zero = fn(box[0])
    return jax.lax.fori_loop(0, samples, draw, (jnp.int32(0), zero, zero))


@functools.partial(jax.jit, static_argnums=4)
def attacked(fn, images, labels, eps, steps):
    """Logits (3, b, 3) under PGD that raises the difference of one logit to the label's."""
    def run(target):
        pgd = attacks.pgd(eps, steps, loss=lambda z, y: jnp.take(z, target, -1) - jnp.take_along_axis(z, y[:, None], 1)[:, 0])
        return fn(pgd(fn, images, labels, jax.random.key(0)))
    return jax.lax.map(run, jnp.arange(3))


def check(fn, images, labels, eps, samples, steps):
    box, bound, margin = worst(fn, images, labels, eps)
    count, least, most = outside(fn, labels, box, bound, margin, samples)
    assert count == 0
    for z in attacked(fn, images, labels, eps, steps):
        d = z - jnp.take_along_axis(z, labels[:, None], 1)
        assert ((z >= bound.low) & (z <= bound.high) & (d >= margin.low) & (d <= margin.high)).all()
    return bound, margin, (bound.high - bound.low).mean() / (most - least).mean()


def test_no_sample_and_no_attack_leaves_the_bounds():
    fn, images, labels = plain()
    bound, margin, looseness = check(fn, images, labels, EPS["fast"], 200, 5)
    assert 1 < looseness < 100 and (margin.high < bound.high - jnp.take_along_axis(bound.low, labels[:, None], 1) + 1e-4).all()


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"depths": (1, 1), "dims": (8, 16), "patch_size": 2, "d_state": 2}, {"scan_pattern": "bidi", "gate": True}], ids=str)
def test_ten_thousand_samples(fields):
    fn, images, labels = small(**fields)
    check(fn, images, labels, EPS["slow"], 10_000, 50)


def test_layers_are_recognized():
    """Every activation, norm, softplus and scan of the model has its own rule, not only those of its primitives."""
    fn, images, _ = small()
    seen = []
    watched = intervals.Rules(tuple((lambda equation, find=find: seen.append(find) or rule if (rule := find(equation)) else None)
                                    for find in interval_bounds.RULES.calls))
    jax.eval_shape(lambda x: intervals.bounds(interval_bounds.traceable(fn), x, x, rules=watched), images)
    assert [seen.count(find) for find in interval_bounds.RULES.calls] == [1, 1, 4, 5, 4]  # gelu, silu, softplus, layer norms, directions


@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_activations(name):
    """Exact up to rounding, also where the interval contains the bottom."""
    fn = {"gelu": interval_bounds.gelu, "silu": interval_bounds.silu}[name]
    centers, width = np.linspace(-6, 6, 401, dtype=np.float32), 0.3
    low, high = intervals.bounds(fn, jnp.asarray(centers - width), jnp.asarray(centers + width), rules=interval_bounds.RULES)
    y = fn(jnp.asarray(centers + width * np.linspace(-1, 1, 2001, dtype=np.float32)[:, None]))
    assert (y >= low).all() and (y <= high).all()
    np.testing.assert_allclose(low, y.min(0), atol=4e-5)
    np.testing.assert_allclose(high, y.max(0), atol=4e-5)


def test_interval_accuracy_and_attack():
    """No image is certified and broken, on the same images; a wrong certificate is found."""
    fn, images, labels = plain()
    source = np.asarray(images), np.asarray(labels).copy()
    source[1][3] = (source[1][3] + 1) % 3
    found = evaluation.interval_accuracy(fn, source, eps=EPS["fast"], batch_size=8)
    _, _, margin = worst(fn, images, jnp.asarray(source[1]), EPS["fast"])
    others = jnp.where(jax.nn.one_hot(source[1], 3, dtype=bool), -jnp.inf, margin.high).max(-1)
    np.testing.assert_allclose(found["margin"], others, rtol=1e-5)
    assert 0 < found["certified"].sum() < 4 and not found["certified"][3] and found["certified_accuracy"] == found["certified"].mean()
    assert found["accuracy"] == 0.75 and found["certificate"] == {"name": "interval", "eps": EPS["fast"], "norm": "linf"}
    robust = evaluation.robust_accuracy(fn, source, attacks.fgsm(EPS["fast"]), key=jax.random.key(0), batch_size=8)
    assert not evaluation.disagreements(found["certified"], robust["robust"]).size
    assert evaluation.disagreements(np.ones(4, bool), robust["robust"]).tolist() == np.flatnonzero(~robust["robust"]).tolist() != []


@pytest.mark.slow
def test_no_certified_image_is_broken_by_autoattack():
    """On the same images, at a radius where both the certificate and the attack decide some."""
    fn, _, _ = small()
    images = np.random.default_rng(3).uniform(size=(48, 8, 8, 1)).astype(np.float32)
    labels = np.asarray(fn(images).argmax(-1))
    for eps in (1e-5, 1e-4):
        found = evaluation.interval_accuracy(fn, (images, labels), eps=eps, batch_size=48)
        robust = evaluation.robust_accuracy(fn, (images, labels), "autoattack", eps=eps, steps=20, queries=100, targets=2, key=jax.random.key(0),
                                            batch_size=48)
        assert not evaluation.disagreements(found["certified"], robust["robust"]).size
        assert 0 < found["certified"].sum() < 48


def test_errors():
    with pytest.raises(ValueError, match="eps=-1"):
        evaluation.interval_accuracy(lambda x: x, (np.zeros((1, 2, 2, 1)), np.zeros(1, int)), eps=-1)
    with pytest.raises(ValueError, match=r"certified.shape=\(2,\), robust.shape=\(3,\): expected bool arrays of one shape"):
        evaluation.disagreements(np.ones(2, bool), np.ones(3, bool))
    with pytest.raises(NotImplementedError, match="primitive 'sort' in the function"):
        evaluation.interval_accuracy(lambda x: jnp.sort(x.reshape(len(x), -1)), (np.zeros((1, 2, 2, 1)), np.zeros(1, int)), eps=0.1)
