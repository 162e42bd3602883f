"""Swin: timm's numbers, names and traps, both orders of padding and rolling, other image sizes, the original repository's files.

timm_swinpad_small was made with timm 1.0.31 for these tests: 48 pixels, so that maps of 12 and 6 tokens are padded to windows of 5; random weights
of seed 20240318, so that no gradient vanishes; and logits of the same weights for a 36 x 28 image (`strict_img_size=False`) and, from a model of
image size 16 with `always_partition`, for a 16 x 16 image.
"""
import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.helpers import golden_models
from vmamba_jax import checkpoints
from vmamba_jax.models.baselines import swin
from vmamba_jax.models.baselines.swin import Swin, WindowAttention
from vmamba_jax.models.layers import attention, common

GOLDEN = "timm_swin_small"
PADDED = "timm_swinpad_small"
TINY = Swin(num_classes=5, embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=3, patch_size=2, image_size=12)
BASE = dict(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32))


@functools.cache
def golden_model(name):
    return checkpoints.model_from_options("swin", golden_models.load(name)[1]["constructor"])


@pytest.fixture(scope="module")
def tiny():
    return TINY, jax.jit(TINY.init)(jax.random.key(0), jnp.zeros((1, 12, 12, 3)))


@pytest.mark.parametrize("name", [GOLDEN, pytest.param(PADDED, marks=pytest.mark.slow)])
def test_float64(x64, name):
    arrays, _ = golden_models.load(name)
    recorded = golden_models.check_float64(golden_model(name), name)
    theirs = {"patch_embed_out": "patch_embed", **{f"stage{i}_blocks": f"layers.{i}" for i in range(3)}, "final_norm": "norm"}
    compared = [ours for ours in theirs if f"feat64.{theirs[ours]}" in arrays]
    assert {"stage0_blocks", "stage1_blocks"} <= set(compared)
    for ours in compared:
        np.testing.assert_allclose(recorded[ours][0], arrays[f"feat64.{theirs[ours]}"], atol=1e-9, err_msg=ours)


@pytest.mark.slow   # float64 reproduces the same arrays
def test_float32():
    golden_models.check_float32(golden_model(GOLDEN), GOLDEN)


def logits64(state_dict=None, image="input", **fields):
    """Logits of the padded golden model."""
    model = golden_model(PADDED).clone(**fields)
    variables = checkpoints.convert(model, state_dict or golden_models.weights(PADDED, np.float64))
    images = golden_models.nhwc(golden_models.load(PADDED)[0][image]).astype(np.float64)
    return jax.jit(lambda images: model.apply(variables, images))(images)


def test_other_image_sizes(x64):
    """Windows and shifts are those of image_size; odd and small maps are padded, also for merging."""
    arrays, _ = golden_models.load(PADDED)
    np.testing.assert_allclose(logits64(image="other.input"), arrays["other.logits64"], atol=1e-9)
    always = dict(image="always.input", image_size=16)
    np.testing.assert_allclose(logits64(**always, always_partition=True), arrays["always.logits64"], atol=1e-9)
    assert np.abs(logits64(**always) - arrays["always.logits64"]).max() > 1e-3  # windows of 4 and 2, their tables resized


