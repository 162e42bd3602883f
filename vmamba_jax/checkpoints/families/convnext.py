"""ConvNeXt: timm's constructor, and the names of timm and of the original repository (facebookresearch/ConvNeXt), with its detection norms.

The options conv_stem and stem_width are the class and the width of the stem that Singh et al. (nmndeep/revisiting-at) put in place of timm's.
"""
from vmamba_jax.checkpoints.families.common import at_most_four, dotted, rename
from vmamba_jax.core import checks
from vmamba_jax.models.baselines.convnext import ConvNeXt

MODEL = ConvNeXt
CLASSIFIER = ("head.",)

DEFAULTS = dict(
    in_chans=3, num_classes=1000, global_pool="avg", output_stride=32, depths=(3, 3, 9, 3), dims=(96, 192, 384, 768), kernel_sizes=7,
    ls_init_value=1e-6, stem_type="patch", patch_size=4, head_init_scale=1.0, head_norm_first=False, head_hidden_size=None, conv_mlp=False,
    conv_bias=True, use_grn=False, act_layer="gelu", norm_layer=None, norm_eps=None, drop_rate=0.0, drop_path_rate=0.0, device=None, dtype=None,
    conv_stem=None, stem_width=48)
SUPPORTED = ("in_chans", "num_classes", "depths", "dims", "ls_init_value", "patch_size", "drop_path_rate", "conv_stem", "stem_width")
FIXED = tuple(name for name in DEFAULTS if name not in SUPPORTED)
CONV_STEMS = {"ConvBlock1": (1, 2), "ConvBlock3": (1, 1.5, 2)}  # widths of the stem's convolutions over the first one's
TOP = {"norm": "head.norm", "head": "head.fc"}


def build(o):
    """The ConvNeXt of timm's options `o`, a complete dict."""
    at_most_four(o, "depths", "dims")
    patch_size = checks.choice("patch_size", o["patch_size"], (4, 1))  # at 2, and at 8 and above, timm's stages have other strides
    stem = () if o["conv_stem"] is None else CONV_STEMS[checks.choice("conv_stem", o["conv_stem"], CONV_STEMS)]
    if stem and (patch_size != 4 or 2 * o["stem_width"] != o["dims"][0]):
        raise ValueError(f"stem_width={o['stem_width']}: expected {o['dims'][0] / 2:g}, half of the first stage's width, with patch_size=4, not {patch_size}")
    return ConvNeXt(num_classes=o["num_classes"], depths=tuple(o["depths"]), dims=tuple(o["dims"]), patch_size=patch_size,
                    layer_scale_init=o["ls_init_value"], in_channels=o["in_chans"], drop_path_rate=o["drop_path_rate"],
                    conv_stem=tuple(int(o["stem_width"] * factor) for factor in stem))


def original_name(model, path):
    """timm's name of the Flax leaf at `path`."""
    del model
    return dotted((TOP.get(path[0], path[0]), *path[1:]))


OFFICIAL = (
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (r"^(stages\.\d+)\.(\d+)\.", r"\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv([12])\.", r".mlp.fc\1."),
    (r"^norm\.", "head.norm."),
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
    (r"^norm(\d+)\.", r"outnorm\1."),
)


def modern(state_dict, model):
    """The same weights under timm's names."""
    del model
    return rename(state_dict, OFFICIAL)
