"""Attention matrices of models: against recorded states, the column sums of `scan_attention`, and a transformer's own probabilities."""
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import doc_examples
from tests.helpers.attention_models import IMAGES, MEAN, STD, VIM, VIT, VMAMBA, random_variables
from vmamba_jax import analysis
from vmamba_jax.analysis import attention_matrices
from vmamba_jax.core import scan_orders
from vmamba_jax.models.baselines.swin import Swin
from vmamba_jax.models.layers.attention import WindowAttention

SWIN = Swin(num_classes=3, embed_dim=4, depths=(2,), num_heads=(2,), window_size=2, patch_size=2, image_size=8)
SMALL = VMAMBA.clone(depths=(1,))


@functools.cache
def variables(model):
    return random_variables(model)


def of(model, block=0, **options):
    return analysis.attention_matrix(model, variables(model), IMAGES, block, mean=MEAN, std=STD, **options)


def test_matrix_of_vmamba():
    """Each direction's matrix from the recorded states as a loop; the sum's columns are those of the recurrence that forms no matrix."""
    found = of(SMALL, combine="each")
    assert found.matrix.shape == (2, 4, 24, 24) and found.grid == (4, 6)
    x = (IMAGES - jnp.array(MEAN)) / jnp.array(STD)
    recorded = jax.jit(lambda x: SMALL.apply(variables(SMALL), x, mutable=["intermediates"])[1]["intermediates"])(x)["layers_0"]["blocks_0"]["op"]
    A_bar, delta, B, C = (np.asarray(recorded[name][0][1], np.float64).reshape(4, 24, *recorded[name][0].shape[4:]) for name in ("A_bar", "delta", "B", "C"))
    expected = np.zeros((4, 24, 24))
    for k, route in enumerate(scan_orders.routes("cross", 4, 6)):
        for i, j in zip(*np.tril_indices(24), strict=True):
            decay = A_bar[k, route[j + 1:i + 1]].prod(0)
            expected[k, route[i], route[j]] = (C[k, route[i]] * decay * delta[k, route[j], :, None] * B[k, route[j]]).sum(1).mean()
    np.testing.assert_allclose(found.matrix[1], expected, atol=1e-5 * np.abs(expected).max())
    received = analysis.scan_attention(SMALL, variables(SMALL), IMAGES, 0, True, MEAN, STD)
    np.testing.assert_allclose(analysis.Attention(found.matrix.sum(1), (4, 6)).received(), received, atol=1e-5 * np.abs(received).max())


def test_maps_of_a_matrix():
    matrix = jnp.arange(2 * 14 * 14.0).reshape(2, 14, 14)
    found, plain = analysis.Attention(matrix, (3, 4), (0, 13)), np.asarray(matrix)
    np.testing.assert_array_equal(found.query(2, 1), plain[:, 1 + 2 * 4 + 1, 1:-1].reshape(2, 3, 4))
    np.testing.assert_array_equal(found.class_query(), plain[:, [0, 13], 1:-1].mean(1).reshape(2, 3, 4))
    np.testing.assert_array_equal(found.diagonal()[0], plain[0].diagonal()[1:-1].reshape(3, 4))
    np.testing.assert_allclose(found.received(), plain.mean(1)[:, 1:-1].reshape(2, 3, 4), rtol=1e-6)
    with pytest.raises(ValueError, match="row=3: expected an index below 3, from 0"):
        found.query(3, 0)
    with pytest.raises(ValueError, match="expected a model with a class token"):
        analysis.Attention(matrix, (2, 7)).class_query()


def test_matrix_of_vim():
    """In raster order whatever the order in which the patches are read; class tokens at both ends."""
    shuffled = VIM.clone(scan_pattern=scan_orders.Order("random"))
    found = of(shuffled)
    assert found.grid == (3, 5) and found.class_positions == (0, 16)
    received = analysis.scan_attention(shuffled, variables(shuffled), IMAGES, 0, True, MEAN, STD)
    np.testing.assert_allclose(found.received(), received, atol=1e-5 * np.abs(received).max())
    steps, own = np.argsort(scan_orders.order(shuffled.scan_pattern, 3, 5)), np.asarray(of(shuffled, combine="each", raster=False).matrix)
    forward = own[0, 0, 1:-1, 1:-1][steps][:, steps]
    backward = own[0, 1, ::-1, ::-1][1:-1, 1:-1][steps][:, steps]
    np.testing.assert_allclose(found.matrix[0, 1:-1, 1:-1], forward + backward, atol=1e-6)


