"""VMamba's original repository (MzeroMiko/VMamba): its options (classification/models/vmamba.py and the yaml defaults), parameter names and layouts."""
import re

import numpy as np

from vmamba_jax.checkpoints.families.common import LEAVES, rename
from vmamba_jax.core import checks
from vmamba_jax.models.layers.common import ACTIVATIONS
from vmamba_jax.models.layers.patches import resize_grid
from vmamba_jax.models.vmamba.vmamba import VMamba

MODEL = VMamba
CLASSIFIER = ("classifier.",)  # a backbone has no parameters for these names

# ---- options

CORES = {  # they differ in projection and precision, but compute the same function
    **dict.fromkeys(("v01", "v02", "v03", "v04", "v05", "v2", "v3"), "cross"),
    "v051d": "unidi", "v052d": "bidi", "v052dc": "cascade", "v31d": "unidi", "v32d": "bidi", "v32dc": "cascade", "m0": "cross",
}
V0 = ("v0", "v0seq")  # a class of their own in the original
SUFFIXES = ("_no32", "_oact", "_noz", "_nozact")  # stripped from the end, in this order; then one output norm
OUT_NORMS = {"_onnone": "none", "_ondwconv3": "dwconv3", "_oncnorm": "layer_norm_dwconv3", "_onsoftmax": "softmax", "_onsigmoid": "sigmoid"}

DEFAULTS = dict(
    patch_size=4, in_chans=3, num_classes=1000, depths=(2, 2, 9, 2), dims=96, ssm_d_state=16, ssm_ratio=2.0, ssm_dt_rank="auto",
    ssm_act_layer="silu", ssm_conv=3, ssm_conv_bias=True, ssm_drop_rate=0.0, ssm_init="v0", forward_type="v2", mlp_ratio=4.0,
    mlp_act_layer="gelu", mlp_drop_rate=0.0, gmlp=False, drop_path_rate=0.1, patch_norm=True, norm_layer="ln", downsample_version="v2",
    patchembed_version="v2", use_checkpoint=False, posembed=False, imgsize=224, out_indices=(),
)
FIXED = ("ssm_drop_rate", "mlp_drop_rate")  # 0 in every released model
NORM_LAYERS = {"ln": "layer_norm", "ln2d": "layer_norm", "bn": "batch_norm"}


def parse_forward_type(forward_type):
    """Fields of `SS2D` from `<core>[_on*][_nozact][_noz][_oact][_no32]`.

    Raises:
        ValueError: an unknown core, or suffixes in another order, on which the original crashes.
    """
    if forward_type in V0:
        return dict(gate=True, ssm_act="silu", conv_size=3, conv_bias=True, ssm_init="v0")  # the original's class has no such options
    core, flags = forward_type, {}
    for suffix in SUFFIXES:
        flags[suffix] = core.endswith(suffix)
        core = core.removesuffix(suffix) if flags[suffix] else core
    out_norm = next((suffix for suffix in OUT_NORMS if core.endswith(suffix)), None)
    core = core.removesuffix(out_norm) if out_norm else core
    if core not in CORES:
        raise ValueError(f"forward_type={forward_type!r}: expected <core>[_on*][_nozact][_noz][_oact][_no32] in this order with a core of "
                         f"v0, v0seq, {', '.join(CORES)}, not {core!r}")
    return dict(ssm="mamba2" if core == "m0" else "mamba1", scan_pattern=CORES[core], gate=not flags["_noz"], gate_act=not flags["_nozact"],
                out_act=flags["_oact"], out_norm=OUT_NORMS.get(out_norm, "layer_norm"))


def build(o):
    """The VMamba of the repository's options `o`, a complete dict.

    With forward_type "v0" and "v0seq" the options ssm_conv, ssm_conv_bias, ssm_act_layer and ssm_init have no effect, as in the original: a 3x3
    convolution with bias, SiLU, "v0".
    """
    dims = o["dims"]
    dims = tuple(int(dims * 2**i) for i in range(len(o["depths"]))) if isinstance(dims, int) else tuple(dims)
    if o["forward_type"] in V0 and str(o["norm_layer"]).lower() != "ln":
        raise ValueError(f"norm_layer={o['norm_layer']!r}: expected 'ln' with forward_type={o['forward_type']!r}, whose maps have their channels last")
    for name in ("ssm_act_layer", "mlp_act_layer"):
        checks.choice(name, str(o[name]).lower(), ACTIVATIONS)
    return VMamba(**{
        **dict(num_classes=o["num_classes"], depths=tuple(o["depths"]), dims=dims, patch_size=o["patch_size"], in_channels=o["in_chans"],
               d_state=o["ssm_d_state"], ssm_ratio=o["ssm_ratio"], dt_rank=None if o["ssm_dt_rank"] == "auto" else int(o["ssm_dt_rank"]),
               ssm_act=o["ssm_act_layer"].lower(), conv_size=o["ssm_conv"], conv_bias=bool(o["ssm_conv_bias"]), ssm_init=o["ssm_init"],
               mlp_ratio=o["mlp_ratio"], mlp_act=o["mlp_act_layer"].lower(), gated_mlp=bool(o["gmlp"]), patch_norm=bool(o["patch_norm"]),
               patch_embed=checks.choice("patchembed_version", o["patchembed_version"], ("v1", "v2")),
               downsample=checks.choice("downsample_version", o["downsample_version"], ("v1", "v2", "v3")),
               norm=NORM_LAYERS[checks.choice("norm_layer", str(o["norm_layer"]).lower(), NORM_LAYERS)], pos_embed=bool(o["posembed"]),
               image_size=o["imgsize"], drop_path_rate=o["drop_path_rate"], remat=bool(o["use_checkpoint"]),
               out_indices=tuple(o["out_indices"])),
        **parse_forward_type(o["forward_type"])})


