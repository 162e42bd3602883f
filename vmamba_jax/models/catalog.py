"""Every named model: its module, fields, parameter count, released weights and published figures."""
import dataclasses
import fnmatch

import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.models.baselines.convnext import ConvNeXt
from vmamba_jax.models.baselines.efficientnet import EfficientNetLite
from vmamba_jax.models.baselines.mambaout import MambaOut
from vmamba_jax.models.baselines.mambavision import MambaVision
from vmamba_jax.models.baselines.resnet import ResNet
from vmamba_jax.models.baselines.spatial_mamba import SpatialMamba
from vmamba_jax.models.baselines.swin import Swin
from vmamba_jax.models.baselines.vit import ViT
from vmamba_jax.models.dense.mask_rcnn import MaskRCNN
from vmamba_jax.models.dense.upernet import UperNet
from vmamba_jax.models.releases import RELEASES, Preprocessing
from vmamba_jax.models.sequence.classifier import SequenceClassifier
from vmamba_jax.models.vim.vim import Vim
from vmamba_jax.models.vmamba.vmamba import VMamba


@dataclasses.dataclass(frozen=True)
class Entry:
    """One model of the catalog.

    Attributes:
        family: class of the Linen module.
        fields: its fields that differ from the defaults.
        parameters: exact count, with 1000 classes unless `fields` has another number.
        flops: multiply-adds of the forward pass at the released evaluation's size, as `cost` counts them; None: not counted.
        releases: published weights, a tuple of `Release`; the properties below are those of the first.
        unreleased: preprocessing of a model without releases.
    """
    family: type
    fields: dict
    parameters: int
    flops: int | None
    releases: tuple = ()
    unreleased: Preprocessing = Preprocessing()

    @property
    def preprocessing(self):
        """The released evaluation's `Preprocessing`."""
        return self.releases[0].preprocessing if self.releases else self.unreleased

    gflops = property(lambda self: None if self.flops is None else self.flops / 1e9, doc="`flops` in units of 1e9.")
    mean = property(lambda self: self.preprocessing.mean, doc="Per channel, in units of [0, 1] images.")
    std = property(lambda self: self.preprocessing.std, doc="Per channel, in units of [0, 1] images.")
    image_size = property(lambda self: self.preprocessing.size, doc="Side of the released evaluation's crop, in pixels.")
    top1 = property(lambda self: self.releases[0].top1 if self.releases else None, doc="ImageNet-1k accuracy in percent, or None.")
    tag = property(lambda self: self.releases[0].tag if self.releases else None, doc="Name of the released weights, or None.")
    weights = property(lambda self: self.releases[0].address or None if self.releases else None, doc="Address of the released weights' file, or None.")


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


def _transformer(dim, heads):
    return dict(embed_dim=dim, num_heads=heads, drop_path_rate=0.1)


def _swin(dim, blocks, heads, drop_path):
    return dict(embed_dim=dim, depths=(2, 2, blocks, 2), num_heads=tuple(heads * 2**i for i in range(4)), drop_path_rate=drop_path)


def _convnext(dim, blocks, drop_path, stem=()):
    return dict(dims=_widths(dim), depths=(3, 3, blocks, 3), drop_path_rate=drop_path, conv_stem=stem)


def _mambaout(dim, depths, drop_path=0.0, **fields):
    return dict(dims=tuple(dim * i for i in (1, 2, 4, 6)), depths=depths, drop_path_rate=drop_path, **fields)


def _mambaout_rw(dim, depths, **fields):
    return _mambaout(dim, depths, layer_scale_init=1e-5, stem_norm=False, norm_first=True, head_norm=False, **fields)


def _spatialmamba(dim, depths, drop_path):
    return dict(dims=_widths(dim), depths=depths, drop_path_rate=drop_path)


def _mambavision(dim, depths, drop_path=0.2, stem=64, heads=2, layer_scale=None):
    return dict(dims=_widths(dim), depths=depths, stem_width=stem, num_heads=tuple(heads * 2**i for i in range(4)), layer_scale=layer_scale,
                drop_path_rate=drop_path)


