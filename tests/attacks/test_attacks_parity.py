"""Attacks and losses against torchattacks, foolbox and the reference AutoAttack, in float64."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vmamba_jax import attacks

PIXEL = 1 / 255
FIXED = {"random_start": False}
WHITEBOX = {
    "ta_fgsm": attacks.fgsm(8 * PIXEL),
    "ta_fgsm_e2": attacks.fgsm(2 * PIXEL),
    "ta_bim10": attacks.pgd(8 * PIXEL, 10, 2 * PIXEL, **FIXED),
    "ta_bim10_e2": attacks.pgd(2 * PIXEL, 10, 0.5 * PIXEL, **FIXED),
    "ta_pgd10": attacks.pgd(8 * PIXEL, 10, 2 * PIXEL, **FIXED),
    "ta_pgd10_e2": attacks.pgd(2 * PIXEL, 10, 0.5 * PIXEL, **FIXED),
    "ta_pgd10_target": attacks.pgd(8 * PIXEL, 10, 2 * PIXEL, targeted=True, **FIXED),
    "ta_pgdl2_10": attacks.pgd(0.5, 10, 0.1, "l2", **FIXED),
    "ta_pgdl2_10_e2": attacks.pgd(0.5, 10, 0.1, "l2", **FIXED),
    "ta_mifgsm10": attacks.momentum_pgd(8 * PIXEL, 10, 2 * PIXEL),
    "ta_mifgsm10_e2": attacks.momentum_pgd(2 * PIXEL, 10, 0.5 * PIXEL),
    "fb_fgsm": attacks.fgsm(8 * PIXEL),
    "fb_fgm_l2": attacks.fgsm(0.5, "l2"),
    "fb_fgm_l1": attacks.fgsm(10, "l1"),
    "fb_linfpgd10": attacks.pgd(8 * PIXEL, 10, 2 * PIXEL, **FIXED),
    "fb_l2pgd10": attacks.pgd(0.5, 10, 0.1, "l2", **FIXED),
    "fb_l1pgd10": attacks.pgd(10, 10, 2, "l1", l1_fraction=None, projection="radial", **FIXED),
    "fb_mifgsm10": attacks.momentum_pgd(8 * PIXEL, 10, 2 * PIXEL, accumulate="steps"),
}
LOSSES = {"ce": "cross_entropy", "cw_margin": "margin", "dlr": "dlr"}


def test_common_net(oracle, x64):
    arrays, net, images, _ = oracle("attacks_whitebox_f64")
    np.testing.assert_allclose(net(images), arrays["logits"], atol=1e-12)


@pytest.mark.parametrize("name", WHITEBOX)
@pytest.mark.often(9)
def test_whitebox(oracle, x64, name):
    arrays, net, images, labels = oracle("attacks_whitebox_f64")
    targets = (labels + 1) % 10 if name.endswith("target") else labels
    adversarial = jax.jit(WHITEBOX[name])(net, images, targets)
    assert adversarial.dtype == jnp.float64
    np.testing.assert_allclose(np.moveaxis(adversarial, -1, 1), arrays[name], atol=1e-8, rtol=0)
    assert ((net(adversarial).argmax(1) == labels) == arrays[f"acc_{name}"]).all()


@pytest.mark.parametrize("name", LOSSES)
def test_loss(golden, x64, name):
    arrays = golden("attacks_losses")
    loss = attacks.losses.get(LOSSES[name])
    check_loss(arrays, name, lambda logits: loss(logits, arrays["y"]))


def test_targeted_losses(golden, x64):
    arrays = golden("attacks_losses")
    y, t = arrays["y"], arrays["y_target"]
    check_loss(arrays, "dlr_targeted", lambda logits: attacks.losses.dlr_targeted(logits, y, t))
    check_loss(arrays, "ce_targeted", lambda logits: attacks.losses.objective(lambda x: x, t, "cross_entropy", targeted=True)(logits)[0])


def check_loss(arrays, name, loss):
    logits = jnp.asarray(arrays["logits"])
    np.testing.assert_allclose(loss(logits), arrays[name], atol=1e-10, rtol=0)
    np.testing.assert_allclose(jax.grad(lambda z: loss(z).sum())(logits), arrays[f"{name}_grad"], atol=1e-10, rtol=0)
