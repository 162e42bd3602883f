"""Every attack on labels that are no classes, on images of 16-bit types, with NaN, of other types, and on no images."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import attacks
from vmamba_jax.attacks import losses

WEIGHTS = jax.random.normal(jax.random.key(0), (4 * 4 * 2, 5))
IMAGES = jax.random.uniform(jax.random.key(1), (6, 4, 4, 2))
LABELS = jnp.argmax(IMAGES.reshape(6, -1) @ WEIGHTS, 1)
KEY = jax.random.key(2)
EPS = 4 / 255

ATTACKS = {
    "fgsm": attacks.fgsm(EPS), "pgd": attacks.pgd(EPS, 2, restarts=2), "targeted": attacks.pgd(EPS, 2, targeted=True),
    "masked_pgd": attacks.masked_pgd(EPS, 2, mask=np.arange(16).reshape(4, 4, 1) % 2 == 0),
    "frequency_pgd": attacks.frequency_pgd(EPS, 2, size=2, limit="inside", norm="l2"), "momentum_pgd": attacks.momentum_pgd(EPS, 2),
    "transfer_pgd": attacks.transfer_pgd(EPS, 2, diversity=0.5, scales=2, neighbors=1, resize_rate=0.7), "eot_pgd": attacks.eot_pgd(EPS, 2),
    "apgd": attacks.apgd(EPS, 3), "apgd highest": attacks.apgd(EPS, 3, keep="highest_loss"), "fab": attacks.fab(EPS, 3),
    "fab targeted": attacks.fab(EPS, 3, n_targets=2), "square": attacks.square(EPS, 3),
    "pma": attacks.pma(EPS, 3), "apgd malt": attacks.apgd(EPS, 2, loss="probability_margin", n_targets=2, targets="malt"),
    "autoattack": attacks.autoattack(EPS, steps=2, queries=2, n_targets=2), "patch_fool": attacks.patch_fool(2, steps=2, mean=0.5, std=0.5),
}


def linear(images, *keys):
    return images.astype(jnp.float32).reshape(len(images), -1) @ WEIGHTS


def test_all_attacks_are_here():
    assert {attack.name for attack in ATTACKS.values()} == set(attacks.ATTACKS) - {"momentum_pgd"}  # whose objects are transfer_pgd


WRONG = {"from 1": (LABELS.at[2].set(5), r"labels\[2\]=5: expected a class from 0 to 4"), "ignored": (LABELS.at[3].set(255), r"labels\[3\]=255"),
         "-1": (LABELS.at[1].set(-1), r"labels\[1\]=-1"), "one-hot": (jax.nn.one_hot(LABELS, 5), r"labels.shape=\(6, 5\): expected \(6,\)"),
         "a column": (LABELS[:, None], r"labels.shape=\(6, 1\)"), "floats": (LABELS.astype(jnp.float32), "labels.dtype=float32"),
         "booleans": (LABELS > 0, "labels.dtype=bool")}


@pytest.mark.parametrize("name", ATTACKS)
def test_labels(name):
    for labels, message in WRONG.values():
        with pytest.raises((ValueError, TypeError), match=message):
            ATTACKS[name](linear, IMAGES, labels, KEY)
    for labels, message in list(WRONG.values())[3:]:
        with pytest.raises((ValueError, TypeError), match=message):
            jax.eval_shape(lambda labels: ATTACKS[name](linear, IMAGES, labels, KEY), labels)


def test_constant_labels_inside_jit_are_checked():
    with pytest.raises(ValueError, match=r"labels\[2\]=5"):
        jax.jit(lambda images: attacks.pgd(EPS, 2)(linear, images, WRONG["from 1"][0], KEY))(IMAGES)
    attack = jax.jit(lambda images, labels: attacks.pgd(EPS, 2)(linear, images, labels, KEY))
    assert attack(IMAGES, LABELS).shape == IMAGES.shape


@pytest.mark.parametrize("name", ATTACKS)
def test_other_images(name):
    with pytest.raises(ValueError, match=r"images=\[nan, nan\]"):
        ATTACKS[name](linear, IMAGES.at[1, 0, 0, 0].set(jnp.nan), LABELS, KEY)
    for dtype in (jnp.uint8, jnp.int32, bool):
        with pytest.raises(TypeError, match=f"images.dtype={jnp.dtype(dtype)}: expected a floating type"):
            ATTACKS[name](linear, (255 * IMAGES).astype(dtype), LABELS, KEY)
    with pytest.raises(ValueError, match=r"images.shape=\(6, 0, 4, 2\)"):
        ATTACKS[name](linear, IMAGES[:, :0], LABELS, KEY)
    empty = ATTACKS[name](linear, IMAGES[:0], LABELS[:0], KEY)
    assert empty.shape == (0, 4, 4, 2) and empty.dtype == jnp.float32


@pytest.mark.parametrize(("name", "dtype"), [
    *(pytest.param(name, jnp.bfloat16, marks=pytest.mark.slow if i % 2 else ()) for i, name in enumerate(ATTACKS)), ("fgsm", jnp.float16)])
@pytest.mark.often(2)
def test_sixteen_bits_stay_inside_the_radius(name, dtype):
    """The ball holds for the images as given, and a search returns an image that is misclassified in that type."""
    attack, images, seen = ATTACKS[name], IMAGES.astype(dtype), []

    def classify(x, *keys):
        seen.append(x.dtype)
        return linear(x)
    labels = linear(images).argmax(1)
    found = attack(classify, images, labels, KEY)
    assert found.dtype == dtype and found.shape == images.shape and set(seen) == {jnp.dtype(dtype)}
    wide = [np.asarray(x, np.float64) for x in (found, images)]
    assert wide[0].min() >= 0 and wide[0].max() <= 1
    if attack.eps is not None:
        length = np.linalg.norm((wide[0] - wide[1]).reshape(6, -1), {"linf": np.inf, "l2": 2, "l1": 1}[attack.norm], axis=1)
        assert (length <= EPS * (1 + 1e-5)).all() and (name in ("fab", "fab targeted", "square") or length.max() > EPS / 2)
    if name in ("apgd", "fab", "autoattack", "square"):
        changed = (wide[0] != wide[1]).any((1, 2, 3))
        np.testing.assert_array_equal(np.asarray(linear(found).argmax(1) != labels), changed)


@pytest.mark.parametrize("norm", attacks.NORMS)
def test_sixteen_bit_projection(norm):
    threat, images = attacks.ThreatModel(norm, 0.05), IMAGES.astype(jnp.bfloat16)
    found = threat.project(images, (images + 0.3).astype(jnp.bfloat16))
    assert found.dtype == jnp.bfloat16 and (threat.distance(images, found) <= 0.05 * (1 + 1e-5)).all()


def test_an_attack_of_logits_that_are_not_finite():
    """Misclassified without an attack, and at no target."""
    nan = lambda x: jnp.full((len(x), 5), jnp.nan) + 0 * x.sum()
    labels = jnp.zeros(6, jnp.int32)  # argmax of a row of NaN is 0
    assert not losses.correct(nan(IMAGES), labels).any()
    for targeted in (False, True):
        _, success = losses.objective(nan, labels, "margin", targeted)(IMAGES)
        assert (success != targeted).all()
    np.testing.assert_array_equal(attacks.apgd(EPS, 2, random_start=False)(nan, IMAGES, labels, KEY), IMAGES)