# The numbers are the parameters and multiply-adds that `program_cost.cost` counts.
_MODELS = {
    "vmamba_tiny": (VMamba, _v2(96, 8, 1.0, 0.2), 30_249_064, 4_905_572_352),
    "vmamba_small": (VMamba, _v2(96, 15, 2.0, 0.3), 50_147_752, 8_715_737_088),
    "vmamba_base": (VMamba, _v2(128, 15, 2.0, 0.6), 88_557_800, 15_358_894_080),
    "vmamba_tiny_s2l5": (VMamba, _v2(96, 5, 2.0, 0.2), 30_705_832, 4_857_704_448),
    "vmamba_small_s1l20": (VMamba, _v2(96, 20, 1.0, 0.3), 49_012_840, 8_612_173_824),
    "vmamba_base_s1l20": (VMamba, _v2(128, 20, 1.0, 0.5), 86_614_504, 15_220_809_728),
    "vmamba_tiny_v0": (VMamba, _v0(96, 9, 0.2), 22_893_448, 5_626_864_896),
    "vmamba_small_v0": (VMamba, _v0(96, 27, 0.3), 44_417_416, 11_231_473_920),
    "vmamba_base_v0": (VMamba, _v0(128, 27, 0.6), 76_254_056, 18_019_576_832),
    "vmamba_tiny_m2": (VMamba, _m2(96, 4, 0.2), 25_340_296, 7_144_525_824),
    "vmamba_small_m2": (VMamba, _m2(96, 12, 0.3), 39_079_816, 11_226_845_184),
    "vmamba_base_m2": (VMamba, _m2(128, 12, 0.3), 67_527_528, 17_570_250_752),
    "vim_tiny": (Vim, dict(embed_dim=192, drop_path_rate=0.0), 7_148_008, 1_819_227_648),
    "vim_tiny_stride8": (Vim, dict(embed_dim=192, stride=8, drop_path_rate=0.0), 7_250_344, 6_741_179_904),
    "vim_small": (Vim, dict(embed_dim=384, drop_path_rate=0.05), 25_796_584, 5_904_264_192),
    "vim_small_stride8": (Vim, dict(embed_dim=384, stride=8, drop_path_rate=0.0), 26_001_256, 21_878_504_448),
    "vim_base": (Vim, dict(embed_dim=768), 97_598_440, 20_871_763_968),
    "deit_tiny": (ViT, _transformer(192, 3), 5_717_416, 1_258_411_200),
    "deit_small": (ViT, _transformer(384, 6), 22_050_664, 4_608_338_304),
    "deit_base": (ViT, _transformer(768, 12), 86_567_656, 17_582_740_224),
    "vit_tiny": (ViT, _transformer(192, 3), 5_717_416, 1_258_411_200),
    "vit_small": (ViT, _transformer(384, 6), 22_050_664, 4_608_338_304),
    "vit_base": (ViT, _transformer(768, 12), 86_567_656, 17_582_740_224),
    "vit_large": (ViT, _transformer(1024, 16) | dict(depth=24), 304_326_632, 61_604_135_936),
    "vit_large_patch14": (ViT, _transformer(1024, 16) | dict(depth=24, patch_size=14), 304_203_752, 81_077_482_496),
    "vit_huge": (ViT, _transformer(1280, 16) | dict(depth=32, patch_size=14), 632_045_800, 167_402_021_120),
    "vit_small_convstem": (ViT, _transformer(384, 6) | dict(conv_stem=(48, 96, 192, 384)), 22_777_576, 4_991_507_328),
    "vit_base_convstem": (ViT, _transformer(768, 12) | dict(conv_stem=(48, 96, 192, 384)), 87_147_112, 17_937_007_872),
    "swin_tiny": (Swin, _swin(96, 6, 3, 0.2), 28_288_354, 4_509_194_496),
    "swin_small": (Swin, _swin(96, 18, 3, 0.3), 49_606_258, 8_768_534_784),
    "swin_base": (Swin, _swin(128, 18, 4, 0.5), 87_768_224, 15_467_826_176),
    "convnext_tiny": (ConvNeXt, _convnext(96, 9, 0.1), 28_589_128, 4_470_399_744),
    "convnext_small": (ConvNeXt, _convnext(96, 27, 0.4), 50_223_688, 8_705_354_496),
    "convnext_base": (ConvNeXt, _convnext(128, 27, 0.5), 88_591_464, 15_383_585_792),
    "convnext_tiny_convstem": (ConvNeXt, _convnext(96, 9, 0.1, (48, 96)), 28_627_432, 4_605_272_832),
    "convnext_small_convstem": (ConvNeXt, _convnext(96, 27, 0.4, (48, 96)), 50_261_992, 8_840_227_584),
    "convnext_base_convstem": (ConvNeXt, _convnext(128, 27, 0.5, (64, 96, 128)), 88_753_416, 15_911_738_368),
    "convnext_large_convstem": (ConvNeXt, _convnext(192, 27, 0.5, (96, 144, 192)), 198_134_680, 35_587_115_520),
    "mambaout_femto": (MambaOut, _mambaout(48, (3, 3, 9, 3), 0.025), 7_304_536, 1_156_177_152),
    "mambaout_kobe": (MambaOut, _mambaout(48, (3, 3, 15, 3), 0.025), 9_141_208, 1_515_186_432),
    "mambaout_tiny": (MambaOut, _mambaout(96, (3, 3, 9, 3), 0.2), 26_545_096, 4_486_040_064),
    "mambaout_small": (MambaOut, _mambaout(96, (3, 4, 27, 3), 0.4), 48_488_072, 8_960_334_336),
    "mambaout_base": (MambaOut, _mambaout(128, (3, 4, 27, 3), 0.6), 84_813_092, 15_826_206_720),
    "mambaout_small_rw": (MambaOut, _mambaout_rw(96, (3, 4, 27, 3)), 48_495_560, 8_958_676_416),
    "mambaout_base_short_rw": (MambaOut, _mambaout_rw(128, (3, 3, 25, 3), expansion_ratio=3.0, conv_ratio=1.25), 88_827_688, 16_308_448_576),
    "mambaout_base_tall_rw": (MambaOut, _mambaout_rw(128, (3, 4, 30, 3), expansion_ratio=2.5, conv_ratio=1.25), 86_481_448, 16_147_860_288),
    "mambaout_base_wide_rw": (MambaOut, _mambaout_rw(128, (3, 4, 27, 3), expansion_ratio=3.0, conv_ratio=1.5, act="silu"), 94_448_104, 17_781_468_544),
    "mambaout_base_plus_rw": (MambaOut, _mambaout_rw(128, (3, 4, 30, 3), expansion_ratio=3.0, conv_ratio=1.5, act="silu"), 101_656_552, 19_192_367_488),
    "spatialmamba_tiny": (SpatialMamba, _spatialmamba(64, (2, 4, 8, 4), 0.2), 26_748_862, 4_463_591_936),
    "spatialmamba_small": (SpatialMamba, _spatialmamba(64, (2, 4, 21, 5), 0.3), 43_074_280, 7_116_948_992),
    "spatialmamba_base": (SpatialMamba, _spatialmamba(96, (2, 4, 21, 5), 0.5), 95_745_592, 15_800_600_832),
    "mambavision_tiny": (MambaVision, _mambavision(80, (1, 3, 8, 4), stem=32), 31_794_248, 4_582_229_376),
    "mambavision_tiny2": (MambaVision, _mambavision(80, (1, 3, 11, 4), stem=32), 35_104_008, 5_259_417_216),
    "mambavision_small": (MambaVision, _mambavision(96, (3, 3, 7, 5)), 50_140_584, 7_599_891_840),
    "mambavision_base": (MambaVision, _mambavision(128, (3, 3, 10, 5), 0.3, layer_scale=1e-5), 97_685_288, 15_198_707_200),
    "mambavision_large": (MambaVision, _mambavision(196, (3, 3, 10, 5), 0.3, heads=4, layer_scale=1e-5), 227_961_048, 35_215_334_896),
    "mambavision_large2": (MambaVision, _mambavision(196, (3, 3, 12, 5), 0.3, heads=4, layer_scale=1e-5), 241_554_824, 37_943_869_712),
    "dinov2_small": (ViT, dict(_transformer(384, 6), patch_size=14, image_size=518, layer_scale=1.0, antialias=False, resize_offset=0.1, num_classes=0), 22_056_192, 6_147_946_368),
    "resnet18": (ResNet, dict(block="basic", layers=(2, 2, 2, 2)), 11_689_512, 1_814_073_344),
    "resnet50": (ResNet, dict(block="bottleneck", layers=(3, 4, 6, 3)), 25_557_032, 4_089_184_256),
    "efficientnet_lite0": (EfficientNetLite, {}, 4_652_008, 405_522_944),
    "efficientnet_lite1": (EfficientNetLite, dict(depth=1.1), 5_416_680, 623_399_232),
    "efficientnet_lite2": (EfficientNetLite, dict(width=1.1, depth=1.2, dropout_rate=0.3), 6_092_072, 887_794_672),
}

