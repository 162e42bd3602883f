"""UperNet of MMSegmentation (UPerHead, FCNHead) over the backbones of VMamba's repository: its options, parameter names and layouts."""
import re

from vmamba_jax.checkpoints.families import dense
from vmamba_jax.checkpoints.families.common import dotted
from vmamba_jax.core import checks
from vmamba_jax.models.dense.upernet import UperNet

MODEL = UperNet
CLASSIFIER = ()

DEFAULTS = dict(backbone=None, decode_head=None, auxiliary_head=None)
FIXED = ()
HEADS = dict(
    decode_head=dict(type="UPerHead", in_channels=None, in_index=(0, 1, 2, 3), pool_scales=(1, 2, 3, 6), channels=512, dropout_ratio=0.1,
                     num_classes=150, norm_cfg="BN", align_corners=False, loss_decode=None),
    auxiliary_head=dict(type="FCNHead", in_channels=None, in_index=2, channels=256, num_convs=1, concat_input=False, dropout_ratio=0.1,
                        num_classes=150, norm_cfg="BN", align_corners=False, loss_decode=None))
FREE = {f"{head}.{key}" for head in HEADS for key in ("in_channels", "channels", "dropout_ratio", "num_classes", "norm_cfg", "loss_decode")} | {
    "decode_head.pool_scales", "auxiliary_head.in_index", "auxiliary_head.num_convs"}


def build(o):
    """The UperNet of MMSegmentation's options `o`: {"backbone", "decode_head", "auxiliary_head"}, each a dict with the config's spelling."""
    backbone = dense.backbone(o["backbone"])
    heads = dense.filled(HEADS, {name: o[name] for name in HEADS}, FREE)
    decode, auxiliary = heads["decode_head"], heads["auxiliary_head"]
    for name, head in heads.items():
        kind = head["norm_cfg"].get("type") if isinstance(head["norm_cfg"], dict) else head["norm_cfg"]
        checks.choice(f"{name}.norm_cfg", kind, ("BN", "SyncBN"))
    for name in ("num_classes", "dropout_ratio"):
        if decode[name] != auxiliary[name]:
            raise ValueError(f"auxiliary_head.{name}={auxiliary[name]!r}: expected {decode[name]!r}, as of the decode head")
    dims = dense.widths(backbone)
    for name, found, wanted in (("decode_head", decode["in_channels"], dims), ("auxiliary_head", auxiliary["in_channels"], dims[auxiliary["in_index"]])):
        if found is not None and (list(found) if isinstance(found, tuple) else found) != wanted:
            raise ValueError(f"{name}.in_channels={list(found) if isinstance(found, tuple) else found!r}: expected {wanted!r}, the widths of the "
                             "backbone's maps")
    return UperNet(backbone=backbone, num_classes=decode["num_classes"], channels=decode["channels"], aux_channels=auxiliary["channels"],
                   pool_scales=decode["pool_scales"], aux_index=auxiliary["in_index"], aux_depth=auxiliary["num_convs"], dropout=decode["dropout_ratio"])


def of(model):
    """The family of a model by its backbone."""
    return dense.over(model, lambda path: re.sub(r"(psp_modules\.\d+)\.", r"\1.1.", dotted(path)))