def test_matrix_of_transformers():
    attention = analysis.attention_fn(VIT, variables(VIT), MEAN, STD)(IMAGES)[1]
    found = of(VIT, 2)
    np.testing.assert_allclose(found.matrix, attention[2].mean(1), atol=1e-6)
    assert found.grid == (2, 3) and found.class_positions == (0,)

    rolled = analysis.attention_rollout(VIT, variables(VIT), IMAGES, mean=MEAN, std=STD).matrix
    expected = np.eye(7)
    for each in attention:
        expected = 0.5 * (np.asarray(each.mean(1)) + np.eye(7)) @ expected
    np.testing.assert_allclose(rolled, expected, atol=1e-5)

    swin = of(SWIN, 1, combine="each")
    assert swin.matrix.shape == (2, 2, 24, 24) and swin.grid == (4, 6)
    np.testing.assert_allclose(swin.matrix.sum(-1), 1, rtol=1e-5)
    assert 0 < np.count_nonzero(swin.matrix[0, 0, 0] > 1e-6) <= 4  # one window, less what the shift separates


@pytest.mark.parametrize("padding", [pytest.param("after_roll", marks=pytest.mark.slow), "before_roll"])
def test_windows_as_one_matrix(padding):
    """Applied to the values, the joined matrix gives the windowed attention's output, with shift; padded tokens are keys that it lacks."""
    module = WindowAttention(2, window=3, shift=1, padding=padding)
    x = np.random.default_rng(0).standard_normal((2, 6, 9, 4), np.float32)
    weights = jax.tree.map(np.asarray, jax.jit(module.init)(jax.random.key(1), x)["params"])
    run = jax.jit(lambda x: module.apply({"params": weights}, x, mutable=["intermediates"]))
    out, recorded = run(x)
    matrix = attention_matrices._joined(recorded["intermediates"]["attention"][0], (6, 9), 3, 1, padding)
    v = (x.reshape(2, 54, 4) @ weights["qkv"]["kernel"] + weights["qkv"]["bias"])[..., 8:].reshape(2, 54, 2, 2)
    mixed = np.einsum("bhqk,bkhd->bqhd", matrix, v).reshape(2, 54, 4)
    np.testing.assert_allclose(mixed @ weights["proj"]["kernel"] + weights["proj"]["bias"], out.reshape(2, 54, 4), atol=1e-5)

    cut = x[:, :5, :7]
    recorded = run(cut)[1]
    sums = attention_matrices._joined(recorded["intermediates"]["attention"][0], (5, 7), 3, 1, padding).sum(-1)
    assert (sums > 0).all() and (sums < 1 + 1e-5).all() and np.asarray(sums < 0.99).any()


def test_normalization_and_combination():
    each = np.asarray(of(SMALL, combine="each").matrix)
    scaled = lambda M: np.abs(M) / np.abs(M).max((-2, -1), keepdims=True)
    np.testing.assert_allclose(of(SMALL, normalization="absolute").matrix, scaled(each.sum(1)), atol=1e-5)
    np.testing.assert_allclose(of(SMALL, combine="mean", normalization="absolute").matrix, scaled(each).mean(1), atol=1e-5)
    rolled = analysis.attention_rollout(SMALL, variables(SMALL), IMAGES, 0, mean=MEAN, std=STD).matrix
    step = scaled(each.sum(1)) + np.eye(24)
    np.testing.assert_allclose(rolled, step / step.sum(-1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize(("model", "options", "message"), [
    (VMAMBA, {"block": 2}, "block=2: expected an index of one of 2 blocks"),
    (VMAMBA, {"block": 0, "form": "BC"}, "form='BC': expected one of 'CB'"),
    (VMAMBA, {"block": 0, "raster": False}, "raster=False, combine='sum': expected combine='each'"),
    (VMAMBA, {"block": 0, "normalization": "norm"}, "normalization='norm': expected one of None, 'min_max'"),
    (VMAMBA.clone(scan_pattern="cascade"), {"block": 0}, "expected scans over the whole map"),
    (VIT, {"block": 0, "form": "CB"}, "form='CB', raster=True for ViT: expected None and True"),
])
def test_bad_arguments(model, options, message):
    with pytest.raises(ValueError, match=message):
        analysis.attention_matrix(model, {}, IMAGES, **options)


def test_bad_arguments_of_the_rollout():
    for model, stage, options, message in ((VMAMBA, None, {}, "stage=None: expected an index of one of 1 stages"),
                                           (VIT, 0, {}, "stage=0: expected None for ViT"),
                                           (VMAMBA, 0, {"normalization": None}, "normalization=None: expected 'absolute' or 'min_max' for scans")):
        with pytest.raises(ValueError, match=message):
            analysis.attention_rollout(model, {}, IMAGES, stage, **options)
    with pytest.raises(TypeError, match="model is ResNet: expected VMamba, Vim, ViT, Swin"):
        analysis.attention_matrix("resnet18", {}, IMAGES, 0)


@pytest.mark.slow
def test_the_code_of_the_page():
    found = doc_examples.run(*doc_examples.blocks("analysis.md"), "docs/analysis.md")
    assert found["found"]["map"].shape == (32, 32) and found["activation"].shape == (2, 8, 8) and found["rolled"].grid == (8, 8)
    assert len(found["states"]) == 3 and [row["share"] for row in found["score"]] == [0.5, 0.99]
