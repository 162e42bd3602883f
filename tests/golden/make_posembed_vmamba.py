"""Writes posembed_vmamba.npz and .json: a VMamba with a position embedding, computed from its equations by plain NumPy loops in float64.

    python tests/golden/make_posembed_vmamba.py

No released VMamba has a position embedding, so no original weights or numbers exist for it. The equations are those of VMamba (Liu et al., arXiv
2401.10166) and of the original repository: patch embedding "v2" (two 3x3 convolutions of stride 2, each with a layer norm, GELU between them), the
embedding added to its output, blocks x + SS2D(norm(x)), x + MLP(norm2(x)), downsampling "v3" (3x3 convolution of stride 2, layer norm), layer norm,
mean over the positions, linear head. Maps are (channels, H, W); names are those of the original state dict.
"""
import json
import math
import pathlib

import numpy as np

CONFIG = dict(patch_size=4, in_chans=3, num_classes=5, depths=[1, 1], dims=[8, 16], ssm_d_state=2, ssm_ratio=1.0, ssm_dt_rank="auto",
              ssm_act_layer="silu", ssm_conv=3, ssm_conv_bias=False, ssm_init="v0", forward_type="v05_noz", mlp_ratio=2.0, mlp_act_layer="gelu",
              gmlp=False, drop_path_rate=0.0, patch_norm=True, norm_layer="ln2d", downsample_version="v3", patchembed_version="v2", posembed=True,
              imgsize=24)
N, DIRECTIONS, STEP = CONFIG["ssm_d_state"], 4, 1e-5
erf = np.vectorize(math.erf)


