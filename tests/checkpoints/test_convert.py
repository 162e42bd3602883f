"""Strict conversion: wrappers, old names, other spellings, and errors that list every difference."""
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from vmamba_jax import checkpoints
from vmamba_jax.models import Classifier
from vmamba_jax.models.layers.patches import bicubic_matrix

SMALL = dict(depths=[1, 1], dims=[8, 16], num_classes=3, forward_type="v05_noz", ssm_d_state=1, ssm_ratio=1.0, ssm_conv_bias=False,
             downsample_version="v3")
V0 = dict(depths=[1, 1], dims=[8, 16], num_classes=3, forward_type="v0", ssm_d_state=2, mlp_ratio=0.0, downsample_version="v1",
          patchembed_version="v1")


def weights(model, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in checkpoints.original_shapes(model).items()}


def same(a, b):
    a, b = flatten_dict(a), flatten_dict(b)
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_array_equal(a[path], b[path], err_msg="/".join(path))


@pytest.fixture(scope="module")
def small():
    model = checkpoints.model_from_options("vmamba", SMALL)
    return model, weights(model)


def test_layouts(small):
    model, given = small
    params = checkpoints.convert(model, given)["params"]
    op = params["layers_0"]["blocks_0"]["op"]
    np.testing.assert_array_equal(op["in_proj"]["kernel"], given["layers.0.blocks.0.op.in_proj.weight"].T)
    np.testing.assert_array_equal(op["conv2d"]["kernel"][:, :, 0, 3], given["layers.0.blocks.0.op.conv2d.weight"][3, 0])
    np.testing.assert_array_equal(params["downsample_0"]["conv"]["kernel"][2, 1, :, 5], given["layers.0.downsample.1.weight"][5, :, 2, 1])
    np.testing.assert_array_equal(op["x_proj_weight"], given["layers.0.blocks.0.op.x_proj_weight"])
    np.testing.assert_array_equal(params["norm"]["scale"], given["classifier.norm.weight"])


@pytest.mark.parametrize("wrap", [
    lambda w: {"model": w}, lambda w: {"state_dict": w}, lambda w: {"model": {k: 0 * x for k, x in w.items()}, "model_ema": w, "epoch": 3},
    lambda w: {"model": {"module." + k: x for k, x in w.items()}}, lambda w: {"state_dict": {"backbone." + k: x for k, x in w.items()}},
    lambda w: {**w, "layers.0.blocks.0.norm.num_batches_tracked": np.int64(7)},
    lambda w: {k: x[..., None, None] if k.endswith(("proj.weight", "fc1.weight", "head.weight")) and x.ndim == 2 else x for k, x in w.items()},
    lambda w: {k.replace("x_proj_weight", "x_proj.weight").replace("dt_projs_weight", "dt_projs.weight"):
               x.reshape(-1, x.shape[-1]) if k.endswith(("x_proj_weight", "dt_projs_weight")) else x for k, x in w.items()},
], ids=["model", "state_dict", "ema preferred", "module prefix", "backbone prefix", "buffers", "1x1 convolutions", "single file"])
def test_spellings(small, wrap):
    model, given = small
    same(checkpoints.convert(model, wrap(given)), checkpoints.convert(Classifier(model), given))


def test_old_v0_names():
    model = checkpoints.model_from_options("vmamba", V0)
    given = weights(model)
    old = {}
    for name, x in given.items():
        for new, before in (("patch_embed.0.", "patch_embed.proj."), ("patch_embed.2.", "patch_embed.norm."), (".op.", ".self_attention."),
                            (".norm.", ".ln_1." if ".blocks." in name else ".norm."), ("classifier.", "")):
            name = name.replace(new, before)
        old[name] = x
    assert "layers.0.blocks.0.ln_1.weight" in old and "head.weight" in old and "norm.bias" in old and "patch_embed.proj.weight" in old
    same(checkpoints.convert(model, {"model": old}), checkpoints.convert(model, given))
    merged = {name.replace("downsample.norm", "downsample.1").replace("downsample.reduction", "downsample.2"): x for name, x in given.items()}
    same(checkpoints.convert(model, merged), checkpoints.convert(model, given))


