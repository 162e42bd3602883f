"""Vim: the constructor of the original repository (hustvl/Vim, VisionMamba) and its names."""
import math

import numpy as np

from vmamba_jax.checkpoints.families.common import dotted, single
from vmamba_jax.core import checks
from vmamba_jax.models.vim.vim import CLASS_TOKENS, Vim, resize_positions

MODEL = Vim
CLASSIFIER = ("head.", "norm_f.")

DEFAULTS = dict(  # if_devide_out: an older spelling that one of the repository's builders and code derived from it still use
    img_size=224, patch_size=16, stride=16, depth=24, embed_dim=192, d_state=16, channels=3, num_classes=1000, ssm_cfg=None, drop_rate=0.0,
    drop_path_rate=0.1, norm_epsilon=1e-5, rms_norm=True, initializer_cfg=None, fused_add_norm=True, residual_in_fp32=True, device=None,
    dtype=None, ft_seq_len=None, pt_hw_seq_len=14, if_bidirectional=False, final_pool_type="none", if_abs_pos_embed=True, if_rope=False,
    if_rope_residual=False, flip_img_sequences_ratio=-1.0, if_bimamba=False, bimamba_type="v2", if_cls_token=True, if_divide_out=True,
    if_devide_out=True, init_layer_scale=None, use_double_cls_token=False, use_middle_cls_token=True)
FIXED = ("ssm_cfg", "drop_rate", "norm_epsilon", "rms_norm", "initializer_cfg", "device", "dtype", "if_bidirectional", "if_rope",
         "if_rope_residual", "flip_img_sequences_ratio", "if_bimamba", "bimamba_type")
POOLS = {"none": "last", "mean": "mean", "max": "max", "all": "all"}


def build(o):
    """The Vim of the repository's options `o`, a complete dict.

    Three options have no effect: `fused_add_norm` selects a kernel, and only rotary embeddings use `ft_seq_len` and `pt_hw_seq_len`.
    """
    pool = POOLS[checks.choice("final_pool_type", o["final_pool_type"], POOLS)]
    if o["if_cls_token"] and pool == "max":
        raise ValueError("final_pool_type='max': expected if_cls_token=False, or another pool, because the original returns the largest logit "
                         "of each image with if_cls_token=True")
    return Vim(num_classes=o["num_classes"], embed_dim=o["embed_dim"], depth=o["depth"], patch_size=single(o, "patch_size"), stride=o["stride"],
               in_channels=o["channels"], d_state=o["d_state"], class_token=class_token(o), pool=pool, pos_embed=bool(o["if_abs_pos_embed"]),
               image_size=single(o, "img_size"), divide_out=bool(o["if_divide_out"] and o["if_devide_out"]), layer_scale=o["init_layer_scale"],
               residual_in_fp32=bool(o["residual_in_fp32"]), drop_path_rate=o["drop_path_rate"])


def class_token(o):
    """`Vim.class_token` for the three switches; a double class token has precedence over a middle one, as in the original."""
    if not o["if_cls_token"]:
        return "none"
    if o["use_double_cls_token"]:
        return "double"
    return "middle" if o["use_middle_cls_token"] else "head"


def modern(state_dict, model):
    """The same weights; of a model that returns maps without the final norm, which `VisionMambaSeg` has and does not use."""
    return {name: x for name, x in state_dict.items() if not (model.out_indices and name == "norm_f.weight")}


def original_name(model, path):
    """State-dict name of the Flax leaf at `path`."""
    del model
    return dotted(path).replace("patch_embed.", "patch_embed.proj.", 1)


def fit(x, path, shape, model):
    """A position embedding of another square grid, resized; its class rows keep their values and stay with their tokens."""
    if path[-1] != "pos_embed" or x.ndim != 3 or x.shape == shape or x.shape[-1] != shape[-1]:
        return x
    extra = len(CLASS_TOKENS[model.class_token])
    here, there = (math.isqrt(max(n - extra, 0)) for n in (x.shape[1], shape[1]))
    return np.asarray(resize_positions(x, model.class_token, there, there)) if here and here**2 + extra == x.shape[1] else x
