"""Swin: timm's constructor (SwinTransformer), and the names of timm and of the original repository (microsoft/Swin-Transformer).

The original merges patches at the end of a stage, timm at the start of the next; the original also stores buffers that are computed here. Its
detection code base has a norm per map, `norm0` and so on. The format of mmdet and mmsegmentation (stages.*, attn.w_msa, ffn.layers) is not
supported; its merging also has another channel order (nn.Unfold's: channel by channel, not neighbor by neighbor).
"""
import math

import numpy as np

from vmamba_jax.checkpoints.families.common import dotted, rename, single
from vmamba_jax.models.baselines.swin import Swin
from vmamba_jax.models.layers.patches import resize_grid

MODEL = Swin
CLASSIFIER = ("norm.", "head.")
BUFFERS = (r"\.relative_position_index$", r"\.attn_mask$")

DEFAULTS = dict(  # classes by their names
    img_size=224, patch_size=4, in_chans=3, num_classes=1000, global_pool="avg", embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24),
    head_dim=None, window_size=7, always_partition=False, strict_img_size=True, dynamic_img_size=False, mlp_ratio=4.0, qkv_bias=True,
    drop_rate=0.0, proj_drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.1, embed_layer="PatchEmbed", norm_layer="LayerNorm", weight_init="",
    device=None, dtype=None)
FIXED = ("global_pool", "head_dim", "drop_rate", "proj_drop_rate", "attn_drop_rate", "embed_layer", "norm_layer", "weight_init", "device", "dtype")


def build(o):
    """The Swin of timm's options `o`, a complete dict; it accepts every image size, whatever `strict_img_size`."""
    return Swin(num_classes=o["num_classes"], embed_dim=single(o, "embed_dim"), depths=tuple(o["depths"]), num_heads=tuple(o["num_heads"]),
                window_size=single(o, "window_size"), mlp_ratio=single(o, "mlp_ratio"), patch_size=single(o, "patch_size"),
                qkv_bias=bool(o["qkv_bias"]), always_partition=bool(o["always_partition"]), in_channels=o["in_chans"],
                image_size=single(o, "img_size"), drop_path_rate=o["drop_path_rate"])


def original_name(model, path):
    """timm's name of the Flax leaf at `path`."""
    del model
    name = dotted(path)
    return name.replace("head.", "head.fc.", 1) if path[0] == "head" else name


def modern(state_dict, model):
    """The same weights under timm's names."""
    del model
    rules = [(r"^head\.(weight|bias)$", r"head.fc.\1"), (r"^norm(\d+)\.", r"outnorm\1.")]
    if any(name.startswith("layers.0.downsample.") for name in state_dict):
        rules.append((r"^layers\.(\d+)\.downsample\.", lambda found: f"layers.{int(found[1]) + 1}.downsample."))
    return rename(state_dict, rules)


def fit(x, path, shape, model):
    """A relative position table of another window, resized bicubically over its offsets, as in the original repository."""
    del model
    if path[-1] != "relative_position_bias_table" or x.ndim != 2 or x.shape == shape or x.shape[1] != shape[1]:
        return x
    side, target = math.isqrt(len(x)), math.isqrt(shape[0])
    return np.asarray(resize_grid(x.reshape(1, side, side, -1), target, target)).reshape(shape) if side**2 == len(x) else x
