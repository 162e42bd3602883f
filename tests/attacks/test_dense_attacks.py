"""Losses of segmentation, SegPGD and CosPGD against arrays of the released formulas and steps."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vmamba_jax import attacks
from vmamba_jax.attacks import losses

CASES = {"mask_ce_avg": losses.mask_ce_avg, "js_avg": losses.js_avg, "cospgd": losses.cospgd,
         "cospgd_targeted": functools.partial(losses.cospgd, targeted=True)}
CASES |= {f"segpgd_t{t}": functools.partial(losses.segpgd, step=t, steps=5) for t in range(5)}
CASES |= {"segpgd_targeted_t2": functools.partial(losses.segpgd, step=2, steps=5, targeted=True)}
CASES |= {f"tsallis_q{q:g}": functools.partial(losses.tsallis, q=q) for q in (-2.0, -1.0, 0.0, 0.5, 0.999, 1.0)}


def channels_last(x):
    return jnp.moveaxis(jnp.asarray(x), -3, -1)


@pytest.mark.parametrize("dtype,tolerance", [("float64", 1e-12), ("float32", 1.5e-6)])   # the original's own float32 is off by 1e-6
def test_losses(golden, x64, dtype, tolerance):
    arrays = golden("dense_attack_losses")
    logits, labels = channels_last(arrays["logits"]).astype(dtype), jnp.asarray(arrays["labels"])
    cases = CASES | {"mask_ce_bal": functools.partial(losses.mask_ce_bal, weights=arrays["class_weights"])}

    @jax.jit
    def every(logits):
        pairs = {name: jax.vjp(lambda logits, loss=loss: loss(logits, labels), logits) for name, loss in cases.items()}
        return {name: (value, pullback(jnp.ones_like(value))[0]) for name, (value, pullback) in pairs.items()}
    for name, (value, gradient) in every(logits).items():
        for found, wanted in ((value, arrays[f"{name}_f64"]), (gradient, channels_last(arrays[f"{name}_grad_f64"]))):
            assert found.dtype == dtype
            np.testing.assert_allclose(found, wanted, atol=tolerance * np.abs(wanted).max(), rtol=0, err_msg=name)
        assert (np.asarray(value)[arrays["labels"] == 255] == 0).all() and np.isfinite(value).all()


@pytest.fixture(scope="module")
def segmenter():
    """The golden file's network: (arrays, outputs_fn) in a dtype."""
    def build(arrays, dtype):
        x = {name: jnp.asarray(value, dtype) for name, value in arrays.items() if name.split(".")[0] in ("c1", "c2", "head")}

        def conv(images, name, stride, pad):
            weight = x[f"{name}.weight"].transpose(2, 3, 1, 0)
            out = lax.conv_general_dilated(images, weight, (stride, stride), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"))
            return out + x[f"{name}.bias"]

        def outputs(images):
            small = conv(jax.nn.relu(conv(jax.nn.relu(conv(images, "c1", 1, 1)), "c2", 2, 1)), "head", 1, 0)
            return jax.image.resize(small, (*images.shape[:3], small.shape[-1]), "bilinear")
        return outputs
    return build


@pytest.mark.parametrize("name", ["segpgd", "cospgd"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_five_steps(golden, x64, segmenter, name, norm):
    arrays = golden("dense_attacks")
    outputs, x, labels = segmenter(arrays, jnp.float64), channels_last(arrays["x"]).astype(jnp.float64), jnp.asarray(arrays["labels"])
    eps, size, start = (8 / 255, 2.5 / 255, channels_last(arrays["start"]).astype(jnp.float64)) if norm == "linf" else (1.0, 0.3, None)
    wanted = channels_last(arrays[f"{name}_{norm}_f64"])
    attack = getattr(attacks, name)(eps=eps, steps=5, step_size=size, norm=norm, random_start=False)
    found = jax.jit(lambda x, start: attack(outputs, x, labels, start=start))(x, start)
    np.testing.assert_allclose(found, wanted[-1], atol=1e-7)
    right = lambda images: np.where(labels == 255, np.nan, outputs(images).argmax(-1) == labels)
    np.testing.assert_allclose(np.nanmean(right(found), axis=(1, 2)), arrays[f"{name}_{norm}_f64_accuracy"][-1], atol=1e-6)
    if name == "segpgd":                                               # the weights depend on the number of steps
        shorter = getattr(attacks, name)(eps=eps, steps=4, step_size=size, norm=norm, random_start=False)(outputs, x, labels, start=start)
        assert np.abs(shorter - wanted[3]).max() > 1e-3


def test_random_start_targets_and_bounds():
    images, target = jnp.full((2, 4, 4, 3), 0.5), jnp.zeros((2, 4, 4), jnp.int32)
    outputs = lambda x: jnp.stack([x.sum(-1), -x.sum(-1)], -1)
    attack = attacks.cospgd(eps=0.1, steps=3, targeted=True)
    found = attack(outputs, images, target, jax.random.key(0))
    assert (outputs(found).argmax(-1) == 0).all() and (found >= images - 1e-6).all() and np.abs(found - images).max() <= 0.1 + 1e-6
    np.testing.assert_array_equal(found[1], attack(outputs, images[1:], target[1:], jax.random.split(jax.random.key(0), 1).at[0].set(
        jax.random.fold_in(jax.random.key(0), 1)))[0])
    away = attacks.segpgd(eps=0.1, steps=3, random_start=False)(outputs, images, target)
    np.testing.assert_allclose(away, images - 0.1, atol=1e-6)
    ignored = attacks.segpgd(eps=0.1, steps=3, random_start=False)(outputs, images, target + 255)
    np.testing.assert_array_equal(ignored, images)
    assert attack.settings["name"] == "cospgd" and attack.passes.forward_backward == 3


@pytest.mark.parametrize("change,message", [
    (dict(labels=jnp.zeros((2,), jnp.int32)), r"labels.shape=\(2,\): expected \(2, 4, 4\)"),
    (dict(labels=jnp.full((2, 4, 4), 7)), r"labels\[0\]=7: expected a class from 0 to 1"),
    (dict(images=jnp.full((2, 4, 4, 3), 1.5)), "1.5"),
    (dict(start=jnp.zeros((1, 4, 4, 3))), r"start.shape=\(1, 4, 4, 3\): expected \(2, 4, 4, 3\)"),
    (dict(key=None), "key=None: expected a random key"),
    (dict(outputs=lambda x: x.mean((1, 2))), "expected logits .batch, H, W, classes."),
])
def test_errors(change, message):
    given = dict(outputs=lambda x: x[..., :2], images=jnp.full((2, 4, 4, 3), 0.5), labels=jnp.zeros((2, 4, 4), jnp.int32), key=jax.random.key(0)) | change
    start = given.pop("start", None)
    with pytest.raises(ValueError, match=message):
        attacks.segpgd(eps=0.1, steps=2)(*given.values(), start=start)
