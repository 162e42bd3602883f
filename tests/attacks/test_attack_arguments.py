"""Settings, representation, creation by name, and errors of bad arguments."""
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import attacks
from vmamba_jax.core import scan_orders


@pytest.mark.parametrize("attack", [
    attacks.fgsm(0.1), attacks.fgsm(1, "l1", l1_fraction=0.1, loss="dlr"), attacks.pgd(8 / 255, 10, 2 / 255, restarts=3),
    attacks.pgd(3, 5, norm="l1", projection="radial", targeted=True),
    attacks.momentum_pgd(0.1, 4, decay=0.5, accumulate="steps", bounds=(-1, 1)),
], ids=repr)
def test_settings_round_trip(attack):
    assert attacks.create(**json.loads(json.dumps(attack.settings))) == attack
    assert hash(attacks.create(**attack.settings)) == hash(attack)


def test_old_names_warn():
    with pytest.warns(DeprecationWarning, match="MomentumPGD is now vmamba_jax.attacks.gradient.transfer.momentum_pgd"):
        old = attacks.MomentumPGD
    assert old(0.1, 4) == attacks.momentum_pgd(0.1, 4)
    with pytest.warns(DeprecationWarning, match="option 'neighbours' is now 'neighbors'"):
        assert attacks.create("transfer_pgd", eps=0.1, steps=2, neighbours=3).neighbors == 3
    for old, new in (("DIRECTIONS", scan_orders.DIRECTIONS), ("Given", attacks.masks.ArrayMask), ("Made", attacks.masks.FunctionMask)):
        with pytest.warns(DeprecationWarning, match=old):
            assert getattr(attacks.masks, old) is new
    with pytest.raises(AttributeError, match="no attribute 'ThePGD'"):
        attacks.ThePGD  # noqa: B018


def test_repr():
    assert repr(attacks.fgsm(8 / 255)) == "fgsm(eps=0.0313725, norm='linf', loss='cross_entropy', targeted=False, bounds=[0.0, 1.0])"
    assert repr(attacks.pgd(0.2, 20)).startswith("pgd(eps=0.2, steps=20, step_size=0.025, norm='linf', random_start=True, restarts=1")
    seen = []
    jax.jit(lambda eps: seen.append(attacks.pgd(eps, 20).settings))(0.1)
    assert seen[0]["eps"] == seen[0]["step_size"] == "traced"


PGD = {"name": "pgd", "eps": 0.1, "steps": 2}


@pytest.mark.parametrize(("error", "options", "text"), [
    (ValueError, {"name": "pdg", "eps": 0.1}, "attack='pdg'"),
    (TypeError, PGD | {"stepsize": 1}, "stepsize="),
    (ValueError, PGD | {"eps": -1}, "eps=-1.0"),
    (ValueError, PGD | {"eps": jnp.nan}, "eps=nan"),
    (ValueError, PGD | {"eps": jnp.float32(-1)}, "eps=-1.0"),
    (ValueError, PGD | {"steps": 0}, "steps=0"),
    (TypeError, PGD | {"steps": 2.0}, "steps=2.0"),
    (TypeError, PGD | {"steps": True}, "steps=True"),
    (ValueError, PGD | {"step_size": 0}, "step_size=0"),
    (ValueError, PGD | {"step_size": -0.1}, "step_size=-0.1"),
    (TypeError, PGD | {"step_size": "small"}, "step_size='small'"),
    (ValueError, PGD | {"norm": "Linf"}, "norm='Linf'"),
    (ValueError, PGD | {"loss": "hinge"}, "loss='hinge'"),
    (ValueError, PGD | {"restarts": 0}, "restarts=0"),
    (ValueError, PGD | {"restarts": 2, "random_start": False}, "restarts=2"),
    (TypeError, PGD | {"random_start": 1}, "random_start=1"),
    (TypeError, PGD | {"targeted": "yes"}, "targeted='yes'"),
    (ValueError, PGD | {"l1_fraction": 0}, "l1_fraction=0"),
    (ValueError, PGD | {"projection": "none"}, "projection='none'"),
    (TypeError, PGD | {"bounds": 1}, "bounds=1"),
    (ValueError, PGD | {"bounds": (1, 0)}, "lower=1, upper=0"),
    (ValueError, {"name": "momentum_pgd", "eps": 0.1, "steps": 2, "decay": -1}, "decay=-1.0"),
    (ValueError, {"name": "momentum_pgd", "eps": 0.1, "steps": 2, "accumulate": "raw"}, "accumulate='raw'"),
])
def test_bad_settings(error, options, text):
    with pytest.raises(error, match="expected") as raised:
        attacks.create(**options)
    assert text in str(raised.value)


IMAGES, LABELS, KEY = jnp.zeros((4, 3, 3, 1)), jnp.zeros(4, jnp.int32), jax.random.key(0)


def linear(images):
    return images.reshape(len(images), -1)[:, :5]


@pytest.mark.parametrize(("error", "images", "labels", "key", "text"), [
    (ValueError, IMAGES[0], LABELS, KEY, "images.shape=(3, 3, 1)"),
    (TypeError, np.zeros((4, 3, 3, 1), np.uint8), LABELS, KEY, "images.dtype=uint8"),
    (ValueError, IMAGES + 255, LABELS, KEY, "images=[255, 255]"),
    (ValueError, IMAGES, LABELS[:2], KEY, "labels.shape=(2,)"),
    (ValueError, IMAGES, jax.nn.one_hot(LABELS, 5), KEY, "labels.shape=(4, 5)"),
    (TypeError, IMAGES, LABELS.astype(float), KEY, "labels.dtype=float32"),
    (ValueError, IMAGES, LABELS, None, "key=None"),
    (TypeError, IMAGES, LABELS, 0, "key=0"),
    (ValueError, IMAGES, LABELS, jax.random.split(KEY, 3), "key.shape=(3,)"),
])
def test_bad_call(error, images, labels, key, text):
    with pytest.raises(error, match="expected") as raised:
        attacks.pgd(0.1, 1)(linear, images, labels, key)
    assert text in str(raised.value)


@pytest.mark.parametrize(("fn", "loss", "text"), [
    (lambda x: linear(x)[0], "cross_entropy", "logits_fn returned shape (5,)"),
    (lambda x: (linear(x), {}), "cross_entropy", "logits_fn returned shape tuple"),
    (lambda x: linear(x)[:, :2], "dlr", "loss='dlr' on 2 classes"),
    (linear, lambda z, y: z.sum(), "loss returned shape ()"),
])
def test_bad_functions(fn, loss, text):
    with pytest.raises(ValueError, match="expected") as raised:
        attacks.pgd(0.1, 1, loss=loss)(fn, IMAGES, LABELS, KEY)
    assert text in str(raised.value)


def test_per_image_keys():
    whole = jax.random.key_data(attacks.per_image_keys(KEY, 6))
    parts = [jax.random.key_data(attacks.per_image_keys(KEY, 3, offset=i)) for i in (0, jnp.int32(3))]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert len(np.unique(whole, axis=0)) == 6
    with pytest.raises(ValueError, match="expected one key"):
        attacks.per_image_keys(jax.random.split(KEY, 2), 2)
