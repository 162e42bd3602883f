"""Spatial-Mamba and MambaVision against plain float64 loops over the original names' weights: their mixers, and whole small networks."""
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vmamba_jax
from tests.helpers.golden_models import abstract
from vmamba_jax import checkpoints, models
from vmamba_jax.checkpoints.families import spatial_mamba as spatial_names
from vmamba_jax.models.baselines import mambavision, spatial_mamba
from vmamba_jax.models.baselines.mambavision import MambaVision
from vmamba_jax.models.baselines.spatial_mamba import SpatialMamba, StateFusion, StructureAwareSSM

SPATIAL = SpatialMamba(num_classes=3, depths=(1, 1), dims=(4, 8), patch_size=4)
VISION = MambaVision(num_classes=3, depths=(1, 1, 2), dims=(4, 4, 8), stem_width=2, num_heads=(1, 1, 2), windows=(9, 9, 3), layer_scale=0.5)
sigmoid = lambda x: 1 / (1 + np.exp(-x))
silu = lambda x: x * sigmoid(x)
softplus = lambda x: np.log1p(np.exp(x))
erf = np.vectorize(math.erf)
gelu = lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2)))
tanh_gelu = lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
relu = lambda x: np.maximum(x, 0)


def drawn(shapes, seed=0):
    """Random weights by original name; variances positive, scales near 1."""
    rng = np.random.default_rng(seed)
    draw = lambda name, shape: rng.uniform(0.5, 1.5, shape) if name.endswith(("running_var", "norm.weight", "alpha")) else 0.6 * rng.normal(size=shape)
    return {name: draw(name, shape) for name, shape in shapes.items()}


# ---- the plain programs; maps are (H, W, C), weights have PyTorch's layouts

