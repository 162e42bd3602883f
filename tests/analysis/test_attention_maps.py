"""Attention probabilities as recorded, and hidden attention against its explicit matrix."""
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import vmamba_jax
from tests.helpers.attention_models import IMAGES, MEAN, STD, VIM, VIT, VMAMBA, random_variables
from vmamba_jax import analysis, attacks
from vmamba_jax.analysis import attention_maps
from vmamba_jax.core import grids, scan_orders


def dense(states, routes, signed):
    """Column means of sum_n C_in (prod_{j < t <= i} A_bar_tn) delta_j B_jn, averaged over channels, the scans summed: (b, L)."""
    A_bar, delta, B, C = (np.asarray(states[name][0], np.float64) for name in ("A_bar", "delta", "B", "C"))
    b, K, E, N = *A_bar.shape[:2], *A_bar.shape[-2:]
    A_bar, delta, B, C = (x.reshape(b, K, -1, *tail) for x, tail in ((A_bar, (E, N)), (delta, (E,)), (B, (N,)), (C, (N,))))
    length = A_bar.shape[2]
    matrix = np.zeros((b, length, length))
    for k, route in enumerate(routes):
        for i in range(length):
            for j in range(i + 1):
                decay = A_bar[:, k, route[j + 1:i + 1]].prod(1)
                term = C[:, k, route[i], None] * decay * delta[:, k, route[j], :, None] * B[:, k, route[j], None]
                matrix[:, route[i], route[j]] += (term if signed else np.abs(term)).sum(-1).mean(-1)
    return matrix.mean(1)


@pytest.fixture(scope="module")
def vmamba():
    variables = random_variables(VMAMBA)
    x = (IMAGES - jnp.array(MEAN)) / jnp.array(STD)
    logits, recorded = jax.jit(lambda v, x: VMAMBA.apply(v, x, mutable=["intermediates"]))(variables, x)
    return variables, logits, recorded["intermediates"]


@pytest.mark.parametrize("signed", [False, True])
def test_scan_attention(vmamba, signed):
    variables, _, recorded = vmamba
    for block in range(2):
        found = analysis.scan_attention(VMAMBA, variables, IMAGES, block, signed, MEAN, STD)
        states = recorded["layers_0"][f"blocks_{block}"]["op"]
        expected = dense(states, scan_orders.routes("cross", 4, 6), signed).reshape(2, 4, 6)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_scan_attention_of_vim():
    """Class tokens before and after the patches count as queries, but are no position of the map."""
    variables = random_variables(VIM)
    recorded = jax.jit(lambda x: VIM.apply(variables, x, mutable=["intermediates"])[1]["intermediates"])(IMAGES)
    steps = np.arange(3 * 5 + 2)
    expected = dense(recorded["layers_0"]["mixer"], [steps, steps[::-1]], False)[:, 1:-1].reshape(2, 3, 5)
    found = analysis.scan_attention(VIM, variables, IMAGES, 0, mean=0, std=1)
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.max())


def test_attention_fn(vmamba):
    """The logits equal `logits_fn`; each block has a map or probabilities; the weights are an argument."""
    variables, logits, _ = vmamba
    fn = analysis.attention_fn(VMAMBA, variables, MEAN, STD)
    assert isinstance(fn, Partial) and jax.tree.structure(fn) == jax.tree.structure(analysis.attention_fn(VMAMBA, variables, MEAN, STD))
    found, maps = fn(IMAGES)
    np.testing.assert_allclose(found, logits, atol=1e-4)
    assert [x.shape for x in maps] == [(2, 4, 6)] * 2
    np.testing.assert_allclose(maps[1], analysis.scan_attention(VMAMBA, variables, IMAGES, 1, mean=MEAN, std=STD), rtol=1e-4)

    variables = random_variables(VIT)
    logits, attention = analysis.attention_fn(VIT, variables)(IMAGES)
    np.testing.assert_allclose(logits, vmamba_jax.logits_fn(VIT, variables)(IMAGES), atol=1e-5)
    assert len(attention) == 4 and all(x.shape == (2, 2, 7, 7) for x in attention)
    np.testing.assert_allclose(np.sum(attention, -1), 1, rtol=1e-5)
    assert np.abs(attention[0] - attention[1]).max() > 1e-3


@pytest.mark.slow
def test_patch_fool_of_models(vmamba):
    """Patch-Fool attacks the patches with the most attention, for a transformer and for the scans of VMamba."""
    labels, key = jnp.array([0, 1]), jax.random.key(0)
    options = {"patch_size": 4, "steps": 2, "attention_layer": 0, "selection": "attention"}
    attend = analysis.attention_fn(VIT, random_variables(VIT))
    chosen = attacks.patch_fool(with_attention=attend, **options).choose(None, IMAGES, labels, key)
    np.testing.assert_array_equal(chosen[:, 0], np.asarray(attend(IMAGES)[1][0]).mean((1, 2))[:, 1:].argmax(1))

    small = VMAMBA.clone(depths=(1,))
    attend, logits_fn = analysis.attention_fn(small, vmamba[0], MEAN, STD), vmamba_jax.logits_fn(small, vmamba[0], MEAN, STD)
    attack = attacks.patch_fool(with_attention=attend, **options)
    changed = np.asarray(jax.jit(lambda attack, *args: attack(*args))(attack, logits_fn, IMAGES, labels, key) != IMAGES).any(3)
    paid = np.asarray(analysis.scan_attention(VMAMBA, vmamba[0], IMAGES, 0, mean=MEAN, std=STD))
    most = paid.reshape(2, 2, 2, 3, 2).sum((2, 4)).reshape(2, -1).argmax(1)
    np.testing.assert_array_equal(changed, np.asarray(grids.pixel_mask(grids.chosen_patches(most[:, None], 2, 3), 8, 12))[..., 0])


def test_bad_arguments(vmamba):
    with pytest.raises(ValueError, match="block=2: expected an index of one of 2 blocks"):
        analysis.scan_attention(VMAMBA, vmamba[0], IMAGES, 2)
    with pytest.raises(TypeError, match="model is ViT: expected VMamba, Vim"):
        analysis.scan_attention(VIT, {}, IMAGES, 0)
    with pytest.raises(TypeError, match="model is ResNet: expected ViT, VMamba, Vim"):
        analysis.attention_fn("resnet18", {})
    for changed in ({"scan_pattern": "cascade"}, {"ssm_ratio": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(changed))}=.*expected scans over the whole map"):
            analysis.attention_fn(VMAMBA.clone(**changed), {})


def test_memory_is_linear_in_length():
    """No array of the program has L x L elements."""
    def largest(jaxpr):
        inside = [largest(inner.jaxpr) for equation in jaxpr.eqns for inner in jax.tree.leaves(equation.params) if hasattr(inner, "jaxpr")]
        return max([out.aval.size for equation in jaxpr.eqns for out in equation.outvars if hasattr(out.aval, "size")] + inside, default=0)
    states = [jax.ShapeDtypeStruct((1, 4, 900, *tail), jnp.float32) for tail in ((2, 1), (2,), (1,), (1,))]
    routes = scan_orders.routes("cross", 30, 30)
    size = largest(jax.make_jaxpr(lambda *states: attention_maps.received(*states, routes))(*states).jaxpr)
    assert 4 * 900 * 2 <= size < 900 * 900 / 4
