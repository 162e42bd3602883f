"""Mean corruption error (mCE) and the unweighted mean error."""
import numpy as np

from vmamba_jax.core import checks, corruption_errors
from vmamba_jax.core.corruption_errors import ALEXNET, ALEXNET_CLEAN
from vmamba_jax.evaluation.corruptions.catalog import CORRUPTIONS, EXTRA

__all__ = ["ALEXNET", "ALEXNET_CLEAN", "mean_corruption_error", "mean_error"]


def mean_corruption_error(errors, clean_error=None, relative=False):
    """mCE, or relative mCE, in percent, for ImageNet. The unweighted mean of errors, sometimes also called mCE, is `mean_error`.

    Args:
        errors: {corruption: errors in [0, 1] at severities 1 to 5}, for all of `CORRUPTIONS` and nothing else.
        clean_error: error in [0, 1] on the clean images; needed if relative.
        relative: subtract the clean errors of the model and of AlexNet from the errors.

    Returns:
        100 times the mean over corruptions of the error, averaged over severities, divided by AlexNet's error on ImageNet-C.

    Raises:
        ValueError: a missing or unknown corruption, or an error outside [0, 1].

    Source: Hendrycks & Dietterich 2019, arXiv 1903.12261, section 4.2.
    """
    checks.flag("relative", relative)
    means = _means(errors)
    if missing := [name for name in CORRUPTIONS if name not in means]:
        raise ValueError(f"errors lack {', '.join(missing)}: expected all {len(CORRUPTIONS)} corruptions of the benchmark")
    if others := [name for name in means if name not in CORRUPTIONS]:
        raise ValueError(f"errors have {', '.join(others)}: expected the {len(CORRUPTIONS)} corruptions of the benchmark and no other")
    ours, theirs = 0.0, 0.0
    if relative:
        if clean_error is None:
            raise ValueError("clean_error=None with relative=True: expected the error on the clean images")
        ours, theirs = _error("clean_error", clean_error), ALEXNET_CLEAN
    return corruption_errors.relative(means, ours, theirs)


def mean_error(errors):
    """Mean error over corruptions and severities, in [0, 1], as reported for CIFAR-10-C; errors: of any corruptions."""
    return float(np.mean(list(_means(errors).values())))


def _means(errors):
    if not errors:
        raise ValueError(f"errors={errors!r}: expected {{corruption: errors at severities 1 to 5}}")
    means = {}
    for name, values in errors.items():
        checks.choice("errors", name, CORRUPTIONS + EXTRA)
        if len(values) != 5:
            raise ValueError(f"errors[{name!r}] has {len(values)} entries: expected one for each severity, 1 to 5")
        means[name] = float(np.mean([_error(f"errors[{name!r}]", value) for value in values]))
    return means


def _error(name, value):
    if not 0 <= checks.number(name, value) <= 1:
        raise ValueError(f"{name}={value!r}: expected an error in [0, 1]")
    return float(value)