def _sequence(layer, state, side, channels, classes, depth, hidden):
    """A sequence classifier of the released size for one data set; the Transformer, which was not released, has Mega's."""
    fields = dict(layer=layer, in_channels=channels, num_classes=classes, depth=depth, d_state=state, max_length=side * side)
    return fields | (dict(hidden=hidden) if layer in ("mega", "transformer") else {}), Preprocessing((0.0,), (1.0,), side, side)


_SETS = {"mnist": (28, 1, 10, 2, 32), "cifar10": (32, 3, 10, 4, 256), "tiny_imagenet": (64, 3, 50, 4, 256)}  # side, channels, classes, depth, hidden
_SEQUENCES = {  # prefix of the names: layer, states on MNIST and elsewhere, (parameters, multiply-adds) on each set
    "s4": ("s4", 32, 64, (44_202, 46_551_932), (103_562, 120_587_520), (108_722, 519_051_520)),
    "dss": ("dss", 32, 64, (44_106, 56_382_332), (103_178, 181_142_784), (108_338, 756_029_696)),
    "s5": ("s5", 128, 128, (134_410, 53_789_952), (267_274, 139_986_176), (272_434, 559_945_984)),
    "mega": ("mega", 32, 64, (163_464, 238_992_252), (903_686, 2_246_706_432), (933_422, 25_124_411_648)),
    "mamba": ("s6", 32, 16, (259_850, 305_472_768), (469_002, 612_893_952), (474_162, 2_451_577_088)),
    "transformer": ("transformer", 32, 64, (251_978, 432_919_808), (663_050, 1_616_905_472), (1_061_426, 19_352_525_056)),
}


