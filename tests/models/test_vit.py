"""ViT and DeiT: timm's numbers, names and traps, differentiable attention, other image sizes."""
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vmamba_jax
from tests.helpers import golden_models
from vmamba_jax import checkpoints, models
from vmamba_jax.models.baselines.vit import ViT, resize_positions
from vmamba_jax.models.layers import common
from vmamba_jax.models.layers.patches import bicubic_matrix

GOLDEN = "timm_deit_small"
TINY = ViT(num_classes=5, patch_size=4, embed_dim=16, depth=2, num_heads=2, image_size=16)


@pytest.fixture(scope="module")
def model():
    return checkpoints.model_from_options("deit", golden_models.load(GOLDEN)[1]["constructor"])


@pytest.fixture(scope="module")
def tiny():
    return TINY, jax.jit(TINY.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))


def test_float64(x64, model):
    arrays, _ = golden_models.load(GOLDEN)
    recorded = golden_models.check_float64(model, GOLDEN)
    for ours, theirs in (("patch_embed_out", "patch_embed"), ("block0_out", "blocks.0"), ("block2_out", "blocks.2"), ("final_norm", "norm")):
        np.testing.assert_allclose(recorded[ours][0], arrays[f"feat64.{theirs}"], atol=1e-9, err_msg=theirs)


@pytest.mark.slow   # float64 reproduces the same arrays
def test_float32(model):
    golden_models.check_float32(model, GOLDEN)


def test_traps_show(x64, model):
    """Tanh instead of exact GELU, or eps 1e-5 instead of 1e-6, changes the logits by more than the parity tolerance."""
    arrays, _ = golden_models.load(GOLDEN)
    variables = checkpoints.convert(model, golden_models.weights(GOLDEN, np.float64))
    images = golden_models.nhwc(arrays["input"]).astype(np.float64)
    error = lambda: np.abs(model.apply(variables, images) - arrays["logits64"]).max()
    assert error() < 1e-9
    with mock.patch.dict(common.ACTIVATIONS, gelu=jax.nn.gelu):
        assert error() > 1e-5
    with mock.patch("vmamba_jax.models.baselines.vit.EPS", 1e-5):
        assert error() > 1e-7


@pytest.mark.parametrize("size,parameters", [("tiny", 5_717_416), ("small", 22_050_664), ("base", 86_567_656)])
def test_parameters(size, parameters):
    for family in ("deit", "vit"):
        name = f"{family}_{size}"
        assert golden_models.count(vmamba_jax.create_model(name)) == parameters == models.entry(name).parameters
    assert vmamba_jax.create_model(f"deit_{size}_patch16_224") == vmamba_jax.create_model(f"deit_{size}")


def test_names():
    assert checkpoints.original_shapes(vmamba_jax.create_model("deit_tiny")) == golden_models.released("deit")


def test_attention_is_recorded_and_differentiable(tiny):
    model, variables = tiny
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))

    @jax.jit
    def attention(images):
        recorded = model.apply(variables, images, mutable=["intermediates"])[1]["intermediates"]
        return jnp.stack([recorded[f"blocks_{i}"]["attn"]["attention"][0] for i in range(2)])

    maps = attention(images)
    assert maps.shape == (2, 2, 2, 17, 17)
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-6)
    paid = jax.grad(lambda images: jnp.log(attention(images)[1, :, :, :, 3]).mean())(images)
    assert paid.shape == images.shape and np.abs(paid).max() > 0 and np.isfinite(paid).all()


@pytest.mark.slow
def test_other_image_sizes(tiny):
    """A larger image equals a model of that size with the position embedding resized at conversion; images need not be square."""
    model, variables = tiny
    images = jax.random.uniform(jax.random.key(1), (1, 24, 24, 3))
    original = {name: np.random.default_rng(i).standard_normal(shape).astype(np.float32) * 0.1
                for i, (name, shape) in enumerate(checkpoints.original_shapes(model).items())}
    larger = model.clone(image_size=24)
    here, there = (m.apply(checkpoints.convert(m, original), images) for m in (model, larger))
    np.testing.assert_allclose(here, there, atol=1e-5)
    assert np.abs(larger.clone(antialias=False).apply(checkpoints.convert(larger.clone(antialias=False), original), images) - there).max() > 1e-5
    assert model.apply(variables, jnp.zeros((1, 8, 20, 3))).shape == (1, 5)


def test_class_row_is_not_resized():
    embedding = jnp.arange(1 + 16.0).reshape(1, 17, 1)
    assert resize_positions(embedding, 2, 3, True).shape == (1, 7, 1)
    assert resize_positions(embedding, 2, 3, True)[0, 0, 0] == 0
    np.testing.assert_array_equal(resize_positions(embedding, 4, 4, True), embedding)


@pytest.mark.slow
def test_fields(tiny):
    model, variables = tiny
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))
    logits = model.apply(variables, images)
    np.testing.assert_allclose(model.clone(remat=True).apply(variables, images), logits, atol=1e-6)
    assert model.clone(dtype=jnp.bfloat16).apply(variables, images).dtype == jnp.bfloat16
    params = {name: p for name, p in variables["params"].items() if name != "head"}
    assert model.clone(num_classes=0).apply({"params": params}, images).shape == (2, 16)
    dropped = model.clone(drop_path_rate=0.9).apply(variables, images, train=True, rngs={"dropout": jax.random.key(3)})
    assert np.abs(dropped - logits).max() > 1e-6