def draw(rng):
    """Weights with nothing at a special value."""
    dims, classes, grid = CONFIG["dims"], CONFIG["num_classes"], CONFIG["imgsize"] // 4
    shapes = {"pos_embed": (1, dims[0], grid, grid), "classifier.head.weight": (classes, dims[-1]), "classifier.head.bias": (classes,)}
    norms = {"classifier.norm": dims[-1], "patch_embed.2": dims[0] // 2, "patch_embed.7": dims[0], "layers.0.downsample.3": dims[1]}
    convs = {"patch_embed.0": (3, dims[0] // 2), "patch_embed.5": (dims[0] // 2, dims[0]), "layers.0.downsample.1": (dims[0], dims[1])}
    for stage, c in enumerate(dims):
        block, rank, hidden = f"layers.{stage}.blocks.0.", math.ceil(c / 16), int(c * CONFIG["mlp_ratio"])
        shapes |= {block + "op.in_proj.weight": (c, c), block + "op.conv2d.weight": (c, 1, 3, 3), block + "op.out_proj.weight": (c, c),
                   block + "op.x_proj_weight": (DIRECTIONS, rank + 2 * N, c), block + "op.dt_projs_weight": (DIRECTIONS, c, rank),
                   block + "op.dt_projs_bias": (DIRECTIONS, c), block + "op.A_logs": (DIRECTIONS * c, N), block + "op.Ds": (DIRECTIONS * c,),
                   block + "mlp.fc1.weight": (hidden, c), block + "mlp.fc1.bias": (hidden,),
                   block + "mlp.fc2.weight": (c, hidden), block + "mlp.fc2.bias": (c,)}
        norms |= {block + "norm": c, block + "norm2": c, block + "op.out_norm": c}
    for name, (a, b) in convs.items():
        shapes |= {name + ".weight": (b, a, 3, 3), name + ".bias": (b,)}
    for name, c in norms.items():
        shapes |= {name + ".weight": (c,), name + ".bias": (c,)}
    scale = lambda name, shape: 1 if name == "pos_embed" else np.prod(shape[1:])**-0.5 if len(shape) > 1 and "A_logs" not in name else 0.5
    return {name: scale(name, shape) * rng.standard_normal(shape) for name, shape in sorted(shapes.items())}


def conv(x, weight, bias, stride):
    """3x3 convolution with zeros around the map; weight (out, in, 3, 3), or (out, 1, 3, 3) for each channel by itself."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    height, width = ((side - 1) // stride + 1 for side in x.shape[1:])
    y = np.zeros((len(weight), height, width))
    for i in range(height):
        for j in range(width):
            window = padded[:, i * stride:i * stride + 3, j * stride:j * stride + 3]
            y[:, i, j] = [np.sum(w * (window if len(w) > 1 or len(x) == 1 else window[o:o + 1])) for o, w in enumerate(weight)]
    return y if bias is None else y + bias[:, None, None]


def norm(x, w, name):
    mean = x.mean(0)
    return (x - mean) / np.sqrt(((x - mean)**2).mean(0) + 1e-5) * w[name + ".weight"][:, None, None] + w[name + ".bias"][:, None, None]


def linear(x, w, name):
    bias = w.get(name + ".bias", np.zeros(len(w[name + ".weight"])))
    return np.einsum("oc,chw->ohw", w[name + ".weight"], x) + bias[:, None, None]


def gelu(x):
    return x * (1 + erf(x / math.sqrt(2))) / 2


def silu(x):
    return x / (1 + np.exp(-x))


def bicubic(x, height, width):
    """PyTorch's bicubic interpolation, align_corners False: Keys' kernel with a = -0.75, indices clipped to the border."""
    def kernel(d):
        d = abs(d)
        return 1.25 * d**3 - 2.25 * d**2 + 1 if d <= 1 else -0.75 * d**3 + 3.75 * d**2 - 6 * d + 3 if d < 2 else 0.0

    def along(x, length):     # the last axis
        y = np.zeros((*x.shape[:-1], length))
        for i in range(length):
            at = (i + 0.5) * x.shape[-1] / length - 0.5
            for tap in range(math.floor(at) - 1, math.floor(at) + 3):
                y[..., i] += kernel(at - tap) * x[..., min(max(tap, 0), x.shape[-1] - 1)]
        return y

    if x.shape[1:] == (height, width):
        return x
    return along(along(x, width).swapaxes(1, 2), height).swapaxes(1, 2)


def ss2d(x, w, name):
    u = silu(conv(linear(x, w, name + "in_proj"), w[name + "conv2d.weight"], None, 1))
    channels, height, width = u.shape
    rows = [(i, j) for i in range(height) for j in range(width)]
    columns = [(i, j) for j in range(width) for i in range(height)]
    merged, rank = np.zeros_like(u), w[name + "dt_projs_weight"].shape[-1]
    for k, route in enumerate((rows, columns, rows[::-1], columns[::-1])):
        A = -np.exp(w[name + "A_logs"][k * channels:(k + 1) * channels])
        D, h = w[name + "Ds"][k * channels:(k + 1) * channels], np.zeros((channels, N))
        for i, j in route:
            p = w[name + "x_proj_weight"][k] @ u[:, i, j]
            B, C = p[rank:rank + N], p[rank + N:]
            delta = np.log1p(np.exp(w[name + "dt_projs_weight"][k] @ p[:rank] + w[name + "dt_projs_bias"][k]))
            h = np.exp(delta[:, None] * A) * h + delta[:, None] * B * u[:, i, j][:, None]
            merged[:, i, j] += h @ C + D * u[:, i, j]
    return linear(norm(merged, w, name + "out_norm"), w, name + "out_proj")


def vmamba(w, image):
    """(logits (classes,), the first stage's output (channels, H, W)) of an image (3, H, W)."""
    x = gelu(norm(conv(image, w["patch_embed.0.weight"], w["patch_embed.0.bias"], 2), w, "patch_embed.2"))
    x = norm(conv(x, w["patch_embed.5.weight"], w["patch_embed.5.bias"], 2), w, "patch_embed.7")
    x = x + bicubic(w["pos_embed"][0], *x.shape[1:])
    for stage in range(len(CONFIG["depths"])):
        block = f"layers.{stage}.blocks.0."
        x = x + ss2d(norm(x, w, block + "norm"), w, block + "op.")
        x = x + linear(gelu(linear(norm(x, w, block + "norm2"), w, block + "mlp.fc1")), w, block + "mlp.fc2")
        if stage == 0:
            first = x
            x = norm(conv(x, w["layers.0.downsample.1.weight"], w["layers.0.downsample.1.bias"], 2), w, "layers.0.downsample.3")
    return w["classifier.head.weight"] @ norm(x, w, "classifier.norm").mean((1, 2)) + w["classifier.head.bias"], first


def main():
    rng = np.random.default_rng(20261127)
    w = draw(rng)
    arrays = dict(w)
    for size, (height, width) in {"native": (24, 24), "resized": (20, 36)}.items():
        image, cotangent = rng.standard_normal((3, height, width)), rng.standard_normal(CONFIG["num_classes"])
        directions = {"image": rng.standard_normal(image.shape), "pos_embed": rng.standard_normal(w["pos_embed"].shape)}
        logits, first = vmamba(w, image)
        value = lambda t, u, image=image, cotangent=cotangent, d=directions: vmamba({**w, "pos_embed": w["pos_embed"] + u * d["pos_embed"]},
                                                                                   image + t * d["image"])[0] @ cotangent
        slopes = {"image": (value(STEP, 0) - value(-STEP, 0)) / (2 * STEP), "pos_embed": (value(0, STEP) - value(0, -STEP)) / (2 * STEP)}
        arrays |= {f"{size}.input": image[None], f"{size}.cotangent": cotangent[None], f"{size}.logits": logits[None], f"{size}.stage0": first[None]}
        arrays |= {f"{size}.direction.{name}": d if name == "pos_embed" else d[None] for name, d in directions.items()}
        arrays |= {f"{size}.slope.{name}": np.float64(slope) for name, slope in slopes.items()}
    here = pathlib.Path(__file__).with_name("posembed_vmamba")
    np.savez_compressed(here.with_suffix(".npz"), **arrays)
    here.with_suffix(".json").write_text(json.dumps({"config": CONFIG, "state_dict": sorted(w), "made_by": pathlib.Path(__file__).name}, indent=1))


if __name__ == "__main__":
    main()