def _sequence_entries():
    for prefix, (layer, small, large, *counts) in _SEQUENCES.items():
        for (data, size), count in zip(_SETS.items(), counts, strict=True):
            fields, preprocessing = _sequence(layer, small if data == "mnist" else large, *size)
            yield f"{prefix}_{data}", Entry(SequenceClassifier, fields, *count, unreleased=preprocessing)


MODELS = {name: Entry(*facts, releases=RELEASES.get(name, ())) for name, facts in _MODELS.items()} | dict(_sequence_entries())
FAMILIES = tuple(dict.fromkeys(entry.family for entry in MODELS.values()))
"""Classes of the catalog's models, each once."""

HEADS = {"upernet": UperNet, "mask_rcnn": MaskRCNN}
_DENSE = {  # backbone: parameters with UperNet (150 classes, both heads) and with Mask R-CNN (80 classes)
    "vmamba_tiny": (61_902_572, 49_755_312), "vmamba_tiny_s2l5": (62_359_340, 50_212_080), "vmamba_small": (81_801_260, 69_654_000),
    "vmamba_base": (122_069_292, 107_931_376), "vmamba_tiny_v0": (54_546_956, 42_399_696), "vmamba_small_v0": (76_070_924, 63_923_664),
    "vmamba_base_v0": (109_765_548, 95_627_632), "swin_tiny": (59_941_862, 47_794_602), "swin_small": (81_259_766, 69_112_506),
    "swin_base": (121_279_716, 107_141_800), "convnext_tiny": (60_242_636, 48_095_376), "convnext_small": (81_877_196, 69_729_936),
    "convnext_base": (122_102_956, 107_965_040), "vim_tiny": (12_311_084, 27_658_608),
    "vim_small": (45_447_980, 47_798_256), "vim_base": (174_316_844, 125_236_464), "resnet50": (66_496_876, 44_396_336),
}
_SHORT_SIDE = {"upernet": Preprocessing(size=512, resize=512, interpolation="bilinear"),
               "mask_rcnn": Preprocessing(size=800, resize=800, interpolation="bilinear")}  # of images that keep their proportions
