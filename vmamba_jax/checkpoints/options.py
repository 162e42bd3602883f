"""Models from the options of their original repositories, in those options' own names and spellings."""
from vmamba_jax.models.layers import ACTIVATIONS
from vmamba_jax.models.vmamba import VMamba

# ---- VMamba (MzeroMiko/VMamba, classification/models/vmamba.py and its yaml defaults)

CORES = {  # projection and precision differ between them, the function does not
    **dict.fromkeys(("v01", "v02", "v03", "v04", "v05", "v2", "v3"), "cross"),
    "v051d": "unidi", "v052d": "bidi", "v052dc": "cascade", "v31d": "unidi", "v32d": "bidi", "v32dc": "cascade", "m0": "cross",
}
SUFFIXES = ("_no32", "_oact", "_noz", "_nozact")  # stripped from the end, in this order; then one output norm
OUT_NORMS = {"_onnone": "none", "_ondwconv3": "dwconv3", "_oncnorm": "layer_norm_dwconv3", "_onsoftmax": "softmax", "_onsigmoid": "sigmoid"}

DEFAULTS = dict(
    patch_size=4, in_chans=3, num_classes=1000, depths=(2, 2, 9, 2), dims=96, ssm_d_state=16, ssm_ratio=2.0, ssm_dt_rank="auto",
    ssm_act_layer="silu", ssm_conv=3, ssm_conv_bias=True, ssm_drop_rate=0.0, ssm_init="v0", forward_type="v2", mlp_ratio=4.0,
    mlp_act_layer="gelu", mlp_drop_rate=0.0, gmlp=False, drop_path_rate=0.1, patch_norm=True, norm_layer="ln", downsample_version="v2",
    patchembed_version="v2", use_checkpoint=False, posembed=False, imgsize=224, out_indices=(),
)
NORM_LAYERS = {"ln": "layer_norm", "ln2d": "layer_norm", "bn": "batch_norm"}


def parse_forward_type(forward_type):
    """`<core>[_on*][_nozact][_noz][_oact][_no32]` -> fields of `SS2D`.

    Raises:
        ValueError: an unknown core, or suffixes in an order the original does not strip (it crashes on them).
    """
    if forward_type in ("v0", "v0seq"):
        return dict(gate=True, ssm_act="silu")
    core, flags = forward_type, {}
    for suffix in SUFFIXES:
        flags[suffix] = core.endswith(suffix)
        core = core.removesuffix(suffix) if flags[suffix] else core
    out_norm = next((suffix for suffix in OUT_NORMS if core.endswith(suffix)), None)
    core = core.removesuffix(out_norm) if out_norm else core
    if core not in CORES:
        raise ValueError(f"forward_type={forward_type!r}; expected <core>[_on*][_nozact][_noz][_oact][_no32] in this order with a core of "
                         f"v0, v0seq, {', '.join(CORES)}; found core {core!r}")
    return dict(ssm="mamba2" if core == "m0" else "mamba1", scan_pattern=CORES[core], gate=not flags["_noz"], gate_act=not flags["_nozact"],
                out_act=flags["_oact"], out_norm=OUT_NORMS.get(out_norm, "layer_norm"))


def _vmamba(options):
    o = {**DEFAULTS, **options}
    dims = o["dims"]
    dims = tuple(int(dims * 2**i) for i in range(len(o["depths"]))) if isinstance(dims, int) else tuple(dims)
    for name in ("ssm_drop_rate", "mlp_drop_rate"):
        if o[name]:
            raise ValueError(f"{name}={o[name]!r}; only 0 is supported, as in every released model")
    for name in ("ssm_act_layer", "mlp_act_layer"):
        _one_of(name, str(o[name]).lower(), ACTIVATIONS)
    return VMamba(**{
        **dict(num_classes=o["num_classes"], depths=tuple(o["depths"]), dims=dims, patch_size=o["patch_size"], in_channels=o["in_chans"],
               d_state=o["ssm_d_state"], ssm_ratio=o["ssm_ratio"], dt_rank=None if o["ssm_dt_rank"] == "auto" else int(o["ssm_dt_rank"]),
               ssm_act=o["ssm_act_layer"].lower(), conv_size=o["ssm_conv"], conv_bias=bool(o["ssm_conv_bias"]), ssm_init=o["ssm_init"],
               mlp_ratio=o["mlp_ratio"], mlp_act=o["mlp_act_layer"].lower(), gated_mlp=bool(o["gmlp"]), patch_norm=bool(o["patch_norm"]),
               patch_embed=_one_of("patchembed_version", o["patchembed_version"], ("v1", "v2")),
               downsample=_one_of("downsample_version", o["downsample_version"], ("v1", "v2", "v3")),
               norm=NORM_LAYERS[_one_of("norm_layer", str(o["norm_layer"]).lower(), NORM_LAYERS)], pos_embed=bool(o["posembed"]),
               image_size=o["imgsize"], drop_path_rate=o["drop_path_rate"], remat=bool(o["use_checkpoint"]),
               out_indices=tuple(o["out_indices"])),
        **parse_forward_type(o["forward_type"])})


def _one_of(name, value, known):
    if value not in known:
        raise ValueError(f"{name}={value!r}; expected one of {', '.join(known)}")
    return value


FAMILIES = {"vmamba": (_vmamba, DEFAULTS)}


def model_from_options(family, options):
    """The Linen module that an original repository's options describe.

    Args:
        family: "vmamba".
        options: {option: value} as the repository spells them; what is left out takes the repository's default.

    Raises:
        KeyError: an unknown family. ValueError: an unknown option, or a value that cannot be had, by name.
    """
    if family not in FAMILIES:
        raise KeyError(f"family {family!r}; expected one of {', '.join(FAMILIES)}")
    build, known = FAMILIES[family]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ValueError(f"{family} has no option {', '.join(f'{n}={options[n]!r}' for n in unknown)}; expected some of {', '.join(known)}")
    return build(options)