# ---- names

PATCH_EMBED = {"conv1": "0", "norm1": "2", "conv2": "5", "norm2": "7"}
DOWNSAMPLE = {"conv": "1", "norm": "3"}
TOP = {"norm": "classifier.norm", "head": "classifier.head"}

OLDER = (  # v0 files, and the single-file release's `x_proj.weight`
    (r"^patch_embed\.proj\.", "patch_embed.0."),
    (r"^patch_embed\.norm\.", "patch_embed.2."),
    (r"^(layers\.\d+\.blocks\.\d+)\.ln_1\.", r"\1.norm."),
    (r"^(layers\.\d+\.blocks\.\d+)\.self_attention\.", r"\1.op."),
    (r"^norm\.", "classifier.norm."),
    (r"^head\.", "classifier.head."),
    (r"\.op\.(x_proj|dt_projs)\.weight$", r".op.\1_weight"),
)
SINGLE_FILE_MERGING = (  # its patch merging is a Sequential(_, norm, reduction)
    (r"^(layers\.\d+\.downsample)\.1\.", r"\1.norm."),
    (r"^(layers\.\d+\.downsample)\.2\.", r"\1.reduction."),
)


def original_name(model, path):
    """State-dict name of the Flax leaf at `path`, a tuple of names without the collection."""
    *modules, leaf = path
    leaf = LEAVES.get(leaf, leaf)
    if not modules:
        return leaf
    head, *rest = modules
    if head in TOP:
        parts = [TOP[head]]
    elif head == "patch_embed":
        parts = ["patch_embed", PATCH_EMBED[rest[0]]]
    elif head.startswith("downsample_"):
        merging = model.downsample == "v1"
        parts = [f"layers.{head.removeprefix('downsample_')}.downsample", rest[0] if merging else DOWNSAMPLE[rest[0]]]
    elif head.startswith("layers_"):
        parts = [head.replace("_", "."), rest[0].replace("_", "."), *_block(model, rest[1:])]
    else:
        parts = modules
    return ".".join([*parts, leaf])


def _block(model, modules):
    if modules[:2] == ["op", "conv2d"] and model.ssm == "mamba2":
        return ["op.conv2d.1"]
    if modules[:2] == ["op", "out_norm"] and model.out_norm == "layer_norm_dwconv3":
        return ["op.out_norm.0"]
    if modules[:2] == ["op", "out_norm_conv"]:
        return ["op.out_norm.2" if model.out_norm == "layer_norm_dwconv3" else "op.out_norm.1"]
    return modules


def modern(state_dict, model):
    """The same weights under the names of the repository's head."""
    del model
    rules = OLDER
    if any(re.search(r"^layers\.\d+\.downsample\.2\.weight$", name) for name in state_dict):
        rules += SINGLE_FILE_MERGING
    return rename(state_dict, rules)


# ---- layouts

RESHAPED = ("x_proj_weight", "dt_projs_weight")  # the single-file release stores both flattened to two axes


def fit(x, path, shape, model):
    """A position embedding in the Flax layout and the model's grid, or a flattened projection with its three axes."""
    del model
    if path[-1] == "pos_embed" and x.ndim == 4:
        x = x.transpose(0, 2, 3, 1)
        return np.asarray(resize_grid(x, *shape[1:3])) if x.shape[-1] == shape[-1] else x
    return x.reshape(shape) if path[-1] in RESHAPED and x.size == np.prod(shape) else x


def original_shape(path, shape):
    """Shape in the file of a Flax leaf of this `shape` that is not a kernel."""
    return (shape[0], shape[3], *shape[1:3]) if path[-1] == "pos_embed" and len(shape) == 4 else tuple(shape)


def unfit(x, path):
    """Inverse of `fit`."""
    return x.transpose(0, 3, 1, 2) if path[-1] == "pos_embed" and x.ndim == 4 else x
