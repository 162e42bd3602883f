"""ConvNeXt: timm's constructor, and the names of timm and of the original repository (facebookresearch/ConvNeXt), with its detection norms."""
from vmamba_jax.checkpoints.families.common import at_most_four, dotted, rename
from vmamba_jax.core import checks
from vmamba_jax.models.baselines.convnext import ConvNeXt

MODEL = ConvNeXt
CLASSIFIER = ("head.",)

DEFAULTS = dict(
    in_chans=3, num_classes=1000, global_pool="avg", output_stride=32, depths=(3, 3, 9, 3), dims=(96, 192, 384, 768), kernel_sizes=7,
    ls_init_value=1e-6, stem_type="patch", patch_size=4, head_init_scale=1.0, head_norm_first=False, head_hidden_size=None, conv_mlp=False,
    conv_bias=True, use_grn=False, act_layer="gelu", norm_layer=None, norm_eps=None, drop_rate=0.0, drop_path_rate=0.0, device=None, dtype=None)
SUPPORTED = ("in_chans", "num_classes", "depths", "dims", "ls_init_value", "patch_size", "drop_path_rate")
FIXED = tuple(name for name in DEFAULTS if name not in SUPPORTED)
TOP = {"norm": "head.norm", "head": "head.fc"}


def build(o):
    """The ConvNeXt of timm's options `o`, a complete dict."""
    at_most_four(o, "depths", "dims")
    patch_size = checks.choice("patch_size", o["patch_size"], (4, 1))  # at 2, and at 8 and above, timm's stages have other strides
    return ConvNeXt(num_classes=o["num_classes"], depths=tuple(o["depths"]), dims=tuple(o["dims"]), patch_size=patch_size,
                    layer_scale_init=o["ls_init_value"], in_channels=o["in_chans"], drop_path_rate=o["drop_path_rate"])


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
