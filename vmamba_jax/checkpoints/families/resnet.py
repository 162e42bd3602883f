"""ResNet: timm's constructor; names of timm and torchvision, which are equal."""
from vmamba_jax.checkpoints.families.common import at_most_four, dotted
from vmamba_jax.core import checks
from vmamba_jax.models.baselines.resnet import BLOCKS, ResNet

MODEL = ResNet
CLASSIFIER = ("fc.",)

DEFAULTS = dict(
    block="bottleneck", layers=(3, 4, 6, 3), num_classes=1000, in_chans=3, output_stride=32, global_pool="avg", cardinality=1, base_width=64,
    stem_width=64, stem_type="", replace_stem_pool=False, block_reduce_first=1, down_kernel_size=1, avg_down=False, channels=(64, 128, 256, 512),
    act_layer="relu", norm_layer="batchnorm", aa_layer=None, drop_rate=0.0, drop_path_rate=0.0, drop_block_rate=0.0, zero_init_last=True,
    block_args=None)
SUPPORTED = ("block", "layers", "num_classes", "in_chans", "channels", "stem_width", "drop_path_rate", "zero_init_last")
FIXED = tuple(name for name in DEFAULTS if name not in SUPPORTED)
TIMM_BLOCKS = {"BasicBlock": "basic", "Bottleneck": "bottleneck"}  # timm's classes, by name


def build(o):
    """The ResNet of timm's options `o`, a complete dict. `stem_width` has no effect: timm's plain stem always has 64 channels."""
    at_most_four(o, "layers", "channels")
    name = getattr(o["block"], "__name__", o["block"])
    block = checks.choice("block", TIMM_BLOCKS.get(name, name), BLOCKS)
    return ResNet(num_classes=o["num_classes"], layers=tuple(o["layers"]), channels=tuple(o["channels"]), block=block, in_channels=o["in_chans"],
                  zero_init_last=bool(o["zero_init_last"]), drop_path_rate=o["drop_path_rate"])


def original_name(model, path):
    """State-dict name of the Flax leaf at `path`."""
    del model
    return dotted(path)