def conv(w, name, x, stride=1, dilation=1, edge=False, groups=1):
    """Padded square convolution, one output place after the other."""
    kernel, bias = w[f"{name}.weight"], w.get(f"{name}.bias", 0)
    pad = dilation * (kernel.shape[-1] // 2)
    x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)), mode="edge" if edge else "constant")
    out = np.zeros((-(-(x.shape[0] - 2 * pad) // stride), -(-(x.shape[1] - 2 * pad) // stride), len(kernel)))
    for i, j in np.ndindex(*out.shape[:2]):
        for a, b in np.ndindex(*kernel.shape[2:]):
            value = x[i * stride + a * dilation, j * stride + b * dilation]
            out[i, j] += kernel[:, 0, a, b] * value if groups > 1 else kernel[:, :, a, b] @ value
    return out + bias


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)


def layer_norm(w, name, x, eps=1e-5):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * w[f"{name}.weight"] + w[f"{name}.bias"]


def batch_norm(w, name, x, eps=1e-5):
    return (x - w[f"{name}.running_mean"]) / np.sqrt(w[f"{name}.running_var"] + eps) * w[f"{name}.weight"] + w[f"{name}.bias"]


def mlp(w, name, x):
    return linear(w, f"{name}.fc2", gelu(linear(w, f"{name}.fc1", x)))


def fusion(w, name, h, edge=False):
    return sum(w[f"{name}.alpha"][i] * conv({"k.weight": w[f"{name}.{kernel}"]}, "k", h, dilation=d, edge=edge, groups=2)
               for i, (kernel, d) in enumerate((("kernel_3", 1), ("kernel_3_1", 3), ("kernel_3_2", 5))))


def structure_aware_ssm(w, name, x):
    height, width, channels = x.shape
    rank = math.ceil(channels / 16)
    x, z = np.split(linear(w, f"{name}.in_proj", x), 2, -1)
    u = silu(conv(w, f"{name}.conv2d", x, groups=2))
    p = u @ w[f"{name}.x_proj_weight"].T
    delta = softplus(p[..., :rank] @ w[f"{name}.dt_projs_weight"].T + w[f"{name}.dt_projs_bias"])
    A, state, h = -np.exp(w[f"{name}.A_logs"][:, 0]), np.zeros(u.shape[-1]), np.zeros_like(u)
    for i, j in np.ndindex(height, width):
        state = np.exp(delta[i, j] * A) * state + delta[i, j] * p[i, j, rank] * u[i, j]
        h[i, j] = state
    y = fusion(w, f"{name}.state_fusion", h) * p[..., rank + 1:] + u * w[f"{name}.Ds"]
    return linear(w, f"{name}.out_proj", layer_norm(w, f"{name}.out_norm", y) * silu(z))


def spatial(w, x):
    layer = lambda name, x, stride=1, act=True: (relu if act else np.asarray)(batch_norm(w, f"{name}.norm", conv(w, f"{name}.conv", x, stride)))
    x = layer("patch_embed.conv1", x, 2)
    x = x + layer("patch_embed.conv2.1", layer("patch_embed.conv2.0", x), act=False)
    x = layer("patch_embed.conv3.1", layer("patch_embed.conv3.0", x, 2), act=False)
    for i in range(2):
        block = f"layers.{i}.blocks.0"
        x = x + conv(w, f"{block}.cpe1", x, groups=2)
        x = x + structure_aware_ssm(w, f"{block}.self_attention", layer_norm(w, f"{block}.ln_1", x))
        x = x + conv(w, f"{block}.cpe2", x, groups=2)
        x = x + mlp(w, f"{block}.mlp", layer_norm(w, f"{block}.ln_2", x))
        if i == 0:
            down = "layers.0.downsample.conv"
            x = relu(conv(w, f"{down}.1.conv", relu(conv(w, f"{down}.0.conv", x)), 2, groups=2))
            x = layer(f"{down}.2", x, act=False)
    return linear(w, "head", layer_norm(w, "norm", x).mean((0, 1)))


def token_conv(kernel, x):
    out, padded = np.zeros_like(x), np.pad(x, ((1, 1), (0, 0)))
    for t in range(len(x)):
        for a in range(3):
            out[t] += kernel[:, 0, a] * padded[t + a]
    return out


def vision_mixer(w, name, x):
    half, rank = x.shape[-1] // 2, math.ceil(x.shape[-1] / 16)
    x, z = np.split(linear(w, f"{name}.in_proj", x), 2, -1)
    x, z = silu(token_conv(w[f"{name}.conv1d_x.weight"], x)), silu(token_conv(w[f"{name}.conv1d_z.weight"], z))
    p = linear(w, f"{name}.x_proj", x)
    delta = softplus(linear(w, f"{name}.dt_proj", p[:, :rank]) + w[f"{name}.dt_proj.bias"])  # the bias twice, as released
    A, h, y = -np.exp(w[f"{name}.A_log"]), np.zeros((half, 8)), np.zeros_like(x)
    for t in range(len(x)):
        h = np.exp(delta[t][:, None] * A) * h + delta[t][:, None] * p[t, rank:rank + 8] * x[t][:, None]
        y[t] = h @ p[t, rank + 8:] + w[f"{name}.D"] * x[t]
    return linear(w, f"{name}.out_proj", np.concatenate([y, z], -1))


def attention(w, name, x, heads):
    n, channels = x.shape
    q, k, v = np.moveaxis(linear(w, f"{name}.qkv", x).reshape(n, 3, heads, -1), 1, 0)
    out = np.zeros((n, heads, channels // heads))
    for head in range(heads):
        scores = np.exp(q[:, head] @ k[:, head].T / math.sqrt(channels // heads))
        out[:, head] = scores / scores.sum(-1, keepdims=True) @ v[:, head]
    return linear(w, f"{name}.proj", out.reshape(n, channels))


def vision(w, x):
    for i in (0, 3):
        x = relu(batch_norm(w, f"patch_embed.conv_down.{i + 1}", conv(w, f"patch_embed.conv_down.{i}", x, 2), 1e-4))
    for i in range(2):
        block = f"levels.{i}.blocks.0"
        y = tanh_gelu(batch_norm(w, f"{block}.norm1", conv(w, f"{block}.conv1", x)))
        x = x + batch_norm(w, f"{block}.norm2", conv(w, f"{block}.conv2", y))
        x = conv(w, f"levels.{i}.downsample.reduction.0", x, 2)
    (height, width), size = x.shape[:2], 3
    padded = np.pad(x, ((0, -height % size), (0, -width % size), (0, 0)))
    for top in range(0, len(padded), size):
        for left in range(0, padded.shape[1], size):
            t = padded[top:top + size, left:left + size].reshape(size * size, -1)
            for j in range(2):
                block = f"levels.2.blocks.{j}"
                y = layer_norm(w, f"{block}.norm1", t)
                y = vision_mixer(w, f"{block}.mixer", y) if j == 0 else attention(w, f"{block}.mixer", y, 2)
                t = t + w[f"{block}.gamma_1"] * y
                t = t + w[f"{block}.gamma_2"] * mlp(w, f"{block}.mlp", layer_norm(w, f"{block}.norm2", t))
            padded[top:top + size, left:left + size] = t.reshape(size, size, -1)
    return linear(w, "head", batch_norm(w, "norm", padded[:height, :width]).mean((0, 1)))


# ---- comparisons

def test_state_fusion(x64):
    """Zeros outside of the map by default, the nearest states in training."""
    h, kernels = np.random.default_rng(0).normal(size=(1, 4, 7, 2)), np.random.default_rng(1).normal(size=(3, 2, 1, 3, 3))
    w = {f"f.{name}": x for name, x in zip(spatial_mamba.DILATIONS, kernels, strict=True)} | {"f.alpha": np.array([0.5, -1.2, 2.0])}
    params = {name: jnp.asarray(spatial_names.fit(kernels[i], (name,), None, None)) for i, name in enumerate(spatial_mamba.DILATIONS)}
    run = lambda padding, train: StateFusion(padding).apply({"params": params | {"alpha": jnp.asarray(w["f.alpha"])}}, jnp.asarray(h), train)[0]
    zeros, edge = fusion(w, "f", h[0]), fusion(w, "f", h[0], edge=True)
    assert np.abs(zeros - edge).max() > 1
    np.testing.assert_allclose(run("released", False), zeros, atol=1e-12)
    np.testing.assert_allclose(run("released", True), edge, atol=1e-12)
    np.testing.assert_allclose(run("edge", False), edge, atol=1e-12)
    np.testing.assert_allclose(run("zeros", True), zeros, atol=1e-12)
    with pytest.raises(ValueError, match="fusion_padding='wrap': expected one of 'released', 'edge', 'zeros'"):
        run("wrap", False)


@pytest.mark.parametrize("model, plain, name", [
    (SPATIAL, structure_aware_ssm, "layers.0.blocks.0.self_attention"), (VISION, vision_mixer, "levels.2.blocks.0.mixer")], ids=["spatial", "vision"])
def test_mixers(x64, model, plain, name):
    weights = drawn(checkpoints.original_shapes(model))
    params = checkpoints.convert(model, weights)["params"]
    for part in re.sub(r"(layers|levels|blocks)\.", r"\1_", name).split("."):
        params = params[part]
    module = StructureAwareSSM() if plain is structure_aware_ssm else mambavision.Mixer()
    shape = (3, 2, 4) if plain is structure_aware_ssm else (5, 8)
    x = np.random.default_rng(2).normal(size=shape)
    np.testing.assert_allclose(jax.jit(module.apply)({"params": params}, jnp.asarray(x)[None])[0], plain(weights, name, x), atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("model, plain, side", [(SPATIAL, spatial, 24), (VISION, vision, 64)], ids=["spatial", "vision"])
def test_networks(x64, model, plain, side):
    """A map that is padded to windows of MambaVision, and one wider than the fusion's reach."""
    weights = drawn(checkpoints.original_shapes(model))
    images = np.random.default_rng(3).normal(size=(1, side, side + 8, 3))
    logits = jax.jit(model.apply)(checkpoints.convert(model, weights), jnp.asarray(images))[0]
    np.testing.assert_allclose(logits, plain(weights, images[0]), atol=1e-9)
    assert np.ptp(logits) > 1e-2


NAMES = {
    "spatial_mamba": (dict(dims=4, depths=(1, 1), num_classes=3), {
        "patch_embed.conv1.conv.weight": (2, 3, 3, 3), "patch_embed.conv2.1.norm.running_var": (2,), "patch_embed.conv3.1.conv.weight": (4, 16, 1, 1),
        "layers.0.blocks.0.cpe1.weight": (4, 1, 3, 3), "layers.0.blocks.0.ln_1.weight": (4,), "layers.0.blocks.0.self_attention.A_logs": (8, 1),
        "layers.0.blocks.0.self_attention.x_proj_weight": (3, 8), "layers.0.blocks.0.self_attention.state_fusion.kernel_3_2": (8, 1, 3, 3),
        "layers.0.blocks.0.self_attention.state_fusion.alpha": (3,), "layers.0.downsample.conv.1.conv.weight": (32, 1, 3, 3),
        "layers.0.downsample.conv.2.norm.bias": (8,), "layers.1.blocks.0.mlp.fc2.weight": (8, 32), "norm.weight": (8,), "head.bias": (3,)}),
    "mambavision": (dict(dim=4, in_dim=2, depths=(1, 1, 2), num_heads=(1, 2, 4), window_size=(4, 4, 2), layer_scale=1e-5, num_classes=3), {
        "patch_embed.conv_down.0.weight": (2, 3, 3, 3), "patch_embed.conv_down.4.running_mean": (4,), "levels.1.blocks.0.conv2.bias": (8,),
        "levels.0.blocks.0.norm1.weight": (4,), "levels.1.downsample.reduction.0.weight": (16, 8, 3, 3), "levels.2.blocks.0.mixer.conv1d_z.weight": (8, 1, 3),
        "levels.2.blocks.0.mixer.dt_proj.weight": (8, 1), "levels.2.blocks.0.mixer.x_proj.weight": (17, 8), "levels.2.blocks.0.mixer.A_log": (8, 8),
        "levels.2.blocks.1.mixer.qkv.bias": (48,), "levels.2.blocks.1.gamma_2": (16,), "norm.running_var": (16,), "head.weight": (3, 16)}),
}


@pytest.mark.parametrize("family", NAMES)
def test_released_names(family):
    """Names and shapes of the released files, and back."""
    options, wanted = NAMES[family]
    model = checkpoints.model_from_options(family, options)
    shapes = checkpoints.original_shapes(model)
    assert {name: shapes.get(name) for name in wanted} == wanted
    given = {name: x.astype(np.float32) for name, x in drawn(shapes).items()}
    back = checkpoints.to_state_dict(model, checkpoints.convert(model, {"state_dict": {f"module.{name}": x for name, x in given.items()}}))
    assert back.keys() == given.keys() and all(np.array_equal(back[name], given[name]) for name in given)


def test_options_and_fields():
    assert checkpoints.model_from_options("spatial_mamba", dict(dims=64, depths=[2, 4, 8, 4], drop_path_rate=0.2)) == vmamba_jax.create_model("spatialmamba_tiny")
    assert checkpoints.model_from_options("mambavision", {}) == vmamba_jax.create_model("mamba_vision_T") == vmamba_jax.create_model("mambavision_tiny")
    with pytest.raises(ValueError, match="d_state=16: expected 1, the only supported value"):
        checkpoints.model_from_options("spatial_mamba", dict(d_state=16))
    kinds = lambda depth: [block["kind"] for block in VISION.clone(depths=(1, 1, depth))._blocks(2)]
    assert kinds(7) == ["mamba"] * 4 + ["attention"] * 3 and kinds(4) == ["mamba"] * 2 + ["attention"] * 2
    assert "non-commercial" in models.entry("mambavision_base").releases[0].license and models.entry("mambavision_small").preprocessing.resize == 240
    for model, words in ((VISION.clone(windows=(1,)), r"depths=\(1, 1, 2\), windows=\(1,\)"), (VISION.clone(dims=(4, 4, 9)), r"dims=\(4, 4, 9\): expected even widths"),
                         (SPATIAL.clone(patch_size=8), "patch_size=8: expected one of 4, 2, 1")):
        with pytest.raises(ValueError, match=words):
            jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32))


@pytest.mark.parametrize("name, millions", [
    pytest.param(name, millions, marks=() if name == "mambavision_tiny" else pytest.mark.slow) for name, millions in {
        "spatialmamba_tiny": 27, "spatialmamba_small": 43, "spatialmamba_base": 96, "mambavision_tiny": 31.8, "mambavision_tiny2": 35.1,
        "mambavision_small": 50.1, "mambavision_base": 97.7, "mambavision_large": 227.9, "mambavision_large2": 241.5, "dinov2_small": 22.06}.items()])
def test_published_parameters(name, millions):
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(abstract(vmamba_jax.create_model(name), 224)["params"]))
    assert count == models.entry(name).parameters
    digit = 10.0**-len(str(millions).partition(".")[2])
    assert -0.5 * digit <= count / 1e6 - millions < digit  # rounded, or cut off
