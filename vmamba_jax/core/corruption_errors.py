"""AlexNet's errors on ImageNet-C, and means over corruptions, without JAX."""
from collections.abc import Mapping, Sequence

import numpy as np

# Error of AlexNet on each corruption of ImageNet-C, averaged over severities: Hendrycks & Dietterich 2019, digits as in AugMix's program.
ALEXNET = {
    "gaussian_noise": 0.886428, "shot_noise": 0.894468, "impulse_noise": 0.922640, "defocus_blur": 0.819880, "glass_blur": 0.826268,
    "motion_blur": 0.785948, "zoom_blur": 0.798360, "snow": 0.866816, "frost": 0.826572, "fog": 0.819324, "brightness": 0.564592,
    "contrast": 0.853204, "elastic_transform": 0.646056, "pixelate": 0.717840, "jpeg_compression": 0.606500,
}
ALEXNET_CLEAN = 0.4348
SEVERITIES = (1, 2, 3, 4, 5)


def relative(means: Mapping[str, float], ours: float = 0.0, theirs: float = 0.0) -> float:
    """Mean over AlexNet's corruptions of the error divided by AlexNet's, in percent.

    Args:
        means: {corruption: error in [0, 1], averaged over the severities}.
        ours, theirs: subtracted from the errors of the model and of AlexNet.

    Source: Hendrycks & Dietterich 2019, arXiv 1903.12261, section 4.2.
    """
    return 100 * float(np.mean([(means[name] - ours) / (error - theirs) for name, error in ALEXNET.items()]))


def accuracies(rows: Sequence[Mapping]) -> dict[str, list[float]]:
    """{corruption: accuracies} of rows with "corruption" and "accuracy", in their order."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["corruption"], []).append(row["accuracy"])
    return found