def test_backbone_from_a_classifier(small):
    """The classifier's entries are ignored and the maps' norms start anew; some of those norms missing, or a block, is an error."""
    model, given = small
    backbone = model.clone(out_indices=(0, 1))
    params = checkpoints.convert(backbone, given)["params"]
    assert set(params) == {"patch_embed", "layers_0", "downsample_0", "layers_1", "outnorm0", "outnorm1"}
    assert (params["outnorm1"]["scale"] == 1).all() and (params["outnorm1"]["bias"] == 0).all() and params["outnorm1"]["scale"].shape == (16,)
    same(params["layers_1"], checkpoints.convert(model, given)["params"]["layers_1"])
    trained = {name: 2 * np.ones(8 if "0" in name else 16, np.float32) for name in ("outnorm0.weight", "outnorm0.bias", "outnorm1.weight", "outnorm1.bias")}
    assert (checkpoints.convert(backbone, {**given, **trained})["params"]["outnorm0"]["scale"] == 2).all()
    with pytest.raises(ValueError, match=r"3 missing: outnorm0.bias \(8,\); outnorm1"):
        checkpoints.convert(backbone, {**given, "outnorm0.weight": trained["outnorm0.weight"]})
    with pytest.raises(ValueError, match="1 missing: layers.1.blocks.0.op.Ds"):
        checkpoints.convert(backbone, {name: x for name, x in given.items() if name != "layers.1.blocks.0.op.Ds"})


@pytest.mark.parametrize("family,options", [
    ("vmamba", {**SMALL, "posembed": True, "imgsize": 32}), ("vmamba", V0), ("vmamba", {**SMALL, "norm_layer": "bn"}),
    ("vim", dict(img_size=16, patch_size=8, stride=8, embed_dim=16, depth=1, num_classes=3)),
    ("deit", dict(img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2, num_classes=3)),
    ("swin", dict(img_size=32, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4, num_classes=3)),
    ("convnext", dict(depths=(1, 1), dims=(8, 16), num_classes=3)),
    ("mambaout", dict(depths=(1, 1), dims=(8, 16), num_classes=3)), ("resnet", dict(layers=(1, 1, 1, 1), channels=(2, 2, 2, 2), num_classes=3)),
    ("efficientnet_lite", dict(num_classes=3)),
])
@pytest.mark.often(4)
def test_round_trip(family, options):
    model = checkpoints.model_from_options(family, options)
    given = weights(model)
    back = checkpoints.to_state_dict(model, checkpoints.convert(model, given))
    assert all(x.flags.c_contiguous for x in back.values())  # safetensors writes other arrays in the wrong order
    assert back.keys() == given.keys()
    for name in given:
        np.testing.assert_array_equal(back[name], given[name], err_msg=name)
    broken = checkpoints.convert(model, given)
    broken["params"].popitem()
    with pytest.raises(ValueError, match=f"variables=params/.*: expected the names and shapes of this {type(model).__name__}"):
        checkpoints.to_state_dict(model, broken)


def test_all_differences_are_reported(small):
    model, given = small
    broken = {k: x for k, x in given.items() if k != "classifier.head.bias"}
    broken["layers.0.blocks.0.op.Ds"] = np.ones(5, np.float32)
    broken["layers.0.blocks.0.op.in_proj.weight"] = np.ones((9, 8), np.float32)
    broken["extra.weight"] = np.ones((2, 2), np.float32)
    with pytest.raises(ValueError) as raised:
        checkpoints.convert(model, broken)
    text = str(raised.value)
    assert "1 missing: classifier.head.bias (3,)" in text and "1 unexpected: extra.weight (2, 2)" in text and "2 misshapen" in text
    assert "op.Ds is (5,), expected (32,)" in text and "in_proj.weight is (9, 8), expected (8, 8)" in text
    with pytest.raises(TypeError, match="'epoch' \\(int\\)"):
        checkpoints.convert(model, {**given, "epoch": 3})
    with pytest.raises(TypeError, match="state_dict=list: expected a dict"):
        checkpoints.convert(model, [given])
    with pytest.raises(TypeError, match="model=int: expected one of VMamba"):
        checkpoints.convert(3, given)


def test_dtypes(small, x64):
    model, given = small
    for dtype, wanted in ((np.float16, np.float32), (np.float64, np.float64)):
        leaves = flatten_dict(checkpoints.convert(model, {k: x.astype(dtype) for k, x in given.items()})["params"]).values()
        assert {x.dtype for x in leaves} == {np.dtype(wanted)}


