"""UperNet of MMSegmentation (UPerHead, FCNHead) over the backbones of VMamba's repository: its options, parameter names and layouts."""
import re

from vmamba_jax.checkpoints.families import vmamba
from vmamba_jax.checkpoints.families.common import complete, dotted
from vmamba_jax.core import checks
from vmamba_jax.models.dense.upernet import UperNet

MODEL = UperNet
CLASSIFIER = ()
BACKBONES = {"vmamba": vmamba}
TYPES = {"MM_VSSM": "vmamba", "vmamba": "vmamba"}       # the backbones' classes in MMSegmentation's configs, and our names
PREFIX = "backbone."

DEFAULTS = dict(backbone=None, decode_head=None, auxiliary_head=None)
FIXED = ()
DECODE = dict(type="UPerHead", in_channels=None, in_index=(0, 1, 2, 3), pool_scales=(1, 2, 3, 6), channels=512, dropout_ratio=0.1, num_classes=150,
              norm_cfg="BN", align_corners=False, loss_decode=None)
AUXILIARY = dict(type="FCNHead", in_channels=None, in_index=2, channels=256, num_convs=1, concat_input=False, dropout_ratio=0.1, num_classes=150,
                 norm_cfg="BN", align_corners=False, loss_decode=None)


def build(o):
    """The UperNet of MMSegmentation's options `o`: {"backbone", "decode_head", "auxiliary_head"}, each a dict with the config's spelling."""
    given = dict(o["backbone"] or {})
    kind = checks.choice("backbone.type", given.pop("type", "vmamba"), TYPES)
    family = BACKBONES[TYPES[kind]]
    backbone = family.build(complete(TYPES[kind], family, {"out_indices": (0, 1, 2, 3), **given}, "backbone"))
    decode, auxiliary = _head("decode_head", o["decode_head"], DECODE), _head("auxiliary_head", o["auxiliary_head"], AUXILIARY)
    for name in ("num_classes", "dropout_ratio"):
        if decode[name] != auxiliary[name]:
            raise ValueError(f"auxiliary_head.{name}={auxiliary[name]!r}: expected {decode[name]!r}, as of the decode head")
    dims = list(backbone.dims)
    for name, found, wanted in (("decode_head", decode["in_channels"], dims), ("auxiliary_head", auxiliary["in_channels"], dims[auxiliary["in_index"]])):
        if found is not None and (list(found) if isinstance(found, (list, tuple)) else found) != wanted:
            raise ValueError(f"{name}.in_channels={found!r}: expected {wanted!r}, the widths of the backbone's maps")
    return UperNet(backbone=backbone, num_classes=decode["num_classes"], channels=decode["channels"], aux_channels=auxiliary["channels"],
                   pool_scales=tuple(decode["pool_scales"]), aux_index=auxiliary["in_index"], aux_depth=auxiliary["num_convs"],
                   dropout=decode["dropout_ratio"])


def _head(name, given, defaults):
    """The complete options of a head; a ValueError for unknown and unsupported ones."""
    given = dict(given or {})
    if unknown := [key for key in given if key not in defaults]:
        raise ValueError(f"{name}: {', '.join(f'{key}={given[key]!r}' for key in unknown)}: expected {', '.join(defaults)}")
    options = {**defaults, **given}
    kind = options["norm_cfg"].get("type") if isinstance(options["norm_cfg"], dict) else options["norm_cfg"]
    checks.choice(f"{name}.norm_cfg", kind, ("BN", "SyncBN"))
    for key in ("type", "align_corners", "concat_input"):
        if key in defaults and options[key] != defaults[key]:
            raise ValueError(f"{name}.{key}={options[key]!r}: expected {defaults[key]!r}, the only supported value")
    if name == "decode_head" and tuple(options["in_index"]) != (0, 1, 2, 3):
        raise ValueError(f"{name}.in_index={options['in_index']!r}: expected (0, 1, 2, 3)")
    return options


def _family(model):
    """The family of a model's backbone."""
    return next(family for family in BACKBONES.values() if isinstance(model.backbone, family.MODEL))


def original_name(model, path):
    """State-dict name of the Flax leaf at `path`."""
    if path[0] == "backbone":
        return PREFIX + _family(model).original_name(model.backbone, path[1:])
    return re.sub(r"(psp_modules\.\d+)\.", r"\1.1.", dotted(path))


def modern(state_dict, model):
    """The same weights with the backbone's under the names of its repository's head."""
    family = _family(model)
    inside = {name.removeprefix(PREFIX): x for name, x in state_dict.items() if name.startswith(PREFIX)}
    rest = {name: x for name, x in state_dict.items() if not name.startswith(PREFIX)}
    return rest | {PREFIX + name: x for name, x in family.modern(inside, model.backbone).items()}


def fit(x, path, shape, model):
    """An array of the backbone, as its family fits it; the heads have only kernels and vectors."""
    return vmamba.fit(x, (path[0], *path[2:]), shape, model.backbone) if path[1] == "backbone" else x


def unfit(x, path):
    """The inverse of `fit`."""
    return vmamba.unfit(x, (path[0], *path[2:])) if path[1] == "backbone" else x


def original_shape(path, shape):
    """Shape in the original file of a Flax leaf of this shape."""
    return vmamba.original_shape((path[0], *path[2:]), shape) if path[1] == "backbone" else tuple(shape)
