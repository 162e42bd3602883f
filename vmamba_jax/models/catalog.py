"""Every named model: its module, its fields, and what was published about it."""
import dataclasses
import fnmatch

import numpy as np

from vmamba_jax.models.classifier import IMAGENET_MEAN, IMAGENET_STD
from vmamba_jax.models.vmamba import VMamba

RELEASES = "https://github.com/MzeroMiko/VMamba/releases/tag/"


@dataclasses.dataclass(frozen=True)
class Entry:
    """What the catalog knows of a model.

    Attributes:
        family: the Linen module.
        fields: its fields where they differ from the defaults.
        parameters: exact count with 1000 classes.
        top1: published ImageNet-1k accuracy in percent at 224, or None.
        gflops: published multiply-adds at 224 in units of 1e9, or None.
        weights: published file, as release tag / name, or None.
        mean, std: preprocessing.
        image_size: the released evaluation's crop.
    """
    family: type
    fields: dict
    parameters: int
    top1: float | None = None
    gflops: float | None = None
    weights: str | None = None
    mean: tuple = IMAGENET_MEAN
    std: tuple = IMAGENET_STD
    image_size: int = 224


def _widths(embed):
    return tuple(embed * 2**i for i in range(4))


def _v2(embed, blocks, ratio, drop_path):
    return dict(dims=_widths(embed), depths=(2, 2, blocks, 2), ssm_ratio=ratio, drop_path_rate=drop_path)


def _v0(embed, blocks, drop_path):
    return dict(dims=_widths(embed), depths=(2, 2, blocks, 2), d_state=16, ssm_ratio=2.0, conv_bias=True, gate=True, mlp_ratio=0.0,
                patch_embed="v1", downsample="v1", drop_path_rate=drop_path)


def _m2(embed, blocks, drop_path):
    return dict(dims=_widths(embed), depths=(2, 2, blocks, 2), ssm="mamba2", d_state=64, ssm_act="gelu", ssm_init="v2",
                drop_path_rate=drop_path)


# Parameters, accuracy and GFLOPs: the official README, performance.md and code comments (arXiv 2401.10166, tables 1 and 8).
MODELS = {
    "vmamba_tiny": Entry(VMamba, _v2(96, 8, 1.0, 0.2), 30_249_064, 82.60, 4.90561, "#v2cls/vssm1_tiny_0230s_ckpt_epoch_264.pth"),
    "vmamba_small": Entry(VMamba, _v2(96, 15, 2.0, 0.3), 50_147_752, 83.649, 8.71577, "#v2cls/vssm_small_0229_ckpt_epoch_222.pth"),
    "vmamba_base": Entry(VMamba, _v2(128, 15, 2.0, 0.6), 88_557_800, 83.879, 15.35894, "#v2cls/vssm_base_0229_ckpt_epoch_237.pth"),
    "vmamba_tiny_s2l5": Entry(VMamba, _v2(96, 5, 2.0, 0.2), 30_705_832, 82.489, 4.85774, "#v2cls/vssm_tiny_0230_ckpt_epoch_262.pth"),
    "vmamba_small_s1l20": Entry(VMamba, _v2(96, 20, 1.0, 0.3), 49_012_840, 83.339, 8.61221, "#v2cls/vssm1_small_0229s_ckpt_epoch_240.pth"),
    "vmamba_base_s1l20": Entry(VMamba, _v2(128, 20, 1.0, 0.5), 86_614_504, 83.791, 15.22086, "#v2cls/vssm1_base_0229s_ckpt_epoch_225.pth"),
    "vmamba_tiny_v0": Entry(VMamba, _v0(96, 9, 0.2), 22_893_448, 82.171, 5.62690, "#v0cls/vssmtiny_dp01_ckpt_epoch_292.pth"),
    "vmamba_small_v0": Entry(VMamba, _v0(96, 27, 0.3), 44_417_416, 83.461, 11.23152, "#v0cls/vssmsmall_dp03_ckpt_epoch_238.pth"),
    "vmamba_base_v0": Entry(VMamba, _v0(128, 27, 0.6), 76_254_056, 83.729, 18.02012, "#v0cls/vssmbase_dp06_ckpt_epoch_241.pth"),
    "vmamba_tiny_m2": Entry(VMamba, _m2(96, 4, 0.2), 25_340_296),
    "vmamba_small_m2": Entry(VMamba, _m2(96, 12, 0.3), 39_079_816),
    "vmamba_base_m2": Entry(VMamba, _m2(128, 12, 0.3), 67_527_528),
}

# The original repository's builders, where their names differ.
ALIASES = {
    "vmamba_tiny_s1l8": "vmamba_tiny", "vmamba_small_s2l15": "vmamba_small", "vmamba_base_s2l15": "vmamba_base",
    "vanilla_vmamba_tiny": "vmamba_tiny_v0", "vanilla_vmamba_small": "vmamba_small_v0", "vanilla_vmamba_base": "vmamba_base_v0",
}


def list_models(pattern="*"):
    """Names of the catalog that match a shell-style pattern, in the catalog's order."""
    return [name for name in MODELS if fnmatch.fnmatchcase(name, pattern)]


def entry(name):
    """The catalog's `Entry` of a name; the original repository's builder names are understood too.

    Raises:
        KeyError: an unknown name, with the known ones.
    """
    found = MODELS.get(ALIASES.get(name, name))
    if found is None:
        raise KeyError(f"model {name!r}; expected one of {', '.join(MODELS)}")
    return found


def create_model(name, **overrides):
    """A Linen module by name; call it as `model.apply(variables, images, train=False)` on normalised NHWC images.

    Args:
        name: one of `list_models()`.
        overrides: fields of the module, such as num_classes=10, dtype=jnp.bfloat16, scan_pattern="bidi".

    Raises:
        KeyError: an unknown name. TypeError: an override that is no field of the module.
    """
    found = entry(name)
    known = [field.name for field in dataclasses.fields(found.family) if field.name not in ("parent", "name")]
    unknown = [key for key in overrides if key not in known]
    if unknown:
        raise TypeError(f"{name} has no field {', '.join(map(repr, unknown))}; expected some of {', '.join(known)}")
    fields = {**found.fields, **overrides}
    return found.family(**{key: _hashable(value) for key, value in fields.items()})


def _hashable(value):
    """Lists and arrays as (nested) tuples: fields of a module must hash."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return tuple(_hashable(v) for v in value) if isinstance(value, (list, tuple)) else value
