"""MambaOut: timm's constructor, and the names of timm and of the original repository (yuweihao/MambaOut)."""
from vmamba_jax.checkpoints.families.common import dotted, rename
from vmamba_jax.core import checks
from vmamba_jax.models.baselines.mambaout import MambaOut

MODEL = MambaOut
CLASSIFIER = ("head.",)

DEFAULTS = dict(
    in_chans=3, num_classes=1000, global_pool="avg", depths=(3, 3, 9, 3), dims=(96, 192, 384, 576), norm_layer="LayerNorm", act_layer="gelu",
    conv_ratio=1.0, expansion_ratio=8 / 3, kernel_size=7, stem_mid_norm=True, ls_init_value=None, downsample="conv", drop_path_rate=0.0, drop_rate=0.0,
    head_fn="default", device=None, dtype=None)
FIXED = ("global_pool", "norm_layer", "drop_rate", "device", "dtype")
LAYER_SCALE = 1e-5  # timm's block starts its factors here, whatever ls_init_value
TOP = {"norm": ("head", "norm"), "hidden": ("head", "pre_logits", "fc"), "hidden_norm": ("head", "pre_logits", "norm"), "head": ("head", "fc")}


def build(o):
    """The MambaOut of timm's options `o`, a complete dict. As in timm, every ls_init_value but None starts the factors at 1e-5."""
    norm_first = checks.choice("downsample", o["downsample"], ("conv", "conv_nf")) == "conv_nf"
    head_norm = checks.choice("head_fn", o["head_fn"], ("default", "norm_mlp")) == "default"
    return MambaOut(num_classes=o["num_classes"], depths=tuple(o["depths"]), dims=tuple(o["dims"]), expansion_ratio=o["expansion_ratio"],
                    conv_ratio=o["conv_ratio"], kernel_size=o["kernel_size"], act=checks.choice("act_layer", o["act_layer"], ("gelu", "silu", "relu")),
                    layer_scale_init=None if o["ls_init_value"] is None else LAYER_SCALE, stem_norm=bool(o["stem_mid_norm"]), norm_first=norm_first,
                    head_norm=head_norm, in_channels=o["in_chans"], drop_path_rate=o["drop_path_rate"])


def original_name(model, path):
    """timm's name of the Flax leaf at `path`."""
    del model
    return dotted((*TOP.get(path[0], path[:1]), *path[1:]))


OFFICIAL = (
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (r"^(stages\.\d+)\.(\d+)\.", r"\1.blocks.\2."),
    (r"^head\.norm\.", "head.pre_logits.norm."),
    (r"^head\.fc1\.", "head.pre_logits.fc."),
    (r"^head\.fc2\.", "head.fc."),
    (r"^norm\.", "head.norm."),
)


def modern(state_dict, model):
    """The same weights under timm's names."""
    del model
    return rename(state_dict, OFFICIAL) if any(name.startswith("downsample_layers.") for name in state_dict) else dict(state_dict)