@pytest.mark.parametrize("fields,shape,words", [
    ({}, (1, 18, 16, 3), "patch_size=4"), ({}, (1, 16, 16, 1), "expected (batch, height, width, 3)"), ({}, (16, 16, 3), "(16, 16, 3)"),
    (dict(num_heads=3), (1, 16, 16, 3), "num_heads=3"), (dict(image_size=18), (1, 16, 16, 3), "image_size=18"),
    (dict(drop_path_rate=1.0), (1, 16, 16, 3), "drop_path_rate=1.0"),
])
def test_wrong_fields_and_images(fields, shape, words):
    with pytest.raises(ValueError) as raised:
        jax.eval_shape(TINY.clone(**fields).init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    assert words in str(raised.value)


def test_options():
    with pytest.raises(ValueError, match="global_pool='avg': expected 'token', the only supported value"):
        checkpoints.model_from_options("deit", {"global_pool": "avg"})
    with pytest.raises(ValueError, match="patches=4: expected options of deit"):
        checkpoints.model_from_options("deit", {"patches": 4})
    with pytest.raises(TypeError, match="features_only"):
        vmamba_jax.create_model("deit_tiny", features_only=True)


def test_layer_scale(tiny):
    """A factor per channel equals one in the last layer of each branch; timm's option and names."""
    model, variables = tiny
    scaled = model.clone(layer_scale=0.5)
    assert checkpoints.model_from_options("deit", {"init_values": 1e-5, "patch_size": 14, "img_size": 518}).layer_scale == 1e-5
    params = jax.eval_shape(scaled.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
    assert params["blocks_0"]["ls1"]["gamma"].shape == params["blocks_1"]["ls2"]["gamma"].shape == (16,)
    images, gammas = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3)), np.random.default_rng(0).uniform(0.5, 2, (2, 2, 16)).astype(np.float32)
    folded, own = jax.tree.map(lambda x: x, variables["params"]), jax.tree.map(lambda x: x, variables["params"])
    for i in range(2):
        for j, (branch, layer) in enumerate((("attn", "proj"), ("mlp", "fc2"))):
            own[f"blocks_{i}"][f"ls{j + 1}"] = {"gamma": gammas[i, j]}
            folded[f"blocks_{i}"][branch][layer] = {name: x * gammas[i, j] for name, x in folded[f"blocks_{i}"][branch][layer].items()}
    found = jax.jit(scaled.apply)({"params": own}, images)
    np.testing.assert_allclose(found, jax.jit(model.apply)({"params": folded}, images), atol=1e-5)
    assert np.abs(found - jax.jit(model.apply)(variables, images)).max() > 1e-3


def test_dinov2_files():
    """The released names, with a mask token that is not read, and with the blocks in chunks; no head."""
    model = vmamba_jax.create_model("dinov2_small", depth=3, embed_dim=12, num_heads=2, image_size=28)
    rng = np.random.default_rng(0)
    given = {name: rng.normal(size=shape).astype(np.float32) for name, shape in checkpoints.original_shapes(model).items()}
    assert {"cls_token", "blocks.2.ls1.gamma", "blocks.0.attn.qkv.bias", "norm.weight"} <= given.keys() and "head.weight" not in given
    assert given["pos_embed"].shape == (1, 5, 12)
    chunked = {name.replace("blocks.2.", "blocks.1.2.").replace("blocks.0.", "blocks.0.0.").replace("blocks.1.n", "blocks.0.1.n")
               .replace("blocks.1.a", "blocks.0.1.a").replace("blocks.1.l", "blocks.0.1.l").replace("blocks.1.m", "blocks.0.1.m"): x for name, x in given.items()}
    assert "blocks.0.1.norm1.weight" in chunked and "blocks.1.2.mlp.fc1.bias" in chunked
    wanted = checkpoints.convert(model, given)
    for content in (given, chunked):
        found = checkpoints.convert(model, content | {"mask_token": np.zeros((1, 12), np.float32)})
        jax.tree.map(np.testing.assert_array_equal, found, wanted)
    entry = models.entry("dinov2_vits14")
    assert entry.parameters == 22_056_192 and entry.image_size == 224 and vmamba_jax.create_model("dinov2_small").image_size == 518


def test_dinov2_resizes_positions_with_an_offset():
    """Row i reads the place (i + 0.5) 37 / 16.1 - 0.5 by PyTorch's cubic kernel, with a = -0.75."""
    def kernel(t):
        t = abs(t)
        return 1.25 * t**3 - 2.25 * t**2 + 1 if t <= 1 else -0.75 * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0

    found = bicubic_matrix(37, 16, offset=0.1)
    for i in range(1, 15):
        place = (i + 0.5) * 37 / 16.1 - 0.5
        np.testing.assert_allclose(found[i], [kernel(place - j) for j in range(37)], atol=1e-12)
    embedding = jax.random.normal(jax.random.key(0), (1, 17, 3))
    assert (resize_positions(embedding, 4, 4, False, 0.1) == embedding).all()
    assert np.abs(resize_positions(embedding, 2, 2, False, 0.1) - resize_positions(embedding, 2, 2, False)).max() > 1e-3
    with pytest.raises(ValueError, match="resize_offset=0.1: expected 0 with antialias=True"):
        jax.eval_shape(TINY.clone(resize_offset=0.1).init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