@pytest.mark.slow
def test_traps_show(x64):
    """Padding order, mask, eps of the norms and order of merged neighbors change the logits by far more than the parity tolerance."""
    arrays, _ = golden_models.load(PADDED)
    error = lambda *args, **fields: np.abs(logits64(*args, **fields) - arrays["logits64"]).max()
    assert error(padding="before_roll") > 1e-3
    for wrong in (mock.patch.object(attention, "MASKED", 0.0),
                  mock.patch.object(swin, "LayerNorm", functools.partial(common.LayerNorm, 1e-6))):
        with wrong:
            assert error() > 1e-6
    weights = golden_models.weights(PADDED, np.float64)
    swap = np.arange(96).reshape(4, 24)[[0, 2, 1, 3]].ravel()  # neighbors in the order (0, 0), (0, 1), (1, 0), (1, 1)
    for key in ("norm.weight", "norm.bias", "reduction.weight"):
        weights[f"layers.1.downsample.{key}"] = weights[f"layers.1.downsample.{key}"][..., swap]
    assert error(weights) > 1e-3


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def dense_attention(params, x, heads, window, shift, padding):
    """Window attention of one image by its definition: attention over the padded map, masked outside each token's window and region."""
    height, width, channels = x.shape
    padded = [-(-n // window) * window for n in (height, width)]
    tokens = np.zeros((*padded, channels))
    tokens[:height, :width] = x
    places = []  # along each axis: a token's position in the shifted map
    for n, whole in zip((height, width), padded, strict=True):
        place = (np.arange(whole) - shift) % whole
        if padding == "after_roll":
            place = np.concatenate([(np.arange(n) - shift) % n, np.arange(n, whole)])
        places.append(place)
    at = np.stack(np.meshgrid(*places, indexing="ij"), -1).reshape(-1, 2)
    region = sum(((at >= np.array(padded) - edge).astype(int) for edge in (window, shift) if shift), np.zeros_like(at))
    together = (at[:, None] // window == at[None] // window).all(-1) & (region[:, None] == region[None]).all(-1)
    offset = np.where(together[..., None], at[:, None] - at[None] + window - 1, 0)
    bias = params["relative_position_bias_table"].reshape(2 * window - 1, 2 * window - 1, heads)[offset[..., 0], offset[..., 1]]
    qkv = tokens.reshape(-1, channels) @ params["qkv"]["kernel"] + params["qkv"]["bias"]
    q, k, v = qkv.reshape(-1, 3, heads, channels // heads).transpose(1, 2, 0, 3)
    scores = q @ k.swapaxes(1, 2) / np.sqrt(channels // heads) + bias.transpose(2, 0, 1)
    mixed = softmax(np.where(together, scores, -np.inf)) @ v
    mixed = mixed.transpose(1, 0, 2).reshape(-1, channels) @ params["proj"]["kernel"] + params["proj"]["bias"]
    return mixed.reshape(*padded, channels)[:height, :width]


@pytest.mark.parametrize("padding", ["before_roll", "after_roll"])
@pytest.mark.parametrize("height,width,window,shift", [(5, 7, 3, 1), (6, 4, 4, 2), (2, 3, 4, 2), (6, 6, 3, 0)])
def test_window_attention_by_its_definition(x64, padding, height, width, window, shift):
    rng = np.random.default_rng(0)
    module = WindowAttention(2, window=window, shift=shift, padding=padding, dtype=np.float64, param_dtype=np.float64)
    x = rng.standard_normal((2, height, width, 6))
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), shapes)["params"]
    found = jax.jit(module.apply)({"params": params}, x)
    for ours, image in zip(found, x, strict=True):
        np.testing.assert_allclose(ours, dense_attention(params, image, 2, window, shift, padding), atol=1e-9)


def test_mask_and_index_of_a_known_window():
    index = attention.relative_position_index(2)
    np.testing.assert_array_equal(index, [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]])
    mask = attention.shift_mask(4, 4, 2, 1)
    assert mask.shape == (4, 4, 4) and set(np.unique(mask)) == {-100.0, 0.0}
    np.testing.assert_array_equal((mask == 0).sum((1, 2)), [16, 8, 8, 4])
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    windows = attention.partition(x, 2)
    np.testing.assert_array_equal(windows[7], x[1, :2, 2:4].reshape(4, 3))
    np.testing.assert_array_equal(attention.merge(windows, 2, 4, 6), x)


@pytest.mark.parametrize("side,always,wanted", [
    (56, False, [(7, 3), (7, 3), (7, 3), (7, 0)]), (56, True, [(7, 3)] * 4), (19, False, [(7, 3), (7, 3), (5, 0), (3, 0)])])
def test_windows_of_the_stages(side, always, wanted):
    assert attention.stage_windows(side, 7, 4, always) == wanted


@pytest.mark.parametrize("fields,parameters", [
    ({}, 28_288_354), (dict(depths=(2, 2, 18, 2)), 49_606_258), (BASE, 87_768_224)], ids=["tiny", "small", "base"])
def test_parameters(fields, parameters):
    assert golden_models.count(Swin(**fields)) == parameters


def test_names():
    assert checkpoints.original_shapes(Swin()) == golden_models.released("swin")


def same(a, b):
    a, b = flatten_dict(a), flatten_dict(b)
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_array_equal(a[path], b[path], err_msg="/".join(path))


def official(state_dict):
    """The state dict under the original repository's names, from timm's, with its buffers."""
    renamed = {}
    for name, x in state_dict.items():
        parts = name.split(".")
        if parts[2:3] == ["downsample"]:
            parts[1] = str(int(parts[1]) - 1)
        renamed[".".join(parts).replace("head.fc", "head")] = x
    return {"model": {**renamed, "layers.0.blocks.1.attn_mask": np.zeros((4, 9, 9), np.float32),
                      "layers.0.blocks.0.attn.relative_position_index": np.zeros((9, 9), np.int64)}}


def test_original_repository_files():
    for name in (GOLDEN, PADDED):  # two mergings, and one
        model, given = golden_model(name), golden_models.weights(name, np.float32)
        theirs = official(given)
        assert "head.weight" in theirs["model"] and "layers.0.downsample.reduction.weight" in theirs["model"]
        same(checkpoints.convert(model, theirs), checkpoints.convert(model, given))
    backbone = model.clone(out_indices=(1,))
    detection = {name: x for name, x in theirs["model"].items() if not name.startswith(("norm.", "head."))}
    detection |= {"norm1.weight": np.full(48, 2.0, np.float32), "norm1.bias": np.full(48, 3.0, np.float32)}
    params = checkpoints.convert(backbone, {"state_dict": {f"backbone.{name}": x for name, x in detection.items()}})["params"]
    assert float(params["outnorm1"]["scale"][0]) == 2 and float(params["outnorm1"]["bias"][0]) == 3


@pytest.mark.slow
def test_table_of_another_window(tiny):
    """Bicubic over (rows, columns) of offsets, per head: PyTorch's numbers for a 3 x 3 table resized to 5 x 5."""
    model, _ = tiny
    given = {name: np.zeros(shape, np.float32) for name, shape in checkpoints.original_shapes(model.clone(window_size=2)).items()}
    table = "layers.1.blocks.0.attn.relative_position_bias_table"
    given[table] = np.array([[0, 1, 5, 2, 3, 7, 1, 9, 4], [10] * 9], np.float32).T
    resized = checkpoints.convert(model, given)["params"]["layers_1"]["blocks_0"]["attn"]["relative_position_bias_table"].reshape(5, 5, 2)
    np.testing.assert_allclose(resized[1, :, 0], [0.800384, 0.705792, 1.344, 4.224288, 6.438208], atol=1e-5)
    np.testing.assert_allclose(resized[:, 1, 0], [-0.092, 0.705792, 2.1, 3.690768, 4.690944], atol=1e-5)
    np.testing.assert_allclose(resized[..., 1], 10, atol=1e-5)
    with pytest.raises(ValueError, match=r"relative_position_bias_table is \(8, 2\), expected \(25, 2\)"):
        checkpoints.convert(model, {**given, table: np.zeros((8, 2), np.float32)})


def test_feature_maps():
    """Outputs of the stages after new norms of eps 1e-5; no parameters of the head."""
    arrays, _ = golden_models.load(GOLDEN)
    backbone = golden_model(GOLDEN).clone(out_indices=(0, 2))
    variables = checkpoints.convert(backbone, golden_models.weights(GOLDEN, np.float32))
    assert not {"norm", "head"} & set(variables["params"])
    variables["params"]["outnorm2"]["bias"] += 1
    maps = jax.jit(backbone.apply)(variables, golden_models.nhwc(arrays["input"]))
    for found, i, bias in zip(maps, (0, 2), (0, 1), strict=True):
        x = arrays[f"feat64.layers.{i}"]
        np.testing.assert_allclose(found, (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) + bias, atol=2e-5)


def test_attention_is_recorded_and_differentiable(tiny):
    """Rows of shifted and unshifted blocks sum to one; tokens of other regions get probability 0."""
    model, variables = tiny
    images = jax.random.uniform(jax.random.key(1), (2, 12, 12, 3))

    @jax.jit
    def maps_of(images):
        recorded = model.apply(variables, images, mutable=["intermediates"])[1]["intermediates"]
        return [recorded[f"layers_{s}"][f"blocks_{i}"]["attn"]["attention"][0] for s in range(2) for i in range(2)]

    maps = maps_of(images)
    assert [x.shape for x in maps] == [(8, 1, 9, 9), (8, 1, 9, 9), (2, 2, 9, 9), (2, 2, 9, 9)]  # 6 x 6 tokens, then 3 x 3
    for x in maps:
        np.testing.assert_allclose(x.sum(-1), 1, atol=1e-6)
    assert [float(x.min()) > 1e-20 for x in maps] == [True, False, True, True]
    paid = jax.grad(lambda images: jnp.log(maps_of(images)[2][..., 3]).mean())(images)
    assert paid.shape == images.shape and np.abs(paid).max() > 0 and np.isfinite(paid).all()


def test_any_size():
    for height, width in ((12, 12), (13, 7), (1, 1), (31, 10)):
        maps = jax.eval_shape(lambda x: TINY.clone(out_indices=(0, 1)).init_with_output(jax.random.key(0), x)[0],
                              jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32))
        half = lambda n: -(-n // 2)
        assert [x.shape for x in maps] == [(2, half(height), half(width), 8), (2, half(half(height)), half(half(width)), 16)]


@pytest.mark.slow
def test_fields(tiny):
    model, variables = tiny
    images = jax.random.uniform(jax.random.key(1), (2, 12, 12, 3))
    apply = lambda **fields: jax.jit(model.clone(**fields).apply)(variables, images)
    logits = apply()
    np.testing.assert_allclose(apply(remat=True), logits, atol=1e-6)
    narrow = apply(dtype=jnp.bfloat16)
    assert narrow.dtype == jnp.bfloat16 and np.abs(narrow - logits).max() < 0.05 * np.abs(logits).max()
    params = {name: p for name, p in variables["params"].items() if name != "head"}
    assert jax.eval_shape(model.clone(num_classes=0).apply, {"params": params}, images).shape == (2, 16)
    dropped = jax.jit(lambda: model.clone(drop_path_rate=0.9).apply(variables, images, train=True, rngs={"dropout": jax.random.key(3)}))()
    assert np.abs(dropped - logits).max() > 1e-6
    flat = flatten_dict(variables["params"])
    assert not any("bias" in path[-1] and "qkv" in path for path in flatten_dict(golden_models.abstract(model.clone(qkv_bias=False))["params"]))
    assert float(jnp.std(flat["layers_1", "blocks_1", "attn", "relative_position_bias_table"])) == pytest.approx(0.02, rel=0.5)


@pytest.mark.parametrize("fields,shape,words", [
    ({}, (1, 12, 12, 1), "expected (batch, height, width, 3)"), ({}, (12, 12, 3), "(12, 12, 3)"),
    (dict(num_heads=(1,)), (1, 12, 12, 3), "depths=(2, 2), num_heads=(1,)"), (dict(num_heads=(3, 2)), (1, 12, 12, 3), "num_heads=(3, 2)"),
    (dict(padding="both"), (1, 12, 12, 3), "padding='both': expected one of 'after_roll', 'before_roll'"),
    (dict(image_size=13), (1, 12, 12, 3), "image_size=13: expected a multiple of patch_size=2"),
    (dict(window_size=0), (1, 12, 12, 3), "window_size=0"), (dict(out_indices=(2,)), (1, 12, 12, 3), "out_indices=(2,)"),
    (dict(drop_path_rate=1.0), (1, 12, 12, 3), "drop_path_rate=1.0"),
])
def test_wrong_fields_and_images(fields, shape, words):
    with pytest.raises(ValueError) as raised:
        jax.eval_shape(TINY.clone(**fields).init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
    assert words in str(raised.value)


def test_options():
    assert checkpoints.model_from_options("swin", {}) == Swin(drop_path_rate=0.1)
    asked = dict(img_size=[384, 384], window_size=(12, 12), always_partition=True, strict_img_size=False, num_classes=7, **BASE)
    assert checkpoints.model_from_options("swin", asked) == Swin(image_size=384, window_size=12, always_partition=True, num_classes=7,
                                                                 drop_path_rate=0.1, **BASE)
    for option, words in ((dict(img_size=(224, 192)), r"img_size=\(224, 192\)"), (dict(window_size=(7, 7, 14, 7)), "one number"),
                          (dict(head_dim=32), "head_dim=32: expected None, the only supported value"), (dict(norm_layer="rmsnorm"), "norm_layer='rmsnorm'")):
        with pytest.raises(ValueError, match=words):
            checkpoints.model_from_options("swin", option)
