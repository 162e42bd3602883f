"""The corruptions of ImageNet-C, Tiny-ImageNet-C and CIFAR-10-C computed on the device, and mean corruption error.

    images = corruptions.corrupt("fog", 3, images, keys)               # (b, S, S, 3) in [0, 1]
    corruptions.mean_corruption_error({"fog": [0.3, 0.35, ...], ...})   # mCE relative to AlexNet, in percent
"""
from vmamba_jax.evaluation.corruptions.apply import corrupt
from vmamba_jax.evaluation.corruptions.catalog import CORRUPTIONS, EXTRA, FUNCTIONS, GROUPS
from vmamba_jax.evaluation.corruptions.scores import ALEXNET, ALEXNET_CLEAN, mean_corruption_error, mean_error
from vmamba_jax.evaluation.corruptions.severities import SEVERITIES, TABLES, parameters

__all__ = ["ALEXNET", "ALEXNET_CLEAN", "CORRUPTIONS", "EXTRA", "FUNCTIONS", "GROUPS", "SEVERITIES", "TABLES", "corrupt",
           "mean_corruption_error", "mean_error", "parameters"]