_DENSE_FIELDS = {  # of backbones, as in MMSegmentation and MMDetection, and in Vim's repository
    Swin: dict(always_partition=True, padding="before_roll"),
    Vim: dict(class_token="none", out_indices=(5, 11, 17, 23), image_size=512)}


def _dense_entries():
    for i, (head, family) in enumerate(HEADS.items()):
        for name, counts in _DENSE.items():
            backbone = MODELS[name].fields | dict(out_indices=(0, 1, 2, 3)) | _DENSE_FIELDS.get(MODELS[name].family, {})
            widths = dict(channels=backbone["embed_dim"]) if MODELS[name].family is Vim and family is UperNet else {}  # as in Vim's repository
            yield f"{head}_{name}", Entry(family, dict(backbone=MODELS[name].family(**backbone), **widths), counts[i], None, unreleased=_SHORT_SIDE[head])


DENSE = dict(_dense_entries())
"""Segmenters and detectors, each over a backbone of the catalog."""

# The original repositories' builders and timm's architectures, where their names differ.
_TIMM = {"deit": "patch16_224", "vit": "patch16_224", "swin": "patch4_window7_224"}
ALIASES = {
    "vmamba_tiny_s1l8": "vmamba_tiny", "vmamba_small_s2l15": "vmamba_small", "vmamba_base_s2l15": "vmamba_base",
    "vanilla_vmamba_tiny": "vmamba_tiny_v0", "vanilla_vmamba_small": "vmamba_small_v0", "vanilla_vmamba_base": "vmamba_base_v0",
    "vim_base_patch16_224_bimambav2_final_pool_mean_abs_pos_embed_with_middle_cls_token_div2": "vim_base",
} | {f"{family}_{size}_{rest}": f"{family}_{size}" for family, rest in _TIMM.items() for size in ("tiny", "small", "base")} | {
    "vit_large_patch16_224": "vit_large", "vit_large_patch14_224": "vit_large_patch14", "vit_huge_patch14_224": "vit_huge"} | {
    f"vim_{size}_patch16{stride}_224_bimambav2_final_pool_mean_abs_pos_embed_with_midclstok_div2": f"vim_{size}{stride}"
    for size in ("tiny", "small") for stride in ("", "_stride8")} | {
    f"mamba_vision_{short}": f"mambavision_{size}" for short, size in (("T", "tiny"), ("T2", "tiny2"), ("S", "small"), ("B", "base"), ("L", "large"), ("L2", "large2"))} | {
    "dinov2_vits14": "dinov2_small"} | {f"s6_{data}": f"mamba_{data}" for data in _SETS}


def list_models(pattern="*"):
    """Names of the models that match a shell-style pattern, in the catalog's order.

    Without the name of its head, "upernet" or "mask_rcnn", at its beginning, a pattern matches classifiers only.
    """
    return [name for name in (DENSE if pattern.startswith(tuple(HEADS)) else MODELS) if fnmatch.fnmatchcase(name, pattern)]


def entry(name):
    """The catalog's `Entry` of a name.

    Args:
        name: one of `list_models()`, the name of the original repository's builder, or timm's name of the architecture. A tag after a dot selects
            one of its releases, "resnet50.tv2_in1k"; that release is then the first of the entry.

    Raises:
        KeyError: an unknown name or tag; the message lists the known ones.
    """
    base, _, tag = name.partition(".")
    head = next((head for head in HEADS if base.startswith(f"{head}_")), None)
    if head is not None:
        backbone = base.removeprefix(f"{head}_")
        found = DENSE.get(f"{head}_{ALIASES.get(backbone, backbone)}")
    else:
        found = MODELS.get(ALIASES.get(base, base))
    if found is None:
        raise KeyError(f"model={name!r}: expected one of {', '.join(MODELS if head is None else list_models(f'{head}_*'))}")
    if not tag:
        return found
    tags = {release.tag.partition(".")[2] or release.tag: release for release in found.releases}
    if tag not in tags:
        raise KeyError(f"model={name!r}: expected a release of {base} after the dot, {', '.join(tags) or 'which has no released weights'}")
    return dataclasses.replace(found, releases=(tags.pop(tag), *tags.values()))


