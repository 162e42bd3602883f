"""EfficientNet-Lite: the options and names of the PyTorch program `efficientnet_lite_pytorch`."""
from vmamba_jax.checkpoints.families.common import dotted
from vmamba_jax.models.baselines.efficientnet import EfficientNetLite

MODEL = EfficientNetLite
CLASSIFIER = ("_fc.",)

DEFAULTS = dict(width_coefficient=1.0, depth_coefficient=1.0, in_channels=3, num_classes=1000, dropout_rate=0.2, drop_connect_rate=0.2,
                batch_norm_momentum=0.99, batch_norm_epsilon=1e-3, depth_divisor=8, min_depth=None, relu_fn="relu6", fix_head_stem=True,
                local_pooling=False, use_se=False, image_size=None)
FIXED = ("batch_norm_momentum", "batch_norm_epsilon", "depth_divisor", "min_depth", "relu_fn", "fix_head_stem", "local_pooling", "use_se")


def build(o):
    """The EfficientNetLite of the options `o`, a complete dict; image_size has no effect."""
    return EfficientNetLite(num_classes=o["num_classes"], width=o["width_coefficient"], depth=o["depth_coefficient"], in_channels=o["in_channels"],
                            drop_path_rate=o["drop_connect_rate"], dropout_rate=o["dropout_rate"])


def original_name(model, path):
    """State-dict name of the Flax leaf at `path`: every module's name begins with an underscore."""
    del model
    *modules, leaf = path
    return ".".join([*("_" + dotted([module]) for module in modules), dotted([leaf])])
