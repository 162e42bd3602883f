"""Mean corruption error, and the plain mean."""
import numpy as np

from vmamba_jax.core import checks
from vmamba_jax.evaluation.corruptions.catalog import CORRUPTIONS, EXTRA

# AlexNet's error on each corruption of ImageNet-C, mean over the severities: Hendrycks & Dietterich 2019, digits as in AugMix's released program.
ALEXNET = {
    "gaussian_noise": 0.886428, "shot_noise": 0.894468, "impulse_noise": 0.922640, "defocus_blur": 0.819880, "glass_blur": 0.826268,
    "motion_blur": 0.785948, "zoom_blur": 0.798360, "snow": 0.866816, "frost": 0.826572, "fog": 0.819324, "brightness": 0.564592,
    "contrast": 0.853204, "elastic_transform": 0.646056, "pixelate": 0.717840, "jpeg_compression": 0.606500,
}
ALEXNET_CLEAN = 0.4348


def mean_corruption_error(errors, clean_error=None, relative=False):
    """mCE, or relative mCE, in per cent (Hendrycks & Dietterich 2019, arXiv 1903.12261, section 4.2).

    Args:
        errors: {corruption: errors in [0, 1] at severities 1 to 5}, for all of `CORRUPTIONS` and nothing else.
        clean_error: error in [0, 1] on the clean images; needed where relative.
        relative: subtract the clean errors, the model's and AlexNet's, from the errors.

    Returns the mean over corruptions of the errors' sum divided by AlexNet's. Of ImageNet only: AlexNet's errors are. A plain mean of
    errors, also called mCE by some, is `mean_error`. Raises ValueError naming what is missing or not in range.
    """
    checks.flag("relative", relative)
    means = _means(errors)
    if missing := [name for name in CORRUPTIONS if name not in means]:
        raise ValueError(f"errors lack {', '.join(missing)}: expected all {len(CORRUPTIONS)} corruptions of the benchmark")
    if others := [name for name in means if name not in CORRUPTIONS]:
        raise ValueError(f"errors have {', '.join(others)}: expected the {len(CORRUPTIONS)} corruptions of the benchmark alone")
    ours, theirs = 0.0, 0.0
    if relative:
        if clean_error is None:
            raise ValueError("clean_error=None with relative=True: expected the error on the clean images")
        ours, theirs = _share("clean_error", clean_error), ALEXNET_CLEAN
    return 100 * float(np.mean([(means[name] - ours) / (ALEXNET[name] - theirs) for name in CORRUPTIONS]))


def mean_error(errors):
    """The plain mean over corruptions and severities, in [0, 1]: what CIFAR-10-C is reported by. errors: as of `mean_corruption_error`, any names."""
    return float(np.mean(list(_means(errors).values())))


def _means(errors):
    if not errors:
        raise ValueError(f"errors={errors!r}: expected {{corruption: errors at severities 1 to 5}}")
    means = {}
    for name, values in errors.items():
        checks.choice("errors", name, CORRUPTIONS + EXTRA)
        if len(values) != 5:
            raise ValueError(f"errors[{name!r}] has {len(values)} entries: expected one for each severity, 1 to 5")
        means[name] = float(np.mean([_share(f"errors[{name!r}]", value) for value in values]))
    return means


def _share(name, value):
    if not 0 <= checks.number(name, value) <= 1:
        raise ValueError(f"{name}={value!r}: expected an error in [0, 1]")
    return float(value)