def create_model(name, features_only=False, **overrides):
    """A Linen module by name, called as `model.apply(variables, images, train=False)` on normalized NHWC images.

    Args:
        name: as for `entry`.
        features_only: return the maps of all stages (strides 4, 8, 16, 32) instead of logits, the same as out_indices=(0, 1, 2, 3). Each map passes
            a norm of its own (`outnorm{i}`), as in the family's detectors; not for ResNet. Of Vim, whose blocks have one stride, the maps of four
            blocks, resized, see `vim.pyramid`.
        overrides: fields of the module, such as num_classes=10, dtype="bfloat16", scan_pattern="bidi". Of a segmenter or detector, `backbone` is a
            dict of the backbone's fields, and the backbone has its dtypes too; of a detector, proposals, training_proposals, detections, rpn_sampling
            and box_sampling may be dicts of some of their fields.

    Raises:
        KeyError: an unknown name.
        TypeError: an override that is not a field of the module, or features_only for a family without maps.
        ValueError: a dtype that is not a floating-point type.
    """
    found = entry(name)
    known = [field.name for field in dataclasses.fields(found.family) if field.name not in ("parent", "name")]
    unknown = [key for key in overrides if key not in known]
    if unknown:
        raise TypeError(f"{', '.join(f'{key}={overrides[key]!r}' for key in unknown)}: expected fields of {name}: {', '.join(known)}")
    if found.family in HEADS.values():
        overrides = overrides | {"backbone": _backbone(name, found.fields["backbone"], overrides)}
    fields = {key: _hashable(_record(found.family, key, value)) for key, value in {**found.fields, **overrides}.items()}
    model = found.family(**fields | {key: checks.floating(key, fields[key]) for key in ("dtype", "param_dtype") if key in fields})
    if not features_only or getattr(model, "out_indices", None):
        return model
    if "out_indices" not in known:
        raise TypeError(f"features_only=True: expected a model with stages, not {name}")
    if found.family is Vim:
        return model.clone(out_indices=tuple((i + 1) * model.depth // 4 - 1 for i in range(4)), class_token="none")
    return model.clone(out_indices=tuple(range(len(model.depths))))


def _backbone(name, backbone, overrides):
    """The backbone of a segmenter or detector with the overrides."""
    given = overrides.get("backbone", {})
    if not isinstance(given, dict):
        raise TypeError(f"backbone={given!r}: expected a dict of the backbone's fields")
    known = [field.name for field in dataclasses.fields(backbone) if field.name not in ("parent", "name", "out_indices")]
    if unknown := [key for key in given if key not in known]:
        raise TypeError(f"{', '.join(f'backbone.{key}={given[key]!r}' for key in unknown)}: expected fields of {name}'s backbone: {', '.join(known)}")
    dtypes = {key: overrides[key] for key in ("dtype", "param_dtype") if key in overrides} | given
    return backbone.clone(**{key: checks.floating(key, value) if key in ("dtype", "param_dtype") else _hashable(value) for key, value in dtypes.items()})


def _record(family, key, value):
    """A dict for a field that has a record as its default, as that record with these fields replaced; any other value unchanged."""
    default = family.__dataclass_fields__[key].default
    if not isinstance(value, dict) or not dataclasses.is_dataclass(default) or isinstance(default, type):
        return value
    known = [field.name for field in dataclasses.fields(default)]
    if unknown := [name for name in value if name not in known]:
        raise TypeError(f"{', '.join(f'{key}.{name}={value[name]!r}' for name in unknown)}: expected some of {', '.join(known)}")
    return dataclasses.replace(default, **value)


def _hashable(value):
    """Lists and arrays as (nested) tuples, because the fields of a module must be hashable."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return tuple(_hashable(v) for v in value) if isinstance(value, (list, tuple)) else value
