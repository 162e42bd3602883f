"""ViT, DeiT and DINOv2: timm's constructor (VisionTransformer) and names, which are also those of the repositories of DeiT and DINOv2.

DINOv2's files also have a mask token, which only its training reads; its training checkpoints number the blocks within chunks.

The options conv_stem, stem_width and stem_end are the class, width and end_siz of the stem that Singh et al. (nmndeep/revisiting-at) put in place of
timm's patch embedding.
"""
import numpy as np

from vmamba_jax.checkpoints.families.common import dotted, rename, single
from vmamba_jax.core import checks
from vmamba_jax.models.baselines.vit import ViT, resize_positions

MODEL = ViT
CLASSIFIER = ("head.",)
BUFFERS = (r"^mask_token$",)
CHUNKED = ((r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),)

DEFAULTS = dict(
    img_size=224, patch_size=16, in_chans=3, num_classes=1000, global_pool="token", embed_dim=768, depth=12, num_heads=12, mlp_ratio=4.0,
    qkv_bias=True, qk_norm=False, scale_attn_norm=False, scale_mlp_norm=False, proj_bias=True, init_values=None, class_token=True,
    pos_embed="learn", no_embed_class=False, reg_tokens=0, pre_norm=False, final_norm=True, fc_norm=None, pool_include_prefix=False,
    dynamic_img_size=False, dynamic_img_pad=False, drop_rate=0.0, pos_drop_rate=0.0, patch_drop_rate=0.0, proj_drop_rate=0.0,
    attn_drop_rate=0.0, drop_path_rate=0.0, weight_init="", fix_init=False,
    conv_stem=None, stem_width=48, stem_end=8)
SUPPORTED = ("img_size", "patch_size", "in_chans", "num_classes", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias", "init_values", "drop_path_rate",
             "dynamic_img_size", "conv_stem", "stem_width", "stem_end")
FIXED = tuple(name for name in DEFAULTS if name not in SUPPORTED)


def build(o):
    """The ViT of timm's options `o`, a complete dict; it accepts every image size that the patches divide, whatever `dynamic_img_size`."""
    stem, patch_size = o["conv_stem"], single(o, "patch_size")
    if stem is not None:
        checks.choice("conv_stem", stem, ("ConvBlock",))
        end = o["stem_width"] * o["stem_end"]
        if (end, patch_size) != (o["embed_dim"], 16):
            raise ValueError(f"conv_stem={stem!r}: expected a stem that ends in embed_dim={o['embed_dim']} channels, not {end}, and patch_size=16, not {patch_size}")
    return ViT(num_classes=o["num_classes"], patch_size=patch_size, embed_dim=o["embed_dim"], depth=o["depth"], num_heads=o["num_heads"],
               mlp_ratio=o["mlp_ratio"], qkv_bias=bool(o["qkv_bias"]), layer_scale=o["init_values"] or None, in_channels=o["in_chans"], image_size=single(o, "img_size"),
               drop_path_rate=o["drop_path_rate"], conv_stem=() if stem is None else tuple(o["stem_width"] * 2**i for i in range(4)))


def original_name(model, path):
    """State-dict name of the Flax leaf at `path`."""
    del model
    return dotted(path).replace("patch_embed.", "patch_embed.proj.", 1)


def modern(state_dict, model):
    """The same weights with blocks that are not in chunks."""
    del model
    return rename(state_dict, CHUNKED)


def fit(x, path, shape, model):
    """A position embedding of another grid, resized; its class row keeps its values."""
    if path[-1] != "pos_embed" or x.ndim != 3 or x.shape == shape or x.shape[-1] != shape[-1]:
        return x
    sides = [round((n - 1)**0.5) for n in (x.shape[1], shape[1])]
    if sides[0]**2 + 1 != x.shape[1]:
        return x
    return np.asarray(resize_positions(x, sides[1], sides[1], model.antialias, model.resize_offset))
