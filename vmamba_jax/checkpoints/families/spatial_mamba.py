"""Spatial-Mamba's original repository (EdwardChasel/Spatial-Mamba): its constructor's options and its names."""
import re

from vmamba_jax.checkpoints.families.common import LEAVES
from vmamba_jax.models.baselines.spatial_mamba import DILATIONS, SpatialMamba

MODEL = SpatialMamba
CLASSIFIER = ("norm.", "head.")

DEFAULTS = dict(img_size=224, patch_size=4, in_chans=3, num_classes=1000, depths=(2, 2, 9, 2), dims=(96, 192, 384, 768), d_state=1, dt_init="random",
                mlp_ratio=4.0, drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.1, norm_layer="LayerNorm", patch_norm=True, use_checkpoint=False)
FIXED = ("patch_size", "d_state", "dt_init", "drop_rate", "attn_drop_rate", "norm_layer", "patch_norm")
NUMBERED = re.compile(r"^(layers|blocks|conv[23]?)_(\d+)$")  # other names keep their underscore


def build(o):
    """The SpatialMamba of the repository's options `o`, a complete dict; img_size has no effect."""
    dims = o["dims"]
    dims = tuple(int(dims * 2**i) for i in range(len(o["depths"]))) if isinstance(dims, int) else tuple(dims)
    return SpatialMamba(num_classes=o["num_classes"], depths=tuple(o["depths"]), dims=dims, mlp_ratio=o["mlp_ratio"], in_channels=o["in_chans"],
                        drop_path_rate=o["drop_path_rate"], remat=bool(o["use_checkpoint"]))


def original_name(model, path):
    """State-dict name of the Flax leaf at `path`."""
    del model
    *modules, leaf = path
    parts = [re.sub(r"^downsample_(\d+)$", r"layers.\1.downsample", NUMBERED.sub(r"\1.\2", name)) for name in modules]
    return ".".join([*parts, LEAVES.get(leaf, leaf)])


def fit(x, path, shape, model):
    """A kernel of the state fusion, (E, 1, 3, 3) in the file, in the layout of Flax."""
    del shape, model
    return x.transpose(2, 3, 1, 0) if path[-1] in DILATIONS and x.ndim == 4 else x


def unfit(x, path):
    """Inverse of `fit`."""
    return x.transpose(3, 2, 0, 1) if path[-1] in DILATIONS else x


def original_shape(path, shape):
    """Shape in the file of a leaf without a layout of its own in `convert`."""
    return (shape[3], shape[2], *shape[:2]) if path[-1] in DILATIONS else tuple(shape)
