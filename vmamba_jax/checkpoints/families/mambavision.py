"""MambaVision's original repository (NVlabs/MambaVision): its constructor's options and its names. The released weights are for non-commercial use."""
from vmamba_jax.checkpoints.families.common import dotted
from vmamba_jax.models.baselines.mambavision import MambaVision

MODEL = MambaVision
CLASSIFIER = ("norm.", "head.")

DEFAULTS = dict(dim=80, in_dim=32, depths=(1, 3, 8, 4), window_size=(8, 8, 14, 7), mlp_ratio=4.0, num_heads=(2, 4, 8, 16), drop_path_rate=0.2, in_chans=3,
                num_classes=1000, qkv_bias=True, qk_scale=None, drop_rate=0.0, attn_drop_rate=0.0, layer_scale=None, layer_scale_conv=None, resolution=224)
FIXED = ("qkv_bias", "qk_scale", "drop_rate", "attn_drop_rate", "layer_scale_conv")
GAMMAS = ("gamma_1", "gamma_2")


def build(o):
    """The MambaVision of the repository's options `o`, a complete dict, whose defaults are those of its tiny model; resolution has no effect."""
    return MambaVision(num_classes=o["num_classes"], depths=tuple(o["depths"]), dims=tuple(o["dim"] * 2**i for i in range(len(o["depths"]))),
                       stem_width=o["in_dim"], num_heads=tuple(o["num_heads"]), windows=tuple(o["window_size"]), mlp_ratio=float(o["mlp_ratio"]),
                       layer_scale=o["layer_scale"], in_channels=o["in_chans"], drop_path_rate=o["drop_path_rate"])


def original_name(model, path):
    """State-dict name of the Flax leaf at `path`."""
    del model
    if path[0].startswith("downsample_"):
        return f"levels.{path[0].removeprefix('downsample_')}.downsample.reduction.0.{dotted(path[1:])}"
    return f"{dotted(path[:-2])}.{path[-2]}" if path[-2] in GAMMAS else dotted(path)