def test_position_embedding_of_another_grid():
    """Bicubic with a = -0.75: PyTorch's weights for a doubled grid, and a linear ramp stays linear inside."""
    small, large = (checkpoints.model_from_options("vmamba", {**SMALL, "posembed": True, "imgsize": size}) for size in (32, 64))
    given = weights(small)
    given["pos_embed"] = np.broadcast_to(np.arange(8.0, dtype=np.float32), (1, 8, 8, 8)).copy()
    resized = np.asarray(checkpoints.convert(large, given)["params"]["pos_embed"])
    assert resized.shape == (1, 16, 16, 8)
    np.testing.assert_allclose(resized[0, 5, 4:12, 0], np.arange(4, 12) / 2 - 0.25, atol=0.05)
    np.testing.assert_allclose(bicubic_matrix(8, 16)[7, 2:6], (-0.10546875, 0.87890625, 0.26171875, -0.03515625), atol=1e-12)  # torch's


@pytest.mark.parametrize("options,words", [
    (dict(depth=[1]), "depth=[1]: expected options of vmamba"),
    (dict(forward_type="v05_noz_onsoftmax"), "v05_noz_onsoftmax"),
    (dict(forward_type="xv1a"), "xv1a"),
    (dict(norm_layer="gn"), "norm_layer='gn'"),
    (dict(ssm_drop_rate=0.1), "ssm_drop_rate=0.1"),
    (dict(downsample_version="v9"), "downsample_version='v9'"),
    (dict(patchembed_version="v3"), "patchembed_version='v3'"),
    (dict(ssm_act_layer="tanh"), "ssm_act_layer='tanh'"),
])
def test_unsupported_options(options, words):
    with pytest.raises(ValueError) as raised:
        checkpoints.model_from_options("vmamba", {**SMALL, **options})
    assert words in str(raised.value)
    with pytest.raises(KeyError, match="resmlp"):
        checkpoints.model_from_options("resmlp", {})


@pytest.mark.parametrize("forward_type,fields", [
    ("v0", dict(gate=True, scan_pattern="cross")), ("v0seq", dict(gate=True)), ("v05", dict(gate=True, gate_act=True, out_act=False)),
    ("v3_noz", dict(gate=False)), ("v05_nozact", dict(gate=True, gate_act=False)), ("v05_onsoftmax_noz_oact_no32", dict(
        gate=False, out_act=True, out_norm="softmax")), ("v05_oncnorm_noz", dict(out_norm="layer_norm_dwconv3")),
    ("v051d_noz", dict(scan_pattern="unidi")), ("v052d", dict(scan_pattern="bidi")), ("v052dc_noz", dict(scan_pattern="cascade")),
    ("m0_noz", dict(ssm="mamba2", gate=False)), ("v01_no32", dict(ssm="mamba1", gate=True)),
])
def test_forward_types(forward_type, fields):
    model = checkpoints.model_from_options("vmamba", {**SMALL, "forward_type": forward_type})
    assert {name: getattr(model, name) for name in fields} == fields


@pytest.mark.parametrize("family,options,fields", [
    ("resnet", dict(stem_width=32), dict(stem_width=64)),  # timm's plain stem has 64 channels
    ("vmamba", {**V0, "ssm_conv": -1, "ssm_conv_bias": False, "ssm_init": "v2", "ssm_act_layer": "gelu"}, dict(conv_size=3, conv_bias=True, ssm_init="v0", ssm_act="silu")),
    ("vmamba", {**SMALL, "ssm_conv": -1}, dict(conv_size=-1, conv_bias=False)), ("deit", dict(img_size=(64, 64), patch_size=(8, 8)), dict(image_size=64, patch_size=8)),
])
def test_options_mean_what_the_original_constructor_makes_of_them(family, options, fields):
    model = checkpoints.model_from_options(family, options)
    assert {name: getattr(model, name) for name in fields} == fields


@pytest.mark.parametrize("family,options,words", [
    ("vmamba", {**V0, "norm_layer": "ln2d"}, "norm_layer='ln2d': expected 'ln' with forward_type='v0'"), ("vit", dict(img_size=(64, 32)), "img_size=(64, 32)"),
    ("resnet", dict(layers=(1,) * 5, channels=(8,) * 5), "at most four stages"), ("convnext", dict(depths=(1,) * 5, dims=(8,) * 5), "at most four stages"),
])
def test_options_that_the_original_refuses_or_ignores(family, options, words):
    with pytest.raises(ValueError) as raised:
        checkpoints.model_from_options(family, options)
    assert words in str(raised.value)
